"""What changes no number: keras.layers.Identity, keras.ops.stop_gradient <-> detach, keras.ops.cast <-> x.to(dtype).

Identity is no node; one of several tensors is written where it keeps the calls of a layer in order
(`bridge.call_order`). Whole numbers become floats of the network's own dtype, whichever it is converted to; torch says
a dtype, or needs a helper. Floats become floats of another size by name, as a layer of a mixed dtype policy makes them.
"""

import numpy as np

from bridge.graph import Node, Unsupported, Value
from bridge.layout import anything, identity
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation

OPERATORS = ("stop_gradient", "cast", "together")
KERAS = ("Identity", "ActivityRegularization", "ops.StopGradient", "ops.Cast")
LAYOUT = anything

HELPERS = {
    "in_dtype": '''
        def in_dtype(module, dtype, *inputs):
            """Call a module with its floating weights in another dtype, as a layer of a mixed dtype policy does."""
            state = [*module.named_parameters(), *module.named_buffers()]
            state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state}
            return torch.func.functional_call(module, state, inputs)
        ''',
    "ToFloat": '''
        class ToFloat(nn.Module):
            """Numbers of the dtype that the network has."""

            def __init__(self):
                super().__init__()
                self.register_buffer("like", torch.zeros(()))

            def forward(self, x):
                return x.to(self.like.dtype)
        ''',
}
CASTS = ("to", "_to_copy", "type_as", "to_copy")  # ATen's names for it
TORCH = ("detach", "detach_copy", *CASTS, *HELPERS)
DOUBLE = {"ops.Cast": lambda cast, x: type(cast)("float64" if "float" in cast.dtype else cast.dtype)(x)}


def cast(x: Value, dtype: str, name: str) -> list[Node]:
    if dtype == x.dtype:
        return [Node("permute", {"permutation": identity(x.rank)}, name=name, inputs=[x])]
    if "float" in dtype and "float" in x.dtype:
        return [Node("cast", {"dtype": dtype}, name=name, inputs=[x])]
    if "complex" in dtype or "complex" in x.dtype:
        raise Unsupported(f"it makes {dtype} of {x.dtype}", "compute with real numbers")
    return [Node("cast", {"dtype": "float" if "float" in dtype else dtype}, name=name, inputs=[x])]


def read_keras(layer: KerasLayer) -> list[Node]:
    x = layer.inputs[0]
    if layer.class_name == "ops.StopGradient":
        return [Node("stop_gradient", name=layer.path)]
    if len(layer.inputs) > 1:
        pairs = zip(layer.inputs, layer.outputs, strict=True)
        return [Node("permute", {"permutation": identity(x.rank)}, inputs=[x], outputs=[y]) for x, y in pairs]
    return cast(x, layer.outputs[0].dtype, layer.path)


def write_keras(node: Node) -> list[KerasCall]:
    if node.operator == "stop_gradient":
        return [KerasCall("ops.stop_gradient")]
    if node.operator == "together":
        return [KerasCall("Identity")]
    return [KerasCall("ops.cast", {"dtype": node.outputs[0].dtype})]


def read_torch(call: TorchOperation) -> list[Node]:
    if call.target.startswith("detach"):
        return [Node("stop_gradient", name=call.path)]
    return cast(call.inputs[0], call.outputs[0].dtype, call.path)


def write_torch(node: Node) -> TorchCall:
    if node.operator == "stop_gradient":
        return TorchCall("{0}.detach()")
    if node["dtype"] != "float":
        return TorchCall(f"{{0}}.to(torch.{node['dtype']})")
    state = {"like": np.zeros((), node.outputs[0].dtype)}
    return TorchCall("{self}({0})", "ToFloat()", state=state, helpers=("ToFloat",))
