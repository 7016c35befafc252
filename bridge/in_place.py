"""Operators that write to memory: the graph has none, so what is written to must not be seen under another name later.

Where it is, the program is made functional by torch itself: `x[:, 1:3] = y` becomes `slice_scatter`, which returns a
new tensor. That would take away Dropout, which passes its input on in eval mode: another operator stands for it then.
"""

import operator
import re

import torch

from bridge.graph import Unsupported

DROPOUTS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")


class InPlace(Unsupported):
    """An operator changes memory that is read again: its parts would, too. `weight`: that of a weight or buffer."""

    def __init__(self, reason: str, remedy: str = "", weight: bool = False):
        super().__init__(reason, remedy, final=True)
        self.weight = weight


def _aliases(node, kind: str) -> bool:
    """Whether a node returns its first argument ("write": changed in place, "view": another look at its memory)."""
    info = (
        node.target._schema.returns[0].alias_info
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.returns
        else None
    )
    if node.target is operator.getitem or re.search("dropout(?!_)", str(node.target)):
        return kind == "view" and isinstance(node.args[0], torch.fx.Node)  # in eval mode Dropout returns its input
    return (
        info is not None
        and info.is_write == (kind == "write")
        and bool(node.args)
        and isinstance(node.args[0], torch.fx.Node)
    )


def check(node, state, constant: bool = False) -> None:
    """Refuse a change in place that is seen through another view of the same memory later.

    Args:
        node: Any node of a program.
        state: The names of the nodes that are weights or buffers.
        constant: What is written to is computed as it stands: its memory is there.
    """
    if not _aliases(node, "write"):
        return
    root = node.args[0]
    while _aliases(root, "view") or _aliases(root, "write"):
        root = root.args[0]
    if root.name in state:
        reason = f"{node.target._schema.name.removeprefix('aten::')} changes a weight or buffer in place"
        raise InPlace(reason, "use the operation that is not in place, or leave it out in eval mode", weight=True)
    if constant:
        return
    memory = [root]
    for m in memory:
        memory += [
            u for u in m.users if u is not node and (_aliases(u, "view") or _aliases(u, "write")) and u.args[0] is m
        ]
    if any(u > node for m in memory for u in m.users):  # in the order of the program
        raise InPlace(
            f"{node.target._schema.name.removeprefix('aten::')} changes in place a tensor that is read again through "
            "another view",
            "use the operation that is not in place",
        )


def functional(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return a program of which no operator writes to memory that is read again later, if torch can make one."""
    signature = program.graph_signature
    lifted = signature.inputs_to_lifted_tensor_constants
    held = signature.inputs_to_parameters | signature.inputs_to_buffers | lifted
    flows: set[torch.fx.Node] = set()  # what inputs or parameters reach
    try:
        for node in program.graph.nodes:
            if node.op == "placeholder" and node.name not in signature.inputs_to_buffers.keys() | lifted.keys():
                flows.add(node)
            elif flows.intersection(node.all_input_nodes):
                flows.add(node)
                check(node, held)
        return program
    except InPlace as e:
        if e.weight:
            return program
    graph = program.graph_module.graph
    if any(_name(node.target).rstrip("_") in DROPOUTS and _name(node.target).endswith("_") for node in graph.nodes):
        return program  # a Dropout in place writes in training mode alone
    for node in graph.nodes:
        if node.op == "call_function" and (name := _name(node.target)) in DROPOUTS:
            node.target, node.args = torch.ops.bridge.dropout.default, (*node.args[:2], name)
    made = program.run_decompositions({})
    for node in list(made.graph.nodes):
        if node.target is torch.ops.bridge.dropout.default:
            node.target, node.args = getattr(torch.ops.aten, node.args[2]).default, (*node.args[:2], False)
        elif node.target is torch.ops.aten._native_batch_norm_legit_no_training.default:
            node.target, node.args = torch.ops.aten.batch_norm.default, (*node.args[:5], False, *node.args[5:], False)
            node.meta["val"] = node.meta["val"][0]
            for user in list(node.users):
                user.replace_all_uses_with(node)
                made.graph.erase_node(user)
    return made


def _name(target) -> str:
    return target._schema.name.removeprefix("aten::") if isinstance(target, torch._ops.OpOverload) else ""


@torch.library.custom_op("bridge::dropout", mutates_args=())
def _dropout(x: torch.Tensor, p: float, kind: str) -> torch.Tensor:
    """Dropout in eval mode, as an operator that returns a tensor of its own."""
    return x.clone()


_dropout.register_fake(lambda x, p, kind: torch.empty_like(x))
