"""Resizing over the product of its options, both ways."""

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bridge
from bridge import convert, keras_reader

layers, ops = keras.layers, keras.ops
SINGLE = 3e-6  # TensorFlow resizes in float32, whatever the dtype


def from_torch(check, module, *shape, dynamic=None, dtype=torch.float32):
    """Carry a module to Keras and back, and compare the values and the three graphs; return the Keras model."""
    module = (module if isinstance(module, nn.Module) else check.Function(module)).eval()
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    want = check.to_last(module(x).numpy())
    model = check.to_keras(module, (x,), dynamic)
    assert check.relative(model(check.to_last(x.numpy())), want) < SINGLE
    again = bridge.to_torch(model)
    assert check.relative(check.to_last(again(x).numpy()), want) < SINGLE
    check.same_graph(model, again, (x,), dynamic)
    return model


def both_ways(check, layer, *shape, size=7, limit=SINGLE):
    """Carry a model of a single layer to torch and back; return the module and what the layer came back as."""
    x = keras.Input((*shape, 3), name="image")
    model = keras.Model(x, layer(x))
    module, again = check.both_ways(model, limit=limit, size=size)
    sizes = [n or size for n in shape]
    tensor = torch.randn(2, 3, *sizes) if len(shape) > 1 else torch.randn(2, *sizes, 3)
    moved = (0, *(i + 1 + (len(shape) > 1) for i, n in enumerate(shape) if n is None))
    check.same_graph(model, module, (tensor,), [set(moved)])
    return module, again.operations[-1]


@pytest.mark.parametrize(
    "size, shape",
    [(3, (4,)), (3, (None,)), ((2, 3), (4, 3)), ((1, 2), (None, None)), ((2, 1, 3), (2, 3, None)), (2, (5, None))],
)
def test_nearest_upsampling(check, size, shape):
    layer = getattr(layers, f"UpSampling{len(shape)}D")(size, name="up")
    module, back = both_ways(check, layer, *shape, size=3, limit=1e-15)
    assert type(back) is type(layer) and back.size == layer.size
    assert isinstance(module.up, nn.Upsample) and module.up.mode == "nearest"


def test_a_factor_for_which_nearest_is_off_by_a_pixel(check):
    """floor(82 * (1 / 41)) is 1 in torch's float32, at a size that it is not told."""
    module, back = both_ways(check, layers.UpSampling2D((41, 1), name="up"), 3, 2, limit=1e-15)
    assert module.up.mode == "nearest-exact" and back.size == (41, 1)
    x = torch.arange(6.0).reshape(1, 1, 6, 1)
    upsample = nn.Upsample(scale_factor=(41, 1))
    assert not torch.equal(upsample(x), x.repeat_interleave(41, 2))
    model = bridge.to_keras(nn.Sequential(upsample), (x,))
    np.testing.assert_array_equal(np.asarray(model(x.movedim(1, -1).numpy())), upsample(x).movedim(1, -1).numpy())


@pytest.mark.parametrize("size, shape", [(2, (3, 5)), ((8, 1), (None, None)), (3, (None, 4))])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos3"])
def test_upsampling(check, interpolation, size, shape):
    layer = layers.UpSampling2D(size, interpolation=interpolation, name="up")
    if (interpolation, size) != ("bicubic", 3):  # which TensorFlow's table has not, see test_refusals
        _, back = both_ways(check, layer, *shape, size=4)
        assert (type(back), back.size, back.interpolation) == (layers.UpSampling2D, layer.size, interpolation)


@pytest.mark.parametrize("given, size", [((7, 9), (10, 13)), ((7, 9), (4, 5)), ((8, 4), (4, 7)), ((1, 5), (4, 1))])
@pytest.mark.parametrize(
    "interpolation, antialias",
    [
        ("nearest", True),
        ("nearest", False),
        ("bilinear", True),
        ("bilinear", False),
        ("bicubic", True),
        ("lanczos3", True),
    ],
)
def test_resizing(check, interpolation, antialias, given, size):
    _, back = both_ways(check, layers.Resizing(*size, interpolation, antialias=antialias, name="r"), *given)
    assert isinstance(back, layers.Resizing) and (back.height, back.width, back.interpolation) == (*size, interpolation)


@pytest.mark.parametrize("given, size", [((4, 6), (8, 12)), ((3, 1), (6, 8))])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos3"])
def test_resizing_by_a_whole_factor(check, interpolation, given, size):
    """The normal form is the factor, so that it is one node with UpSampling2D and nn.Upsample(scale_factor=...)."""
    _, back = both_ways(check, layers.Resizing(*size, interpolation), *given)
    assert isinstance(back, layers.UpSampling2D)


@pytest.mark.parametrize("given", [(None, 4)])
@pytest.mark.parametrize(
    "interpolation, antialias", [("nearest", False), ("bilinear", False), ("bilinear", True), ("bicubic", True)]
)
def test_resizing_of_open_sizes(check, interpolation, antialias, given):
    _, back = both_ways(check, layers.Resizing(5, 8, interpolation, antialias=antialias), *given)
    assert isinstance(back, layers.Resizing) and back.antialias == antialias


@pytest.mark.parametrize("given, size", [((7, 9), (4, 6)), ((9, 7), (8, 3)), ((4, 13), (9, 8)), ((5, 2), (4, 6))])
@pytest.mark.parametrize("options", [{"crop_to_aspect_ratio": True}, {"pad_to_aspect_ratio": True, "fill_value": -1.5}])
def test_aspect_ratio(check, options, given, size):
    if given[0] < given[1]:
        x = keras.Input((3, *given), name="image")
        y = ops.image.resize(x, size, **options, data_format="channels_first")
    else:
        x = keras.Input((*given, 3), name="image")
        y = layers.Resizing(*size, **options)(x)
    check.both_ways(keras.Model(x, y), limit=SINGLE)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_functions_and_data_formats(check, data_format, interpolation):
    x = keras.Input((5, 7, 6), name="image")
    y = ops.image.resize(x, (8, 9), interpolation, data_format=data_format)
    y = layers.UpSampling2D(2, data_format, interpolation)(y)
    model = keras.Model(x, y)
    module = check.both_ways(model, limit=SINGLE).module
    assert bridge.verify(model, module).passed


class UNet(nn.Module):
    """Down, up by `up`, and joined with what came before."""

    def __init__(self, up):
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 4, 3, stride=2, padding=1), up
        self.last = nn.Conv2d(7, 2, 3, padding=1)

    def forward(self, x):
        y = self.down(x)
        y = F.interpolate(y, size=x.shape[2:], mode=self.up) if isinstance(self.up, str) else self.up(y)
        return self.last(torch.cat([x, y], dim=1))


@pytest.mark.parametrize(
    "up, size",
    [
        (nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), 8),
        ("nearest", 9),
        ("bicubic", 9),
    ],
)
def test_networks(check, up, size):
    """Values, gradients, and nothing permuted between the convolutions."""
    torch.manual_seed(0)
    module, x = UNet(up).eval(), torch.randn(2, 3, size, size)
    model = bridge.to_keras(module, (x,))
    report = bridge.verify(model, module)
    assert report.passed, report
    again = bridge.to_torch(model)
    check.same_graph(model, again, (x,))
    assert not any(isinstance(layer, layers.Permute) for layer in model.layers)
    if isinstance(up, nn.Upsample):
        assert isinstance(again.up, nn.Upsample) and again.up.align_corners == (up.align_corners or None)


def test_networks_of_keras():
    x = image = keras.Input((9, 7, 3), name="image")
    x = layers.Conv2D(4, 3, strides=2, padding="same", name="a")(x)
    x = layers.UpSampling2D(2, interpolation="bicubic", name="up")(x)
    x = layers.Conv2D(4, 3, name="b")(x)
    x = layers.Resizing(37, 33, interpolation="lanczos3", name="wide")(x)
    x = layers.Resizing(9, 7, antialias=True, name="r")(x)
    model = keras.Model(image, layers.Conv2D(2, 3, name="c")(layers.Concatenate()([x, image])))
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed and report.figures()["forward float64"] < 1e-12, report


def test_positions_of_a_large_image(check):
    """TensorFlow's float32 is 1e-5 off, which the comparison in float64 does not suffer from."""
    x = keras.Input((7, 101, 2), name="image")
    model = keras.Model(x, layers.Resizing(9, 317)(x))
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed and report.figures()["forward float64"] < 1e-12, report
    assert report.figures()["Keras float32 to float64"] > 1e-6


@pytest.mark.parametrize("dtype, size", [(torch.float64, (10, 13)), (torch.float32, (4, 9)), (torch.float32, (7, 3))])
@pytest.mark.parametrize(
    "mode, options",
    [
        ("nearest", {}),
        ("nearest-exact", {}),
        ("bilinear", {}),
        ("bilinear", {"align_corners": True}),
        ("bilinear", {"antialias": True}),
        ("bicubic", {}),
        ("bicubic", {"align_corners": True}),
        ("bicubic", {"antialias": True}),
        ("lanczos", {"antialias": True}),
    ],
)
def test_sizes_of_torch(check, mode, options, size, dtype):
    from_torch(check, lambda x: F.interpolate(x, size=size, mode=mode, **options), 3, 7, 9, dtype=dtype)


@pytest.mark.parametrize("given, size", [((1, 1), (5, 4)), ((1, 4), (3, 6)), ((5, 4), (1, 1)), ((5, 4), (5, 4))])
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_one_cell(check, mode, given, size):
    options = {} if mode == "nearest" else {"align_corners": True}
    from_torch(check, lambda x: F.interpolate(x, size=size, mode=mode, **options), 3, *given)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear", "corners"])
@pytest.mark.parametrize("given, size", [((5,), (8,)), ((4, 3, 5), (6, 7, 3)), ((2, 3, 4), (4, 6, 8))])
def test_other_ranks_of_torch(check, mode, given, size):
    options = {"align_corners": True} if mode == "corners" else {}
    if not mode.startswith("nearest"):
        mode = "linear" if len(given) == 1 else "trilinear"
    from_torch(check, lambda x: F.interpolate(x, size=size, mode=mode, **options), 3, *given)


@pytest.mark.parametrize("factor", [(1, 3), 0.4, (1.05, 1.3)])
@pytest.mark.parametrize(
    "mode, options",
    [
        ("nearest", {"recompute_scale_factor": True}),
        ("bilinear", {}),
        ("bilinear", {"align_corners": True}),
        ("bilinear", {"antialias": True}),
        ("bicubic", {"recompute_scale_factor": True}),
        ("bicubic", {"antialias": True}),
    ],
)
def test_factors_of_torch(check, mode, options, factor):
    """The positions are the factor's, not the sizes', unless it is computed anew; an axis of the same size stays."""
    from_torch(check, lambda x: F.interpolate(x, scale_factor=factor, mode=mode, **options), 3, 7, 9)


@pytest.mark.parametrize("given", [(7, 9), (12, 4), (70, 66)])
@pytest.mark.parametrize("factor", [1.5, 0.7, (1.05, 1.3), (2.3, 1 / 3), (0.25, 0.991)])
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bicubic"])
def test_factors_that_are_not_what_the_sizes_say(check, mode, factor, given):
    dtype = torch.float64 if mode == "bicubic" else torch.float32
    from_torch(check, nn.Sequential(nn.Upsample(scale_factor=factor, mode=mode)), 1, *given, dtype=dtype)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
@pytest.mark.parametrize("factor, given", [(1.3, (7,)), (2.3, (3,)), ((1, 2.5, 1.3), (2, 3, 3)), (1.04, (9, 5, 3))])
def test_factors_of_other_ranks(check, mode, factor, given):
    """An axis that keeps its size or doubles it is not passed over there."""
    from_torch(check, lambda x: F.interpolate(x, scale_factor=factor, mode=mode), 3, *given)


@pytest.mark.parametrize("mode", ["nearest", "bicubic"])
def test_factors_that_are_what_the_sizes_say(check, mode):
    from_torch(check, nn.Upsample(scale_factor=(1.5, 0.7), mode=mode), 3, 4, 10)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.interpolate(x, scale_factor=2),
        lambda x: F.interpolate(x, scale_factor=(2, 1), mode="bilinear", recompute_scale_factor=True),
        lambda x: F.interpolate(x, size=(x.shape[2] * 2, x.shape[3]), mode="bilinear"),
        lambda x: F.interpolate(F.max_pool2d(x, 2), size=(x.shape[2] // 2 * 3, x.shape[3] // 2 * 3)),
        lambda x: F.interpolate(x, size=x.shape[2:], mode="bilinear") * 2,
        lambda x: F.interpolate(x, size=(5, 6), mode="bilinear"),
        lambda x: F.interpolate(x, scale_factor=2, mode="bicubic", antialias=True),
        lambda x: F.interpolate(x, scale_factor=0.5),
        lambda x: F.interpolate(x, scale_factor=(1 / 3, 2), mode="nearest-exact"),
        lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear"),
        lambda x: F.interpolate(x, scale_factor=(0.25, 1 / 3), mode="bilinear"),
        lambda x: F.interpolate(x, scale_factor=(3, 0.25), mode="bilinear"),
    ],
)
def test_open_sizes_of_torch(check, function):
    model = from_torch(check, function, 3, 10, 11, dynamic=[{0, 2, 3}])
    x = torch.randn(2, 3, 9, 13)
    assert check.relative(model(check.to_last(x.numpy())), check.to_last(function(x).numpy())) < SINGLE


def test_one_module_at_two_sizes(check):
    """Its matrices differ."""
    up = nn.Upsample(size=(41, 45), mode="nearest")

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = up

        def forward(self, x):
            return self.up(x) + self.up(x[:, :, 1:])

    from_torch(check, Twice(), 3, 31, 33)


@pytest.mark.parametrize("mode, options", [("bicubic", {}), ("nearest", {}), ("bilinear", {"align_corners": True})])
def test_constants_survive_a_file(check, tmp_path, mode, options):
    module = check.Function(lambda x: F.interpolate(x, size=(10, 13), mode=mode, **options))
    x = torch.randn(2, 3, 7, 9)
    bridge.to_keras(module, (x,)).save(tmp_path / "m.keras")
    model = keras.saving.load_model(tmp_path / "m.keras")
    assert check.relative(model.predict(check.to_last(x.numpy()), verbose=0), check.to_last(module(x).numpy())) < SINGLE
    check.same_graph(model, module, (x,))


@pytest.mark.parametrize(
    "method, antialias", [("linear", False), ("bilinear", True), ("cubic", True), ("lanczos3", True)]
)
@pytest.mark.parametrize("scale", [(10 / 7, 13 / 9), (1.45, 0.8)])
def test_scale_and_translate(check, method, antialias, scale):
    """Also with plain numbers, which Keras takes in float32."""
    x = keras.Input((7, 9, 3), name="image")
    size = [int(n * s + 1e-9) for n, s in zip((7, 9), scale, strict=True)]
    if method == "linear":
        scale = tuple((b - 1) / (a - 1) for a, b in zip((7, 9), size, strict=True))
    translation = tuple(0.5 * (1 - s) if method == "linear" else 0.0 for s in scale)
    y = ops.image.scale_and_translate(x, (None, *size, 3), scale, translation, (1, 2), method, antialias)
    model = keras.Model(x, y)
    module = check.both_ways(model, limit=SINGLE).module
    report = bridge.verify(model, module)
    assert report.passed, report


def test_text():
    x = keras.Input((4, 6, 3), name="image")
    y = layers.UpSampling2D(name="a")(x)
    y = layers.UpSampling2D((1, 2), interpolation="bilinear", name="b")(y)
    y = layers.Resizing(9, 9, interpolation="nearest", name="c")(y)
    y = layers.Resizing(7, 8, interpolation="bicubic", antialias=True, name="d")(y)
    text = convert.source(keras.Model(x, y)).text
    for line in (
        'self.a = nn.Upsample(scale_factor=2, mode="nearest")',
        'self.b = nn.Upsample(scale_factor=(1, 2), mode="bilinear")',
        'self.c = nn.Upsample(size=9, mode="nearest-exact")',
        'F.interpolate(x, size=(7, 8), mode="bicubic", antialias=True)',
    ):
        assert line in text.replace("'", '"')


def refused(model):
    with pytest.raises(bridge.BridgeError) as e:
        keras_reader.read(model)
    return str(e.value)


@pytest.mark.parametrize(
    "layer, text",
    [
        (
            layers.UpSampling2D(3, interpolation="bicubic"),
            r"a bicubic UpSampling2D by (3, 3), which TensorFlow looks up",
        ),
        (
            layers.UpSampling2D(interpolation="lanczos5"),
            "interpolation='lanczos5'; use one of nearest, bilinear, bicubic",
        ),
        (layers.Resizing(4, 5, interpolation="area"), "interpolation='area'; use one of nearest, bilinear"),
        (
            layers.Resizing(4, 5, interpolation="bicubic"),
            "an axis shrinks or is open, without antialiasing; torch has it",
        ),
        (layers.Resizing(10, 13, interpolation="bicubic"), "in a table that is 1e-3 off; use antialias=True, which is"),
        (lambda x: ops.image.resize(x[0], (4, 5)), "an input of shape (7, 9, 3) has no batch; give it a batch"),
        (
            lambda x: ops.image.resize(ops.cast(x, "int32"), (4, 5)),
            "it resizes int32; convert the image to a float dtype",
        ),
        (
            lambda x: ops.image.scale_and_translate(x, (None, 8, 9, 3), (2.0, 1.0), (0.3, 0.0), (1, 2), "linear"),
            "torch can scale the whole image, or keep its corners where they are",
        ),
        (
            lambda x: ops.image.scale_and_translate(x, (None, 3, 9, 3), (0.5, 1.0), (0.0, 0.0), (1, 2), "cubic", False),
            "method='cubic' without antialiasing; use antialias=True",
        ),
        (
            lambda x: ops.image.scale_and_translate(x, (None, 4, 9, 3), (0.5, 1.0), (0.25, 0.0), (1, 2), "linear"),
            "method='linear' with antialias=True and corners that stay where they are; use method='linear' without",
        ),
        (
            lambda x: ops.image.scale_and_translate(x, (None, 8, 9, 3), (2.0,), (0.0,), (1,), "linear"),
            "it scales axes (1,) of (None, 7, 9, 3); scale all but batch and channels",
        ),
        (
            lambda x: ops.image.scale_and_translate(x, (None, 8, 9, 3), (2.0, 1.0), (0.0, 0.0), (1, 2), "lanczos5"),
            "method='lanczos5'",
        ),
    ],
)
def test_refusals(layer, text):
    x = keras.Input((7, 9, 3), name="image")
    assert text in refused(keras.Model(x, layer(x)))


def test_refusals_at_open_sizes():
    x = keras.Input((None, None, 3), name="image")
    text = refused(keras.Model(x, layers.Resizing(4, 5, crop_to_aspect_ratio=True)(x)))
    assert "crop_to_aspect_ratio=True at an open size; give the model an Input of a fixed size" in text


@pytest.mark.parametrize(
    "function, text",
    [
        (
            lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear", antialias=True),
            "computed from an open size of the input; export with that size",
        ),
        (lambda x: F.interpolate(x, scale_factor=1.37, mode="bilinear"), "the scale factor 1.37 at an open size"),
        (
            lambda x: F.interpolate(x, size=4, mode="bilinear", align_corners=True, antialias=True),
            "align_corners=True with antialias=True; use one of them",
        ),
        (
            lambda x: F.interpolate(x.to(torch.uint8), scale_factor=2, mode="bilinear"),
            "it resizes uint8; convert the image to a float",
        ),
    ],
)
def test_refusals_of_torch(check, function, text):
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_keras(check.Function(function), (torch.randn(2, 3, 6, 7),), [{0, 2, 3}])
    assert text in str(e.value)


def refused_of_torch(module, *shape):
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_keras(module, (torch.randn(2, *shape),))
    return str(e.value)


def test_factors_that_keras_cannot_hold():
    text = "(1.23456, 1.23456) from (7, 9) to (8, 11), which are no simple fractions; give factors of three decimals"
    assert text in refused_of_torch(nn.Sequential(nn.Upsample(scale_factor=1.23456, mode="bicubic")), 3, 7, 9)


def test_a_width_of_one_that_torch_gets_wrong(check):
    text = "from (7, 9) to (5, 1): torch exchanges channels and rows where the width becomes 1; resize to the height"
    resize = check.Function(lambda x: F.interpolate(x, size=(5, 1), mode="bicubic", antialias=True))
    assert text in refused_of_torch(resize, 3, 7, 9)
    x = keras.Input((7, 9, 3), name="image")
    with pytest.raises(bridge.BridgeError, match="torch exchanges channels and rows where the width becomes 1"):
        bridge.to_torch(keras.Model(x, layers.Resizing(5, 1, antialias=True)(x)))


def test_pixels_that_torch_rounds_in_two_ways(check):
    """floor(1 * (2 / 82) * 41) is 1 in torch's double, in which it works on one axis, and 0 in its float32."""
    up = nn.Upsample(size=82)
    from_torch(check, up, 3, 2)
    with pytest.raises(bridge.BridgeError, match="from 2 to 82 pixels, which torch rounds to another pixel in float64"):
        bridge.to_keras(nn.Sequential(up).double(), (torch.randn(2, 3, 2, dtype=torch.float64),))
