"""torch.nn.Module -> Graph, through torch.export.

Modules whose class a rule knows as a whole (a helper that the bridge generated, torch's own composite modules) are read
as one operation. What no input and no parameter reaches, such as a mask or an index made of buffers, is computed with
the module's own tensors. An operator that no rule reads is put into the words of its decomposition.
"""

import itertools
import operator
import re
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from bridge import decomposition, expressions, in_place, rules
from bridge.graph import OUTPUT, BridgeError, Graph, Node, Obstacle, Unsupported, Value, chain, flatten, map_structure
from bridge.rules import Size, TorchOperation, parameter, sizes
from bridge.simplify import simplify
from bridge.tensors import array
from bridge.torch_export import check_examples, export, is_own, known_class

CASTS = ("to", "_to_copy")  # ATen's
ATTENTION = "scaled_dot_product_attention"
ALIAS = torch.ops.aten.alias.default
PARTS = "parametrizations"  # the child of a layer by which torch.nn.utils.parametrize computes its weights
ARITHMETIC = {  # of open sizes, by Python or torch -> ATen's name and its arguments
    **{name: (name, "self", "other") for name in ("add", "sub", "mul")},
    "truediv": ("div", "self", "other"),
    "floordiv": ("floor_divide", "self", "other"),
    "mod": ("remainder", "self", "other"),
    "pow": ("pow", "self", "exponent"),
    "neg": ("neg", "self"),
    "sym_max": ("maximum", "self", "other"),
    "sym_min": ("minimum", "self", "other"),
    "sym_float": ("alias", "self"),
    "_sym_sqrt": ("sqrt", "self"),
}
PROMOTES = ("add", "sub", "rsub", "mul", "div", "maximum", "minimum", "cat", "where")  # floats of several sizes
SPREADS = ("expand", "expand_as")
SPREADING = (  # what spreads a tensor with axes of size 1 over the sizes of the others
    *("add", "sub", "mul", "div", "eq", "ne", "lt", "le", "gt", "ge", "where", "masked_fill", ATTENTION),
    *("bitwise_and", "bitwise_or", "bitwise_not", "logical_and", "logical_or", "logical_not", "alias", *CASTS),
)
RANDOM = "give the network what it is to add as an input, or leave it out in eval mode"
FILLED = ("empty", "full", "ones", "zeros")  # what new_zeros and zeros_like make depends on no value of their tensor


def read(
    module: torch.nn.Module,
    example_inputs: tuple,
    dynamic: list[set[int]] | None = None,
    values: Callable[[str, torch.Tensor], np.ndarray] = lambda name, tensor: array(tensor),
    program=None,
    obstacles: list[Obstacle] | None = None,
    tied: bool = False,
    training=None,
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
        training: What `training_mode.look` has found: its obstacles are refused. By default the module's attention is
            looked at alone, for its dropout.

    Returns:
        The graph; its parameters have the names of the state dict and Keras' axes.

    Raises:
        BridgeError: Lists every operator that no rule can carry, by the path of its module.
    """
    check_examples(example_inputs)
    program = program or export(module, example_inputs, dynamic)
    name = type(module).__name__
    if isinstance(module, torch.export.UnflattenedModule):  # it knows the class that was exported
        name = (module.type_name() or name).split(".")[-1]
    graph = Graph(name, [], None, [], {}, channels="first")
    tensors = dict(module.state_dict(keep_vars=True)) | dict(module.named_parameters(remove_duplicate=False))
    tensors |= dict(module.named_buffers(remove_duplicate=False)) | program.constants
    _check_dtypes(graph.name, tensors)
    reader = Reader(graph, program, dict(module.named_modules(remove_duplicate=False)), tensors, values)
    refuse = obstacles is None
    obstacles = [] if refuse else obstacles
    _set_rates(program, reader.paths, module, example_inputs, dynamic, training)
    groups = deque(_group(list(program.graph.nodes), reader.modules, reader.paths))
    if tied:
        reader.flowing = _tied(groups, {p: tensors[name] for p, name in reader.held.items()})
    while groups:
        item = groups.popleft()
        node = item[-1]
        if node._erased:  # it took one of the results of what has been decomposed
            continue
        try:
            reader.read(item, bool(obstacles))
        except Unsupported as e:
            alone = len(item) == 1 and isinstance(node.target, torch._ops.OpOverload)
            parts = decomposition.inline(node, e) if alone and not e.final else []
            groups.extendleft([part] for part in reversed(parts))
            if not parts:
                reader.known.setdefault(node.name, _made(node))  # its readers are not to blame
                e = node.meta.get("reason", e)
                path, kind = _origin(node, reader.paths)
                obstacles.append(Obstacle(path or "forward", kind, e.reason, e.remedy))
    obstacles += _tied_parts(graph.parameters)
    said = {o.path for o in obstacles}
    obstacles += [o for o in (training.obstacles if training else []) if o.path not in said]
    if obstacles and refuse:
        obstacles = list(dict.fromkeys(obstacles))
        raise BridgeError(f"{graph.name} has {len(obstacles)} operator(s) that cannot be carried:", obstacles)
    return graph if obstacles else simplify(graph)  # what leads to an obstacle is there to be seen


def _set_rates(program, paths, module, example_inputs, dynamic, training) -> None:
    """Tell the calls of attention and Dropout their rate in training mode, which may be 0 in an export of eval mode."""
    kinds = {n: k for n in program.graph.nodes if (k := _random_kind(n)) and "rate" not in n.meta}
    asked = any(kind == ATTENTION or not _rate(node) for node, kind in kinds.items())
    if asked and training is None:
        from bridge import training_mode

        training = training_mode.look(module, example_inputs, dynamic)
    counts: Counter = Counter()
    for node, kind in kinds.items() if asked else ():
        path, _ = _origin(node, paths)
        place = path, kind, counts[path, kind]
        counts[path, kind] += 1
        if place in training.rates:
            node.meta["rate"] = {"dropout_p" if kind == ATTENTION else "p": training.rates[place]}


def _random_kind(node: torch.fx.Node) -> str:
    """Under which name training_mode keeps the rate of a call."""
    name = str(node.target) if isinstance(node.target, torch._ops.OpOverload) else ""
    return ATTENTION if ATTENTION in name else "dropout" if "dropout" in name else ""


def _rate(node: torch.fx.Node) -> float:
    return node.args[1] if len(node.args) > 1 else node.kwargs.get("p", 0.5)


@dataclass
class Reader:
    """One reading of a program; what it knows goes by the names of torch.fx's nodes.

    `known` is what flows, `state` what is held (name, array, whether it is trained), and `constants` what is made of
    buffers alone, as tensors of torch; those in `small` have one cell where the program says an open size. `sizes` says
    which axis of which value has an open size; by that and a dtype `rows` has as many ones, and `numbers` has it as a
    number. `ones` names what is ones and nothing else.
    """

    graph: Graph
    program: torch.export.ExportedProgram
    modules: dict[str, torch.nn.Module]
    tensors: dict[str, torch.Tensor]
    values: Callable[[str, torch.Tensor], np.ndarray]
    known: dict[str, Value | list[Value]] = field(default_factory=dict)
    state: dict[str, tuple[str, np.ndarray, bool]] = field(default_factory=dict)
    constants: dict[str, torch.Tensor] = field(default_factory=dict)
    sizes: dict[str, tuple[Value, int]] = field(default_factory=dict)
    rows: dict[tuple[str, str], Value] = field(default_factory=dict)
    ones: set[str] = field(default_factory=set)
    numbers: dict[tuple[str, str], Value] = field(default_factory=dict)
    small: set[str] = field(default_factory=set)
    flowing: set[str] = field(default_factory=set)  # the weights that have to

    def __post_init__(self):
        signature = self.program.graph_signature
        self.held = signature.inputs_to_parameters | signature.inputs_to_buffers
        self.held |= signature.inputs_to_lifted_tensor_constants
        self.first = {id(t): name for name, t in reversed(self.tensors.items())}  # a tied weight goes by its first name
        earliest = {id(m): path for path, m in reversed(self.modules.items())}
        self.paths = {path: earliest[id(m)] for path, m in self.modules.items()}  # as does a shared module

    def read(self, item: list[torch.fx.Node], refused: bool) -> None:
        """Read one operator, or the operators of one module; `refused` tells whether something before could not be."""
        node = item[-1]
        if node.op == "placeholder":
            self._placeholder(node)
        elif node.op == "output":
            self.graph.outputs = _outputs(self.program, node, self.known)
        elif node.target is operator.getitem and node.args[0].name in self.known:
            value = self.known[node.name] = self.known[node.args[0].name][node.args[1]]
            if node.users and not refused and not any(value in n.outputs for n in self.graph.nodes):
                reason = f"its output {node.args[1]} is used, which no rule can carry"
                raise Unsupported(reason, "use the first output alone")
        elif _aliased(node) in self.state or _casts_weight(node, self.state):
            self.state[node.name] = self.state[node.args[0].name]
            tensor = self.constants.get(node.args[0].name)
            if tensor is not None:
                self.constants[node.name] = node.target(tensor, *node.args[1:], **node.kwargs)
        elif (
            not all(self._constant(n) for n in item if isinstance(n.meta.get("val"), torch.Tensor) or n is node)
            and not self._broadcast(node)
            and isinstance(node.meta.get("val"), torch.Tensor | list | tuple)
        ):
            self._add(self._nodes(item, _origin(node, self.paths)[0]))

    def _placeholder(self, node) -> None:
        if node.name not in self.held:
            self.known[node.name] = value = _value(node)
            self.graph.inputs.append(value)
            self._measure(value)
            return
        tensor = self.tensors[self.held[node.name]]
        parameter = isinstance(tensor, torch.nn.Parameter)
        name = self.first[id(tensor)]
        value = np.asarray(self.values(name, tensor) if tensor.is_floating_point() else array(tensor))
        self.state[node.name] = (name, value, parameter and tensor.requires_grad)
        if not parameter:
            self.constants[node.name] = tensor.detach()

    def _add(self, nodes: list[Node]) -> None:
        """Put nodes into the graph."""
        self.graph.nodes += nodes
        self.ones |= sizes.ones_among(nodes, self.ones)
        for node in nodes:
            self._measure(*node.outputs)
            made = node.outputs[0]
            if node.operator == "row":
                self.rows.setdefault((made.symbols[0], made.dtype), made)

    def _measure(self, *values: Value) -> None:
        """Remember where an open size can be seen, which is in what came first."""
        for value in values:
            for axis, size in enumerate(value.symbols):
                if isinstance(size, str):
                    self.sizes.setdefault(size, (value, axis))

    def _constant(self, node) -> bool:
        """Compute what is made of buffers and constants alone; tell whether it is."""
        if node.op != "call_function":
            return False
        if node.target is operator.getitem:
            made = self.constants.get(node.args[0].name)
            if made is None:
                return False
            return self._hold(node, made[node.args[1]])
        if not isinstance(node.target, torch._ops.OpOverload) or not _is_fixed(node.meta.get("val")):
            return False
        name = node.target._schema.name.removeprefix("aten::").rstrip("_")
        words = set(name.split("_"))
        given = {n.name: self.constants.get(n.name) for n in node.all_input_nodes}
        if words & {"new", "like"} and words & set(FILLED):
            for n in node.all_input_nodes:  # no open size: that one is what they hold
                if given[n.name] is None and isinstance(n.meta["val"], torch.Tensor):
                    given[n.name] = torch.empty(())
        random = torch.Tag.nondeterministic_seeded in node.target.tags
        if random or any(x is None for x in given.values()):
            return False
        in_place.check(node, self.held, constant=True)
        arguments, keywords = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: given[n.name])
        if "like" in words:  # the sizes are those of a tensor that flows
            made = node.meta["val"]
            arguments = (torch.empty(tuple(made.shape), dtype=made.dtype), *arguments[1:])
        with torch.no_grad():
            return self._hold(node, node.target(*arguments, **keywords))

    def _broadcast(self, node) -> bool:
        """Hold a constant that is spread over open sizes as it is, where all that read it spread it themselves."""
        given = [n for n in node.all_input_nodes if isinstance(n.meta.get("val"), torch.Tensor)]
        if not given or any(n.name not in self.constants for n in given):
            return False
        spread = _aten(node) in SPREADS and self._is_spread(node)
        if not spread and not self.small & {n.name for n in given}:
            return False
        self.small.add(node.name)
        if spread:
            sizes = [n if isinstance(n, int) else 1 for n in node.meta["val"].shape]
            return self._hold(node, self.constants[given[0].name].expand(sizes))
        arguments, keywords = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: self.constants[n.name])
        return self._hold(node, node.target(*arguments, **keywords))

    def _is_spread(self, node) -> bool:
        """Tell whether each reader of a constant spreads it over its open sizes, as another tensor has them there."""
        shape = node.meta["val"].shape
        for user in node.users:
            if _aten(user) not in SPREADING or (user.target._schema.is_mutable and user.args[0] is node):
                return False
            others = [n for n in user.all_input_nodes if n is not node and self._flows(n)]
            if not others:
                if not self._is_spread(user):
                    return False
            elif _aten(user) != ATTENTION and not all(
                isinstance(size, int)
                or any(str(size) == str(n.meta["val"].shape[-i]) for n in others if n.meta["val"].ndim >= i)
                for i, size in enumerate(reversed(shape), 1)
            ):
                return False
        return True

    def _flows(self, node) -> bool:
        """Tell whether a tensor, read or not yet, depends on an input or a weight."""
        if not isinstance(node.meta.get("val"), torch.Tensor) or node.name in self.constants:
            return False
        if node.op == "placeholder" or node.name in self.known or node.name in self.state:
            return True
        return any(map(self._flows, node.all_input_nodes))

    def _as_held(self, node) -> Value:
        """What flows where a weight does: of a constant that is not spread yet, as much as there is."""
        value = _value(node)
        if node.name not in self.small:
            return value
        sizes = tuple(self.constants[node.name].shape)
        return replace(value, shape=sizes, symbols=sizes)

    def _hold(self, node, made) -> bool:
        self.constants[node.name] = made
        if isinstance(made, torch.Tensor):
            self._update(node)
        return True

    def _update(self, node) -> None:
        """Take a constant as it now is: what is written to in place may have other names."""
        path = _origin(node, self.paths)[0]
        name = f"{path}.{node.name}" if path else node.name
        while name in self.tensors:
            name += "_"
        self.state[node.name] = (name, array(self.constants[node.name]).copy(), False)

    def _nodes(self, item, path: str) -> list[Node]:
        """What a rule makes of an operator: with the weights that it holds or, where it cannot, with flowing ones."""
        for n in item[-1].all_input_nodes:
            if n.name in self.constants and n.name not in self.held:
                self._update(n)
        call = self._operation(item, path, self.known)
        rule, known = rules.for_torch(call.target), self.known
        if getattr(rule, "HOLDS", False):  # whatever else is made of its weights
            known = {n: v for n, v in known.items() if n not in self.state or n in self.flowing}
            call = self._operation(item, path, known)
        if rule is None and _is_random(item[-1]):
            raise Unsupported(f"{call.target} is random, in inference too", RANDOM, final=True)
        if rule is None:
            raise Unsupported(
                f"there is no rule for the operator {call.target}", "`bridge rules` lists what is supported"
            )
        weights = {n.name: n for n in item[-1].all_input_nodes if n.name in self.state} if len(item) == 1 else {}
        forced = self.flowing & weights.keys()
        if len(item) > 1:  # what a module is given; its own weights it holds
            signature, own = self.program.graph_signature, {name for name, _, _ in call.state.values()}
            stored = signature.inputs_to_parameters.keys() | signature.inputs_to_buffers.keys()
            read = {n.name: n for x in item for n in x.all_input_nodes if n.name in stored & self.state.keys()}
            weights = {name: n for name, n in read.items() if self.state[name][0] not in own}
            forced = weights.keys()
        elif given := getattr(rule, "FLOWS", ()):
            arguments = zip((a.name for a in item[-1].target._schema.arguments), item[-1].args, strict=False)
            forced |= {x.name for name, x in arguments if name in given} & weights.keys()
        attempts = [forced] if call.inputs or forced or not weights else []
        if not attempts and getattr(rule, "WEIGHTS", None) and item[-1].all_input_nodes[0].name in weights:
            attempts = [{item[-1].all_input_nodes[0].name}]  # a layer that is given a weight
        floats = {n for n in weights if "float" in self.state[n][1].dtype.name}  # the others may be an index of theirs
        attempts += [names for names in (floats, set(weights)) if names and names not in attempts]
        refused = None
        for names in attempts:
            before = set(self.graph.parameters)
            flows = {n: self._as_held(weights[n]) for n in weights if n in names and n not in known}
            try:
                call = self._operation(item, path, known | flows) if flows else call
                casts = _promote(call)
                nodes = [*casts, *_read(rule, call)]
                made = [node for n, v in flows.items() for node in parameter.flowing(*self.state[n], v, call)]
            except Unsupported as e:
                refused = refused or e
                for name in self.graph.parameters.keys() - before:
                    del self.graph.parameters[name]
                continue
            self.known |= flows
            return made + nodes
        raise refused

    def _operation(self, item, path: str, values, wrapper: str | None = None) -> TorchOperation:
        """Describe an ATen call, or the call of a known module, as plain data.

        `wrapper` is the path of a known module whose inner layer is asked for.
        """
        last, state, modules = item[-1], self.state, self.modules
        stack = [p for _, p, _ in _stack(last, self.paths) if p in modules and p != wrapper]
        whole = next(((p, known_class(modules[p])) for p in stack if known_class(modules[p])), None)
        if wrapper is not None and whole is None and len(item) > 1:
            raise Unsupported(f"it wraps {type(modules[path]).__name__}, of several operators", "wrap a single layer")

        def plain(x):
            if isinstance(x, torch.fx.Node):
                if x.name in values:
                    return values[x.name]
                return state[x.name][0] if x.name in state else Size(str(x.meta["val"]))
            return map_structure(plain, x) if isinstance(x, (list, tuple)) else x

        made = self.known[last.name] = values[last.name] = _made(last)
        outputs = made if isinstance(made, list) else [made]
        if whole is None:
            if not isinstance(last.target, torch._ops.OpOverload):
                raise Unsupported(f"there is no rule for {last.target}")
            in_place.check(last, state)
            schema = [a.name for a in last.target._schema.arguments]
            defaults = {a.name: a.default_value for a in last.target._schema.arguments if a.has_default_value()}
            given = defaults | dict(zip(schema, last.args, strict=False)) | dict(last.kwargs)
            inputs = [v for v in map(plain, last.all_input_nodes) if isinstance(v, Value)]
            given |= last.meta.get("rate", {})
            name = last.target._schema.name.removeprefix("aten::")
            if not inputs and _is_random(last) and not rules.for_torch(name):
                raise Unsupported(f"{name} is random, in inference too", RANDOM)
            if not inputs and not last.all_input_nodes and not _is_random(last):
                raise Unsupported(f"{name} computes something from constants alone", "store the result as a buffer")
            several = {k: xs for k, xs in given.items() if isinstance(xs, (list, tuple))}
            lists = {f"{k}.{i}": x for k, xs in several.items() for i, x in enumerate(xs)}
            held = {
                k: state[x.name]
                for k, x in (given | lists).items()
                if isinstance(x, torch.fx.Node) and x.name in state and x.name not in values
            }
            arguments = {k: plain(x) for k, x in given.items()}
            kinds = {a.name: str(a.type) for a in last.target._schema.arguments}
            for k, x in given.items():  # not those that are sizes of what is made
                if isinstance(arguments[k], Size) and re.search("number|Tensor", kinds[k]):
                    made = outputs[0].dtype  # what is compared with a tensor is of its dtype
                    arguments[k] = self._number(x, inputs[0].dtype if made == "bool" and inputs else made)
            target = name.rstrip("_")
        else:
            last_path, (path, target) = path, whole
            inside = set(item)
            read = dict.fromkeys(x for n in item for x in n.all_input_nodes if x not in inside)
            inputs = [values[x.name] for x in read if x.name in values]
            if is_own(modules[path]):  # it takes them first of all
                given = [n.args[0].name for n in itertools.takewhile(lambda n: n.target is ALIAS, item)]
                if not set(given) <= values.keys():
                    raise Unsupported("it is called with weights or constants", "let what flows go into it")
                inputs = [values[name] for name in given]
            prefix = f"{path}." if path else ""
            held = {s[0].removeprefix(prefix): s for x in read if (s := state.get(x.name)) and s[0].startswith(prefix)}
            module = modules[path]
            arguments = {k: v for k, v in vars(module).items() if not k.startswith("_") and k != "training"}
            arguments |= {"class": target}
            if target in getattr(rules.for_torch(target), "SEVERAL", ()):
                outputs = [_value(n) for n in item if n.users.keys() - inside]
                self.known |= {v.name: v for v in outputs}
                values |= {v.name: v for v in outputs}
            if target in getattr(rules.for_torch(target), "WRAPPERS", ()):
                arguments["layer"] = self._operation(item, last_path, values, path)
                held = {s[0].removeprefix(prefix): s for s in state.values() if s[0].startswith(prefix)}
        wraps = isinstance(arguments.get("layer"), TorchOperation)
        serves = held or isinstance(arguments.get("weight"), Value)  # of a layer, even where it is computed
        owner = (
            path
            if wraps or whole is not None or (_owns(path, last, modules) and (serves or not _holds(modules[path])))
            else ""
        )
        owner = owner or (_holder(held) if whole is None else "")
        given = (arguments, inputs, outputs, held)
        return TorchOperation(owner, target, *given, self.graph.parameters, self.sizes, self.rows, self.ones)

    def _number(self, node: torch.fx.Node, dtype: str) -> Value:
        """A number that is worked out from open sizes, as a tensor without axes."""
        symbol = str(node.meta["val"])
        if (symbol, dtype) in self.numbers:
            return self.numbers[symbol, dtype]
        made = Value(f"{node.name}:{dtype}", (), dtype)
        call = TorchOperation("", "", {}, [], [made], {}, self.graph.parameters, self.sizes, self.rows, self.ones)
        if symbol in self.sizes:
            nodes = sizes.number(symbol, made, call)
        else:
            target, *names = ARITHMETIC.get(getattr(node.target, "__name__", ""), ("",))
            operands = [self._number(x, dtype) if isinstance(x, torch.fx.Node) else x for x in node.args]
            rule = rules.for_torch(target)
            if rule is None:
                raise Unsupported(f"it computes {symbol} from open sizes of the input", "export with these sizes fixed")
            arguments = {"alpha": 1} | dict(zip(names, operands, strict=True))
            inputs = [x for x in operands if isinstance(x, Value)]
            call = TorchOperation("", target, arguments, inputs, [made], {}, self.graph.parameters)
            nodes = chain(rule.read_torch(call), inputs, [made])
        self._add(nodes)
        self.numbers[symbol, dtype] = made
        return made


def _aten(node: torch.fx.Node) -> str:
    """ATen's name of what a node calls, without the underscore of what works in place."""
    return node.target._schema.name.removeprefix("aten::").rstrip("_") if hasattr(node.target, "_schema") else ""


def _is_random(node: torch.fx.Node) -> bool:
    """Tell whether an operator makes random numbers in eval mode, which Dropout does not."""
    return torch.Tag.nondeterministic_seeded in node.target.tags and "dropout" not in str(node.target)


def _is_fixed(values) -> bool:
    """Tell whether these are tensors of known sizes."""
    values = values if isinstance(values, (list, tuple)) else [values]
    return all(isinstance(v, torch.Tensor) and all(isinstance(n, int) for n in v.shape) for v in values)


def _aliased(node) -> str:
    """The name of what a node is another name for."""
    return node.args[0].name if node.target is ALIAS else ""


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
        given = [state[held[n.name]] if n.name in held else next(flowing) for n in places]
        made = list(Recorder(program.graph_module).run(*given))
    outputs = flatten(torch.utils._pytree.tree_unflatten(made, program.call_spec.out_spec))  # in the graph's order
    return seen | {OUTPUT.format(i): array(t) for i, t in enumerate(outputs)}


def unused(module: torch.nn.Module, nodes: list[Node]) -> list[str]:
    """The names of the trainable parameters of a module that none of these nodes has."""
    named = dict(module.named_parameters(remove_duplicate=False))
    names = {name for node in nodes for name in node.parameters.values()}
    used = {id(named.get(n)) for name in names for n in (name, *rules.tensors(name))}
    return [n for n, p in module.named_parameters() if p.requires_grad and id(p) not in used]


def second_biases(module: torch.nn.Module, parameters) -> list[str]:
    """The names of trained biases that are added to another one which is trained: Keras has the sum."""
    named = dict(module.named_parameters(remove_duplicate=False))
    sums = [rules.tensors(name) for name in parameters if rules.SUM in name]
    return [two for one, two in sums if all(n in named and named[n].requires_grad for n in (one, two))]


def said_twice(names: list[str]) -> str:
    """A sentence on such parameters."""
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return (
        f"torch trains two biases where Keras has their sum, which moves half as far in training: freeze {shown} "
        "to train it as Keras does"
    )


def said_unused(names: list[str]) -> str:
    """A sentence on such parameters."""
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"no output depends on {len(names)} trainable parameter(s), which the Keras model is without: {shown}"


def _value(node, index: int | None = None) -> Value:
    tensor = node.meta["val"] if index is None else node.meta["val"][index]
    symbols = tuple(d if isinstance(d, int) else _symbol(str(d)) for d in tensor.shape)
    return Value(
        node.name if index is None else f"{node.name}:{index}",
        tuple(d if isinstance(d, int) else None for d in symbols),
        str(tensor.dtype).removeprefix("torch."),
        symbols=symbols,
    )


def _symbol(text: str) -> str | int:
    """An open size, or the number that it always is: n // (n // 8), where n is a multiple of 8."""
    number = expressions.constant(text) if "//" in text else None
    return text if number is None else number


def _made(node) -> Value | list[Value]:
    values = node.meta["val"]
    return [_value(node, i) for i in range(len(values))] if isinstance(values, (list, tuple)) else _value(node)


def _stack(node, paths) -> list[tuple[str, str, str]]:
    """(key, path, class) of the modules around a node, outermost first; the key tells two calls of one module apart."""
    return [(key, paths.get(path, path), kind) for key, (path, kind) in node.meta.get("nn_module_stack", {}).items()]


def _origin(node, paths) -> tuple[str, str]:
    stack = _stack(node, paths)
    return (stack[-1][1], stack[-1][2].split(".")[-1]) if stack else ("", "")


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


def _read(rule, call: TorchOperation) -> list[Node]:
    """What a rule makes of an operator; a weight that it overlooks has to flow, or would be lost in silence."""
    tensor = call.arguments.get("self", call.arguments.get("input"))
    if call.state and isinstance(tensor, str) and "class" not in call.arguments and not hasattr(rule, "OPERANDS"):
        raise Unsupported(f"{call.target} of a weight")
    nodes = chain(rule.read_torch(call), call.inputs, call.outputs)
    used = {n for node in nodes for name in node.parameters.values() for n in (name, *rules.tensors(name))}
    lost = [name for name, array, trained in call.state.values() if name not in used and (array.size > 1 or trained)]
    if lost and "class" not in call.arguments:
        raise Unsupported(f"{call.target} of the weights {', '.join(lost)}")
    return nodes


def _promote(call: TorchOperation) -> list[Node]:
    """Conversions of floats that an operator makes of another size, as torch does on its own and Keras' layers too."""
    made = call.outputs[0]
    floats = {x.name: x for x in call.inputs if "float" in x.dtype and x.dtype != made.dtype}
    if call.target not in PROMOTES or len(call.inputs) < 2 or not floats or "float" not in made.dtype:
        return []
    other = {n: replace(x, name=f"{made.name}:{n}", dtype=made.dtype) for n, x in floats.items()}

    def put(x):
        return other.get(x.name, x) if isinstance(x, Value) else x

    call.inputs[:] = map(put, call.inputs)
    for name, x in call.arguments.items():
        call.arguments[name] = map_structure(put, x) if isinstance(x, (list, tuple)) else put(x)
    return [Node("cast", {"dtype": made.dtype}, inputs=[floats[n]], outputs=[x]) for n, x in other.items()]


def _owns(path, node, modules) -> bool:
    """A node goes by a module's name where that module has no children: it is a layer."""
    return bool(path) and path in modules and not {name for name, _ in modules[path].named_children()} - {PARTS}


def _holder(held: dict[str, tuple[str, np.ndarray, bool]]) -> str:
    """The path of the layer whose weights an operator takes: F.linear(x, self.proj.weight) is `proj`.

    So is F.linear(x, self.proj_weight), as nn.MultiheadAttention has it.
    """
    names = {argument: name for argument, (name, _, _) in held.items()}
    paths = {re.sub(rf"[._]{argument}$", "", name) for argument, name in names.items()}
    return paths.pop() if len(paths) == 1 and not paths & set(names.values()) else ""


def _holds(module) -> bool:
    """Tell whether a layer has weights: what it does without them, such as padding, is not the layer."""
    return any(True for _ in module.parameters(recurse=False))


def _outputs(program, node, values):
    flat = [
        values.get(x.name) if isinstance(x, torch.fx.Node) else None
        for x in torch.fx.graph.map_arg(node.args[0], lambda n: n)
    ]
    if wrong := [
        f"output {i} is {'no tensor computed from its inputs' if isinstance(x, torch.fx.Node) else x}"
        for i, (x, v) in enumerate(zip(node.args[0], flat, strict=True))
        if v is None
    ]:
        raise BridgeError(f"the module returns what is no tensor: {', '.join(wrong)}. Return the tensors alone")
    return map_structure(lambda v: v, torch.utils._pytree.tree_unflatten(flat, program.call_spec.out_spec))
