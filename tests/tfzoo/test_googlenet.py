"""GoogLeNet: counted, equal to torchvision's and to the paper's, a plain Keras model once saved."""

import copy
import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
import torch.nn.functional as F
from torch import nn

import bridge
import tfzoo
from bridge import convert
from bridge.onnx import import_torchvision
from tfzoo import googlenet

tv = import_torchvision()
NAMES = googlenet.NAMES["torchvision"]
CLASSES = 20
OUTPUTS = ("logits", "aux2", "aux1")  # the order in which torchvision has them
# Table 1 of the paper: side and channels of what comes out, and the channels of the branches: 1x1, 3x3 reduce, 3x3,
# 5x5 reduce, 5x5, behind the maximum.
TABLE = {
    "inception3a": (28, 256, (64, 96, 128, 16, 32, 32)),
    "inception3b": (28, 480, (128, 128, 192, 32, 96, 64)),
    "inception4a": (14, 512, (192, 96, 208, 16, 48, 64)),
    "inception4b": (14, 512, (160, 112, 224, 24, 64, 64)),
    "inception4c": (14, 512, (128, 128, 256, 24, 64, 64)),
    "inception4d": (14, 528, (112, 144, 288, 32, 64, 64)),
    "inception4e": (14, 832, (256, 160, 320, 32, 128, 128)),
    "inception5a": (7, 832, (256, 160, 320, 32, 128, 128)),
    "inception5b": (7, 1024, (384, 192, 384, 48, 128, 128)),
}


def live(check):
    """Torchvision's network in float64, with weights and statistics with which its logits depend on the image."""
    torch.manual_seed(0)
    module = tv.models.GoogLeNet(num_classes=CLASSES, aux_logits=True, transform_input=False, init_weights=False)
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


def all_outputs(module, x):
    """Logits and auxiliary outputs, which torchvision gives in training only, with everything else as in inference."""
    module.training = True  # its own flag, not that of its parts
    try:
        with torch.no_grad():
            return dict(zip(OUTPUTS, (y.numpy() for y in module(x)), strict=True))
    finally:
        module.training = False


@pytest.mark.parametrize(
    ("variant", "auxiliary", "count"),
    [
        ("paper", False, 6_998_552),
        ("paper", True, 13_378_280),
        ("torchvision", False, 6_624_904),
        ("torchvision", True, 13_004_888),
    ],
)
def test_count(check, variant, auxiliary, count):
    assert check.trainable(tfzoo.build("googlenet", variant, auxiliary=auxiliary)) == count
    assert auxiliary or googlenet.PARAMETERS[variant] == count
    page = (pathlib.Path(__file__).parents[2] / "docs" / "googlenet.md").read_text()
    assert f"{count:,}" in page


def test_sizes_are_all_counted(check):
    assert list(googlenet.PARAMETERS) == tfzoo.sizes("googlenet") == ["paper", "torchvision", "tiny"]
    assert check.trainable(tfzoo.build("googlenet", "tiny")) == googlenet.PARAMETERS["tiny"]


# Equal to torchvision's.


def ours(side, **options):
    settings = {"variant": "torchvision", "classes": CLASSES, "auxiliary": True}
    return tfzoo.build("googlenet", image_shape=(*side, 3), **{**settings, **options})


@pytest.fixture(scope="module")
def theirs(check):
    return live(check)


@pytest.fixture(scope="module")
def weights(check, theirs):
    """Torchvision's weights as Keras has them."""
    with check.float64():
        model = ours((64, 64))
    return bridge.load_weights(model, theirs.state_dict(), NAMES).get_weights()


def as_exact_as_keras(found, exact, expected, name):
    """Compare float32 outputs: within three times Keras' own distance from float64, which is small itself."""
    own = abs(found - exact).max()
    assert own < 1e-5 * abs(exact).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=3 * own, err_msg=name)


def test_a_file_of_its_weights(check, theirs, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "googlenet.pth")
    options = {"image_shape": (64, 64, 3), "classes": CLASSES, "auxiliary": True}
    model = tfzoo.build("googlenet", "torchvision", weights=tmp_path / "googlenet.pth", **options)
    x = check.images(2, 64, 64, 3).astype("float32")
    theirs.transform_input = False
    given = torch.from_numpy(x).permute(0, 3, 1, 2)
    exact, rounded = all_outputs(theirs, given.double()), all_outputs(copy.deepcopy(theirs).float(), given)
    for name, found in model(x, training=False).items():
        as_exact_as_keras(np.asarray(found), exact[name], rounded[name], name)
    del options["auxiliary"]
    with pytest.raises(ValueError, match=r"unexpected.*aux1"):
        tfzoo.build("googlenet", "torchvision", weights=tmp_path / "googlenet.pth", **options)


@pytest.mark.parametrize(("side", "transform_input"), [((64, 64), False), ((93, 71), True), ((31, 37), False)])
def test_logits_and_auxiliary_outputs_are_torchvisions(check, theirs, weights, side, transform_input):
    with check.float64():
        exact = ours(side, transform_input=transform_input)
    single = ours(side, transform_input=transform_input)
    for model in (exact, single):
        model.set_weights(weights)
    x = check.images(3, *side, 3)
    theirs.transform_input = transform_input
    expected = all_outputs(theirs, check.first(x))
    rounded = all_outputs(copy.deepcopy(theirs).float(), check.first(x).float())
    y, y32 = exact(x, training=False), single(x.astype(np.float32), training=False)
    assert set(y) == set(OUTPUTS)
    for name in OUTPUTS:
        a, b = np.asarray(y[name]), np.asarray(y32[name])
        assert (a.dtype, b.dtype) == (np.float64, np.float32)
        check.depends_on_the_image(expected[name])
        np.testing.assert_allclose(a, expected[name], rtol=0, atol=1e-9 * abs(a).max(), err_msg=name)
        as_exact_as_keras(b, a, rounded[name], name)


def test_input_is_transformed_from_imagenets_statistics_to_those_of_minus_one_to_one():
    model = tfzoo.build("googlenet", "torchvision", image_shape=(32, 32, 3), width=0.02, transform_input=True)
    inner = keras.Model(model.input, model.get_layer("transform_input").output)
    picture = np.random.default_rng(0).random((2, 32, 32, 3))
    given = (picture - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    np.testing.assert_allclose(inner(given.astype("float32")), picture * 2 - 1, atol=1e-6)


@pytest.mark.parametrize("auxiliary", [True, False])
def test_names_and_shapes_are_torchvisions(auxiliary):
    state = convert.source(ours((64, 64), auxiliary=auxiliary), names=NAMES).state
    with torch.device("meta"):
        module = tv.models.GoogLeNet(CLASSES, aux_logits=auxiliary, init_weights=False)
    assert {k: np.shape(v) for k, v in state.items()} == {k: tuple(v.shape) for k, v in module.state_dict().items()}


def test_module_has_torchvisions_state_dict_and_takes_it(theirs, weights):
    model = ours((50, 45))
    model.set_weights(weights)
    module = bridge.to_torch(model, names=NAMES)
    again = tv.models.GoogLeNet(CLASSES, aux_logits=True, init_weights=False).eval()
    again.load_state_dict(module.state_dict(), strict=True)
    for name, value in theirs.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(again.state_dict()[name], value.float(), err_msg=name)
    module.load_state_dict({k: 2 * v for k, v in again.state_dict().items()}, strict=True)
    module.load_state_dict(again.state_dict(), strict=True)
    x = torch.randn(2, 3, 50, 45)
    expected = all_outputs(again, x)
    with torch.no_grad():
        y = module(x)
    for name in OUTPUTS:
        np.testing.assert_array_equal(y[name], expected[name], err_msg=name)  # the same kernels of torch
    norms = {name: m for name, m in module.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert len(norms) == 3 + 9 * 6 + 2
    assert {(m.eps, m.momentum) for m in norms.values()} == {(1e-3, 0.1)}
    assert all(again.get_submodule(name).eps == 1e-3 for name in norms)


def test_state_dict_that_does_not_fit_is_refused_whole(theirs):
    model = ours((64, 64), auxiliary=False, classes=3)
    before = [np.array(w) for w in model.weights]
    state = theirs.state_dict()
    del state["conv2.bn.bias"], state["inception5b.branch3.1.conv.weight"]
    with pytest.raises(bridge.BridgeError) as error:
        bridge.load_weights(model, state, NAMES)
    text = str(error.value)
    assert "2 missing: conv2.bn.bias, inception5b.branch3.1.conv.weight" in text
    assert "unexpected: aux1.conv.conv.weight (128, 512, 1, 1)" in text and "aux2.fc2.bias (20,)" in text
    assert "2 of another shape: fc.weight (20, 1024), not (3, 1024), fc.bias (20,), not (3,)" in text
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)


# Equal to the paper.


@pytest.fixture(scope="module")
def paper():
    return tfzoo.build("googlenet", auxiliary=True)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ("conv1_relu", (112, 112, 64)),
        ("maxpool1", (56, 56, 64)),
        ("conv2_relu", (56, 56, 64)),
        ("conv3_relu", (56, 56, 192)),
        ("maxpool2", (28, 28, 192)),
        ("maxpool3", (14, 14, 480)),
        ("maxpool4", (7, 7, 832)),
        ("avgpool", (1024,)),
        ("fc", (1000,)),
        ("aux1_pool", (4, 4, 512)),
        ("aux2_pool", (4, 4, 528)),
        ("aux1_fc1", (1024,)),
        ("aux2_fc2", (1000,)),
    ],
)
def test_sizes_are_those_of_table_1(paper, layer, shape):
    assert paper.get_layer(layer).output.shape[1:] == shape


@pytest.fixture(scope="module")
def models(paper):
    return {"paper": paper, "torchvision": tfzoo.build("googlenet", "torchvision")}


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("variant", ["paper", "torchvision"])
def test_inceptions_are_those_of_table_1(models, name, variant):
    model = models[variant]
    side, channels, branches = TABLE[name]
    assert model.get_layer(name).output.shape[1:] == (side, side, channels)
    large = 5 if variant == "paper" else 3
    parts = {"branch1": 1, "branch2_0": 1, "branch2_1": 3, "branch3_0": 1, "branch3_1": large, "branch4_1": 1}
    made = [model.get_layer(f"{name}_{part}_conv") for part in parts]
    assert [m.filters for m in made] == list(branches)
    assert [m.kernel_size for m in made] == [(n, n) for n in parts.values()]
    assert channels == branches[0] + branches[2] + branches[4] + branches[5]


def paper_in_torch(w, x):
    """The paper's network in torch: channels and settings by the weights, in float64.

    Args:
        w: Layer -> what `get_weights` gave.
        x: Images `(B, C, H, W)`.
    """

    def conv(t, name, stride=1):
        kernel, bias = w[f"{name}_conv"]
        kernel = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
        return F.relu(F.conv2d(t, kernel, torch.from_numpy(bias), stride, kernel.shape[-1] // 2))

    def dense(t, name):
        kernel, bias = map(torch.from_numpy, w[name])
        return t @ kernel + bias

    def halve(t):
        return F.max_pool2d(t, 3, 2, ceil_mode=True)

    t = halve(conv(x, "conv1", 2))
    t = F.local_response_norm(t, 5, 1e-4, 0.75, 1.0)
    t = conv(conv(t, "conv2"), "conv3")
    t = halve(F.local_response_norm(t, 5, 1e-4, 0.75, 1.0))
    outputs = {}
    for name in TABLE:
        one = conv(t, f"{name}_branch1")
        three = conv(conv(t, f"{name}_branch2_0"), f"{name}_branch2_1")
        five = conv(conv(t, f"{name}_branch3_0"), f"{name}_branch3_1")
        t = torch.cat([one, three, five, conv(F.max_pool2d(t, 3, 1, 1), f"{name}_branch4_1")], 1)
        if head := {"inception4a": "aux1", "inception4d": "aux2"}.get(name):
            flat = conv(F.avg_pool2d(t, 5, 3), f"{head}_conv").permute(0, 2, 3, 1).flatten(1)
            outputs[head] = dense(F.relu(dense(flat, f"{head}_fc1")), f"{head}_fc2").numpy()
        if name in ("inception3b", "inception4e"):
            t = halve(t)
    return {"logits": dense(t.mean((2, 3)), "fc").numpy(), **outputs}


@pytest.mark.parametrize("side", [(79, 130), (100, 97)])
def test_paper_variant_is_the_same_network_in_torch(check, side):
    with check.float64():
        model = tfzoo.build("googlenet", image_shape=(*side, 2), classes=6, width=0.1, auxiliary=True)
    check.randomize(model, 0.1)
    x = 20 * check.images(3, *side, 2)  # so large that the response normalisation counts
    expected = paper_in_torch({layer.name: layer.get_weights() for layer in model.layers}, check.first(x))
    y = model(x, training=False)
    assert set(y) == set(expected) == set(OUTPUTS)
    for name in OUTPUTS:
        check.depends_on_the_image(expected[name])
        np.testing.assert_allclose(y[name], expected[name], rtol=0, atol=1e-12 * abs(expected[name]).max())


@pytest.mark.parametrize("channels", [1, 3, 11])
def test_response_normalisation_is_tensorflows(channels):
    x = np.random.default_rng(0).normal(0, 100, (2, 3, 5, channels)).astype("float32")
    expected = tf.nn.local_response_normalization(x, depth_radius=2, bias=1.0, alpha=1e-4 / 5, beta=0.75)
    assert np.mean(abs(expected / x - 1) > 0.01) > 0.5
    np.testing.assert_allclose(googlenet.respond(tf.constant(x)), expected, rtol=1e-5)


def test_paper_has_two_response_normalisations_and_torchvisions_none():
    built = {v: tfzoo.build("googlenet", v, image_shape=(64, 64, 3), width=0.1) for v in ("paper", "torchvision")}
    roots = {v: sum(type(op).__name__ == "Power" for op in model.operations) for v, model in built.items()}
    assert roots == {"paper": 2, "torchvision": 0}


# What the builder's arguments do.


@pytest.mark.parametrize(("variant", "rate"), [("paper", 0.4), ("torchvision", 0.2)])
def test_dropout_is_the_variants_and_acts_in_training_only(check, variant, rate):
    small = {"variant": variant, "image_shape": (80, 80, 3), "width": 0.05, "classes": 3, "auxiliary": True}
    model = check.randomize(tfzoo.build("googlenet", **small), 0.1)
    rates = {layer.name: layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)}
    assert rates == {"dropout": rate, "aux1_dropout": 0.7, "aux2_dropout": 0.7}
    x = check.images(2, 80, 80, 3).astype("float32")
    still, again, one, two = (model(x, training=training) for training in (False, False, True, True))
    for name in OUTPUTS:
        np.testing.assert_array_equal(still[name], again[name])
    assert not np.array_equal(one["aux1"], two["aux1"])
    given = tfzoo.build("googlenet", **small, dropout=0.0, auxiliary_dropout=0.1)
    assert [given.get_layer(n).rate for n in ("dropout", "aux1_dropout", "aux2_dropout")] == [0.0, 0.1, 0.1]


@pytest.mark.parametrize("auxiliary", [False, True])
def test_without_top_it_gives_the_last_inceptions_features(check, auxiliary):
    options = {"variant": "paper", "image_shape": (81, 97, 3), "auxiliary": auxiliary}
    model = check.randomize(tfzoo.build("googlenet", "tiny", **options), 0.1)
    base = tfzoo.build("googlenet", "tiny", include_top=False, **options)
    values = {w.path: w for w in model.weights}
    for weight in base.weights:
        weight.assign(values[weight.path])
    x = check.images(2, 81, 97, 3).astype("float32")
    features, logits = base(x), model(x)
    if auxiliary:
        assert set(features) == {"features", "aux1", "aux2"}
        np.testing.assert_array_equal(features["aux1"], logits["aux1"])
        features, logits = features["features"], logits["logits"]
    assert features.shape == (2, 2, 3, 128)
    np.testing.assert_array_equal(features, keras.Model(model.input, model.get_layer("inception5b").output)(x))
    kernel, bias = model.get_layer("fc").get_weights()
    expected = np.asarray(features, "float64").mean((1, 2)) @ kernel + bias
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * abs(expected).max())


@pytest.mark.parametrize("variant", ["paper", "torchvision"])
def test_open_sizes_equal_fixed_sizes(check, variant):
    options = {"variant": variant, "width": 0.1, "classes": 4}
    opened = check.randomize(tfzoo.build("googlenet", image_shape=(None, None, 5), **options), 0.1)
    for side in ((31, 48), (66, 39)):
        fixed = tfzoo.build("googlenet", image_shape=(*side, 5), **options)
        fixed.set_weights(opened.get_weights())
        x = check.images(2, *side, 5).astype("float32")
        y = np.asarray(opened(x))
        check.depends_on_the_image(y)
        np.testing.assert_allclose(fixed(x), y, rtol=0, atol=1e-6 * abs(y).max())


@pytest.mark.parametrize(
    ("side", "options"),
    [
        (15, {"variant": "torchvision"}),
        (31, {"variant": "torchvision", "auxiliary": True}),
        (31, {}),
        (79, {"auxiliary": True}),
    ],
)
def test_smallest_image_is_taken_and_a_smaller_one_refused(check, side, options):
    model = tfzoo.build("googlenet", image_shape=(side, side, 3), width=0.05, **options)
    y = tf.function(model)(check.images(2, side, side, 3).astype("float32"))  # where training takes it
    assert all(np.isfinite(v).all() for v in (y.values() if isinstance(y, dict) else [y]))
    with pytest.raises(ValueError, match=rf"needs {side} pixels or more.*image_shape=\({side}, {side - 1}, 3\)"):
        tfzoo.build("googlenet", image_shape=(side, side - 1, 3), width=0.05, **options)


@pytest.mark.parametrize(("width", "first", "last"), [(1.0, 64, 1024), (0.25, 16, 256), (0.001, 1, 4)])
def test_width_scales_the_channels_and_leaves_at_least_one(width, first, last):
    model = tfzoo.build("googlenet", image_shape=(79, 79, 3), width=width, auxiliary=True)
    assert model.get_layer("conv1_conv").filters == first
    assert model.get_layer("inception5b").output.shape[-1] == last
    assert model.get_layer("aux1_conv_conv").filters == 2 * first - (width < 0.01)
    assert model.get_layer("aux2_fc1").units == max(round(1024 * width), 1)


def test_numbers_may_be_numpys(check):
    given = {"classes": np.int64(5), "width": np.float32(0.125), "dropout": np.float16(0.25)}
    model = tfzoo.build("googlenet", image_shape=(np.int32(40), 40, 1), **given, auxiliary=np.False_)
    plain = {"classes": 5, "width": 0.125, "dropout": 0.25}
    expected = tfzoo.build("googlenet", image_shape=(40, 40, 1), **plain)
    assert check.architecture(model) == check.architecture(expected)


@pytest.mark.parametrize("variant", ["paper", "torchvision"])
def test_layer_names_do_not_depend_on_what_was_built_before(variant):
    options = {"image_shape": (80, 80, 3), "width": 0.05, "auxiliary": True, "transform_input": True}
    one, two = (tfzoo.build("googlenet", variant, **options) for _ in range(2))
    assert [layer.name for layer in one.layers] == [layer.name for layer in two.layers]
    assert one.name == "googlenet"


SAVED = {
    "paper": {"variant": "paper", "image_shape": (80, 80, 3), "auxiliary": True},
    "torchvision": {"image_shape": (80, 80, 3), "auxiliary": True, "transform_input": True},
}


@pytest.fixture(scope="module")
def loaded(check, tmp_path_factory):
    """What models gave before they were saved, and what a process without tfzoo makes of them."""
    folder, before = tmp_path_factory.mktemp("saved"), {}
    x = check.images(2, 80, 80, 3).astype("float32")
    np.save(folder / "x.npy", x)
    for name, options in SAVED.items():
        model = check.randomize(tfzoo.build("googlenet", "tiny", **options), 0.1)
        model.save(folder / f"{name}.keras")
        before[name] = {k: np.asarray(y) for k, y in model(x).items()}
    code = (
        "import sys; sys.modules.update(tfzoo=None, apps=None, bridge=None)\n"
        "import json, keras, numpy as np\n"
        "x = np.load('x.npy')\n"
        "for name in json.loads(sys.argv[1]):\n"
        "    np.savez(f'{name}.npz', **keras.models.load_model(f'{name}.keras')(x))\n"
    )
    subprocess.run([sys.executable, "-c", code, json.dumps(list(SAVED))], cwd=folder, check=True)
    return before, {name: dict(np.load(folder / f"{name}.npz")) for name in SAVED}


@pytest.mark.parametrize("name", SAVED)
def test_saved_and_loaded_without_tfzoo(check, loaded, name):
    before, after = loaded
    assert set(after[name]) == set(OUTPUTS)
    for output in OUTPUTS:
        np.testing.assert_array_equal(after[name][output], before[name][output])
        check.depends_on_the_image(before[name][output])


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        ({"image_shape": (224, 224)}, [r"\(height, width, channels\). Received: image_shape=\(224, 224\)"]),
        (
            {"image_shape": (None, 224, 3), "auxiliary": True},
            [r"must be three positive integers: .* Received: image_shape=\(None, 224, 3\)"],
        ),
        (
            {"image_shape": (224, 224, 1), "transform_input": True},
            [r"transform_input is for three channels. Received: image_shape=\(224, 224, 1\)"],
        ),
        (
            {"include_top": False, "dropout": 0.5},
            ["dropout is of no effect without include_top=True. Received: dropout=0.5"],
        ),
        (
            {"auxiliary_dropout": 0.5, "synchronized": True},
            [
                "auxiliary_dropout is of no effect without auxiliary=True. Received: auxiliary_dropout=0.5",
                "synchronized is of no effect without variant='torchvision'. Received: synchronized=True",
            ],
        ),
        (
            {"variant": "torchvision", "auxiliary": False, "auxiliary_dropout": 0.6, "synchronized": True},
            ["without auxiliary=True. Received: auxiliary_dropout=0.6"],
        ),
        (
            {
                "image_shape": 224,
                "classes": 0,
                "variant": "v3",
                "auxiliary": 1,
                "width": 0,
                "dropout": 1,
                "auxiliary_dropout": None,
                "transform_input": "no",
                "include_top": None,
            },
            [
                "image_shape must be three positive.* Received: image_shape=224",
                "classes must be an integer from 1. Received: classes=0",
                "variant must be one of 'paper', 'torchvision'. Received: variant='v3'",
                "auxiliary must be True or False. Received: auxiliary=1",
                "width must be a number above 0. Received: width=0",
                r"dropout must be a number in \[0, 1\). Received: dropout=1",
                "Received: auxiliary_dropout=None",
                "transform_input must be True or False. Received: transform_input='no'",
                "include_top must be True or False. Received: include_top=None",
            ],
        ),
    ],
)
def test_refusals_name_everything(options, messages):
    with pytest.raises(ValueError) as error:
        tfzoo.build("googlenet", **options)
    for message in messages:
        error.match(message)
    assert len(str(error.value).splitlines()) == len(messages)


def test_arguments_that_ask_for_nothing_are_taken():
    small = {"image_shape": (40, 40, 1), "classes": 3, "width": 0.05}
    for rate in (0.0, 0.7):  # the tiny size's, which has heads, and the default
        tfzoo.build("googlenet", **small, auxiliary=False, auxiliary_dropout=rate, synchronized=False)
