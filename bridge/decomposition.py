"""Operators that no rule reads, in the words of those that torch itself decomposes them into.

torch has two sources: its table of decompositions, which `torch.compile` uses, and the operators that are composite by
themselves. What leads to primitives of another kind (`prims`) is of no use. An operator that does something else in
training mode is left as it is: its parts would be what it does in inference.
"""

from collections.abc import Callable

import torch
from torch._decomp import decomposition_table
from torch.fx.experimental.proxy_tensor import make_fx

TRAINS = {"train", "training", "use_input_stats", "dropout_p", "padding_idx"}  # arguments of what trains in another way
OWN = {  # what torch decomposes into primitives, in its own words
    "bilinear": lambda x, y, weight, bias=None: _biased(_bilinear(x, y, weight), bias),
    "bucketize": lambda x, bounds, *, out_int32=False, right=False: _sorted(bounds, x, right, out_int32),
    "searchsorted": lambda row, x, *, out_int32=False, right=False, side=None, sorter=None: _sorted(
        row if sorter is None else row.gather(-1, sorter), x, right or side == "right", out_int32
    ),
    "broadcast_tensors": lambda xs: _broadcast(xs),
    "cdist": lambda x, y, p=2.0, compute_mode=None: torch.linalg.vector_norm(
        x[..., None, :] - y[..., None, :, :], p, -1
    ),
    "cosine_similarity": lambda x, y, dim=1, eps=1e-8: (_unit(x, dim, eps) * _unit(y, dim, eps)).sum(dim),
    "diag": lambda x, diagonal=0: x.diagonal(diagonal) if x.ndim == 2 else _diagonal(x, diagonal),
    "diag_embed": lambda x, offset=0, dim1=-2, dim2=-1: _diagonal(x, offset, dim1, dim2),
    "index_add": lambda x, dim, index, source, alpha=1: _put(
        x, dim, index, source * alpha if alpha != 1 else source, True
    ),
    "index_copy": lambda x, dim, index, source: _put(x, dim, index, source, False),
    "logit": lambda x, eps=None: _odds(x if eps is None else x.clamp(eps, 1 - eps)),
    "meshgrid": lambda xs, indexing="ij": _grids(xs, indexing),
    "outer": lambda x, y: x[:, None] * y,
    "scatter": lambda x, dim, index, src=None, value=None: _scatter(x, dim, index, value if src is None else src),
    "softplus": lambda x, beta=1, threshold=20: torch.where(
        x * beta > threshold, x, torch.log1p(torch.exp((x * beta).clamp(max=threshold))) / beta
    ),
    "std_mean": lambda x, *args, **options: (torch.std(x, *args, **options), _mean(x, *args, **options)),
    "unfold": lambda x, dimension, size, step: _windows(x, dimension % x.ndim, size, step),
    "var_mean": lambda x, *args, **options: (torch.var(x, *args, **options), _mean(x, *args, **options)),
}
SCATTERED = 16  # values along an axis, each of which takes a step
IMPLICIT = torch._C.DispatchKey.CompositeImplicitAutograd


def _biased(x, bias):
    return x if bias is None else x + bias


def _bilinear(x, y, weight):
    rows = torch.nn.functional.linear(x, weight.mT.flatten(0, 1)).unflatten(-1, (weight.shape[0], -1))
    return (rows * y[..., None, :]).sum(-1)


def _unit(x, dim: int, eps: float):
    return x / x.square().sum(dim, keepdim=True).clamp(min=eps * eps).sqrt()


def _diagonal(x, offset: int, first: int = -2, second: int = -1):
    """Matrices along two axes, with a last axis on a diagonal."""
    eye = torch.ones(x.shape[-1] + abs(offset), x.shape[-1] + abs(offset), dtype=torch.bool)
    eye = eye.tril(offset).triu(offset)
    cells = torch.nn.functional.pad(x, (abs(offset), 0)).unsqueeze(-2 if offset >= 0 else -1)
    return torch.where(eye, cells, 0).movedim((-2, -1), (first, second))


def _put(x, dim: int, index, source, add: bool):
    """Write along an axis, which goes to the front."""
    return x.movedim(dim, 0).index_put((index,), source.movedim(dim, 0), accumulate=add).movedim(0, dim)


def _windows(x, axis: int, size: int, step: int):
    """Overlapping windows of an axis, whose cells become a last axis."""
    starts = torch.arange(0, x.shape[axis] - size + 1, step)
    places = starts[:, None] + torch.arange(size)
    cells = x.index_select(axis, places.flatten())
    return cells.unflatten(axis, places.shape).movedim(axis + 1, -1)


def _sorted(row, x, right: bool, short: bool):
    """How many of a sorted row are below each number, or not above it; NaN is above all."""
    x = x if isinstance(x, torch.Tensor) else torch.tensor(x)
    row = row.unsqueeze(-2) if row.ndim > 1 else row
    below = (x[..., None] < row) if right else (x[..., None] <= row)
    found = below.logical_not().to(torch.int64).sum(-1)
    return found.to(torch.int32) if short else found


def _broadcast(xs):
    shape = torch.broadcast_shapes(*(x.shape for x in xs))
    return tuple(x.expand(shape) for x in xs)


def _grids(xs, indexing: str):
    grids = _broadcast([x.view([-1 if i == axis else 1 for i in range(len(xs))]) for axis, x in enumerate(xs)])
    return grids if indexing == "ij" else tuple(x.transpose(0, 1) for x in grids)


def _scatter(x, dim: int, index, values):
    """What is written to: where an index is the place. Of several the last one counts, as on a CPU.

    torch's documentation leaves open which one does, and calls its own gradient incorrect then.
    """
    dim %= x.ndim
    others = [(a, b) for i, (a, b) in enumerate(zip(index.shape, x.shape, strict=True)) if i != dim]
    if any(a != b for a, b in others):
        raise NotImplementedError("it writes to a part of the other axes")
    places = torch.arange(x.shape[dim]).view([-1 if i == dim else 1 for i in range(x.ndim)])
    if not isinstance(values, torch.Tensor):
        return torch.where((index.movedim(dim, -1)[..., None] == places.view(-1)).any(-2).movedim(-1, dim), values, x)
    if index.shape[dim] > SCATTERED:
        raise NotImplementedError("it would take very many steps")
    for i in range(index.shape[dim]):
        x = torch.where(index.narrow(dim, i, 1) == places, values.narrow(dim, i, 1), x)
    return x


def _odds(x):
    return torch.log(x) - torch.log(1 - x)


def _mean(x, dim=None, correction=None, keepdim=False, unbiased=True):
    return x.mean() if dim is None or isinstance(dim, bool) else x.mean(dim, keepdim)


def inline(node: torch.fx.Node, reason: Exception) -> list[torch.fx.Node]:
    """Put the parts of an operator in its place in the program.

    Args:
        node: A call of an ATen operator.
        reason: Why it is not read as it is, for where its parts are not either.

    Returns:
        The nodes that are new, in their order; none where there is no decomposition, and nothing has changed then.
    """
    traced = _traced(node)
    if traced is None:
        return []
    graph, places = node.graph, dict(zip(_placeholders(traced), _given(node), strict=True))
    known = set(graph.nodes)
    with graph.inserting_before(node):
        results = graph.graph_copy(traced, places)
    made = [n for n in graph.nodes if n not in known]
    for new in made:
        new.meta["nn_module_stack"] = node.meta.get("nn_module_stack", {})
        new.meta["reason"] = node.meta.get("reason", reason)
    if isinstance(results, (list, tuple)):
        for user in list(node.users):  # each takes one of the results
            user.replace_all_uses_with(results[user.args[1]])
            graph.erase_node(user)
    else:
        node.replace_all_uses_with(results)
    graph.erase_node(node)
    return made


def _given(node: torch.fx.Node) -> list[torch.fx.Node]:
    return [n for n in node.all_input_nodes if "val" in n.meta]


def _placeholders(graph: torch.fx.Graph) -> list[torch.fx.Node]:
    return [n for n in graph.nodes if n.op == "placeholder"]


def _function(operator: torch._ops.OpOverload):
    """What does the work of an operator by others, if anything does."""
    if TRAINS & {a.name for a in operator._schema.arguments}:
        return None
    if operator._schema.is_mutable:  # x.lerp_(y, 0.5)
        name = operator._schema.name.removeprefix("aten::").rstrip("_")
        packet = getattr(torch.ops.aten, name, None)
        operator = getattr(packet, operator._overloadname, None) if packet else None
        if operator is None or operator._schema.is_mutable:
            return None
    own = OWN.get(operator._schema.name.removeprefix("aten::"))
    if own or operator in decomposition_table:
        return own or decomposition_table[operator]
    return operator.decompose if operator.has_kernel_for_dispatch_key(IMPLICIT) else None


def _traced(node: torch.fx.Node) -> torch.fx.Graph | None:
    """The graph of a decomposition, on the node's own sizes."""
    function = _function(node.target)
    given = _given(node)
    modes = [v.fake_mode for n in given if hasattr(v := n.meta["val"], "fake_mode")]
    if function is None or not modes:
        return None

    def apply(*values):
        held = dict(zip(given, values, strict=True))
        arguments, keywords = torch.fx.node.map_arg((node.args, node.kwargs), held.__getitem__)
        return function(*arguments, **keywords)

    examples = [n.meta["val"] for n in given]
    symbols = _symbols(examples)
    if not all(n.node.expr.free_symbols for n in _numbers(examples)):
        return None  # torch.export has taken the example's sizes already
    try:
        with modes[0], torch.no_grad():
            traced = make_fx(apply, pre_dispatch=True)(*examples).graph
    except Exception:  # each decomposition fails in its own way; the reason why there is no rule is told then
        return None
    traced.eliminate_dead_code()
    made = [n.target for n in traced.nodes if isinstance(n.target, torch._ops.OpOverload)]
    if node.target in made or any(o.namespace == "prims" for o in made):
        return None
    if _symbols(examples) != symbols:  # some have become the example's
        return None
    return traced if not symbols or _holds(traced, apply, examples, symbols) else None


def _numbers(examples: list) -> list:
    return [n for x in examples for n in (x.shape if isinstance(x, torch.Tensor) else [x]) if hasattr(n, "node")]


def _symbols(examples: list) -> dict:
    """The open sizes of tensors and numbers, and those of the example."""
    found = {s: n.node.shape_env for n in _numbers(examples) for s in n.node.expr.free_symbols}
    return {s: int(environment.backed_var_to_val[s]) for s, environment in sorted(found.items(), key=str)}


def _holds(traced: torch.fx.Graph, function: Callable, examples: list, symbols: dict) -> bool:
    """Tell whether a graph does the same as the function at other open sizes: its Python may have taken the example's.

    Args:
        traced: The graph.
        function: What was traced.
        examples: The tensors and sizes with which it was.
        symbols: The open sizes among these, and the example's.
    """
    for larger in (lambda n, i: n + 2 + i, lambda n, i: 2 * n):  # the second for sizes that must be a multiple
        sizes = {s: larger(n, i) for i, (s, n) in enumerate(symbols.items())}
        others = [_other(x, sizes) for x in examples]
        try:
            with torch.no_grad():
                want = function(*others)
        except Exception:  # not a size for this operator
            continue
        try:
            with torch.no_grad():
                have = torch.fx.Interpreter(torch.fx.GraphModule({}, traced)).run(*others)
            torch.testing.assert_close(have, want, rtol=1e-3, atol=1e-4, equal_nan=True)
        except Exception:  # of the example's sizes alone
            return False
        return True
    return False


def _other(x, sizes: dict):
    """A tensor or number as an example is, at other sizes."""

    def at(n):
        return type(n.node.hint)(n.node.expr.subs(sizes)) if hasattr(n, "node") else n

    if not isinstance(x, torch.Tensor):
        return at(x)
    shape = [at(n) for n in x.shape]
    return torch.rand(shape, dtype=x.dtype) if x.is_floating_point() else torch.ones(shape, dtype=x.dtype)
