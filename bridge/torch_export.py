"""torch.nn.Module -> torch.export's program, as the rules read it.

The program names ATen operators with all their arguments and says which module each came from. It holds what Python
does in eval mode, at the sizes of the examples: so a Dropout is made to return a tensor of its own, by which it can be
seen, and a module that goes another way at another size of an open axis is refused.
"""

import contextlib
import inspect
import textwrap
import warnings
from collections.abc import Iterator
from itertools import pairwise
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules import transformer
from torch.nn.utils import parametrizations
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils._sympy.numbers import int_oo

from bridge import in_place, rules
from bridge.graph import BridgeError
from bridge.torch_attention import multi_head_attention

NORMS = (SpectralNorm, WeightNorm)  # hooks that compute a layer's weight before each call
ITSELF = ("to", "type", "type_as", "float", "double", "half", "bfloat16", "contiguous")  # may return their input


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
    dynamic = dynamic or [{0} if x.ndim else set() for x in example_inputs]
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
        with torch.no_grad(), replaced(), _AsRead() as mode, warnings.catch_warnings():
            if any(isinstance(h, NORMS) for m in module.modules() for h in m._forward_pre_hooks.values()):
                warnings.filterwarnings("ignore", "The tensor attributes? .* assigned during export")

            # no rule reads where in the source an operator stands, and to find it out takes a fifth of the time
            @mock.patch.object(torch.fx.config, "do_not_emit_stack_traces", True)
            def export_with(tensors):
                return torch.export.export(module, tensors, dynamic_shapes=shapes, strict=False)

            program = export_with(examples)
            _refuse_fixed(module, program, axes)
            _refuse_branches(module, program, examples, axes, export_with, mode)
        return in_place.functional(program)
    except BridgeError:
        raise
    except Exception as e:  # torch.export raises many unrelated classes, all of which mean the same to the user
        raise BridgeError(
            f"{type(module).__name__} cannot be exported by torch.export with inputs of shape "
            f"{', '.join(str(tuple(x.shape)) for x in examples)}: {type(e).__name__}: {str(e).strip()[:2000]}"
        ) from e
    finally:
        for hook in passing:
            hook.remove()
        for m, flag in training.items():
            m.training = flag


@contextlib.contextmanager
def replaced() -> Iterator[None]:
    """Replace what torch.export would take apart, or cannot follow.

    nn.TransformerEncoder takes its mask as it is, and does not look at its numbers to tell whether it is causal. The
    two kinds of spectral_norm call one operator, whatever training mode does to the vectors.
    """

    def quotient(norm, weight, *vectors, first="u"):
        options = (norm.dim, norm.n_power_iterations, norm.eps, first)
        return weight / torch.ops.bridge.singular_value(weight, *vectors, *options)

    def parametrisation(norm, weight):
        if weight.ndim == 1:
            return torch.nn.functional.normalize(weight, dim=0, eps=norm.eps)
        return quotient(norm, weight, norm._u, norm._v)

    def hook(norm, module, do_power_iteration):
        return quotient(norm, *(getattr(module, f"{norm.name}_{what}") for what in ("orig", "u", "v")), first="v")

    with contextlib.ExitStack() as stack:
        for owner, name, function in (
            (transformer, "_detect_is_causal_mask", lambda mask, is_causal=None, size=None: bool(is_causal)),
            (parametrizations._SpectralNorm, "forward", parametrisation),
            (SpectralNorm, "compute_weight", hook),
        ):
            stack.enter_context(mock.patch.object(owner, name, function))
        yield


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


def _refuse_fixed(module, program, open_axes) -> None:
    """Refuse a module in which torch.export has fixed a size that is to stay open: it would take no other."""
    inputs = {n.name: n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder"}
    inputs = [inputs[name] for name in program.graph_signature.user_inputs if name in inputs]
    fixed = [
        f"axis {a} of input {i} at {x.shape[a]}"
        for i, (x, axes) in enumerate(zip(inputs, open_axes, strict=False))
        for a in sorted(axes)
        if str(x.shape[a]).isdecimal()  # also as a symbol that has a value
    ]
    if fixed:
        raise BridgeError(
            f"{type(module).__name__} fixes sizes that are to stay open: {', '.join(fixed)}. Compute with "
            "x.shape where it has numbers, or let them be fixed: dynamic=[set()] for one input, its batch included"
        )


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


@torch.library.custom_op("bridge::normalize", mutates_args=())
def _normalize(x: torch.Tensor, p: float, dim: list[int], eps: float) -> torch.Tensor:
    """F.normalize as one operator."""
    return x / x.norm(p, dim, keepdim=True).clamp_min(eps)


_normalize.register_fake(lambda x, p, dim, eps: torch.empty_like(x))


@torch.library.custom_op("bridge::singular_value", mutates_args=())
def _singular_value(
    weight: torch.Tensor, u: torch.Tensor, v: torch.Tensor, dim: int, power_iterations: int, eps: float, first: str
) -> torch.Tensor:
    """What spectral_norm divides by in eval mode; the rest is for the rule to know."""
    return torch.dot(u, weight.movedim(dim, 0).flatten(1) @ v)


_singular_value.register_fake(lambda weight, *rest: weight.new_empty(()))


@torch.library.custom_op("bridge::linspace", mutates_args=())
def _linspace(start: float, end: float, steps: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """torch.linspace, whose number of steps torch.export takes from the example."""
    return torch.linspace(start, end, steps, dtype=dtype, device=device)


@_linspace.register_fake
def _(start, end, steps, dtype, device):
    return torch.empty(steps, dtype=dtype, device=device)


def _places(start, end, steps, *, dtype=None, device=None, **options):
    """torch.linspace to an open number of steps."""
    kind = dtype or torch.get_default_dtype(), torch.device(device or torch.get_default_device())
    if isinstance(start, (int, float)) and isinstance(end, (int, float)):
        return _linspace(float(start), float(end), steps, *kind)
    return start + (end - start) * _linspace(0.0, 1.0, steps, *kind)


def _parts(x, sections: int, dim: int = 0) -> tuple:
    """torch.tensor_split of an open axis, of which torch.export has the example's remainder."""
    starts = [0]
    for i in range(sections):
        starts.append(starts[-1] + (x.shape[dim] + sections - 1 - i) // sections)
    return tuple(x.narrow(dim, start, stop - start) for start, stop in pairwise(starts))


def _grid(theta, size, align_corners=False):
    """F.affine_grid to an open size, which torch.export takes from the example."""
    rank = len(size) - 2
    apart = (slice(None), *[None] * rank)
    grid = theta[..., rank][apart]  # (B, 1, ..., rank)
    for axis, n in enumerate(size[2:]):
        steps = torch.arange(n, dtype=theta.dtype, device=theta.device) * 2 + (1 - n)
        steps = steps / torch.sym_max(n - int(align_corners or False), 1)
        grid = grid + theta[..., rank - 1 - axis][apart] * steps.view([-1 if a == axis else 1 for a in range(rank + 1)])
    return grid


def _is_open(x, axis: int = 0) -> bool:
    return isinstance(x, torch.Tensor) and x.ndim > 0 and isinstance(x.shape[axis], torch.SymInt)


class _AsRead(torch.overrides.TorchFunctionMode):
    """Show torch.export what the rules read: F.normalize whole, and a Dropout that has a tensor of its own to return.

    What has to be of the example's size in torch.export is made of what has not: `linspace` and others.

    In eval mode Dropout returns its input itself, as does a conversion that changes nothing, and torch.export then
    takes every later use of the input for a use of the output: a skip connection around it would be read as behind it.
    """

    counted = False  # whether len(x) has been asked for an open size, which Python can have of the example alone

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.nn.functional.normalize and kwargs and kwargs.get("out") is None:
            dim = kwargs["dim"] if isinstance(kwargs["dim"], (list, tuple)) else [kwargs["dim"]]
            return _normalize(args[0], float(kwargs["p"]), list(dim), kwargs["eps"])
        name, rest = getattr(function, "__name__", ""), kwargs or {}
        steps = rest.get("steps", args[2] if len(args) > 2 else None)
        if function is torch.linspace and isinstance(steps, torch.SymInt):
            return _places(*args, **rest)
        if function is torch.nn.functional.affine_grid:
            size = rest.get("size", args[1] if len(args) > 1 else ())
            if any(isinstance(n, torch.SymInt) for n in size[2:]):
                return _grid(*args, **rest)
        whole = name == "tensor_split" and len(args) > 1 and isinstance(args[1], int)
        if whole and _is_open(args[0], args[2] if len(args) > 2 else rest.get("dim", 0)):
            return _parts(*args, **rest)
        self.counted |= function is torch.Tensor.__len__ and _is_open(args[0])
        if function is torch.nn.functional.multi_head_attention_forward:
            with self:
                result = multi_head_attention(*args, **(kwargs or {}))
            if result is not None:
                return result
        if function in (torch.take_along_dim, torch.Tensor.take_along_dim):
            function, args, kwargs = _gathered(function, *args, **(kwargs or {}))
        if ("dropout" in name or name in ITSELF) and args and isinstance(args[0], torch.Tensor):
            args = (torch.ops.aten.alias(args[0]), *args[1:])
        return function(*args, **(kwargs or {}))


def _gathered(function, x, indices, dim=None):
    """The call of torch.take_along_dim as one of gather where it spreads nothing: by itself it fixes open sizes."""
    others = [a for a in range(x.ndim) if dim is not None and a != dim % x.ndim]
    if dim is not None and x.ndim == indices.ndim and all(x.shape[a] == indices.shape[a] for a in others):
        return torch.gather, (x, dim, indices), {}
    return function, (x, indices, dim), {}


def known_class(module: torch.nn.Module) -> str | None:
    """The name under which a rule reads a module as a whole: "nn.Softsign", a helper with our very source, ..."""
    kind = type(module)
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        return None  # what the user put in would be lost
    for name in (f"{kind.__module__}.{kind.__qualname__}", f"*.{kind.__name__}"):  # classes of other packages
        rule = rules.for_torch(name)
        if rule and getattr(rule, "PASSING", {}).get(name, "training") in vars(module):  # else a namesake
            return name
    if kind.__module__.startswith("torch.nn."):
        name = f"nn.{kind.__name__}"
        return name if rules.for_torch(name) else None
    rule = rules.for_torch(kind.__name__)
    if rule is None or kind.__name__ not in getattr(rule, "HELPERS", {}):
        return None
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):
        return None
    return kind.__name__ if source.strip() == rules.helper_source(kind.__name__).strip() else None
