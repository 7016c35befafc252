"""Recurrent layers: keras.layers.{LSTM, GRU, SimpleRNN, Bidirectional, RNN} <-> torch.nn.{LSTM, GRU, RNN}.

The gates of an LSTM are i f c o in Keras and i f g o in torch, the same; those of a GRU are z r h in Keras and r z n
in torch. nn.LSTM and nn.RNN have two biases that are added, Keras one: it is their sum. From Keras the second one is
zero and frozen; where torch trains both, their sum moves twice as far in training, and that is said. Both biases of a
GRU are rows of Keras' one; `reset_after=False` is no nn.GRU.

torch returns the whole sequence and all states, (layers * directions, B, H). A node is one layer, of one direction or
of both: it reads (x, mask, *states) and makes (y, *states), with states of (B, H), h before c. y is the last output
alone where nothing reads the others; then it is h, and h is not read, unless there is a mask.

A step that is masked keeps the states and repeats the output before it, which is 0 at first, or has 0 for its output.
`go_backwards` is a flipped input. Keras' `dropout` drops features of the input, the same at all steps: a Dropout before
the layer. Both directions of one, and each gate beside a `recurrent_dropout`, drop their own, as a helper does.
"""

import json
from dataclasses import replace

import numpy as np

from bridge import recurrent_source, rules
from bridge.graph import Node, Unsupported, Value, flatten
from bridge.layout import fixed
from bridge.rules import (
    ROWS,
    SUM,
    KerasCall,
    KerasLayer,
    TorchCall,
    TorchOperation,
    activation,
    call_source,
    merging,
    reshape,
    slice,
    stack,
)

OPERATORS = ("recurrent",)
LAYERS = {"lstm": "LSTM", "gru": "GRU", "rnn": "SimpleRNN"}
CELLS = {"LSTMCell": "lstm", "GRUCell": "gru", "SimpleRNNCell": "rnn"}
MODULES = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
KERAS = ("LSTM", "GRU", "SimpleRNN", "Bidirectional", "RNN")
ARGUMENTS = ("mask", "initial_state")
# class of torch.nn -> our name of its function, of those that are the same without options
FUNCTIONS = {
    f.module.removeprefix("nn."): name
    for name, f in activation.FUNCTIONS.items()
    if f.module.startswith("nn.") and all(a == b or (a, b) == (False, "none") for a, _, b in f.options.values())
} | {"Identity": "linear"}
LAYOUT = fixed
RANDOM = ("dropout", "recurrent_dropout")
STEPS = ("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")  # of nn.LSTMCell, nn.GRUCell and nn.RNNCell
TORCH = ("bridge::recurrent", *STEPS)

HELPERS = recurrent_source.HELPERS
SHOWN = ("Recurrent", *(f"Keras{kind}" for kind in MODULES.values()))


def _pattern(cell: str, text: str) -> str:
    """An einops pattern from Keras' axes to torch's, whose gates are `o`."""
    left, right = text.split("->")
    return f"{left.replace('o', '(z+r+h)')}->{right.replace('o', '(r+z+h)')}" if cell == "gru" else text


def _named(cell: str, prefix: str, rows: bool, kernels: list[str], biases: list[str]) -> dict[str, tuple]:
    """A table of weights: role -> (name in torch, pattern)."""
    table = {f"{prefix}kernel": (kernels[0], _pattern(cell, "i o -> o i"))}
    table[f"{prefix}recurrent_kernel"] = kernels[1], _pattern(cell, "i o -> o i")
    if biases:
        bias = tuple(biases) if len(biases) > 1 else biases[0]
        table[f"{prefix}bias"] = bias, _pattern(cell, "b o -> b o" if rows else "o -> o")
    return table


def _options(cell: str, **given) -> dict:
    """The attributes of a node."""
    usual = {
        "cell": cell,
        "activation": "tanh",
        "recurrent_activation": "" if cell == "rnn" else "sigmoid",
        "reset_after": cell == "gru",
        "bidirectional": False,
        "merge": "concat",
        "sequences": True,
        "zero_masked": False,
        "dropout": 0.0,
        "recurrent_dropout": 0.0,
        "masked": False,
        "given": False,
    }
    return usual | given


def _states(cell: str) -> int:
    return 2 if cell == "lstm" else 1


def trimmed(node: Node, read: set[str]) -> Node:
    """The node without states that nothing reads; y is the last output alone where nothing reads it."""
    y, *states = node.outputs
    if y.name not in read:
        changes = {"sequences": False, "zero_masked": False}
        node = replace(node, attributes=node.attributes | changes)
        y = replace(y, name=f"{y.name}:last", shape=states[0].shape, order=states[0].order, symbols=())
        if not node["masked"] and not node.attributes.get("bidirectional"):
            y, states[0] = states[0], y  # they are the same
    states = states if any(v.name in read for v in states) else []
    return replace(node, outputs=[y, *states])


def read_keras(layer: KerasLayer) -> list[Node]:
    if layer.class_name == "Bidirectional":
        rule = rules.for_operator("convolutional_recurrent")
        if type(layer.operation.forward_layer).__name__ in rule.KERAS:
            return rule.read_both(layer)
    if layer.rank != 3:
        raise Unsupported(f"input of shape {layer.inputs[0].shape}", "give it (batch, steps, features)")
    given = taken(layer)
    if layer.class_name == "Bidirectional":
        return _both(layer, *given)
    _check(layer.operation, layer.arguments)
    return _one(layer.operation, *given, list(layer.outputs), layer.path)


def taken(layer: KerasLayer) -> tuple[dict[int, str], Value, list, list]:
    """The names of a layer's weights by their ids, and its input, masks and initial states."""
    a, operation, made = layer.arguments, layer.operation, layer.outputs[0]
    policy = operation.dtype_policy
    masks, states = list(flatten(a.get("mask"))), list(flatten(a.get("initial_state")))
    if policy.compute_dtype != policy.variable_dtype:
        raise Unsupported(f"its dtype policy is {policy.name}", "rebuild it with float32 or float64")
    if not all(isinstance(v, Value) for v in (*masks, *states)) or len(masks) > 1:
        raise Unsupported("its mask or its initial state is a constant", "let it flow")
    if any(v.dtype != "bool" for v in masks):
        raise Unsupported(f"its mask is {masks[0].dtype}", "give booleans")
    if any(v.dtype != made.dtype for v in states):
        raise Unsupported(f"its initial state is {states[0].dtype}", f"give it as {made.dtype}")
    names = dict(zip(map(id, operation.weights), layer.weights.values(), strict=True))
    return names, layer.inputs[0], masks, states


def _check(rnn, arguments: dict) -> None:
    """Refuse what the layer of one direction does beside what its cells do."""
    if type(rnn).__name__ not in ("RNN", *LAYERS.values()) or type(rnn).__module__.split(".")[0] != "keras":
        raise Unsupported(
            f"it has a layer of class {type(rnn).__name__}", "use LSTM, GRU, SimpleRNN or RNN of their cells"
        )
    check_cells(rnn, _cells(rnn), arguments)


def check_cells(rnn, cells: list, arguments: dict) -> None:
    """Refuse what a layer of these cells does from call to call, and at random."""
    if rnn.stateful:
        raise Unsupported(
            "stateful=True keeps its states from one call to the next",
            "make them inputs and outputs: initial_state and return_state=True",
        )
    zero = rnn.zero_output_for_mask and rnn.return_sequences and arguments.get("mask") is not None
    if zero and rnn.unroll and rnn.go_backwards:
        raise Unsupported(
            "unroll=True with go_backwards=True takes the mask of its outputs from the wrong end", "give unroll=False"
        )
    for cell in cells:
        rates = cell.dropout, cell.recurrent_dropout
        if arguments.get("training") and any(rates):
            raise Unsupported(
                "it is called with training=True, so that the network is random in inference too",
                "leave it to the model's own mode",
            )
        if max(rates) >= 1:
            raise Unsupported("its dropout drops everything", "give a rate below 1")


def _cells(rnn) -> list:
    """The cells of a layer, from the first to the last."""
    cells = list(getattr(rnn.cell, "cells", [rnn.cell]))
    for cell in cells:
        if type(cell).__name__ not in CELLS or type(cell).__module__.split(".")[0] != "keras":
            raise Unsupported(f"its cell is {type(cell).__name__}", f"use one of {', '.join(CELLS)}")
    return cells


def _attributes(cell, rnn, **given) -> dict:
    """The attributes of a node for a cell of Keras."""
    c = cell.get_config()
    options = {k: function_of(c[k], getattr(cell, k)) for k in ("activation", "recurrent_activation") if k in c}
    options |= {k: float(c[k]) for k in RANDOM} | ({"reset_after": c["reset_after"]} if "reset_after" in c else {})
    zero = bool(rnn.zero_output_for_mask and given.get("masked"))
    return _options(CELLS[type(cell).__name__], units=cell.units, zero_masked=zero, **options, **given)


def function_of(said, function) -> str:
    """The name of an activation that both frameworks have as a function of one tensor."""
    import keras

    own = keras.src.activations.ALL_OBJECTS_DICT
    if not isinstance(said, str) or said not in FUNCTIONS.values() or function is not own.get(said):
        raise Unsupported(f"activation={said!r} of a recurrent layer", "use a function without options, such as tanh")
    return said


def parameters_of(cell, names: dict[int, str], prefix: str = "") -> dict[str, str]:
    """The parameters of a cell of Keras, by their roles."""
    held = {"kernel": cell.kernel, "recurrent_kernel": cell.recurrent_kernel, "bias": cell.bias}
    return {f"{prefix}{role}": names[id(v)] for role, v in held.items() if v is not None}


def flipped(x: Value, made: str) -> Node:
    """A node that turns the steps round, for the layer that makes this."""
    return Node("flip", {"axes": (1,)}, inputs=[x], outputs=[replace(x, name=f"{made}:{x.name}:flipped", symbols=())])


def _one(rnn, names, x: Value, masks: list, states: list, made: list[Value], path: str) -> list[Node]:
    """Nodes for a layer of one direction, one for each of its cells."""
    cells, last, nodes = _cells(rnn), made[1:], []
    if rnn.go_backwards:
        nodes += [flipped(v, made[0].name) for v in (x, *masks)]
        x, *masks = (n.outputs[0] for n in nodes)
    for i, cell in enumerate(cells):
        final, many = i == len(cells) - 1, _states(CELLS[type(cell).__name__])
        y = made[0] if final else replace(made[0], name=f"{made[0].name}:cell{i}", shape=(*x.shape[:2], cell.units))
        name = path if len(cells) == 1 else f"{path}_{i}"
        given, states, mine, last = states[:many], states[many:], last[:many], last[many:]
        sequences = rnn.return_sequences or not final
        options = _attributes(cell, rnn, sequences=sequences, masked=bool(masks), given=bool(given))
        if options["dropout"] and not options["recurrent_dropout"]:
            rate, options["dropout"] = options["dropout"], 0.0
            dropped = replace(x, name=f"{y.name}:dropped", symbols=())
            shared = {"axes": (1,)} if x.shape[1] != 1 else {}
            nodes.append(Node("dropout", {"rate": rate, **shared}, {}, f"{name}_dropout", [x], [dropped]))
            x = dropped
        nodes.append(Node("recurrent", options, parameters_of(cell, names), name, [x, *masks, *given], [y, *mine]))
        x = y
    return nodes


def _both(layer: KerasLayer, names, x: Value, masks: list, states: list) -> list[Node]:
    """A node for both directions, or one for each where they differ, or are not merged."""
    operation, path, made = layer.operation, layer.path, list(layer.outputs)
    ways, merge, half = (operation.forward_layer, operation.backward_layer), operation.merge_mode, len(states) // 2
    for rnn in ways:
        _check(rnn, layer.arguments)
    cells = [_cells(rnn) for rnn in ways]
    given = {"sequences": operation.return_sequences, "masked": bool(masks), "given": bool(states)}
    if merge and not ways[0].go_backwards and [len(c) for c in cells] == [1, 1]:
        options, other = (_attributes(c[0], rnn, **given) for c, rnn in zip(cells, ways, strict=True))
        parameters = parameters_of(cells[0][0], names) | parameters_of(cells[1][0], names, "backward_")
        bias = [c[0].bias is not None for c in cells]
        if options == other and bias[0] == bias[1]:
            options |= {"bidirectional": True, "merge": merge}
            return [Node("recurrent", options, parameters, path, [x, *masks, *states], made)]
    many = sum(_states(CELLS[type(c).__name__]) for c in cells[0])

    def one(way: int, made: list[Value], name: str) -> list[Node]:
        return _one(ways[way], names, x, masks, states[half:] if way else states[:half], made, name)

    return apart(layer, one, [c[-1].units for c in cells], many)


def apart(layer: KerasLayer, one, widths: list[int], many: int) -> list[Node]:
    """The nodes of a Bidirectional layer, each direction for itself.

    Args:
        layer: It.
        one: The nodes of a direction, 0 or 1, that makes these values and has this name.
        widths: The last size of what each direction makes.
        many: How many states the first one has.
    """
    made, path, merge = list(layer.outputs), layer.path, layer.operation.merge_mode
    ys, last = (made[:2], made[2:]) if merge is None else ([], made[1:])
    ys = ys or [
        replace(made[0], name=f"{made[0].name}:way{i}", shape=(*made[0].shape[:-1], n)) for i, n in enumerate(widths)
    ]
    cut = many if last else 0
    back = replace(ys[1], name=f"{ys[1].name}:turned") if layer.operation.return_sequences else ys[1]
    nodes = one(0, [ys[0], *last[:cut]], f"{path}_forward") + one(1, [back, *last[cut:]], f"{path}_backward")
    if layer.operation.return_sequences:
        nodes.append(replace(flipped(back, ""), outputs=[ys[1]]))
    if merge == "concat":
        axis = ys[0].rank - 1
        nodes.append(Node("concatenate", {"axis": axis}, {}, path, ys, made[:1]))
    elif merge == "ave":
        whole = replace(made[0], name=f"{made[0].name}:sum")
        nodes += merging.join("add", ys, "", [whole])
        nodes.append(Node("divide", {"number": 2}, {}, path, [whole], made[:1]))
    elif merge:
        nodes += merging.join({"sum": "add", "mul": "multiply"}[merge], ys, path, made[:1])
    return nodes


def ordered(node: Node) -> list[str]:
    roles = [r for r in ("kernel", "recurrent_kernel", "bias") if r in node.parameters]
    return [*roles, *(f"backward_{r}" for r in roles if node["bidirectional"])]


def write_keras(node: Node) -> list[KerasCall]:
    a, cell = node.attributes, node["cell"]
    config = {"units": a["units"], "use_bias": "bias" in node.parameters}
    config |= {"return_sequences": a["sequences"], "return_state": len(node.outputs) > 1}
    usual = _options(cell)
    keys = ("activation", "recurrent_activation", "reset_after", *RANDOM)
    config |= {k: a[k] for k in keys if a[k] != usual[k]}
    if a["zero_masked"] and not a["bidirectional"]:
        config["zero_output_for_mask"] = True
    names = ("mask",) * a["masked"]
    names += ("initial_state[]",) * (len(node.inputs) - 1 - len(names))
    call = KerasCall(LAYERS[cell], config, weights=True, names=names)
    if not a["bidirectional"]:
        return [call]
    inner = replace(call, weights=False, names=())
    return [KerasCall("Bidirectional", {"layer": inner, "merge_mode": a["merge"]}, weights=True, names=names)]


def read_torch(call: TorchOperation) -> list[Node]:
    step = call.target in STEPS
    x, states = (call["input"], call["hx"]) if step else (call["x"], call["states"])
    check_flow(x, [call[k] for k in ("w_ih", "w_hh")] if step else call["weights"], states)
    if step:
        return _of_step(call, x, list(flatten(states)))
    o = json.loads(call["options"])
    return _of_helper(call, o) if "helper" in o else _of_module(call, o)


def check_flow(x, weights: list, states) -> None:
    """Refuse an input or a state that is held, and a weight that is not."""
    if not isinstance(x, Value):
        raise Unsupported("its input is a constant or a weight", "let it flow")
    if not all(isinstance(name, str) for name in weights):
        raise Unsupported("its weights are computed", "store them as parameters")
    if not all(isinstance(v, Value) for v in flatten(states)):
        raise Unsupported("its initial state is a constant or a weight", "expand it over the batch of the input")


def _of_step(call: TorchOperation, x: Value, states: list[Value]) -> list[Node]:
    """A sequence of one step."""
    cell, h = call.target.partition("_")[0], call.outputs[0]
    options = {"units": h.shape[-1], "sequences": False, "given": True}
    if cell == "rnn":
        options["activation"] = call.target.split("_")[1]
    biases = [k for k in ("b_ih", "b_hh") if k in call.state]
    parameters = _held(call, cell, "", ["w_ih", "w_hh", *biases])
    one = replace(x, name=f"{h.name}:step", shape=(x.shape[0], 1, x.shape[1]), symbols=())
    blocks = reshape.plain([reshape.KEEP, reshape.NEW, reshape.KEEP], x.shape)
    made = [h, replace(h, name=f"{h.name}:h"), *call.outputs[1:]]
    return [
        Node("reshape", {"blocks": blocks}, inputs=[x], outputs=[one]),
        Node("recurrent", _options(cell, **options), parameters, call.path, [one, *states], made),
    ]


def _of_list(first: int, biases: int) -> list[str]:
    """Where a list of weights has those of one direction."""
    return [f"weights.{i}" for i in range(first, first + 2 + biases)]


def _held(call: TorchOperation, cell: str, prefix: str, keys: list[str]) -> dict[str, str]:
    """The parameters of one direction: the kernels, then the biases."""
    kernels, keys = keys[:2], keys[2:]
    rows = cell == "gru" and len(keys) == 2
    if len(keys) == 2:
        (one, two), key = (call.state.pop(k) for k in keys), f"{kernels[0]}.biases"
        if rows and one[2] != two[2]:
            raise Unsupported(f"of {one[0]} and {two[0]} one is trained", "freeze both, or none")
        arrays = one[1], two[1]
        call.state[key] = (
            (ROWS if rows else SUM).join((one[0], two[0])),
            np.stack(arrays) if rows else np.add(*arrays),
            one[2] or two[2],
        )
        keys = [key]
    return call.weights(_named(cell, prefix, rows, kernels, keys))


def _of_helper(call: TorchOperation, o: dict) -> list[Node]:
    """The node of one of the helpers."""
    own = o["helper"] != "Recurrent"
    cell = next(k for k, name in MODULES.items() if name == (o["helper"].removeprefix("Keras") if own else o["cell"]))
    options = {k: o[k] for k in ("bidirectional", "sequences", "merge")} | {"units": o["hidden_size"]}
    if own and cell == "rnn":
        options["activation"] = o["nonlinearity"]
    if not own:
        keys = ("activation", "recurrent_activation")[: 2 - (cell == "rnn")]
        options |= {k: FUNCTIONS[o[k]] for k in keys}
        options |= {k: o[k] for k in ("zero_masked", *RANDOM)}
        options["reset_after"] = cell == "gru" and o["reset_after"]
    inputs = [call["x"], *([call["mask"]] if call["mask"] is not None else []), *call["states"]]
    options |= {"masked": call["mask"] is not None, "given": bool(call["states"])}
    biases = o["bias"] * (2 if own or (cell == "gru" and o["reset_after"]) else 1)
    parameters = _held(call, cell, "", _of_list(0, biases))
    if o["bidirectional"]:
        parameters |= _held(call, cell, "backward_", _of_list(2 + biases, biases))
    return [Node("recurrent", _options(cell, **options), parameters, call.path, inputs, call.outputs)]


def _of_module(call: TorchOperation, o: dict) -> list[Node]:
    """Nodes for each layer of nn.LSTM, nn.GRU or nn.RNN, and for the axes that its states have in torch."""
    if o["projected"]:
        raise Unsupported(f"proj_size={o['projected']}, which Keras has not", "leave it out", final=True)
    cell, x, (y, *last) = o["kind"].partition("_")[0].lower(), call["x"], call.outputs
    ways, layers, many, units, nodes = 1 + o["bidirectional"], o["layers"], _states(cell), o["units"], []
    options = {"units": units, "bidirectional": ways == 2, "given": bool(call["states"])}
    if cell == "rnn":
        options["activation"] = o["kind"].partition("_")[2].lower()
    if not o["batch_first"]:
        x = _turned(x, f"{y.name}:x", nodes)
    made: list[list[Value]] = [[] for _ in last]
    shape, dtype = (*x.shape[:2], units * ways), y.dtype
    for i in range(layers):
        name = call.path if layers == 1 or not call.path else f"{call.path}_l{i}"
        end = i == layers - 1
        out = y if end and o["batch_first"] else Value(f"{y.name}:l{i}", shape, dtype)
        given, states = [], []
        for way in range(ways):
            for j in range(many):
                state = Value(f"{y.name}:l{i}.{way}.{j}", (shape[0], units), dtype)
                states.append(state)
                made[j].append(state)
                if call["states"]:
                    given.append(replace(state, name=f"{state.name}:given"))
                    nodes += slice.index(call["states"][j], (i * ways + way,), given[-1], "")
        first, biases = i * ways * (2 + 2 * o["bias"]), 2 * o["bias"]
        parameters = _held(call, cell, "", _of_list(first, biases))
        if ways == 2:
            parameters |= _held(call, cell, "backward_", _of_list(first + 2 + biases, biases))
        nodes.append(Node("recurrent", _options(cell, **options), parameters, name, [x, *given], [out, *states]))
        x = out
        if o["dropout"] and not end:
            x = replace(out, name=f"{out.name}:dropped")
            nodes.append(Node("dropout", {"rate": o["dropout"]}, {}, f"{name}_dropout", [out], [x]))
    if not o["batch_first"]:
        nodes.append(Node("permute", {"permutation": (1, 0, 2)}, inputs=[x], outputs=[y]))
    for parts, value in zip(made, last, strict=True):
        if len(parts) > 1:
            nodes += stack.stack(parts, 0, value, "")
        else:
            blocks = reshape.plain([reshape.NEW, reshape.KEEP, reshape.KEEP], parts[0].shape)
            nodes.append(Node("reshape", {"blocks": blocks}, inputs=parts, outputs=[value]))
    return nodes


def _turned(x: Value, name: str, nodes: list[Node]) -> Value:
    """A tensor with the batch before the steps."""
    made = Value(name, (x.shape[1], x.shape[0], *x.shape[2:]), x.dtype)
    nodes.append(Node("permute", {"permutation": (1, 0, 2)}, inputs=[x], outputs=[made]))
    return made


def class_of(function: str) -> str:
    """The class of torch.nn that is a function of ours."""
    return next(name for name, f in FUNCTIONS.items() if f == function)


def called(node: Node) -> str:
    """The call of a helper with an input, states and a mask."""
    places = [f"{{{i}}}" for i in range(len(node.inputs))]
    mask = f", mask={places.pop(1)}" if node["masked"] else ""
    states = f", ({', '.join(places[1:])},)" if node["given"] else ""
    return f"{{self}}({places[0]}{states}{mask}){'[0]' if len(node.outputs) == 1 else ''}"


def write_torch(node: Node) -> TorchCall:
    a, cell, size = node.attributes, node["cell"], node.inputs[0].shape[-1]
    kind, bias, both = MODULES[cell], "bias" in node.parameters, a["bidirectional"]
    usual = _options(cell)
    keys = ("recurrent_activation", "reset_after", "masked", *RANDOM)
    own = all(a[k] == usual[k] for k in keys) and a["activation"] in ("tanh", *["relu"] * (cell == "rnn"))
    options = {"nonlinearity": "relu"} if own and cell == "rnn" and a["activation"] == "relu" else {}
    options |= ({} if bias else {"bias": False}) | ({"bidirectional": True} if both else {})
    whole = a["merge"] == "concat" and a["sequences"] if both else True
    setup = ()
    if own and whole and len(node.outputs) == 1 and not a["given"]:
        helpers, constructor = (), call_source(f"nn.{kind}", size, a["units"], **options, batch_first=True)
        last = "[0]" if a["sequences"] else "[1][0][-1]" if cell == "lstm" else "[1][-1]"
        expression = f"{{self}}({{0}}){last}"
    else:
        options |= {} if a["sequences"] else {"sequences": False}
        options |= {"merge": a["merge"]} if a["merge"] != "concat" else {}
        helpers, arguments = ("merged", f"Keras{kind}"), (size, a["units"])
        if not own:
            helpers, arguments = ("merged", "stepped", "Recurrent"), (kind, *arguments)
            acts = [k for k in ("activation", "recurrent_activation") if a[k] != usual[k]]
            options |= {k: class_of(a[k]) for k in acts}
            options |= {k: a[k] for k in ("zero_masked", *RANDOM) if a[k]}
            options |= {"reset_after": False} if a["reset_after"] != usual["reset_after"] else {}
        constructor = call_source(helpers[-1], *arguments, **options)
        expression = called(node)
    weights, state = {}, {}
    for prefix, way in (("", "l0"), ("backward_", "l0_reverse"))[: 1 + both]:
        rows = cell == "gru" and a["reset_after"]
        biases = [f"bias_ih_{way}", *([f"bias_hh_{way}"] if rows else [])] if bias else []
        weights |= _named(cell, prefix, rows, [f"weight_ih_{way}", f"weight_hh_{way}"], biases)
        if own and bias and not rows:
            state[f"bias_hh_{way}"] = np.zeros(GATES[cell] * a["units"], node.outputs[0].dtype)
            setup += (f"{{self}}.bias_hh_{way}.requires_grad_(False)",)
    return TorchCall(expression, constructor, weights, state, setup, helpers)
