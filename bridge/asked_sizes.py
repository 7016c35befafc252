"""The sizes of a view as the module asked for them, in a program of torch.export.

torch.export works the sizes of x.view(b, h // 4, 4, -1) out anew where h is open, and says h // (h // 4) for the 4: a
size that would be open, and of which all that comes after is made. What was asked for is simpler, and as true.
"""

import sympy
import torch
from torch.utils._pytree import tree_map

VIEWS = ("view", "_unsafe_view", "reshape")


def put(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Put these sizes, and what follows from them, into the program, and return it."""
    asked = {}
    for node in program.graph.nodes:
        made = node.meta.get("val")
        if asked and made is not None:
            node.meta["val"] = made = tree_map(lambda x: _with(x, asked), made)
        if isinstance(node.target, torch._ops.OpOverload) and node.target._opname in VIEWS:
            for size, wanted in zip(made.shape, node.args[1], strict=True):
                size, wanted = (_expression(n) for n in (size, wanted))
                if wanted != -1 and wanted != size and _length(wanted) < _length(size):
                    asked[size] = wanted
            node.meta["val"] = _with(made, asked)
    return program


def _expression(size):
    size = size.meta["val"] if isinstance(size, torch.fx.Node) else size
    return size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(size)


def _length(size) -> int:
    return len(str(size))


def _with(x, asked: dict):
    """A tensor that is not there, or a size, with the sizes asked for in place of those worked out."""
    if isinstance(x, torch.SymInt):
        expression, before = x.node.expr, None
        while before != expression:  # what is put in makes another of them
            before, expression = expression, expression.xreplace(asked)
        if expression == x.node.expr:
            return x
        return int(expression) if expression.is_Integer else x.node.shape_env.create_symintnode(expression, hint=None)
    if not isinstance(x, torch.Tensor):
        return x
    shape = [_with(size, asked) for size in x.shape]
    return x if all(a is b for a, b in zip(shape, x.shape, strict=True)) else x.new_empty(shape)
