"""Channels into pixels: keras.ops.depth_to_space, space_to_depth, take <-> torch.nn.{Pixel,PixelUn,Channel}Shuffle.

A block of r x r pixels comes from r * r * c channels. TensorFlow has the place in the block before the channel in
that number ("DCR"), torch has the channel before the place ("CRD"); for one channel they are the same. torch's order is
made in Keras by a permutation of the channels with constant indices, and read back as one with what it belongs to.
"""

from dataclasses import replace

import numpy as np
from einops import rearrange

from bridge.graph import Node, Unsupported, Value
from bridge.layout import channels, identity
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source

OPERATORS = ("depth_to_space", "space_to_depth", "channel_permutation")
KERAS = ("ops.DepthToSpace", "ops.SpaceToDepth")  # and those of "ops.Take" that `gather` shows it
LAYOUT = channels

HELPERS = {
    "DepthToSpace": '''
        class DepthToSpace(nn.Module):
            """Blocks of pixels out of channels, in TensorFlow's order: the place in the block before the channel."""

            def __init__(self, block_size):
                super().__init__()
                self.block_size = block_size

            def forward(self, x):
                r = self.block_size
                x = x.unflatten(1, (r, r, -1)).permute(0, 3, 4, 1, 5, 2)  # (B, C, H, r, W, r)
                return x.flatten(4, 5).flatten(2, 3)
        ''',
    "SpaceToDepth": '''
        class SpaceToDepth(nn.Module):
            """Blocks of pixels into channels, in TensorFlow's order: the place in the block before the channel."""

            def __init__(self, block_size):
                super().__init__()
                self.block_size = block_size

            def forward(self, x):
                r = self.block_size
                x = x.unflatten(3, (-1, r)).unflatten(2, (-1, r))  # (B, C, H, r, W, r)
                return x.permute(0, 3, 5, 1, 2, 4).flatten(1, 3)
        ''',
    "ChannelPermutation": '''
        class ChannelPermutation(nn.Module):
            """The channels in another order."""

            def __init__(self, channels):
                super().__init__()
                self.register_buffer("indices", torch.arange(channels))

            def forward(self, x):
                return x.index_select(1, self.indices)
        ''',
}
TORCH = ("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", *HELPERS)


def merge(node: Node, reader: Node) -> Node | None:
    """Take a permutation of the channels into what it belongs to, where the two are torch's order."""
    if (node.operator, reader.operator) == ("channel_permutation", "depth_to_space"):
        permutation, block = node, reader
    elif (node.operator, reader.operator) == ("space_to_depth", "channel_permutation"):
        block, permutation = node, reader
    else:
        return None
    torchs = _indices(block.operator, block["block_size"], len(permutation["indices"]))
    if block["order"] != "DCR" or permutation["axis"] != block["axis"] or permutation["indices"] != torchs:
        return None
    attributes = {**block.attributes, "order": "CRD"}
    return replace(block, attributes=attributes, inputs=node.inputs, outputs=reader.outputs)


def _indices(operator: str, block_size: int, size: int) -> tuple[int, ...]:
    """The channels that make TensorFlow's order, before a depth_to_space, or torch's, after a space_to_depth."""
    pattern = "(c r) -> (r c)" if operator == "depth_to_space" else "(r c) -> (c r)"
    return tuple(rearrange(np.arange(size), pattern, r=block_size**2).tolist())


def _groups(indices: tuple[int, ...]) -> int | None:
    """The number of groups that nn.ChannelShuffle would have for a permutation."""
    groups = len(indices) // indices[1] if len(indices) > 1 and indices[1] else 1
    return groups if indices == _shuffle(groups, len(indices)) else None


def _shuffle(groups: int, size: int) -> tuple[int, ...]:
    return tuple(rearrange(np.arange(size), "(g c) -> (c g)", g=groups).tolist()) if size % groups == 0 else ()


def _block(operator: str, block_size: int, order: str, shape, axis: int, name: str) -> Node:
    """The normal form; `shape` is the input's."""
    small = shape[axis] // block_size**2 if operator == "depth_to_space" else shape[axis]
    order = "DCR" if small == 1 else order
    return Node(operator, {"block_size": block_size, "order": order, "axis": axis}, name=name)


def _permutation(indices: tuple[int, ...], axis: int, rank: int, name: str) -> Node:
    if list(indices) == sorted(indices):
        return Node("permute", {"permutation": identity(rank)}, name=name)
    return Node("channel_permutation", {"indices": indices, "axis": axis}, name=name)


def read_keras(layer: KerasLayer) -> list[Node]:
    x, config = layer.inputs[0], layer.config
    operator = "depth_to_space" if layer.class_name == "ops.DepthToSpace" else "space_to_depth"
    return [_block(operator, config["block_size"], "DCR", x.shape, layer.axis, layer.path)]


def selected(x: Value, axis: int, places: tuple[int, ...], name: str) -> list[Node] | None:
    """The node for cells of an axis by their numbers, if those permute it."""
    if axis and sorted(places) == list(range(x.shape[axis] or 0)):
        return [_permutation(places, axis, x.rank, name)]
    return None


def write_keras(node: Node) -> list[KerasCall]:
    axis = node["axis"]
    if node.operator == "channel_permutation":
        return [KerasCall("ops.take", {"indices": np.array(node["indices"]), "axis": axis})]
    name = node.operator
    block = KerasCall(f"ops.{name}", {"block_size": node["block_size"], "data_format": "channels_last"})
    if node["order"] == "DCR":
        return [block]
    before = name == "depth_to_space"
    size = node.inputs[0].shape[axis] * (1 if before else node["block_size"] ** 2)
    indices = np.array(_indices(name, node["block_size"], size))
    permutation = KerasCall("ops.take", {"indices": indices, "axis": axis}, "_channels")
    return [permutation, block] if before else [block, permutation]


def read_torch(call: TorchOperation) -> list[Node]:
    x = call.inputs[0]
    if x.shape[1] is None:  # torch.export works it out of the open sizes before a PixelUnshuffle
        raise Unsupported("the number of its channels is not known", "export with height and width fixed")
    if call.target in ("channel_shuffle", "native_channel_shuffle"):
        return [_permutation(_shuffle(call["groups"], x.shape[1]), 1, x.rank, call.path)]
    if call.target == "ChannelPermutation":
        return [_permutation(tuple(call.state["indices"][1].tolist()), 1, x.rank, call.path)]
    if x.rank != 4:
        raise Unsupported(f"an input of shape {x.shape}", "give it images in one batch, of rank 4")
    operator = "depth_to_space" if call.target in ("DepthToSpace", "pixel_shuffle") else "space_to_depth"
    block_size = next(call[k] for k in ("block_size", "upscale_factor", "downscale_factor") if k in call.arguments)
    if block_size == 1:
        return [Node("permute", {"permutation": identity(4)}, name=call.path)]
    return [_block(operator, block_size, "DCR" if call.target in HELPERS else "CRD", x.shape, 1, call.path)]


def write_torch(node: Node) -> TorchCall:
    if node.operator == "channel_permutation":
        indices = node["indices"]
        if groups := _groups(indices):
            return TorchCall("{self}({0})", call_source("nn.ChannelShuffle", groups))
        constructor, state = call_source("ChannelPermutation", len(indices)), {"indices": np.array(indices, "int64")}
        return TorchCall("{self}({0})", constructor, state=state, helpers=("ChannelPermutation",))
    up = node.operator == "depth_to_space"
    shape = (node.outputs if up else node.inputs)[0].shape
    if node["order"] == "CRD" or shape[node["axis"]] == 1:
        return TorchCall(
            "{self}({0})", call_source("nn.PixelShuffle" if up else "nn.PixelUnshuffle", node["block_size"])
        )
    helper = "DepthToSpace" if up else "SpaceToDepth"
    return TorchCall("{self}({0})", call_source(helper, node["block_size"]), helpers=(helper,))
