"""Whole networks of the kinds that people write: carried, compared in float64, proved, and carried back.

The large ones, at their usual size, are in tests/acceptance/bridge.py.
"""

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bridge
from bridge import convert
from bridge.onnx import import_torchvision

layers, ops = keras.layers, keras.ops


def image(*shape, name="image"):
    return keras.Input(shape, name=name)


def content(arrays):
    """Weights as rows in an order of their own, as layers may move, split or be unnested."""
    rows = [np.asarray(a).ravel() for a in arrays]
    return sorted((r for r in rows if r.dtype.kind == "f"), key=lambda r: (r.size, r.tobytes()))


def assert_same(mine, theirs):
    for a, b in zip(content(mine), content(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------- what people write in Keras


def conv(x, width, size=3, strides=1, activation="relu", **options):
    x = layers.Conv2D(width, size, strides, "same", use_bias=False, **options)(x)
    x = layers.BatchNormalization()(x)
    return layers.Activation(activation)(x) if activation else x


def inception_block():
    x = image(13, 11, 5)
    pooled = layers.AveragePooling2D(3, 1, "same")(x)
    paths = [
        conv(x, 4, 1),
        conv(conv(x, 3, 1), 4, 5),
        conv(conv(conv(x, 3, 1), 4, (1, 7)), 5, (7, 1)),
        conv(pooled, 3, 1),
    ]
    return keras.Model(x, layers.Concatenate()([*paths, layers.MaxPooling2D(3, 1, "same")(x)]))


def squeeze_and_excitation():
    x = image(9, 7, 6)
    s = layers.Reshape((1, 1, 6))(layers.GlobalAveragePooling2D()(x))
    s = layers.Conv2D(6, 1, activation="sigmoid")(layers.Conv2D(2, 1, activation="swish")(s))
    dense = layers.Dense(6, activation="hard_sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    return keras.Model(x, layers.Multiply()([x, s]) + x * dense)


def unet_bilinear():
    x = image(None, None, 3)
    skips, y = [], x
    for width in (4, 6):
        y = conv(y, width)
        skips.append(y)
        y = layers.MaxPooling2D(2)(y)
    y = conv(y, 8)
    for width, skip in zip((6, 4), reversed(skips), strict=True):
        y = layers.UpSampling2D(2, interpolation="bilinear")(y)
        y = conv(layers.Concatenate()([skip, y]), width)
    return keras.Model(x, layers.Conv2D(1, 1, activation="sigmoid")(y))


def dcgan_generator():
    z = keras.Input((7,), name="z")
    x = layers.Reshape((3, 2, 8))(layers.Dense(3 * 2 * 8, use_bias=False)(z))
    x = layers.LeakyReLU(0.2)(layers.BatchNormalization(momentum=0.8)(x))
    x = layers.Conv2DTranspose(6, 5, 2, "same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    return keras.Model(z, layers.Conv2DTranspose(3, 4, 2, "same", activation="tanh")(x))


def dcgan_discriminator():
    return keras.Sequential(
        [
            image(13, 12, 3),
            layers.GaussianNoise(0.1),
            layers.Conv2D(4, 5, 2, "same"),
            layers.LeakyReLU(0.2),
            layers.Dropout(0.3),
            layers.Conv2D(6, 5, 2, "same"),
            layers.BatchNormalization(momentum=0.9),
            layers.LeakyReLU(),
            layers.Flatten(),
            layers.Dense(1),
        ]
    )


def wavenet():
    x = keras.Input((None, 3), name="audio")
    y, skips = layers.Conv1D(6, 2, padding="causal")(x), []
    for dilation in (1, 2, 4):
        filtered = layers.Conv1D(6, 2, padding="causal", dilation_rate=dilation, activation="tanh")(y)
        gate = layers.Conv1D(6, 2, padding="causal", dilation_rate=dilation, activation="sigmoid")(y)
        z = layers.Multiply()([filtered, gate])
        skips.append(layers.Conv1D(5, 1)(z))
        y = layers.Add()([y, layers.Conv1D(6, 1)(z)])
    y = layers.ReLU()(layers.Add()(skips))
    return keras.Model(x, layers.Conv1D(4, 1, activation="softmax")(layers.Conv1D(5, 1, activation="relu")(y)))


def mobile():
    x = image(15, 13, 3)
    y = conv(x, 6, 3, 2, "hard_swish")
    for width, strides in ((6, 1), (8, 2), (8, 1)):
        z = layers.DepthwiseConv2D(3, strides, "same", use_bias=False)(y)
        z = layers.Activation("relu6")(layers.BatchNormalization()(z))
        z = conv(z, width, 1, activation=None)
        y = layers.Add()([y, z]) if z.shape == y.shape else z
    y = layers.SeparableConv2D(7, 3, padding="same", depth_multiplier=2, activation="silu")(y)
    return keras.Model(x, layers.Dense(5, activation="softmax")(layers.GlobalMaxPooling2D()(y)))


def resnext():
    x = image(9, 11, 8)
    y = conv(conv(x, 8, 1), 8, 3, 2, groups=4)
    y = layers.Add()([conv(y, 12, 1, activation=None), conv(x, 12, 1, 2, None)])
    return keras.Model(x, layers.ReLU()(y))


def dense_block():
    y = x = image(9, 8, 4)
    for _ in range(3):
        z = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.Concatenate()([y, layers.Conv2D(3, 3, padding="same", use_bias=False)(z)])
    y = layers.AveragePooling2D(2)(layers.Conv2D(6, 1)(layers.ReLU()(layers.BatchNormalization()(y))))
    return keras.Model(x, y)


def patch_gan():
    x = image(17, 19, 3)
    y = layers.LeakyReLU(0.2)(layers.SpectralNormalization(layers.Conv2D(4, 4, 2, "same"))(x))
    y = layers.ZeroPadding2D()(layers.SpectralNormalization(layers.Conv2D(6, 4, 2, "same", use_bias=False))(y))
    y = layers.LeakyReLU(0.2)(layers.GroupNormalization(groups=-1, epsilon=1e-5)(y))
    return keras.Model(x, layers.SpectralNormalization(layers.Conv2D(1, 4))(y))


def super_resolution():
    x = image(5, 7, 2)
    y = layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(8, 3, padding="same")(layers.Rescaling(2.0, -0.5)(x)))
    y = layers.Reshape((5, 7, 2, 2, 2))(y)
    y = layers.Reshape((10, 14, 2))(layers.Permute((1, 3, 2, 4, 5))(y))
    coarse = layers.Resizing(10, 14, interpolation="nearest")(x)
    return keras.Model(x, layers.Conv2D(2, 3, padding="same")(y) + coarse)


def feature_pyramid():
    x = image(16, 24, 3)
    c2 = conv(x, 4, strides=2)
    c3 = conv(c2, 6, strides=2)
    c4 = conv(c3, 8, strides=2)
    p4 = layers.Conv2D(5, 1)(c4)
    p3 = layers.Add()([layers.UpSampling2D(2)(p4), layers.Conv2D(5, 1)(c3)])
    p2 = layers.Add()([layers.UpSampling2D(2)(p3), layers.Conv2D(5, 1)(c2)])
    head = layers.Conv2D(3, 3, padding="same", name="head")  # one head for all levels
    return keras.Model(x, [head(p) for p in (p2, p3, p4)])


def ghost():
    x = image(9, 7, 6)
    first, second = ops.split(x, 2, axis=-1)
    primary = conv(first, 4, 1)
    cheap = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(primary))
    return keras.Model(x, layers.Concatenate()([primary, cheap, ops.maximum(second, 0.1), x[..., 1:4]]))


def channel_shuffle():
    x = image(5, 7, 6)
    y = layers.Conv2D(6, 1, groups=3)(x)
    y = layers.Reshape((5, 7, 6))(layers.Permute((1, 2, 4, 3))(layers.Reshape((5, 7, 3, 2))(y)))
    return keras.Model(x, layers.Conv2D(6, 3, groups=3, padding="same")(y))


def stochastic_depth():
    y = x = image(6, 7, 4)
    for rate in (0.1, 0.2):
        z = layers.LayerNormalization(epsilon=1e-6)(layers.DepthwiseConv2D(5, padding="same")(y))
        z = layers.Dense(4)(layers.Dense(9, activation="gelu")(z))
        y = layers.Add()([y, layers.Dropout(rate, noise_shape=(None, 1, 1, 1))(z)])
    return keras.Model(x, y)


def siamese():
    a, b = image(9, 8, 3, name="a"), image(9, 8, 3, name="b")
    tower = image(9, 8, 3, name="picture")
    y = layers.Dense(6)(layers.Flatten()(conv(conv(tower, 4), 5, strides=2)))
    encoder = keras.Model(tower, layers.UnitNormalization()(y), name="encoder")
    mine, theirs = encoder(a), encoder(b)
    distance = ops.sum(ops.square(mine - theirs), axis=-1, keepdims=True)
    return keras.Model([a, b], [distance, layers.Dot(axes=1)([mine, theirs])])


def frozen_half():
    x = image(9, 8, 3)
    y = conv(conv(x, 4), 6, strides=2)
    backbone = keras.Model(x, y, name="backbone")
    backbone.trainable = False
    z = image(9, 8, 3, name="picture")
    return keras.Model(z, layers.Dense(3)(layers.GlobalAveragePooling2D()(conv(backbone(z), 5))))


def video():
    x = image(5, 7, 6, 2)
    y = layers.ReLU()(layers.BatchNormalization()(layers.Conv3D(4, 3, (1, 2, 2), "same", use_bias=False)(x)))
    y = layers.Conv3DTranspose(3, 2, 2)(layers.UpSampling3D(2)(y))
    return keras.Model(x, [y, layers.GlobalAveragePooling3D()(y)])


KERAS = {
    f.__name__: f
    for f in (
        inception_block,
        squeeze_and_excitation,
        unet_bilinear,
        dcgan_generator,
        dcgan_discriminator,
        wavenet,
        mobile,
        resnext,
        dense_block,
        patch_gan,
        super_resolution,
        feature_pyramid,
        ghost,
        channel_shuffle,
        stochastic_depth,
        siamese,
        frozen_half,
        video,
    )
}
# TensorFlow computes these in less than float64: the bilinear resize, GELU, the slope of a leaky ReLU
LESS = {
    "unet_bilinear": 1e-6,
    "stochastic_depth": 1e-7,
    "dcgan_generator": 1e-6,
    "dcgan_discriminator": 1e-6,
    "patch_gan": 1e-6,
}
# a shuffle; a vector that becomes a picture; a sequence that comes in and goes out, which keeps its order outside
PERMUTES = {"super_resolution": 1, "channel_shuffle": 1, "dcgan_generator": 1, "wavenet": 2}


@pytest.mark.parametrize("name", KERAS)
def test_of_keras(check, name):
    model = check.live(KERAS[name]())
    module, again = check.both_ways(
        model, LESS.get(name, 1e-9), size=8, randomised=False, same_layers=False, back="float32"
    )
    assert convert.source(model).text.count("permute(") == PERMUTES.get(name, 0)
    assert_same(model.weights, again.weights)
    assert len(again.trainable_weights) >= len(model.trainable_weights)
    report = bridge.verify(model, module)
    assert report.passed, str(report)


def test_dictionaries_in_and_out(check):
    inputs = {"picture": image(9, 8, 3, name="picture"), "age": keras.Input((4,), name="age")}
    y = layers.Concatenate()([layers.Flatten()(conv(inputs["picture"], 4, strides=2)), inputs["age"]])
    outputs = {
        "kind": layers.Dense(3, activation="softmax")(y),
        "box": [layers.Dense(4)(y), conv(inputs["picture"], 2)],
    }
    model = check.live(keras.Model(inputs, outputs))
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    torch_inputs = {"picture": torch.randn(2, 3, 9, 8), "age": torch.randn(2, 4)}
    have = module(**torch_inputs)
    want = model({k: check.to_last(v.numpy()) for k, v in torch_inputs.items()})
    assert have.keys() == want.keys()
    for a, b in zip([have["kind"], *have["box"]], [want["kind"], *want["box"]], strict=True):
        assert check.relative(check.to_last(a.detach().numpy()), b) < 2e-5


# ---------------------------------------------------------------- what people write in torch


def block(inputs, outputs, size=3, stride=1, groups=1, activation=nn.ReLU):
    parts = [nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*parts, *([activation(inplace=True)] if activation else []))


class Inception(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.five = block(5, 4, 1), nn.Sequential(block(5, 3, 1), block(3, 4, 5))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), block(5, 3, 1))

    def forward(self, x):
        average = F.avg_pool2d(x, kernel_size=3, stride=1, padding=1)
        return torch.cat([self.one(x), self.five(x), self.pooled(x), average], 1)


class SqueezeAndExcitation(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 2), nn.Linear(2, 6)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 6, 1), nn.Hardsigmoid())

    def forward(self, x):
        b, c = x.shape[:2]
        s = x.mean((2, 3))
        s = torch.sigmoid(self.second(F.relu(self.first(s)))).view(b, c, 1, 1)
        return x * s.expand_as(x) + x * self.gate(x)


class UNet(nn.Module):
    """Its sizes are made to fit by padding, as people copy it from one another."""

    def __init__(self):
        super().__init__()
        self.down, self.bottom = block(3, 4), nn.Sequential(nn.MaxPool2d(2), block(4, 8))
        self.up, self.out = block(12, 4), nn.Conv2d(4, 2, 1)
        self.grow = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)

    def forward(self, x):
        skip = self.down(x)
        y = self.grow(self.bottom(skip))
        dy, dx = skip.size(2) - y.size(2), skip.size(3) - y.size(3)
        y = F.pad(y, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
        return self.out(self.up(torch.cat([skip, y], dim=1)))


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(7, 8 * 3 * 2, bias=False)
        self.main = nn.Sequential(
            *(nn.BatchNorm2d(8), nn.ReLU(True), nn.ConvTranspose2d(8, 6, 4, 2, 1, bias=False)),
            *(nn.BatchNorm2d(6), nn.LeakyReLU(0.2, True), nn.ConvTranspose2d(6, 3, 3, 2, 1, 1), nn.Tanh()),
        )

    def forward(self, z):
        return self.main(self.fc(z).view(-1, 8, 3, 2))


def discriminator():
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True), nn.Dropout2d(0.25)),
        *(nn.Conv2d(4, 6, 4, 2, 1), nn.InstanceNorm2d(6, affine=True), nn.LeakyReLU(0.2, inplace=True)),
        *(nn.Flatten(), nn.Linear(6 * 4 * 3, 1)),
    )


class WaveNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(3, 6, 1)
        self.dilated = nn.ModuleList(nn.Conv1d(6, 12, 2, dilation=2**i) for i in range(3))
        self.out = nn.ModuleList(nn.Conv1d(6, 6, 1) for _ in range(3))
        self.end = nn.Conv1d(6, 4, 1)

    def forward(self, x):
        x, skips = self.first(x), 0
        for dilated, out in zip(self.dilated, self.out, strict=True):
            a, b = dilated(F.pad(x, (dilated.dilation[0], 0))).chunk(2, dim=1)
            y = out(torch.tanh(a) * torch.sigmoid(b))
            x, skips = x + y, skips + y
        return F.log_softmax(self.end(F.relu(skips)), dim=1)


class InvertedResidual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = block(3, 6, 3, 2, activation=nn.Hardswish)
        self.expand, self.depth = block(6, 12, 1, activation=nn.ReLU6), block(12, 12, 5, 1, 12, nn.ReLU6)
        self.project, self.fc = block(12, 6, 1, activation=None), nn.Linear(6, 5)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.project(self.depth(self.expand(x)))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1)).softmax(-1)


class ResNeXt(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, 2, 1, groups=4, bias=False), nn.BatchNorm2d(8)
        self.downsample = nn.Sequential(nn.Conv2d(8, 8, 1, 2, bias=False), nn.BatchNorm2d(8))
        self.relu = nn.ReLU(inplace=True)  # one for all places

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.downsample(x)
        return self.relu(out)


class DenseBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(4 + 3 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(4 + 3 * i, 3, 3, padding=1, bias=False) for i in range(3))

    def forward(self, x):
        features = [x]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            features.append(F.dropout(conv(F.relu(norm(torch.cat(features, 1)))), 0.2, self.training))
        return torch.cat(features, 1)


def super_resolution_torch():
    return nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.PReLU(8), nn.Conv2d(8, 12, 3, padding=1), nn.PixelShuffle(2))


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.c2, self.c3 = block(3, 4, stride=2), block(4, 6, stride=2)
        self.l2, self.l3 = nn.Conv2d(4, 5, 1), nn.Conv2d(6, 5, 1)
        self.head = nn.Conv2d(5, 3, 3, padding=1)

    def forward(self, x):
        c2 = self.c2(x)
        p3 = self.l3(self.c3(c2))
        p2 = self.l2(c2) + F.interpolate(p3, size=c2.shape[-2:], mode="nearest")
        return {"p2": self.head(p2), "p3": self.head(p3)}


class Ghost(nn.Module):
    def __init__(self):
        super().__init__()
        self.primary, self.cheap = block(3, 4, 1), block(4, 4, 3, groups=4)

    def forward(self, x):
        first, second = torch.split(x, [3, 2], dim=1)
        y = self.primary(first)
        y = torch.cat([y, self.cheap(y)], dim=1)
        return torch.cat([y[:, :7, :, :], second.clamp(min=0.1)], dim=1)


class Shuffle(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(6, 6, 1, groups=3), nn.Conv2d(6, 6, 3, 1, 1, groups=3)

    def forward(self, x):
        x = self.one(x)
        b, c, h, w = x.size()
        x = x.view(b, 3, c // 3, h, w).transpose(1, 2).contiguous().view(b, -1, h, w)
        return self.two(x)


class ConvNeXt(nn.Module):
    def __init__(self):
        super().__init__()
        self.dwconv, self.norm = nn.Conv2d(4, 4, 7, padding=3, groups=4), nn.LayerNorm(4, eps=1e-6)
        self.pwconv1, self.act, self.pwconv2 = nn.Linear(4, 12), nn.GELU(), nn.Linear(12, 4)
        self.gamma = nn.Parameter(torch.ones(4))

    def forward(self, x):
        y = self.dwconv(x).permute(0, 2, 3, 1)
        y = self.gamma * self.pwconv2(self.act(self.pwconv1(self.norm(y))))
        return x + y.permute(0, 3, 1, 2)


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        # no BatchNorm: Keras calls a shared layer in an order of its own, and so updates its statistics
        norm = nn.GroupNorm(2, 4)
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3, 2), norm, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4 * 3, 6))

    def forward(self, a, b):
        a, b = self.encoder(a), self.encoder(b)
        return (a - b).abs().sum(1), F.normalize(a, dim=1)


class Tied(nn.Module):
    """One convolution in two places."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.second.weight, self.second.bias = self.first.weight, self.first.bias

    def forward(self, x):
        return self.second(F.elu(self.first(x)))


def frozen_half_torch():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(), block(4, 5, stride=2), nn.Flatten(), nn.Linear(5 * 4 * 3, 2))
    module[0].requires_grad_(False)
    return module


PICTURE = (3, 9, 8)
TORCH = {
    "inception": (Inception, (5, 9, 8)),
    "squeeze and excitation": (SqueezeAndExcitation, (6, 9, 8)),
    "unet": (UNet, (3, 11, 13)),
    "generator": (Generator, (7,)),
    "discriminator": (discriminator, (3, 17, 13)),
    "wavenet": (WaveNet, (3, 17)),
    "inverted residual": (InvertedResidual, (3, 15, 13)),
    "resnext": (ResNeXt, (8, 9, 7)),
    "dense block": (DenseBlock, (4, 7, 8)),
    "super resolution": (super_resolution_torch, (3, 5, 7)),
    "pyramid": (Pyramid, (3, 17, 13)),
    "ghost": (Ghost, (5, 7, 8)),
    "shuffle": (Shuffle, (6, 5, 7)),
    "convnext": (ConvNeXt, (4, 9, 8)),
    "siamese": (Siamese, PICTURE, PICTURE),
    "tied": (Tied, PICTURE),
    "frozen half": (frozen_half_torch, PICTURE),
}


LESS_IN_KERAS = {"convnext": 1e-7, "generator": 1e-6, "discriminator": 1e-6}


def carried(check, module, *shapes, limit=1e-9, proved=True):
    """Carry a torch module with live weights to Keras and back, and compare in float64."""
    rng = torch.Generator().manual_seed(3)
    tensors = tuple(torch.randn((2, *s), generator=rng) for s in shapes)
    module = check.live_torch(module, *tensors).double()
    tensors = tuple(t.double() for t in tensors)
    model = bridge.to_keras(module, tensors)
    want = keras.tree.flatten(module(*tensors))
    arrays = [check.to_last(t.numpy()) for t in tensors]
    have = keras.tree.flatten(model(arrays if len(arrays) > 1 else arrays[0], training=False))
    again = bridge.to_torch(model)
    back = keras.tree.flatten(again(*tensors))
    for w, h, b in zip(want, have, back, strict=True):
        w = w.detach().numpy()
        assert np.abs(w[0] - w[1]).max() > 1e-3 * np.abs(w).max()
        assert check.relative(check.to_first(np.asarray(h)), w) < limit
        assert check.relative(b.detach().numpy(), w) < limit
    assert_same(*([t.detach() for t in (*m.parameters(), *m.buffers())] for m in (module, again)))
    trained = [sum(p.numel() for p in m.parameters() if p.requires_grad) for m in (module, again)]
    assert trained == [sum(int(np.prod(w.shape)) for w in model.trainable_weights)] * 2
    if proved:
        report = bridge.verify(model, module)
        assert report.passed, str(report)
    return model


@pytest.mark.parametrize("name", TORCH)
def test_of_torch(check, name):
    make, *shapes = TORCH[name]
    model = carried(check, make(), *shapes, limit=LESS_IN_KERAS.get(name, 1e-9))
    assert permutes(model) == (name == "generator")  # a vector becomes a picture


def permutes(model):
    """Changes of layout among pictures; a shuffle of channels has five axes."""
    kinds = [x for x in model.operations if type(x).__name__ in ("Permute", "Transpose")]
    return sum(len(x.output.shape) == 4 for x in kinds)


# ---------------------------------------------------------------- what is well known, small


def test_mobilenet_v2_of_keras(check):
    model = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(33, 35, 3), alpha=0.35)
    model = check.live(model)
    module = check.both_ways(model, randomised=False, single=1e-4).module
    assert "permute" not in convert.source(model).text
    assert sum(isinstance(m, nn.BatchNorm2d) for m in module.modules()) == 52


@pytest.mark.parametrize(
    "name, options",
    [
        ("mobilenet_v2", {"width_mult": 0.25}),
        ("shufflenet_v2_x0_5", {}),
        ("squeezenet1_1", {}),
        ("resnet18", {}),
    ],
)
def test_of_torchvision(check, name, options):
    kind = getattr(import_torchvision().models, name)
    model = carried(check, kind(weights=None, num_classes=7, **options), (3, 33, 35), proved=False)
    assert permutes(model) == 0
