"""Graph -> source of a torch module, and the module that the source makes.

What `to_torch` returns is this source, executed: what was verified is what is shipped.
"""

import hashlib
import itertools
import linecache
import re
import sys
import types
from dataclasses import dataclass

import numpy as np

from bridge import rules
from bridge.graph import BridgeError, Graph
from bridge.tensors import tensor
from bridge.torch_classes import Network, access, calls, forward, method

GENERATED = "bridge_generated_"  # what the names of modules made of generated source begin with

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


def write(graph: Graph) -> TorchSource:
    """Write a graph with channels first as the source of a torch module.

    Args:
        graph: What `layout.convert(graph, "first")` returned.

    Returns:
        The source and the state dict that belongs to it.

    Raises:
        BridgeError: Lists every node that torch's side cannot hold.
    """
    network = Network(graph)
    root = network.root
    steps = network.steps(calls(graph.nodes), root, "self")
    if network.obstacles:
        obstacles = list(dict.fromkeys(network.obstacles))
        raise BridgeError(f"{graph.name} has {len(obstacles)} node(s) that torch cannot hold:", obstacles)
    state, origin, tied = network.state, network.origin, network.tied
    dtypes = {a.dtype.name for a in state.values() if "float" in a.dtype.name}
    one = dtypes.pop() if len(dtypes) == 1 else "float32"
    network.cast(one)
    arguments, body, result = forward(steps, graph.inputs, graph.outputs)
    root.forward = method(arguments, body, result)
    root.statements += [
        f"self{access(place.split('.'))} = self{access(twin.split('.'))}" for place, twin in tied.items()
    ]
    inputs = ", ".join(
        f'"{a}": ({rules.literal(v.shape)}, {rules.literal(v.dtype)})'
        for a, v in zip(arguments, graph.inputs, strict=True)
    )
    text = HEADER.format(
        title=f"{root.name} as a torch.nn.Module.",
        name=_printable(graph.name),
        notes=_notes(graph.notes),
        inputs=f"{{{inputs}}}",
    )
    text += "".join(f"\n\n{rules.helper_source(h)}" for h in network.helpers)
    text += "".join(c.source() for c in [*network.classes, root])
    text += LOAD.format(class_name=root.name, cast="" if one == "float32" else f".to(torch.{one})")
    used = re.compile(r"\bF\.")
    if not used.search(text):
        text = text.replace("import torch.nn.functional as F\n", "")
    if not re.search(r"\btorch\.(?!nn)", text.replace("safetensors.torch", "")):
        text = text.replace("import torch\n", "", 1)
    return TorchSource(text, root.name, state, origin, tied)


def _printable(text: str) -> str:
    """A name as it may stand in a docstring."""
    return re.sub(r"[^0-9A-Za-z_. -]", "_", text)[:100]


def _notes(notes: list[str]) -> str:
    """What is not in the module, as the end of its docstring."""
    lines = [re.sub(r"[^0-9A-Za-z_.,:;' -]", "_", n)[:200] for n in notes[:20]]
    return "".join(f"\n\nNote: {line}." for line in lines)


def build(source: TorchSource):
    """Execute the source and return its module, in eval mode, with its weights.

    The text gets an entry of its own in `sys.modules` and `linecache`, named by its hash, so that `inspect`,
    tracebacks and pickling work as for a module from a file.
    """
    import torch

    module = getattr(execute(source.text), source.class_name)
    with torch.device("meta"):
        network = module()
    network.load_state_dict({k: tensor(v) for k, v in source.state.items()}, assign=True)
    for place, twin in source.tied.items():
        holder, _, name = place.rpartition(".")
        owner, _, weight = twin.rpartition(".")
        setattr(network.get_submodule(holder), name, getattr(network.get_submodule(owner), weight))
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
    name = f"{GENERATED}{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if name not in sys.modules:
        module = types.ModuleType(name)
        module.__file__ = f"<{name}>"
        linecache.cache[module.__file__] = (len(text), None, text.splitlines(keepends=True), module.__file__)
        exec(compile(text, module.__file__, "exec"), module.__dict__)
        sys.modules[name] = module
    return sys.modules[name]
