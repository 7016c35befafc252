"""Another tensor in training than in inference; the rest of it is in `tests/bridge/test_modes.py`."""

import keras
import pytest
import torch

import bridge


class Halved(keras.layers.Layer):
    """Half in training."""

    def call(self, x, training=False):
        return 0.5 * x if training else x


@pytest.mark.parametrize("shape", [(6,), (5, 4, 3)])
def test_the_mode_says(check, shape):
    x = keras.Input(shape, name="x")
    model = check.randomise(keras.Model(x, Halved(name="half")(keras.layers.Dense(3, name="first")(x))))
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    given = torch.randn(2, shape[-1], *shape[:-1])
    torch.testing.assert_close(module.train()(given) * 2, module.eval()(given))
