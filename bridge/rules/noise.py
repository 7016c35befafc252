"""Noise in training: keras.layers.{GaussianNoise, GaussianDropout}; torch has no modules for it, so helpers do it.

Noise is compared by its strength, as random streams never match. Layers that change images in training alone pass them
on in inference, and are no part of the torch module, where they belong into the data pipeline: a note says so.
RandomCrop leaves an image as it is in inference, although it says that it makes another size.
"""

from bridge.graph import Node, Unsupported
from bridge.layout import anything
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source, identity

# operator -> (Keras layer and torch helper, its entry of the configuration)
KINDS = {"gaussian_noise": ("GaussianNoise", "stddev"), "gaussian_dropout": ("GaussianDropout", "rate")}
AUGMENTATIONS = (  # the last is not random
    *("AugMix", "CutMix", "MixUp", "RandAugment"),
    *("RandomBrightness", "RandomColorDegeneration", "RandomColorJitter", "RandomContrast", "RandomCrop"),
    *("RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGaussianBlur", "RandomGrayscale", "RandomHue"),
    *("RandomInvert", "RandomPerspective", "RandomPosterization", "RandomRotation", "RandomSaturation"),
    *("RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom", "Solarization"),
)

HELPERS = {
    "GaussianNoise": '''
        class GaussianNoise(nn.Module):
            """In training, add normal numbers of this standard deviation."""

            def __init__(self, stddev):
                super().__init__()
                self.stddev = stddev

            def forward(self, x):
                return x + self.stddev * torch.randn_like(x) if self.training else x
        ''',
    "GaussianDropout": '''
        class GaussianDropout(nn.Module):
            """In training, multiply by normal numbers of mean 1 that vary as much as Dropout of this rate."""

            def __init__(self, rate):
                super().__init__()
                self.rate = rate

            def forward(self, x):
                stddev = (self.rate / (1 - self.rate)) ** 0.5
                return x * (1 + stddev * torch.randn_like(x)) if self.training else x
        ''',
}
OPERATORS = tuple(KINDS)
REFUSED = ("AutoContrast", "ContrastLimitedAdaptiveHistogramEqualization", "MaxNumBoundingBoxes", "MelSpectrogram")
PASSED = CASTS = (*AUGMENTATIONS, "Pipeline")
KERAS = (*(layer for layer, _ in KINDS.values()), *PASSED, *REFUSED)
TORCH = tuple(HELPERS)
LAYOUT = anything
RANDOM = ("stddev", "rate")
PASSING = dict(KINDS.values())


def read_keras(layer: KerasLayer) -> list[Node]:
    if layer.class_name in REFUSED:
        reason = "it prepares data, in inference too, and there is no rule for it"
        raise Unsupported(reason, "put it into the data pipeline, as by dataset.map, and leave it out")
    if layer.class_name in PASSED:
        return _passed(layer)
    operator, (_, option) = _kind(layer.class_name)
    if layer.arguments.get("training") and layer.config[option]:
        raise Unsupported(
            "it is called with training=True, so that the network is random in inference too",
            "leave it to the model's own mode",
        )
    if option == "rate" and layer.config[option] == 1:
        raise Unsupported("rate=1 is noise without bounds", "give a rate below 1")
    return [Node(operator, {option: float(layer.config[option])}, name=layer.path)]


def _passed(layer: KerasLayer) -> list[Node]:
    """What changes images in training alone; Keras records its default, training=True, which `predict` overrules."""
    x, made, remedy = layer.inputs[0], layer.outputs[0], "put it into the data pipeline, as by dataset.map"
    others = [k for k in _kinds(layer.operation) if k not in PASSED]
    if others:
        raise Unsupported(f"it holds {', '.join(others)}", "call its layers one after the other")
    if len(layer.inputs) > 1 or x.dtype != made.dtype:
        given = ", ".join(v.dtype for v in layer.inputs)
        raise Unsupported(f"it is called with {given}", f"give it one tensor of {made.dtype}, or {remedy}")
    if x.shape != made.shape:
        sizes = f"it says that it makes {made.shape} of {x.shape}, and in inference makes what it is given"
        raise Unsupported(sizes, f"{remedy}, or use CenterCrop")
    note = f"{layer.path}: {layer.class_name} changes images in Keras' training, and not in the torch module's"
    layer.notes += [note] if note not in layer.notes else []
    return identity.cast(x, made.dtype, layer.path)


def _kinds(operation) -> list[str]:
    """The classes of the layers in a Pipeline, or of the one layer that it is."""
    inside = operation.layers if type(operation).__name__ == "Pipeline" else None
    return [type(operation).__name__] if inside is None else [k for x in inside for k in _kinds(x)]


def _kind(name: str) -> tuple[str, tuple[str, str]]:
    return next((operator, kind) for operator, kind in KINDS.items() if kind[0] == name)


def write_keras(node: Node) -> list[KerasCall]:
    layer, option = KINDS[node.operator]
    return [KerasCall(layer, {option: node[option]})]


def read_torch(call: TorchOperation) -> list[Node]:
    operator, (_, option) = _kind(call.target)
    return [Node(operator, {option: float(call[option])}, name=call.path)]


def write_torch(node: Node) -> TorchCall:
    helper, option = KINDS[node.operator]
    return TorchCall("{self}({0})", call_source(helper, node[option]), helpers=(helper,))
