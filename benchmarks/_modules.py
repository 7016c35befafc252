"""The torch modules that benchmarks/peers_to_keras.py gives to every converter, with live random weights.

Of torchvision, and small ones as people write them: a U-Net (Ronneberger et al., 2015,
https://arxiv.org/abs/1505.04597), DCGAN's two networks (Radford et al., 2015, https://arxiv.org/abs/1511.06434) with
64 x 64 pictures, and a transformer's encoder (Vaswani et al., 2017, https://arxiv.org/abs/1706.03762).
"""

import itertools
import sys
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "bridge")]
from conftest import live_torch  # noqa: E402

from bridge.onnx import import_torchvision  # noqa: E402

import_torchvision()  # nobuco imports it too
PICTURES = (2, 3, 64, 96)


class UNet(nn.Module):
    """Pictures `(B, 3, H, W)` to logits `(B, 1, H, W)`; H and W are multiples of 4."""

    def __init__(self, widths=(16, 32, 64)):
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.down = nn.ModuleList(map(convolutions, (3, *widths), widths))
        deep = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(i, o, 2, 2) for i, o in deep)
        self.joined = nn.ModuleList(convolutions(2 * o, o) for _, o in deep)
        self.logits = nn.Conv2d(widths[0], 1, 1)

    def forward(self, x):
        skips = []
        for down in self.down:
            skips.append(down(self.pool(skips[-1]) if skips else x))
        x = skips.pop()
        for up, joined in zip(self.up, self.joined, strict=True):
            x = joined(torch.cat([skips.pop(), up(x)], 1))
        return self.logits(x)


def convolutions(channels: int, width: int) -> nn.Sequential:
    """Two convolutions and the Dropout behind them."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Dropout2d(0.1),
    )


def generator(width: int = 32) -> nn.Sequential:
    """Noise `(B, 100, 1, 1)` to pictures `(B, 3, 64, 64)`."""
    widths = (100, 8 * width, 4 * width, 2 * width, width)
    steps = []
    for i, (before, after) in enumerate(itertools.pairwise(widths)):
        steps += [
            nn.ConvTranspose2d(before, after, 4, 2 if i else 1, 1 if i else 0, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(True),
        ]
    return nn.Sequential(*steps, nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh())


def discriminator(width: int = 32) -> nn.Sequential:
    """Pictures `(B, 3, 64, 64)` to one probability each, `(B, 1)`."""
    steps = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
    for i in range(3):
        before, after = width * 2**i, width * 2 ** (i + 1)
        steps += [nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(0.2, inplace=True)]
    return nn.Sequential(*steps, nn.Conv2d(8 * width, 1, 4, bias=False), nn.Flatten(), nn.Sigmoid())


def encoder(width: int = 64) -> nn.TransformerEncoder:
    """Tokens `(B, T, width)` to as many."""
    layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.1, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


class Block(nn.Module):
    """A layer of an encoder in plain tensor operations, as nanoGPT has it."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width), nn.Dropout(0.1))

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).split(width, 2)
        q, k, v = (t.view(batch, length, self.heads, width // self.heads).transpose(1, 2) for t in (q, k, v))
        scores = torch.softmax(q @ k.transpose(-2, -1) / (width // self.heads) ** 0.5, -1)
        x = x + self.out((scores @ v).transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm2(x))


def torchvisions(name: str, **options):
    """The function that makes one of torchvision's networks."""
    return lambda: getattr(import_torchvision().models, name)(weights=None, **options)


# name -> (the function that makes it, the shape of its input)
MODULES = {
    "resnet18": (torchvisions("resnet18"), PICTURES),
    "mobilenet_v2": (torchvisions("mobilenet_v2"), PICTURES),
    "densenet121": (torchvisions("densenet121"), PICTURES),
    "vit_b_16": (torchvisions("vit_b_16", image_size=64), (2, 3, 64, 64)),
    "U-Net": (UNet, PICTURES),
    "DCGAN generator": (generator, (2, 100, 1, 1)),
    "DCGAN discriminator": (discriminator, (2, 3, 64, 64)),
    "nn.TransformerEncoder": (encoder, (2, 12, 64)),
    "encoder by hand": (lambda: nn.Sequential(*(Block(64, 4) for _ in range(2))), (2, 12, 64)),
}
# what a tool does once, before it is timed
SMALL = (lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU()), (2, 3, 12, 20))


def living(make, shape) -> tuple[nn.Module, torch.Tensor]:
    """The module in eval mode, and an input of that shape on which its statistics were not taken."""
    draw = torch.Generator().manual_seed(1)
    torch.manual_seed(0)
    module = live_torch(make(), torch.randn(8, *shape[1:], generator=draw))
    return module, torch.randn(shape, generator=draw)
