"""`verify` believes what is true and sees every seeded lie."""

import keras
import numpy as np
import pytest
import torch

import bridge

layers = keras.layers


@pytest.fixture
def model(check):
    x = image = keras.Input((12, 11, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="a")(x)
    x = layers.BatchNormalization(name="n")(x)
    x = layers.ReLU(name="r")(x)
    x = layers.Conv2D(4, 3, strides=2, padding="same", activation="tanh", name="b")(x)
    x = layers.Dropout(0.4, name="o")(x)
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="c")(x)
    y = layers.Dense(5, name="d")(layers.Flatten(name="f")(x))
    return check.randomise(keras.Model(image, [x, y], name="example"))


def test_the_truth(model):
    report = bridge.verify(model, bridge.to_torch(model))
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
def test_a_lie(model, lie):
    tell, kind, text = LIES[lie]
    module = bridge.to_torch(model)
    with torch.no_grad():
        tell(module)
    report = bridge.verify(model, module)
    assert not report.passed
    assert any(k == kind and text in s for k, s in report.failures), report
    with pytest.raises(AssertionError, match="NOT equal"):
        bridge.assert_equivalent(model, module)


def test_the_first_layer_that_differs_is_named(model):
    module = bridge.to_torch(model)
    module.n.eps = 1.1e-3
    report = bridge.verify(model, module)
    assert report.first_divergence.name == "n"
    assert any("the first layer that differs is n" in s for _, s in report.failures)


def test_a_module_written_by_hand_with_other_names(model):
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
    for mine, theirs in zip(bridge.to_torch(model).state_dict().values(), hand.state_dict().values(), strict=True):
        theirs.copy_(mine)
    report = bridge.verify(model, hand)
    assert report.passed, report
    with torch.no_grad():
        hand.stem[0].bias[0] += 1e-3
    assert "a.bias" in str(bridge.verify(model, hand))


def test_training_mode_alone_can_differ(model):
    class NeverTrains(torch.nn.BatchNorm2d):
        def train(self, mode=True):
            return super().train(False)

    module = bridge.to_torch(model)
    norm = NeverTrains(4, 1e-3, 0.01).eval()
    norm.load_state_dict(module.n.state_dict())
    module.n = norm
    report = bridge.verify(model, module)
    assert report.figures()["forward float64"] < 1e-12
    assert {k for k, _ in report.failures} == {"training", "gradients"}


def test_inputs_of_the_users_own(model):
    x = np.random.default_rng(0).normal(size=(2, 12, 11, 3)).astype("float32")
    assert bridge.verify(model, bridge.to_torch(model), inputs=x).passed
    with pytest.raises(
        bridge.BridgeError, match=r"takes inputs of shape \[\(None, 12, 11, 3\)\]. Received: \[\(2, 3, 12, 11\)\]"
    ):
        bridge.verify(model, bridge.to_torch(model), inputs=np.moveaxis(x, -1, 1))


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


def test_a_module_that_cannot_be_read_does_not_pass(model):
    class Gamma(torch.nn.Module):
        def forward(self, x):
            return torch.lgamma(x), x.sum((1, 2, 3))

    report = bridge.verify(model, Gamma())
    assert not report.passed
    assert "cannot be read" in str(report)


def test_neither_side_is_changed(model):
    module = bridge.to_torch(model).train()
    state, weights = {k: v.clone() for k, v in module.state_dict().items()}, model.get_weights()
    bridge.verify(model, module)
    assert module.training and module.n.training
    assert all(p.grad is None for p in module.parameters())
    for k, v in module.state_dict().items():
        torch.testing.assert_close(v, state[k], rtol=0, atol=0)
    for a, b in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def single(check, *more):
    """A model that TensorFlow cannot run in float64: its dilated transposed convolution is for float32 alone."""
    x = y = keras.Input((6, 5, 2))
    for layer in (layers.Conv2DTranspose(3, 2, dilation_rate=2, name="c"), *more, layers.Conv2D(2, 1, name="d")):
        y = layer(y)
    return check.randomise(keras.Model(x, y))


def test_what_tensorflow_has_no_float64_for(check):
    """Everything is compared in float32, and a lie is seen there too."""
    model = single(check)
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


def small(check, *more, **options):
    """A convolution named "c" and more layers."""
    x = image = keras.Input((6, 6, 3), name="image")
    for layer in (layers.Conv2D(3, 3, name="c", **options), *more):
        x = layer(x)
    return check.randomise(keras.Model(image, x))


def test_nothing_to_train(check):
    frozen = small(check)
    frozen.trainable = False
    image = keras.Input((6, 6, 3))
    for model in (frozen, keras.Model(image, layers.MaxPooling2D()(image))):
        assert bridge.verify(model, bridge.to_torch(model)).passed
    model = small(check)
    with torch.no_grad():
        report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed and len(report.gradients) == 2


class Around(torch.nn.Module):
    """The module of the bridge, and something behind it."""

    def __init__(self, module, function):
        super().__init__()
        self.module, self.function = module, function

    def forward(self, x):
        return self.function(self, self.module(x))


ACTIVITY = {
    "never active": lambda m, x: torch.nn.functional.dropout(x, 0.5, training=False),
    "of another rate in training": lambda m, x: torch.nn.functional.dropout(x, 0.2 if m.training else 0.5, m.training),
}


@pytest.mark.parametrize("lie", ACTIVITY)
def test_dropout_that_is_not_active_as_in_keras(check, lie):
    plain = bridge.to_torch(small(check))
    model = small(check, layers.Dropout(0.5))
    honest = Around(plain, lambda m, x: torch.nn.functional.dropout(x, 0.5, m.training))
    assert bridge.verify(model, honest).passed
    failures = bridge.verify(model, Around(plain, ACTIVITY[lie])).failures
    assert [k for k, _ in failures] == ["training"] and "Dropouts of rates [0.5] are due" in failures[0][1]


def test_dropout_in_training_alone(check):
    model = small(check)
    module = Around(bridge.to_torch(model), lambda m, x: torch.nn.functional.dropout(x, 0.5) if m.training else x)
    assert "Dropouts of rates [] are due, [0.5] are active" in str(bridge.verify(model, module))


def test_a_call_that_was_replaced(check):
    model = small(check)
    module, own = bridge.to_torch(model), model.call
    model.call = lambda x, training=None, mask=None: 5 * own(x, training=training)
    failures = bridge.verify(model, module).failures
    assert [k for k, _ in failures] == ["structure"] and "`call` has been replaced" in failures[0][1]


def test_a_module_that_cannot_be_trained_or_run_in_float64(check):
    model = small(check)

    def refuse(m, x):
        if m.training:
            raise ValueError("not today")
        return x

    report = bridge.verify(model, Around(bridge.to_torch(model), refuse))
    assert [k for k, _ in report.failures] == ["training"] and "ValueError: not today" in str(report)

    def single(m, x):
        if x.dtype == torch.float64:
            raise TypeError("float32 only")
        return x

    report = bridge.verify(model, Around(bridge.to_torch(model), single))
    assert [k for k, _ in report.failures] == ["forward", "training"] and "TypeError: float32 only" in str(report)


def test_what_is_given_is_made_to_fit_or_refused(check):
    model = small(check)
    module = bridge.to_torch(model)
    assert bridge.verify(model, module, inputs=np.random.default_rng(0).normal(size=(2, 6, 6, 3))).passed
    with pytest.raises(bridge.BridgeError, match="'other'; the inputs are"):
        bridge.verify(model, module, layouts={"other": (0, 1, 2, 3)})
    with pytest.raises(bridge.BridgeError, match="permutation of 4 axes"):
        bridge.verify(model, module, layouts={"image": (0, 1)})


def test_shared_batch_normalisation(check):
    a, b = keras.Input((6, 6, 3)), keras.Input((4, 4, 3))
    shared = layers.BatchNormalization()
    model = check.randomise(keras.Model([a, b], [shared(a), shared(b)]))
    assert bridge.verify(model, bridge.to_torch(model)).passed


def test_float32_alone_with_a_bias_before_batch_normalisation(check):
    model = single(check, layers.BatchNormalization())
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed and report.zero_gradients == ["c.bias"], report


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


def test_a_parameter_that_nothing_uses(check):
    model = small(check)
    module = bridge.to_torch(model)
    module.extra = torch.nn.Linear(2, 2, bias=False)
    report = bridge.verify(model, module)
    said = "no output depends on 1 trainable parameter(s), which the Keras model is without: extra.weight"
    assert report.passed and said in report.notes
    example = torch.zeros(2, 3, 6, 6)
    with pytest.warns(UserWarning, match="no output depends on 1 trainable"):
        bridge.to_keras(module, (example,))


def test_a_parameter_that_training_alone_uses(check):
    """The seeded fault: it has a gradient, and Keras does not train it."""
    model = small(check)
    module = bridge.to_torch(model)
    module.extra = torch.nn.Parameter(torch.ones(()))
    module.register_forward_hook(lambda m, x, y: y * m.extra if m.training else y)
    report = bridge.verify(model, module)
    said = "1 trainable parameter(s) of the torch module have a gradient and no counterpart in Keras: extra"
    assert ("structure", said) in report.failures


class Its(torch.nn.Module):
    """What a module makes itself follows its dtype: the largest number, positions, angles."""

    def __init__(self):
        super().__init__()
        self.self = torch.nn.Linear(4, 4)  # as in transformers

    def forward(self, x, t):  # (B, 3, 4), (B)
        scores = self.self(x)
        keep = torch.ones(3, 3, dtype=torch.bool).tril().expand(x.shape[0], 3, 3)
        scores = torch.where(keep, scores @ scores.mT, torch.finfo(scores.dtype).min)
        angle = t[:, None] * torch.exp(torch.arange(4) * -0.3)
        return scores.softmax(-1, dtype=torch.float32).to(x.dtype) @ x + (angle.sin() + torch.arange(4).cos())[:, None]


@pytest.mark.parametrize("t", [torch.tensor([3, 1]), torch.tensor([0.3, 0.7])])
def test_a_module_that_makes_tensors(check, t):
    module, x = Its(), torch.randn(2, 3, 4)
    check.live_torch(module, x, t)
    model = bridge.to_keras(module, (x, t))
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert bridge.to_torch(model).state_dict().keys() >= module.state_dict().keys()
    other = Its()
    other.load_state_dict(module.state_dict())
    other.self.bias.data[0] += 1e-6
    assert not bridge.verify(model, other).passed


def test_an_output_of_whole_numbers_trains_nothing(check):
    class Quantised(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.codes = torch.nn.Embedding(6, 4)

        def forward(self, x):
            nearest = torch.cdist(x, self.codes.weight).argmin(-1)
            code = self.codes(nearest)
            return nearest, x + (code - x).detach(), 0.25 * torch.nn.functional.mse_loss(code, x.detach())

    module, x = Quantised(), torch.randn(3, 4)
    check.live_torch(module, x)
    report = bridge.verify(bridge.to_keras(module, (x,)), module)
    assert report.passed, str(report)


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


class Scaled(torch.autograd.Function):
    """The same values, with other gradients."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx, slope):
        return slope * ctx.factor, None


def with_other_gradients(module, factor):
    """A module whose backward pass alone differs: nothing of that can be seen as data."""

    class Lying(type(module)):
        def forward(self, x):
            if not torch.compiler.is_exporting() and self.training:
                x = super().forward(x)
                return Scaled.apply(x, factor)
            return super().forward(x)

    module.__class__ = Lying
    return module


def test_gradients_have_a_limit_in_float64(check):
    model = small(check)
    assert bridge.verify(model, with_other_gradients(bridge.to_torch(model), 1 + 1e-9)).passed
    failures = bridge.verify(model, with_other_gradients(bridge.to_torch(model), 1 + 1e-6)).failures
    assert [k for k, _ in failures] == ["gradients"] and "c.kernel by 1.0e-06" in failures[0][1]


def test_gradients_have_a_limit_in_float32(check):
    model = single(check)
    assert bridge.verify(model, with_other_gradients(bridge.to_torch(model), 1 + 1e-5)).passed
    failures = bridge.verify(model, with_other_gradients(bridge.to_torch(model), 1.01)).failures
    assert [k for k, _ in failures] == ["gradients"] and "differ in float32" in failures[0][1]


def test_gradients_behind_a_declared_limit_have_one_too(check):
    model = small(check, layers.Activation("gelu"))
    assert bridge.verify(model, with_other_gradients(bridge.to_torch(model), 1 + 1e-6)).passed
    assert not bridge.verify(model, with_other_gradients(bridge.to_torch(model), 1 + 3e-5)).passed


def test_a_small_gradient_is_no_zero(check):
    """Zero is what is below 1e-12 of the network's largest."""
    x = keras.Input((4,))
    model = check.randomise(keras.Model(x, [layers.Dense(2, name="a")(x), layers.Dense(2, name="b")(x) * 1e-9]))
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed and not report.zero_gradients and "b.kernel" in report.gradients


def test_a_gradient_that_is_not_a_number(check):
    model = small(check, use_bias=True)
    failures = bridge.verify(model, with_other_gradients(bridge.to_torch(model), float("nan"))).failures
    assert [k for k, _ in failures] == ["gradients"]
    model.get_layer("c").trainable = False
    x = keras.Input((4,))
    still = keras.Model(x, layers.Dense(3, name="d")(x) * 0)  # its gradients are 0 in Keras
    module = with_other_gradients(bridge.to_torch(still), float("nan"))
    report = bridge.verify(still, module)
    assert not report.passed and not report.zero_gradients, report


class Drift(torch.nn.BatchNorm2d):
    """Moves its running mean further in training than it should."""

    def forward(self, x):
        y = super().forward(x)
        if self.training:
            self.running_mean.data.add_(0.5)
        return y


def test_statistics_that_drift_in_training(model):
    module = bridge.to_torch(model)
    norm = Drift(4, 1e-3, 0.01).eval()
    norm.load_state_dict(module.n.state_dict())
    module.n = norm
    failures = bridge.verify(model, module).failures
    assert [k for k, _ in failures] == ["training"] and "n.moving_mean" in failures[0][1]


def test_the_hashes_are_of_the_weights(model):
    module = bridge.to_torch(model)
    with torch.no_grad():
        module.c.weight.mul_(1.001)
    hashes = bridge.verify(model, module).hashes
    assert hashes["keras"] != hashes["torch"] and len(hashes["keras"]) == 64


def test_a_layer_that_does_not_do_what_its_configuration_says(check):
    model = small(check)
    module, layer = bridge.to_torch(model), model.get_layer("c")
    own = layer.call
    layer.call = lambda x: own(x) * 1.5
    report = bridge.verify(model, module)
    assert not report.passed and "c does not do in Keras what its configuration says" in str(report)


def test_weights_that_are_not_numbers(check):
    model = small(check)
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
    model = small(check)
    module = bridge.to_torch(model)
    module.c.weight.register_hook(lambda g: 2 * g)
    assert "have a hook that may change their gradients, which Keras has not: c.weight" in str(
        bridge.verify(model, module)
    )


def test_what_is_zero_but_for_rounding(check):
    """No tensor that is zero in theory has any right digit: it is judged by what it is made from."""
    x = keras.Input((6, 5, 3))
    y = layers.Conv2D(4, 3, name="c")(x)
    centred = y - layers.GlobalAveragePooling2D(keepdims=True)(y)
    model = check.randomise(keras.Model(x, [layers.GlobalAveragePooling2D()(centred), y]))
    report = bridge.verify(model, bridge.to_torch(model))
    assert not [s for k, s in report.failures if k == "forward"], report


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


def test_the_padding_of_a_maximum_is_no_fault(check):
    """torch's MaxPool2d pads with -inf, and so does Keras before its own."""
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.MaxPool2d(3, 2, 1), torch.nn.Conv2d(4, 2, 1))
    model = bridge.to_keras(module, (torch.randn(2, 3, 9, 8),))
    assert any("pad" in operation.name for operation in model.operations)
    assert bridge.verify(model, module).passed


def test_a_single_number_for_an_output():
    module = Module(lambda m, x: m.c(x).mean(), c=torch.nn.Conv2d(3, 4, 3))
    assert bridge.verify(bridge.to_keras(module, (torch.randn(2, 3, 5, 5),)), module).passed


def test_another_way_for_a_batch_of_one():
    module = Module(lambda m, x: m.c(x) * 2 if x.shape[0] == 1 else m.c(x), c=torch.nn.Conv2d(3, 4, 3))
    report = bridge.verify(bridge.to_keras(module, (torch.randn(2, 3, 5, 5),)), module)
    assert not report.passed and "with a batch of one the outputs differ" in str(report)


class Module(torch.nn.Module):
    def __init__(self, function, **children):
        super().__init__()
        self.function = function
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, x):
        return self.function(self, x)


def test_tensors_that_are_plain_attributes():
    module = Module(lambda m, x: torch.nn.functional.conv2d(m.c(x), m.kernel, groups=4), c=torch.nn.Conv2d(3, 4, 3))
    module.kernel = torch.randn(4, 1, 3, 3)
    assert bridge.verify(bridge.to_keras(module, (torch.randn(2, 3, 8, 7),)), module).passed


@pytest.mark.filterwarnings("ignore")
def test_a_weight_that_a_hook_has_computed():
    """torch.nn.utils.weight_norm keeps the product of the last call, which deepcopy refuses."""
    module = torch.nn.Sequential(torch.nn.utils.weight_norm(torch.nn.Conv2d(3, 4, 3)))
    module(torch.randn(2, 3, 5, 5)).sum().backward()
    assert bridge.verify(bridge.to_keras(module, (torch.randn(2, 3, 5, 5),)), module).passed
