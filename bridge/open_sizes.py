"""Open sizes in a `call` that is traced: ops.shape(x)[0] as a number that is not there.

Keras says None for a size that is not known, which no one can compute with; on TensorFlow a layer's `call` gets a
number without axes there, and makes shapes of it. Here it gets a `Size`. The functions that take shapes are looked at
while a trace lasts: one that is given such a size is recorded as an operation that works out the number from a tensor
that has it. The rules read that as they read the same function of torch, whose sizes are open in the same way.
"""

import contextlib
import functools
import inspect
import operator
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.ops.function import Function

from bridge import expressions
from bridge.fixed_noise import in_keras
from bridge.graph import Unsupported
from bridge.torch_writer import GENERATED

# sizes that stand for the open ones when a shape is worked out twice; the second kind where the first is too small
PRIMES = (
    ((11, 13, 17, 19, 23, 29, 31), (37, 41, 43, 47, 53, 59, 61)),
    ((131, 137, 139, 149, 151, 157, 163), (167, 173, 179, 181, 191, 193, 197)),
)
# function of keras.ops -> by its own arguments, the ATen operator that does the same and that one's
FUNCTIONS: dict[str, Callable[..., tuple[str, dict[str, Any]]]] = {
    "reshape": lambda x, newshape: ("view", {"self": x}),
    "broadcast_to": lambda x, shape: ("expand", {"self": x, "size": shape}),
    "zeros": lambda shape, dtype=None: ("zeros", {}),
    "ones": lambda shape, dtype=None: ("ones", {}),
    "full": lambda shape, fill_value, dtype=None: ("full", {"fill_value": fill_value}),
    "tile": lambda x, repeats: ("repeat", {"self": x, "repeats": repeats}),
    "repeat": lambda x, repeats, axis=None: ("repeat", {"self": x, "repeats": _along(x, repeats, axis)}),
    "arange": lambda start, stop=None, step=1, dtype=None: (
        "arange",
        {"start": 0 if stop is None else start, "end": start if stop is None else stop, "step": step},
    ),
    "normal": lambda shape, mean=0.0, stddev=1.0, dtype=None, seed=None: (
        "bridge::normal",
        {"numbers": _plain(mean, stddev)},
    ),
    "uniform": lambda shape, minval=0.0, maxval=1.0, dtype=None, seed=None: (
        "bridge::uniform",
        {"numbers": _plain(minval, maxval)},
    ),
    "cut": lambda x, axis, start, stop, step: (
        "slice",
        {"self": x, "dim": axis, "start": start, "end": stop, "step": step},
    ),
}

DRAWN = ("normal", "uniform")  # of keras.random: they are recorded whatever the shape

REPEATING = ("broadcast_to", "tile", "repeat")
MAKING = ("zeros", "ones", "full", *DRAWN)  # floats, unless they are told otherwise


class Size(keras.KerasTensor):
    """An open size, or what is computed of such sizes: a tensor without axes, and a `text` in the names of sizes."""

    text: str

    def _computed(self, other, name: str, text: str):
        made = getattr(keras.KerasTensor, name)(self, other)
        if isinstance(other, Size) or (isinstance(other, int) and not isinstance(other, bool)):
            made.__class__, made.text = Size, text.format(f"({self.text})", f"({_text(other)})")
        return made


for _name, _sign in (("add", "+"), ("sub", "-"), ("mul", "*"), ("floordiv", "//")):
    for _prefix, _form in (("__", f"{{0}} {_sign} {{1}}"), ("__r", f"{{1}} {_sign} {{0}}")):
        _method = f"{_prefix}{_name}__"
        setattr(Size, _method, lambda self, other, n=_method, t=_form: self._computed(other, n, t))


def _text(size) -> str:
    return size.text if isinstance(size, Size) else str(size)


def _plain(*numbers) -> tuple[float, ...]:
    if not all(isinstance(n, int | float) for n in numbers):
        raise Unsupported("it draws numbers of which a tensor says how large", "draw standard ones, and multiply them")
    return tuple(map(float, numbers))


def _along(x, repeats, axis) -> list:
    if axis is None or x.shape[axis] != 1:
        raise Unsupported("it repeats cells as often as an open size says", "repeat an axis of size 1, or tile")
    return [repeats if a == axis % len(x.shape) else 1 for a in range(len(x.shape))]


class SizeOf(keras.Operation):
    """The size of an axis of a tensor, as a number."""

    def __init__(self, axis: int):
        super().__init__()
        self.axis = axis

    def call(self, x):
        return keras.ops.convert_to_tensor(keras.ops.shape(x)[self.axis], "int32")

    def compute_output_spec(self, x):
        return keras.KerasTensor((), "int32")


class Sized(keras.Operation):
    """A function of keras.ops that is given open sizes, which it reads off tensors.

    Args:
        name: Of the function, in `FUNCTIONS`.
        function: It.
        arguments: Its own, in which `Tensor`s and `Open`s stand for tensors and open sizes.
        keywords: The same, by name.
        sizes: Name of an open size -> (number of a tensor, axis).
        symbols: The shape of each tensor with names for open sizes.
    """

    def __init__(self, name, function, arguments, keywords, sizes, symbols):
        super().__init__()
        self.kind, self.function, self.arguments, self.keywords = name, function, arguments, keywords
        self.sizes, self.symbols, self.made = sizes, symbols, ()

    def given(self, tensors, numbers: dict[str, Any]):
        """The arguments of the function for tensors, or for what stands for them."""

        def place(x):
            return tensors[x.number] if isinstance(x, Tensor) else numbers[x.text] if isinstance(x, Open) else x

        return keras.tree.map_structure(place, (self.arguments, self.keywords))

    def _run(self, tensors):
        names = {name: int(keras.ops.shape(tensors[i])[axis]) for name, (i, axis) in self.sizes.items()}
        numbers = {n.text: expressions.evaluate(n.text, names) for n in openings(self)}
        arguments, keywords = self.given(tensors, numbers)
        given = inspect.signature(self.function).bind(*arguments, **keywords).arguments
        double = self.kind in MAKING and any(x.dtype == "float64" for x in tensors)  # in a twin of the network
        if double and "float" in str(given.get("dtype") or "float"):
            given["dtype"] = "float64"
        return self.function(**given)

    def call(self, *tensors):
        return self._run(tensors)

    def compute_output_spec(self, *tensors):
        trials = [[_closed(x, s, at) for x, s in zip(tensors, self.symbols, strict=True)] for at in (0, 1)]
        with in_keras():  # no state of the layer's own goes on
            made = list(map(self._run, trials))
        shape = tuple(a if a == b else None for a, b in zip(*(x.shape for x in made), strict=True))
        return keras.KerasTensor(shape, keras.backend.standardize_dtype(made[0].dtype))


@dataclass(frozen=True)
class Tensor:
    """The place of a tensor among the arguments of a function."""

    number: int


@dataclass(frozen=True)
class Open:
    """The place of an open size there."""

    text: str


def openings(sized: Sized) -> list[Open]:
    """The open sizes that a function is given."""
    return [x for x in keras.tree.flatten((sized.arguments, sized.keywords)) if isinstance(x, Open)]


def _closed(x, symbols: tuple, at: int):
    """A tensor that is not there with numbers for its open sizes."""
    if None not in x.shape:
        return x
    return keras.KerasTensor([_number(n, at) for n in symbols], x.dtype)


def _number(symbol: int | str, at: int, kind: int = 0) -> int:
    """A number for an open size; equal ones have the same."""
    if isinstance(symbol, int):
        return symbol
    primes = PRIMES[kind][at]
    names = {n: primes[int(n[1:]) % len(primes)] for n in expressions.symbols(symbol)}
    return int(expressions.evaluate(symbol, names))


class Constants:
    """Arrays that a `call` repeats as often as an open size says: they are held as weights that nothing trains."""

    def __init__(self):
        self.arrays: list[np.ndarray] = []
        self.places: list[keras.KerasTensor] = []

    def place(self, x) -> keras.KerasTensor:
        """What stands for an array; the same for the same."""
        if isinstance(x, keras.Variable):
            raise Unsupported("it repeats a variable that is not its own", "give it to the layer as an attribute")
        array = np.asarray(keras.ops.convert_to_tensor(x))  # a number of Python's is a float32 or int32 in Keras
        dtype = array.dtype.name
        held = array if "float" in dtype else array.astype("float32")
        if not np.array_equal(held.astype(dtype), array):
            raise Unsupported(f"it repeats {dtype} as often as an open size says, beyond float32", "make it floats")
        at = next((i for i, a in enumerate(self.arrays) if a.dtype == held.dtype and np.array_equal(a, held)), None)
        if at is None:
            at = len(self.arrays)
            self.arrays.append(held)
            self.places.append(keras.Input(batch_shape=held.shape, dtype=held.dtype.name))
        return self.places[at] if held is array else keras.ops.cast(self.places[at], dtype)

    def variables(self) -> list[keras.Variable]:
        return [keras.Variable(a, trainable=False, dtype=a.dtype.name, name="constant") for a in self.arrays]


class Sizes:
    """The open sizes of one trace.

    Args:
        tensors: The tensors that are not there, of which all others are made.
        alike: Pairs of them: the second has the first axes of the first, as a mask has.
        constants: What is repeated and is no tensor of these.
    """

    def __init__(self, tensors: list, alike: list[tuple], constants: Constants):
        self.tensors, self.constants, self.names, self.alive = tensors, constants, {}, []
        self.known: dict[int, tuple] = {}  # id of a tensor -> its shape with names for the open sizes
        model = {id(other): x for x, other in alike}
        for x in tensors:
            same = [n if isinstance(n, str) else None for n in self.known.get(id(model.get(id(x))), ())]
            same += [None] * (len(x.shape) - len(same))
            self._learn(x, ["s0" if axis == 0 else n for axis, n in enumerate(same[: len(x.shape)])])

    def _learn(self, x, symbols) -> tuple:
        """Name the open sizes of a tensor, those without a name yet by a new one."""
        made = []
        for axis, (n, symbol) in enumerate(zip(x.shape, symbols, strict=True)):
            symbol = n if n is not None else symbol or f"s{len(self.names) + 1}"
            if isinstance(symbol, str) and symbol.isidentifier():
                self.names.setdefault(symbol, (x, axis))
            made.append(symbol)
        self.alive.append(x)
        self.known[id(x)] = tuple(made)
        return self.known[id(x)]

    def symbols(self, x, texts: tuple[str, ...] = ()) -> tuple:
        """The shape of a tensor with names for its open sizes: the same for the same, as two trials say.

        `texts` are what open sizes of it may be, beside those that are known.
        """
        if id(x) not in self.known:
            found = [None] * len(x.shape)
            for kind in range(len(PRIMES)) if None in x.shape else ():
                with contextlib.suppress(Exception):  # Keras raises many classes where a shape is too small
                    pairs = list(zip(*(self._tried(x, at, kind).shape for at in (0, 1)), strict=True))
                    found = [self._named(pair, kind, texts) for pair in pairs]
                    break
            self._learn(x, found)
        return self.known[id(x)]

    def _tried(self, x, at: int, kind: int):
        given = [keras.KerasTensor([_number(n, at, kind) for n in self.known[id(t)]], t.dtype) for t in self.tensors]
        constants = self.constants.places
        return Function([*self.tensors, *constants], x).compute_output_spec([*given, *constants])

    def _named(self, pair: tuple[int, int], kind: int, texts: tuple[str, ...]) -> int | str | None:
        """What two trials have shown: a number, or so many times an open size or a product of two or three."""
        if pair[0] == pair[1]:
            return pair[0]
        products = ("*".join(names) for n in (2, 3) for names in combinations_with_replacement(self.names, n))
        for text in [*self.names, *products, *texts]:
            one, two = (_number(text, at, kind) for at in (0, 1))
            if pair[0] % one == pair[1] % two == 0 and pair[0] // one == pair[1] // two:
                return text if pair[0] == one else f"{pair[0] // one}*({text})"
        return None

    def shape(self, x) -> tuple:
        """The shape of a tensor as ops.shape says it."""
        symbols = self.symbols(x)
        pairs = enumerate(zip(x.shape, symbols, strict=True))
        return tuple(self._size(x, axis, s) if n is None else n for axis, (n, s) in pairs)

    def _size(self, x, axis: int, symbol: str) -> Size:
        made = SizeOf(axis).symbolic_call(x)
        made.__class__, made.text = Size, symbol
        return made

    def record(self, name: str, function: Callable, arguments, keywords):
        """Call a function that is given open sizes."""
        tensors: list = []

        def place(x):
            if isinstance(x, Size):
                return Open(x.text)
            if not isinstance(x, keras.KerasTensor):
                return x
            tensors.append(x)
            return Tensor(len(tensors) - 1)

        arguments, keywords = keras.tree.map_structure(place, (arguments, keywords))
        tensors = tensors or [self.tensors[0]] * (name in DRAWN)
        own = [self.symbols(x) for x in tensors]
        texts = [x.text for x in keras.tree.flatten((arguments, keywords)) if isinstance(x, Open)]
        sizes = {}
        for symbol in sorted(frozenset().union(*map(expressions.symbols, texts))):
            at = next(((i, s.index(symbol)) for i, s in enumerate(own) if symbol in s), None)
            if at is None:  # none of its tensors has that size: another is read for it
                x, axis = self.names[symbol]
                tensors.append(x)
                own.append(self.symbols(x))
                at = len(tensors) - 1, axis
            sizes[symbol] = at
        operation = Sized(name, function, arguments, keywords, sizes, own)
        made = operation.symbolic_call(*tensors)
        if name == "reshape":
            asked = inspect.signature(function).bind(*arguments, **keywords).arguments["newshape"]
            if not any(n == -1 for n in asked):  # what was asked for is what there is
                self._learn(made, [n.text if isinstance(n, Open) else None for n in asked])
        parts = [f"({n}) - ({text})" for n in own[0] for text in texts] if name == "cut" else []
        operation.made = self.symbols(made, (*texts, *parts))
        return made

    def cut(self, x, key):
        """x[key], where bounds of slices are open sizes."""
        items = list(key) if isinstance(key, tuple) else [key]
        if Ellipsis in items:
            at = items.index(Ellipsis)
            items[at : at + 1] = [slice(None)] * (len(x.shape) - (len(items) - 1 - items.count(None)))
        axis, left = 0, []
        for item in items:
            part = item if isinstance(item, slice) else None
            if any(isinstance(n, Size) for n in (_bounds(item))):
                start, stop = (part.start, part.stop) if part else (item, item + 1)
                x = self.record("cut", _cut, (x, axis, start, stop, (part and part.step) or 1), {})
                item = slice(None) if part else 0
            left.append(item)
            axis += item is not None
        return x if all(item == slice(None) for item in left) else operator.getitem(x, tuple(left))


def _bounds(item) -> tuple:
    return (item.start, item.stop, item.step) if isinstance(item, slice) else (item,)


def _cut(x, axis: int, start, stop, step):
    """A part of one axis."""
    return x[(*(slice(None),) * axis, slice(start, stop, step))]


@contextlib.contextmanager
def followed(sizes: Sizes) -> Iterator[None]:
    """Let the functions of keras.ops that make sizes, and take them, know of open ones."""
    functions = {name: getattr(keras.ops, name) for name in ("shape", *FUNCTIONS) if hasattr(keras.ops, name)}
    functions |= {name: getattr(keras.random, name) for name in DRAWN}
    own_item = keras.KerasTensor.__getitem__

    def shape(x):
        return sizes.shape(x) if isinstance(x, keras.KerasTensor) else functions["shape"](x)

    def looking(name, function):
        def call(*arguments, **keywords):
            opened = any(isinstance(x, Size) for x in keras.tree.flatten((arguments, keywords)))
            opened = opened or (
                name in DRAWN and tf.executing_eagerly()
            )  # else Keras asks a layer inside for its shapes
            if opened and name in REPEATING:  # what is repeated may be there
                given = inspect.signature(function).bind(*arguments, **keywords).arguments
                x = given["x"] if isinstance(given["x"], keras.KerasTensor) else sizes.constants.place(given["x"])
                arguments, keywords = (), given | {"x": x}
            return sizes.record(name, function, arguments, keywords) if opened else function(*arguments, **keywords)

        return call

    def item(x, key):
        parts = key if isinstance(key, tuple) else (key,)
        opened = any(isinstance(n, Size) for part in parts for n in _bounds(part))
        return (
            sizes.cut(x, key) if opened else own_item(x, parts if key is None else key)
        )  # of x[None] Keras knows nothing

    others = {id(f): shape if name == "shape" else looking(name, f) for name, f in functions.items()}
    with replaced(others):
        keras.KerasTensor.__getitem__ = item
        try:
            yield
        finally:
            keras.KerasTensor.__getitem__ = own_item


@contextlib.contextmanager
def replaced(others: dict[int, Callable]) -> Iterator[None]:
    """Put functions in the place of others, by the id of these, under every name that a module has for them."""
    places = _places(frozenset(others), tuple(name for name in sys.modules if not name.startswith(GENERATED)))
    places = [(names, name, value) for names, name, value in places if names.get(name) is value]
    try:
        for namespace, name, value in places:
            namespace[name] = others[id(value)]
        yield
    finally:
        for namespace, name, value in places:
            namespace[name] = value


@functools.lru_cache(4)
def _places(wanted: frozenset[int], modules: tuple[str, ...]) -> list[tuple[dict, str, Callable]]:
    """Where the functions of these ids are found, for as long as there are these modules."""
    namespaces = [x for name in modules if isinstance(x := getattr(sys.modules[name], "__dict__", None), dict)]
    return [(names, k, v) for names in namespaces for k, v in list(names.items()) if id(v) in wanted and callable(v)]
