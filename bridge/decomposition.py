"""Operators that no rule reads, in the words of those that torch itself decomposes them into.

torch has two sources: its table of decompositions, which `torch.compile` uses, and the operators that are composite by
themselves. What leads to primitives of another kind (`prims`) is of no use. An operator that does something else in
training mode is left as it is: its parts would be what it does in inference.
"""

import torch
from torch._decomp import decomposition_table
from torch.fx.experimental.proxy_tensor import make_fx

TRAINS = {"train", "training", "use_input_stats", "dropout_p"}  # arguments of what does something else in training
IMPLICIT = torch._C.DispatchKey.CompositeImplicitAutograd


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
    if operator in decomposition_table:
        return decomposition_table[operator]
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

    try:
        with modes[0], torch.no_grad():
            traced = make_fx(apply, pre_dispatch=True)(*[n.meta["val"] for n in given]).graph
    except Exception:  # each decomposition fails in its own way; the reason why there is no rule is told then
        return None
    traced.eliminate_dead_code()
    made = [n.target for n in traced.nodes if isinstance(n.target, torch._ops.OpOverload)]
    return None if node.target in made or any(o.namespace == "prims" for o in made) else traced
