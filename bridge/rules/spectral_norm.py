"""Spectral normalisation: keras.layers.SpectralNormalization around a Dense or a convolution.

In training Keras divides the kernel by an estimate of its largest singular value, and *keeps* the quotient: the next
step starts from it. In inference it takes the kernel as it is. torch.nn.utils keeps the original, trains that, and
divides anew at each call, in inference, too: that is `singular_value`. A helper does what Keras does. Its rows are
those of the kernel by its last axis, which is the first one of torch's weight.

The node is that of the inner layer under another name: `operator` says which, and its own rule does the work.
"""

from dataclasses import replace

import numpy as np

from bridge import rules
from bridge.graph import Node, Unsupported
from bridge.layout import Context, Placement
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, literal

OPERATORS = ("spectral_norm",)
KERAS = ("SpectralNormalization",)
INNER = ("convolution", "dense", "transposed_convolution")
WRAPPERS = ("SpectralNorm",)
TORCH = WRAPPERS
OVERWRITABLE = True
ABSORBS = {"spectral_norm": 0.0}  # of a convolution
STATISTICS = ("vector_u",)
EPSILON = 1e-7  # of keras.config, by which Keras bounds the norms

HELPERS = {
    "SpectralNorm": f'''
        class SpectralNorm(nn.Module):
            """A layer whose weight each step of training divides by its largest singular value, for good."""

            def __init__(self, layer, power_iterations=1):
                super().__init__()
                self.layer, self.power_iterations = layer, power_iterations
                self.register_buffer("vector_u", 0.02 * torch.randn(1, len(layer.weight)))

            @torch.no_grad()
            def divide(self):
                weight, u = self.layer.weight, self.vector_u
                rows = weight.flatten(1)
                for _ in range(self.power_iterations):
                    v = F.normalize(u @ rows, dim=1, eps={EPSILON})
                    u = F.normalize(v @ rows.T, dim=1, eps={EPSILON})
                sigma, zero = v @ rows.T @ u.T, (weight == 0).all()
                self.vector_u.copy_(torch.where(zero, self.vector_u, u))
                weight.copy_(torch.where(zero, weight, (weight.flatten() / sigma.flatten()).view_as(weight)))

            def forward(self, x):
                if not self.training:
                    return self.layer(x)
                self.divide()
                # of a copy, as another call before the backward pass divides the weight itself again
                weight = {{"weight": self.layer.weight.clone()}}
                return torch.func.functional_call(self.layer, weight, (x,))
        '''
}


def LAYOUT(node: Node, context: Context) -> Placement:
    return rules.for_operator(node["operator"]).LAYOUT(node, context)


def _wrapped(inner: Node, iterations: int, vector: str, name: str) -> Node:
    """The node of the inner layer under another name."""
    if inner.operator not in INNER:
        raise Unsupported(
            f"it wraps a {inner.operator.replace('_', ' ')}",
            "wrap Dense or a convolution, of more than one channel to a group",
        )
    attributes = {**inner.attributes, "operator": inner.operator, "power_iterations": iterations}
    parameters = {**inner.parameters, "vector_u": vector}
    return replace(inner, operator="spectral_norm", attributes=attributes, parameters=parameters, name=name)


def _inner(node: Node) -> Node:
    """The node as the inner layer's rule knows it."""
    attributes = {k: v for k, v in node.attributes.items() if k not in ("operator", "power_iterations")}
    parameters = {k: v for k, v in node.parameters.items() if k not in STATISTICS}
    return replace(node, operator=node["operator"], attributes=attributes, parameters=parameters)


def merge(node: Node, reader: Node) -> Node | None:
    """As the inner layer's rule does: a transposed convolution takes in the crop of its output."""
    inner = _inner(node)
    merged = getattr(rules.for_operator(inner.operator), "merge", lambda node, reader: None)(inner, reader)
    if merged is None:
        return None
    attributes = {**node.attributes, **merged.attributes}
    return replace(node, attributes=attributes, outputs=merged.outputs)


def read_keras(layer: KerasLayer) -> list[Node]:
    import keras

    c, wrapped = layer.config, layer.operation.layer
    kind, rule = type(wrapped).__name__, rules.for_keras(type(wrapped).__name__)
    if rule is None or type(wrapped).__module__.split(".")[0] != "keras":
        raise Unsupported(f"it wraps {kind}, for which there is no rule", "wrap Dense or a convolution")
    if wrapped.dtype_policy.name != layer.operation.dtype_policy.name:
        raise Unsupported(f"its layer has the dtype policy {wrapped.dtype_policy.name}", "give both the same")
    if keras.config.epsilon() != EPSILON:
        raise Unsupported(f"keras.config.epsilon() is {keras.config.epsilon()}", f"set it to {EPSILON}")
    weights = {role.split("/")[-1]: name for role, name in layer.weights.items()}
    vector = weights.pop("vector_u")
    inner = replace(layer, class_name=kind, config=c["layer"]["config"], weights=weights, operation=wrapped)
    first, *rest = rule.read_keras(inner)
    node = _wrapped(first, c["power_iterations"], vector, layer.path)
    if any(layer.parameters[name].pattern for name in weights.values()):
        raise Unsupported(f"it wraps {kind}, whose kernel is held with other axes", "wrap Dense or a convolution")
    return [node, *rest]


def write_keras(node: Node) -> list[KerasCall]:
    def wrap(call: KerasCall) -> KerasCall:
        config = {"layer": replace(call, weights=False), "power_iterations": node["power_iterations"]}
        return KerasCall("SpectralNormalization", config, call.suffix, weights=True)

    calls = rules.for_operator(node["operator"]).write_keras(_inner(node))
    return [wrap(call) if call.weights else call for call in calls]


def read_torch(call: TorchOperation) -> list[Node]:
    inner = call["layer"]
    first, *rest = rules.for_torch(inner.target).read_torch(inner)
    vector, weight = call.state["vector_u"], call.state["layer.weight"]
    if vector[1].shape != (1, len(weight[1])):
        raise Unsupported(f"its vector_u has the shape {vector[1].shape}", f"give it {(1, len(weight[1]))}")
    name = call.weights({"vector_u": ("vector_u", "... -> ...")})["vector_u"]
    return [_wrapped(first, call["power_iterations"], name, call.path), *rest]


def write_torch(node: Node) -> TorchCall:
    inner = rules.for_operator(node["operator"]).write_torch(_inner(node))
    iterations = node["power_iterations"]
    more = f", power_iterations={literal(iterations)}" if iterations != 1 else ""
    weights = {role: (f"layer.{name}", pattern) for role, (name, pattern) in inner.weights.items()}
    return TorchCall(
        inner.expression,
        f"SpectralNorm({inner.constructor}{more})",
        weights | {"vector_u": ("vector_u", "... -> ...")},
        {f"layer.{name}": array for name, array in inner.state.items()},
        tuple(line.replace("{self}", "{self}.layer") for line in inner.setup),
        (*inner.helpers, "SpectralNorm"),
    )


def torch_statistics(role: str, before: np.ndarray, after: np.ndarray, node: Node, shape) -> np.ndarray:
    """The vector is the same on both sides."""
    return after
