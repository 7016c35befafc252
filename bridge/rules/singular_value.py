"""Spectral normalisation as torch has it: torch.nn.utils' spectral_norm, of either kind <-> layers that keep vectors.

A weight is divided by the largest singular value of its matrix (Miyato et al., 2018, https://arxiv.org/abs/1802.05957),
which power iteration finds. torch trains the weight before the division, and keeps two vectors u and v: each step of
training goes on from the last v, and inference takes both as they are. (Keras' own layer keeps the quotient:
`spectral_norm`.)

Keras has no layer that keeps a vector, but batch renormalisation can: without momentum and with an epsilon of one, of a
batch of one example, its output is that example less the one before, and the example is what it keeps. So it is read by
a zero, and written to by the new vector; in inference it is not written to.
"""

import math
from collections.abc import Iterator

import numpy as np

from bridge.graph import Node, Steps, Unsupported, Value
from bridge.layout import fixed
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source, reshape

OPERATORS = ("singular_value",)
KERAS = ("model.singular_value",)
LAYOUT = fixed
FLOWS = ("weight",)
WEIGHTS = {f"{vector}/{kept}": (vector, "n -> n") for vector in "uv" for kept in ("moving_mean", "renorm_mean")}
STATISTICS = tuple(WEIGHTS)
BUFFERS = ("u/renorm_mean", "v/renorm_mean")  # in training; the others in inference, and equal
IDLE = tuple(f"{vector}/{kept}" for vector in "uv" for kept in ("moving_variance", "moving_stddev", "renorm_stddev"))
IDLE += ("inference/moving_mean", "inference/moving_variance")

HELPERS = {
    "SingularValue": '''
        class SingularValue(nn.Module):
            """The largest singular value of a matrix, which training follows by power iteration."""

            def __init__(self, rows, columns, power_iterations=1, eps=1e-12):
                super().__init__()
                self.power_iterations, self.eps = power_iterations, eps
                self.register_buffer("_u", F.normalize(torch.randn(rows), dim=0, eps=eps))
                self.register_buffer("_v", F.normalize(torch.randn(columns), dim=0, eps=eps))

            @torch.no_grad()
            def iterate(self, matrix):
                for _ in range(self.power_iterations):
                    self._u.copy_(F.normalize(matrix @ self._v, dim=0, eps=self.eps))
                    self._v.copy_(F.normalize(matrix.T @ self._u, dim=0, eps=self.eps))

            def forward(self, matrix):
                if self.training:
                    self.iterate(matrix)
                # of copies, as another call before the backward pass changes the vectors
                return self._u.clone() @ (matrix @ self._v.clone())
        '''
}
TORCH = ("bridge::singular_value", *HELPERS)


def _singular_value(matrix, power_iterations: int, epsilon: float):
    """In keras.ops, and layers that keep the vectors."""
    from keras import layers, ops

    keeps = {"momentum": 0.0, "epsilon": 1.0, "center": False, "scale": False, "dtype": matrix.dtype}
    keeps |= {"moving_variance_initializer": "zeros"}

    def register(name):
        return layers.BatchNormalization(**keeps, renorm=True, renorm_momentum=0.0, name=name)

    def unit(x):
        return x / ops.maximum(ops.norm(x), epsilon)

    registers, still = [register("u"), register("v")], ops.stop_gradient(matrix)
    zeros = [ops.zeros_like(ops.reshape(ops.sum(still, axis=a), (1, -1))) for a in (1, 0)]
    before = [-keep(zero) for keep, zero in zip(registers, zeros, strict=True)]
    v = before[1]
    for _ in range(power_iterations):
        u = unit(ops.matmul(v, ops.transpose(still)))
        v = unit(ops.matmul(u, still))
    one = ops.ones_like(zeros[0][:, :1])
    inference = layers.BatchNormalization(**keeps | {"momentum": 1.0}, name="inference")(one)  # 0 in training, else 1
    after = [keep(x) for keep, x in zip(registers, (u, v), strict=True)]
    u, v = (ops.where(inference > 0.5, a, b) for a, b in zip(before, after, strict=True))
    return ops.sum(u * ops.matmul(v, ops.transpose(matrix)))


MODELS = {"singular_value": _singular_value}


def options(name: str, model) -> Iterator[dict]:
    """The options with which a model of `MODELS` may have been made."""
    least = [o._inbound_nodes[0].arguments.args[1] for o in model.operations if type(o).__name__ == "Maximum"]
    if len(model.inputs) == 1 and model.weights and least:
        yield {"power_iterations": len(least) // 2, "epsilon": least[0]}


def read_keras(layer: KerasLayer) -> list[Node]:
    if not all(part.trainable for part in layer.operation.layers):
        raise Unsupported("it is frozen: its vectors stand still in training, too", "leave it trainable")
    return [Node("singular_value", layer.config, {role: layer.weights[role] for role in WEIGHTS}, layer.path)]


def write_keras(node: Node) -> list[KerasCall]:
    return [KerasCall("model.singular_value", dict(node.attributes), weights=True)]


def read_torch(call: TorchOperation) -> list[Node]:
    options = {"power_iterations": call["power_iterations"], "epsilon": call["eps"]}
    if call.target in HELPERS:
        call.state = {role.strip("_"): held for role, held in call.state.items()}
        return [Node("singular_value", options, call.weights(WEIGHTS), call.path)]
    x = call["weight"]
    if not isinstance(x, Value):
        raise Unsupported("its weight does not flow", "let it flow")  # FLOWS does so
    first = call["dim"] % x.rank
    # of the layer that holds the vectors, or of its parametrisation
    name = call.state["u"][0].removesuffix("_u").rstrip(".")
    steps, shape = Steps(call.outputs[0]), x.shape
    if first:
        axes = (first, *(a for a in range(x.rank) if a != first))
        shape = tuple(shape[a] for a in axes)
        x = steps("permute", [x], shape, permutation=axes)
    if x.rank > 2:
        (flat,) = reshape.nodes(shape, (shape[0], math.prod(shape[1:])), "")
        x = steps(flat.operator, [x], (shape[0], math.prod(shape[1:])), **flat.attributes)
    if call["first"] == "v":  # which begins with the other vector: that of the matrix turned over
        x = steps("permute", [x], x.shape[::-1], permutation=(1, 0))
        call.state = {"u": call.state["v"], "v": call.state["u"]}
    steps("singular_value", [x], (), **options)
    steps.nodes[-1].parameters = call.weights(WEIGHTS)
    return steps.finish(name)


def write_torch(node: Node) -> TorchCall:
    rows, columns = node.inputs[0].shape
    options = {"power_iterations": node["power_iterations"], "eps": node["epsilon"]}
    options = {k: v for k, v in options.items() if v != {"power_iterations": 1, "eps": 1e-12}[k]}
    weights = {f"{vector}/moving_mean": (f"_{vector}", "n -> n") for vector in "uv"}
    constructor = call_source("SingularValue", rows, columns, **options)
    return TorchCall("{self}({0})", constructor, weights, helpers=("SingularValue",))


def torch_statistics(role: str, before: np.ndarray, after: np.ndarray, node: Node, shape) -> np.ndarray:
    """The vectors are the same on both sides."""
    return after
