"""Elementwise activations: `activation=`, keras.layers.{Activation, ReLU, ...}, keras.ops <-> torch.nn, F.relu, ...

A node has a function and its options, under Keras' names. The same function has many names, of which the normal form
keeps one: ReLU(max_value=6), relu6, Hardtanh(0, 6) and clamp(0, 6) are "clip"; ReLU(threshold=1) is "threshold".

Defaults are the trap: keras.ops.gelu is the tanh approximation, keras.activations.gelu is not; a leaky slope is 0.3 in
Keras' layer, 0.2 in its function and 0.01 in torch. torch's Softplus is the identity beyond 20, which is 1e-10 off.
Of whole numbers relu and clip are bounds (`bridge.rules.elementwise`): Keras' layers would make floats of them.
At a kink itself the gradients may differ: selu and celu at 0, hard_tanh and clip at their bounds.
"""

import math
import numbers
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bridge.graph import Node, Unsupported, Value
from bridge.layout import anything, identity
from bridge.rules import (
    KerasCall,
    KerasLayer,
    TorchCall,
    TorchOperation,
    call_source,
    elementwise,
    for_torch,
    literal,
    softmax,
)


@dataclass(frozen=True)
class Function:
    """What torch calls a function, and its options: name -> (Keras' default, torch's name, torch's default).

    `module` is a class of torch.nn or a helper, `call` a function; without one torch has no such module, or
    torch.export would take the function apart.
    """

    module: str = ""
    call: str = ""
    options: dict[str, tuple[Any, str, Any]] = field(default_factory=dict)


FUNCTIONS = {
    "bounded_relu": Function(
        "BoundedReLU",
        "",
        {
            "negative_slope": (0.0, "negative_slope", 0.0),
            "max_value": (None, "max_value", None),
            "threshold": (0.0, "threshold", 0.0),
        },
    ),
    "celu": Function("nn.CELU", "F.celu", {"alpha": (1.0, "alpha", 1.0)}),
    "clip": Function("nn.Hardtanh", "F.hardtanh", {"x_min": (None, "min_val", -1.0), "x_max": (None, "max_val", 1.0)}),
    "elu": Function("nn.ELU", "F.elu", {"alpha": (1.0, "alpha", 1.0)}),
    "exponential": Function("", "torch.exp"),
    "gelu": Function("nn.GELU", "F.gelu", {"approximate": (False, "approximate", "none")}),
    "hard_shrink": Function("nn.Hardshrink", "F.hardshrink", {"threshold": (0.5, "lambd", 0.5)}),
    "hard_sigmoid": Function("nn.Hardsigmoid", "F.hardsigmoid"),
    "hard_silu": Function("nn.Hardswish", "F.hardswish"),
    "leaky_relu": Function("nn.LeakyReLU", "F.leaky_relu", {"negative_slope": (0.2, "negative_slope", 0.01)}),
    "log_sigmoid": Function("nn.LogSigmoid", "F.logsigmoid"),
    "mish": Function("nn.Mish", "F.mish"),
    "relu": Function("nn.ReLU", "F.relu"),
    "selu": Function("nn.SELU", "F.selu"),
    "sigmoid": Function("nn.Sigmoid", "torch.sigmoid"),
    "silu": Function("nn.SiLU", "F.silu"),
    "soft_shrink": Function("nn.Softshrink", "F.softshrink", {"threshold": (0.5, "lambd", 0.5)}),
    "softplus": Function("nn.Softplus", "F.softplus"),
    "softsign": Function("nn.Softsign"),
    "sparse_plus": Function("SparsePlus"),
    "sparse_sigmoid": Function("SparseSigmoid"),
    "squareplus": Function("Squareplus", "", {"b": (4.0, "b", 4.0)}),
    "tanh": Function("nn.Tanh", "torch.tanh"),
    "tanh_shrink": Function("nn.Tanhshrink"),
    "threshold": Function(
        "nn.Threshold", "F.threshold", {"threshold": (None, "threshold", None), "default_value": (None, "value", None)}
    ),
}

HELPERS = {
    "BoundedReLU": '''
        class BoundedReLU(nn.Module):
            """x above the threshold, at most max_value; negative_slope * (x - threshold) below it."""

            def __init__(self, negative_slope=0.0, max_value=None, threshold=0.0):
                super().__init__()
                self.negative_slope, self.max_value, self.threshold = negative_slope, max_value, threshold

            def forward(self, x):
                above = torch.where(x > self.threshold, x, 0)
                if self.max_value is not None:
                    above = above.clamp(0, self.max_value)
                return above - self.negative_slope * F.relu(self.threshold - x)
        ''',
    "SparsePlus": '''
        class SparsePlus(nn.Module):
            """0 up to -1, x from 1 on, (x + 1)^2 / 4 between them."""

            def forward(self, x):
                return torch.where(x <= -1, 0, torch.where(x < 1, (x + 1) ** 2 / 4, x))
        ''',
    "SparseSigmoid": '''
        class SparseSigmoid(nn.Module):
            """0 up to -1, 1 from 1 on, (x + 1) / 2 between them."""

            def forward(self, x):
                return (F.hardtanh(x) + 1) / 2
        ''',
    "Squareplus": '''
        class Squareplus(nn.Module):
            """(x + sqrt(x^2 + b)) / 2."""

            def __init__(self, b=4.0):
                super().__init__()
                self.b = b

            def forward(self, x):
                return (x + torch.sqrt(x * x + self.b)) / 2
        ''',
}

# Names that are read -> function. A layer or function of Keras that is one function with options; ATen and torch.nn.
LAYERS = {"ReLU": "bounded_relu", "LeakyReLU": "leaky_relu", "ELU": "elu"}
OPERATIONS = {"ops." + "".join(map(str.title, name.split("_"))): name for name in FUNCTIONS if name != "bounded_relu"}
OPERATIONS |= {"ops.ReLU": "bounded_relu", "ops.Exp": "exponential", "ops.Relu6": "relu6", "ops.HardTanh": "hard_tanh"}
ATEN = {f.call.split(".")[1] if f.call else f.module: name for name, f in FUNCTIONS.items()}
ATEN |= {"rrelu": "leaky_relu", "relu6": "relu6", "log_sigmoid": "log_sigmoid", "clamp": "clip", "clip": "clip"}

OPERATORS = ("activation",)
AUTOCAST = "as given"
KERAS = ("Activation", *LAYERS, *OPERATIONS)
TORCH = tuple(ATEN)
LAYOUT = anything


def LIMIT(node: Node) -> float:
    """What a framework computes in float32, or with a constant that it holds in float32."""
    match node.attributes:
        case {"function": "gelu", "approximate": approximate}:
            # TensorFlow's 0.044715, and its sqrt(2) where a whole tensor is far below 0
            return 2e-9 if approximate else 1e-7
        case {"function": "leaky_relu", "negative_slope": constant}:  # TensorFlow's slope
            return _rounded(constant)
        case {"x_min": 0.0, "x_max": constant} | {"max_value": float(constant)}:  # the maximum of Keras' ReLU
            return _rounded(constant)
        case {"function": "hard_sigmoid"} | {"function": "celu"}:  # 1/6 and 1/alpha in torch's gradient
            return 1e-9
        case {"function": "softplus"}:
            return 1e-10
    return 0.0


def _rounded(constant: float) -> float:
    """How far a number is from what float32 makes of it, relative."""
    return abs(float(np.float32(constant)) / constant - 1)


def activation(function: str, options: dict | None = None, name: str = "") -> Node:
    """Return the normal form of a function with its options."""
    if function in ("relu6", "hard_tanh"):
        function, options = "clip", {"x_min": 0, "x_max": 6} if function == "relu6" else {"x_min": -1, "x_max": 1}
    o = {k: _plain(k, v) for k, v in (options or {}).items()}
    if function == "bounded_relu":
        slope, top, start = o["negative_slope"], o["max_value"], o["threshold"]
        if top is None and not start:
            function, o = "leaky_relu", {"negative_slope": slope}
        elif top is None and not slope:
            function, o = "threshold", {"threshold": start, "default_value": 0.0}
        elif not slope and not start:
            function, o = "clip", {"x_min": 0.0, "x_max": top}
    if function in ("leaky_relu", "threshold") and not any(o.values()):
        function, o = "relu", {}
    match {"function": function, **o}:
        case {"x_min": low, "x_max": high} if low >= high:
            raise Unsupported(f"its values lie between {low} and {high}", "give a maximum above the minimum")
        case {"function": "bounded_relu", "max_value": float(high)} if high < 0:
            raise Unsupported(f"max_value={high}", "give a maximum of 0 or more")
        case {"function": "soft_shrink", "threshold": width} if width < 0:
            raise Unsupported(f"threshold={width}", "give a threshold of 0 or more")
        case {"function": "celu", "alpha": 0.0}:
            raise Unsupported("alpha=0.0 divides by zero", "give another alpha")
    return Node("activation", {"function": function, **o}, name=name)


def _plain(option: str, value):
    """An option as the graph holds it: a truth value, None where it may be, or a finite float."""
    if (option == "approximate" and isinstance(value, bool)) or (option == "max_value" and value is None):
        return value
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not math.isfinite(value):
        raise Unsupported(f"{option}={value!r} is not a finite number", "give it as a plain number")
    return float(value)


# Names in keras.activations -> attributes of the normal form.
NAMED = {
    name: activation(name, {k: keras for k, (keras, _, _) in f.options.items()}).attributes
    for name, f in FUNCTIONS.items()
    if name not in ("bounded_relu", "clip", "threshold")
}
NAMED |= {name: activation(name).attributes for name in ("relu6", "hard_tanh")}


def from_config(given, axis: int, name: str = "") -> list[Node]:
    """Read what a Keras layer has as `activation`.

    Args:
        given: The name of a function, or a layer as Keras writes it into a configuration.
        axis: The last axis of the layer's output, over which Keras normalises, whatever its `data_format`.
        name: The name of the node, if it is a layer of its own.

    Returns:
        One node, or none for "linear".
    """
    if given is None or given == "linear":
        return []
    if isinstance(given, dict):
        if given.get("module") == "keras.layers" and given.get("class_name") in ("Activation", "Softmax", *LAYERS):
            return _from_layer(given["class_name"], given["config"], axis, name)
        given = given["config"] if isinstance(given.get("config"), str) else given.get("class_name")
    elif given in softmax.NAMED:
        return [softmax.softmax(given, axis, axis + 1, name)]
    elif given in NAMED:
        return [Node("activation", dict(NAMED[given]), name=name)]
    if given == "glu":
        raise Unsupported("activation='glu' halves the channels without Keras' noticing", "call keras.ops.glu")
    raise Unsupported(f"activation={given!r}", "use one of keras.activations, or make it a layer of its own")


def _from_layer(kind: str, config: dict, axis: int, name: str) -> list[Node]:
    if kind == "Activation":
        return from_config(config["activation"], axis, name)
    if kind == "Softmax":
        return [softmax.softmax("softmax", config["axis"], axis + 1, name)]
    return [activation(LAYERS[kind], _options(LAYERS[kind], config), name)]


def _options(function: str, config: dict) -> dict:
    names = FUNCTIONS[function].options if function in FUNCTIONS else ()
    if missing := [k for k in names if k not in config]:
        raise Unsupported(f"its {' and '.join(missing)} cannot be read back from Keras", "give plain numbers")
    return {k: config[k] for k in names}


def read_keras(layer: KerasLayer) -> list[Node]:
    if layer.class_name in OPERATIONS:
        function = OPERATIONS[layer.class_name]
        if "float" not in layer.inputs[0].dtype:
            bounds = _bounds(function, _options(function, layer.config))
            if any(isinstance(n, float) for n in bounds):
                raise Unsupported(f"{bounds} of {layer.inputs[0].dtype}, which TensorFlow refuses", "give whole ones")
            return _of_whole_numbers(function, *bounds, layer)
        return [activation(function, _options(function, layer.config), layer.path)]
    nodes = _from_layer(layer.class_name, layer.config, layer.rank - 1, layer.path)
    return nodes or [Node("permute", {"permutation": identity(layer.rank)}, name=layer.path)]


def _of_whole_numbers(function: str, low, high, source: KerasLayer | TorchOperation) -> list[Node]:
    """Nodes for the bounds of whole numbers, which stay what they are."""
    x, made = source.inputs[0], source.outputs[0]
    if "int" not in x.dtype or x.dtype != made.dtype or low is None:
        raise Unsupported(f"{function} of {x.dtype}", "convert the tensor to a float dtype before")
    if high is None:
        return [elementwise.bound("maximum", low, x.dtype, source.path)]
    if low > high:
        raise Unsupported(f"its values lie between {low} and {high}", "give a maximum above the minimum")
    above = elementwise.bound("maximum", low, x.dtype)
    return [above, elementwise.bound("minimum", high, x.dtype, source.path)]


def _bounds(function: str, options: dict) -> tuple:
    """Between what numbers a function keeps a tensor as it is; nothing where it does other things."""
    if function == "bounded_relu" and not options["negative_slope"] and not options["threshold"]:
        return 0, options["max_value"]
    if function == "clip":
        return options["x_min"], options["x_max"]
    return {"relu": (0, None), "relu6": (0, 6)}.get(function, (None, None))


def write_keras(node: Node) -> list[KerasCall]:
    layer = _layer(node)
    name = next((name for name, attributes in NAMED.items() if attributes == node.attributes), None)
    if name and not (layer and node.name):
        return [KerasCall("Activation", {"activation": name})]
    function, options = node["function"], {k: v for k, v in node.attributes.items() if k != "function"}
    if function == "bounded_relu" and not layer:
        raise Unsupported(f"a ReLU with {options}", "Keras' has no negative options")
    return [layer or KerasCall(f"ops.{function}", options)]


def _layer(node: Node) -> KerasCall | None:
    """The layer of Keras that is made for a function, if there is one."""
    match node.attributes:
        case {"function": "relu"}:
            return KerasCall("ReLU")
        case {"function": "clip", "x_min": 0.0, "x_max": top}:
            return KerasCall("ReLU", {"max_value": top})
        case {"function": "threshold", "threshold": start, "default_value": 0.0} if start > 0:
            return KerasCall("ReLU", {"threshold": start})
        case {"function": "bounded_relu", **options} if min(options["negative_slope"], options["threshold"]) >= 0:
            return KerasCall("ReLU", options)
        case {"function": "leaky_relu", "negative_slope": slope} if slope > 0:
            return KerasCall("LeakyReLU", {"negative_slope": slope})
        case {"function": "elu", "alpha": alpha}:
            return KerasCall("ELU", {"alpha": alpha})
    return None


def read_torch(call: TorchOperation) -> list[Node]:
    function, a = ATEN[call.target], dict(call.arguments)
    if call.target in ("clamp", "clip"):
        if None in (a["min"], a["max"]):
            bound, operator = (a["min"], "maximum") if a["max"] is None else (a["max"], "minimum")
            return for_torch(operator).read_torch(replace(call, target=operator, arguments={**a, "other": bound}))
        if isinstance(a["min"], Value) or isinstance(a["max"], Value):
            return _between(call)
        a = {**a, "min_val": a["min"], "max_val": a["max"]}
    x, made = call.inputs[0], call.outputs[0]
    if "float" not in x.dtype and "float" in made.dtype:  # torch converts them before
        floats = replace(x, name=f"{made.name}:float", dtype=made.dtype)
        cast = Node("cast", {"dtype": "float"}, inputs=[x], outputs=[floats])
        arguments = {k: floats if v == x else v for k, v in call.arguments.items()}
        nodes = read_torch(replace(call, inputs=[floats], arguments=arguments))
        return [cast, replace(nodes[0], inputs=nodes[0].inputs or [floats]), *nodes[1:]]
    if (a.get("scale", 1), a.get("input_scale", 1)) != (1, 1):
        raise Unsupported(f"elu with scale={a['scale']} and input_scale={a['input_scale']}", "leave them at 1")
    if call.target == "rrelu":  # in eval mode its slope is the mean of those that it draws
        a["negative_slope"] = (a["lower"] + a["upper"]) / 2
    if function == "gelu":
        a["approximate"] = a["approximate"] == "tanh"
    if function == "softplus":
        return _softplus(_plain("beta", a["beta"]), a["threshold"], call.path)
    options = FUNCTIONS[function].options if function in FUNCTIONS else {}
    options = {k: a[name] for k, (_, name, _) in options.items()}
    if "float" not in x.dtype:
        return _of_whole_numbers(function, *_bounds(function, options), call)
    return [activation(function, options, call.path)]


def _between(call: TorchOperation) -> list[Node]:
    """Nodes for a clamp, of whose bounds one is a tensor."""
    above = replace(call.outputs[0], name=f"{call.outputs[0].name}:above")
    first = replace(call, path="", arguments={**call.arguments, "max": None}, outputs=[above])
    second = replace(call, arguments={**call.arguments, "self": above, "min": None}, inputs=[above])
    nodes = read_torch(first)
    nodes[-1].outputs = [above]
    return [*nodes, *read_torch(second)]


def _softplus(beta: float, threshold: float, name: str) -> list[Node]:
    """torch's softplus: of beta * x, divided by beta."""
    if _plain("threshold", threshold) < 20:
        raise Unsupported(f"threshold={threshold} makes it the identity from there on", "give 20 or more")
    node = activation("softplus", name=name)
    return [node] if beta == 1 else [Node("multiply", {"number": beta}), node, Node("divide", {"number": beta})]


def write_torch(node: Node) -> TorchCall:
    function = FUNCTIONS[node["function"]]
    module, call = function.module, function.call
    options = {name: node[k] for k, (_, name, default) in function.options.items() if node[k] != default}
    if node["function"] == "gelu":
        options = {"approximate": "tanh"} if node["approximate"] else {}
    if node.attributes == NAMED["relu6"]:
        module, call, options = "nn.ReLU6", "F.relu6", {}
    in_place = None
    if node["function"] == "relu":  # saves writing the tensor a second time
        call_in_place = ("{self}({0})", "nn.ReLU(inplace=True)") if node.name else ("F.relu({0}, inplace=True)",)
        in_place = TorchCall(*call_in_place)
    if not call or (module and node.name):
        helpers = (module,) if module in HELPERS else ()
        return TorchCall("{self}({0})", call_source(module, **options), helpers=helpers, overwriting=in_place)
    arguments = ", ".join(["{0}", *(f"{k}={literal(v)}" for k, v in options.items())])
    return TorchCall(f"{call}({arguments})", overwriting=in_place)
