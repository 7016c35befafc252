"""`verify` believes what is true and sees every seeded lie."""

import re

import keras
import numpy as np
import pytest
import torch

import bridge
from bridge import verification

layers = keras.layers


def test_the_truth(example):
    report = bridge.verify(example, bridge.to_torch(example))
    assert report.passed, report
    assert report.figures()["forward float64"] < 1e-12
    assert set(report.gradients) | set(report.zero_gradients) == {
        "a.kernel",
        "a.bias",
        "n.gamma",
        "n.beta",
        "b.kernel",
        "b.bias",
        "c.kernel",
        "d.kernel",
        "d.bias",
    }
    assert report.zero_gradients == ["a.bias"]  # a constant before a BatchNorm
    assert "n/(n-1)" in " ".join(report.notes)
    assert report.hashes["keras"] == report.hashes["torch"]


def scale(m):
    m.b.weight.mul_(1.001)


def swap(m):
    kept = m.b.weight.clone()
    m.b.weight.copy_(m.c.weight)
    m.c.weight.copy_(kept)


def swap_rows(m):
    m.d.weight.copy_(m.d.weight.roll(1, 1))


class OtherSide(torch.nn.Module):
    """A convolution without padding of its own, its input padded on the left and the top alone."""

    def __init__(self, conv):
        super().__init__()
        self.conv = conv
        conv.padding = (0, 0)

    def forward(self, x):
        return self.conv(torch.nn.functional.pad(x, (2, 0, 2, 0)))


LIES = {
    "a kernel scaled by 1.001": (scale, "settings", "b.kernel"),
    "two kernels swapped": (swap, "settings", "b.kernel"),
    "rows of a Dense moved": (swap_rows, "settings", "d.kernel"),
    "another epsilon": (lambda m: setattr(m.n, "eps", 1.1e-3), "settings", "n: epsilon"),
    "another momentum": (lambda m: setattr(m.n, "momentum", 0.015), "settings", "n: momentum"),
    "another rate": (lambda m: setattr(m.o, "p", 0.5), "settings", "o: rate"),
    "a frozen kernel": (
        lambda m: m.a.weight.requires_grad_(False),
        "settings",
        "a.kernel: trained in Keras, frozen in torch",
    ),
    "a running mean moved": (lambda m: m.n.running_mean.add_(1e-3), "settings", "n.moving_mean"),
    "padding on the other side": (lambda m: setattr(m, "a", OtherSide(m.a)), "settings", "a: pads"),
    "another activation": (lambda m: setattr(m, "r", torch.nn.SiLU()), "settings", "r"),
    "a layer left out": (lambda m: setattr(m, "c", torch.nn.Identity()), "structure", "c"),
    "a layer too many": (
        lambda m: setattr(m, "o", torch.nn.Sequential(m.o, torch.nn.Tanh())),
        "structure",
        "c (convolution)",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie(example, lie):
    tell, kind, text = LIES[lie]
    module = bridge.to_torch(example)
    with torch.no_grad():
        tell(module)
    report = bridge.verify(example, module)
    assert not report.passed
    assert any(k == kind and text in s for k, s in report.failures), report
    with pytest.raises(AssertionError, match="NOT equal"):
        bridge.assert_equivalent(example, module)


def test_the_first_layer_that_differs_is_named(example):
    module = bridge.to_torch(example)
    module.n.eps = 1.1e-3
    report = bridge.verify(example, module)
    assert report.first_divergence.name == "n"
    assert any("the first layer that differs is n" in s for _, s in report.failures)


def test_a_module_written_by_hand_with_other_names(example):
    class Hand(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = torch.nn.Sequential(
                torch.nn.Conv2d(3, 4, 3, padding="same"), torch.nn.BatchNorm2d(4, 1e-3, 0.01)
            )
            self.reduce = torch.nn.Conv2d(4, 4, 3, stride=2)
            self.head = torch.nn.Conv2d(4, 4, 3, padding=1, bias=False)
            self.classify = torch.nn.Linear(144, 5)

        def forward(self, x):
            x = torch.relu(self.stem(x))
            x = torch.tanh(self.reduce(torch.nn.functional.pad(x, (1, 1, 0, 1))))
            x = self.head(torch.nn.functional.dropout(x, 0.4, self.training))
            return x, self.classify(x.flatten(1))

    hand = Hand().eval()
    for mine, theirs in zip(bridge.to_torch(example).state_dict().values(), hand.state_dict().values(), strict=True):
        theirs.copy_(mine)
    report = bridge.verify(example, hand)
    assert report.passed, report
    with torch.no_grad():
        hand.stem[0].bias[0] += 1e-3
    assert "a.bias" in str(bridge.verify(example, hand))


def test_inputs_of_the_users_own(example):
    x = np.random.default_rng(0).normal(size=(2, 12, 11, 3)).astype("float32")
    assert bridge.verify(example, bridge.to_torch(example), inputs=x).passed
    with pytest.raises(
        bridge.BridgeError, match=r"takes inputs of shape \[\(None, 12, 11, 3\)\]. Received: \[\(2, 3, 12, 11\)\]"
    ):
        bridge.verify(example, bridge.to_torch(example), inputs=np.moveaxis(x, -1, 1))


def test_layouts_of_a_sequence(check):
    """A torch module of sequences (B, C, L) beside a Keras model of (B, L, C)."""
    x = keras.Input((9, 3), name="sequence")
    model = check.randomise(keras.Model(x, layers.Flatten()(layers.Conv1D(4, 3, name="c")(x))))
    conv = torch.nn.Conv1d(3, 4, 3)
    with torch.no_grad():
        conv.weight.copy_(torch.from_numpy(np.asarray(model.get_layer("c").kernel).transpose(2, 1, 0).copy()))
        conv.bias.copy_(torch.from_numpy(np.asarray(model.get_layer("c").bias)))

    class Transposed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.c = conv

        def forward(self, x):
            return self.c(x).permute(0, 2, 1).flatten(1)

    assert bridge.verify(model, Transposed(), layouts={"sequence": (0, 2, 1)}).passed
    assert not bridge.verify(model, Transposed()).passed


def test_an_output_that_ignores_its_input_is_said():
    x = keras.Input((4, 4, 2))
    model = keras.Model(x, layers.Conv2D(2, 3, kernel_initializer="zeros")(x))
    assert "hardly depends on the input" in str(bridge.verify(model, bridge.to_torch(model)))


def test_a_module_that_cannot_be_read_does_not_pass(example):
    class Gamma(torch.nn.Module):
        def forward(self, x):
            return torch.lgamma(x), x.sum((1, 2, 3))

    report = bridge.verify(example, Gamma())
    assert not report.passed
    assert "cannot be read" in str(report)


def test_neither_side_is_changed(example):
    module = bridge.to_torch(example).train()
    state, weights = {k: v.clone() for k, v in module.state_dict().items()}, example.get_weights()
    bridge.verify(example, module)
    assert module.training and module.n.training
    assert all(p.grad is None for p in module.parameters())
    for k, v in module.state_dict().items():
        torch.testing.assert_close(v, state[k], rtol=0, atol=0)
    for a, b in zip(weights, example.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_tensorflow_has_no_float64_for(check):
    """Everything is compared in float32, and a lie is seen there too."""
    model = check.single()
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed and "float32 only" in str(report), report
    assert report.figures()["gradients float32"] < 1e-5 and report.figures()["forward float64"] is None
    with torch.no_grad():
        module.c.weight.mul_(1.001)
    assert {k for k, _ in bridge.verify(model, module).failures} >= {"settings", "forward"}


def test_three_dimensional_max_pooling_is_compared_in_float64(check):
    """TensorFlow has no kernel for that; the rule says what does the same."""
    x = keras.Input((6, 5, 7, 2))
    y = layers.MaxPooling3D(2, name="p")(layers.Conv3D(3, 2, name="c")(x))
    model = check.randomise(keras.Model(x, layers.Conv3D(2, 1, name="d")(y)))
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed and report.figures()["gradients float64"] < 1e-12, report


def test_a_call_that_was_replaced(check):
    model = check.small()
    module, own = bridge.to_torch(model), model.call
    model.call = lambda x, training=None, mask=None: 5 * own(x, training=training)
    failures = bridge.verify(model, module).failures
    assert [k for k, _ in failures] == ["structure"] and "`call` has been replaced" in failures[0][1]


def test_a_module_that_cannot_be_trained_or_run_in_float64(check):
    model = check.small()

    def refuse(m, x):
        if m.training:
            raise ValueError("not today")
        return x

    report = bridge.verify(model, check.around(bridge.to_torch(model), refuse))
    assert [k for k, _ in report.failures] == ["training"] and "ValueError: not today" in str(report)

    def single(m, x):
        if x.dtype == torch.float64:
            raise TypeError("float32 only")
        return x

    report = bridge.verify(model, check.around(bridge.to_torch(model), single))
    assert [k for k, _ in report.failures] == ["forward", "training"] and "TypeError: float32 only" in str(report)


def test_what_is_given_is_made_to_fit_or_refused(check):
    model = check.small()
    module = bridge.to_torch(model)
    assert bridge.verify(model, module, inputs=np.random.default_rng(0).normal(size=(2, 6, 6, 3))).passed
    with pytest.raises(bridge.BridgeError, match="'other'; the inputs are"):
        bridge.verify(model, module, layouts={"other": (0, 1, 2, 3)})
    with pytest.raises(bridge.BridgeError, match="permutation of 4 axes"):
        bridge.verify(model, module, layouts={"image": (0, 1)})


def test_values_inside_one_torch_operator(check):
    x = keras.Input((6,))
    model = check.randomise(keras.Model(x, 1 - layers.Dense(3, name="d")(x)))

    class Hand(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.d = bridge.to_torch(model).d

        def forward(self, x):
            return 1 - self.d(x)

    assert bridge.verify(model, Hand()).passed


def test_limits_add_up_along_a_path(check):
    x = keras.Input((6,))
    branches = [layers.Dense(3, activation="gelu", name=f"d{i}")(x) for i in range(3)]
    model = check.randomise(keras.Model(x, layers.Add()(branches)))
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed and max(r.limit for r in report.layers) < 1.5e-6
    assert {r.limit for r in report.layers if r.name == "d0 + gelu"} == {1e-9 + 1e-7}


@pytest.mark.parametrize("kind", ["built", "on data", "shared", "subclass", "named"])
def test_kinds_of_models(check, kind):
    x = keras.Input((4,), name="x")
    if kind == "built":
        model = keras.Sequential([x, layers.Dense(2)])
    elif kind == "on data":
        model = keras.Sequential([layers.Dense(2), layers.ReLU()])
        model(np.zeros((8, 4)))
    elif kind == "shared":  # inside a nested model and beside it
        dense, inner = layers.Dense(4), keras.Input((4,))
        model = keras.Model(x, keras.Model(inner, dense(inner))(layers.ReLU()(dense(x))))
    elif kind == "subclass":

        class Net(keras.Model):
            def __init__(self):
                super().__init__(x, layers.Dense(3)(x))

        inner = Net()
        y = keras.Input((4,))
        model = keras.Model(y, layers.Dense(2)(inner(y)))
        assert bridge.verify(inner, bridge.to_torch(inner)).passed
    else:
        from collections import namedtuple

        model = keras.Model(x, namedtuple("Outputs", "a b")(layers.Dense(2)(x), layers.Dense(3)(x)))
    report = bridge.verify(check.randomise(model), bridge.to_torch(model))
    assert report.passed and report.figures()["forward float64"] < 1e-14, report


def test_the_hashes_are_of_the_weights(example):
    module = bridge.to_torch(example)
    with torch.no_grad():
        module.c.weight.mul_(1.001)
    hashes = bridge.verify(example, module).hashes
    assert hashes["keras"] != hashes["torch"] and len(hashes["keras"]) == 64


def test_a_layer_that_does_not_do_what_its_configuration_says(check):
    model = check.small()
    module, layer = bridge.to_torch(model), model.get_layer("c")
    own = layer.call
    layer.call = lambda x: own(x) * 1.5
    report = bridge.verify(model, module)
    assert not report.passed and "c does not do in Keras what its configuration says" in str(report)


def test_weights_that_are_not_numbers(check):
    model = check.small()
    model.get_layer("c").bias.assign(np.full(3, np.nan))
    report = bridge.verify(model, bridge.to_torch(model))
    assert not report.passed and "Keras' own values are not finite at c" in str(report)
    assert "has been replaced" not in str(report) and "the weights differ" not in str(report)


def test_a_module_that_changes_its_input(check):
    class InPlace(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.d = torch.nn.LeakyReLU(0.25, inplace=True), torch.nn.Linear(4, 3)

        def forward(self, x):
            return self.d(self.a(x))

    module, x = InPlace().eval(), torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    report = bridge.verify(bridge.to_keras(module, (x.clone(),)), module)
    assert report.passed, report


def test_a_hook_on_a_gradient(check):
    model = check.small()
    module = bridge.to_torch(model)
    module.c.weight.register_hook(lambda g: 2 * g)
    assert "have a hook that may change their gradients, which Keras has not: c.weight" in str(
        bridge.verify(model, module)
    )


class Block(torch.nn.Module):
    """A residual block with one ReLU written three times, as in many a GAN."""

    def __init__(self):
        super().__init__()
        self.c1, self.c2, self.cs = (torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(4, 4, 3, padding=1),
                                     torch.nn.Conv2d(3, 4, 1))  # fmt: skip

    def forward(self, x):
        relu = torch.relu
        return self.cs(relu(x)) + self.c2(relu(self.c1(relu(x))))


class Branches(torch.nn.Module):
    """A shared normalisation whose two results meet different fates."""

    def __init__(self):
        super().__init__()
        self.n = torch.nn.BatchNorm2d(3)

    def forward(self, x):
        return {"z": torch.nn.functional.softplus(self.n(x)), "a": torch.clamp(self.n(x), -1, 1)}


@pytest.mark.parametrize("kind", [Block, Branches])
def test_the_same_operation_on_the_same_tensor(kind):
    module, x = kind().eval(), torch.randn(2, 3, 7, 6, generator=torch.Generator().manual_seed(0))
    report = bridge.verify(bridge.to_keras(module, (x,)), module)
    assert report.passed, report


def test_one_relu_for_two(check):
    x = keras.Input((5,))
    a, b = layers.Dense(3, name="a")(layers.ReLU()(x)), layers.Dense(3, name="b")(layers.ReLU()(x))
    model = check.randomise(keras.Model(x, layers.Concatenate()([a, b])))

    class Once(torch.nn.Module):
        def __init__(self):
            super().__init__()
            twice = bridge.to_torch(model)
            self.a, self.b = twice.a, twice.b

        def forward(self, x):
            x = torch.relu(x)
            return torch.cat([self.a(x), self.b(x)], 1)

    assert bridge.verify(model, Once()).passed


def test_an_operation_too_many_is_named_where_it_stands(check):
    x = keras.Input((5,))
    y = layers.ReLU(name="r")(x)
    model = check.randomise(keras.Model(x, [layers.Dense(3, name="b")(y), layers.Dense(3, name="c")(y)]))
    module = bridge.to_torch(model)
    module.b.register_forward_pre_hook(lambda m, inputs: (inputs[0] + 1e-6,))
    failures = bridge.verify(model, module).failures
    assert [s for k, s in failures if k == "structure"] == [
        "b (dense) has no counterpart in the torch module, which has add there"
    ]
    assert not [s for k, s in failures if k == "settings"]


def test_a_single_number_for_an_output(check):
    module = check.module_of(lambda m, x: m.c(x).mean(), c=torch.nn.Conv2d(3, 4, 3))
    assert bridge.verify(bridge.to_keras(module, (torch.randn(2, 3, 5, 5),)), module).passed


def test_a_deep_network_in_16_bits(check):
    """Rounded as often, a batch of one differs by more than a hundredth; so does Keras from its own float64."""
    x = image = keras.Input((16, 16, 3))
    for i in range(12):
        x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", dtype="mixed_bfloat16", name=f"c{i}")(x)
    model = check.live(keras.Model(image, keras.layers.Conv2D(1, 1, dtype="mixed_bfloat16", name="d")(x)))
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed, str(report)
    assert report.figures()["Keras float32 to float64"] > 0.005


def test_another_way_for_a_batch_of_one(check):
    module = check.module_of(lambda m, x: m.c(x) * 2 if x.shape[0] == 1 else m.c(x), c=torch.nn.Conv2d(3, 4, 3))
    report = bridge.verify(bridge.to_keras(module, (torch.randn(2, 3, 5, 5),)), module)
    assert not report.passed and "with a batch of one the outputs differ" in str(report)


def test_every_output_is_compared(check, monkeypatch):
    """One that is computed twice, too; and what no record shows is not taken for equal."""
    x = keras.Input((4,), name="x")
    model = check.randomise(keras.Model(x, [keras.ops.tanh(x), layers.Dense(3, name="d")(x), keras.ops.tanh(x)]))
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed and report.layers[-1].operator == "output", report
    seen = verification.recorded
    monkeypatch.setattr(verification, "recorded", lambda values, v: None if v.rank == 2 else seen(values, v))
    report = bridge.verify(model, module)
    assert not report.passed and re.search(r"the output tanh\w* could not be compared", str(report))


def test_a_later_output_of_a_layer_that_differs_is_named(check, monkeypatch):
    run = verification.torch_reader.run

    def with_another_state(*given):
        return {k: v + 1e-3 if v.shape[1:] == (4,) else v for k, v in run(*given).items()}

    x = keras.Input((5, 3), name="x")
    model = check.randomise(keras.Model(x, layers.GRU(4, return_sequences=True, return_state=True, name="r")(x)))
    module = bridge.to_torch(model)
    assert bridge.verify(model, module).passed
    monkeypatch.setattr(verification.torch_reader, "run", with_another_state)
    report = bridge.verify(model, module)
    assert not report.passed and "the first layer that differs is r:1 (recurrent)" in str(report), report


def test_outputs_by_name_are_compared_by_name(check):
    """Keras sorts them; torch keeps the order in which they are returned."""
    x = keras.Input((5, 3), name="x")
    y, h = layers.GRU(4, return_sequences=True, return_state=True, name="r")(x)
    model = check.randomise(keras.Model(x, {"b": h, "c": y, "a": keras.ops.tanh(x), "d": keras.ops.tanh(x)}))
    module = bridge.to_torch(model)

    class Turned(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self, x):
            made = self.inner(x)
            return {k: made[k] for k in "dcba"}

    report = bridge.verify(model, Turned())
    assert report.passed, report


def test_an_output_of_another_dtype_is_seen(check):
    x = keras.Input(batch_shape=(4, None, 3), name="x")
    h = keras.Input((5,), name="h")
    model = check.randomise(keras.Model([x, h], [keras.ops.mean(layers.Dense(5, name="d")(x), 0) + h]))
    module = bridge.to_torch(model)
    assert bridge.verify(model, module).passed

    class Wider(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self, x, h):
            return self.inner(x, h)[0].double()

    assert not bridge.verify(model, Wider()).passed
