"""Division by the norm: keras.layers.UnitNormalization, keras.ops.normalize <-> torch.nn.functional.normalize.

Both divide by max(norm, epsilon), Keras by multiplying with min(rsqrt(sum of squares), 1 / epsilon); the epsilon is
1e-12 in Keras' layer and in torch, 1e-7 in Keras' function. Norms that are no Euclidean ones Keras has along one axis.

The reader keeps F.normalize whole, which torch.export takes apart. The generated source has a layer that calls it.
"""

from bridge.graph import Node, Unsupported
from bridge.layout import axes
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source, layer_norm, single

OPERATORS = ("unit_norm",)
KERAS = ("UnitNormalization", "ops.Normalize")
LAYOUT = axes
EPSILON = 1e-12  # of Keras' layer and of torch

HELPERS = {
    "UnitNorm": '''
        class UnitNorm(nn.Module):
            """Division by the norm of order `p` over the dimensions `dim`."""

            def __init__(self, dim, p=2, eps=1e-12):
                super().__init__()
                self.dim, self.p, self.eps = dim, p, eps

            def forward(self, x):
                return F.normalize(x, self.p, self.dim, self.eps)
        '''
}
TORCH = ("bridge::normalize", *HELPERS)


def _node(given, rank: int, order: int, epsilon: float, name: str) -> Node:
    found = tuple(sorted(a % rank for a in (given if isinstance(given, (list, tuple)) else [given])))
    if not found:
        raise Unsupported("it names no axes", "name them")
    if not (order >= 1 and float(order).is_integer()):
        raise Unsupported(f"the norm of order {order}", "Keras has those of the orders 1, 2, 3, ...")
    return Node("unit_norm", {"axes": found, "order": int(order), "epsilon": epsilon}, name=name)


def read_keras(layer: KerasLayer) -> list[Node]:
    c = layer.config
    if c["axis"] is None:
        raise Unsupported("axis=None normalises the whole batch at once", "name the axes")
    if layer.class_name == "UnitNormalization":
        return [_node(c["axis"], layer.rank, 2, EPSILON, layer.path)]
    node = _node(c["axis"], layer.rank, c["order"], layer_norm.read_epsilon(layer), layer.path)
    return [_checked(node)]


def _checked(node: Node) -> Node:
    if node["order"] != 2 and len(node["axes"]) > 1:
        raise Unsupported(
            f"order={node['order']} over several axes, which in Keras is a norm of matrices",
            "give one axis, or order=2",
        )
    return node


def write_keras(node: Node) -> list[KerasCall]:
    if (node["order"], node["epsilon"]) == (2, EPSILON):
        return [KerasCall("UnitNormalization", {"axis": layer_norm.write_axis(node)})]
    config = {"axis": single(_checked(node)["axes"]), "order": node["order"], "epsilon": node["epsilon"]}
    return [KerasCall("ops.normalize", config)]


def read_torch(call: TorchOperation) -> list[Node]:
    return [_node(call["dim"], call.inputs[0].rank, call["p"], call["eps"], call.path)]


def write_torch(node: Node) -> TorchCall:
    options = {k: v for k, v, default in (("p", node["order"], 2), ("eps", node["epsilon"], EPSILON)) if v != default}
    return TorchCall("{self}({0})", call_source("UnitNorm", single(node["axes"]), **options), helpers=("UnitNorm",))
