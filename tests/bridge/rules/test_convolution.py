"""Convolution over the product of its options, both ways."""

import keras
import pytest

layers = keras.layers


@pytest.mark.parametrize("size", [8, 9, None])
@pytest.mark.parametrize(
    "stride, dilation, groups, kernel", [(1, 1, 1, 3), (2, 1, 1, 3), (3, 1, 2, 4), (1, 2, 1, 2), (2, 1, 1, 1)]
)
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_options(check, rank, padding, stride, dilation, groups, kernel, size):
    x = keras.Input((*[size] * (rank - 1), size and size + 2, 4), name="image")
    layer = getattr(layers, f"Conv{rank}D")(
        6,
        kernel,
        strides=stride,
        padding=padding,
        dilation_rate=dilation,
        groups=groups,
        use_bias=stride != 3,
        name="c",
    )
    model = keras.Model(x, layer(x))
    _, again = check.both_ways(model, size=9)
    if stride == 1 or size is None or padding == "valid":
        assert {
            k: v
            for k, v in again.get_layer("c").get_config().items()
            if k in ("strides", "padding", "dilation_rate", "groups")
        } == {k: v for k, v in layer.get_config().items() if k in ("strides", "padding", "dilation_rate", "groups")}
