"""The proof that a Keras model and a torch module are the same.

Both are read into the neutral graph and laid out alike, and the two graphs are aligned node by node. What aligns
is compared as data (settings, weights, what is trained), then as numbers: every tensor of a forward pass in
float64 and float32, and the gradients and statistics of a training step in float64.
"""

import copy
import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import torch

from bridge import keras_reader, layout, lockstep, rules, torch_export, torch_reader
from bridge.align import Pair, align, differences
from bridge.explain import explain
from bridge.graph import BridgeError, Graph, Node, Value, flatten
from bridge.progress import log
from bridge.report import Layer, Report
from bridge.samples import check_layouts, inputs_of
from bridge.tensors import array, tensor
from bridge.twin import Twin

FORWARD = 1e-9  # float64: of the largest value of the tensor
GRADIENT = 1e-7  # float64: of the gradient's own largest value, at least SMALL of the network's largest
CANCELLED = 10  # times what is declared before a layer, whose sums may cancel: 1.7 was seen behind a leaky ReLU
HUGE = float(np.finfo("float32").max)  # what stands for a masked score; in float64 a module has a larger one
NOTHING = 1e-3  # of the largest value that a layer reads: below that its output is judged by this, not by itself
SINGLE = 1e-3  # of the same, where a framework has no float64 for a layer: float32 sums in another order
SMALL = {"float64": 1e-6, "float32": 1e-3}
ZERO = {"float64": 1e-12, "float32": 1e-5}  # of the network's largest gradient: rounding
# what a declared limit of the forward pass may become in a gradient; the sums before a softmax or BatchNorm cancel:
# 133 times was seen for a beta between them (2.0e-6 behind a leaky ReLU's 1.5e-8)
DECLARED = 500
CAP = 1e-5  # at most
LOSSES = 1e-9  # float64: of the largest loss of ten steps; 1e-14 was seen
MOVED = 1e-6  # float64: of how far a weight has gone in ten steps
STEPPED = 1e-2  # float32: of either
WALKED = 1e-5  # float32: between a model's own call and the walk through its layers


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
        return _copied(self.module, dtype), tensors


def _copied(module: torch.nn.Module, dtype: torch.dtype | None = None) -> torch.nn.Module:
    """A copy of a module, in another dtype; also of tensors that are plain attributes, of which torch takes no care."""
    held = [(m, name, x) for m in module.modules() for name, x in vars(m).items() if isinstance(x, torch.Tensor)]
    memo = {id(x): x.detach().clone() for _, _, x in held if not x.is_leaf}  # those deepcopy refuses
    network = copy.deepcopy(module, memo)
    if dtype is not None:
        network = network.to(dtype)
        for m in network.modules():
            for name, x in list(vars(m).items()):
                if isinstance(x, torch.Tensor) and x.is_floating_point():
                    setattr(m, name, x.to(dtype))
    return network


def verify(model, module, inputs=None, layouts: dict[str, tuple[int, ...]] | None = None) -> Report:
    """Compare a Keras model and a torch module in everything that can be compared.

    Args:
        model: A functional or Sequential `keras.Model`.
        module: A `torch.nn.Module`. Neither side is changed.
        inputs: Arrays for `model.inputs`, in their order and the model's layout, with a batch of two or more; by
            default random ones, open sizes being the first of a few that the model takes.
        layouts: Name of an input -> the order of its axes on torch's side (axis i there is axis `order[i]` here),
            for inputs that do not follow the rule of ranks 4 and 5.

    Returns:
        A `Report`; `.passed` is the verdict.

    Raises:
        BridgeError: The Keras model cannot be read, it does not take these inputs, or `layouts` does not fit them.
    """
    graph = keras_reader.read(model)
    check_layouts(graph, layouts or {})
    arrays = inputs_of(model, graph, inputs)
    first = layout.convert(graph, "first", layouts)
    tensors = tuple(_tensor(x, v) for x, v in zip(arrays, first.inputs, strict=True))
    dynamic = [{i for i, d in enumerate(v.shape) if d is None} for v in first.inputs]
    case = Case(
        model, module, first, arrays, tensors, dynamic, layouts or {}, Report(model.name, type(module).__name__)
    )
    report = case.report
    for note in graph.notes:
        report.note_once(note)
    log.info("%s: reading the torch module", model.name)
    try:
        case.program = torch_export.export(module, tensors, dynamic)
        unmatched = _aligned(case)
    except BridgeError as e:
        report.fail("structure", f"the module cannot be read, so nothing can be compared. {e}")
        return report
    for sentence in unmatched or _hooked(module):
        report.fail("structure", sentence)
    for sentence in differences(case.pairs, first, case.second):
        report.fail("settings", sentence)
    report.names = {
        name: pair.torch.parameters[role]
        for pair in case.pairs
        for role, name in pair.keras.parameters.items()
        if role in pair.torch.parameters
    }
    report.permutations = {
        side: sum(n.operator == "permute" for n in graph.nodes)
        for side, graph in (("keras", graph), ("torch", case.second))
    }
    report.hashes = {
        "keras": _hash(first, [p.keras for p in case.pairs]),
        "torch": _hash(case.second, [p.torch for p in case.pairs]),
    }
    _forward(case, graph)
    if not report.failures:
        _alone(case, graph)
    if any(isinstance(m, torch.export.UnflattenedModule) for m in module.modules()):
        report.notes.append("the torch module is an exported program, which holds inference alone: not trained")
        if extra := torch_reader.unused(module, [p.torch for p in case.pairs]):
            report.note_once(torch_reader.said_unused(extra))
    elif not unmatched:
        _training(case)
    return report


def _aligned(case: Case) -> list[str]:
    """Read the torch module and align it, its weights held by layers or, if that does not fit, tied ones flowing.

    Returns:
        What has no counterpart.
    """
    log.info("%s: comparing settings and weights", case.model.name)
    error, found = None, []
    for tied in (False, True):
        try:
            second = replace(case, tied=tied).torch_side()
        except BridgeError as e:
            error = error or e
            continue
        found.append((tied, second, *align(case.first, second)))
        if not found[-1][-1]:
            break
    if not found:
        raise error
    case.tied, case.second, case.pairs, unmatched = found[-1] if not found[-1][-1] else found[0]
    return unmatched


def assert_equivalent(model, module, inputs=None, layouts=None) -> None:
    """Raise AssertionError with the whole report unless `verify` passes; for the user's own tests."""
    report = verify(model, module, inputs, layouts)
    if not report.passed:
        raise AssertionError(str(report))


def _alone(case: Case, graph: Graph) -> None:
    """Compare the outputs for a batch of one, for which a module's Python may go another way."""
    if any(v.shape[:1] != (None,) for v in graph.inputs):
        return
    outputs = flatten(keras_reader.run(case.model, [a[:1] for a in case.arrays])[0])
    wanted = [np.asarray(x).transpose(v.order) for x, v in zip(outputs, flatten(case.first.outputs), strict=True)]
    try:
        with torch.no_grad():
            found = flatten(_copied(case.module).eval()(*(t[:1] for t in case.given())))
            have = [torch_reader.array(x) for x in found]
    except Exception as e:  # as the user's own code fails
        case.report.fail("forward", f"the torch module does not take a batch of one: {_said(e)}")
        return
    for value, mine, theirs in zip(flatten(case.first.outputs), wanted, have, strict=True):
        if "float" in mine.dtype.name and mine.dtype != theirs.dtype:
            name = value.source or value.name
            case.report.fail("structure", f"the output {name} is {mine.dtype} in Keras and {theirs.dtype} in torch")
    largest = max(_largest(x) for x in case.values.values())
    errors = (_error(h, w, NOTHING * largest) for h, w in zip(have, wanted, strict=True))
    error = max(errors, default=0.0)
    if not error <= STEPPED:
        case.report.fail("forward", f"with a batch of one the outputs differ by {error:.1e}: does `forward` ask?")


def _hooked(module: torch.nn.Module) -> list[str]:
    """A sentence on parameters whose gradients a hook may change."""
    names = [n for n, p in module.named_parameters() if p._backward_hooks]
    what = "a hook that may change their gradients, which Keras has not"
    return (
        [f"{len(names)} trainable parameter(s) of the torch module have {what}: {', '.join(names[:5])}"]
        if names
        else []
    )


def _tensor(x: np.ndarray, value: Value) -> torch.Tensor:
    return tensor(np.array(x.transpose(value.order), order="C"))


def _hash(graph: Graph, nodes: list[Node]) -> str:
    """Hash the weights of aligned nodes: the same on both sides if and only if the weights are."""
    digest = hashlib.sha256()
    for node in nodes:
        for role, name in sorted(node.parameters.items()):
            digest.update(role.encode() + np.ascontiguousarray(graph.parameters[name].value).tobytes())
    return digest.hexdigest()


def _error(have: np.ndarray | None, want: np.ndarray, least: float = 0.0) -> float:
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
    return float(difference / (max(_largest(want), least) or 1))


def _largest(x: np.ndarray) -> float:
    """The largest value of a tensor, those apart that are not finite."""
    x = np.abs(x.astype("float64"))
    return float(x.max(initial=0.0, where=np.isfinite(x)))


def _masks(case: Case) -> bool:
    """Tell whether a network puts -inf somewhere, as a mask of attention does."""
    numbers = [v for p in case.pairs for v in p.keras.attributes.values() if isinstance(v, float)]
    constants = [case.first.parameters[n].value for p in case.pairs for n in p.keras.parameters.values()]
    return -math.inf in numbers or any(np.isneginf(x).any() for x in constants if "float" in x.dtype.name)


def _declared(node: Node) -> float:
    limit = getattr(rules.for_operator(node.operator), "LIMIT", 0.0)
    return limit(node) if callable(limit) else limit


def _seen(values: dict[str, np.ndarray], value: Value) -> np.ndarray | None:
    """A recorded tensor, with the axes that it has in the laid-out graph."""
    x = values.get(value.source)
    return None if x is None or value.order is None else x.transpose(value.order)


def _said(error: Exception) -> str:
    """An exception in one line; Keras writes in bold."""
    words = re.sub(r"\x1b\[\d*m", "", str(error)).split()
    return f"{type(error).__name__}: {' '.join(words)[:300]}"


def _limits(case: Case) -> dict[str, float]:
    """What float64 must reach at each of Keras' values: the declared limits add up along a path, not over the list."""
    declared, limits = defaultdict(float), {}
    for node, other in ((p.keras, p.torch) for p in case.pairs):
        rounded = max((case.rounded.get(name, 0.0) for name in other.parameters.values()), default=0.0)
        before, own = max((declared[v.name] for v in node.inputs), default=0.0), _declared(node) + 2 * rounded
        declared.update((v.name, before + own) for v in node.outputs)
        limits.update((v.name, FORWARD + own + CANCELLED * before) for v in node.outputs)
    case.limit, case.declared = max(limits.values(), default=FORWARD), max(declared.values(), default=0.0)
    return limits


def _rounded(single: Graph, double: Graph) -> dict[str, float]:
    """By how much constants that a module makes itself are rounded, which in float64 it makes more exactly."""
    found = {}
    names, others = ([n for n, p in g.parameters.items() if not p.trainable] for g in (single, double))
    for name, other in zip(names, others, strict=False):  # a program in float64 has other names
        one, two = single.parameters[name].value, double.parameters[other].value
        if one.dtype == "float32" and one.shape == two.shape:
            error = _error(one, two)
            if 0 < error < 2 * np.finfo("float32").eps:
                found[name] = error
    return found


def _called(case: Case, graph: Graph) -> None:
    """Compare the model's own call with the walk through its layers: `call` may have been replaced."""
    model = case.model
    try:
        inputs = keras.tree.pack_sequence_as(keras_reader.functional(model)._inputs_struct, case.arrays)
        outputs = list(flatten(model(inputs, training=False)))
    except Exception as e:  # `call` of the user's own fails in any way
        case.report.fail("structure", f"the Keras model cannot be called: {_said(e)}")
        return
    for value, own in zip(flatten(graph.outputs), outputs, strict=False):
        walked = case.values.get(value.name)
        if walked is None or np.array_equal(np.asarray(own), walked, equal_nan=True):
            continue
        if not (error := _error(np.asarray(own), walked)) <= WALKED:
            case.report.fail(
                "structure",
                f"the Keras model's own output differs by {error:.1e} from what its layers compute one after the "
                "other, as where its `call` has been replaced",
            )
            return


def _forward(case: Case, graph: Graph) -> None:
    """Compare every tensor of a forward pass in inference mode; `graph` is Keras' as it was read."""
    report = case.report
    log.info("%s: every tensor of a forward pass in float32", case.model.name)
    try:
        _, case.values = keras_reader.run(case.model, case.arrays)
    except Exception as e:  # inputs of the user's own may fail in any layer
        raise BridgeError(f"{case.model.name} does not take these inputs: {_said(e)}") from e
    _called(case, graph)
    try:
        torch32 = torch_reader.run(case.program, case.given())
    except Exception as e:
        report.fail("forward", f"the torch module cannot be run: {_said(e)}")
        return
    try:
        _, again = keras_reader.run(case.model, case.arrays, Twin(None))
        changed = [n for n, x in case.values.items() if not _error(again[n], x) <= WALKED and np.isfinite(x).all()]
        if changed:
            report.fail("structure", f"{changed[0]} does not do in Keras what its configuration says")
        log.info("%s: the same in float64", case.model.name)
        _, keras64 = keras_reader.run(case.model, case.arrays, Twin("float64"))
    except Exception as e:  # TensorFlow lacks a kernel, or a layer of the user's own fails in any way
        report.notes.append(f"float32 only: {_said(e)}")
        keras64, case.dtype, report.dtype = None, "float32", "float32"
    if keras64:
        try:
            network, tensors = case.network()
            with _InDouble():
                program = torch_export.export(network, tensors, case.dynamic)
                graph64 = torch_reader.read(network, tensors, case.dynamic, program=program, tied=case.tied)
                torch64 = torch_reader.run(program, tensors)
            case.rounded = _rounded(case.second, graph64)
        except Exception as e:  # a dtype that the module asks for, say
            report.fail("forward", f"the torch module cannot be run in float64, as Keras can: {_said(e)}")
            keras64 = None
    limits, rounding = _limits(case), defaultdict(float)
    for pair in case.pairs:
        read = [x for v in pair.keras.inputs if (x := case.values.get(v.source)) is not None]
        least = NOTHING * max(map(_largest, read), default=0.0)
        before = max((rounding[v.name] for v in pair.keras.inputs), default=0.0)
        for i, (mine, theirs) in enumerate(zip(pair.keras.outputs, pair.torch.outputs, strict=False)):
            rounding[mine.name] = before
            want, have = _seen(case.values, mine), _seen(torch32, theirs)
            if want is None or have is None:
                continue  # inside one call of a framework (a convolution and its activation), which does not show it
            label = pair.label if i == 0 else f"{pair.label}:{i}"
            layer = Layer(label, pair.keras.operator, _error(have, want, least), limit=limits[mine.name])
            if keras64:
                layer.own = _error(want, _seen(keras64, mine), least)
                layer.float64 = _error(_seen(torch64, theirs), _seen(keras64, mine), least)
                layer.rounding = rounding[mine.name] = max(before, layer.own)
            report.layers.append(layer)
    seen = [v.source for p in case.pairs for v in p.keras.outputs]  # not what is inside: a maximum is padded with -inf
    fine = (lambda x: np.isfinite(x) | np.isneginf(x)) if _masks(case) else np.isfinite
    endless = next((n for n in seen if n in case.values and not fine(case.values[n].astype("float64")).all()), None)
    if endless:
        report.fail(
            "forward", f"Keras' own values are not finite at {endless}: weights or inputs are not, or too large"
        )
    there = torch64 if keras64 else torch32
    report.judge_layers(lambda name: _why(case, name, there))
    for value in flatten(case.first.outputs):
        x = _seen(case.values, value)
        if (
            x is not None
            and x.ndim
            and len(x) > 1
            and np.isfinite(x).all()
            and np.abs(x[0].astype("float64") - x[1]).max() <= 1e-6 * np.abs(x).max()
        ):
            report.notes.append(f"the output {value.source} hardly depends on the input: that it agrees proves little")


def _why(case: Case, name: str, there: dict[str, np.ndarray]) -> str:
    """Which known trap explains that a layer differs, from what the torch module has read and made there."""
    pair = next(p for p in case.pairs if p.label == name)
    inputs = [_seen(there, v) for v in pair.torch.inputs]
    output = _seen(there, pair.torch.outputs[0])
    if output is None or any(x is None for x in inputs):
        return ""
    return explain(pair, case.first, case.second, inputs, output)


class _InDouble(torch.overrides.TorchFunctionMode):
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


class _NoDropout(torch.overrides.TorchFunctionMode):
    """Dropout and noise pass their input on, as in the deterministic twin on Keras' side; `rates` are the active ones.

    Each call is seen once, as the function that torch.nn calls: what that calls in turn is left out with it. A module
    that a rule knows to be random by its class returns its input, whatever it has computed.
    """

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.rates: list[float] = []
        for part in module.modules():
            if rate := torch_export.passes(part):
                part.register_forward_hook(partial(self._pass, rate), with_kwargs=True)

    def _pass(self, rate, part, inputs, keywords, _):
        self.rates += [float(getattr(part, rate))] if getattr(part, rate) else []
        return [*inputs, *keywords.values()][0]

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), getattr(function, "__name__", "")
        place = {"scaled_dot_product_attention": 4, "multi_head_attention_forward": 10}.get(name)
        if place is not None:  # attention has its rate as a number
            rate = args[place] if len(args) > place else kwargs.pop("dropout_p", 0.0)
            if rate and kwargs.get("training", True):
                self.rates.append(float(rate))
            return function(*args[:place], *[0.0 for _ in args[place : place + 1]], *args[place + 1 :], **kwargs)
        if "dropout" not in name:
            return function(*args, **kwargs)
        rate = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
        active = kwargs.get("training", kwargs.get("train", args[2] if len(args) > 2 else True))
        if active and rate > 0:
            self.rates.append(float(rate))
        return args[0] if args else kwargs["input"]


def _rates(node: Node) -> list[float]:
    """How random a node is in training."""
    names = getattr(rules.for_operator(node.operator), "RANDOM", ())
    return [node[name] for name in names if isinstance(node.attributes.get(name), float)]


@torch.enable_grad()
def _training(case: Case) -> None:
    """Compare one training step, Dropout set to 0: outputs, active Dropouts, gradients, new statistics."""
    report = case.report
    log.info("%s: gradients and statistics of a step of training", case.model.name)
    try:
        twin, rng = Twin(case.dtype, deterministic=True), np.random.default_rng(1)
        with tf.GradientTape() as tape:
            wanted = list(flatten(keras_reader.run(case.model, case.arrays, twin, training=True)[0]))
            weights = [rng.normal(size=o.shape) for o in wanted]
            pairs = [(o, w) for o, w in zip(wanted, weights, strict=True) if o.dtype.is_floating]  # not an index
            loss = sum(tf.reduce_sum(o * tf.cast(w, o.dtype)) for o, w in pairs)
        variables = {id(v): twin.variables[id(v)].value for v in case.model.trainable_variables}
        slopes = tape.gradient(loss, variables, unconnected_gradients="zero") if variables else {}
    except Exception as e:  # a layer of the user's own fails in any way
        report.fail("training", f"the Keras model cannot be rebuilt without Dropout and trained: {_said(e)}")
        return

    def stepped(v):  # what a training step makes of a variable: its gradient or, of a statistic, its new value
        return np.asarray(tf.convert_to_tensor(slopes[id(v)]) if id(v) in slopes else twin.variables[id(v)])

    keras_side = layout.convert(keras_reader.read(case.model, stepped), "first", case.layouts)
    outputs = list(flatten(keras_side.outputs))
    weights = [w.transpose(v.order) for w, v in zip(weights, outputs, strict=True)]
    try:
        network, tensors = case.network()
        network.train()
        dropout = _NoDropout(network)
        with dropout, _InDouble() if case.dtype == "float64" else nullcontext():
            results = list(flatten(network(*tensors)))
        pairs = [(r, w) for r, w in zip(results, weights, strict=True) if r.is_floating_point()]
        loss = sum((r * torch.from_numpy(w).to(r.dtype)).sum() for r, w in pairs)
        if loss.requires_grad:  # not where everything is frozen
            loss.backward()
    except Exception as e:  # in training mode a module may do, and lack, anything
        report.fail("training", f"the torch module cannot be trained for one step in {case.dtype}: {_said(e)}")
        return
    for result, want, value in zip(results, wanted, outputs, strict=True):
        error = report.training[value.source] = _error(
            torch_reader.array(result), np.asarray(want).transpose(value.order)
        )
        if not error <= _looser(case):
            report.fail("training", f"in training mode the output {value.source} differs by {error:.1e} ({case.dtype})")
    rates = sorted(rate for p in case.pairs for rate in _rates(p.torch) if rate)
    if len(rates) != len(dropout.rates) or not np.allclose(rates, sorted(dropout.rates)):
        report.fail(
            "training", f"in training mode Dropouts of rates {rates} are due, {sorted(dropout.rates)} are active"
        )
    held, trained = network.state_dict(keep_vars=True), dict(network.named_parameters(remove_duplicate=False))
    _unused(case, trained)

    def after(name, tensor):
        if name in trained and trained[name].requires_grad:
            return np.zeros(tensor.shape) if trained[name].grad is None else torch_reader.array(trained[name].grad)
        return torch_reader.array(held.get(name, tensor))

    torch_side = case.torch_side(after)
    _gradients(case, keras_side, torch_side)
    _statistics(case, keras_side, torch_side)
    if report.gradients and not report.failures:  # else the steps would only say it again
        _steps(case, [np.asarray(w) for w in wanted])


def _unused(case: Case, trained: dict[str, torch.nn.Parameter]) -> None:
    """Judge the parameters without a counterpart by their gradients: without one they lead nowhere in torch either."""
    extra = torch_reader.unused(case.module, [p.torch for p in case.pairs])
    moved = [n for n in extra if (slope := trained[n].grad) is not None and slope.abs().max() > 0]
    if moved:
        sentence = "trainable parameter(s) of the torch module have a gradient and no counterpart in Keras"
        case.report.fail("structure", f"{len(moved)} {sentence}: {', '.join(moved[:5])}")
    elif extra:
        case.report.note_once(torch_reader.said_unused(extra))


@torch.enable_grad()
def _steps(case: Case, outputs: list[np.ndarray]) -> None:
    """Train both sides for ten steps, Dropout set to 0, and compare the losses and how the weights have moved."""
    report, wanted = case.report, lockstep.targets(outputs)
    try:
        report.losses["keras"], twin, rate = lockstep.train_keras(case.model, case.arrays, wanted, case.dtype)
    except Exception as e:  # an operator without a second gradient, say
        report.fail("training", f"the Keras model cannot be trained for {lockstep.STEPS} steps: {_said(e)}")
        return
    report.rate = rate

    def moved(v):
        return np.asarray(twin.variables[id(v)]).astype("float64") - np.asarray(v).astype("float64")

    keras_side = layout.convert(keras_reader.read(case.model, moved), "first", case.layouts)
    wanted = [w.transpose(v.order) for w, v in zip(wanted, flatten(keras_side.outputs), strict=True)]
    try:
        network, tensors = case.network()
        network.train()
        with _NoDropout(network), _InDouble() if case.dtype == "float64" else nullcontext():
            report.losses["torch"] = lockstep.train_torch(
                network, lambda: tuple(t.clone() for t in tensors), wanted, rate
            )
    except Exception as e:  # in training mode a module may do, and lack, anything
        report.fail("training", f"the torch module cannot be trained for {lockstep.STEPS} steps: {_said(e)}")
        return
    after, before = network.state_dict(), case.module.state_dict()

    def moved_there(name, tensor):
        if name not in after:
            return np.zeros(tensor.shape)
        return torch_reader.array(after[name]).astype("float64") - torch_reader.array(before[name]).astype("float64")

    torch_side = case.torch_side(moved_there)
    mine, theirs = (np.array(report.losses[k]) for k in ("keras", "torch"))
    limit = max(LOSSES, DECLARED * case.declared) if case.dtype == "float64" else STEPPED
    report.steps["losses"] = error = float(np.abs(mine - theirs).max() / max(np.abs(mine).max(), 1e-30))
    if not error <= limit:
        report.fail("training", f"over {lockstep.STEPS} steps of SGD the losses differ by {error:.1e} ({case.dtype})")
    wrong, moves = {}, {}
    for pair in case.pairs:
        for role, name in pair.keras.parameters.items():
            here, there = keras_side.parameters[name], torch_side.parameters.get(pair.torch.parameters.get(role))
            if here.trainable and there is not None and there.trainable and here.value.shape == there.value.shape:
                moves.setdefault(name, (f"{pair.label}.{role}", here.value, there.value))
    largest = max((np.abs(m).max(initial=0.0) for _, m, _ in moves.values()), default=0.0)
    for label, here, there in moves.values():
        own = max(np.abs(here).max(initial=0.0), SMALL["float32"] * largest)
        error = float(np.abs(here - there).max(initial=0.0) / own)
        report.steps["weights"] = max(error, report.steps.get("weights", 0.0))
        if not error <= max(MOVED if case.dtype == "float64" else STEPPED, limit):
            wrong[label] = error
    if wrong:
        report.fail(
            "training",
            f"after {lockstep.STEPS} steps of SGD {len(wrong)} of {len(moves)} weights have moved elsewhere "
            f"({case.dtype}), most {_worst(wrong)}",
        )


def _gradients(case: Case, keras_side: Graph, torch_side: Graph) -> None:
    rows: dict[str, tuple[str, np.ndarray, np.ndarray]] = {}  # a shared parameter has one row
    for pair in case.pairs:
        for role in pair.keras.parameters.keys() & pair.torch.parameters.keys():
            name = pair.keras.parameters[role]
            mine, theirs = keras_side.parameters[name], torch_side.parameters[pair.torch.parameters[role]]
            if (
                mine.trainable and theirs.trainable and mine.value.shape == theirs.value.shape
            ):  # else the settings have said it
                rows.setdefault(name, (f"{pair.label}.{role}", mine.value, theirs.value))
    largest = max((np.abs(g).max() for _, g, _ in rows.values() if g.size), default=0.0)
    declared = min(CAP, DECLARED * case.declared)
    limit, wrong = max(GRADIENT, declared) if case.dtype == "float64" else SINGLE, {}
    for label, want, have in rows.values():
        own = np.abs(want).max(initial=0.0)
        if np.maximum(own, np.abs(have).max(initial=0.0)) <= ZERO[case.dtype] * largest:  # NaN stays NaN
            case.report.zero_gradients.append(label)
            continue
        error = case.report.gradients[label] = float(np.abs(want - have).max() / max(own, SMALL[case.dtype] * largest))
        if not error <= limit:
            wrong[label] = error
    if wrong:
        case.report.fail("gradients", f"{len(wrong)} of {len(rows)} differ in {case.dtype}, most {_worst(wrong)}")


def _looser(case: Case) -> float:
    """The limit in training mode: batch statistics of few numbers lose a digit."""
    return 10 * case.limit if case.dtype == "float64" else SINGLE


def _worst(errors: dict[str, float]) -> str:
    return ", ".join(f"{k} by {errors[k]:.1e}" for k in sorted(errors, key=errors.get, reverse=True)[:3])


def _statistics(case: Case, keras_side: Graph, torch_side: Graph) -> None:
    wrong = {}
    calls: dict[str, list[Node]] = {}  # a shared layer's statistics are updated at each of its calls
    for node in (p.keras for p in case.pairs):
        for name in node.parameters.values():
            calls.setdefault(name, []).append(node)
    for pair in case.pairs:
        rule = rules.for_operator(pair.keras.operator)
        for role in getattr(rule, "STATISTICS", ()):
            name, theirs = pair.keras.parameters.get(role), pair.torch.parameters.get(role)
            if not name or not theirs:
                continue
            start, mine = case.first.parameters[name].value.astype(case.dtype), keras_side.parameters[name].value
            updates = [n for n in calls[name] if not n.attributes.get("frozen")] or [pair.keras]
            shapes = [case.values[n.inputs[0].source].shape for n in updates if n.inputs[0].source in case.values]
            shape = min(shapes, key=np.prod, default=None)
            momentum = updates[0].attributes.get("momentum", 0.0) ** len(updates)
            node = replace(updates[0], attributes={**updates[0].attributes, "momentum": momentum})
            expected = rule.torch_statistics(role, start, mine, node, shape)
            have = torch_side.parameters[theirs].value
            if len(updates) > 1 and have.shape == mine.shape:
                # of several updates each has its own n: the smallest one's bounds them all
                error = _error(have, np.clip(have, np.minimum(mine, expected), np.maximum(mine, expected)))
            else:
                error = min(_error(have, e) for e in (mine, expected))
            if not error <= _looser(case):
                wrong[f"{pair.label}.{role}"] = error
            elif _error(have, mine) > _looser(case):
                case.report.note_once(
                    "in training torch's running variance takes the unbiased variance, n/(n-1) of Keras'"
                )
    if wrong:
        case.report.fail(
            "training", f"after a training step {len(wrong)} statistics differ in {case.dtype}, most {_worst(wrong)}"
        )
