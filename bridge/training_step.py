"""The proof's part on training: one step, then ten, on both sides, Dropout set to 0 in either.

Compared are the outputs in training mode, which Dropouts are active, every gradient, the new statistics; of ten steps
the losses, and how far each weight has gone.
"""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import tensorflow as tf
import torch

from bridge import keras_reader, layout, lockstep, rules, torch_export, torch_reader, walk
from bridge.comparison import STEPPED, Case, InDouble, distance, said
from bridge.fixed_noise import in_torch
from bridge.graph import Graph, Node, flatten
from bridge.module_run import RECURRENT
from bridge.progress import log
from bridge.twin import Twin

GRADIENT = 1e-7  # float64: of the gradient's own largest value, at least SMALL of the network's largest
SINGLE = 1e-3  # of the same, where a framework has no float64 for a layer: float32 sums in another order
SMALL = {"float64": 1e-6, "float32": 1e-3}
ZERO = {"float64": 1e-12, "float32": 1e-5}  # of the network's largest gradient: rounding
# what a declared limit of the forward pass may become in a gradient; the sums before a softmax or BatchNorm cancel:
# 133 times was seen for a beta between them (2.0e-6 behind a leaky ReLU's 1.5e-8)
DECLARED = 500
CAP = 1e-5  # at most
LOSSES = 1e-9  # float64: of the largest loss of ten steps; 1e-14 was seen
MOVED = 1e-6  # float64: of how far a weight has gone in ten steps


@torch.enable_grad()
def train(case: Case) -> None:
    """Compare one training step, Dropout set to 0: outputs, active Dropouts, gradients, new statistics."""
    report = case.report
    log.info("%s: gradients and statistics of a step of training", case.model.name)
    try:
        twin, rng = Twin(case.dtype, deterministic=True), np.random.default_rng(1)
        with tf.GradientTape() as tape:
            wanted = list(flatten(walk.run(case.model, case.arrays, twin, training=True)[0]))
            weights = [rng.normal(size=o.shape) for o in wanted]
            pairs = [(o, w) for o, w in zip(wanted, weights, strict=True) if o.dtype.is_floating]  # not an index
            loss = sum(tf.reduce_sum(o * tf.cast(w, o.dtype)) for o, w in pairs)
        variables = {id(v): twin.variables[id(v)].value for v in case.model.trainable_variables}
        slopes = {k: tf.zeros_like(v) for k, v in variables.items()}
        if variables and pairs:  # all it makes may be whole numbers
            slopes = tape.gradient(loss, variables, unconnected_gradients="zero")
    except Exception as e:  # a layer of the user's own fails in any way
        report.fail("training", f"the Keras model cannot be rebuilt without Dropout and trained: {said(e)}")
        return

    def stepped(v):  # what a training step makes of a variable: its gradient or, of a statistic, its new value
        return np.asarray(tf.convert_to_tensor(slopes[id(v)]) if id(v) in slopes else twin.variable(v))

    keras_side = layout.convert(keras_reader.read(case.model, stepped), "first", case.layouts)
    outputs = list(flatten(keras_side.outputs))
    weights = [w.transpose(v.order) for w, v in zip(weights, outputs, strict=True)]
    try:
        network, tensors = case.network()
        network.train()
        dropout = _NoDropout(network)
        with dropout, in_torch(case.first.nodes), InDouble() if case.dtype == "float64" else nullcontext():
            results = list(flatten(network(*tensors)))
        pairs = [(r, w) for r, w in zip(results, weights, strict=True) if r.is_floating_point()]
        loss = sum((r * torch.from_numpy(w).to(r.dtype)).sum() for r, w in pairs)
        if pairs and loss.requires_grad:  # not where everything is frozen
            loss.backward()
    except Exception as e:  # in training mode a module may do, and lack, anything
        report.fail("training", f"the torch module cannot be trained for one step in {case.dtype}: {said(e)}")
        return
    for result, want, value in zip(results, wanted, outputs, strict=True):
        error = report.training[value.source] = distance(
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
    if still := torch_reader.second_biases(case.module, case.second.parameters):
        report.note_once(f"{torch_reader.said_twice(still)}; here held still")

    def after(name, tensor):
        if name in trained:
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
        report.fail("training", f"the Keras model cannot be trained for {lockstep.STEPS} steps: {said(e)}")
        return
    report.rate = rate

    def moved(v):
        return np.asarray(twin.variable(v)).astype("float64") - np.asarray(v).astype("float64")

    keras_side = layout.convert(keras_reader.read(case.model, moved), "first", case.layouts)
    wanted = [w.transpose(v.order) for w, v in zip(wanted, flatten(keras_side.outputs), strict=True)]
    try:
        network, tensors = case.network()
        network.train()
        with in_torch(case.first.nodes), _NoDropout(network), InDouble() if case.dtype == "float64" else nullcontext():
            report.losses["torch"] = lockstep.train_torch(
                network, lambda: tuple(t.clone() for t in tensors), wanted, rate
            )
    except Exception as e:  # in training mode a module may do, and lack, anything
        report.fail("training", f"the torch module cannot be trained for {lockstep.STEPS} steps: {said(e)}")
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
            mine = keras_side.parameters[name]
            if not mine.trainable:  # a constant may have another name among values of another dtype
                continue
            theirs = torch_side.parameters[pair.torch.parameters[role]]
            if theirs.trainable and mine.value.shape == theirs.value.shape:  # else the settings have said it
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
                error = distance(have, np.clip(have, np.minimum(mine, expected), np.maximum(mine, expected)))
            else:
                error = min(distance(have, e) for e in (mine, expected))
            if not error <= _looser(case):
                wrong[f"{pair.label}.{role}"] = error
            elif distance(have, mine) > _looser(case):
                case.report.note_once(
                    "in training torch's running variance takes the unbiased variance, n/(n-1) of Keras'"
                )
    if wrong:
        case.report.fail(
            "training", f"after a training step {len(wrong)} statistics differ in {case.dtype}, most {_worst(wrong)}"
        )


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
        if name in RECURRENT:  # between its layers
            place = max(i for i, x in enumerate(args) if isinstance(x, float))
            if args[place + 1]:
                self.rates += [args[place]] * (args[place - 1] - 1 if args[place] else 0)
            return function(*args[:place], 0.0, *args[place + 1 :], **kwargs)
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


def _worst(errors: dict[str, float]) -> str:
    return ", ".join(f"{k} by {errors[k]:.1e}" for k in sorted(errors, key=errors.get, reverse=True)[:3])
