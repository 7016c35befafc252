"""What a layer's `call` does in training mode and not in inference, in one graph.

`call` has been traced in both modes. Where their results differ, a `ByMode` has both and returns the one that the mode
asks for; what the two have in common is found again while the graph is run through (`bridge.walk`), and done once.
"""

import keras
from keras.src.ops.function import Function

from bridge.graph import Unsupported


class ByMode(keras.Operation):
    """The first of two tensors in inference, the second in training."""

    def call(self, told, trained):
        return told

    def compute_output_spec(self, told, trained):
        return keras.KerasTensor(told.shape, told.dtype)


def joined(told: Function, trained: Function) -> Function:
    """One graph of a `call` in inference and in training.

    Args:
        told: Of inference.
        trained: Of training, of the same inputs.

    Raises:
        Unsupported: The two return other shapes, or inference alone would change a layer's statistics.
    """
    pairs = list(zip(told.outputs, trained.outputs, strict=False))
    kinds = [[(tuple(x.shape), x.dtype) for x in function.outputs] for function in (told, trained)]
    if kinds[0] != kinds[1]:
        raise Unsupported("it returns other tensors in training mode", "let it return the same shapes and dtypes")
    inside = [{id(x): x for x in function.operations if isinstance(x, keras.Layer)} for function in (told, trained)]
    idle = [x.name for key, x in inside[0].items() if key not in inside[1] and x.non_trainable_variables]
    if idle:
        raise Unsupported(f"it calls {', '.join(idle)} in inference alone", "call it in training mode, too")
    outputs = [x if x is y else ByMode().symbolic_call(x, y) for x, y in pairs]
    return Function(told.inputs, keras.tree.pack_sequence_as(told._outputs_struct, outputs))


def signature(node, arguments, keywords) -> tuple:
    """What a call does, with what stands for its tensors: equal for two that make the same, in whatever mode."""
    operation = node.operation
    if isinstance(operation, keras.Layer):
        what = id(operation)
    else:
        options = {k: v for k, v in vars(operation).items() if not k.startswith("_") and k != "name"}
        what = (type(operation).__name__, repr(sorted(options.items())))
    given = [arguments, {k: v for k, v in keywords.items() if k != "training"}]
    return what, repr(keras.tree.map_structure(lambda x: id(x) if hasattr(x, "shape") else x, given))
