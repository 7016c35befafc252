"""Transformers and diffusion networks as people write them: carried, verified, and back under the same names."""

import math

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import bridge
from bridge.onnx import import_torchvision

nn, layers, ops = torch.nn, keras.layers, keras.ops


class Vit(nn.Module):
    """A vision transformer with a class token and learned positions; attention by hand or torch's."""

    def __init__(self, fused):
        super().__init__()
        self.fused = fused
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 7, 8))
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.drop, self.head = nn.Dropout(0.1), nn.Linear(8, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, n, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = self.drop((q @ k.transpose(-2, -1) * (c // 2) ** -0.5).softmax(-1)) @ v
        x = x + self.out(y.transpose(1, 2).reshape(b, n, c))
        return self.head(x[:, 0])


class Swin(nn.Module):
    """Attention in shifted windows: rolled, a mask of regions, a table of relative positions."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.qkv, self.proj = (
            nn.Conv2d(3, 8, 2, 2),
            nn.LayerNorm(8),
            nn.Linear(8, 24),
            nn.Linear(8, 8),
        )
        self.table = nn.Parameter(torch.randn(9, 2) * 0.2)
        places = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")).flatten(1)
        steps = (places[:, :, None] - places[:, None]).permute(1, 2, 0) + 1
        self.register_buffer("index", steps[..., 0] * 3 + steps[..., 1])

    def forward(self, x):
        x = self.embed(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        y = torch.roll(self.norm(x), (-1, -1), (1, 2))
        y = y.view(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        q, k, v = self.qkv(y).view(-1, 4, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        scores = q * (c // 2) ** -0.5 @ k.transpose(-2, -1)
        scores = scores + self.table[self.index.view(-1)].view(4, 4, 2).permute(2, 0, 1)
        regions = x.new_zeros((1, h, w, 1))
        for n, rows in enumerate((slice(0, -2), slice(-2, -1), slice(-1, None))):
            for m, columns in enumerate((slice(0, -2), slice(-2, -1), slice(-1, None))):
                regions[:, rows, columns] = 3 * n + m
        regions = regions.view(1, h // 2, 2, w // 2, 2, 1).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4)
        mask = regions[:, None] - regions[:, :, None]
        mask = mask.masked_fill(mask != 0, -100.0).masked_fill(mask == 0, 0.0)
        scores = (scores.view(b, -1, 2, 4, 4) + mask[None, :, None]).view(-1, 2, 4, 4)
        y = self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, 4, c))
        y = y.view(b, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        return (x + torch.roll(y, (1, 1), (1, 2))).permute(0, 3, 1, 2)


class Denoiser(nn.Module):
    """A small U-Net of a diffusion model: sinusoidal times, attention over pixels, a skip connection."""

    def __init__(self):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 8))
        self.first, self.down, self.middle = (
            nn.Conv2d(3, 8, 3, 1, 1),
            nn.Conv2d(8, 8, 3, 2, 1),
            nn.Conv2d(8, 8, 3, 1, 1),
        )
        self.norm, self.qkv, self.out = nn.GroupNorm(2, 8), nn.Conv1d(8, 24, 1), nn.Conv1d(8, 8, 1)
        self.last = nn.Conv2d(16, 3, 3, 1, 1)

    def forward(self, x, t):
        frequencies = torch.exp(-math.log(10000.0) * torch.arange(4, dtype=torch.float32) / 4)
        angles = t[:, None] * frequencies[None]
        t = self.time(torch.cat([angles.sin(), angles.cos()], -1))
        skip = self.first(x)
        x = self.middle(F.silu(self.norm(self.down(skip)))) + t[:, :, None, None]
        b, c, h, w = x.shape
        q, k, v = self.qkv(x.reshape(b, c, -1)).chunk(3, dim=1)
        scores = torch.einsum("bct,bcs->bts", q * c**-0.25, k * c**-0.25).softmax(-1)
        x = x + self.out(torch.einsum("bts,bcs->bct", scores, v)).reshape(b, c, h, w)
        return self.last(torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), skip], 1))


class Language(nn.Module):
    """A causal transformer over whole numbers, whose head is its table of embeddings."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(11, 8), nn.Embedding(6, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.1, F.gelu, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.register_buffer("mask", torch.triu(torch.full((6, 6), -torch.inf), 1))

    def forward(self, words):
        x = self.words(words) + self.places(torch.arange(words.shape[1]))
        return self.layers(x, mask=self.mask) @ self.words.weight.T


class Causal(nn.Module):
    """Attention that is masked by a part of a table, as minGPT has it, of tokens that are turned by their places."""

    def __init__(self):
        super().__init__()
        self.words, self.qkv, self.out = nn.Embedding(11, 8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.register_buffer("bias", torch.tril(torch.ones(16, 16)).view(1, 1, 16, 16))
        self.register_buffer("frequencies", 100.0 ** -(torch.arange(0, 4, 2) / 4), persistent=False)

    def forward(self, words):
        x = self.words(words)
        b, t, c = x.size()
        q, k, v = (y.view(b, t, 2, c // 2).transpose(1, 2) for y in self.qkv(x).split(c, 2))
        angles = torch.outer(torch.arange(t), self.frequencies).repeat(1, 2)
        q, k = (y * angles.cos() + torch.cat([-y[..., 2:], y[..., :2]], -1) * angles.sin() for y in (q, k))
        scores = (q @ k.transpose(-2, -1)) * (1.0 / k.size(-1) ** 0.5)
        scores = scores.masked_fill(self.bias[:, :, :t, :t] == 0, float("-inf"))
        return self.out((F.softmax(scores, -1) @ v).transpose(1, 2).contiguous().view(b, t, c))


class Experts(nn.Module):
    """A mixture of experts: stacked before the last axis, each times its weight."""

    def __init__(self):
        super().__init__()
        self.words, self.gate = nn.Embedding(11, 6), nn.Linear(6, 3)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)) for _ in range(3))

    def forward(self, words):
        x = self.words(words)
        weights = self.gate(x).softmax(-1).unsqueeze(-1)
        return (weights * torch.stack([expert(x) for expert in self.experts], -2)).sum(-2)


@pytest.mark.parametrize("make", [Causal, Experts])
def test_over_any_number_of_steps(check, make):
    module = make().eval()
    model = bridge.to_keras(module, (torch.randint(0, 11, (2, 7)),), [{0, 1}])
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert not sum(report.permutations.values()) or make is Causal
    back, words = bridge.to_torch(model), torch.randint(0, 11, (3, 12))
    torch.testing.assert_close(back(words), module(words), rtol=1e-4, atol=1e-5)
    report = bridge.verify(model, back)
    assert report.passed, str(report)


PICTURE = torch.randn(2, 3, 8, 12)
NETWORKS = {
    "vit": (lambda: Vit(True), (PICTURE,)),
    "vit by hand": (lambda: Vit(False), (PICTURE,)),
    "swin": (Swin, (PICTURE,)),
    "denoiser": (Denoiser, (PICTURE, torch.rand(2) * 100)),
    "language": (Language, (torch.randint(0, 11, (2, 6)),)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_of_torch(check, name):
    make, inputs = NETWORKS[name]
    torch.manual_seed(0)
    module = make().eval()
    model = bridge.to_keras(module, inputs)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    back = bridge.to_torch(model)
    have, want = back(*inputs), module(*inputs)
    torch.testing.assert_close(have, want, rtol=1e-4, atol=1e-5)
    assert bridge.verify(model, back).passed
    mine, theirs = dict(module.named_parameters()), dict(back.named_parameters())
    assert name == "language" or mine.keys() == theirs.keys()  # nn.MultiheadAttention has a name of its own
    assert sum(p.numel() for p in mine.values()) == sum(p.numel() for p in theirs.values())
    for key in mine.keys() & theirs.keys():
        assert torch.equal(mine[key], theirs[key]) and mine[key].requires_grad == theirs[key].requires_grad
    rates = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert rates == {"vit by hand": [0.1], "language": [0.1] * 8}.get(name, [])


def test_of_torchvision():
    kind = import_torchvision().models.VisionTransformer
    module = kind(16, 8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=3, dropout=0.2).eval()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn(p.shape) * 0.2)
    x = torch.randn(2, 3, 16, 16)
    model = bridge.to_keras(module, (x,))
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert report.names["encoder.layers.encoder_layer_0.mlp.0.kernel"] == "encoder.layers.encoder_layer_0.mlp.0.weight"
    lost = dict(module.named_parameters()).keys() - dict(bridge.to_torch(model).named_parameters()).keys()
    assert all(".self_attention.in_proj_" in name for name in lost)
    other = kind(16, 8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=3, dropout=0.2).eval()
    bridge.load_weights(other, model)
    torch.testing.assert_close(other(x), module(x), rtol=0, atol=0)


class ClassToken(layers.Layer):
    """A token that is learned, in front of the patches."""

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[-1]), name="token", initializer="normal")

    def call(self, x):
        return ops.concatenate([ops.zeros_like(x[:, :1]) + self.token, x], axis=1)


class Positions(layers.Layer):
    """A vector for each place, learned."""

    def build(self, shape):
        self.table = self.add_weight(shape=shape[1:], name="table", initializer="normal")

    def call(self, x):
        return x + self.table


def vit_of_keras():
    x = image = keras.Input((8, 12, 3), name="image")
    x = layers.Reshape((6, 8), name="tokens")(layers.Conv2D(8, 4, 4, name="patches")(x))
    x = Positions(name="positions")(ClassToken(name="token")(x))
    for i in range(2):
        y = layers.LayerNormalization(epsilon=1e-6, name=f"norm{i}a")(x)
        y = layers.MultiHeadAttention(2, 4, dropout=0.1 * i, name=f"attention{i}")(y, y)
        x = layers.Add(name=f"sum{i}a")([x, layers.Dropout(0.1, name=f"drop{i}")(y)])
        y = layers.LayerNormalization(epsilon=1e-6, name=f"norm{i}b")(x)
        y = layers.Dense(8, name=f"narrow{i}")(layers.Dense(16, activation="gelu", name=f"wide{i}")(y))
        x = layers.Add(name=f"sum{i}b")([x, y])
    x = layers.LayerNormalization(name="norm")(x)
    return keras.Model(image, layers.Dense(5, name="head")(x[:, 0])), [PICTURE.permute(0, 2, 3, 1).numpy()]


def decoder_of_keras():
    """Words that see those before them, padding aside, and all of another text."""
    words, others = keras.Input((6,), dtype="int32", name="words"), keras.Input((4,), dtype="int32", name="others")
    table = layers.Embedding(11, 8, mask_zero=True, name="table")
    x, memory = table(words), table(others)
    y = layers.MultiHeadAttention(2, 4, name="itself")(x, x, use_causal_mask=True)
    x = layers.LayerNormalization(name="norm0")(layers.Add(name="sum0")([x, y]))
    y = layers.MultiHeadAttention(2, 3, value_dim=5, name="across")(x, memory)
    x = layers.LayerNormalization(name="norm1")(layers.Add(name="sum1")([x, y]))
    x = layers.Dense(8, name="narrow")(layers.Dropout(0.2, name="drop")(layers.Dense(16, "relu", name="wide")(x)))
    given = [np.array(a, "int32") for a in ([[1, 2, 3, 4, 0, 0], [5, 6, 7, 8, 9, 10]], [[3, 4, 0, 0], [1, 2, 3, 0]])]
    return keras.Model([words, others], layers.Dense(11, name="head")(x)), given


@pytest.mark.parametrize("make", [vit_of_keras, decoder_of_keras])
def test_of_keras(check, make):
    model, arrays = make()
    check.randomise(model)
    module = bridge.to_torch(model)
    report = bridge.verify(model, module, arrays)
    assert report.passed, str(report)
    trained = {n.rsplit(".", 1)[0] for n, p in module.named_parameters() if p.requires_grad}
    wanted = {x.name for x in model.layers if x.trainable_weights}
    assert {n.split(".")[0] for n in trained} == wanted
    rates = sorted(m.p for m in module.modules() if isinstance(m, nn.Dropout))
    assert rates == ([0.1, 0.1, 0.1] if make is vit_of_keras else [0.2])
    again = bridge.to_keras(module, tuple(torch.from_numpy(check.to_first(a)) for a in arrays))
    assert bridge.verify(again, module, arrays).passed
    have, want = (m(arrays if arrays[1:] else arrays[0]) for m in (again, model))
    np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)
    back = dict(bridge.to_torch(again).named_parameters())
    for key, value in module.named_parameters():
        assert torch.equal(value, back[key]) or not value.requires_grad


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_decoder_of_torch(norm_first):
    """With a mask of its own, and padding of what it looks back at; its names are torch's but for in_proj."""
    layer = nn.TransformerDecoderLayer(8, 2, 16, 0.1, F.gelu, batch_first=True, norm_first=norm_first)
    module = Decoder(nn.TransformerDecoder(layer, 1)).eval()
    padded = torch.tensor([[False, False, True], [False, True, True]])
    inputs = torch.randn(2, 5, 8), torch.randn(2, 3, 8), padded
    model = bridge.to_keras(module, inputs)
    arrays = [x.numpy() for x in inputs]
    report = bridge.verify(model, module, arrays)
    assert report.passed, str(report)
    back = bridge.to_torch(model)
    torch.testing.assert_close(back(*inputs), module(*inputs), rtol=1e-4, atol=1e-5)
    mine, theirs = dict(module.named_parameters()), dict(back.named_parameters())
    for key, value in mine.items():
        other = theirs[key if key in theirs else key.replace("in_proj_", "in_proj.")]
        assert torch.equal(value, other)


class Decoder(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.register_buffer("mask", torch.ones(5, 5, dtype=torch.bool).triu(1))

    def forward(self, x, memory, padded):
        return self.inner(x, memory, tgt_mask=self.mask, tgt_is_causal=True, memory_key_padding_mask=padded)
