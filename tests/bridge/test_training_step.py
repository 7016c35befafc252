"""What `verify` sees of training: gradients, statistics, Dropout, ten steps."""

import keras
import pytest
import torch

import bridge

layers = keras.layers


def test_training_mode_alone_can_differ(example):
    class NeverTrains(torch.nn.BatchNorm2d):
        def train(self, mode=True):
            return super().train(False)

    module = bridge.to_torch(example)
    norm = NeverTrains(4, 1e-3, 0.01).eval()
    norm.load_state_dict(module.n.state_dict())
    module.n = norm
    report = bridge.verify(example, module)
    assert report.figures()["forward float64"] < 1e-12
    assert {k for k, _ in report.failures} == {"training", "gradients"}


def test_nothing_to_train(check):
    frozen = check.small()
    frozen.trainable = False
    image = keras.Input((6, 6, 3))
    for model in (frozen, keras.Model(image, layers.MaxPooling2D()(image))):
        assert bridge.verify(model, bridge.to_torch(model)).passed
    model = check.small()
    with torch.no_grad():
        report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed and len(report.gradients) == 2


ACTIVITY = {
    "never active": lambda m, x: torch.nn.functional.dropout(x, 0.5, training=False),
    "of another rate in training": lambda m, x: torch.nn.functional.dropout(x, 0.2 if m.training else 0.5, m.training),
}


@pytest.mark.parametrize("lie", ACTIVITY)
def test_dropout_that_is_not_active_as_in_keras(check, lie):
    plain = bridge.to_torch(check.small())
    model = check.small(layers.Dropout(0.5))
    honest = check.around(plain, lambda m, x: torch.nn.functional.dropout(x, 0.5, m.training))
    assert bridge.verify(model, honest).passed
    failures = bridge.verify(model, check.around(plain, ACTIVITY[lie])).failures
    assert [k for k, _ in failures] == ["training"] and "Dropouts of rates [0.5] are due" in failures[0][1]


def test_dropout_in_training_alone(check):
    model = check.small()
    module = check.around(bridge.to_torch(model), lambda m, x: torch.nn.functional.dropout(x, 0.5) if m.training else x)
    assert "Dropouts of rates [] are due, [0.5] are active" in str(bridge.verify(model, module))


def test_shared_batch_normalisation(check):
    a, b = keras.Input((6, 6, 3)), keras.Input((4, 4, 3))
    shared = layers.BatchNormalization()
    model = check.randomise(keras.Model([a, b], [shared(a), shared(b)]))
    assert bridge.verify(model, bridge.to_torch(model)).passed


def test_float32_alone_with_a_bias_before_batch_normalisation(check):
    model = check.single(layers.BatchNormalization())
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed and report.zero_gradients == ["c.bias"], report


def test_a_parameter_that_nothing_uses(check):
    model = check.small()
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
    model = check.small()
    module = bridge.to_torch(model)
    module.extra = torch.nn.Parameter(torch.ones(()))
    module.register_forward_hook(lambda m, x, y: y * m.extra if m.training else y)
    report = bridge.verify(model, module)
    said = "1 trainable parameter(s) of the torch module have a gradient and no counterpart in Keras: extra"
    assert ("structure", said) in report.failures


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
    model = check.small()
    assert bridge.verify(model, with_other_gradients(bridge.to_torch(model), 1 + 1e-9)).passed
    failures = bridge.verify(model, with_other_gradients(bridge.to_torch(model), 1 + 1e-6)).failures
    assert [k for k, _ in failures] == ["gradients"] and "c.kernel by 1.0e-06" in failures[0][1]


def test_gradients_have_a_limit_in_float32(check):
    model = check.single()
    assert bridge.verify(model, with_other_gradients(bridge.to_torch(model), 1 + 1e-5)).passed
    failures = bridge.verify(model, with_other_gradients(bridge.to_torch(model), 1.01)).failures
    assert [k for k, _ in failures] == ["gradients"] and "differ in float32" in failures[0][1]


def test_gradients_behind_a_declared_limit_have_one_too(check):
    model = check.small(layers.Activation("gelu"))
    assert bridge.verify(model, with_other_gradients(bridge.to_torch(model), 1 + 1e-6)).passed
    assert not bridge.verify(model, with_other_gradients(bridge.to_torch(model), 1 + 3e-5)).passed


def test_a_small_gradient_is_no_zero(check):
    """Zero is what is below 1e-12 of the network's largest."""
    x = keras.Input((4,))
    model = check.randomise(keras.Model(x, [layers.Dense(2, name="a")(x), layers.Dense(2, name="b")(x) * 1e-9]))
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed and not report.zero_gradients and "b.kernel" in report.gradients


def test_a_gradient_that_is_not_a_number(check):
    model = check.small(use_bias=True)
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


def test_statistics_that_drift_in_training(example):
    module = bridge.to_torch(example)
    norm = Drift(4, 1e-3, 0.01).eval()
    norm.load_state_dict(module.n.state_dict())
    module.n = norm
    failures = bridge.verify(example, module).failures
    assert [k for k, _ in failures] == ["training"] and "n.moving_mean" in failures[0][1]
