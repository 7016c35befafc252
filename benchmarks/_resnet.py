"""ResNet-50 written by hand, in each framework as its users write it; `bridge` knows nothing of them.

In torch it is that of keras.applications (He et al., 2015, https://arxiv.org/abs/1512.03385): the first convolution of
a block has the stride, and every convolution has a bias. In Keras it is torchvision's: the middle one has the stride,
no convolution has a bias, and every padding is written out.
"""

import keras
import torch
from torch import nn

BLOCKS = (3, 4, 6, 3)
WIDTHS = (64, 128, 256, 512)
layers = keras.layers


class Block(nn.Module):
    """Three convolutions around a skip connection."""

    def __init__(self, channels: int, width: int, stride: int, shortcut: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, stride)
        self.bn1 = nn.BatchNorm2d(width, eps=1.001e-5)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(width, eps=1.001e-5)
        self.conv3 = nn.Conv2d(width, 4 * width, 1)
        self.bn3 = nn.BatchNorm2d(4 * width, eps=1.001e-5)
        self.relu = nn.ReLU(inplace=True)
        self.conv0 = nn.Conv2d(channels, 4 * width, 1, stride) if shortcut else None
        self.bn0 = nn.BatchNorm2d(4 * width, eps=1.001e-5) if shortcut else None

    def forward(self, x):
        skip = self.bn0(self.conv0(x)) if self.conv0 else x
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        x += skip
        return self.relu(x)


class ResNet50(nn.Module):
    """The network of keras.applications: images `(B, 3, H, W)` to probabilities `(B, 1000)`."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 64, 7, 2, 3)
        self.bn = nn.BatchNorm2d(64, eps=1.001e-5)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, 2, 1)
        channels, stages = 64, []
        for i, (blocks, width) in enumerate(zip(BLOCKS, WIDTHS, strict=True)):
            stages.append(nn.Sequential())
            for j in range(blocks):
                stages[-1].append(Block(channels, width, 2 if i and not j else 1, not j))
                channels = 4 * width
        self.stages = nn.Sequential(*stages)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.dense = nn.Linear(channels, 1000)

    def forward(self, x):
        x = self.stages(self.pool(self.relu(self.bn(self.conv(x)))))
        x = torch.flatten(self.mean(x), 1)
        return torch.softmax(self.dense(x), 1)


def in_torch(state: dict[str, torch.Tensor]) -> nn.Module:
    """The network with a state dict under the names of Keras' layers, such as `conv2_block1_1_conv.weight`."""
    network = ResNet50().eval()
    places = {"conv": "conv1_conv", "bn": "conv1_bn", "dense": "predictions"}
    for i, stage in enumerate(network.stages):
        for j in range(len(stage)):
            for k in range(4):
                block = f"conv{i + 2}_block{j + 1}_{k}"
                places |= {f"stages.{i}.{j}.{kind}{k}": f"{block}_{kind}" for kind in ("conv", "bn")}
    network.load_state_dict(
        {k: state[f"{places[k.rpartition('.')[0]]}.{k.split('.')[-1]}"] for k in network.state_dict()}
    )
    return network


def convolution(x, width: int, size: int, stride: int, convolution: str, norm: str):
    """A convolution whose padding is written out, and its BatchNormalization."""
    if size > 1:
        x = layers.ZeroPadding2D(size // 2)(x)
    x = layers.Conv2D(width, size, stride, use_bias=False, name=convolution)(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=norm)(x)


def block(x, width: int, stride: int, shortcut: bool, name: str):
    """Three convolutions around a skip connection."""
    skip = x
    if shortcut:
        skip = convolution(x, 4 * width, 1, stride, f"{name}.downsample.0", f"{name}.downsample.1")
    x = layers.ReLU()(convolution(x, width, 1, 1, f"{name}.conv1", f"{name}.bn1"))
    x = layers.ReLU()(convolution(x, width, 3, stride, f"{name}.conv2", f"{name}.bn2"))
    x = convolution(x, 4 * width, 1, 1, f"{name}.conv3", f"{name}.bn3")
    return layers.ReLU()(layers.Add()([x, skip]))


def in_keras(model: keras.Model) -> keras.Model:
    """torchvision's network, images `(B, H, W, 3)` to logits `(B, 1000)`, with the weights of a model of its names."""
    image = keras.Input((224, 224, 3))
    x = layers.ReLU()(convolution(image, 64, 7, 2, "conv1", "bn1"))
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))  # behind a ReLU zero is as good as none
    for i, (blocks, width) in enumerate(zip(BLOCKS, WIDTHS, strict=True), 1):
        for j in range(blocks):
            x = block(x, width, 2 if i > 1 and not j else 1, not j, f"layer{i}.{j}")
    network = keras.Model(image, layers.Dense(1000, name="fc")(layers.GlobalAveragePooling2D()(x)))
    for layer in network.layers:
        if layer.weights:
            layer.set_weights(model.get_layer(layer.name).get_weights())
    return network
