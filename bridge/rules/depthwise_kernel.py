"""Depthwise convolutions by functions: keras.ops.{depthwise_conv, separable_conv}, whose kernels are arrays or flow.

A kernel that is an array is held as a frozen layer's is. One that is computed is a sum of products, cell by cell of the
kernel, as neither framework has the same function of it; `bridge.rules.computed_kernel` has that of all channels.
"""

import functools
from dataclasses import replace

import numpy as np

from bridge import keras_parts
from bridge.graph import Node, Unsupported
from bridge.layout import anything
from bridge.rules import KerasLayer, convolution, depthwise_convolution, separable_convolution

OPERATORS = ()  # convolutions with frozen kernels; sums of products
TORCH = ()
LAYOUT = anything


def _numbers(value, n: int) -> tuple[int, ...]:
    return (value,) * n if isinstance(value, int) else tuple(value)


def config(operation, kernel_size, n: int) -> dict:
    """What a layer's configuration says, of an operation of keras.ops with `n` spatial axes."""
    import keras

    return {
        "kernel_size": tuple(kernel_size),
        "strides": _numbers(operation.strides, n),
        "dilation_rate": _numbers(operation.dilation_rate, n),
        "padding": operation.padding,
        "data_format": operation.data_format or keras.config.image_data_format(),
        "activation": None,
        "use_bias": False,
    }


def _depthwise(ops, o, x, kernel):
    """The sum of what each cell of the kernel meets, times that cell."""
    n, (*sizes, channel, multiplier) = len(x.shape) - 2, kernel.shape
    c = config(o, sizes, n)
    first = c["data_format"] == "channels_first"
    if first:
        x = ops.moveaxis(x, 1, -1)
    strides, dilation, pads = c["strides"], c["dilation_rate"], ((0, 0),) * n
    if c["padding"] == "same":
        pads = convolution.resolve_same(x.shape, n + 1, sizes, strides, dilation)
        if pads == "same":
            raise Unsupported("padding='same' at a size that is open", "fix the size, or pad by numbers")
    if any(map(any, pads)):
        x = ops.pad(x, ((0, 0), *pads, (0, 0)))
    if multiplier > 1:
        x = ops.repeat(x, multiplier, axis=-1)
    kernel = ops.reshape(kernel, (*sizes, channel * multiplier))
    products = (
        x[(slice(None), *(slice(i * d, (i - k + 1) * d or None, s)
                          for i, k, d, s in zip(cell, sizes, dilation, strides, strict=True)))] * kernel[cell]
        for cell in np.ndindex(*sizes)
    )  # fmt: skip
    made = functools.reduce(lambda a, b: a + b, products)
    return ops.moveaxis(made, -1, 1) if first else made


def _separable(ops, o, x, depthwise, pointwise):
    form = config(o, (), 0)["data_format"]
    return ops.conv(_depthwise(ops, o, x, depthwise), pointwise, padding="valid", data_format=form)


PARTS = {"ops.DepthwiseConv": _depthwise, "ops.SeparableConv": _separable}
KERAS = tuple(PARTS)


def held(layer: KerasLayer, **roles) -> dict[str, str]:
    """The names of kernels that are arrays, put among the parameters as their input's dtype."""
    dtype, names = layer.inputs[0].dtype, {}
    if dtype not in ("float32", "float64"):
        raise Unsupported(f"arrays with a tensor of {dtype}", "cast it to float32 before, or use a layer")
    for role, array in roles.items():
        exact = np.asarray(array, "float64")
        names[role] = layer.constant(role, exact.astype(dtype))
        error = np.abs(layer.parameters[names[role]].value - exact).max(initial=0.0)
        layer.parameters[names[role]].rounding = float(
            error / max(np.abs(exact).max(initial=0.0), np.finfo(dtype).tiny)
        )
    return names


def read_keras(layer: KerasLayer) -> list[Node]:
    x, *kernels = layer.arguments.values()
    if len(layer.inputs) > 1:
        if any(None in kernel.shape for kernel in kernels):
            raise Unsupported("the size of its kernel is open", "compute it from weights alone")
        return keras_parts.read(layer, PARTS)
    *sizes, _, multiplier = np.shape(kernels[0])
    options = config(layer.operation, sizes, x.rank - 2) | {"depth_multiplier": multiplier}
    if layer.class_name == "ops.DepthwiseConv":
        weights = held(layer, kernel=kernels[0])
        return depthwise_convolution.read_keras(replace(layer, config=options, weights=weights))
    options["filters"] = np.shape(kernels[1])[-1]
    weights = held(layer, depthwise_kernel=kernels[0], pointwise_kernel=kernels[1])
    return separable_convolution.read_keras(replace(layer, config=options, weights=weights))
