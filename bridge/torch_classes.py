"""The classes of generated source: one for the network, and one for each model inside it.

A nested model is the nodes between the values that enter it and those that leave it, however its own inputs and outputs
were named. Called a second time it is the same class, if the same code does the work; where another size or layout
asks for other code, that call is written out in the forward of the network around it, with the same submodules.
"""

import ast
import keyword
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np

from bridge import rules
from bridge.graph import Graph, Node, Obstacle, Unsupported, Value, flatten, map_structure
from bridge.tensors import owned


def identifier(name: str, taken: set[str], fallback: str = "layer") -> str:
    """Turn any text into a new Python identifier that shadows nothing; `taken` is extended.

    Names come from files of strangers: only ASCII letters, digits and underscores pass, at most 64 of them.
    """
    text = re.sub(r"[^0-9A-Za-z_]+", "_", name).strip("_")[:64] or fallback
    text = f"{fallback}_{text}" if text[0].isdigit() else text
    import torch

    reserved = {"F", "nn", "torch", "self", "load", "Path", "INPUTS"}
    if keyword.iskeyword(text) or text in reserved or hasattr(torch.nn.ModuleDict(), text):
        text += "_"
    unique, n = text, 2
    while unique in taken:
        unique, n = f"{text}_{n}", n + 1
    taken.add(unique)
    return unique


def _key(part: str, taken: set[str]) -> str:
    """What a part of a name becomes in its container: a number stays one, as in nn.Sequential."""
    if part == "self" and part not in taken:  # which is no name of a variable, but of an attribute
        taken.add(part)
        return part
    return (
        part if part.isdecimal() and part.isascii() and len(part) < 9 and part not in taken else identifier(part, taken)
    )


def access(way: tuple[str, ...]) -> str:
    """Source of the way to a module: `.layer1["0"].conv`."""
    return "".join(f'["{key}"]' if key.isdigit() else f".{key}" for key in way)


def class_name(name: str) -> str:
    """Turn a model's name into the name of a class."""
    words = re.sub(r"[^0-9A-Za-z]+", " ", name).title().replace(" ", "")[:64]
    taken = keyword.iskeyword(words) or words in {"F", "Path"} or words in rules.helper_names()
    return words if words and words[0].isalpha() and not taken else f"Model{words}"


@dataclass
class TorchClass:
    """One class: where its instance stands in the network, what its constructor makes, and its forward."""

    name: str
    path: str = ""  # of the Keras model, and before the names of its layers
    place: str = ""  # of the instance in the network, ending in a dot
    attribute: str = ""  # the last part of that
    statements: list[str] = field(default_factory=list)  # of the constructor
    places: dict[tuple[str, ...], dict[str, str]] = field(
        default_factory=dict
    )  # container -> part of a name -> its key
    modules: dict[tuple, str] = field(default_factory=dict)  # what makes two nodes one module -> the way to it
    children: dict[str, "TorchClass"] = field(default_factory=dict)  # path -> a nested model's
    forward: str = ""

    def source(self) -> str:
        """The class statement."""
        body = "".join(f"        {line}\n" for line in ["super().__init__()", *self.statements])
        base = "nn.ModuleDict" if any(key.isdigit() for key in self.places.get((), {}).values()) else "nn.Module"
        return f"\n\nclass {self.name}({base}):\n    def __init__(self):\n{body}\n{self.forward}"

    def put(self, name: str, tensor: bool = False) -> tuple[str, ...]:
        """Find a new place for a module, as its name says: "layer1.0.conv" is in a container in a container.

        A tensor is an attribute, which has no number for its name.
        """
        *outer, last = [part for part in name.split(".") if part] or [name]
        way: tuple[str, ...] = ()
        for part in outer:
            inside = self.places.setdefault(way, {})
            if f"{part}." not in inside:
                inside[f"{part}."] = _key(part, set(inside.values()))
                self.statements.append(f"self{access((*way, inside[f'{part}.']))} = nn.ModuleDict()")
            way = (*way, inside[f"{part}."])
        inside = self.places.setdefault(way, {})
        key = identifier(last, set(inside.values())) if tensor else _key(last, set(inside.values()))
        inside[key] = key
        return (*way, key)

    def find(self, key: tuple) -> str | None:
        """The way from here to a module that has been made here or further inside."""
        if key in self.modules:
            return self.modules[key]
        inside = ((child.attribute, child.find(key)) for child in self.children.values())
        return next((f"{access((attribute,))}{way}" for attribute, way in inside if way), None)

    def local(self, name: str) -> str:
        """A name without what all names here begin with, and without the number of a call."""
        return re.sub(r"#\d+", "", name).removeprefix(self.path)


@dataclass
class Step:
    """A node, or the call of a nested model, with the expression that does it; `{0}` and `{all}` are its inputs."""

    name: str
    inputs: list[Value]
    outputs: list[Value]
    expression: str


@dataclass
class Calls:
    """What one call of a nested model does."""

    label: str
    items: list

    def nodes(self) -> list[Node]:
        """All of its nodes, those of models inside it included."""
        return [n for item in self.items for n in (item.nodes() if isinstance(item, Calls) else [item])]


def calls(nodes: list[Node], depth: int = 0) -> list:
    """Put the nodes of each call of a nested model together: a list of nodes and `Calls`."""
    found = []
    for label, run in groupby(nodes, key=lambda n: n.scope[depth : depth + 1]):
        inside = list(run)
        found += [Calls(label[0], calls(inside, depth + 1))] if label else inside
    return found


class Network:
    """What the classes of one network share while they are written."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.root = TorchClass(class_name(graph.name))
        self.classes: list[TorchClass] = []
        self.helpers: dict[str, None] = {}
        self.state: dict[str, np.ndarray] = {}
        self.origin: dict[str, str] = {}  # key of the state dict -> name in Graph.parameters
        self.first: dict[tuple[str, int | None], str] = {}  # and back, of a weight or a row of it, to the first key
        self.tied: dict[str, str] = {}  # key of the state dict -> the earlier key that is the same tensor
        self.obstacles: list[Obstacle] = []
        self.dtypes: list[tuple[TorchClass, str, str]] = []  # class, attribute and dtype of each module with weights
        self.free = _overwritable(graph)
        self.readers = graph.consumers()
        self.leaving = {v.name for v in flatten(graph.outputs)}

    def steps(self, items: list, owner: TorchClass, where: str) -> list[Step]:
        """Make what nodes and nested models need in the class that owns them; `where` is the way to it."""
        found = []
        for item in items:
            found += self._call(item, owner, where) if isinstance(item, Calls) else self._node(item, owner, where)
        return found

    def _node(self, node: Node, owner: TorchClass, where: str) -> list[Step]:
        try:
            rule = rules.for_operator(node.operator)
            call = rule.write_torch(node)
            if call.overwriting:
                if node.operator in getattr(rule, "COMMUTATIVE", ()):  # the one that may go comes first
                    node = replace(node, inputs=sorted(node.inputs, key=lambda v: v.name not in self.free))
                if node.inputs[0].name in self.free:
                    call = call.overwriting
        except Unsupported as e:
            self.obstacles.append(Obstacle(node.name or "model", node.operator, e.reason, e.remedy))
            return []
        self.helpers |= dict.fromkeys(call.helpers)
        expression = call.expression
        if call.constructor:
            key = _identity(node, call.constructor)
            way = f"{where}{owner.find(key) or self._module(node, call, owner, key)}"
            if self._mixed(node, call):
                made = f"torch.{node.outputs[0].dtype}"
                if "{self}(" in expression:
                    self.helpers["in_dtype"] = None
                    expression = expression.replace("{self}(", f"in_dtype({way}, {made}, ")
                expression = expression.replace("{self}", f"{way}.to({made})")
            expression = expression.replace("{self}", way)
        return [Step(owner.local(node.name), node.inputs, node.outputs, expression)]

    def cast(self, dtype: str) -> None:
        """Let the constructors make every module whose weights are of another dtype than this one be of its own."""
        for owner, module, own in self.dtypes:
            if own != dtype:
                owner.statements.append(f"self{module}.to(torch.{own})")

    def _mixed(self, node: Node, call) -> bool:
        """Tell whether a node computes in another dtype than its weights have, and torch's module would not."""
        held = {self.graph.parameters[node.parameters[role]].value.dtype.name for role in call.weights}
        made = node.outputs[0].dtype
        return (
            bool(held)
            and "float" in made
            and held != {made}
            and not hasattr(rules.for_operator(node.operator), "MIXED")
        )

    def _module(self, node: Node, call, owner: TorchClass, key: tuple) -> str:
        """Make a submodule and record its weights."""
        name = owner.local(node.name or f"{node.inputs[0].name}_{node.operator}")
        place = owner.put(name, tensor=call.constructor.startswith(("nn.Parameter", "nn.Buffer")))
        module = owner.modules[key] = access(place)
        owner.statements.append(f"self{module} = {call.constructor}")
        owner.statements += [s.replace("{self}", f"self{module}") for s in call.setup]
        owner.statements += _frozen(node, call, module, self.graph)
        sizes = {k: v for k, v in node.attributes.items() if isinstance(v, int) and not isinstance(v, bool)}
        prefix = f"{owner.place}{'.'.join(place)}"
        state = {f"{prefix}.{k}": v for k, v in call.state.items()}
        for role, name, row, pattern in _rows(call.weights):
            place, parameter = f"{prefix}.{name}".rstrip("."), node.parameters[role]
            held = self.graph.parameters[parameter]
            value = rules.to_torch_axes(held.value, pattern, **sizes)
            value = value if row is None else value[row]
            state[place] = value if held.own and value.flags.c_contiguous else owned(value)
            twin = self.first.setdefault((parameter, row), place)
            if twin != place and not np.array_equal((self.state | state)[twin], state[place]):
                reason = f"its weight {parameter} is also another layer's, with its axes in another order"
                self.obstacles.append(Obstacle(node.name or "model", node.operator, reason, "untie them"))
            elif twin != place:
                self.tied[place] = twin
            self.origin[place] = parameter
        self.state |= state
        floats = [v.dtype.name for v in state.values()]
        self.dtypes += [(owner, module, d) for d in dict.fromkeys(floats) if "float" in d][:1]
        return module

    def _call(self, call: Calls, owner: TorchClass, where: str) -> list[Step]:
        """Call a nested model, whose class is made at its first call; or write the call out."""
        path = re.sub(r"#\d+", "", call.label)
        child, first = owner.children.get(path), path not in owner.children
        if child is None:
            (attribute,) = owner.put(owner.local(path).replace(".", "_"))
            taken = {self.root.name, *(c.name for c in self.classes)}
            name, n = class_name(owner.local(path)), 2
            while name in taken:
                name, n = f"{name.rstrip('0123456789')}{n}", n + 1
            child = owner.children[path] = TorchClass(name, f"{path}.", f"{owner.place}{attribute}.", attribute)
            self.classes.append(child)
        nodes = call.nodes()
        own = set(map(id, nodes))
        made = {v.name: v for n in nodes for v in n.outputs}
        inputs = {v.name: v for n in nodes for v in n.inputs if v.name not in made}
        outputs = [
            v
            for name, v in made.items()
            if name in self.leaving or any(id(n) not in own for n in self.readers.get(name, []))
        ]
        steps = self.steps(call.items, child, "self")
        if self.obstacles:
            return []
        result = outputs[0] if len(outputs) == 1 else tuple(outputs)
        text = method(*forward(steps, list(inputs.values()), result, nested=True))
        if first:
            child.forward = text
            owner.statements.append(f"self{access((child.attribute,))} = {child.name}()")
        inside = access((child.attribute,))
        if text == child.forward:
            return [Step(owner.local(path), list(inputs.values()), outputs, f"{where}{inside}({{all}})")]
        return self.steps(call.items, child, f"{where}{inside}")


def _overwritable(graph: Graph) -> set[str]:
    """The values that their only reader may overwrite: neither autograd nor another call of its module needs them.

    A sum does so only where no open size can make it broadcast, and where torch.autocast gives both parts one dtype.
    """
    uses = Counter(v.name for node in graph.nodes for v in node.inputs) + Counter(
        v.name for v in flatten(graph.outputs)
    )
    names = Counter(node.name for node in graph.nodes if node.name)
    fresh = {
        v.name: n.scope
        for n in graph.nodes
        if getattr(rules.for_operator(n.operator), "OVERWRITABLE", False)
        for v in n.outputs
    }
    lower: set[str] = set()
    for n in graph.nodes:
        kind = getattr(rules.for_operator(n.operator), "AUTOCAST", "")
        if kind == "lower" or (kind and all(v.name in lower for v in n.inputs)):
            lower.update(v.name for v in n.outputs)

    def sums(n: Node) -> bool:
        same_size = len(graph.inputs) == 1 and not any(None in v.shape[1:] for v in n.inputs)
        return same_size and all(v.name in lower for v in n.inputs)

    return {
        v.name
        for n in graph.nodes
        if names[n.name] <= 1 and (len(n.inputs) == 1 or sums(n))
        for v in n.inputs
        if fresh.get(v.name) == n.scope and uses[v.name] == 1
    }


def _identity(node: Node, constructor: str) -> tuple:
    """Two nodes are one module if they share their parameters, or have none and the same layer's name."""
    shared = tuple(sorted(node.parameters.items()))
    own = ("module", node.name) if node.name else ("value", node.outputs[0].name)  # which may have the same name
    return (node.operator, constructor, shared or own)


def _frozen(node: Node, call, module: str, graph: Graph) -> list[str]:
    """Statements that freeze what Keras does not train (buffers need none)."""
    rule = rules.for_operator(node.operator)
    buffers = (*getattr(rule, "STATISTICS", ()), *getattr(rule, "BUFFERS", ()))
    roles = [r for r in call.weights if r not in buffers]
    frozen = [r for r in roles if not graph.parameters[node.parameters[r]].trainable]
    if frozen and len(frozen) == len(roles):
        return [f"self{module}.requires_grad_(False)"]
    names = [name for role, name, *_ in _rows(call.weights) if role in frozen]
    return [f"self{module}.{name}.requires_grad_(False)" for name in names]


def _rows(table: dict) -> Iterator[tuple[str, str, int | None, str]]:
    """Role, name in torch, row of the array and pattern of each tensor that a table of weights tells of."""
    for role, (names, pattern) in table.items():
        several = not isinstance(names, str)
        for i, name in enumerate(names if several else [names]):
            yield role, name, i if several else None, pattern


def method(arguments: list[str], body: list[str], result: str) -> str:
    """Source of a forward method."""
    lines = "".join(f"        {line}\n" for line in [*body, f"return {result}"])
    return f"    def forward(self, {', '.join(arguments)}):\n{lines}"


def forward(
    steps: list[Step], entering: list[Value], leaving, nested: bool = False
) -> tuple[list[str], list[str], str]:
    """Write the body of forward: one line for each step, `x` while a chain is straight, names where it forks.

    Args:
        steps: What is done.
        entering: The values that become arguments.
        leaving: A value, or a structure of values, that is returned.
        nested: Name the arguments by their number, as they are not the network's own.

    Returns:
        The names of the arguments, the lines, and the expression that is returned.
    """
    uses: dict[str, list[int]] = {}
    for i, step in enumerate(steps):
        for v in step.inputs:
            uses.setdefault(v.name, []).append(i)
    map_structure(lambda v: uses.setdefault(v.name, []).append(len(steps)), leaving)
    at_once = [uses.get(v.name) for v in entering] == [[0]]
    taken = set() if at_once else {"x"}  # `x` is overwritten on the way
    names = [("x" if at_once else f"x{i}") if nested else v.name for i, v in enumerate(entering, 1)]
    arguments = [identifier(name, taken, "x") for name in names]
    variable = {v.name: a for v, a in zip(entering, arguments, strict=True)}
    taken.add("x")
    lines: list[str] = []
    done: list[str] = []  # variables whose last use is in the line to come
    inside: dict[str, str] = {}  # value -> expression that is written where the value is used
    for i, step in enumerate(steps):
        inputs = [inside.pop(v.name, None) or variable[v.name] for v in step.inputs]
        text = step.expression.replace("{all}", ", ".join(inputs))
        for k, given in enumerate(inputs):
            text = text.replace(f"{{{k}}}", given)
        last = [variable[v.name] for v in step.inputs if uses[v.name][-1] == i and v.name in variable]
        done += [v for v in dict.fromkeys(last) if v not in ("x", *arguments, *done)]
        outputs = step.outputs
        follows = uses.get(outputs[0].name, []) == [i + 1]
        if (
            follows
            and len(outputs) == 1
            and i + 1 < len(steps)
            and not steps[i + 1].name
            and len(text) < 70
            and _reads_once(steps[i + 1], outputs[0])
            and isinstance(ast.parse(text, mode="eval").body, ast.Call)
        ):
            inside[outputs[0].name] = text
            continue
        for k, v in enumerate(outputs):
            several = f"{step.name}_{k}" if len(outputs) > 1 and step.name else step.name
            straight = follows and len(outputs) == 1
            variable[v.name] = "x" if straight else identifier(several or re.sub(r"#\d+", "", v.name), taken, "x")
        lines.append(f"{', '.join(variable[v.name] for v in outputs)} = {text}")
        if done and i + 1 < len(steps):  # a local name would keep the tensor, and its memory, to the end
            lines.append(f"del {', '.join(done)}")
            done = []
    return arguments, lines, _result(leaving, variable)


def _reads_once(step: Step, value: Value) -> bool:
    at = [v.name for v in step.inputs].index(value.name)
    return step.expression.count(f"{{{at}}}") + step.expression.count("{all}") == 1


def _result(structure, variable: dict[str, str]) -> str:
    if isinstance(structure, dict):
        return "{" + ", ".join(f"{rules.literal(k)}: {_result(v, variable)}" for k, v in structure.items()) + "}"
    if isinstance(structure, (list, tuple)):
        return f"({', '.join(_result(v, variable) for v in structure)}{',' if len(structure) == 1 else ''})"
    return "None" if structure is None else variable[structure.name]
