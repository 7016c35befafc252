"""Recurrent convolutions: keras.layers.ConvLSTM{1,2,3}D, for which torch has no module: a class of ours.

They are an LSTM (`bridge.rules.recurrent`) whose two products are convolutions: that of the input has strides, a
dilation and padding, that of the state has neither of the former and keeps its size. The gates are i f c o. A node
reads (x, mask, *states) and makes (y, *states), h before c, of which y is as `recurrent` has it.

Channels come first in torch as everywhere: a sequence of pictures is (B, C, T, H, W), as nn.Conv3d and nn.BatchNorm3d
have it, so that nothing is permuted between such layers, and a state is (B, C, H, W). `axis` is that of the channels
of a sequence; the steps are the first other one.

Keras drops features of the input and of the state for each gate, the same at all steps: the class does so, too. Both
directions of a Bidirectional layer are two nodes.
"""

import json

from bridge.graph import Node, Unsupported, Value
from bridge.layout import Context, Placement, channel_order, identity
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source, recurrent, single
from bridge.rules.convolution import keras_padding, resolve_same

OPERATORS = ("convolutional_recurrent",)
KERAS = ("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
TORCH = ("bridge::convolutional_recurrent",)
SHOWN = ("ConvLSTM",)
ARGUMENTS, RANDOM, trimmed = recurrent.ARGUMENTS, recurrent.RANDOM, recurrent.trimmed
USUAL = {"activation": "tanh", "recurrent_activation": "sigmoid", "zero_masked": False, "dropout": 0.0}
USUAL |= {"recurrent_dropout": 0.0, "sequences": True, "masked": False, "given": False}
# role -> (name in torch, Keras axes to torch's axes)
PLACES = {
    "kernel": ("weight_ih", "... i o -> o i ..."),
    "recurrent_kernel": ("weight_hh", "... i o -> o i ..."),
    "bias": ("bias_ih", "o -> o"),
}

HELPERS = {
    "ConvLSTM": '''
        class ConvLSTM(nn.Module):
            """An LSTM whose products are convolutions, as Keras has it: of lines, pictures or volumes, step by step.

            `padding` is "valid", "same" at a stride of 1, or what comes (before, after) each axis of the input.
            """

            def __init__(
                self,
                in_channels,
                out_channels,
                kernel_size,
                stride=1,
                padding="valid",
                dilation=1,
                bias=True,
                sequences=True,
                activation="Tanh",
                recurrent_activation="Sigmoid",
                zero_masked=False,
                dropout=0.0,
                recurrent_dropout=0.0,
            ):
                super().__init__()
                self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
                self.stride, self.padding, self.dilation, self.bias = stride, padding, dilation, bias
                self.sequences, self.zero_masked = sequences, zero_masked
                self.activation, self.recurrent_activation = activation, recurrent_activation
                self.dropout, self.recurrent_dropout = dropout, recurrent_dropout
                self.functions = [getattr(nn, name)() for name in (activation, recurrent_activation)]
                shapes = {"weight_ih": (in_channels, *kernel_size), "weight_hh": (out_channels, *kernel_size)}
                for name, shape in (shapes | {"bias_ih": ()}).items():
                    weight = torch.empty(4 * out_channels, *shape).uniform_(-1, 1) / out_channels**0.5
                    self.register_parameter(name, nn.Parameter(weight) if bias or name != "bias_ih" else None)

            def forward(self, x, states=(), mask=None):
                """(B, C, T, ...), two states of (B, O, ...), the mask (B, T) -> the output and both last states."""
                x, (act, gate) = x.transpose(1, 2), self.functions
                sizes, kept = x.shape[:2], self.kept(x[:, 0], self.dropout)
                kept = None if kept is None else kept.repeat_interleave(sizes[1], 1)
                options = {"stride": self.stride, "dilation": self.dilation}
                x = self.gates(x.flatten(0, 1), self.weight_ih, self.bias_ih, kept, self.padding, **options)
                x = x.unflatten(0, sizes)
                states = states or [x.new_zeros(len(x), self.out_channels, *x.shape[3:])] * 2
                memory = self.kept(states[0], self.recurrent_dropout)

                def step(x, states):
                    i, f, g, o = (x + self.gates(states[0], self.weight_hh, None, memory, "same")).chunk(4, 1)
                    c = gate(f) * states[1] + gate(i) * act(g)
                    return [gate(o) * act(c), c]

                made, states = stepped(step, x, states, mask, self.zero_masked)
                return (torch.stack(made, 2) if self.sequences else made[-1], *states)

            def kept(self, x, rate):
                """What dropout leaves for each gate, the same at all steps."""
                return F.dropout(x.new_ones(4, *x.shape), rate, self.training) if rate else None

            def gates(self, x, weight, bias, kept, padding, stride=1, dilation=1):
                """What the four gates have of one tensor."""
                rank = len(self.kernel_size)
                if padding in ("valid", "same"):
                    spread = dilation if isinstance(dilation, (tuple, list)) else [dilation] * rank
                    total = [(k - 1) * d * (padding == "same") for k, d in zip(self.kernel_size, spread)]
                    padding = [(n // 2, n - n // 2) for n in total]
                even = all(before == after for before, after in padding)

                def convolve(x, weight, bias):
                    x = x if even else F.pad(x, [n for pair in reversed(padding) for n in pair])
                    pads = [before for before, _ in padding] if even else 0
                    return getattr(F, f"conv{rank}d")(x, weight, bias, stride, pads, dilation)

                if kept is None:
                    return convolve(x, weight, bias)
                biases = [None] * 4 if bias is None else bias.chunk(4)
                parts = zip(kept, weight.chunk(4), biases)
                return torch.cat([convolve(x * k, w, b) for k, w, b in parts], 1)
        ''',
}


def _state_axis(axis: int) -> int:
    """Where a state has the channels that a sequence has at this axis."""
    return 1 if axis == 1 else axis - 1


def LAYOUT(node: Node, context: Context) -> Placement:
    """The channels of sequences and of states where the target framework has them; the mask as it was read."""
    rank, axis = node.inputs[0].rank, node["axis"]
    orders = {
        rank: channel_order(rank, axis, context.target),
        rank - 1: channel_order(rank - 1, _state_axis(axis), context.target),
    }
    inputs, outputs = ([orders.get(v.rank, identity(v.rank)) for v in side] for side in (node.inputs, node.outputs))
    return Placement(inputs, outputs, {"axis": orders[rank].index(axis)})


def _step(x: Value, axis: int) -> tuple[int | None, ...]:
    """The shape of one step of a sequence, the channels last."""
    batch, _, *sizes = (n for i, n in enumerate(x.shape) if i != axis)
    return batch, *sizes, x.shape[axis]


def sizes_after(sizes, options: dict) -> list:
    """The sizes of what the class makes of an input of these sizes, with these arguments of its constructor."""
    kernel, padding = options["kernel_size"], options["padding"]
    if padding == "same":
        return list(sizes)
    strides, dilation = _each(options["stride"], kernel), _each(options["dilation"], kernel)
    pads = [(0, 0)] * len(kernel) if padding == "valid" else padding
    sides = zip(sizes, kernel, strides, dilation, pads, strict=True)
    return [(n + sum(p) - (k - 1) * d - 1) // s + 1 for n, k, s, d, p in sides]


def _each(number, kernel) -> tuple[int, ...]:
    """A number for each axis, or the numbers that are one already."""
    return tuple(number) if isinstance(number, (tuple, list)) else (number,) * len(kernel)


def _one(rnn, names, x: Value, masks: list, states: list, made: list[Value], path: str) -> list[Node]:
    """Nodes for a layer of one direction."""
    if type(rnn).__name__ not in KERAS or type(rnn).__module__.split(".")[0] != "keras":
        raise Unsupported(f"it has a layer of class {type(rnn).__name__}", f"use one of {', '.join(KERAS)}")
    nodes, cell = [], rnn.cell
    if rnn.go_backwards:
        nodes += [recurrent.flipped(v, made[0].name) for v in (x, *masks)]
        x, *masks = (n.outputs[0] for n in nodes)
    axis = 2 if cell.data_format == "channels_first" else x.rank - 1
    kernel, strides, dilation = map(tuple, (cell.kernel_size, cell.strides, cell.dilation_rate))
    pads = ((0, 0),) * len(kernel)
    if cell.padding == "same":
        pads = resolve_same(_step(x, axis), len(kernel) + 1, kernel, strides, dilation)
    c = cell.get_config()
    options = {k: recurrent.function_of(c[k], getattr(cell, k)) for k in ("activation", "recurrent_activation")}
    options |= {k: float(c[k]) for k in RANDOM} | {"masked": bool(masks), "given": bool(states)}
    options |= {"sequences": rnn.return_sequences, "zero_masked": bool(rnn.zero_output_for_mask and masks)}
    attributes = _attributes(cell.filters, kernel, strides, dilation, pads, axis, **options)
    parameters = recurrent.parameters_of(cell, names)
    return [*nodes, Node("convolutional_recurrent", attributes, parameters, path, [x, *masks, *states], made)]


def _attributes(filters, kernel, strides, dilation, pads, axis, **options) -> dict:
    """The attributes of a node."""
    shape = {"filters": filters, "kernel_size": kernel, "strides": strides, "dilation": dilation, "pads": pads}
    return USUAL | shape | {"axis": axis} | options


def read_keras(layer: KerasLayer) -> list[Node]:
    given = recurrent.taken(layer)
    recurrent.check_cells(layer.operation, [layer.operation.cell], layer.arguments)
    return _one(layer.operation, *given, list(layer.outputs), layer.path)


def read_both(layer: KerasLayer) -> list[Node]:
    """Nodes for a Bidirectional layer of these."""
    names, x, masks, states = recurrent.taken(layer)
    ways = layer.operation.forward_layer, layer.operation.backward_layer
    for rnn in ways:
        recurrent.check_cells(rnn, [rnn.cell], layer.arguments)

    def one(way: int, made: list[Value], name: str) -> list[Node]:
        return _one(ways[way], names, x, masks, states[2 * way : 2 * way + 2], made, name)

    shapes = [rnn.cell.compute_output_shape((x.shape[0], *x.shape[2:]))[0] for rnn in ways]
    return recurrent.apart(layer, one, [shape[-1] for shape in shapes], 2)


def ordered(node: Node) -> list[str]:
    return [role for role in PLACES if role in node.parameters]


def write_keras(node: Node) -> list[KerasCall]:
    a, x, kernel = node.attributes, node.inputs[0], node["kernel_size"]
    if None in x.shape[2:-1]:
        raise Unsupported(f"its pictures are {x.shape[2:-1]}, and Keras wants to know their size", "fix these axes")
    if max(a["strides"]) > 1 and max(a["dilation"]) > 1:
        raise Unsupported("Keras has no strides with dilation", "leave one of them out")
    step = Node("", {**a, "axis": len(kernel) + 1}, inputs=[Value("", _step(x, a["axis"]))])
    padding, before = keras_padding(step)
    if before:
        raise Unsupported(f"it pads its input by {a['pads']}", "pad it before, and let the class have none")
    config = {
        "filters": a["filters"],
        "kernel_size": kernel,
        "strides": a["strides"],
        "dilation_rate": a["dilation"],
        "padding": padding,
        "use_bias": "bias" in node.parameters,
        "return_sequences": a["sequences"],
        "return_state": len(node.outputs) > 1,
    }
    config |= {k: a[k] for k in ("activation", "recurrent_activation", *RANDOM) if a[k] != USUAL[k]}
    config |= {"zero_output_for_mask": True} if a["zero_masked"] else {}
    names = ("mask",) * a["masked"] + ("initial_state[]",) * (2 * a["given"])
    return [KerasCall(f"ConvLSTM{len(kernel)}D", config, weights=True, names=names)]


def read_torch(call: TorchOperation) -> list[Node]:
    x, mask, states, o = call["x"], call["mask"], call["states"], json.loads(call["options"])
    recurrent.check_flow(x, call["weights"], states)
    kernel, padding = tuple(o["kernel_size"]), o["padding"]
    strides, dilation = _each(o["stride"], kernel), _each(o["dilation"], kernel)
    pads = ((0, 0),) * len(kernel) if padding == "valid" else padding
    if padding == "same" and max(strides) > 1:
        raise Unsupported('its padding is "same" at a stride', "say what comes before and after each axis")
    if padding == "same":
        pads = resolve_same(_step(x, 1), len(kernel) + 1, kernel, strides, dilation)
    options = {k: recurrent.FUNCTIONS[o[k]] for k in ("activation", "recurrent_activation")}
    options |= {k: o[k] for k in ("sequences", "zero_masked", *RANDOM)}
    options |= {"masked": mask is not None, "given": bool(states)}
    options["zero_masked"] &= options["masked"]
    attributes = _attributes(o["out_channels"], kernel, strides, dilation, tuple(map(tuple, pads)), 1, **options)
    table = {
        role: (f"weights.{i}", pattern)
        for i, (role, (_, pattern)) in enumerate(PLACES.items())
        if o["bias"] or role != "bias"
    }
    inputs = [x, *([mask] if mask is not None else []), *states]
    return [Node("convolutional_recurrent", attributes, call.weights(table), call.path, inputs, call.outputs)]


def write_torch(node: Node) -> TorchCall:
    a, kernel = node.attributes, node["kernel_size"]
    step = (None, *node.inputs[0].shape[3:], None)
    same = max(a["strides"]) == 1 and a["pads"] == resolve_same(
        step, len(kernel) + 1, kernel, a["strides"], a["dilation"]
    )
    options = {
        "stride": single(a["strides"]),
        "padding": "same" if same and any(map(any, a["pads"])) else a["pads"] if any(map(any, a["pads"])) else "valid",
        "dilation": single(a["dilation"]),
        "bias": "bias" in node.parameters,
        "sequences": a["sequences"],
        "activation": recurrent.class_of(a["activation"]),
        "recurrent_activation": recurrent.class_of(a["recurrent_activation"]),
        **{k: a[k] for k in ("zero_masked", *RANDOM)},
    }
    usual = {"stride": 1, "padding": "valid", "dilation": 1, "bias": True, "sequences": True}
    usual |= {"activation": "Tanh", "recurrent_activation": "Sigmoid"}
    options = {k: v for k, v in options.items() if v != usual.get(k, USUAL.get(k))}
    constructor = call_source("ConvLSTM", node.inputs[0].shape[1], a["filters"], kernel, **options)
    weights = {role: place for role, place in PLACES.items() if role in node.parameters}
    return TorchCall(recurrent.called(node), constructor, weights, helpers=("stepped", "ConvLSTM"))
