"""One run of a torch module: which functions of torch it calls, in which module, on what; nothing is computed.

The module's own Python is run on tensors without numbers. Where it asks for a number it is given one, by luck.
"""

import contextlib
import copy
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.nn.modules import module as torch_module
from torch.utils._pytree import tree_flatten_with_path, tree_map_only

from bridge import rules
from bridge.graph import Obstacle
from bridge.torch_export import known_class
from bridge.torch_reader import ATTENTION
from bridge.torch_words import replaced

WHOLE = "multi_head_attention_forward"  # what nn.MultiheadAttention calls
RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
COPY = "contiguous"  # changes no number; batches of some sizes are copied in training, say
TRUTH = ("__bool__", "is_nonzero", "equal", "allclose", "__contains__")  # what asks for a truth value
NUMBERS = ("item", "__float__", "__int__", "__index__")
ASKED = 1000  # answers, before a loop that waits for another one is given up
PLAIN = (bool, int, float, str, type(None), type(...), torch.dtype, torch.device, torch.layout, torch.memory_format)


@dataclass
class Call:
    """One call of a function of torch that returns or changes a tensor, or of a module that a rule reads as a whole.

    `value` stands for all that it was computed from: equal in two runs if that is.
    """

    places: tuple[str, ...]  # the modules around it, from the outside in
    name: str
    arguments: str
    reads: list[int]  # tensors
    touched: list[int]  # the memory of these
    makes: list[int]
    writes: list[int]  # memory
    known: bool  # where all that it reads has come from
    value: int = 0

    @property
    def path(self) -> str:
        return self.places[-1]

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.arguments


@contextlib.contextmanager
def untouched(module: torch.nn.Module) -> Iterator[None]:
    """Put back whatever a run changes: attributes, flags, random states."""

    def shallow(x):
        return copy.copy(x) if type(x) in (dict, list, set) else None

    parts = {m: dict(vars(m)) for m in module.modules()}
    held = [(x, kept) for state in parts.values() for x in state.values() if (kept := shallow(x)) is not None]
    trained = [(p, p.requires_grad) for p in module.parameters()]
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        for p, flag in trained:
            p.requires_grad_(flag)
        for x, kept in held:
            if isinstance(x, list):
                x[:] = kept
            else:
                x.clear()
                x.update(kept)
        for m, state in parts.items():
            vars(m).clear()
            vars(m).update(state)


class Run(torch.overrides.TorchFunctionMode):
    """A run of a module in one mode: every function that it calls, without what that calls in turn.

    Where the module asks for a number in a tensor, which has none, `luck` answers: first small and true, then large and
    false, then by chance.
    """

    def __init__(self, module: torch.nn.Module, fakes: FakeTensorMode, luck: int, told: "Run | None" = None):
        super().__init__()
        self.told, training = told, told is not None  # the run in eval mode
        self.module, self.fakes, self.training, self.luck = module, fakes, training, luck
        self.chance = random.Random(luck)
        self.paths = {m: path for path, m in module.named_modules()}
        self.classes = {path: type(m).__name__ for m, path in self.paths.items()}
        self.places, self.entered, self.last = [], {}, ""  # paths: of those around, of all, of what called last
        self.inside = 0  # of how many modules, the outermost of which a rule reads as a whole
        self.calls: list[Call] = []
        self.rates: dict[tuple[str, str, int], float] = {}
        self.dropouts: dict[tuple[str, str, int], float] = {}  # of all calls
        self.counts: Counter = Counter()  # of calls that have a rate, by their paths and kinds
        self.changed: dict[str, str] = {}  # weight or buffer -> path of the module that changes it
        self.refused: list[Obstacle] = []
        self.asked, self.drew = 0, False
        self.kept: list = []  # so that no tensor gets the number of another
        self.names: dict[int, str] = {}  # tensor -> its name in the state dict
        self.memories: dict[int, str] = {}  # memory -> the same
        self.made: dict[int, int] = {}  # tensor -> what stands for all that it was computed from
        self.stamps: dict[int, int] = {}  # memory -> the same for what was last written to it
        self.fresh: dict[int, int | None] = {}  # tensor -> what had been written to its memory when it was made
        self.uniform: dict[int, torch.Tensor] = {}  # single random numbers, and what is computed from them
        self.outputs: list[tuple[Any, torch.Tensor]] = []

    def __call__(self, tensors: list[torch.Tensor]) -> None:
        """Run the module, and put back what that changes."""
        hooks = (
            torch_module.register_module_forward_pre_hook(self._enter),
            torch_module.register_module_forward_hook(self._leave, with_kwargs=True, always_call=True),
        )
        try:
            with untouched(self.module), replaced(masks=False), self.fakes, torch.set_grad_enabled(self.training):
                random.seed(self.luck)
                np.random.seed(self.luck)
                drawn = _drawn()
                named = dict(self.module.named_parameters()) | dict(self.module.named_buffers())
                for name, tensor in named.items():
                    fake = self._fake(tensor)
                    self.names[id(fake)] = self.memories[_memory(fake)] = name
                inputs = [x.clone() for x in tensors]
                self.made = {id(x): i for i, x in enumerate(inputs)}
                self.kept += inputs
                with self:
                    self.module.train(self.training)
                    outputs = self.module(*inputs)
                self.drew = drawn != _drawn()
                self.outputs = [(k, x) for k, x in tree_flatten_with_path(outputs)[0] if isinstance(x, torch.Tensor)]
                for name, tensor in self.module.named_buffers():  # another tensor may have been put in its place
                    if name in named and self.memories.get(_memory(self._fake(tensor))) != name:
                        self.changed.setdefault(name, name.rpartition(".")[0])
        finally:
            for hook in hooks:
                hook.remove()

    def _fake(self, x: torch.Tensor) -> torch.Tensor:
        """A tensor without numbers for one of the module: what is done to these alone would be computed."""
        if isinstance(x, FakeTensor):
            return x
        fake = self.fakes.from_tensor(x)
        self.kept.append(fake)
        if id(fake) not in self.names:
            self.made.setdefault(id(fake), hash(("constant", str(fake.dtype), tuple(fake.shape))))
        return fake

    def _enter(self, module, inputs) -> None:
        if self.inside:
            self.inside += 1
            return
        around = self.places[-1] if self.places else ""
        path = self.paths.get(module, f"{around}.{type(module).__name__}")
        self.classes.setdefault(path, type(module).__name__)
        self.places.append(path)
        self.entered[path] = None
        self.inside = int(known_class(module) is not None or rules.shown(type(module)))

    def _leave(self, module, inputs, *rest):
        *keywords, output = rest  # torch leaves the keywords out where forward has failed
        if self.inside > 1:
            self.inside -= 1
            return None
        with torch._C.DisableTorchFunction():
            if self.inside:
                given = _tensors((inputs, keywords))
                output = _its_own(output, given)
                self._record(type(module).__name__, "", given, _tensors(output), [])
        self.inside = 0
        self.places.pop()
        return output

    def __torch_function__(self, function, types, args=(), kwargs=None):
        args, kwargs = _mapped(self._fake, (args, kwargs or {}))
        name, given = _name(function), _tensors((args, kwargs))
        self.last = self.places[-1] if self.places else ""
        before = [x._version for x in given]
        try:
            result = function(*args, **kwargs)
        except DataDependentOutputException:
            if name not in (*TRUTH, *NUMBERS):
                raise
            return self._answer(function, name, args, kwargs, given)
        made = _tensors(result)
        changed = [x for x, version in zip(given, before, strict=True) if x._version != version]
        changed += given[:1] if function is torch.Tensor.data.__set__ else []
        if self.inside or not (made or changed):
            return result
        dropped = given[0] if changed and "dropout" in name else None
        if name == "batch_norm" or dropped is not None:  # the rules carry the former's statistics
            changed = []
        if self.memories.get(_memory(changed[0]) if changed else 0, "").endswith("num_batches_tracked"):
            return result
        if not changed:
            result = _its_own(result, given)
            made = _tensors(result)
        self._record(name, self._said(function, name, args, kwargs), given, made, changed)
        if dropped is not None:  # in place, in training alone: whoever reads it again reads another tensor
            self.made[id(dropped)] = hash(("dropped", self.made[id(made[0])]))
        self._follow(function, name, args, kwargs, given, result)
        return result

    def _record(self, name: str, arguments: str, given, made, changed) -> None:
        known = all(id(x) in self.made or id(x) in self.names for x in given)
        value = hash((name, arguments, *map(self.value, given)))
        self.made |= {id(x): hash((value, i)) for i, x in enumerate(made)}
        if name == COPY:
            self.made[id(made[0])] = self.made.get(id(given[0]), self.names.get(id(given[0]), ""))
        self.kept += made
        touched, writes = list(map(_memory, given)), list(map(_memory, changed))
        self.stamps |= dict.fromkeys(writes, value)
        self.fresh |= {id(x): self.stamps.get(_memory(x)) for x in made}
        for name_there in filter(None, map(self.memories.get, writes)):
            self.changed.setdefault(name_there, self.places[-1])
        ids = [id(x) for x in given], [id(x) for x in made]
        self.calls.append(Call(tuple(self.places), name, arguments, ids[0], touched, ids[1], writes, known, value))

    def value(self, x: torch.Tensor) -> int:
        """What stands for all that a tensor was computed from."""
        made, stamp = self.made.get(id(x), self.names.get(id(x), "")), self.stamps.get(_memory(x))
        return hash((made, stamp if stamp != self.fresh.get(id(x)) else None))

    def _said(self, function, name: str, args, kwargs) -> str:
        """The arguments of a call that must be the same in both modes; the flag of Dropout and its like is the mode."""
        args, kwargs = list(args), dict(kwargs)
        if "dropout" in name:
            rate = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
            self._follows(kwargs.get("training", kwargs.get("train", args[2] if len(args) > 2 else True)), rate)
            place = self.places[-1], "dropout", self.counts[self.places[-1], "dropout"]
            self.counts[place[:2]] += 1
            self.dropouts[place] = rate
            if self.told and rate and self.told.dropouts.get(place) == 0:  # p=self.p if self.training else 0.0
                self.rates[place] = float(rate)
                rate = self.told.dropouts[place]
            return str(float(rate))
        if name == "batch_norm":
            whole = function is torch.nn.functional.batch_norm
            statistics, weights = (args[1], [kwargs["weight"], kwargs["bias"]]) if whole else (args[3], args[1:3])
            flag, weights = kwargs.pop("training") if whole else args.pop(5), [w for w in weights if w is not None]
            trained = not weights or any(w.requires_grad for w in weights)  # else Keras has a layer for it
            if self.training and not flag and statistics is not None and trained:
                self._refuse("in training it goes on with its running statistics", "freeze its parameters as well")
        elif name in RECURRENT:
            rate = max(i for i, x in enumerate(args) if isinstance(x, float))
            self._follows(args.pop(rate + 1), args[rate])
        elif name == ATTENTION:
            self._attends(kwargs.pop("dropout_p", args.pop(4) if len(args) > 4 else 0.0))
        elif name == WHOLE:
            rate, flag = args.pop(10), kwargs.pop("training")
            self._attends(rate if flag else 0.0)
            self._follows(flag, rate)
        return self._plain((args, kwargs))

    def _follows(self, flag: bool, rate: float) -> None:
        if self.training and not flag and rate:
            self._refuse(f"in training its dropout of {rate} is not active", "leave it out, or set its rate to 0")

    def _attends(self, rate: float) -> None:
        path = self.places[-1]
        if rate:
            self.rates[path, ATTENTION, self.counts[path, ATTENTION]] = float(rate)
        self.counts[path, ATTENTION] += 1

    def _refuse(self, reason: str, remedy: str) -> None:
        path = self.places[-1]
        self.refused.append(Obstacle(path or "forward", self.classes[path], reason, remedy))

    def _plain(self, x) -> str:
        if isinstance(x, torch.Tensor):
            return self.names.get(id(x), "tensor")
        if isinstance(x, (list, tuple)):
            return f"({', '.join(map(self._plain, x))})"
        if isinstance(x, dict):
            return self._plain([item for item in sorted(x.items()) if item[1] is not None])
        if isinstance(x, slice):
            return self._plain((x.start, x.stop, x.step))
        return repr(x) if isinstance(x, PLAIN) else type(x).__name__

    def _luck(self, small, large):
        return {1: small, 2: large}.get(self.luck, self.chance.choice((small, large)))

    def _follow(self, function, name: str, args, kwargs, given, result) -> None:
        """Give a single number between 0 and 1 its luck, and compute with it, so that a chance of 0 is seen as such."""
        if not isinstance(result, torch.Tensor) or result.numel() != 1:
            return
        if name == "rand" or (given and all(id(x) in self.uniform for x in given)):
            with unset_fake_temporarily():
                if name == "rand":
                    self.uniform[id(result)] = torch.full(result.shape, self._luck(0.0, 1 - 1e-6), dtype=result.dtype)
                else:
                    self.uniform[id(result)] = self._really(function, args, kwargs)

    def _really(self, function, args, kwargs):
        args, kwargs = _mapped(lambda x: self.uniform[id(x)], (args, kwargs))
        return function(*args, **kwargs)

    def _answer(self, function, name: str, args, kwargs, given):
        self.asked += 1
        if self.asked > ASKED:
            raise RuntimeError("it asks for the numbers in tensors again and again")
        if all(id(x) in self.uniform for x in given):
            with unset_fake_temporarily():
                return self._really(function, args, kwargs)
        if name in TRUTH or given[0].dtype == torch.bool:
            return self._luck(True, False)
        if name in ("__int__", "__index__") or not (given[0].is_floating_point() or name == "__float__"):
            return self._luck(1, 2)
        return self._luck(1e-6, 1.0)

    def leading(self, outputs: list[torch.Tensor]) -> list[Call]:
        """The calls that lead to these outputs, in their order."""
        needed, memory = set(map(id, outputs)), set(map(_memory, outputs))
        every, found = any(id(x) not in self.made for x in outputs), []
        for call in reversed(self.calls):
            if every or not needed.isdisjoint(call.makes) or not memory.isdisjoint(call.writes):
                found.append(call)
                needed.update(call.reads)
                memory.update(call.touched)
                every = every or not call.known  # by way of what is not seen, such as a compiled function
        return found[::-1]


def _drawn() -> tuple:
    """The states of the random numbers of Python and NumPy."""
    state = np.random.get_state()
    return random.getstate(), state[1].tobytes(), state[2:]


def _mapped(function, x):
    """Apply a function to the tensors in the arguments of a call; quicker than torch's own."""
    if isinstance(x, torch.Tensor):
        return function(x)
    if type(x) in (list, tuple):
        return type(x)([_mapped(function, v) for v in x])
    if type(x) is dict:
        return {k: _mapped(function, v) for k, v in x.items()}
    return x if isinstance(x, PLAIN) else tree_map_only(torch.Tensor, function, x)


def _tensors(structure) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    _mapped(found.append, structure)
    return found


def _memory(x: torch.Tensor) -> int:
    return x.untyped_storage()._cdata


def _its_own(result, given):
    """Give a function a tensor of its own to return, where it returns what it was given: two uses would be one."""
    if not any(x is y for x in _tensors(result) for y in given):
        return result
    return _mapped(lambda x: torch.ops.aten.alias(x) if any(x is y for y in given) else x, result)


def _name(function) -> str:
    """What people call a function: `x.T` is a property, whose function is its `__get__`."""
    name = getattr(function, "__name__", str(function))
    return getattr(function.__self__, "__name__", name) if name in ("__get__", "__set__") else name
