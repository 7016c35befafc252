"""What torch.export is shown in the place of functions that it takes apart or fixes to the example's sizes.

Some become one operator that a rule reads (`bridge::normalize`), others are written in words that keep open sizes open
or that read well. All of it is in force while `AsRead` and `replaced` are.
"""

import contextlib
from collections.abc import Iterator
from itertools import pairwise
from unittest import mock

import torch
import torch.nn.functional as F
from torch.nn.modules import transformer
from torch.nn.utils import parametrizations
from torch.nn.utils.spectral_norm import SpectralNorm

from bridge.torch_attention import canonical_mask, multi_head_attention

ITSELF = ("to", "type", "type_as", "float", "double", "half", "bfloat16", "contiguous")  # may return their input


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


_linspace.register_fake(lambda start, end, steps, dtype, device: torch.empty(steps, dtype=dtype, device=device))


TAKES = "(Tensor self, Tensor indices, int dim) -> Tensor"  # as ATen calls them


@torch.library.custom_op("bridge::take_along_dim", mutates_args=(), schema=TAKES)
def _along(x, indices, dim):
    """torch.take_along_dim, which fixes open sizes to see which it has to spread."""
    return torch.take_along_dim(x, indices, dim)


@_along.register_fake
def _(x, indices, dim):
    sizes = zip(x.shape, indices.shape, strict=True)
    ones = [isinstance(n, int) and n == 1 for n in x.shape]
    return x.new_empty([m if a == dim % x.ndim or ones[a] else n for a, (n, m) in enumerate(sizes)])


def normalized(input, p=2.0, dim=1, eps=1e-12, out=None) -> torch.Tensor | None:
    """F.normalize, whole."""
    return None if out is not None else _normalize(input, float(p), [dim] if isinstance(dim, int) else list(dim), eps)


def places(start, end, steps, *, dtype=None, device=None, **options) -> torch.Tensor | None:
    """torch.linspace to an open number of steps."""
    if not isinstance(steps, torch.SymInt):
        return None
    kind = dtype or torch.get_default_dtype(), torch.device(device or torch.get_default_device())
    if isinstance(start, (int, float)) and isinstance(end, (int, float)):
        return _linspace(float(start), float(end), steps, *kind)
    return start + (end - start) * _linspace(0.0, 1.0, steps, *kind)


def grid(theta, size, align_corners=False) -> torch.Tensor | None:
    """F.affine_grid to an open size, which torch.export takes from the example."""
    if not any(isinstance(n, torch.SymInt) for n in size[2:]):
        return None
    rank = len(size) - 2
    apart = (slice(None), *[None] * rank)
    made = theta[..., rank][apart]  # (B, 1, ..., rank)
    for axis, n in enumerate(size[2:]):
        steps = torch.arange(n, dtype=theta.dtype, device=theta.device) * 2 + (1 - n)
        steps = steps / torch.sym_max(n - int(align_corners or False), 1)
        made = made + theta[..., rank - 1 - axis][apart] * steps.view([-1 if a == axis else 1 for a in range(rank + 1)])
    return made


def parts(input, sections=None, dim: int = 0, **options) -> tuple | None:
    """torch.tensor_split of an open axis, of which torch.export has the example's remainder."""
    if not isinstance(sections, int) or not is_open(input, dim):
        return None
    starts = [0]
    for i in range(sections):
        starts.append(starts[-1] + (input.shape[dim] + sections - 1 - i) // sections)
    return tuple(input.narrow(dim, start, stop - start) for start, stop in pairwise(starts))


def along(input, indices, dim=None, **options) -> torch.Tensor | None:
    """torch.take_along_dim of an axis."""
    return None if dim is None or input.ndim != indices.ndim else _along(input, indices, dim)


WORDS = {  # functions of the same arguments, which return None where torch's own may stay
    F.normalize: normalized,
    F.affine_grid: grid,
    F.multi_head_attention_forward: multi_head_attention,
    torch.linspace: places,
    torch.tensor_split: parts,
    torch.Tensor.tensor_split: parts,
    torch.take_along_dim: along,
    torch.Tensor.take_along_dim: along,
}


def is_open(x, axis: int = 0) -> bool:
    """Tell whether the size of an axis is open."""
    return isinstance(x, torch.Tensor) and x.ndim > 0 and isinstance(x.shape[axis], torch.SymInt)


class AsRead(torch.overrides.TorchFunctionMode):
    """Show torch.export the functions of `WORDS` so, and a Dropout that has a tensor of its own to return.

    In eval mode Dropout returns its input itself, as does a conversion that changes nothing, and torch.export then
    takes every later use of the input for a use of the output: a skip connection around it would be read as behind it.
    """

    counted = False  # whether len(x) has been asked for an open size, which Python can have of the example alone

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, getattr(function, "__name__", "")
        self.counted |= function is torch.Tensor.__len__ and is_open(args[0])
        if function in WORDS:
            with self:
                result = WORDS[function](*args, **kwargs)
            if result is not None:
                return result
        if ("dropout" in name or name in ITSELF) and args and isinstance(args[0], torch.Tensor):
            args = (torch.ops.aten.alias(args[0]), *args[1:])
        return function(*args, **kwargs)


@contextlib.contextmanager
def replaced(masks: bool = True) -> Iterator[None]:
    """Replace methods of torch.nn that are no functions of tensors alone.

    nn.TransformerEncoder takes its mask as it is, and does not look at its numbers to tell whether it is causal; nor
    does anything there make numbers of a mask of booleans. The
    two kinds of spectral_norm call one operator, whatever training mode does to the vectors. torch.einsum does not ask
    for the sizes of three or more tensors, by which it would choose the order of their products.

    Args:
        masks: Leave masks of booleans as they are, which the attention of `AsRead` takes and torch's own does not.
    """

    def quotient(norm, weight, *vectors, first="u"):
        return weight / _singular_value(weight, *vectors, norm.dim, norm.n_power_iterations, norm.eps, first)

    def parametrisation(norm, weight):
        if weight.ndim == 1:
            return F.normalize(weight, dim=0, eps=norm.eps)
        return quotient(norm, weight, norm._u, norm._v)

    def hook(norm, module, do_power_iteration):
        return quotient(norm, *(getattr(module, f"{norm.name}_{what}") for what in ("orig", "u", "v")), first="v")

    with contextlib.ExitStack() as stack:
        for owner, name, function in (
            (transformer, "_detect_is_causal_mask", lambda mask, is_causal=None, size=None: bool(is_causal)),
            (F, "_canonical_mask", canonical_mask if masks else F._canonical_mask),
            (parametrizations._SpectralNorm, "forward", parametrisation),
            (SpectralNorm, "compute_weight", hook),
        ):
            stack.enter_context(mock.patch.object(owner, name, function))
        stack.enter_context(torch.backends.opt_einsum.flags(enabled=False))
        yield
