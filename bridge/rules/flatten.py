"""Flatten: keras.layers.Flatten <-> torch.nn.Flatten.

The rows run height, width, channel in Keras and channel, height, width in torch. Where a flattened tensor
reaches nothing but Dense layers, their kernels' rows are put into the other order; else the tensor is permuted
before it is flattened. Where one axis alone is larger than 1, there is but one order.

A Flatten of rank 2 does nothing, and is no node: torch's returns its input, which torch.export then takes for it. Of
other reshapes `bridge.rules.reshape` has those that are one.
"""

from bridge.graph import Node, Unsupported
from bridge.layout import Context, Placement, Rows, channel_order, fixed, identity
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, reshape

OPERATORS = ("flatten",)
KERAS = ("Flatten",)
TORCH = ("flatten",)


def LAYOUT(node: Node, context: Context) -> Placement:
    shape, order = node.inputs[0].shape, context.orders[0]
    if order[0] == 0 and sum(n != 1 for n in shape[1:]) <= 1:
        return Placement([order], [identity(2)])
    # one order, whatever came before, so that the way back puts the rows as they were
    standard = channel_order(len(shape), 1 if context.source == "first" else len(shape) - 1, context.target)
    plain = (order == identity(len(shape)) and len(shape) not in (4, 5)) or standard == identity(len(shape))
    if (
        plain
        or None in shape[1:]
        or not context.feeds_only(node.outputs[0], lambda n: n.operator == "dense" and not n.attributes.get("pinned"))
    ):
        return fixed(node, context)
    return Placement([standard], [Rows(shape[1:], tuple(a - 1 for a in standard[1:]))])


def read_keras(layer: KerasLayer) -> list[Node]:
    if layer.config.get("data_format") == "channels_first" and layer.rank > 2:
        raise Unsupported("data_format='channels_first' flattens channels last", "use channels_last")
    source = tuple(f"axis{i}" if n is None else n for i, n in enumerate(layer.inputs[0].shape))
    return reshape.nodes(source, (source[0], *layer.outputs[0].shape[1:]), layer.path)


def write_keras(node: Node) -> list[KerasCall]:
    shape = node.inputs[0].shape
    if len(shape) == 3 and shape[1] == 1 and shape[2]:  # of x[:, 0] Keras knows no size, where that axis is open
        return [KerasCall("Reshape", {"target_shape": shape[2:]})]
    return [KerasCall("Flatten")]


def read_torch(call: TorchOperation) -> list[Node]:
    return reshape.nodes(call.inputs[0].symbols, call.outputs[0].symbols, call.path)


def write_torch(node: Node) -> TorchCall:
    return TorchCall("{self}({0})", "nn.Flatten()") if node.name else TorchCall("torch.flatten({0}, 1)")
