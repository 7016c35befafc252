"""One file for each operator family, found by its name; nothing is registered and no list is kept.

Rules of the user's own (`bridge.rule`) are beside them.

A rule file imports no framework. It has

    OPERATORS   the neutral operators that it owns
    KERAS       class names of keras.layers (or "ops.name" of keras.ops, "model.name" of a rule's MODELS) that it reads
    TORCH       ATen operators ("conv2d"), torch.nn classes ("nn.Softsign"), those of other packages by their full name
                or, of any package, as "*.name", and names of its own HELPERS that it reads
    LAYOUT      how its axes follow the layout (a function of bridge.layout)

and, where they apply,

    HELPERS       class name -> source of what torch lacks, written into model.py once
    MODELS        name -> function of tensors and options, in keras.ops, that makes a small model of what Keras lacks;
                  `options(name, model)` yields those with which a model that is read may have been made
    WRAPPERS      those of its HELPERS that hold one layer: `arguments["layer"]` is what that layer does
    SEVERAL       those of its HELPERS that return several tensors; its outputs are those that are read
    WEIGHTS       Keras name -> (torch name, einops pattern from Keras' axes to torch's)
    STATISTICS    weights that no one trains
    BUFFERS       other weights that no one trains, which torch holds in buffers
    IDLE          weights of its Keras layer that it does not compute with
    RANDOM        entries of the Keras configuration that make two calls on the same input differ, unless they are 0
    CONSTANTS     operators that make the same whatever they read, so that each of their readers may take them in
    COMMUTATIVE   operators whose inputs may change places without changing a bit of the result
    EXACT         True: with the attribute `exact`, torch's side is a helper that trains as Keras does
    MIXED         True: in torch its weights may be of another dtype than its input, as under a mixed policy
    FUSES         True: its Keras layer has an `activation`
    OVERWRITABLE  True: in torch a ReLU or a sum may overwrite its output, as autograd does not need it
    ABSORBS       operator -> the value that its own padding has, so that padding before it is taken in
    OPERANDS      True: a weight may stand for any of the tensors of its ATen operators
    FLOWS         arguments of its ATen operators that are tensors which flow even where they are weights
    LIMIT         relative precision that float64 reaches where a framework computes in less; or a function of the node
    DOUBLE        Keras class -> function(layer, x) that does its work in float64 where TensorFlow has no kernel for it
    PASSED        Keras classes that change something in training alone, which is left out of torch, with a note
    REFUSED       Keras classes that it refuses, whatever their dtypes
    CASTS         Keras classes that make floats of whole numbers
    ARGUMENTS     what its Keras layers may be called with beside their inputs ("mask"), to be found by these names in
                  `KerasLayer.arguments`; where one is there, the rule sets `Node.inputs` itself
    SHOWN         those of its HELPERS that torch.export is shown in other words (`bridge.torch_recurrent`)
    FREEZES       attributes of its Keras layer that hold arrays which it computes with, and no variable says
    PASSING       torch class -> its attribute with the rate, where it returns its input itself in eval mode
    AUTOCAST      "lower": under torch.autocast it computes in the lower precision, "as given": in that of its input
    HOLDS         True: its ATen operators hold their weights even where these flow elsewhere, too
    AMONG         function of a node and the graph's parameters: numbers that show what it does, to be compared with
    READS         function of a node: how many of its inputs it reads; of the others it takes sizes alone
    BELOW         function of a node whose input must be whole numbers below what it returns
    arranged(node) -> Node                          the node with the inputs that its Keras side reads
    ordered(node) -> list[str]                      the roles of its parameters as its Keras layer's weights are ordered
    trimmed(node, read) -> Node                     the node without the outputs that nothing reads
    scaled(kernel, scale) -> array                  its kernel with each output channel multiplied (`bridge.fold`)
    holding(node, parameter) -> Node                the node that holds the weight which is its second input
    merge(node, reader) -> Node | None              the one node that does the work of its node and its only reader
    normal(node) -> Node                            the node in the one way in which that is said

and, for the names that it has,

    read_keras(layer: KerasLayer) -> list[Node]       write_keras(node: Node) -> list[KerasCall]
    read_torch(call: TorchOperation) -> list[Node]    write_torch(node: Node) -> TorchCall
"""

import functools
import importlib
import inspect
import pkgutil
import re
import textwrap
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from einops import rearrange

from bridge.graph import Parameter, Unsupported, Value


@dataclass
class KerasLayer:
    """A layer at one place in a Keras model, as plain data.

    `weights` maps the layer's own name of a weight ("kernel") to its name in `Graph.parameters`, which `parameters` is.
    `arguments` is what a layer is called with beside its inputs, and every argument, by its name, of a function of
    keras.ops. `operation` is the layer itself, for what neither its configuration nor its weights say. `notes` is the
    graph's, and `ones` the names of values that are ones and nothing else.
    """

    path: str
    class_name: str
    config: dict[str, Any]
    inputs: list[Value]
    outputs: list[Value]
    weights: dict[str, str] = field(default_factory=dict)
    trainable: bool = True
    arguments: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Parameter] = field(default_factory=dict)
    operation: Any = None
    notes: list[str] = field(default_factory=list)
    ones: set[str] = field(default_factory=set)

    @property
    def rank(self) -> int:
        return self.inputs[0].rank

    @property
    def axis(self) -> int:
        """The channel axis that the layer's `data_format` says."""
        return 1 if self.config.get("data_format") == "channels_first" else self.rank - 1

    def constant(self, role: str, value: np.ndarray) -> str:
        """Put an array that is no weight of the layer into the graph, and return its name there."""
        array, name, n = np.asarray(value), f"{self.path}.{role}", 1
        while name in self.parameters and not np.array_equal(self.parameters[name].value, array, equal_nan=True):
            n += 1
            name = f"{self.path}.{role}_{n}"
        self.parameters.setdefault(name, Parameter(array, trainable=False))
        return name

    def rearrange(self, role: str, pattern: str, **sizes: int) -> None:
        """Hold a weight with other axes than the layer has them, as an einops pattern says."""
        parameter = self.parameters[self.weights[role]]
        if not parameter.pattern:  # else it is shared and has been seen
            parameter.value = rearrange(parameter.value, pattern, **_used(pattern.split("->")[0], sizes))
        if parameter.pattern not in ("", pattern):
            raise Unsupported(f"its {role} is shared by layers that want its axes in different orders")
        parameter.pattern = pattern


@dataclass
class KerasCall:
    """A Keras layer to be made and called: `keras.layers.<layer>(**config)`.

    `layer` may be a class of the user's own; "ops.name": the function `keras.ops.name(*leading, *inputs, *trailing,
    **config)`; or "model.name": a model of the rule's MODELS. `suffix` names what a node needs beside its own layer
    ("_pad"). A layer with weights takes them from the node's parameters by name; `constants` puts one into the
    configuration: entry -> (name of the parameter, einops pattern from its axes). With `first` it takes the node's
    first input alone, and what comes next the others as they are. Its last inputs go by `names`; those of a name that
    ends in "[]" are one list.
    """

    layer: str | type
    config: dict[str, Any] = field(default_factory=dict)
    suffix: str = ""
    weights: bool = False
    constants: dict[str, tuple[str, str]] = field(default_factory=dict)
    leading: tuple = ()
    trailing: tuple = ()
    first: bool = False
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Size:
    """A size that is known at run time alone, or what is computed from such sizes, as an expression of symbols."""

    symbol: str


@dataclass
class TorchOperation:
    """An ATen call, or a whole module of a known class, as plain data.

    `target` is the ATen name ("conv2d") or the class; `arguments` holds every argument by the name of its
    schema (for a module: its attributes). Tensors that flow are `Value`s, weights are torch's own names in
    `state`, and `weights()` turns them into parameters of the graph. `sizes` says of which value's which axis an open
    size is, by the symbol that `Value.symbols` has for it, and `rows` has as many ones as it says, by symbol and dtype.
    `ones` is the names of values that are ones and nothing else.
    """

    path: str
    target: str
    arguments: dict[str, Any]
    inputs: list[Value]
    outputs: list[Value]
    state: dict[str, tuple[str, np.ndarray, bool]]  # argument -> (name in the state dict, array, trainable)
    parameters: dict[str, Parameter]  # the graph's own
    sizes: dict[str, tuple[Value, int]] = field(default_factory=dict)
    rows: dict[tuple[str, str], Value] = field(default_factory=dict)
    ones: set[str] = field(default_factory=set)

    def __getitem__(self, argument: str):
        return self.arguments[argument]

    def numbers(self, argument: str, length: int) -> tuple:
        """An argument that torch accepts as one number or several, as several."""
        value = self.arguments[argument]
        value = value if isinstance(value, (list, tuple)) else [value]
        return tuple(value) * length if len(value) == 1 else tuple(value)

    def weights(self, table: dict[str, tuple[str, str]], **sizes: int) -> dict[str, str]:
        """Put the weights of a rule's table into the graph, in Keras' axes, and return their names."""
        found = {}
        for role, (argument, pattern) in table.items():
            if argument not in self.state and self.arguments.get(argument) is not None:
                raise Unsupported(f"its {argument} is computed by the module, not stored", "store it as a parameter")
            if argument in self.state:
                name, array, trainable = self.state[argument]
                value = to_keras_axes(array, pattern, **sizes)
                kept = self.parameters.setdefault(name, Parameter(value, trainable)).value
                if kept.shape != value.shape or kept.strides != value.strides:
                    raise Unsupported(f"{name} is shared by operators that want its axes in different orders")
                found[role] = name
        return found


@dataclass
class TorchCall:
    """A torch submodule and the expression that calls it; either may stand alone.

    In `expression`, `{self}` is the submodule and `{0}`, `{1}`, `{all}` are the inputs. `weights` is the part of
    the rule's table that applies (its name in torch is "" where the submodule is itself a parameter or buffer; with
    several names each has a row of it), `state` what else belongs in the state dict, `setup` statements that follow the
    constructor, `helpers` the helper classes in use, `overwriting` the same call where its first input may go.
    """

    expression: str
    constructor: str = ""
    weights: dict[str, tuple[str | tuple[str, ...], str]] = field(default_factory=dict)
    state: dict[str, np.ndarray] = field(default_factory=dict)
    setup: tuple[str, ...] = ()
    helpers: tuple[str, ...] = ()
    overwriting: "TorchCall | None" = None


def to_torch_axes(array: np.ndarray, pattern: str, **sizes: int) -> np.ndarray:
    """Rearrange a Keras array as its pattern says."""
    return _rearranged(array, *pattern.split("->"), sizes)


def to_keras_axes(array: np.ndarray, pattern: str, **sizes: int) -> np.ndarray:
    """Rearrange a torch array the other way: the inverse is the pattern read backwards."""
    return _rearranged(array, *pattern.split("->")[::-1], sizes)


def _rearranged(array: np.ndarray, left: str, right: str, sizes: dict[str, int]) -> np.ndarray:
    """What einops does, and more: `(z+r+h)` is an axis of equal parts, which `(r+z+h)` has in another order."""
    old, new = (next((t for t in side.split() if "+" in t), "") for side in (left, right))
    if old:
        parts = np.split(array, old.count("+") + 1, left.split().index(old))
        names = old.strip("()").split("+")
        array = np.concatenate([parts[names.index(n)] for n in new.strip("()").split("+")], left.split().index(old))
        left, right = left.replace(old, "parts"), right.replace(new, "parts")
    return rearrange(array, f"{left} -> {right}", **_used(left, sizes))


SUM, ROWS = " + ", " & "  # in the name of a weight of Keras: what it is made of in torch


def tensors(name: str) -> list[str]:
    """The names of torch's tensors that a parameter of a graph is, is the sum of, has as its rows, or is a part of."""
    return re.split(r" [+&] ", name.partition("[")[0])


def _used(side: str, sizes: dict[str, int]) -> dict[str, int]:
    names = side.replace("(", " ").replace(")", " ").split()
    return {k: v for k, v in sizes.items() if k in names}


def literal(value) -> str:
    """Python source of a plain value: numbers, strings and tuples; nothing else can reach generated source."""
    if isinstance(value, (bool, type(None), str)):
        return repr(value)
    if isinstance(value, (int, np.integer)):
        return repr(int(value))
    if isinstance(value, (float, np.floating)):
        return repr(float(value)) if np.isfinite(value) else f'float("{float(value)}")'
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(literal, value))}{',' if len(value) == 1 else ''})"
    raise TypeError(f"{type(value).__name__} cannot be written as source")


def call_source(function: str, *positional, **named) -> str:
    """Source of a call, such as `nn.Conv2d(3, 8, 3, stride=2)`."""
    return f"{function}({', '.join([*map(literal, positional), *(f'{k}={literal(v)}' for k, v in named.items())])})"


def single(values: tuple):
    """One number where all are the same, as people write it: `3` for `(3, 3)`."""
    return values[0] if len(set(values)) == 1 else tuple(values)


OWN: dict[str, ModuleType] = {}  # the user's rules, which `bridge.rule` puts here, by their full names


@functools.cache
def families() -> dict[str, ModuleType]:
    """Map the file names of this folder, and the full names of the user's rules, to the rules."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    return {name: importlib.import_module(f"{__name__}.{name}") for name in names} | OWN


def changed() -> None:
    """Forget what is known of the rules: the user's own are others now."""
    for known in (families, _index, helper_source):
        known.cache_clear()


def class_name(kind: type) -> str:
    """The name by which rules know a class: "Dense" of Keras, "nn.Linear" of torch, "package.module:Gate" of others."""
    home = kind.__module__.split(".")
    if home[0] == "keras":
        return kind.__name__
    return f"nn.{kind.__name__}" if home[:2] == ["torch", "nn"] else f"{kind.__module__}:{kind.__qualname__}"


@functools.cache
def _index(attribute: str) -> dict[str, ModuleType]:
    return {key: rule for rule in families().values() for key in getattr(rule, attribute, ())}


def for_operator(operator: str) -> ModuleType:
    """Return the rule file that owns a neutral operator."""
    return _index("OPERATORS")[operator]


def for_keras(class_name: str) -> ModuleType | None:
    """Return the rule file that reads a Keras layer, if there is one."""
    return _index("KERAS").get(class_name)


def for_torch(target: str) -> ModuleType | None:
    """Return the rule file that reads an ATen operator or a class of modules, if there is one."""
    return _index("TORCH").get(target)


def passed() -> dict[str, ModuleType]:
    """Map the Keras classes that change something in training alone, and are left out, to their rule files."""
    return _index("PASSED")


def models() -> dict[str, ModuleType]:
    """Map the names of the models that stand for what Keras lacks to their rule files."""
    return _index("MODELS")


def helper_names() -> set[str]:
    """Return the names of all helper classes."""
    return set(_index("HELPERS"))


def is_helper(kind: type, rule: ModuleType | None) -> bool:
    """Tell whether a class is one of a rule's helpers, with our very source."""
    if kind.__name__ not in getattr(rule, "HELPERS", {}):
        return False
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):
        return False
    return source.strip() == helper_source(kind.__name__).strip()


def shown(kind: type) -> bool:
    """Tell whether a class is a helper that torch.export is shown in other words."""
    return is_helper(kind, _index("SHOWN").get(kind.__name__))


def shown_as(kind: type) -> str:
    """The name, after `bridge::`, of that operator: the one of its rule."""
    return _index("SHOWN")[kind.__name__].OPERATORS[0]


@functools.cache
def helper_source(name: str) -> str:
    """Return the source of a helper class that generated modules carry."""
    return textwrap.dedent(_index("HELPERS")[name].HELPERS[name]).strip() + "\n"
