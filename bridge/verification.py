"""The proof that a Keras model and a torch module are the same.

Both are read into the neutral graph and laid out alike, and the two graphs are aligned node by node. What aligns
is compared as data (settings, weights, what is trained), then as numbers: every tensor of a forward pass in
float64 and float32, and training (`training_step`).
"""

import hashlib
import math
from collections import defaultdict
from dataclasses import replace

import keras
import numpy as np
import torch

from bridge import keras_reader, layout, torch_export, torch_reader, training_step, walk
from bridge.align import align, differences
from bridge.comparison import (
    FORWARD,
    STEPPED,
    Case,
    InDouble,
    copied,
    declared_limit,
    distance,
    magnitude,
    recorded,
    said,
)
from bridge.explain import explain
from bridge.fixed_noise import in_keras, in_torch
from bridge.graph import OUTPUT, BridgeError, Graph, Node, Value, flatten
from bridge.models import functional
from bridge.progress import log
from bridge.report import Layer, Report
from bridge.rules import SUM
from bridge.samples import check_layouts, inputs_of
from bridge.tensors import tensor
from bridge.twin import Twin

CANCELLED = 10  # times what is declared before a layer, whose sums may cancel: 1.7 was seen behind a leaky ReLU
NOTHING = 1e-3  # of the largest value that a layer reads: below that its output is judged by this, not by itself
WALKED = 1e-5  # float32: between a model's own call and the walk through its layers


@in_keras()
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
    if any(n.operator == "random" for n in first.nodes):
        report.note_once("it draws random numbers in inference too: both sides were given the same ones")
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
        training_step.train(case)
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
    if any(v.shape[:1] != (None,) for v in graph.inputs) or len({len(a) for a in case.arrays}) > 1:
        return  # the first axis is not the batch of all of them
    outputs = flatten(walk.run(case.model, [a[:1] for a in case.arrays])[0])
    wanted = [np.asarray(x).transpose(v.order) for x, v in zip(outputs, flatten(case.first.outputs), strict=True)]
    try:
        with torch.no_grad(), in_torch(case.first.nodes):
            found = flatten(copied(case.module).eval()(*(t[:1] for t in case.given())))
            have = [torch_reader.array(x) for x in found]
    except Exception as e:  # as the user's own code fails
        case.report.fail("forward", f"the torch module does not take a batch of one: {said(e)}")
        return
    largest = max(magnitude(x) for x in case.values.values())
    errors = (distance(h, w, NOTHING * largest) for h, w in zip(have, wanted, strict=True))
    error = max(errors, default=0.0)
    # in 16 bits Keras itself is further off than that
    own = max((layer.own for layer in case.report.layers if layer.own is not None), default=0.0)
    if not error <= max(STEPPED, 3 * own):
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


def _masks(case: Case) -> bool:
    """Tell whether a network puts -inf somewhere, as a mask of attention does."""
    numbers = [v for p in case.pairs for v in p.keras.attributes.values() if isinstance(v, float)]
    constants = [case.first.parameters[n].value for p in case.pairs for n in p.keras.parameters.values()]
    return -math.inf in numbers or any(np.isneginf(x).any() for x in constants if "float" in x.dtype.name)


def _limits(case: Case) -> dict[str, float]:
    """What float64 must reach at each of Keras' values: the declared limits add up along a path, not over the list."""
    declared, limits = defaultdict(float), {}
    for node, other in ((p.keras, p.torch) for p in case.pairs):
        constants = [case.rounded.get(name, 0.0) for name in other.parameters.values()]
        rounded = max((*constants, *(case.first.parameters[n].rounding for n in node.parameters.values())), default=0.0)
        before, own = max((declared[v.name] for v in node.inputs), default=0.0), declared_limit(node) + 2 * rounded
        declared.update((v.name, before + own) for v in node.outputs)
        limits.update((v.name, FORWARD + own + CANCELLED * before) for v in node.outputs)
    case.limit, case.declared = max(limits.values(), default=FORWARD), max(declared.values(), default=0.0)
    return limits


def _rounded(single: Graph, double: Graph) -> dict[str, float]:
    """By how much constants and sums that a module makes itself are rounded; in float64 it makes them more exactly."""
    found = {}
    names, others = ([n for n, p in g.parameters.items() if not p.trainable or SUM in n] for g in (single, double))
    for name, other in zip(names, others, strict=False):  # a program in float64 has other names
        one, two = single.parameters[name].value, double.parameters[other].value
        if one.dtype == "float32" and one.shape == two.shape:
            error = distance(one, two)
            if 0 < error < 2 * np.finfo("float32").eps:
                found[name] = error
    return found


def _called(case: Case) -> None:
    """Compare the model's own call with the walk through its layers: `call` may have been replaced."""
    model = case.model
    try:
        inputs = keras.tree.pack_sequence_as(functional(model)._inputs_struct, case.arrays)
        outputs = list(flatten(model(inputs, training=False)))
    except Exception as e:  # `call` of the user's own fails in any way
        case.report.fail("structure", f"the Keras model cannot be called: {said(e)}")
        return
    for i, own in enumerate(outputs):
        own, walked = np.asarray(own), case.values[OUTPUT.format(i)]
        if own.dtype != walked.dtype:
            case.report.fail("structure", f"the Keras model returns {own.dtype}, and its layers make {walked.dtype}")
        if np.array_equal(own, walked, equal_nan=True):
            continue
        if not (error := distance(own, walked)) <= WALKED:
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
        _, case.values = walk.run(case.model, case.arrays)
    except Exception as e:  # inputs of the user's own may fail in any layer
        raise BridgeError(f"{case.model.name} does not take these inputs: {said(e)}") from e
    _called(case)
    try:
        with in_torch(case.first.nodes):
            torch32 = torch_reader.run(case.program, case.given())
    except Exception as e:
        report.fail("forward", f"the torch module cannot be run: {said(e)}")
        return
    try:
        _, again = walk.run(case.model, case.arrays, Twin(None))
        changed = [n for n, x in case.values.items() if not distance(again[n], x) <= WALKED and np.isfinite(x).all()]
        if changed:
            report.fail("structure", f"{changed[0]} does not do in Keras what its configuration says")
        log.info("%s: the same in float64", case.model.name)
        _, keras64 = walk.run(case.model, case.arrays, Twin("float64"))
    except Exception as e:  # TensorFlow lacks a kernel, or a layer of the user's own fails in any way
        report.notes.append(f"float32 only: {said(e)}")
        keras64, case.dtype, report.dtype = None, "float32", "float32"
    if keras64:
        try:
            network, tensors = case.network()
            with InDouble():
                program = torch_export.export(network, tensors, case.dynamic)
                graph64 = torch_reader.read(network, tensors, case.dynamic, program=program, tied=case.tied)
                with in_torch(case.first.nodes):
                    torch64 = torch_reader.run(program, tensors)
            case.rounded = _rounded(case.second, graph64)
        except Exception as e:  # a dtype that the module asks for, say
            report.fail("forward", f"the torch module cannot be run in float64, as Keras can: {said(e)}")
            keras64 = None
    limits, rounding = _limits(case), defaultdict(float)
    compared = {v.name for v in case.first.inputs}

    def compare(label: str, operator: str, mine: Value, theirs: Value, least: float, before: float) -> bool:
        want, have = recorded(case.values, mine), recorded(torch32, theirs)
        if want is None or have is None:
            return False  # inside one call of a framework (a convolution and its activation), which does not show it
        layer = Layer(label, operator, distance(have, want, least), limit=limits.get(mine.name, case.limit))
        if keras64:
            layer.own = distance(want, recorded(keras64, mine), least)
            layer.float64 = distance(recorded(torch64, theirs), recorded(keras64, mine), least)
            layer.rounding = rounding[mine.name] = max(before, layer.own)
        report.layers.append(layer)
        compared.add(mine.name)
        return True

    for pair in case.pairs:
        read = [x for v in pair.keras.inputs if (x := case.values.get(v.source)) is not None]
        least = NOTHING * max(map(magnitude, read), default=0.0)
        before = max((rounding[v.name] for v in pair.keras.inputs), default=0.0)
        for i, (mine, theirs) in enumerate(zip(pair.keras.outputs, pair.torch.outputs, strict=False)):
            rounding[mine.name] = before
            label = pair.label if i == 0 else f"{pair.label}:{i}"
            compare(label, pair.keras.operator, mine, theirs, least, before)
    outputs = list(zip(flatten(case.first.outputs), flatten(case.second.outputs), strict=False))
    for i, (value, _) in enumerate(outputs if not report.failures else []):
        mine, theirs = (values[OUTPUT.format(i)].dtype for values in (case.values, torch32))
        if "float" in mine.name and mine != theirs:
            name = value.source or value.name
            report.fail("structure", f"the output {name} is {mine} in Keras and {theirs} in torch")
    largest = NOTHING * max(map(magnitude, case.values.values()))
    for i, (mine, theirs) in enumerate(outputs if not report.failures else []):
        if mine.name not in compared:  # torch may record a part of it alone, as of the last state of an LSTM
            name, (mine, theirs) = mine.source, (replace(v, source=OUTPUT.format(i)) for v in (mine, theirs))
            if not compare(name, "output", mine, theirs, largest, 0.0):
                report.fail("forward", f"the output {name} could not be compared")
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
        x = recorded(case.values, value)
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
    pair = next((p for p in case.pairs if p.label == name), None)
    if pair is None:  # a later one of several outputs
        return ""
    inputs = [recorded(there, v) for v in pair.torch.inputs]
    output = recorded(there, pair.torch.outputs[0])
    if output is None or any(x is None for x in inputs):
        return ""
    return explain(pair, case.first, case.second, inputs, output)
