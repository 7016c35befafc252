"""What a torch module does in training mode alone, which an export that was made in eval mode does not show.

The module's own Python is run in either mode (`module_run`), and the functions of torch that it calls are compared, by
the module that calls them. What leads to the outputs of eval mode must be the same, but for what the rules
carry themselves: Dropout and BatchNorm by their functions, stochastic depth and noise by their class. Auxiliary
outputs, and buffers that nothing in eval mode reads, are only noted: the network in eval mode has none.

Attention has its dropout as a number, which is 0 in such an export; the rate is found here.
"""

from collections import Counter
from dataclasses import dataclass, field

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from bridge.graph import Obstacle
from bridge.module_run import COPY, Call, Run, untouched

TRIES = 8  # runs, where the random numbers of Python or NumPy may decide
CONDITION = "take it out of the module, or do it in eval mode too"


@dataclass
class Training:
    """What was found.

    Args:
        obstacles: What changes the outputs of eval mode or what they are computed from, by the path of the module.
        notes: Sentences on the rest, and on what could not be followed.
        rates: (path of a module, "dropout" or the name of attention, running number of its call there) -> the rate in
            training mode, where it is not that of eval mode.
    """

    obstacles: list[Obstacle] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rates: dict[tuple[str, str, int], float] = field(default_factory=dict)


def look(module: torch.nn.Module, example_inputs: tuple, dynamic: list[set[int]] | None = None) -> Training:
    """Run a module in eval and in training mode, and compare what it does there.

    Nothing is computed: neither the module nor any random state changes.

    Args:
        module: Any module that torch.export can follow.
        example_inputs: Tensors as for a call of the module.
        dynamic: For each input the axes that stay open; by default the batch.
    """
    if any(isinstance(m, torch.export.UnflattenedModule) for m in module.modules()):
        return Training()  # it holds inference alone
    name, fakes, runs = type(module).__name__, FakeTensorMode(allow_non_fake_inputs=True), []
    with untouched(module), fakes:
        tensors = [
            torch.cat([x, x]) if x.ndim and len(x) == 1 and (dynamic is None or 0 in dynamic[i]) else x
            for i, x in enumerate(map(fakes.from_tensor, example_inputs))
        ]
    found = Training()
    for luck in range(TRIES + 1):
        if luck > 1 and not (runs[-1].drew or (runs[-1].asked and luck == 2)):
            break
        run = Run(module, fakes, max(luck, 1), runs[0] if luck else None)
        runs.append(run)
        try:
            if any(isinstance(m, torch.jit.ScriptModule) for m in module.modules()):
                raise TypeError("it is compiled by TorchScript")
            run(tensors)
        except Exception as e:  # a module may do anything in training mode
            why = " ".join(f"{type(e).__name__}: {e}".split())[:300]
            place = run.last or "forward"
            found.notes.append(f"what {name} does in training mode alone could not be looked for in {place}: {why}")
            break
        if luck:
            _compare(runs[0], run, found)
            found.rates = found.rates or run.rates
    first = {o.path: o for o in reversed(found.obstacles)}
    found.obstacles = [o for o in dict.fromkeys(found.obstacles) if first[o.path] is o]
    found.notes = list(dict.fromkeys(found.notes))
    return found


def _matched(told: Run, seen: Run) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The outputs in training mode of the same keys or places as those of eval mode; none if some are missing."""
    there = dict(seen.outputs)
    if all(key in there for key, _ in told.outputs):
        return [(x, there[key]) for key, x in told.outputs]
    places = zip((x for _, x in told.outputs), (x for _, x in seen.outputs), strict=False)
    return list(places) if len(told.outputs) <= len(seen.outputs) else []


def _compare(told: Run, seen: Run, found: Training) -> None:
    """Compare a run in eval mode with one in training mode."""
    classes = told.classes | seen.classes

    def refuse(path: str, reason: str) -> None:
        found.obstacles.append(Obstacle(path or "forward", classes[path], f"in training it {reason}", CONDITION))

    found.obstacles += seen.refused
    outputs = _matched(told, seen)
    if not outputs:
        refuse("", "returns other outputs")
        return
    before, after = (
        [call for call in run.leading(list(x)) if call.name != COPY]
        for run, x in zip((told, seen), zip(*outputs, strict=True), strict=True)
    )
    different = _different(told, before, seen, after)
    for path, reason in different.items():
        refuse(path, reason)
    if not different and any(told.value(x) != seen.value(y) for x, y in outputs):
        refuse(*_elsewhere(before, after))
    read = {told.names[x] for call in before for x in call.reads if x in told.names}
    changed = {name: path for name, path in seen.changed.items() if name not in told.changed}
    for name, path in changed.items():
        if name in read and path not in different:
            refuse(path, f"changes {name}")
    unread = {name: path for name, path in changed.items() if name not in read}
    found.notes += _aside(told, seen, after, unread)


def _apart(call: Call, other: Run) -> tuple[str, str]:
    """The path of a call, or of the innermost module that the other run has been in too, and its child on the way."""
    i = next((i for i, path in enumerate(call.places) if path not in other.entered), len(call.places))
    return call.places[i - 1], call.places[i] if i < len(call.places) else ""


def _different(told: Run, before: list[Call], seen: Run, after: list[Call]) -> dict[str, str]:
    """Map the paths of modules to what they call in one of the runs alone."""
    counts = Counter((c.path, c.key) for c in before), Counter((c.path, c.key) for c in after)
    more: dict[str, dict[str, None]] = {}
    less: dict[str, dict[str, None]] = {}
    for calls, other, extra, into in (
        (before, seen, counts[0] - counts[1], less),
        (after, told, counts[1] - counts[0], more),
    ):
        for call in calls:
            path, child = _apart(call, other)
            if child or extra[call.path, call.key] > 0:
                extra[call.path, call.key] -= 1
                into.setdefault(path, {})[child or call.name] = None
    reasons = {}
    for path in less | more:
        left, added = less.get(path, {}), more.get(path, {})
        same = [name for name in left if name in added]
        parts = (
            (f"calls {', '.join(same)} with other arguments" if same else ""),
            (f"also calls {', '.join(n for n in added if n not in same)}" if added.keys() - same else ""),
            (f"leaves out {', '.join(n for n in left if n not in same)}" if left.keys() - same else ""),
        )
        reasons[path] = " and ".join(filter(None, parts))
    return reasons


def _elsewhere(before: list[Call], after: list[Call]) -> tuple[str, str]:
    """Where runs that call the same first differ in what they call it on."""
    waiting: dict[str, list[Call]] = {}
    for call in reversed(before):
        waiting.setdefault(call.path, []).append(call)
    for call in after:
        if waiting[call.path].pop().value != call.value:
            return call.path, f"calls {call.name} on other tensors"
    return "", "returns another tensor"


def _aside(told: Run, seen: Run, after: list[Call], unread: dict[str, str]) -> list[str]:
    """Sentences on what is done in training mode alone and leads to no output of eval mode."""
    leading, known = set(map(id, after)), {(c.path, c.key) for c in told.calls}
    aside = {}
    for call in seen.calls:
        if (
            id(call) in leading
            or call.writes
            or call.name == COPY
            or (call.path, call.key) in known
            or seen.uniform.keys() >= set(call.makes)
        ):
            continue
        path, child = _apart(call, told)
        if child or path not in unread.values():
            aside[child or path or "forward"] = None
    name, notes = type(seen.module).__name__, []
    if aside:
        notes.append(
            f"in training mode alone {name} also computes what no output of eval mode depends on; the Keras model is "
            f"without it: {', '.join(list(aside)[:5])}"
        )
    if unread:
        notes.append(
            f"in training mode alone {name} changes what no output of eval mode depends on; the Keras model is without "
            f"it: {', '.join(list(unread)[:5])}"
        )
    return notes
