"""A state dict into a Keras model: every number in its place, all names or none."""

import keras
import numpy as np
import pytest
import torch

import bridge
from bridge import state_dict

layers = keras.layers


def network(tied=False):
    """Everything that torch holds otherwise: kernels, depthwise kernels, rows behind Flatten, gates, parts, ties."""
    image = keras.Input((6, 4, 3), name="image")
    x = layers.Conv2D(4, (3, 2), padding="same", name="conv")(image)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = layers.Conv2DTranspose(5, 2, strides=2, name="up")(x)
    y = layers.LSTM(6, name="lstm")(layers.Reshape((8, -1))(x))
    z = layers.MultiHeadAttention(2, 3, name="attention")(*[layers.Reshape((16, -1))(x)] * 2)
    x = layers.Concatenate()([layers.Dense(3, name="dense")(layers.Flatten()(x)), y, layers.Flatten()(z)])
    last = layers.Dense(x.shape[-1], name="last")
    x = last(last(x) if tied else x)
    return keras.Model(image, x, name="net")


def random_weights(model, seed):
    rng = np.random.default_rng(seed)
    for v in model.weights:
        v.assign(rng.uniform(0.5, 1.5, v.shape) if "variance" in v.name else rng.normal(0, 0.3, v.shape))
    return model


@pytest.fixture(scope="module")
def source():
    model = random_weights(network(), 0)
    return model, bridge.to_torch(model).state_dict()


def assert_same(model, other):
    for a, b in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)


@pytest.mark.parametrize("form", ["tensors", "arrays", "safetensors", "pt", "wrapped"])
def test_every_number_comes_back_to_its_place(source, form, tmp_path):
    from safetensors.torch import save_file

    model, state = source
    if form == "arrays":
        state = {k: v.numpy() for k, v in state.items()}
    elif form == "safetensors":
        save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "a.safetensors")
        state = tmp_path / "a.safetensors"
    elif form != "tensors":
        torch.save({"state_dict": state, "epoch": 3} if form == "wrapped" else state, tmp_path / "a.pt")
        state = str(tmp_path / "a.pt")
    other = random_weights(network(), 1)
    assert bridge.load_weights(other, state) is other
    assert_same(other, model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes(source, dtype):
    _, state = source
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    other = bridge.load_weights(network(), state)
    np.testing.assert_array_equal(other.get_layer("dense").bias, state["dense.bias"].float())


def test_a_layer_that_is_called_twice_is_loaded_once():
    model = random_weights(network(tied=True), 0)
    other = bridge.load_weights(random_weights(network(tied=True), 1), bridge.to_torch(model).state_dict())
    assert_same(other, model)


def test_what_does_not_fit_is_named_at_once_and_nothing_is_changed(source):
    _, state = source
    other = random_weights(network(), 1)
    before = other.get_weights()
    wrong = {k: v for k, v in state.items() if k not in ("dense.weight", "bn.running_mean")}
    wrong |= {"more.weight": torch.zeros(2, 3), "dense.bias": torch.zeros(4), "conv.weight": torch.zeros(4, 3, 2, 3)}
    with pytest.raises(bridge.BridgeError) as error:
        bridge.load_weights(other, wrong)
    assert str(error.value).splitlines() == [
        "the state dict is not one of net:",
        "  - 2 missing: bn.running_mean, dense.weight",
        "  - 1 unexpected: more.weight (2, 3)",
        "  - 2 of another shape: conv.weight (4, 3, 2, 3), not (4, 3, 3, 2), dense.bias (4,), not (3,)",
    ]
    for a, b in zip(before, other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("names", "expected", "found"),
    [
        (["module.a", "module.b"], (), ["a", "b"]),
        (["module._orig_mod.a"], (), ["a"]),
        (["_orig_mod.module.a"], (), ["a"]),
        (["module.a", "b"], (), ["module.a", "b"]),
        (["module.a"], ["module.a"], ["module.a"]),  # its own name
        (["other.a"], (), ["other.a"]),
        ([], (), []),
    ],
)
def test_what_a_wrapper_has_put_in_front_is_taken_off(names, expected, found):
    assert list(state_dict.unwrapped(dict.fromkeys(names, 0), expected)) == found


def test_a_state_of_data_parallel(source):
    model, state = source
    assert_same(bridge.load_weights(network(), {f"module.{name}": value for name, value in state.items()}), model)


def test_counts_of_batches_may_be_left_out(source):
    model, state = source
    assert "bn.num_batches_tracked" in state
    other = bridge.load_weights(network(), {k: v for k, v in state.items() if "num_batches" not in k})
    assert_same(other, model)


def test_tensors_that_are_one_weight_must_agree(source, monkeypatch):
    _, state = source
    found = state_dict.places(network(), {})
    monkeypatch.setattr(state_dict, "places", lambda model, names: found | {"twin": found["dense.bias"]})
    model = bridge.load_weights(network(), state | {"twin": state["dense.bias"]})
    with pytest.raises(bridge.BridgeError, match="twin: differs from another tensor that is the same weight"):
        bridge.load_weights(model, state | {"twin": state["dense.bias"] + 1})


def test_weights_of_a_wrapper_and_its_states():
    image = keras.Input((4,))
    model = keras.Model(image, layers.SpectralNormalization(layers.Dense(3), name="spectral")(image), name="net")
    other = keras.models.clone_model(random_weights(model, 0))
    assert_same(bridge.load_weights(other, bridge.to_torch(model).state_dict()), model)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no file of torch", "cannot be read as a state dict"),
        ([1, 2], "must hold a state dict, a dictionary from names to tensors. It is a list"),
        ({"epoch": 1, "net": {}}, "In it epoch is a int, net is a dict: save the state dict alone"),
    ],
)
def test_files_that_hold_none(content, message, tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(bridge.BridgeError, match=message):
        bridge.load_weights(network(), path)


@pytest.mark.parametrize("around", ["state_dict", "model_state_dict", "model"])
def test_what_a_trainer_writes_around_it_is_taken_off(around, tmp_path):
    model = random_weights(network(), 1)
    other = keras.models.clone_model(model)
    torch.save({"epoch": 3, around: bridge.to_torch(model).state_dict()}, tmp_path / "a.pt")
    assert_same(bridge.load_weights(other, tmp_path / "a.pt"), model)


def test_complex_numbers_are_refused():
    state = dict(bridge.to_torch(network()).state_dict())
    name = next(name for name in state if name.endswith("bias"))
    state[name] = state[name].to(torch.complex64)
    with pytest.raises(bridge.BridgeError, match=f"1 not of real numbers: {name} complex64"):
        bridge.load_weights(network(), state)


def test_no_code_of_a_file_is_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "evil"), "w"))

    torch.save({"a": Evil()}, tmp_path / "a.pt")
    with pytest.raises(bridge.BridgeError, match="cannot be read as a state dict"):
        bridge.load_weights(network(), tmp_path / "a.pt")
    assert not (tmp_path / "evil").exists()


class Twin(torch.nn.Module):
    """The same network as a hand writes it, with names of its own."""

    def __init__(self, swapped=False):
        super().__init__()
        nn = torch.nn
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        first, second = ("b", "a") if swapped else ("a", "b")
        self.body = nn.ModuleDict({key: nn.Conv2d(4, 4, 3, padding=1) for key in (first, second)})
        self.out = nn.Linear(4, 7)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(self.body["b"](torch.relu(self.body["a"](x))))
        return self.out(x.mean((2, 3)))


def twin_of_keras():
    x = image = keras.Input((8, 9, 3))
    x = layers.Conv2D(4, 3, padding="same", name="first")(x)
    x = layers.ReLU()(layers.BatchNormalization(epsilon=1e-5, name="normed")(x))
    for name in ("second", "third"):
        x = layers.Conv2D(4, 3, padding="same", activation="relu", name=name)(x)
    return keras.Model(image, layers.Dense(7, name="classes")(layers.GlobalAveragePooling2D()(x)), name="own")


def live_twin(**options):
    torch.manual_seed(0)
    twin = Twin(**options).eval()
    for name, tensor in twin.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5 if "var" in name else torch.randn_like(tensor) * 0.4)
    return twin


def test_a_differently_named_twin_is_filled_by_the_order_of_its_layers():
    twin, model = live_twin(), random_weights(twin_of_keras(), 1)
    pairs = state_dict.load(model, twin.state_dict())
    assert {(p.source, p.how) for p in pairs} >= {
        ("stem.0.weight", "the only one of its kind"),
        ("body.a.weight", "by order"),
        ("out.bias", "the only one of its kind"),
    }
    x = np.random.default_rng(0).normal(size=(2, 8, 9, 3)).astype("float32")
    with torch.no_grad():
        expected = twin(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    assert np.ptp(expected, axis=0).max() > 1e-3
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-6)


def test_what_no_order_tells_is_listed_and_nothing_is_changed():
    state = live_twin().state_dict()
    state["more.weight"] = torch.zeros(3, 3)
    model = random_weights(twin_of_keras(), 1)
    before = model.get_weights()
    with pytest.raises(bridge.BridgeError) as error:
        bridge.load_weights(model, state)
    text = str(error.value)
    assert "the names in the state dict are not those of own" in text and "give a table of names" in text
    assert "without a place: body.a.weight (4, 4, 3, 3), body.a.bias (4,), body.b.weight" in text
    assert "more.weight (3, 3)" in text and "not filled: second.weight (4, 4, 3, 3)" in text
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
