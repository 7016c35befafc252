"""Noise in training: keras.layers.{GaussianNoise, GaussianDropout}; torch has no modules for it, so helpers do it.

Noise is compared by its strength, as random streams never match. Layers that change images at random are refused: torch
has them in the data pipeline, where they belong in Keras, too.
"""

from bridge.graph import Node, Unsupported
from bridge.layout import anything
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source

# operator -> (Keras layer and torch helper, its entry of the configuration)
KINDS = {"gaussian_noise": ("GaussianNoise", "stddev"), "gaussian_dropout": ("GaussianDropout", "rate")}
AUGMENTATIONS = (
    *("AugMix", "CutMix", "MixUp", "RandAugment"),
    *("RandomBrightness", "RandomColorDegeneration", "RandomColorJitter", "RandomContrast", "RandomCrop"),
    *("RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGaussianBlur", "RandomGrayscale", "RandomHue"),
    *("RandomInvert", "RandomPerspective", "RandomPosterization", "RandomRotation", "RandomSaturation"),
    *("RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom"),
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
KERAS = (*(layer for layer, _ in KINDS.values()), *AUGMENTATIONS)
TORCH = tuple(HELPERS)
LAYOUT = anything
RANDOM = ("stddev", "rate")
PASSING = dict(KINDS.values())


def read_keras(layer: KerasLayer) -> list[Node]:
    if layer.class_name in AUGMENTATIONS:
        raise Unsupported(
            "it changes images at random in training",
            "put it into the data pipeline, as by dataset.map, and leave it out",
        )
    operator, (_, option) = _kind(layer.class_name)
    if layer.arguments.get("training") and layer.config[option]:
        raise Unsupported(
            "it is called with training=True, so that the network is random in inference too",
            "leave it to the model's own mode",
        )
    if option == "rate" and layer.config[option] == 1:
        raise Unsupported("rate=1 is noise without bounds", "give a rate below 1")
    return [Node(operator, {option: float(layer.config[option])}, name=layer.path)]


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
