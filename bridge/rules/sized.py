"""Functions of keras.ops in a layer's `call` that are given open sizes of its inputs (`bridge.open_sizes`).

They are read as torch's functions of the same sizes are, and so by their rules.
"""

from dataclasses import replace

from bridge import rules
from bridge.graph import Node
from bridge.layout import anything
from bridge.rules import KerasLayer, Size, TorchOperation

OPERATORS = ()  # reshapes, repetitions, rows of ones, slices
KERAS = ("ops.Sized", "ops.SizeOf")
TORCH = ()
LAYOUT = anything


def read_keras(layer: KerasLayer) -> list[Node]:
    if layer.class_name == "ops.SizeOf":
        return [Node("size", {"axis": layer.operation.axis, "part": (1, 0, 1)}, name=layer.path)]
    from bridge import open_sizes

    sized, made = layer.operation, layer.outputs[0]
    values = [replace(v, symbols=s) for v, s in zip(layer.inputs, sized.symbols, strict=True)]
    texts = {n.text for n in open_sizes.openings(sized)}
    arguments, keywords = sized.given(values, {text: Size(text) for text in texts})
    target, given = open_sizes.FUNCTIONS[sized.kind](*arguments, **keywords)
    own = [v for v in values if any(v is x for x in given.values())]
    call = TorchOperation(
        layer.path,
        target,
        given,
        own,
        [replace(made, symbols=sized.made)],
        {},
        layer.parameters,
        {name: (values[i], axis) for name, (i, axis) in sized.sizes.items()},
    )
    return rules.for_torch(target).read_torch(call)
