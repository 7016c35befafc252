"""One comparison of a Keras model and a torch module: what it is between, and how two numbers are held together."""

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from bridge import layout, rules, torch_reader
from bridge.align import Pair
from bridge.graph import Graph, Node, Value
from bridge.report import Report
from bridge.tensors import array

FORWARD = 1e-9  # float64: of the largest value of the tensor
HUGE = float(np.finfo("float32").max)  # what stands for a masked score; in float64 a module has a larger one
STEPPED = 1e-2  # float32: of either


@dataclass
class Case:
    """One comparison: the two sides, their aligned graphs, and what goes in."""

    model: Any
    module: torch.nn.Module
    first: Graph  # Keras, laid out as torch has it
    arrays: list[np.ndarray]  # in Keras' layout
    tensors: tuple[torch.Tensor, ...]
    dynamic: list[set[int]]
    layouts: dict[str, tuple[int, ...]]
    report: Report
    program: Any = None
    second: Graph | None = None  # the torch module's
    tied: bool = False  # as it was read
    pairs: list[Pair] = field(default_factory=list)
    values: dict[str, np.ndarray] = field(default_factory=dict)  # every tensor of Keras' forward pass
    dtype: str = "float64"  # float32 where the model cannot be run in float64
    limit: float = FORWARD  # what float64 reaches on the worst path ...
    declared: float = 0.0  # ... and the limits declared along it
    rounded: dict[str, float] = field(default_factory=dict)  # constant of torch's -> by how much float32 rounds it

    def given(self) -> tuple[torch.Tensor, ...]:
        """Tensors of their own for a call of the module, which may change them in place."""
        return tuple(t.clone() for t in self.tensors)

    def torch_side(self, values: Callable = lambda name, tensor: array(tensor)) -> Graph:
        """The torch module's graph with these values in the place of its weights."""
        graph = torch_reader.read(self.module, self.tensors, self.dynamic, values, self.program, tied=self.tied)
        return layout.convert(graph, "first")

    def network(self) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
        """A copy of the module and its inputs in the dtype of the comparison."""
        dtype = getattr(torch, self.dtype)
        tensors = tuple(t.to(dtype) if t.is_floating_point() else t for t in self.given())
        network = copied(self.module, dtype)
        for name in torch_reader.second_biases(
            self.module, self.second.parameters
        ):  # else their sum moves twice as far
            network.get_parameter(name).requires_grad_(False)
        return network, tensors


def copied(module: torch.nn.Module, dtype: torch.dtype | None = None) -> torch.nn.Module:
    """A copy of a module, in another dtype; also of tensors that are plain attributes, of which torch takes no care."""
    held = [(m, name, x) for m in module.modules() for name, x in vars(m).items() if isinstance(x, torch.Tensor)]
    memo = {id(x): x.detach().clone() for _, _, x in held if not x.is_leaf}  # those deepcopy refuses
    network = copy.deepcopy(module, memo)
    for m in network.modules():
        if isinstance(m, torch.nn.Embedding):
            m.sparse = False  # the same gradients, which are compared as a whole
    if dtype is not None:
        network = network.to(dtype)
        for m in network.modules():
            for name, x in list(vars(m).items()):
                if isinstance(x, torch.Tensor) and x.is_floating_point():
                    setattr(m, name, x.to(dtype))
    return network


class InDouble(torch.overrides.TorchFunctionMode):
    """Floats that a module makes itself are made float64, as the whole module is for the comparison."""

    def __enter__(self):
        self.default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)  # of torch.ones(3), and of whole numbers times 0.5
        return super().__enter__()

    def __exit__(self, *error):
        torch.set_default_dtype(self.default)
        return super().__exit__(*error)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16):
            function = torch.Tensor.double
        wider = dict.fromkeys((torch.bfloat16, torch.float16, torch.float32), torch.float64)
        args = [wider.get(x, x) if isinstance(x, torch.dtype) else x for x in args]
        kwargs = {k: wider.get(x, x) if isinstance(x, torch.dtype) else x for k, x in (kwargs or {}).items()}
        return function(*args, **kwargs)


def distance(have: np.ndarray | None, want: np.ndarray, least: float = 0.0) -> float:
    """Largest difference, relative to the largest value; infinite where a shape differs or a number is not finite.

    But -inf may be in the same places on both sides, as before a softmax. `least` is what counts as the largest value
    where all are smaller: of what is zero but for rounding, none is right.
    """
    if have is None or have.shape != want.shape:
        return float("inf")
    if not want.size:
        return 0.0
    have, want = (np.where(np.isfinite(x), x.astype("float64").clip(-HUGE, HUGE), x) for x in (have, want))
    masked = np.isneginf(want)
    if not np.isfinite(want[~masked]).all() or not np.isfinite(have[~masked]).all():
        return float("inf")
    if not np.isneginf(have[masked]).all():
        return float("inf")
    difference = np.abs(np.where(masked, 0.0, have) - np.where(masked, 0.0, want)).max()
    return float(difference / (max(magnitude(want), least) or 1))


def magnitude(x: np.ndarray) -> float:
    """The largest value of a tensor, those apart that are not finite."""
    x = np.abs(x.astype("float64"))
    return float(x.max(initial=0.0, where=np.isfinite(x)))


def recorded(values: dict[str, np.ndarray], value: Value) -> np.ndarray | None:
    """A recorded tensor, with the axes that it has in the laid-out graph."""
    x = values.get(value.source)
    return None if x is None or value.order is None else x.transpose(value.order)


def said(error: Exception) -> str:
    """An exception in one line; Keras writes in bold."""
    words = re.sub(r"\x1b\[\d*m", "", str(error)).split()
    return f"{type(error).__name__}: {' '.join(words)[:300]}"


def declared_limit(node: Node) -> float:
    limit = getattr(rules.for_operator(node.operator), "LIMIT", 0.0)
    return limit(node) if callable(limit) else limit
