"""torch.nn.Module -> Graph, through torch.export.

The exported program names ATen operators with all their arguments and says which module each came from.
Modules whose class a rule knows as a whole (a helper that the bridge generated, torch's own composite
modules) are read as one operation.
"""

import inspect
import operator
import re
import textwrap
from collections.abc import Callable

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from bridge import rules
from bridge.graph import BridgeError, Graph, Node, Obstacle, Unsupported, Value, chain, map_structure
from bridge.rules import TorchOperation, parameter
from bridge.simplify import simplify
from bridge.tensors import array

CASTS = ("to", "_to_copy")  # ATen's
ITSELF = ("to", "type", "type_as", "float", "double", "half", "bfloat16", "contiguous")  # may return their input
PARTS = "parametrizations"  # the child of a layer by which torch.nn.utils.parametrize computes its weights


def export(module: torch.nn.Module, example_inputs: tuple, dynamic: list[set[int]] | None = None):
    """Export a module in eval mode, its batch dynamic.

    Args:
        module: Any module; its training flags are put back afterwards.
        example_inputs: Tensors as for a call of the module; a batch of one is doubled, as torch.export cannot
            keep it open.
        dynamic: For each input the axes that stay open; by default the batch.

    Returns:
        A `torch.export.ExportedProgram`.

    Raises:
        BridgeError: torch.export could not follow the module.
    """
    _check_examples(example_inputs)
    dynamic = dynamic or [{0} if x.ndim else set() for x in example_inputs]
    if len(dynamic) != len(example_inputs):
        raise BridgeError(
            f"dynamic names the open axes of {len(dynamic)} input(s), example_inputs has {len(example_inputs)}"
        )
    # copies, as torch.export takes one tensor given twice for one input
    examples = tuple(
        torch.cat([x, x]) if x.ndim and x.shape[0] == 1 and 0 in axes else x.clone()
        for x, axes in zip(example_inputs, dynamic, strict=True)
    )
    axes = shapes = tuple({a: torch.export.Dim.AUTO for a in axes} for axes in dynamic)
    try:
        kinds = [p.kind for p in inspect.signature(module.forward).parameters.values()]
    except ValueError as e:
        raise BridgeError(f"{type(module).__name__} has no signature that torch.export could read: {e}") from e
    if inspect.Parameter.VAR_POSITIONAL in kinds:  # forward(self, x, *others)
        fixed = kinds.index(inspect.Parameter.VAR_POSITIONAL)
        shapes = (*shapes[:fixed], shapes[fixed:])
    training = {m: m.training for m in module.modules()}
    passing = []
    try:
        module.eval()
        passing = [m.register_forward_pre_hook(_on_its_own, with_kwargs=True) for m in module.modules() if passes(m)]
        with torch.no_grad(), _AsRead():

            def export_with(tensors):
                return torch.export.export(module, tensors, dynamic_shapes=shapes, strict=False)

            program = export_with(examples)
            _refuse_branches(module, program, examples, axes, export_with)
            return program
    except BridgeError:
        raise
    except Exception as e:  # torch.export raises many unrelated classes, all of which mean the same to the user
        raise BridgeError(
            f"{type(module).__name__} cannot be exported by torch.export with inputs of shape "
            f"{', '.join(str(tuple(x.shape)) for x in examples)}: {type(e).__name__}: {str(e).strip()[:2000]}"
        ) from e
    finally:
        for hook in passing:
            hook.remove()
        for m, flag in training.items():
            m.training = flag


def _check_examples(example_inputs) -> None:
    if not isinstance(example_inputs, tuple) or not all(isinstance(x, torch.Tensor) for x in example_inputs):
        raise BridgeError(
            "example_inputs must be a tuple of torch tensors, one for each argument of forward. "
            f"Received: {type(example_inputs).__name__}"
        )


def passes(module: torch.nn.Module) -> str:
    """Tell whether a module returns its input itself in eval mode, by the name of its attribute with the rate."""
    name = known_class(module)
    return getattr(rules.for_torch(name), "PASSING", {}).get(name, "") if name else ""


def _on_its_own(module, inputs, keywords):
    """Give a module a tensor of its own to return, so that the export shows the module at all."""

    def alias(x):
        return torch.ops.aten.alias(x) if isinstance(x, torch.Tensor) else x

    return torch.utils._pytree.tree_map(alias, (inputs, keywords))


def _refuse_branches(module, program, examples, open_axes, export_with) -> None:
    """Refuse a module whose Python takes another way for another size: the export holds the way of the examples alone.

    torch.export turns a decision about an open size into a guard of the program. Sizes that the
    module itself does not take prove nothing, nor do guards of an operator's own, as pooling with ceil_mode has: the
    program of the other size is then the same.
    """
    checked = program.module()
    changes = [{(i, 0) for i, axes in enumerate(open_axes) if 0 in axes}]
    changes += [{(i, a)} for i, axes in enumerate(open_axes) for a in axes if a]
    for change in filter(None, changes):
        other = list(x.clone() for x in examples)
        for i, a in change:
            other[i] = torch.cat([other[i], other[i].narrow(a, 0, 1)], a)
        try:
            with FakeTensorMode(allow_non_fake_inputs=True) as mode:  # sizes alone: nothing is computed
                checked(*map(mode.from_tensor, other))
        except Exception as e:
            try:
                module(*(x.clone() for x in other))
            except Exception:  # not a size for this module
                continue
            if _steps(export_with(tuple(other))) == _steps(program):
                continue
            raise BridgeError(
                f"{type(module).__name__} goes another way for inputs of shape "
                f"{', '.join(str(tuple(x.shape)) for x in other)} than for the example inputs: {str(e).strip()[:300]}. "
                "Leave the axis out of `dynamic`, or take the decision out of forward"
            ) from e


def _steps(program) -> list[tuple]:
    """The operators of a program with their constants: equal for two exports that went the same way."""
    nodes = [n for n in program.graph.nodes if isinstance(n.target, torch._ops.OpOverload)]
    return [(str(n.target), torch.fx.node.map_arg((n.args, n.kwargs), lambda x: None)) for n in nodes]


@torch.library.custom_op("bridge::normalize", mutates_args=())
def _normalize(x: torch.Tensor, p: float, dim: list[int], eps: float) -> torch.Tensor:
    """F.normalize as one operator."""
    return x / x.norm(p, dim, keepdim=True).clamp_min(eps)


_normalize.register_fake(lambda x, p, dim, eps: torch.empty_like(x))


class _AsRead(torch.overrides.TorchFunctionMode):
    """Show torch.export what the rules read: F.normalize whole, and a Dropout that has a tensor of its own to return.

    In eval mode Dropout returns its input itself, as does a conversion that changes nothing, and torch.export then
    takes every later use of the input for a use of the output: a skip connection around it would be read as behind it.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.nn.functional.normalize and kwargs and kwargs.get("out") is None:
            dim = kwargs["dim"] if isinstance(kwargs["dim"], (list, tuple)) else [kwargs["dim"]]
            return _normalize(args[0], float(kwargs["p"]), list(dim), kwargs["eps"])
        name = getattr(function, "__name__", "")
        if ("dropout" in name or name in ITSELF) and args and isinstance(args[0], torch.Tensor):
            args = (torch.ops.aten.alias(args[0]), *args[1:])
        return function(*args, **(kwargs or {}))


def read(
    module: torch.nn.Module,
    example_inputs: tuple,
    dynamic: list[set[int]] | None = None,
    values: Callable[[str, torch.Tensor], np.ndarray] = lambda name, tensor: array(tensor),
    program=None,
    obstacles: list[Obstacle] | None = None,
    tied: bool = False,
) -> Graph:
    """Read a module into a graph with channels first.

    Args:
        module: Any module that torch.export can follow.
        example_inputs: Tensors as for a call of the module.
        dynamic: For each input the axes that stay open; by default the batch.
        values: Function from the name of a parameter or buffer, and the tensor, to the array to record; by
            default its value.
        program: The module's export, where there is one.
        obstacles: A list to fill with what cannot be carried, instead of raising.
        tied: Let the weights flow that no layer of Keras could hold: those that are shared by operators which cannot be
            one layer, and those that are frozen beside others that are trained.

    Returns:
        The graph; its parameters have the names of the state dict and Keras' axes.

    Raises:
        BridgeError: Lists every operator that no rule can carry, by the path of its module.
    """
    _check_examples(example_inputs)
    program = program or export(module, example_inputs, dynamic)
    name = type(module).__name__
    if isinstance(module, torch.export.UnflattenedModule):  # it knows the class that was exported
        name = (module.type_name() or name).split(".")[-1]
    graph = Graph(name, [], None, [], {}, channels="first")
    tensors = dict(module.state_dict(keep_vars=True)) | dict(module.named_parameters(remove_duplicate=False))
    tensors |= dict(module.named_buffers(remove_duplicate=False)) | program.constants
    first = {id(t): name for name, t in reversed(tensors.items())}  # a tied weight goes by its first name
    _check_dtypes(graph.name, tensors)
    signature = program.graph_signature
    held = signature.inputs_to_parameters | signature.inputs_to_buffers | signature.inputs_to_lifted_tensor_constants
    state: dict[str, tuple[str, np.ndarray, bool]] = {}
    known: dict[str, Value] = {}
    refuse = obstacles is None
    obstacles = [] if refuse else obstacles
    nodes = list(program.graph.nodes)
    modules = dict(module.named_modules(remove_duplicate=False))
    earliest = {id(m): path for path, m in reversed(modules.items())}
    paths = {path: earliest[id(m)] for path, m in modules.items()}  # a shared module goes by its first name

    groups = list(_group(nodes, modules, paths))
    flowing = _tied(groups, {p: tensors[name] for p, name in held.items()}) if tied else set()
    for item in groups:
        node = item[-1]
        if node.op == "placeholder":
            if node.name in held:
                tensor = tensors[held[node.name]]
                trainable = isinstance(tensor, torch.nn.Parameter) and tensor.requires_grad
                value = np.asarray(values(first[id(tensor)], tensor))
                state[node.name] = (first[id(tensor)], value, trainable)
            else:
                known[node.name] = _value(node)
                graph.inputs.append(known[node.name])
        elif node.op == "output":
            graph.outputs = _outputs(program, node, known)
        elif node.target is operator.getitem and node.args[0].name in known:
            value = known[node.name] = known[node.args[0].name][node.args[1]]
            if node.users and not obstacles and not any(value in n.outputs for n in graph.nodes):
                path, kind = _origin(node, paths)
                reason = f"its output {node.args[1]} is used, which no rule can carry"
                obstacles.append(Obstacle(path or "forward", kind, reason, "use the first output alone"))
        elif (node.target is torch.ops.aten.alias.default and node.args[0].name in state) or _casts_weight(node, state):
            state[node.name] = state[node.args[0].name]
        elif isinstance(node.meta.get("val"), torch.Tensor | list | tuple):
            path, kind = _origin(node, paths)
            try:
                graph.nodes += _nodes(item, path, known, state, modules, paths, graph, flowing)
            except Unsupported as e:
                obstacles.append(Obstacle(path or "forward", kind, e.reason, e.remedy))
    obstacles += _tied_parts(graph.parameters)
    if obstacles and refuse:
        obstacles = list(dict.fromkeys(obstacles))
        raise BridgeError(f"{graph.name} has {len(obstacles)} operator(s) that cannot be carried:", obstacles)
    return graph if obstacles else simplify(graph)  # what leads to an obstacle is there to be seen


def _casts_weight(node, state) -> bool:
    """Tell whether a node makes a floating weight a float of another size."""
    casts = node.op == "call_function" and "aten" in str(node.target) and node.target.__name__.split(".")[0] in CASTS
    if not casts or not isinstance(node.args[0], torch.fx.Node) or node.args[0].name not in state:
        return False
    source = node.args[0]
    while source.target is torch.ops.aten.alias.default:
        source = source.args[0]
    if source.op != "placeholder":  # a copy that is rounded already
        return False
    return node.meta["val"].is_floating_point() and node.args[0].meta["val"].is_floating_point()


def _check_dtypes(name: str, tensors: dict[str, torch.Tensor]) -> None:
    """Refuse weights that NumPy cannot hold."""
    known = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
    obstacles = [
        Obstacle(path, "weight", f"its dtype is {t.dtype}", "convert the module, as by .float()")
        for path, t in tensors.items()
        if (t.is_floating_point() and t.dtype not in known) or t.is_complex() or t.is_quantized
    ]
    if obstacles:
        raise BridgeError(f"{name} has {len(obstacles)} weight(s) that cannot be carried:", obstacles)


def _tied_parts(parameters) -> list[Obstacle]:
    """Refuse a weight of which an operator has a part, `name[start:stop]`, and another all of it, or other parts."""
    cuts: dict[str, set[int]] = {}
    for name in parameters:
        whole, _, part = name.partition("[")
        start, _, stop = part.rstrip("]").partition(":")
        cuts.setdefault(whole, set()).add(int(stop) - int(start) if stop.isdigit() else 0)
    return [
        Obstacle(name, "weight", "it is shared by operators that have other parts of it", "untie them")
        for name, sizes in cuts.items()
        if len(sizes) > 1
    ]


def run(program, inputs: list[torch.Tensor]) -> dict[str, np.ndarray]:
    """Run an exported program and return every tensor by the name of its torch.fx node."""
    seen: dict[str, np.ndarray] = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, node):
            result = super().run_node(node)
            for i, t in enumerate(result if isinstance(result, (list, tuple)) else [result]):
                if isinstance(t, torch.Tensor) and node.op != "output":
                    seen[node.name if not isinstance(result, (list, tuple)) else f"{node.name}:{i}"] = array(t).copy()
            return result

    signature = program.graph_signature
    held = signature.inputs_to_parameters | signature.inputs_to_buffers | signature.inputs_to_lifted_tensor_constants
    state = program.state_dict | program.constants
    flowing = iter(inputs)
    places = [n for n in program.graph.nodes if n.op == "placeholder"]
    with torch.no_grad():
        Recorder(program.graph_module).run(*[state[held[n.name]] if n.name in held else next(flowing) for n in places])
    return seen


def _value(node, index: int | None = None) -> Value:
    tensor = node.meta["val"] if index is None else node.meta["val"][index]
    return Value(
        node.name if index is None else f"{node.name}:{index}",
        tuple(d if isinstance(d, int) else None for d in tensor.shape),
        str(tensor.dtype).removeprefix("torch."),
        symbols=tuple(d if isinstance(d, int) else str(d) for d in tensor.shape),
    )


def _stack(node, paths) -> list[tuple[str, str, str]]:
    """(key, path, class) of the modules around a node, outermost first; the key tells two calls of one module apart."""
    return [(key, paths.get(path, path), kind) for key, (path, kind) in node.meta.get("nn_module_stack", {}).items()]


def _origin(node, paths) -> tuple[str, str]:
    stack = _stack(node, paths)
    return (stack[-1][1], stack[-1][2].split(".")[-1]) if stack else ("", "")


def known_class(module: torch.nn.Module) -> str | None:
    """The name under which a rule reads a module as a whole: "nn.Softsign", a helper with our very source, ..."""
    kind = type(module)
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        return None  # what the user put in would be lost
    for name in (f"{kind.__module__}.{kind.__qualname__}", f"*.{kind.__name__}"):  # classes of other packages
        if rules.for_torch(name):
            return name
    if kind.__module__.startswith("torch.nn."):
        name = f"nn.{kind.__name__}"
        return name if rules.for_torch(name) else None
    rule = rules.for_torch(kind.__name__)
    if rule is None or kind.__name__ not in getattr(rule, "HELPERS", {}):
        return None
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):
        return None
    return kind.__name__ if source.strip() == rules.helper_source(kind.__name__).strip() else None


def _group(nodes, modules, paths):
    """Yield lists of nodes: one node alone, or all nodes of one call of a module that a rule reads as a whole."""
    whole = {path: known_class(m) is not None for path, m in modules.items()}
    groups: dict[str, list] = {}
    keys = []
    for node in nodes:
        key = next(
            (k for k, path, _ in _stack(node, paths) if node.op == "call_function" and whole.get(path)), node.name
        )
        keys.append(key)
        groups.setdefault(key, []).append(node)
    # a group stands where its last node stands: all that it reads has been made by then
    for node, key in zip(nodes, keys, strict=True):
        if groups[key][-1] is node:
            yield groups[key]


def _tied(groups, tensors: dict[str, torch.Tensor]) -> set[str]:
    """The placeholders of weights that are read by operators of other kinds or beside others, or are partly frozen."""
    uses: dict[int, set] = {}
    partly: set[int] = set()
    for item in groups:
        read = {id(t): t for node in item for n in node.all_input_nodes if (t := tensors.get(n.name)) is not None}
        for key in read:
            uses.setdefault(key, set()).add((str(item[-1].target), *sorted(read)))
        parameters = {key: t.requires_grad for key, t in read.items() if isinstance(t, torch.nn.Parameter)}
        if len(set(parameters.values())) > 1:
            partly |= {key for key in parameters if read[key].ndim == 1}  # a bias is easily added apart
    return {name for name, t in tensors.items() if len(uses.get(id(t), ())) > 1 or id(t) in partly}


def _nodes(item, path, values, state, modules, paths, graph, flowing=frozenset()) -> list[Node]:
    """What a rule makes of an operator: with the weights that it holds or, where it cannot, with those that flow.

    `flowing` names those that have to.
    """
    call = _operation(item, path, values, state, modules, paths, graph)
    rule = rules.for_torch(call.target)
    if rule is None:
        raise Unsupported(f"there is no rule for the operator {call.target}", "`bridge rules` lists what is supported")
    weights = {n.name: n for n in item[-1].all_input_nodes if n.name in state} if len(item) == 1 else {}
    forced = flowing & weights.keys()
    attempts = [forced] if call.inputs or not weights else []
    attempts += [set(weights)] if weights and set(weights) not in attempts else []
    refused = None
    for names in attempts:
        before = set(graph.parameters)
        flows = {n: _value(weights[n]) for n in weights if n in names and n not in values}
        try:
            call = _operation(item, path, values | flows, state, modules, paths, graph) if flows else call
            nodes = _read(rule, call)
            made = [parameter.flowing(*state[n], v, call) for n, v in flows.items()]
        except Unsupported as e:
            refused = refused or e
            for name in graph.parameters.keys() - before:
                del graph.parameters[name]
            continue
        values |= flows
        return made + nodes
    raise refused


def _read(rule, call: TorchOperation) -> list[Node]:
    """What a rule makes of an operator; a weight that it overlooks has to flow, or would be lost in silence."""
    tensor = call.arguments.get("self", call.arguments.get("input"))
    if call.state and isinstance(tensor, str) and "class" not in call.arguments and not hasattr(rule, "OPERANDS"):
        raise Unsupported(f"{call.target} of a weight")
    nodes = chain(rule.read_torch(call), call.inputs, call.outputs)
    used = {name.partition("[")[0] for node in nodes for name in node.parameters.values()}
    lost = [name for name, array, trained in call.state.values() if name not in used and (array.size > 1 or trained)]
    if lost and "class" not in call.arguments:
        raise Unsupported(f"{call.target} of the weights {', '.join(lost)}")
    return nodes


def _operation(item, path, values, state, modules, paths, graph, wrapper: str | None = None) -> TorchOperation:
    """Describe an ATen call, or the call of a known module, as plain data.

    `wrapper` is the path of a known module whose inner layer is asked for.
    """
    last = item[-1]
    stack = [p for _, p, _ in _stack(last, paths) if p in modules and p != wrapper]
    whole = next(((p, known_class(modules[p])) for p in stack if known_class(modules[p])), None)
    if wrapper is not None and whole is None and len(item) > 1:
        raise Unsupported(f"it wraps {type(modules[path]).__name__}, of several operators", "wrap a single layer")

    def plain(x):
        if isinstance(x, torch.fx.Node):
            if x.name in values:
                return values[x.name]
            if x.name in state:
                return state[x.name][0]
            return x  # a size that is only known at run time
        return map_structure(plain, x) if isinstance(x, (list, tuple)) else x

    several = isinstance(last.meta["val"], (list, tuple))
    outputs = [_value(last, i) for i in range(len(last.meta["val"]))] if several else [_value(last)]
    values[last.name] = outputs if several else outputs[0]  # also of what is refused: its readers are not to blame
    if whole is None:
        if not isinstance(last.target, torch._ops.OpOverload):
            raise Unsupported(f"there is no rule for {last.target}")
        _check_in_place(last, state)
        schema = [a.name for a in last.target._schema.arguments]
        defaults = {a.name: a.default_value for a in last.target._schema.arguments if a.has_default_value()}
        given = defaults | dict(zip(schema, last.args, strict=False)) | dict(last.kwargs)
        inputs = [v for v in map(plain, last.all_input_nodes) if isinstance(v, Value)]
        name = last.target._schema.name.removeprefix("aten::")
        alone = f"{name} computes something from weights or constants alone"
        if not inputs and torch.Tag.nondeterministic_seeded in last.target.tags:
            raise Unsupported(f"{name} is random, in inference too", "leave it out in eval mode")
        if not inputs and not any(n.name in state for n in last.all_input_nodes):
            raise Unsupported(alone, "store the result as a parameter or buffer")
        held = {
            k: state[x.name]
            for k, x in given.items()
            if isinstance(x, torch.fx.Node) and x.name in state and x.name not in values
        }
        arguments = {k: plain(x) for k, x in given.items()}
        target = name.rstrip("_")
    else:
        last_path, (path, target) = path, whole
        inside = set(item)
        read = dict.fromkeys(x for n in item for x in n.all_input_nodes if x not in inside)
        inputs = [values[x.name] for x in read if x.name in values]
        prefix = f"{path}." if path else ""
        held = {s[0].removeprefix(prefix): s for x in read if (s := state.get(x.name)) and s[0].startswith(prefix)}
        module = modules[path]
        arguments = {k: v for k, v in vars(module).items() if not k.startswith("_") and k != "training"}
        arguments |= {"class": target}
        if target in getattr(rules.for_torch(target), "WRAPPERS", ()):
            arguments["layer"] = _operation(item, last_path, values, state, modules, paths, graph, path)
            held = {s[0].removeprefix(prefix): s for s in state.values() if s[0].startswith(prefix)}
    wraps = isinstance(arguments.get("layer"), TorchOperation)
    serves = held or isinstance(arguments.get("weight"), Value)  # of a layer, even where it is computed
    owner = path if wraps or (_owns(path, last, modules) and (serves or not _holds(modules[path]))) else ""
    return TorchOperation(owner, target, arguments, inputs, outputs, held, graph.parameters)


def _aliases(node, kind: str) -> bool:
    """Whether a node returns its first argument ("write": changed in place, "view": another look at its memory)."""
    info = (
        node.target._schema.returns[0].alias_info
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.returns
        else None
    )
    if node.target is operator.getitem or re.search("dropout(?!_)", str(node.target)):
        return kind == "view" and isinstance(node.args[0], torch.fx.Node)  # in eval mode Dropout returns its input
    return (
        info is not None
        and info.is_write == (kind == "write")
        and bool(node.args)
        and isinstance(node.args[0], torch.fx.Node)
    )


def _check_in_place(node, state) -> None:
    """Refuse a change in place that is seen through another view of the same memory later: the graph has no memory."""
    if not _aliases(node, "write"):
        return
    root = node.args[0]
    while _aliases(root, "view") or _aliases(root, "write"):
        root = root.args[0]
    if root.name in state:
        reason = f"{node.target._schema.name.removeprefix('aten::')} changes a weight or buffer in place"
        raise Unsupported(reason, "use the operation that is not in place, or leave it out in eval mode")
    memory = [root]
    for m in memory:
        memory += [
            u for u in m.users if u is not node and (_aliases(u, "view") or _aliases(u, "write")) and u.args[0] is m
        ]
    if any(u > node for m in memory for u in m.users):  # in the order of the program
        raise Unsupported(
            f"{node.target._schema.name.removeprefix('aten::')} changes in place a tensor that is read again through "
            "another view",
            "use the operation that is not in place",
        )


def _owns(path, node, modules) -> bool:
    """A node goes by a module's name where that module has no children: it is a layer."""
    return bool(path) and path in modules and not {name for name, _ in modules[path].named_children()} - {PARTS}


def _holds(module) -> bool:
    """Tell whether a layer has weights: what it does without them, such as padding, is not the layer."""
    return any(True for _ in module.parameters(recurse=False))


def _outputs(program, node, values):
    flat = [
        values.get(x.name) if isinstance(x, torch.fx.Node) else None
        for x in torch.fx.graph.map_arg(node.args[0], lambda n: n)
    ]
    if any(v is None for v in flat):
        raise BridgeError("the module returns something that is not a tensor computed from its inputs")
    return map_structure(lambda v: v, torch.utils._pytree.tree_unflatten(flat, program.call_spec.out_spec))
