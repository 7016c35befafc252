"""ConvLSTM of lines, pictures and volumes, both ways: options, masks, states, directions, dropout, the class alone."""

import inspect

import keras
import numpy as np
import pytest
import torch
from torch import nn

import bridge
from bridge import lockstep
from bridge.torch_writer import execute

layers = keras.layers
KINDS = {1: layers.ConvLSTM1D, 2: layers.ConvLSTM2D, 3: layers.ConvLSTM3D}
SIZES = {1: (7,), 2: (5, 4), 3: (3, 4, 3)}


@pytest.fixture(autouse=True, scope="module")
def one_step():
    """One step of training shows that both sides move alike; TensorFlow takes long for each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lockstep, "STEPS", 1)
        yield


def conv_lstm(rank=2, kernel=3, **options):
    """A layer of three filters."""
    return KINDS[rank](3, kernel, name="r", **options)


def model_of(layer, rank=2, states=(), masked=False, sizes=None):
    """A model of one layer, of inputs of two channels, with states of these shapes and a mask of its first number."""
    x = keras.Input((None, *(sizes or SIZES[rank]), 2), name="x")
    given = [keras.Input(s, name=f"state{i}") for i, s in enumerate(states)]
    keywords = {"initial_state": given} if given else {}
    keywords |= {"mask": x[(slice(None), slice(None), *(0,) * (rank + 1))] > -0.5} if masked else {}
    return keras.Model([x, *given] if given else x, layer(x, **keywords))


def both(check, model, proof=True, **options):
    """Carry a model both ways at few steps, and verify it, unless another test does so with the same gradients."""
    module, again = check.both_ways(model, size=3, **options)
    if proof:
        rng = np.random.default_rng(3)
        given = [rng.normal(size=(2, *[n or 3 for n in t.shape[1:]])).astype("float32") for t in model.inputs]
        report = bridge.verify(model, module, given)
        assert report.passed, str(report)
    return module, again


@pytest.mark.parametrize(
    ("rank", "options"),
    [
        (2, {"padding": "same", "return_sequences": True}),
        (2, {"use_bias": False}),
        (2, {"padding": "same", "kernel": (3, 2), "strides": (2, 1)}),
        (2, {"padding": "same", "kernel": (2, 3), "dilation_rate": 2, "return_sequences": True}),
        (2, {"strides": 2, "activation": "relu", "recurrent_activation": "hard_sigmoid"}),
        (1, {"padding": "same", "strides": 2, "return_sequences": True}),
        (1, {"dilation_rate": 2, "activation": "linear"}),
        (3, {"padding": "same", "kernel": (2, 3, 1), "return_sequences": True}),
        (3, {"kernel": 2, "strides": (1, 2, 1)}),
    ],
    ids=str,
)
def test_options(check, rank, options):
    module, again = both(check, model_of(conv_lstm(rank, **options), rank), proof="strides" in options or rank == 2)
    assert type(module.r).__name__ == "ConvLSTM" and type(again.get_layer("r")) is KINDS[rank]
    for key in ("padding", "strides", "dilation_rate", "kernel_size"):
        assert again.get_layer("r").get_config()[key] == model_config(rank, options)[key]


def model_config(rank, options):
    return conv_lstm(rank, **options).get_config()


def test_padding_that_comes_to_nothing(check):
    """Strides that fit need none, and Keras' two words mean the same."""
    layer = conv_lstm(padding="same", kernel=2, strides=2)
    _, again = both(check, model_of(layer, sizes=(6, 4)), proof=False)
    assert again.get_layer("r").padding == "valid"


@pytest.mark.parametrize(("rank", "sizes", "sequences"), [(2, (5, 3), False), (2, (4, 5), True), (1, (7,), True)])
def test_channels_first(check, rank, sizes, sequences):
    """Keras has them behind the steps then; what comes back has them last. TensorFlow has no kernel in float64."""
    x = keras.Input((4, 2, *sizes), name="x")
    layer = conv_lstm(rank, data_format="channels_first", return_sequences=sequences, padding="same")
    model = check.randomise(keras.Model(x, layer(x)))
    given = np.random.default_rng(0).normal(size=(2, *x.shape[1:])).astype("float32")
    module, tensor = bridge.to_torch(model), torch.tensor(check.to_first(given))
    again = bridge.to_keras(module, (tensor,))
    assert check.relative(check.to_last(module(tensor).detach().numpy()), model(given)) < 1e-6
    assert check.relative(again(given), model(given)) < 1e-6
    assert again.get_layer("r").data_format == "channels_last"
    if rank == 2:
        report = bridge.verify(model, module, [given])
        assert report.passed, str(report)


@pytest.mark.parametrize(("rank", "sequences"), [(2, True), (1, True), (3, False)])
def test_states(check, rank, sequences):
    """They go in and come out, without the steps."""
    layer = conv_lstm(rank, return_sequences=sequences, return_state=True, padding="same")
    _, again = both(check, model_of(layer, rank, [(*SIZES[rank], 3)] * 2), proof=rank == 2)
    assert len(again.outputs) == 3


def test_a_state_alone(check):
    """What nothing reads is not asked for: the model that comes back is smaller."""
    x = keras.Input((None, 5, 4, 2))
    _, h, c = conv_lstm(return_sequences=True, return_state=True)(x)
    for outputs in (c, h):
        _, again = check.both_ways(keras.Model(x, outputs), size=3)
        assert again.get_layer("r").return_sequences is False


@pytest.mark.parametrize(
    ("rank", "options"),
    [
        (2, {"return_sequences": True}),
        (2, {"return_sequences": True, "zero_output_for_mask": True, "return_state": True, "go_backwards": True}),
        (1, {"zero_output_for_mask": True}),
        (3, {"return_sequences": True, "kernel": 2}),
    ],
    ids=str,
)
def test_mask(check, rank, options):
    """A masked step keeps the states, and repeats the output or has 0 for it."""
    both(check, model_of(conv_lstm(rank, **options), rank, masked=True), proof="return_state" in options)


def test_mask_of_a_model_as_it_is(check):
    """Steps at the beginning, in the middle and at the end, the same in both frameworks without a round trip."""
    model = check.randomise(model_of(conv_lstm(return_sequences=True), masked=True))
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 4, 2)).astype("float32")
    x[..., 0, 0, 0] = [[-1, 1, -1, 1, 1], [1, 1, -1, -1, -1]]
    have = check.to_last(bridge.to_torch(model)(torch.tensor(check.to_first(x))).detach().numpy())
    assert check.relative(have, model(x)) < 1e-6
    assert not have[0, 0].any() and (have[0, 1] == have[0, 2]).all() and (have[1, 1] == have[1, 4]).all()


def test_backwards(check):
    both(check, model_of(conv_lstm(return_sequences=True, go_backwards=True)))


@pytest.mark.parametrize(
    ("merge", "options", "masked"),
    [("concat", {"return_sequences": True}, True), ("ave", {"return_state": True}, False), (None, {}, False)],
    ids=str,
)
def test_bidirectional(check, merge, options, masked):
    model = model_of(layers.Bidirectional(conv_lstm(**options), merge, name="b"), masked=masked)
    module = both(check, model, proof=masked, same_layers=False)[0]
    assert sum(type(m).__name__ == "ConvLSTM" for m in module.modules()) == 2


def test_bidirectional_states(check):
    """Those of the forward layer come first."""
    layer = layers.Bidirectional(conv_lstm(padding="same", return_state=True), "sum", name="b")
    both(check, model_of(layer, states=[(5, 4, 3)] * 4), proof=False, same_layers=False)


def test_two_kinds_of_layers(check):
    """The backward layer has other filters."""
    other = layers.ConvLSTM2D(4, 3, go_backwards=True, return_sequences=True)
    x = keras.Input((None, 5, 4, 2))
    y, z = layers.Bidirectional(conv_lstm(return_sequences=True), None, backward_layer=other, name="b")(x)
    both(check, keras.Model(x, [y, z]), proof=False, same_layers=False)


@pytest.mark.parametrize("options", [{"dropout": 0.3}, {"recurrent_dropout": 0.4}, {"dropout": 0.2, "use_bias": False}])
def test_dropout(check, options):
    """One mask for each gate and a whole sequence; the numbers that it draws are others."""
    model = model_of(conv_lstm(**options))
    module, again = both(check, model, proof=len(options) > 1)
    assert again.get_layer("r").dropout == options.get("dropout", 0)
    x = torch.ones(1000, 2, 3, 5, 4)
    given = check.to_last(x.numpy())
    want, other = (np.asarray(m(given, training=True)) for m in (model, again))
    for have in (check.to_last(module.train()(x).detach().numpy()), other):
        assert np.abs(have.mean(0) - want.mean(0)).max() < 0.05
        assert np.abs(have.std(0) - want.std(0)).max() < 0.05 and have.std(0).max() > 0.01


def test_next_frames(check):
    """The network that such layers are known for has its channels first throughout, and permutes nothing."""
    x = frames = keras.Input((None, 5, 4, 1), name="frames")
    for i in range(2):
        x = layers.ConvLSTM2D(3, 3, padding="same", return_sequences=True, name=f"r{i}")(x)
        x = layers.BatchNormalization(name=f"n{i}")(x)
    model = keras.Model(frames, layers.Conv3D(1, 3, padding="same", activation="sigmoid", name="c")(x))
    module, again = both(check, model)
    assert "permute" not in inspect.getsource(type(module)) and type(module.n0) is nn.BatchNorm3d
    assert [type(x) for x in again.layers if x.weights] == [type(x) for x in model.layers if x.weights]


def test_encoder_and_decoder(check):
    """The last states of one layer begin the other, which is read back over an open number of steps."""
    x, *states = [keras.Input(s, name=n) for n, s in (("x", (None, 5, 4, 2)), ("h", (5, 4, 3)), ("c", (5, 4, 3)))]
    y, h, c = conv_lstm(padding="same", return_sequences=True, return_state=True)(x, initial_state=states)
    z = layers.ConvLSTM2D(3, 3, padding="same", name="decoder")(y, initial_state=[h, c])
    module = both(check, keras.Model([x, *states], [z, c]), proof=False)[0]
    tensors = torch.randn(2, 2, 3, 5, 4), torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4)
    longer = bridge.to_keras(module, tensors, [{0, 2}, {0}, {0}])
    assert longer.inputs[0].shape == (None, None, 5, 4, 2)
    assert [type(x) for x in longer.layers if x.weights] == [layers.ConvLSTM2D] * 2


@pytest.mark.parametrize(("name", "value"), [("dropout", 0.3), ("recurrent_activation", "Hardsigmoid")])
def test_another_setting_is_told(check, name, value):
    model = check.randomise(model_of(conv_lstm(dropout=0.2)))
    module = bridge.to_torch(model)
    setattr(module.r, name, value)
    report = bridge.verify(model, module, [np.random.default_rng(0).normal(size=(2, 3, 5, 4, 2)).astype("float32")])
    assert not report.passed and f"{name} is" in str(report)


def test_one_layer_called_twice(check):
    layer = conv_lstm(padding="same", return_sequences=True)
    x = keras.Input((None, 5, 4, 3), name="x")
    module, again = both(check, keras.Model(x, layer(layer(x))))
    assert [type(m).__name__ for m in module.children()] == ["ConvLSTM"] and len(again.layers) == 2


class Net(nn.Module):
    """The class of ours and what is made of its outputs."""

    def __init__(self, inner, result=lambda y, *states: y):
        super().__init__()
        self.r, self.result = inner, result

    def forward(self, x, *states, mask=None):
        return self.result(*self.r(x, states, mask))


def helper(*arguments, **options):
    """An instance of the class, as a generated file has it."""
    from bridge import rules, torch_recurrent

    source = torch_recurrent.HEADER + "\n\n".join(map(rules.helper_source, ("stepped", "ConvLSTM")))
    return execute(source).ConvLSTM(*arguments, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2, "padding": ((1, 1), (0, 1))},
        {"stride": (1, 2), "bias": False},
        {"padding": "same", "dilation": (1, 2), "sequences": False},
    ],
    ids=str,
)
def test_from_torch(check, options):
    """The number of steps stays open."""
    module, x = Net(helper(2, 3, (3, 2), **options)), torch.randn(2, 2, 3, 5, 4)
    if options.get("stride") == 2:
        x = torch.randn(2, 2, 3, 5, 5)  # what "same" is, at this size
    check.from_torch(module, x)
    module, x = module.float(), x.float()
    model = bridge.to_keras(module, (x,), [{0, 2}])
    longer = torch.cat([x, x[:, :, :2]], 2)
    assert (
        check.relative(module(longer).detach(), check.to_first(np.asarray(model(check.to_last(longer.numpy()))))) < 1e-6
    )


def test_states_from_torch(check):
    module = Net(helper(2, 3, (3, 3), padding="same"), lambda y, h, c: (h, c))
    given = torch.randn(2, 2, 3, 5, 4), *torch.randn(2, 2, 3, 5, 4).unbind(0)
    given = given[0], torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4)
    model = check.from_torch(module, *given)
    assert [x.name for x in model.layers if x.weights] == ["r"]


def test_weights_into_another_module(check):
    model = check.randomise(model_of(conv_lstm()))
    module, x = Net(helper(2, 3, (3, 3), sequences=False)), torch.randn(2, 2, 3, 5, 4)
    bridge.load_weights(module, model)
    assert check.relative(check.to_last(module(x).detach().numpy()), model(check.to_last(x.numpy()))) < 1e-6
    other = model_of(conv_lstm())
    bridge.load_weights(other, module)
    assert all(np.array_equal(a, b) for a, b in zip(other.get_weights(), model.get_weights(), strict=True))


def stateful():
    x = keras.Input(batch_shape=(2, 3, 5, 4, 2))
    return keras.Model(x, conv_lstm(stateful=True)(x))


def random():
    x = keras.Input((3, 5, 4, 2))
    return keras.Model(x, conv_lstm(dropout=0.2)(x, training=True))


def unrolled():
    x = keras.Input((3, 5, 4, 2))
    options = {"unroll": True, "go_backwards": True, "return_sequences": True, "zero_output_for_mask": True}
    return keras.Model(x, conv_lstm(**options)(x, mask=x[:, :, 0, 0, 0] > 0))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (stateful, "stateful"),
        (random, "training=True"),
        (unrolled, "unroll=True"),
        (lambda: model_of(conv_lstm(activation="softmax")), "activation"),
        (lambda: model_of(conv_lstm(recurrent_activation=keras.activations.softmax)), "activation"),
        (lambda: model_of(conv_lstm(dtype="mixed_float16")), "mixed_float16"),
        (lambda: model_of(conv_lstm(dropout=1.0)), "drops everything"),
    ],
)
def test_refused(make, reason):
    with pytest.raises(bridge.BridgeError, match=reason):
        bridge.to_torch(make())


@pytest.mark.parametrize(
    ("options", "reason", "dynamic"),
    [
        ({"stride": 2, "dilation": 2}, "strides with dilation", {0}),
        ({"padding": ((0, 2), (0, 0))}, "pads its input", {0}),
        ({"padding": "same"}, "want", {0, 3}),
    ],
)
def test_refused_of_torch(options, reason, dynamic):
    with pytest.raises(bridge.BridgeError, match=reason):
        bridge.to_keras(Net(helper(2, 3, (2, 2), **options)), (torch.randn(2, 2, 3, 5, 4),), [dynamic])
