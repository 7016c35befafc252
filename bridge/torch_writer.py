"""Graph -> source of a torch module, and the module that the source makes.

What `to_torch` returns is this source, executed: what was verified is what is shipped.
"""

import ast
import hashlib
import itertools
import keyword
import linecache
import operator
import re
import sys
import types
from collections import Counter
from dataclasses import dataclass

import numpy as np

from bridge import rules
from bridge.graph import BridgeError, Graph, Node, Obstacle, Unsupported, flatten, map_structure

HEADER = '''"""{title}

Written by bridge from the model {name!r}. It needs torch alone; `load()` also needs safetensors.{notes}
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

# name -> (shape, dtype); None is any size. Tensors of rank 4 and 5 have their channels first.
INPUTS = {inputs}
'''

LOAD = '''

def load(path=None):
    """Return the network with the weights of `path`, by default model.safetensors beside this file, in eval mode."""
    from safetensors.torch import load_file

    module = {class_name}(){cast}
    module.load_state_dict(load_file(path or Path(__file__).with_name("model.safetensors")))
    return module.eval()
'''


@dataclass
class TorchSource:
    """The text of model.py, the name of its class, its state dict, and where each entry came from."""

    text: str
    class_name: str
    state: dict[str, np.ndarray]
    parameters: dict[str, str]  # key of the state dict -> name in Graph.parameters
    tied: dict[str, str]  # key of the state dict -> the earlier key that is the same tensor


def identifier(name: str, taken: set[str], fallback: str = "layer") -> str:
    """Turn any text into a new Python identifier that shadows nothing; `taken` is extended.

    Names come from files of strangers: only ASCII letters, digits and underscores pass, at most 64 of them.
    """
    text = re.sub(r"[^0-9A-Za-z_]+", "_", name).strip("_")[:64] or fallback
    text = f"{fallback}_{text}" if text[0].isdigit() else text
    import torch

    reserved = {"F", "nn", "torch", "self", "load", "Path", "INPUTS"}
    if keyword.iskeyword(text) or text in reserved or hasattr(torch.nn.Module(), text):
        text += "_"
    unique, n = text, 2
    while unique in taken:
        unique, n = f"{text}_{n}", n + 1
    taken.add(unique)
    return unique


def class_name(name: str) -> str:
    """Turn a model's name into the name of a class."""
    words = re.sub(r"[^0-9A-Za-z]+", " ", name).title().replace(" ", "")[:64]
    taken = keyword.iskeyword(words) or words in {"F", "Path"} or words in rules.helper_names()
    return words if words and words[0].isalpha() and not taken else f"Model{words}"


def write(graph: Graph) -> TorchSource:
    """Write a graph with channels first as the source of a torch module.

    Args:
        graph: What `layout.convert(graph, "first")` returned.

    Returns:
        The source and the state dict that belongs to it.

    Raises:
        BridgeError: Lists every node that torch's side cannot hold.
    """
    attributes: set[str] = set()
    modules: dict[tuple, str] = {}  # what makes two nodes one module -> attribute
    constructors: list[str] = []
    helpers: dict[str, None] = {}
    state: dict[str, np.ndarray] = {}
    origin: dict[str, str] = {}
    tied: dict[str, str] = {}
    obstacles: list[Obstacle] = []
    steps: list[tuple[Node, str, str]] = []  # node, attribute of its module, expression
    free = _overwritable(graph)
    for node in graph.nodes:
        try:
            call = rules.for_operator(node.operator).write_torch(node)
            if call.overwriting and node.inputs[0].name in free:
                call = call.overwriting
        except Unsupported as e:
            obstacles.append(Obstacle(node.name or "model", node.operator, e.reason, e.remedy))
            continue
        module = ""
        if call.constructor:
            key = _identity(node, call.constructor)
            if key not in modules:
                module = modules[key] = identifier(node.name or f"{node.inputs[0].name}_{node.operator}", attributes)
                constructors.append(f"self.{module} = {call.constructor}")
                constructors += [s.replace("{self}", f"self.{module}") for s in call.setup]
                constructors += _frozen(node, call, module, graph)
                sizes = {k: v for k, v in node.attributes.items() if isinstance(v, int) and not isinstance(v, bool)}
                for role, (name, pattern) in call.weights.items():
                    place, parameter = f"{module}.{name}", node.parameters[role]
                    state[place] = np.array(
                        rules.to_torch_axes(graph.parameters[parameter].value, pattern, **sizes), order="C"
                    )
                    twin = next((k for k, p in origin.items() if p == parameter), None)
                    if twin and not np.array_equal(state[twin], state[place]):
                        reason = f"its weight {parameter} is also another layer's, with its axes in another order"
                        obstacles.append(Obstacle(node.name or "model", node.operator, reason, "untie them"))
                    elif twin:
                        tied[place] = twin
                        constructors.append(f"self.{place} = self.{twin}")
                    origin[place] = parameter
                state |= {f"{module}.{k}": v for k, v in call.state.items()}
            module = modules[key]
        helpers |= dict.fromkeys(call.helpers)
        steps.append((node, module, call.expression))
    if obstacles:
        raise BridgeError(f"{graph.name} has {len(obstacles)} node(s) that torch cannot hold:", obstacles)
    dtypes = {str(a.dtype): k for k, a in state.items() if a.dtype.kind == "f"}
    if len(dtypes) > 1:
        raise BridgeError(
            f"{graph.name} has weights of {len(dtypes)} dtypes: "
            f"{', '.join(f'{d} ({k})' for d, k in sorted(dtypes.items()))}. "
            "A torch module is of one: build the model with one dtype policy"
        )
    name = class_name(graph.name)
    arguments, body, result = _forward(graph, steps)
    inputs = ", ".join(
        f'"{a}": ({rules.literal(v.shape)}, {rules.literal(v.dtype)})'
        for a, v in zip(arguments, graph.inputs, strict=True)
    )
    text = HEADER.format(
        title=f"{name} as a torch.nn.Module.",
        name=_printable(graph.name),
        notes=_notes(graph.notes),
        inputs=f"{{{inputs}}}",
    )
    text += "".join(f"\n\n{rules.helper_source(h)}" for h in helpers)
    text += f"\n\nclass {name}(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    text += "".join(f"        {line}\n" for line in constructors)
    text += f"\n    def forward(self, {', '.join(arguments)}):\n"
    text += "".join(f"        {line}\n" for line in body) + f"        return {result}\n"
    text += LOAD.format(class_name=name, cast="".join(f".to(torch.{d})" for d in dtypes if d != "float32"))
    used = re.compile(r"\bF\.")
    if not used.search(text):
        text = text.replace("import torch.nn.functional as F\n", "")
    if not re.search(r"\btorch\.(?!nn)", text.replace("safetensors.torch", "")):
        text = text.replace("import torch\n", "", 1)
    return TorchSource(text, name, state, origin, tied)


def _overwritable(graph: Graph) -> set[str]:
    """The values that their only reader may overwrite: neither autograd nor another call of its module needs them."""
    uses = Counter(v.name for node in graph.nodes for v in node.inputs) + Counter(
        v.name for v in flatten(graph.outputs)
    )
    names = Counter(node.name for node in graph.nodes if node.name)
    fresh = {
        v.name for n in graph.nodes if getattr(rules.for_operator(n.operator), "OVERWRITABLE", False) for v in n.outputs
    }
    return {
        n.inputs[0].name
        for n in graph.nodes
        if names[n.name] <= 1 and n.inputs and n.inputs[0].name in fresh and uses[n.inputs[0].name] == 1
    }


def _identity(node: Node, constructor: str) -> tuple:
    """Two nodes are one module if they share their parameters, or have none and the same layer's name."""
    shared = tuple(sorted(node.parameters.items()))
    return (node.operator, constructor, shared or node.name or node.outputs[0].name)


def _frozen(node: Node, call, module: str, graph: Graph) -> list[str]:
    """Statements that freeze what Keras does not train (statistics are buffers and need none)."""
    roles = [r for r in call.weights if r not in getattr(rules.for_operator(node.operator), "STATISTICS", ())]
    frozen = [r for r in roles if not graph.parameters[node.parameters[r]].trainable]
    if frozen and len(frozen) == len(roles):
        return [f"self.{module}.requires_grad_(False)"]
    return [f"self.{module}.{call.weights[r][0]}.requires_grad_(False)" for r in frozen]


def _printable(text: str) -> str:
    """A name as it may stand in a docstring."""
    return re.sub(r"[^0-9A-Za-z_. -]", "_", text)[:100]


def _notes(notes: list[str]) -> str:
    """What is not in the module, as the end of its docstring."""
    lines = [re.sub(r"[^0-9A-Za-z_.,:;' -]", "_", n)[:200] for n in notes[:20]]
    return "".join(f"\n\nNote: {line}." for line in lines)


def _forward(graph: Graph, steps) -> tuple[list[str], list[str], str]:
    """Write the body of forward: one line for each node, `x` while a chain is straight, names where it forks."""
    uses: dict[str, list[int]] = {}
    for i, (node, _, _) in enumerate(steps):
        for v in node.inputs:
            uses.setdefault(v.name, []).append(i)
    map_structure(lambda v: uses.setdefault(v.name, []).append(len(steps)), graph.outputs)
    at_once = [uses.get(v.name) for v in graph.inputs] == [[0]]
    taken = set() if at_once else {"x"}  # `x` is overwritten on the way
    arguments = [identifier(v.name, taken, "x") for v in graph.inputs]
    variable = {v.name: a for v, a in zip(graph.inputs, arguments, strict=True)}
    taken.add("x")
    lines: list[str] = []
    done: list[str] = []  # variables whose last use is in the line to come
    nested: dict[str, str] = {}  # value -> expression that is written where the value is used
    for i, (node, module, expression) in enumerate(steps):
        inputs = [nested.pop(v.name, None) or variable[v.name] for v in node.inputs]
        text = expression.replace("{self}", f"self.{module}").replace("{all}", ", ".join(inputs))
        for k, given in enumerate(inputs):
            text = text.replace(f"{{{k}}}", given)
        last = [variable[v.name] for v in node.inputs if uses[v.name][-1] == i and v.name in variable]
        done += [v for v in dict.fromkeys(last) if v not in ("x", *arguments, *done)]
        outputs = node.outputs
        next_uses = uses.get(outputs[0].name, [])
        follows = next_uses == [i + 1]
        if (
            follows
            and len(outputs) == 1
            and i + 1 < len(steps)
            and not steps[i + 1][0].name
            and len(text) < 70
            and steps[i + 1][2].count("{0}") == 1
            and isinstance(ast.parse(text, mode="eval").body, ast.Call)
        ):
            nested[outputs[0].name] = text
            continue
        for v in outputs:
            variable[v.name] = "x" if follows and len(outputs) == 1 else identifier(node.name or v.name, taken, "x")
        lines.append(f"{', '.join(variable[v.name] for v in outputs)} = {text}")
        if done and i + 1 < len(steps):  # a local name would keep the tensor, and its memory, to the end
            lines.append(f"del {', '.join(done)}")
            done = []
    return arguments, lines, _result(graph.outputs, variable)


def _result(structure, variable: dict[str, str]) -> str:
    if isinstance(structure, dict):
        return "{" + ", ".join(f"{rules.literal(k)}: {_result(v, variable)}" for k, v in structure.items()) + "}"
    if isinstance(structure, (list, tuple)):
        return f"({', '.join(_result(v, variable) for v in structure)}{',' if len(structure) == 1 else ''})"
    return "None" if structure is None else variable[structure.name]


def build(source: TorchSource):
    """Execute the source and return its module, in eval mode, with its weights.

    The text gets an entry of its own in `sys.modules` and `linecache`, named by its hash, so that `inspect`,
    tracebacks and pickling work as for a module from a file.
    """
    import torch

    module = getattr(execute(source.text), source.class_name)
    with torch.device("meta"):
        network = module()
    network.load_state_dict({k: torch.from_numpy(v) for k, v in source.state.items()}, assign=True)
    for place, twin in source.tied.items():
        holder, _, name = place.rpartition(".")
        setattr(network.get_submodule(holder), name, operator.attrgetter(twin)(network))
    tensors = itertools.chain(network.named_parameters(), network.named_buffers())
    empty = [k for k, t in tensors if t.is_meta]
    if empty:
        raise BridgeError(
            f"{source.class_name} has tensors without values: {', '.join(empty)}. Its state dict lacks them: "
            "a helper class must keep what it makes itself in persistent buffers"
        )
    return network.eval()


def execute(text: str) -> types.ModuleType:
    """Run generated source as a module of its own."""
    name = f"bridge_generated_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if name not in sys.modules:
        module = types.ModuleType(name)
        module.__file__ = f"<{name}>"
        linecache.cache[module.__file__] = (len(text), None, text.splitlines(keepends=True), module.__file__)
        exec(compile(text, module.__file__, "exec"), module.__dict__)
        sys.modules[name] = module
    return sys.modules[name]
