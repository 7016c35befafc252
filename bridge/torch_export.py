"""torch.nn.Module -> torch.export's program, as the rules read it.

The program names ATen operators with all their arguments and says which module each came from. It holds what Python
does in eval mode, at the sizes of the examples: so a Dropout is made to return a tensor of its own, by which it can be
seen, and a module that goes another way at another size of an open axis is refused.
"""

import contextlib
import inspect
import logging
import warnings
from collections.abc import Iterator
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils._sympy.numbers import int_oo

from bridge import asked_sizes, in_place, rules
from bridge.graph import BridgeError
from bridge.torch_recurrent import as_one
from bridge.torch_words import AsRead, replaced

# no rule reads where in the source an operator stands, and to find it out takes a fifth of the time, or half
WITHOUT_PLACES = mock.patch.object(torch.fx.config, "do_not_emit_stack_traces", True)
NORMS = (SpectralNorm, WeightNorm)  # hooks that compute a layer's weight before each call


def export(module: torch.nn.Module, example_inputs: tuple, dynamic: list[set[int]] | None = None):
    """Export a module in eval mode, its batch dynamic.

    Args:
        module: Any module; its training flags are put back afterwards.
        example_inputs: Tensors as for a call of the module; a batch of one is doubled, as torch.export cannot
            keep it open.
        dynamic: For each input the axes that stay open; by default the batch.

    Returns:
        A `torch.export.ExportedProgram`.

    Raises:
        BridgeError: torch.export could not follow the module.
    """
    check_examples(example_inputs)
    dynamic = dynamic or every_batch(example_inputs)
    if len(dynamic) != len(example_inputs):
        raise BridgeError(
            f"dynamic names the open axes of {len(dynamic)} input(s), example_inputs has {len(example_inputs)}"
        )
    # copies, as torch.export takes one tensor given twice for one input
    examples = tuple(
        torch.cat([x, x]) if x.ndim and x.shape[0] == 1 and 0 in axes else x.clone()
        for x, axes in zip(example_inputs, dynamic, strict=True)
    )
    axes = shapes = tuple({a: torch.export.Dim.AUTO for a in axes} for axes in dynamic)
    try:
        kinds = [p.kind for p in inspect.signature(module.forward).parameters.values()]
    except ValueError as e:
        raise BridgeError(f"{type(module).__name__} has no signature that torch.export could read: {e}") from e
    if inspect.Parameter.VAR_POSITIONAL in kinds:  # forward(self, x, *others)
        fixed = kinds.index(inspect.Parameter.VAR_POSITIONAL)
        shapes = (*shapes[:fixed], *filter(None, [shapes[fixed:]]))
    training = {m: m.training for m in module.modules()}
    passing = []
    try:
        module.eval()
        passing = [m.register_forward_pre_hook(_on_its_own, with_kwargs=True) for m in module.modules() if passes(m)]
        passing += [m.register_forward_pre_hook(_in_order, with_kwargs=True) for m in module.modules() if is_own(m)]
        with torch.no_grad(), replaced(), as_one(module), AsRead() as mode, warnings.catch_warnings(), unlogged():
            if any(isinstance(h, NORMS) for m in module.modules() for h in m._forward_pre_hooks.values()):
                warnings.filterwarnings("ignore", "The tensor attributes? .* assigned during export")

            @WITHOUT_PLACES
            def export_with(tensors):
                return torch.export.export(module, tensors, dynamic_shapes=shapes, strict=False)

            program = export_with(examples)
            _refuse_branches(module, program, examples, axes, export_with, mode)
        with WITHOUT_PLACES:
            return asked_sizes.put(in_place.functional(program))
    except BridgeError:
        raise
    except Exception as e:  # torch.export raises many unrelated classes, all of which mean the same to the user
        raise BridgeError(
            f"{type(module).__name__} cannot be exported by torch.export with inputs of shape "
            f"{', '.join(str(tuple(x.shape)) for x in examples)}, {_where(module, e)}: "
            f"{type(e).__name__}: {str(e).strip()[:2000]}"
        ) from e
    finally:
        for hook in passing:
            hook.remove()
        for m, flag in training.items():
            m.training = flag


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """Let torch raise its errors without a page on stderr before."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _where(module: torch.nn.Module, error: BaseException | None) -> str:
    """The innermost module in which an error was raised, by the frames that it came through, and what to do there."""
    paths = {id(m): path for path, m in module.named_modules()}
    asked, place = False, "forward"
    while error is not None:
        asked |= "DataDependent" in type(error).__name__
        trace = error.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            own = trace.tb_frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
            if code.co_name == "forward" and (path := paths.get(id(own))):
                place = f"{path} ({type(own).__name__})"
            trace = trace.tb_next
        error = error.__cause__ or error.__context__
    advice = ", whose Python asks for the numbers in a tensor: use torch.where, or take the decision out of forward"
    return f"in {place}{advice if asked else ''}"


def check_examples(example_inputs) -> None:
    if not isinstance(example_inputs, tuple) or not all(isinstance(x, torch.Tensor) for x in example_inputs):
        raise BridgeError(
            "example_inputs must be a tuple of torch tensors, one for each argument of forward. "
            f"Received: {type(example_inputs).__name__}"
        )


def passes(module: torch.nn.Module) -> str:
    """Tell whether a module returns its input itself in eval mode, by the name of its attribute with the rate."""
    name = known_class(module)
    return getattr(rules.for_torch(name), "PASSING", {}).get(name, "") if name else ""


def is_own(module: torch.nn.Module) -> bool:
    """Tell whether a rule of the user's own reads a module as a whole."""
    name = known_class(module) if rules.OWN else None
    return bool(name) and rules.for_torch(name) in rules.OWN.values()


def _in_order(module, inputs, keywords):
    """Let the first that a module of a rule of the user's own does be to take its tensors, in their order."""
    bound = inspect.signature(module.forward).bind(*inputs, **keywords)
    others = [f"{k}={x!r}" for k, x in bound.arguments.items() if not isinstance(x, torch.Tensor)]
    if others:
        raise BridgeError(
            f"{type(module).__name__} is called with {', '.join(others)}, which its rule does not see: let forward "
            "take tensors, and make all else an attribute of the module"
        )
    return (), {k: torch.ops.aten.alias(x) for k, x in bound.arguments.items()}


def _on_its_own(module, inputs, keywords):
    """Give a module a tensor of its own to return, so that the export shows the module at all."""

    def alias(x):
        return torch.ops.aten.alias(x) if isinstance(x, torch.Tensor) else x

    return torch.utils._pytree.tree_map(alias, (inputs, keywords))


def _refuse_branches(module, program, examples, open_axes, export_with, read) -> None:
    """Refuse a module whose Python takes another way for another size: the export holds the way of the examples alone.

    torch.export turns a decision about an open size into a guard of the program. Sizes that the
    module itself does not take prove nothing, nor do guards of an operator's own, as pooling with ceil_mode has: the
    program of the other size is then the same.
    """
    if _takes_every_size(program, open_axes):
        return
    checked = program.module()
    changes = [{(i, 0) for i, axes in enumerate(open_axes) if 0 in axes}]
    changes += [{(i, a)} for i, axes in enumerate(open_axes) for a in axes if a]
    for change in filter(None, changes):
        other = list(x.clone() for x in examples)
        for i, a in change:
            other[i] = torch.cat([other[i], other[i].narrow(a, 0, 1)], a)
        try:
            with FakeTensorMode(allow_non_fake_inputs=True) as mode:  # sizes alone: nothing is computed
                checked(*map(mode.from_tensor, other))
        except Exception as e:
            try:
                module(*(x.clone() for x in other))
            except Exception:  # not a size for this module
                continue
            if _steps(export_with(tuple(other))) == _steps(program):
                continue
            raise BridgeError(
                f"{type(module).__name__} goes another way for inputs of shape "
                f"{', '.join(str(tuple(x.shape)) for x in other)} than for the example inputs: {str(e).strip()[:300]}. "
                "Leave the axis out of `dynamic`, or take the decision out of forward"
                + ("; it calls len(x), which is a plain number: x.shape[0] is not" if read.counted else "")
            ) from e


def fixed_axes(program, dynamic: list[set[int]]) -> list[tuple[int, int]]:
    """The axes of inputs that torch.export has fixed although they are to stay open: functions of its own may do so."""
    nodes = {n.name: n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder"}
    inputs = [nodes[name] for name in program.graph_signature.user_inputs if name in nodes]
    return [
        (i, a)
        for i, (x, axes) in enumerate(zip(inputs, dynamic, strict=False))
        for a in sorted(axes)
        if str(x.shape[a]).isdecimal()  # also as a symbol that has a value
    ]


def every_batch(example_inputs: tuple) -> list[set[int]]:
    """The axes that stay open where nothing is said of them."""
    return [{0} if x.ndim else set() for x in example_inputs]


def _takes_every_size(program, open_axes) -> bool:
    """Tell whether nothing was asked of an open size: then there is no need to try another, which takes a while."""
    inputs = {n.name: n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder"}
    inputs = [inputs[name] for name in program.graph_signature.user_inputs]
    if getattr(program, "_guards_code", True) or len(inputs) != len(open_axes):
        return False
    if any("assert" in str(n.target) or "sym_constrain" in str(n.target) for n in program.graph.nodes):
        return False
    sizes = [(a, getattr(x.shape[a], "node", None)) for x, axes in zip(inputs, open_axes, strict=True) for a in axes]
    if not all(node and node.expr.is_Symbol for _, node in sizes):
        return False
    others = [node.expr for a, node in sizes if a]  # the batches change together, every other axis by itself
    symbols = {node.expr for _, node in sizes}
    return len(symbols - {node.expr for a, node in sizes if not a}) == len(others) and all(
        s in program.range_constraints and program.range_constraints[s].upper == int_oo for s in symbols
    )


def _steps(program) -> list[tuple]:
    """The operators of a program with their constants: equal for two exports that went the same way.

    What is computed from sizes belongs to them: after pooling with ceil_mode it is true of some sizes alone.
    """
    nodes = [n for n in program.graph.nodes if n.users or isinstance(n.target, torch._ops.OpOverload)]
    return [(str(n.target), torch.fx.node.map_arg((n.args, n.kwargs), lambda x: None)) for n in nodes]


def known_class(module: torch.nn.Module) -> str | None:
    """The name under which a rule reads a module as a whole: "nn.Softsign", a helper with our very source, ..."""
    kind = type(module)
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        return None  # what the user put in would be lost
    # classes of other packages, torch's, and those of the user's own rules
    for name in (f"{kind.__module__}.{kind.__qualname__}", f"*.{kind.__name__}", rules.class_name(kind)):
        rule = rules.for_torch(name)
        if rule and getattr(rule, "PASSING", {}).get(name, "training") in vars(module):  # else a namesake
            return name
    rule = rules.for_torch(kind.__name__)
    return kind.__name__ if rules.is_helper(kind, rule) else None
