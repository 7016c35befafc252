"""Normalisation with constants: keras.layers.Normalization; torch has no such module, so a helper does it.

(x - mean) / max(sqrt(variance), epsilon), or the other way about; Keras' epsilon is `keras.config.epsilon()`. The
layer computes with constants that it makes of its weights when it is built, adapted or loaded: what was assigned to the
weights since then changes nothing, so the constants are read. They come back as weights, exact in any dtype.
"""

import sys

import numpy as np

from bridge.graph import Node, Unsupported, Value
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source, rescaling

OPERATORS = ("normalization",)
KERAS = ("Normalization",)
LAYOUT = rescaling.LAYOUT
CASTS = KERAS
BUFFERS = ("mean", "variance")
FREEZES = BUFFERS
IDLE = ("mean", "variance", "count")

HELPERS = {
    "Normalization": '''
        class Normalization(nn.Module):
            """Subtract a given mean and divide by a given standard deviation, or the other way about."""

            def __init__(self, *shape, epsilon=1e-7, invert=False):
                super().__init__()
                self.epsilon, self.invert = epsilon, invert
                self.register_buffer("mean", torch.zeros(shape))
                self.register_buffer("variance", torch.ones(shape))

            def forward(self, x):
                deviation = self.variance.sqrt().clamp(min=self.epsilon)
                return self.mean + x * deviation if self.invert else (x - self.mean) / deviation
        '''
}
TORCH = tuple(HELPERS)


def read_keras(layer: KerasLayer) -> list[Node]:
    x, nodes = layer.inputs[0], []
    if "float" not in x.dtype:
        x = Value(f"{layer.outputs[0].name}:float", x.shape, layer.outputs[0].dtype)
        nodes.append(Node("cast", {"dtype": "float"}, outputs=[x]))
    parameters = {}
    for role in BUFFERS:
        constant = np.asarray(getattr(layer.operation, role))
        along = rescaling.run_along(constant.shape, x, "last")
        parameters[role] = layer.constant(f"constant_{role}", constant.squeeze())
    shape = layer.parameters[parameters["mean"]].value.shape
    epsilon = sys.modules["keras"].config.epsilon()  # what the layer asks for in each call
    attributes = {"along": along, "shape": shape, "epsilon": epsilon, "invert": layer.config["invert"]}
    return [*nodes, Node("normalization", attributes, parameters, layer.path)]


def write_keras(node: Node) -> list[KerasCall]:
    epsilon = sys.modules["keras"].config.epsilon()
    if not np.isclose(node["epsilon"], epsilon, rtol=1e-6, atol=0):
        raise Unsupported(f"epsilon={node['epsilon']}", f"Keras has {epsilon}: keras.config.set_epsilon changes it")
    axes = node["along"]
    config = {"axis": axes[0] if len(axes) == 1 else axes or None, "invert": node["invert"]}
    return [KerasCall("Normalization", config, weights=True)]


def read_torch(call: TorchOperation) -> list[Node]:
    x = call.inputs[0]
    shape = call.state["mean"][1].shape
    along = rescaling.run_along(shape, x, "first")
    parameters = call.weights({role: (role, rescaling.pattern(along, x.rank, len(shape))) for role in BUFFERS})
    held = call.parameters[parameters["mean"]].value.shape
    attributes = {"along": along, "shape": held, "epsilon": call["epsilon"], "invert": call["invert"]}
    return [Node("normalization", attributes, parameters, call.path)]


def write_torch(node: Node) -> TorchCall:
    pattern = rescaling.pattern(node["along"], node.inputs[0].rank)
    options = {k: v for k, v in (("epsilon", node["epsilon"]), ("invert", node["invert"])) if v not in (1e-7, False)}
    constructor = call_source("Normalization", *rescaling.aligned(node), **options)
    weights = {role: (role, pattern) for role in BUFFERS}
    return TorchCall("{self}({0})", constructor, weights, helpers=("Normalization",))
