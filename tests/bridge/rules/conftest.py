"""What the tests of rules share besides `check`."""

import pytest


@pytest.fixture
def carried(check):
    """Carry a function of keras.ops, of what Dense layers make, both ways; values, gradients and training are compared.

    It returns the torch module and the Keras model that came back.
    """
    import keras

    import bridge

    def carried(function, *shapes, verified=True, same_layers=False, **options):
        inputs = [keras.Input(shape, name=f"x{i}") for i, shape in enumerate(shapes)]
        made = [
            keras.layers.Dense(shape[-1], name=f"d{i}")(x)
            for i, (x, shape) in enumerate(zip(inputs, shapes, strict=True))
        ]
        outputs = keras.tree.flatten(function(*made))
        outputs = [t if "float" in t.dtype else keras.ops.cast(t, "float32") for t in outputs]
        model = keras.Model(inputs, [*outputs, *(t * 0.1 for t in made)])
        both = check.both_ways(model, same_layers=same_layers, **options)
        if verified:
            report = bridge.verify(model, both.module)
            assert report.passed, str(report)
        return both

    return carried
