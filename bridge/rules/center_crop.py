"""CenterCrop: keras.layers.CenterCrop -> a crop in torch, at open sizes a helper.

The odd pixel is cut off after the image. Where the sizes are known, the crop is nothing but padding with negative
numbers. Of an image that is smaller than what is wanted Keras takes the largest part of the wanted aspect ratio and
resizes it; at an open size it decides so when it is called, and the helper raises an error instead.
"""

from types import SimpleNamespace

from bridge.graph import Node, Unsupported, Value
from bridge.layout import channels
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source, padding, resizing

OPERATORS = ("center_crop",)
KERAS = ("CenterCrop",)
LAYOUT = channels

HELPERS = {
    "CenterCrop": '''
        class CenterCrop(nn.Module):
            """The middle of an image that may be larger; the odd pixel is cut off after it."""

            def __init__(self, height, width):
                super().__init__()
                self.height, self.width = height, width

            def forward(self, x):
                top, left = (x.shape[2] - self.height) // 2, (x.shape[3] - self.width) // 2
                if top < 0 or left < 0:
                    raise ValueError(f"an image of {x.shape[2]} x {x.shape[3]} is too small to be cropped")
                return x[:, :, top : top + self.height, left : left + self.width]
        '''
}
TORCH = tuple(HELPERS)


def _fit(layer) -> SimpleNamespace:
    """What the layer does to an image that is smaller, as a Resizing."""
    return SimpleNamespace(
        size=(layer.height, layer.width),
        data_format=layer.data_format,
        interpolation="bilinear",
        antialias=False,
        crop_to_aspect_ratio=True,
        pad_to_aspect_ratio=False,
        fill_value=0.0,
    )


def _in_double(layer, x):
    """What the layer does, in float64."""
    part = [slice(None)] * 4
    for axis, size in zip((2, 3) if layer.data_format == "channels_first" else (1, 2), _fit(layer).size, strict=True):
        start = (x.shape[axis] - size) // 2
        if start < 0:
            return resizing.in_double(_fit(layer), x)
        part[axis] = slice(start, start + size)
    return x[tuple(part)]


DOUBLE = {"CenterCrop": _in_double}


def _node(x: Value, size: tuple[int, int], axis: int, name: str) -> Node:
    given = resizing.spatial(x.shape, axis)
    if None in given:
        return Node("center_crop", {"size": size, "axis": axis}, name=name)
    pads = [(-((n - m) // 2), m + (n - m) // 2 - n) for n, m in zip(given, size, strict=True)]
    return padding.constant([(0, 0), *pads[: axis - 1], (0, 0), *pads[axis - 1 :]], 0.0, name)


def read_keras(layer: KerasLayer) -> list[Node]:
    x, size = layer.inputs[0], (layer.config["height"], layer.config["width"])
    if x.rank != 4:
        raise Unsupported(f"an input of shape {x.shape} has no batch", "give it a batch")
    given = resizing.spatial(x.shape, layer.axis)
    if not any(n is not None and n < m for n, m in zip(given, size, strict=True)):
        return [_node(x, size, layer.axis, layer.path)]
    if None in given:
        raise Unsupported(f"an image of {given} is smaller than {size}", "give the model an Input of a fixed size")
    return resizing.from_resizing(_fit(layer.operation), x, layer.path)


def write_keras(node: Node) -> list[KerasCall]:
    return [KerasCall("CenterCrop", dict(zip(("height", "width"), node["size"], strict=True)))]


def read_torch(call: TorchOperation) -> list[Node]:
    return [_node(call.inputs[0], (call["height"], call["width"]), 1, call.path)]


def write_torch(node: Node) -> TorchCall:
    return TorchCall("{self}({0})", call_source("CenterCrop", *node["size"]), helpers=("CenterCrop",))
