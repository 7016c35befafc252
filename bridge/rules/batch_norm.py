"""Batch normalisation: keras.layers.BatchNormalization <-> torch.nn.BatchNorm{1,2,3}d.

torch's momentum is 1 - Keras'; epsilon is 1e-3 in Keras and 1e-5 in torch. In training torch puts the unbiased
variance, n/(n-1) of Keras' biased one, into the running variance; a helper does as Keras does where that is asked for.
A frozen Keras layer works with its moving statistics in training too; torch needs a helper for that.

With a mask Keras' statistics in training leave out what is masked, and both moments, biased, are of a count that is
1e-7 too large; a helper does the same. A mask is True for what counts and lacks one axis of the input, in Keras the
last one. In inference it does nothing, so that torch.export is shown it by a `torch.where` that chooses nothing.
"""

from dataclasses import replace

import numpy as np

from bridge.graph import Node, Unsupported, Value
from bridge.layout import Context, Placement, channel_order, channels
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source, parameter
from bridge.rules.reduction import reduction

OPERATORS = ("batch_norm",)
AUTOCAST = "as given"
KERAS = ("BatchNormalization",)
ARGUMENTS = ("mask",)
MIXED = True  # its weights may be of another dtype than its input
OVERWRITABLE = True
STATISTICS = ("moving_mean", "moving_variance")

WEIGHTS = {
    "gamma": ("weight", "c -> c"),
    "beta": ("bias", "c -> c"),
    "moving_mean": ("running_mean", "c -> c"),
    "moving_variance": ("running_var", "c -> c"),
}
EPSILON = 1e-7  # of keras.config, which Keras adds to the count of what is not masked
HELPERS = (
    {
        f"FrozenBatchNorm{n}d": f'''
        class FrozenBatchNorm{n}d(nn.BatchNorm{n}d):
            """Batch normalisation that uses its running statistics in training too, as a frozen Keras layer does."""

            def train(self, mode=True):
                return super().train(False)
        '''
        for n in (1, 2, 3)
    }
    | {
        f"BiasedBatchNorm{n}d": f'''
        class BiasedBatchNorm{n}d(nn.BatchNorm{n}d):
            """Batch normalisation whose running variance takes the batch's own, as in Keras, not n/(n-1) of it."""

            def forward(self, x):
                if not self.training:
                    return super().forward(x)
                with torch.no_grad():
                    variance, mean = torch.var_mean(x, [0, *range(2, x.dim())], correction=0)
                    self.running_mean.lerp_(mean, self.momentum)
                    self.running_var.lerp_(variance, self.momentum)
                    self.num_batches_tracked.add_(1)
                return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        '''
        for n in (1, 2, 3)
    }
    | {
        f"MaskedBatchNorm{n}d": f'''
        class MaskedBatchNorm{n}d(nn.BatchNorm{n}d):
            """Batch normalisation whose statistics leave out what is masked, biased and counted as Keras does.

            A mask is True for what counts; `lacking` is the dimension of the input that it has not.
            """

            def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True, lacking=1):
                super().__init__(num_features, eps, momentum, affine)
                self.lacking = lacking

            def forward(self, x, mask):
                if not self.training:
                    return super().forward(x)
                mask, dims = mask.unsqueeze(self.lacking), [0, *range(2, x.dim())]
                y = x.to(torch.promote_types(x.dtype, torch.float32))
                count = mask.expand_as(x).to(y.dtype).sum(dims, keepdim=True) + {EPSILON}
                mean = torch.where(mask, y, 0.0).sum(dims, keepdim=True) / count
                variance = torch.where(mask, y - mean, 0.0).square().sum(dims, keepdim=True) / count
                with torch.no_grad():
                    self.running_mean.lerp_(mean.flatten().to(self.running_mean.dtype), self.momentum)
                    self.running_var.lerp_(variance.flatten().to(self.running_var.dtype), self.momentum)
                    self.num_batches_tracked.add_(1)
                y = (y - mean) * torch.rsqrt(variance + self.eps)
                y = y if self.weight is None else y * self.weight.view_as(mean)
                y = y if self.bias is None else y + self.bias.view_as(mean)
                return y.to(x.dtype)
        '''
        for n in (1, 2, 3)
    }
)
SHOWN = tuple(name for name in HELPERS if name.startswith("Masked"))
EXACT = True  # its helper trains as Keras does, which torch's own module does not
TORCH = ("batch_norm", *HELPERS)


def LAYOUT(node: Node, context: Context) -> Placement:
    """The channel axis where the target has it or, for Keras with a mask, the axis that the mask lacks at the end."""
    if "lacking" not in node.attributes:
        return channels(node, context)
    lacking, axis = node["lacking"], node["axis"]
    order = channel_order(node.inputs[0].rank, axis if context.target == "first" else lacking, context.target)
    mask = tuple(a - (a > lacking) for a in order if a != lacking)
    return Placement([order, mask], [order], {"axis": order.index(axis), "lacking": order.index(lacking)})


def read_keras(layer: KerasLayer) -> list[Node]:
    c = layer.config
    axis = c["axis"] % layer.rank
    if axis == 0:
        raise Unsupported("axis=0 is the batch", "normalise another axis")
    if c["momentum"] == 1:
        raise Unsupported("momentum=1.0 never updates the moving statistics", "set trainable=False instead")
    if layer.arguments.get("training") is True:
        raise Unsupported(
            "it is called with training=True, so that it never uses its moving statistics",
            "leave `training` to the model",
        )
    frozen = not layer.trainable  # a recorded training=False is overruled by `fit` and `predict`
    mask = None if frozen else layer.arguments.get("mask")  # a frozen one takes no statistics
    if mask is not None and not isinstance(mask, Value):
        raise Unsupported("its mask is a constant", "let it flow")
    if mask is not None and mask.dtype != "bool":
        raise Unsupported(f"its mask is {mask.dtype}", "give booleans")
    if mask is not None and mask.rank != layer.rank - 1:
        raise Unsupported(f"its mask has rank {mask.rank}", f"give it one of rank {layer.rank - 1}, as Keras asks for")
    return [
        Node(
            "batch_norm",
            {
                "channels": layer.inputs[0].shape[axis],
                "axis": axis,
                "epsilon": c["epsilon"],
                "momentum": c["momentum"],
                "frozen": frozen,
            }
            | ({} if mask is None else {"lacking": layer.rank - 1}),
            layer.weights,
            layer.path,
            [] if mask is None else [layer.inputs[0], mask],
        )
    ]


def write_keras(node: Node) -> list[KerasCall]:
    return [
        KerasCall(
            "BatchNormalization",
            {
                "axis": node["axis"] if node["axis"] != node.inputs[0].rank - 1 else -1,
                "epsilon": node["epsilon"],
                "momentum": node["momentum"],
                "scale": "gamma" in node.parameters,
                "center": "beta" in node.parameters,
            },
            weights=True,
            names=("mask",) if "lacking" in node.attributes else (),
        )
    ]


def read_torch(call: TorchOperation) -> list[Node]:
    if call.arguments.get("training") is True and call.arguments.get("running_mean") is None:
        return _of_the_batch(call)
    weights = call.weights(WEIGHTS)
    if call.arguments.get("training") is True and call.target not in HELPERS:  # it was exported in eval mode
        raise Unsupported("it normalises by the batch at inference too", "use its running statistics in eval mode")
    if not call["momentum"]:  # torch.export shows None as 0
        raise Unsupported("momentum=None, the cumulative average, or 0", "give the module a momentum")
    masked = call.target in SHOWN
    if masked and [v.dtype for v in call.inputs[1:]] != ["bool"]:
        raise Unsupported("its mask is a constant or no booleans", "let it flow, as booleans")
    return [
        Node(
            "batch_norm",
            {
                "channels": call.inputs[0].shape[1],
                "axis": 1,
                "epsilon": call["eps"],
                "momentum": round(1 - call["momentum"], 12),
                # whatever is trained: in training any other takes the batch's statistics
                "frozen": call.target.startswith("Frozen"),
            }
            | ({"lacking": call["lacking"] % call.inputs[0].rank} if masked else {}),
            weights,
            call.path,
            list(call.inputs) if masked else [],
        )
    ]


def _of_the_batch(call: TorchOperation) -> list[Node]:
    """What has no running statistics, as arithmetic: weight standardisation is often written so."""
    x, made = call["input"], call.outputs[0]
    weight, bias = call["weight"], call["bias"]
    if isinstance(weight, str) or isinstance(bias, str):
        raise Unsupported("its weights do not flow", "let them flow")  # the reader does so
    gone = [a for a in range(x.rank) if a != 1]
    small = tuple(1 if a in gone else n for a, n in enumerate(x.shape))
    names = ("mean", "centered", "variance", "stable", "inverse", "normalised")
    mean, centered, variance, stable, inverse, normalised = (replace(made, name=f"{made.name}:{n}") for n in names)
    mean, variance, stable, inverse = (replace(v, shape=small, symbols=()) for v in (mean, variance, stable, inverse))
    nodes = [
        replace(reduction("mean", gone, x.rank, True, ""), inputs=[x], outputs=[mean]),
        Node("subtract", inputs=[x, mean], outputs=[centered]),
        replace(reduction("var", gone, x.rank, True, ""), inputs=[x], outputs=[variance]),
        Node("add", {"number": call["eps"]}, inputs=[variance], outputs=[stable]),
        Node("elementwise", {"function": "rsqrt"}, inputs=[stable], outputs=[inverse]),
        Node("multiply", inputs=[centered, inverse], outputs=[normalised]),
    ]
    if weight is not None:
        aligned = parameter.along(1, weight, made)
        scaled = Node("multiply", inputs=[normalised, *aligned.outputs], outputs=[made])
        nodes += [aligned, scaled]
    nodes[-1].name = call.path
    return parameter.with_bias(nodes, 1, bias, made)


def write_torch(node: Node) -> TorchCall:
    weights = {r: w for r, w in WEIGHTS.items() if r in node.parameters}
    rank = max(1, node.inputs[0].rank - 2)
    if rank > 3:
        raise Unsupported(f"input of rank {node.inputs[0].rank}", "reshape it to rank 5 or less")
    function, helpers = f"nn.BatchNorm{rank}d", ()
    if node["frozen"] or node.attributes.get("exact"):
        function = f"{'Frozen' if node['frozen'] else 'Biased'}BatchNorm{rank}d"
        helpers = (function,)
    masked = "lacking" in node.attributes
    if masked:
        function, helpers = f"MaskedBatchNorm{rank}d", (f"MaskedBatchNorm{rank}d",)
    options = {"eps": node["epsilon"], "momentum": round(1 - node["momentum"], 12)}
    if masked and node["lacking"] != 1:
        options["lacking"] = node["lacking"]
    missing = [w for r, (w, _) in WEIGHTS.items() if r not in node.parameters]
    if len(missing) == 2:
        options["affine"] = False
    setup = tuple(f'{{self}}.register_parameter("{w}", None)' for w in missing if len(missing) == 1)
    state = {"num_batches_tracked": np.array(0)}
    module = call_source(function, node["channels"], **options)
    return TorchCall("{self}({all})", module, weights, state, setup, helpers)


def torch_statistics(role: str, before: np.ndarray, after: np.ndarray, node: Node, shape) -> np.ndarray:
    """What torch's running statistics are after a step in which Keras' went from `before` to `after`."""
    if role != "moving_variance" or node["frozen"] or "lacking" in node.attributes or shape is None:
        return after
    count = int(np.prod(shape)) // node["channels"]
    kept = node["momentum"] * before
    return kept + (after - kept) * count / max(1, count - 1)
