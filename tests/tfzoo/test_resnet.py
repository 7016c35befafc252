"""ResNet and ResNeXt: counted, equal to torchvision's and to the papers' equations, a plain Keras model once saved."""

import contextlib
import copy
import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bridge
import tfzoo
from bridge import convert
from bridge.onnx import import_torchvision
from tfzoo import resnet

tv = import_torchvision()
NAMES = resnet.NAMES["torchvision"]
PUBLISHED = {
    "18": 11_689_512,
    "34": 21_797_672,
    "50": 25_557_032,
    "101": 44_549_160,
    "152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
}
CIFAR = {"cifar20": 269_722, "cifar32": 464_154, "cifar44": 658_586, "cifar56": 853_018, "cifar110": 1_727_962}
# Small networks with all that the large ones have: the arguments here and of torchvision's class.
SMALL = {
    "basic": ({"depths": (1, 2, 1, 1)}, (tv.models.resnet.BasicBlock, [1, 2, 1, 1]), {}),
    "resnext": (
        {"block": "bottleneck", "depths": (2, 1, 1, 1), "cardinality": 16, "group_width": 6},
        (tv.models.resnet.Bottleneck, [2, 1, 1, 1]),
        {"groups": 16, "width_per_group": 6},
    ),
}


@contextlib.contextmanager
def zeros():
    """Let the kernels of what is built inside start as zeros: 89 million random draws take their time."""
    with pytest.MonkeyPatch.context() as patch:
        kernel = lambda self, shape, dtype=None, **_: keras.ops.zeros(shape, dtype)  # noqa: E731
        patch.setattr(keras.initializers.VarianceScaling, "__call__", kernel)
        yield


def last(x):
    """Channels last, as an array."""
    return np.moveaxis(x.detach().numpy(), 1, -1)


def by_name(name):
    return getattr(tv.models, name if name.startswith("resnext") else f"resnet{name}")


def live(check, module):
    """Give a module of torchvision weights and statistics with which its logits depend on the image; in float64."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for m in norms:
            m.weight.uniform_(0.5, 1.5)
            m.bias.normal_(0, 0.3)
            m.momentum = 1.0  # so that the statistics become those of the pictures below
        module.train()(check.first(check.images(4, 64, 64, 3)).float())
        for m in norms:
            m.momentum = 0.1
            m.running_mean += 0.2 * m.running_var.sqrt() * torch.randn_like(m.running_mean)
            m.running_var *= 0.5 + torch.rand_like(m.running_var)
    return module.double().eval()


def small(check, kind, classes=7, **options):
    """A small network of both frameworks; torchvision's has live weights."""
    ours, theirs, settings = SMALL[kind]
    torch.manual_seed(0)
    module = live(check, tv.models.ResNet(*theirs, num_classes=classes, **settings))
    return tfzoo.build("resnet", "18", image_shape=(None, None, 3), classes=classes, **ours, **options), module


# Sizes: their parameters and their names.


@pytest.mark.parametrize("size", PUBLISHED)
def test_every_size_has_torchvisions_count_names_and_shapes(check, size):
    with zeros():
        model = tfzoo.build("resnet", size, image_shape=(32, 32, 3))
    assert check.trainable(model) == PUBLISHED[size] == resnet.PARAMETERS[size]
    with torch.device("meta"):
        theirs = by_name(size)()
    assert sum(p.numel() for p in theirs.parameters()) == PUBLISHED[size]
    ours = convert.source(model, names=NAMES).state
    assert {k: np.shape(v) for k, v in ours.items()} == {k: tuple(v.shape) for k, v in theirs.state_dict().items()}


@pytest.mark.parametrize("size", CIFAR)
def test_count_of_the_networks_for_cifar(check, size):
    model = tfzoo.build("resnet", size)
    assert check.trainable(model) == CIFAR[size] == resnet.PARAMETERS[size]
    # 6n + 2 layers with weights: shortcuts have none (section 4.2)
    assert sum(isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)) for layer in model.layers) == int(size[5:])


def test_sizes_are_all_counted(check):
    assert list(resnet.PARAMETERS) == tfzoo.sizes("resnet") == [*PUBLISHED, *CIFAR, "tiny"]
    assert check.trainable(tfzoo.build("resnet", "tiny")) == resnet.PARAMETERS["tiny"]


def test_page_has_every_count():
    page = (pathlib.Path(__file__).parents[2] / "docs" / "resnet.md").read_text()
    missing = [size for size, n in resnet.PARAMETERS.items() if f"`{size}`" not in page or f"{n:,}" not in page]
    assert not missing


# Equal to torchvision's.


@pytest.fixture(scope="module", params=["18", "50", "resnext50_32x4d"])
def both(check, request):
    """Torchvision's network in float64, and ours with its weights in float64 and in float32, of open sizes."""
    torch.manual_seed(0)
    module = live(check, by_name(request.param)())
    with zeros():
        single = tfzoo.build("resnet", request.param, image_shape=(None, None, 3))
        with check.float64():
            exact = tfzoo.build("resnet", request.param, image_shape=(None, None, 3))
    bridge.load_weights(exact, module.state_dict(), NAMES)
    single.set_weights(exact.get_weights())
    return module, exact, single


@pytest.mark.parametrize("side", [(64, 64), (71, 83)])
def test_logits_are_torchvisions(check, both, side):
    module, exact, single = both
    x = check.images(2, *side, 3)
    with torch.no_grad():
        expected = module(check.first(x)).numpy()
        rounded = copy.deepcopy(module).float()(check.first(x).float()).numpy()
    y, y32 = np.asarray(exact(x, training=False)), np.asarray(single(x.astype(np.float32), training=False))
    assert y.dtype == np.float64 and y32.dtype == np.float32
    check.depends_on_the_image(expected)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-9 * abs(expected).max())
    own = abs(y32 - y).max()
    assert own < 3e-5 * abs(y).max()
    np.testing.assert_allclose(y32, rounded, rtol=0, atol=3 * own)


@pytest.mark.parametrize("kind", SMALL)
def test_module_has_torchvisions_state_dict_and_takes_it(check, kind):
    model, theirs = small(check, kind)
    before = {k: v.clone() for k, v in theirs.state_dict().items()}
    bridge.load_weights(model, theirs.state_dict(), NAMES)
    module = bridge.to_torch(model, names=NAMES)
    again = type(theirs)(*SMALL[kind][1], num_classes=7, **SMALL[kind][2]).double().eval()
    again.load_state_dict(module.state_dict(), strict=True)
    for name, value in again.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        np.testing.assert_array_equal(value, before[name].float(), err_msg=name)
    module.load_state_dict({k: v.float() for k, v in before.items()}, strict=True)
    x = torch.randn(2, 3, 45, 38)
    with torch.no_grad():
        y, expected = module(x).numpy(), again.float()(x).numpy()
    check.depends_on_the_image(expected)
    np.testing.assert_allclose(y, expected, rtol=0, atol=2e-5 * abs(expected).max())


def test_settings_are_torchvisions(check):
    model, theirs = small(check, "resnext")
    module = bridge.to_torch(model, names=NAMES)
    norms = {name: m for name, m in module.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert len(norms) == 1 + 3 * 5 + 4
    for name, m in norms.items():
        assert (m.eps, m.momentum) == (theirs.get_submodule(name).eps, theirs.get_submodule(name).momentum)
    assert not any(m.use_bias for m in model.layers if isinstance(m, keras.layers.Conv2D))


def test_another_networks_state_dict_is_refused_whole(check):
    model, _ = small(check, "basic")
    before = [np.array(w) for w in model.weights]
    other = small(check, "resnext", classes=5)[1].state_dict()
    with pytest.raises(bridge.BridgeError) as error:
        bridge.load_weights(model, other, NAMES)
    text = str(error.value)
    missing, unexpected, misshapen = (
        next(line for line in text.splitlines() if kind in line) for kind in ("missing", "unexpected", "another shape")
    )
    assert "layer2.1.conv1.weight" in missing and "layer2.1.bn2.running_var" in missing
    assert "layer1.0.conv3.weight (256, 96, 1, 1)" in unexpected and "layer1.0.downsample.0.weight" in unexpected
    assert "layer1.0.conv1.weight (96, 64, 1, 1), not (64, 64, 3, 3)" in misshapen
    assert "fc.weight (5, 2048), not (7, 512)" in misshapen and "fc.bias (5,), not (7,)" in misshapen
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)


# Equal to the papers.


@pytest.mark.parametrize(("widths", "front"), [((4, 8), 2), ((4, 7), 1), ((5, 5), 0)])
@pytest.mark.parametrize("side", [(8, 6), (7, 9)])
def test_shortcut_without_parameters_takes_every_second_pixel_and_adds_zeros(check, widths, front, side):
    model = tfzoo.build("resnet", "tiny", image_shape=(*side, 2), depths=(1, 1), widths=widths)
    check.randomize(model)
    for weight in model.get_layer("layer2_0_bn2").weights[:2]:  # gamma and beta: the shortcut alone is left
        weight.assign(np.zeros(weight.shape))
    names = ("layer1", "layer2")
    x = check.images(3, *side, 2).astype("float32")
    x, y = keras.Model(model.input, [model.get_layer(n).output for n in names])(x)
    expected = np.zeros((3, *(-(-n // 2) for n in side), widths[1]), np.float32)
    expected[..., front : front + widths[0]] = np.asarray(x)[:, ::2, ::2]
    assert np.std(expected) > 0.1
    np.testing.assert_array_equal(y, expected)
    assert not any("downsample" in w.path for w in model.weights)


def normalised(x, weights, epsilon=1e-5):
    gamma, beta, mean, variance = (torch.from_numpy(w) for w in weights)
    return F.batch_norm(x, mean, variance, gamma, beta, eps=epsilon)


def kernel(weights):
    """A kernel as torch has it."""
    return torch.from_numpy(np.ascontiguousarray(weights[0].transpose(3, 2, 0, 1)))


@pytest.mark.parametrize("form", ["split-transform-merge", "early concatenation", "grouped convolution"])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_three_forms_of_a_resnext_block_are_equal(check, form, stride):
    """Figure 3 of the paper: the block, which is the third form, against each of them written out."""
    paths, d, width = 6, 3, 20
    with check.float64():
        x = image = keras.Input((7, 10, width))
        convs = [(paths * d, 1, 1, 1), (paths * d, 3, stride, paths), (width, 1, 1, 1)]
        block = keras.Model(image, resnet.residual(x, convs, stride, "B", "block", False, False))
    check.randomize(block)
    w = {layer.name.removeprefix("block_"): layer.get_weights() for layer in block.layers}
    x = check.images(3, 7, 10, width)
    t = check.first(x)
    reduce, three, expand = (kernel(w[f"conv{k}"]) for k in (1, 2, 3))
    norm = {k: [n.reshape(paths, d) for n in w[f"bn{k}"]] for k in (1, 2)}  # of each path
    if form == "grouped convolution":
        y = F.relu(normalised(F.conv2d(t, reduce), w["bn1"]))
        y = F.relu(normalised(F.conv2d(y, three, stride=stride, padding=1, groups=paths), w["bn2"]))
        y = F.conv2d(y, expand)
    else:
        inner = []
        for p in range(paths):
            own = slice(p * d, (p + 1) * d)
            z = F.relu(normalised(F.conv2d(t, reduce[own]), [n[p] for n in norm[1]]))
            z = F.conv2d(z, three[own], stride=stride, padding=1)
            inner.append(F.relu(normalised(z, [n[p] for n in norm[2]])))
        if form == "early concatenation":
            y = F.conv2d(torch.cat(inner, 1), expand)
        else:
            y = sum(F.conv2d(z, expand[:, p * d : (p + 1) * d]) for p, z in enumerate(inner))
    short = t if stride == 1 else normalised(F.conv2d(t, kernel(w["downsample_0"]), stride=2), w["downsample_1"])
    expected = last(F.relu(normalised(y, w["bn3"]) + short))
    check.depends_on_the_image(expected)
    np.testing.assert_allclose(block(x, training=False), expected, rtol=0, atol=1e-12 * abs(expected).max())


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_preactivation_normalises_and_rectifies_before_each_convolution(check, block):
    """The network of fb.resnet.torch in torch: the first block's input has been rectified by the stem."""
    with check.float64():
        model = tfzoo.build(
            "resnet", image_shape=(9, 13, 2), classes=3, depths=(2, 2), widths=(4, 6), stem="cifar", block=block,
            preactivation=True,
        )  # fmt: skip
    check.randomize(model)
    w = {layer.name: layer.get_weights() for layer in model.layers}
    sizes = (3, 3) if block == "basic" else (1, 3, 1)
    strided = sizes.index(3)

    def before(t, name):
        return F.relu(normalised(t, w[name]))

    x = check.images(3, 9, 13, 2)
    t = before(F.conv2d(check.first(x), kernel(w["conv1"]), padding=1), "bn1")
    for i in (1, 2):
        for j in (0, 1):
            name, stride = f"layer{i}_{j}", 2 if (i, j) == (2, 0) else 1
            y = t if (i, j) == (1, 0) else before(t, f"{name}_bn1")
            changes = j == 0 and (i == 2 or block == "bottleneck")
            short = F.conv2d(y, kernel(w[f"{name}_downsample_0"]), stride=stride) if changes else t
            for k, size in enumerate(sizes):
                y = before(y, f"{name}_bn{k + 1}") if k else y
                y = F.conv2d(y, kernel(w[f"{name}_conv{k + 1}"]), None, stride if k == strided else 1, size // 2)
            t = y + short
    pooled = before(t, "bn_last").mean((2, 3)).numpy()
    expected = pooled @ w["fc"][0] + w["fc"][1]
    check.depends_on_the_image(expected)
    np.testing.assert_allclose(model(x, training=False), expected, rtol=0, atol=1e-12 * abs(expected).max())
    assert not {"layer1_0_bn1", "layer1_0_downsample_1", "layer2_0_downsample_1"} & set(w)


@pytest.mark.parametrize("size", ["cifar20", "cifar110"])
def test_networks_for_cifar_halve_twice(size):
    """Section 4.2: 32x32 with 16 channels, 16x16 with 32, 8x8 with 64."""
    model = tfzoo.build("resnet", size)
    shapes = [model.get_layer(f"layer{i}").output.shape[1:] for i in (1, 2, 3)]
    assert shapes == [(32, 32, 16), (16, 16, 32), (8, 8, 64)]


# What the builder's arguments do.


@pytest.mark.parametrize("kind", SMALL)
def test_stages_have_names_and_what_the_top_sees_is_the_last(check, kind):
    ours, *_ = SMALL[kind]
    model = check.randomize(tfzoo.build("resnet", "18", image_shape=(75, 101, 3), classes=4, **ours))
    base = tfzoo.build("resnet", "18", image_shape=(75, 101, 3), include_top=False, **ours)
    base.set_weights(model.get_weights()[:-2])
    x = check.images(2, 75, 101, 3).astype("float32")
    stages = keras.Model(model.input, [model.get_layer(f"layer{i}").output for i in (1, 2, 3, 4)])(x)
    factor = 1 if kind == "basic" else 4
    sides = [(19, 26), (10, 13), (5, 7), (3, 4)]  # halved, and rounded up, twice to five times
    assert [s.shape for s in stages] == [(2, *s, factor * 64 * 2**i) for i, s in enumerate(sides)]
    features = np.asarray(base(x))
    np.testing.assert_array_equal(features, stages[-1])
    weights, bias = model.get_layer("fc").get_weights()
    logits = features.astype("float64").mean((1, 2)) @ weights + bias
    np.testing.assert_allclose(model(x), logits, rtol=0, atol=1e-5 * abs(logits).max())
    check.depends_on_the_image(logits)


@pytest.mark.parametrize("options", [{}, {"shortcut": "B", "preactivation": True}, {"stem": "imagenet"}])
def test_open_sizes_equal_fixed_sizes(check, options):
    options = {"widths": (64, 65, 80), **options} if "stem" in options else options
    opened = check.randomize(tfzoo.build("resnet", "tiny", image_shape=(None, None, 5), **options))
    for side in ((16, 16), (13, 22)):
        fixed = tfzoo.build("resnet", "tiny", image_shape=(*side, 5), **options)
        fixed.set_weights(opened.get_weights())
        x = check.images(2, *side, 5).astype("float32")
        y = np.asarray(opened(x))
        check.depends_on_the_image(y)
        np.testing.assert_allclose(fixed(x), y, rtol=0, atol=1e-6 * abs(y).max())


def test_dropout_acts_in_front_of_the_logits_in_training_only(check):
    model = tfzoo.build("resnet", "tiny", dropout=0.5)
    assert model.get_layer("fc").input._keras_history.operation.name == "dropout"
    assert model.get_layer("dropout").rate == 0.5
    x = check.images(2, 16, 16, 1).astype("float32")
    np.testing.assert_array_equal(model(x, training=False), model(x, training=False))
    assert not np.array_equal(model(x, training=True), model(x, training=True))
    assert "dropout" not in [layer.name for layer in tfzoo.build("resnet", "tiny").layers]


def test_initial_kernels_are_torchvisions():
    """He normal by the outgoing connections, not cut off (He et al., 2015, 1502.01852)."""
    k = np.asarray(tfzoo.build("resnet", "18", image_shape=(32, 32, 3)).get_layer("layer4_1_conv1").kernel)
    scale = (2 / (9 * 512)) ** 0.5
    np.testing.assert_allclose(np.std(k), scale, rtol=0.01)
    assert abs(k).max() > 3 * scale


def test_numbers_may_be_numpys(check):
    given = {"classes": np.int64(5), "widths": (np.int32(4), 8, 16), "dropout": np.float32(0.5)}
    model = tfzoo.build("resnet", "tiny", image_shape=tuple(np.array([16, 12, 1])), **given, synchronized=np.True_)
    plain = {"classes": 5, "widths": (4, 8, 16), "dropout": 0.5}
    expected = tfzoo.build("resnet", "tiny", image_shape=(16, 12, 1), **plain, synchronized=True)
    assert check.architecture(model) == check.architecture(expected)


def test_layer_names_do_not_depend_on_what_was_built_before():
    one, two = (tfzoo.build("resnet", "tiny", preactivation=True, dropout=0.1) for _ in range(2))
    assert [layer.name for layer in one.layers] == [layer.name for layer in two.layers]
    assert one.name == "resnet"


SAVED = {
    "option A": {"dropout": 0.1},
    "grouped": {"shortcut": "B", "block": "bottleneck", "cardinality": 4, "group_width": 16},
    "preactivation": {"preactivation": True, "include_top": False},
}


@pytest.fixture(scope="module")
def loaded(check, tmp_path_factory):
    """What models gave before they were saved, and what a process without tfzoo makes of them."""
    folder, before = tmp_path_factory.mktemp("saved"), {}
    x = check.images(2, 16, 16, 1).astype("float32")
    np.save(folder / "x.npy", x)
    for name, options in SAVED.items():
        model = check.randomize(tfzoo.build("resnet", "tiny", **options))
        model.save(folder / f"{name}.keras")
        before[name] = np.asarray(model(x))
    code = (
        "import sys; sys.modules.update(tfzoo=None, apps=None, bridge=None)\n"
        "import json, keras, numpy as np\n"
        "x = np.load('x.npy')\n"
        "for name in json.loads(sys.argv[1]):\n"
        "    np.save(f'{name}.npy', keras.models.load_model(f'{name}.keras')(x))\n"
    )
    subprocess.run([sys.executable, "-c", code, json.dumps(list(SAVED))], cwd=folder, check=True)
    return before, {name: np.load(folder / f"{name}.npy") for name in SAVED}


@pytest.mark.parametrize("name", SAVED)
def test_saved_and_loaded_without_tfzoo(check, loaded, name):
    before, after = loaded
    np.testing.assert_array_equal(after[name], before[name])
    check.depends_on_the_image(before[name])


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        ({"image_shape": (32, 32)}, [r"\(height, width, channels\). Received: image_shape=\(32, 32\)"]),
        ({"image_shape": (32, 0, 3)}, [r"Received: image_shape=\(32, 0, 3\)"]),
        (
            {"include_top": False, "dropout": 0.5},
            ["dropout is of no effect without include_top=True. Received: dropout=0.5"],
        ),
        ({"depths": ()}, [r"depths must be one or more integers from 1. Received: depths=\(\)"]),
        ({"depths": (2, 2)}, [r"widths must be 2 integers from 1. Received: widths=\(64, 128, 256, 512\)"]),
        ({"cardinality": 32}, ["block='bottleneck'. Received: block='basic', cardinality=32, group_width=64"]),
        (
            {"block": "bottleneck", "widths": (64, 8, 64, 64), "group_width": 4},
            [r"1 or more for each of the widths. Received: widths=\(64, 8, 64, 64\), group_width=4"],
        ),
        (
            {"shortcut": "A", "widths": (64, 128, 64, 64)},
            [r"must not fall. Received: widths=\(64, 128, 64, 64\).*gives \[64, 64, 128, 64, 64\]"],
        ),
        ({"shortcut": "A", "widths": (32, 64, 64, 64)}, [r"stem='imagenet' .*gives \[64, 32, 64, 64, 64\]"]),
        (
            {
                "image_shape": 32,
                "classes": 1.0,
                "depths": (2, 0),
                "widths": "64",
                "block": "wide",
                "cardinality": True,
                "group_width": -1,
                "stem": None,
                "shortcut": "C",
                "preactivation": 1,
                "include_top": "no",
                "dropout": 1.0,
            },
            [
                "image_shape must be three positive.* Received: image_shape=32",
                r"classes must be an integer from 1. Received: classes=1\.0",
                r"depths must be .* Received: depths=\(2, 0\)",
                "widths must be 2 integers from 1. Received: widths='64'",
                "block must be one of 'basic', 'bottleneck'. Received: block='wide'",
                "cardinality must be an integer from 1. Received: cardinality=True",
                "Received: group_width=-1",
                "stem must be one of 'imagenet', 'cifar'. Received: stem=None",
                "shortcut must be one of 'A', 'B'. Received: shortcut='C'",
                "preactivation must be True or False. Received: preactivation=1",
                "include_top must be True or False. Received: include_top='no'",
                r"dropout must be a number in \[0, 1\). Received: dropout=1\.0",
            ],
        ),
    ],
)
def test_refusals_name_everything(options, messages):
    with pytest.raises(ValueError) as error:
        tfzoo.build("resnet", **options)
    for message in messages:
        error.match(message)
    assert len(str(error.value).splitlines()) == len(messages)
