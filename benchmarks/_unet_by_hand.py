"""The default U-Net as one would write it by hand in torch: what tfzoo's and the bridge's are measured against."""

import torch
from torch import nn


class Convs(nn.Sequential):
    """Two 3x3 convolutions with ReLU."""

    def __init__(self, channels: int, width: int):
        super().__init__(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """U-Net with padded convolutions, widths as in `tfzoo.unet`."""

    def __init__(self, channels: int = 3, classes: int = 1, widths=(16, 32, 64, 128, 256)):
        super().__init__()
        self.down = nn.ModuleList(Convs(a, b) for a, b in zip((channels, *widths[:-1]), widths, strict=True))
        self.pool = nn.MaxPool2d(2)
        self.upsample = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in reversed(widths[:-1]))
        self.up = nn.ModuleList(Convs(2 * w, w) for w in reversed(widths[:-1]))
        self.logits = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x):
        skips = []
        for convs in self.down[:-1]:
            skips.append(convs(x))
            x = self.pool(skips[-1])
        x = self.down[-1](x)
        for upsample, convs in zip(self.upsample, self.up, strict=True):
            x = convs(torch.cat([skips.pop(), upsample(x)], 1))
        return self.logits(x)
