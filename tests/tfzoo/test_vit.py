"""The Vision Transformer: counted, equal to NumPy and torchvision, and at home in torchvision's and timm's names."""

import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.special import erf

import bridge
import tfzoo
from bridge import lockstep, state_dict
from bridge.onnx import import_torchvision
from tfzoo import vit

NAMES = vit.NAMES
SMALL = {"image_shape": (12, 20, 2), "classes": 5, "patch": 4, "width": 12, "depth": 2, "heads": 3, "mlp_ratio": 2.5}
ONE = {"image_shape": (6, 4, 3), "classes": 4, "patch": 2, "width": 8, "depth": 1, "heads": 2, "mlp_ratio": 1.5}


def small(policy="float64", **options):
    """Build a small model, in float64 unless told otherwise, with live random weights."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = tfzoo.build("vit", **{**SMALL, **options})
    finally:
        keras.config.set_dtype_policy(before)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        fan_in = int(np.prod(weight.shape[:-1]))
        value = rng.normal(0, (2 / fan_in) ** 0.5 if len(weight.shape) > 1 else 0.3, weight.shape)
        weight.assign(value + 1 if weight.name == "gamma" else value)
    return model


def images(model, n=3):
    """Draw images; in float32, as a model takes them, whatever it computes with."""
    return np.random.default_rng(1).normal(size=(n, *model.input_shape[1:])).astype("float32")


def live(module):
    """Give a module of torch random weights, in float64."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in module.double().named_parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator) + float("ln" in name and "weight" in name))
    return module.eval()


def torchvision(options, **more):
    """Torchvision's network of these options; its images are square."""
    side, patch, width = options["image_shape"][0], options["patch"], options["width"]
    hidden = int(options["mlp_ratio"] * width)
    kind = import_torchvision().models.VisionTransformer
    kind = kind(side, patch, options["depth"], options["heads"], width, hidden, num_classes=options["classes"], **more)
    return live(kind)


def run(module, x):
    with torch.no_grad():
        return module(torch.from_numpy(x).double().permute(0, 3, 1, 2)).numpy()


# The network in NumPy. Weights are a dictionary of the layers' names, as the model has them, to their arrays.


def weights_of(model):
    return {layer.name: [np.float64(w) for w in layer.get_weights()] for layer in model.layers}


def weights_of_state(state):
    """The same of a state dict with timm's names: Linear has its axes the other way round, Conv2d another order."""
    found = {}
    for name, value in state.items():
        layer = name.removesuffix(".weight").removesuffix(".bias").replace(".", "_")
        axes = {2: (1, 0), 4: (2, 3, 1, 0)}.get(value.ndim, range(value.ndim))
        found.setdefault(layer, []).append(value.transpose(axes))
    return found


def norm(x, gamma, beta):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * gamma + beta


def attend(x, weights, heads, name):
    """One image's tokens `(n, D)` head by head; gives the result and the maps `(heads, n, n)`."""
    kernel, bias = weights[f"{name}_qkv"]
    query, key, value = np.split(x @ kernel + bias, 3, axis=-1)
    size, maps, made = x.shape[-1] // heads, [], []
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        shares = np.exp(query[:, part] @ key[:, part].T / np.sqrt(size))
        maps.append(shares / shares.sum(-1, keepdims=True))
        made.append(maps[-1] @ value[:, part])
    kernel, bias = weights[f"{name}_proj"]
    return np.concatenate(made, -1) @ kernel + bias, np.stack(maps)


def block(x, weights, heads, name):
    """One image's tokens `(n, D)` through a block; gives the result and the maps."""
    made, maps = attend(norm(x, *weights[f"{name}_norm1"]), weights, heads, f"{name}_attn")
    x = x + made
    hidden, bias = weights[f"{name}_mlp_fc1"]
    y = norm(x, *weights[f"{name}_norm2"]) @ hidden + bias
    y = y * (1 + erf(y / np.sqrt(2))) / 2
    kernel, bias = weights[f"{name}_mlp_fc2"]
    return x + y @ kernel + bias, maps


def forward(image, weights, patch, heads):
    """One image `(H, W, C)`; gives what every block makes, their maps, the normalised tokens and the logits."""
    kernel, bias = weights["patch_embed_proj"]
    rows, columns = image.shape[0] // patch, image.shape[1] // patch
    cut = [image[r * patch :, c * patch :][:patch, :patch].ravel() for r in range(rows) for c in range(columns)]
    x = np.stack(cut) @ kernel.reshape(-1, kernel.shape[-1]) + bias
    if "cls_token" in weights:
        x = np.concatenate([weights["cls_token"][0][0], x])
    x = x + weights["pos_embed"][0][0]
    made, maps = [], []
    while f"blocks_{len(made)}_norm1" in weights:
        x, shares = block(x, weights, heads, f"blocks_{len(made)}")
        made.append(x)
        maps.append(shares)
    tokens = norm(x, *weights["norm"])
    kernel, bias = weights.get("head", (np.eye(tokens.shape[-1]), 0))
    return made, maps, tokens, (tokens[0] if "cls_token" in weights else tokens.mean(0)) @ kernel + bias


def logits(x, weights, patch, heads):
    found = np.stack([forward(image, weights, patch, heads)[3] for image in np.float64(x)])
    assert np.std(found, axis=0).min() > 0.01  # else the comparison could not fail
    return found


# TensorFlow's exact GELU is right to 5e-9 in float64, of which sharp attention makes more.
close = {"rtol": 1e-7, "atol": 1e-7}


@pytest.mark.parametrize("size", vit.SIZES)
def test_counts(size):
    options = {"image_shape": (224, 224, 3), "classes": 1000, **vit.SIZES[size]}
    (height, width, channels), patch, d = options["image_shape"], options["patch"], options["width"]
    one = 2 * 2 * d + (3 * d * d + 3 * d) + (d * d + d) + (4 * d * d + 4 * d) + (4 * d * d + d)
    ends = (patch**2 * channels + 1) * d + d + (height * width // patch**2 + 1) * d + 2 * d
    ends += (d + 1) * options["classes"]
    assert ends + options["depth"] * one == vit.PARAMETERS[size]
    model = tfzoo.build("vit", size, depth=1)  # the others are as large, which the next test shows
    assert model.count_params() == ends + one


@pytest.mark.parametrize(
    ("size", "options", "count"),
    [
        ("tiny", {}, 26_538),
        ("ti16", {}, 5_717_416),
        ("ti16", {"pool": "average"}, 5_717_416 - 2 * 192),
        ("ti16", {"include_top": False, "dropout": 0.1}, 5_717_416 - 193 * 1000),
    ],
)
def test_whole_counts(size, options, count):
    assert tfzoo.build("vit", size, **options).count_params() == count


def test_the_page_has_the_sizes():
    page = pathlib.Path(__file__).parents[2].joinpath("docs", "vit.md").read_text()
    page = re.sub("<!--.*?-->", "", page)
    rows = re.findall(
        r'^\| `size="(\w+)"`.*? \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| ([\d,]+) \| .*?(\d+) \|$', page, re.M
    )
    expected = []
    for size, options in vit.SIZES.items():
        patches = (options.get("image_shape", (224,))[0] // options["patch"]) ** 2
        numbers = [options[k] for k in ("patch", "width", "depth", "heads")]
        expected.append((size, *map(str, numbers), f"{vit.PARAMETERS[size]:,}", str(patches + 1)))
    assert rows == expected


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pool": "average"},
        {"pool": "average", "image_shape": (9, 3, 1), "patch": 3, "heads": 1, "depth": 1},
        {"image_shape": (14, 7, 5), "patch": 7, "heads": 12, "depth": 3, "classes": 1, "mlp_ratio": 1},
    ],
)
def test_equals_the_same_network_in_numpy(options):
    model = small(**options)
    x, used = images(model), {**SMALL, **options}
    expected = logits(x, weights_of(model), used["patch"], used["heads"])
    assert model(x).shape == (3, used["classes"])
    np.testing.assert_allclose(model(x), expected, **close)


@pytest.mark.parametrize("pool", ["token", "average"])
def test_without_top_it_gives_the_normalised_tokens(pool):
    model = small(include_top=False, pool=pool)
    x = images(model)
    expected = [forward(image, weights_of(model), 4, 3)[2] for image in np.float64(x)]
    assert model.output_shape == (None, 15 + (pool == "token"), 12)
    np.testing.assert_allclose(model(x), expected, **close)


def test_float32_equals_float64():
    single, double = small("float32"), small()
    x = images(single)
    np.testing.assert_allclose(single(x), double(x), rtol=1e-4, atol=1e-5)


def test_blocks_and_their_attention_can_be_looked_at():
    model = small()
    x = images(model)
    layers = [model.get_layer(f"blocks_{i}{end}") for end in ("", "_attn_weights") for i in range(2)]
    *blocks, first, second = keras.Model(model.input, [layer.output for layer in layers])(x)
    for k, image in enumerate(np.float64(x)):
        made, maps, *_ = forward(image, weights_of(model), 4, 3)
        np.testing.assert_allclose([blocks[0][k], blocks[1][k]], made, **close)
        np.testing.assert_allclose([first[k], second[k]], maps, **close)
    maps = np.stack([first, second])  # (2, B, heads, n, n)
    assert maps.shape == (2, 3, 3, 16, 16)
    np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-12)
    assert maps.min() >= 0 and np.std(maps, axis=-1).max() > 0.05


@pytest.mark.parametrize(
    "options",
    [
        {"image_shape": (12, 12, 3), "classes": 7, "patch": 4, "width": 8, "depth": 2, "heads": 2, "mlp_ratio": 2.5},
        {"image_shape": (15, 15, 3), "classes": 3, "patch": 5, "width": 15, "depth": 1, "heads": 5, "mlp_ratio": 2.0},
    ],
)
def test_equals_torchvision(options):
    theirs, ours = torchvision(options), small(**options)
    bridge.load_weights(ours, theirs.state_dict(), NAMES["torchvision"])
    x = images(ours)
    expected = run(theirs, x)
    assert np.std(expected, axis=0).min() > 0.01
    np.testing.assert_allclose(ours(x), expected, **close)

    module = bridge.to_torch(ours, names=NAMES["torchvision"])
    state = {name: value.clone() for name, value in theirs.state_dict().items()}
    with torch.no_grad():
        for p in theirs.parameters():
            p.zero_()
    theirs.load_state_dict(module.state_dict(), strict=True)
    np.testing.assert_array_equal(run(theirs, x), expected)
    module.load_state_dict(state, strict=True)


def shapes(module):
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


@pytest.mark.parametrize("size", ["b16", "b32", "l16", "l32", "h14"])
def test_names_and_shapes_are_those_of_torchvisions(size):
    with torch.device("meta"):
        theirs = getattr(import_torchvision().models, f"vit_{size[0]}_{size[1:]}")()
    layer = re.compile(r"encoder_layer_\d+")
    blocks = {int(found[0].split("_")[-1]) for name in shapes(theirs) if (found := layer.search(name))}
    assert blocks == {*range(vit.SIZES[size]["depth"])}
    ours = state_dict.places(tfzoo.build("vit", size, depth=1), NAMES["torchvision"])
    expected = {(layer.sub("encoder_layer_0", name), shape) for name, shape in shapes(theirs).items()}
    assert {(name, place.cells.shape) for name, place in ours.items()} == expected


def test_a_file_of_the_whole_vit_b_16(check, tmp_path):
    """Of pictures of 32x32, as the patches are then few; the shapes are those of any size but for the positions'."""
    import torch.nn

    torch.manual_seed(0)
    theirs = import_torchvision().models.vit_b_16(image_size=32, num_classes=10).eval()
    torch.nn.init.normal_(theirs.heads.head.weight, std=0.05)  # which torchvision begins with zeros
    # torchvision's own files have the names of before, which it changes as it loads them.
    state = theirs.state_dict()
    old = {re.sub(r"mlp\.(\d)", lambda m: f"mlp.linear_{1 + int(m[1]) // 3}", k): v for k, v in state.items()}
    import_torchvision().models.vit_b_16(image_size=32, num_classes=10).load_state_dict(old, strict=True)
    assert sum("linear_2" in name for name in old) == 24
    torch.save(old, tmp_path / "vit_b_16.pth")
    options = {"image_shape": (32, 32, 3), "classes": 10}
    single = tfzoo.build("vit", "b16", weights=tmp_path / "vit_b_16.pth", **options)
    with check.float64():
        double = tfzoo.build("vit", "b16", **options)
    double.set_weights(single.get_weights())
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3))
    given = torch.from_numpy(x).permute(0, 3, 1, 2)
    with torch.no_grad():
        rounded, expected = theirs(given.float()).numpy(), theirs.double()(given).numpy()
    y, y32, largest = np.asarray(double(x)), np.asarray(single(x.astype("float32"))), np.abs(expected).max()
    assert (y.dtype, y32.dtype) == (np.float64, np.float32) and np.abs(expected[0] - expected[1]).max() > 0.01
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-7 * largest)  # TensorFlow's exact GELU is right to 5e-9
    own = np.abs(y32 - y).max()
    assert own < 1e-5 * largest
    np.testing.assert_allclose(y32, rounded, rtol=0, atol=3 * own)


def test_names_of_more_than_ten_blocks():
    options = {**ONE, "image_shape": (4, 4, 3), "depth": 12}
    ours = state_dict.places(small(**options), NAMES["torchvision"])
    assert {name: place.cells.shape for name, place in ours.items()} == shapes(torchvision(options))


def timm(side, patch, width, depth, classes, channels=3, ratio=4.0, pool="token"):
    """Names and shapes of a state dict of timm; "average" is without a class token, `fc_norm=False`."""
    hidden, patches = int(ratio * width), (side // patch) ** 2
    table = {"cls_token": (1, 1, width)} if pool == "token" else {}
    table["pos_embed"] = (1, patches + (pool == "token"), width)
    table |= {"patch_embed.proj.weight": (width, channels, patch, patch), "patch_embed.proj.bias": (width,)}
    for i in range(depth):
        table |= {f"blocks.{i}.norm1.weight": (width,), f"blocks.{i}.norm1.bias": (width,)}
        table |= {f"blocks.{i}.attn.qkv.weight": (3 * width, width), f"blocks.{i}.attn.qkv.bias": (3 * width,)}
        table |= {f"blocks.{i}.attn.proj.weight": (width, width), f"blocks.{i}.attn.proj.bias": (width,)}
        table |= {f"blocks.{i}.norm2.weight": (width,), f"blocks.{i}.norm2.bias": (width,)}
        table |= {f"blocks.{i}.mlp.fc1.weight": (hidden, width), f"blocks.{i}.mlp.fc1.bias": (hidden,)}
        table |= {f"blocks.{i}.mlp.fc2.weight": (width, hidden), f"blocks.{i}.mlp.fc2.bias": (width,)}
    table |= {"norm.weight": (width,), "norm.bias": (width,)}
    return table | {"head.weight": (classes, width), "head.bias": (classes,)}


def drawn(table):
    """A state dict of live random weights."""
    rng = np.random.default_rng(2)
    gains = re.compile(r"(.*\.)?norm\d?\.weight")
    return {name: rng.normal(0, 0.4, shape) + bool(gains.fullmatch(name)) for name, shape in table.items()}


@pytest.mark.parametrize(
    ("size", "patch", "width"),
    [
        ("ti16", 16, 192),
        ("s16", 16, 384),
        ("s32", 32, 384),
        ("b16", 16, 768),
        ("b32", 32, 768),
        ("l16", 16, 1024),
        ("l32", 32, 1024),
        ("h14", 14, 1280),
    ],
)
def test_names_and_shapes_are_those_of_timms(size, patch, width):
    """Of vit_tiny_patch16_224, vit_small_patch16_224 and so on; a block is like the other."""
    depth = 12 if size == "ti16" else 1
    ours = state_dict.places(tfzoo.build("vit", size, depth=depth), NAMES["timm"])
    assert {name: place.cells.shape for name, place in ours.items()} == timm(224, patch, width, depth, 1000)


@pytest.mark.parametrize("pool", ["token", "average"])
def test_equals_numpy_by_weights_of_timm(pool):
    state = drawn(timm(15, 5, 12, 11, 6, channels=2, ratio=1.5, pool=pool))
    options = {"image_shape": (15, 15, 2), "patch": 5, "depth": 11, "classes": 6, "mlp_ratio": 1.5, "pool": pool}
    model = small(**options)
    bridge.load_weights(model, state, NAMES["timm"])
    x = images(model)
    np.testing.assert_allclose(model(x), logits(x, weights_of_state(state), 5, 3), **close)

    back = bridge.to_torch(model, names=NAMES["timm"]).state_dict()
    assert back.keys() == state.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(back[name], value, err_msg=name)


def test_weights_that_normalise_the_average_are_refused():
    state = drawn(timm(4, 2, 8, 1, 4, ratio=1.5, pool="average"))
    state |= {f"fc_norm.{role}": state.pop(f"norm.{role}") for role in ("weight", "bias")}
    model = small(**{**ONE, "image_shape": (4, 4, 3), "pool": "average"})
    before = model.get_weights()
    with pytest.raises(bridge.BridgeError, match=r"2 missing: norm.weight, norm.bias[^,]+2 unexpected: fc_norm.weight"):
        bridge.load_weights(model, state, NAMES["timm"])
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("project", "options"),
    [("torchvision", {"dropout": 0.1, "attention_dropout": 0.2}), ("timm", {"pool": "average"})],
)
def test_its_module_with_their_names_is_equal(project, options, monkeypatch):
    monkeypatch.setattr(lockstep, "STEPS", 3)  # the other seven show nothing of a model
    model = small("float32", **ONE, **options)
    module = bridge.to_torch(model, names=NAMES[project])
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    rates = [float(m.p) for m in module.modules() if isinstance(m, torch.nn.Dropout)]
    assert sorted(rates) == ([0.1, 0.1, 0.1, 0.1, 0.2] if "dropout" in options else [])


def interpolate(value, before, old, new):
    """What timm does: torch's own function on the grid, the class token beside it."""
    grid = torch.from_numpy(value[:, before:]).reshape(1, *old, -1).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, new, mode="bicubic", antialias=True, align_corners=False)
    return np.concatenate([value[:, :before], grid.permute(0, 2, 3, 1).reshape(1, new[0] * new[1], -1).numpy()], 1)


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((4, 4), (6, 6)),
        ((14, 14), (24, 24)),
        ((9, 9), (4, 4)),
        ((7, 7), (3, 12)),
        ((4, 4), (2, 9)),
        ((2, 6), (3, 9)),
        ((6, 2), (3, 1)),
        ((1, 1), (2, 3)),
    ],
)
@pytest.mark.parametrize(("dtype", "limit"), [("float16", 2e-3), ("float32", 1e-5), ("float64", 1e-5)])
def test_resize_is_what_torch_makes(before, old, new, dtype, limit):
    value = np.random.default_rng(3).normal(size=(1, before + old[0] * old[1], 5)).astype(dtype)
    shape = (1, before + new[0] * new[1], 5)
    for name in ("pos_embed", "encoder.pos_embedding"):
        made = vit.resize(name, value, shape, (16 * new[0], 16 * new[1], 3), 16)
        assert made.shape == shape and made.dtype == dtype
        np.testing.assert_array_equal(made[:, :before], value[:, :before])
        np.testing.assert_allclose(made, interpolate(np.float64(value), before, old, new), rtol=limit, atol=limit)


@pytest.mark.parametrize(
    ("name", "held", "shape"),
    [
        ("head.weight", (1, 17, 4), (1, 10, 4)),  # of another name
        ("cls_token", (1, 17, 4), (1, 10, 4)),
        ("pos_embed", (1, 10, 4), (1, 10, 4)),  # of that shape
        ("pos_embed", (1, 10, 4), (1, 9, 4)),  # a class token that the model has no place for
        ("pos_embed", (1, 16, 4), (1, 10, 4)),  # none where the model has one
        ("pos_embed", (1, 17, 6), (1, 10, 4)),  # another width
        ("pos_embed", (17, 4), (1, 10, 4)),  # without the first axis
        ("pos_embed", (1, 1, 4), (1, 10, 4)),  # a class token alone
        ("pos_embed", (1, 17, 4), (1, 12, 4)),  # the model's own has more than one more
        ("pos_embed", (1, 17, 4), (12, 4)),
    ],
)
def test_resize_leaves_what_it_has_no_rule_for(name, held, shape):
    value = np.random.default_rng(3).normal(size=held)
    assert vit.resize(name, value, shape, (6, 6, 1), 2) is value


def test_a_model_of_another_image_size_takes_resized_weights():
    state = drawn(timm(8, 2, 12, 2, 5, channels=2, ratio=2.5))
    model = small(image_shape=(6, 10, 2), patch=2)
    resized = {
        name: vit.resize(name, state[name], place.cells.shape, (6, 10, 2), 2)
        for name, place in state_dict.places(model, NAMES["timm"]).items()
    }
    bridge.load_weights(model, resized, NAMES["timm"])
    expected = weights_of_state({**state, "pos_embed": interpolate(state["pos_embed"], 1, (4, 4), (3, 5))})
    x = images(model)
    np.testing.assert_allclose(model(x), logits(x, expected, 2, 3), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", ["token", "average"])
@pytest.mark.parametrize("size", [(6, 10), (16, 4), (12, 12)])
@pytest.mark.parametrize("kind", ["timm.safetensors", "torchvision.pth", "w.keras", "w.weights.h5", "w.h5"])
def test_built_at_another_image_size_it_takes_resized_weights(tmp_path, kind, size, pool):
    options = {**SMALL, "patch": 2, "pool": pool}
    source = small("float32", **{**options, "image_shape": (8, 8, 2)})
    path, ending = tmp_path / kind, kind.partition(".")[2]
    if ending in ("safetensors", "pth"):
        state = bridge.to_torch(source, names=NAMES[kind.split(".")[0]]).state_dict()
        save_file(dict(state), path) if ending == "safetensors" else torch.save(state, path)
    else:
        source.save_weights(path) if ending == "weights.h5" else source.save(path)
    model = tfzoo.build("vit", weights=path, **{**options, "image_shape": (*size, 2)})
    new = (size[0] // 2, size[1] // 2)
    for mine, theirs in zip(model.weights, source.weights, strict=True):
        if mine.path == "pos_embed/kernel":
            before = int(pool == "token")
            assert mine.shape == (1, before + new[0] * new[1], 12)
            if new != (8, 2):  # as many patches: nothing says that their grid was another
                theirs = interpolate(np.float64(theirs), before, (4, 4), new)
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)
        else:
            np.testing.assert_array_equal(mine, theirs, err_msg=mine.path)


SITES = {"pos_drop", "blocks_0_attn_drop", "blocks_0_mlp_drop1", "blocks_0_mlp_drop2"}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"dropout": 0.5}, SITES),
        ({"attention_dropout": 0.5}, {"blocks_0_attn_weights_drop"}),
        ({"dropout": 0.2, "attention_dropout": 0.4}, SITES | {"blocks_0_attn_weights_drop"}),
    ],
)
def test_dropout_acts_in_training_only(options, names):
    plain, model = small(**ONE), small(**ONE, **options)
    layers = {layer.name: layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)}
    assert layers == {
        name: options["attention_dropout" if name.endswith("weights_drop") else "dropout"] for name in names
    }
    x = images(model)
    np.testing.assert_array_equal(model(x, training=False), plain(x))
    assert not np.allclose(model(x, training=True), model(x, training=True))


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("pos_drop", "add"),
        ("blocks_0_attn_weights_drop", "blocks_0_attn_weights"),
        ("blocks_0_attn_drop", "blocks_0_attn_proj"),
        ("blocks_0_mlp_drop1", "blocks_0_mlp_fc1"),
        ("blocks_0_mlp_drop2", "blocks_0_mlp_fc2"),
    ],
)
def test_dropout_stands_behind(name, before):
    model = tfzoo.build("vit", **ONE, dropout=0.1, attention_dropout=0.1)
    assert re.sub(r"_\d+$", "", model.get_layer(name).input._keras_history.operation.name) == before


def test_what_it_starts_from():
    model = tfzoo.build("vit", "ti16", depth=1)
    x = images(model, 1)
    np.testing.assert_array_equal(model(x), np.zeros((1, 1000)))
    np.testing.assert_array_equal(model.get_layer("cls_token").get_weights()[0], 0)
    np.testing.assert_allclose(np.std(model.get_layer("pos_embed").get_weights()[0]), 0.02, rtol=0.02)
    kernel = model.get_layer("blocks_0_attn_qkv").get_weights()[0]
    np.testing.assert_allclose(np.std(kernel), (2 / (4 * 192)) ** 0.5, rtol=0.02)


def test_every_weight_is_trained():
    model = small(**ONE)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(images(model)) ** 2)
    gradients = tape.gradient(loss, model.trainable_weights)
    assert len(gradients) == len(model.weights) == 2 + 2 + 12 + 2 + 2
    # a query's bias and a key's are in one tensor with a value's, so none is zero throughout
    assert all(np.abs(g).max() > 1e-9 for g in gradients)


def test_layer_names_do_not_depend_on_what_was_built_before():
    first, second = (tfzoo.build("vit", "tiny", dropout=0.1) for _ in range(2))
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    assert first.name == "vit"


def test_saved_and_loaded_without_tfzoo(tmp_path):
    model = small("float32", dropout=0.1, attention_dropout=0.1)
    x = images(model)
    np.save(tmp_path / "x.npy", x)
    model.save(tmp_path / "model.keras")
    code = (
        "import sys; sys.modules.update(tfzoo=None, apps=None, bridge=None)\n"
        "import keras, numpy as np\n"
        "np.save('y.npy', keras.models.load_model('model.keras')(np.load('x.npy')))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), model(x))
    assert np.std(model(x), axis=0).min() > 0.01  # else the comparison could not fail


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        (
            {"image_shape": (224, 230, 3)},
            [r"patches of 16x16 pixels.*multiples of 16\. Received: image_shape=\(224, 230, 3\)"],
        ),
        ({"image_shape": (None, 224, 3)}, [r"three positive integers: .* Received: image_shape=\(None, 224, 3\)"]),
        ({"image_shape": (8, 8)}, [r"\(height, width, channels\)\. Received: image_shape=\(8, 8\)"]),
        ({"heads": 5}, [r"heads must divide the width\. Received: heads=5, width=768"]),
        (
            {"image_shape": (20, 20, 3), "heads": 7, "pool": "max", "dropout": 1.0, "mlp_ratio": 0, "depth": 0},
            [
                "multiples of 16.*image_shape=",
                "heads must divide the width",
                "pool must be one of 'token', 'average'. Received: pool='max'",
                r"dropout must be a number in \[0, 1\)\. Received: dropout=1\.0",
                "mlp_ratio must be a number above 0. Received: mlp_ratio=0",
                "depth must be an integer from 1. Received: depth=0",
            ],
        ),
        (
            {"classes": 2.0, "patch": "16", "width": 0, "attention_dropout": -0.1, "include_top": 1, "mlp_ratio": "4"},
            [
                r"Received: classes=2\.0",
                "Received: patch='16'",
                "Received: width=0",
                "Received: attention_dropout=-0.1",
                "include_top must be True or False. Received: include_top=1",
                "Received: mlp_ratio='4'",
            ],
        ),
        (
            {"width": 12, "mlp_ratio": 0.08},
            ["at least one hidden unit. Received: mlp_ratio=0.08, width=12"],
        ),
    ],
)
def test_refusals_name_everything(options, messages):
    with pytest.raises(ValueError) as error:
        tfzoo.build("vit", **options)
    for message in messages:
        error.match(f"(?s){message}" if ".*" not in message else message)
    assert len(str(error.value).splitlines()) == len(messages)
