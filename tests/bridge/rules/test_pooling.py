"""Pooling over the product of its options, both ways."""

import copy
import inspect
import pickle
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
from bridge import convert, keras_reader
from bridge.rules import pooling

layers, ops = keras.layers, keras.ops


class Function(nn.Module):
    """A function of torch as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


# TensorFlow pools three dimensions in float32 alone
PRECISIONS = ((torch.float32, 2e-6), (torch.float64, 1e-12))


def from_torch(check, module, *shape, dynamic=None):
    """Carry a module to Keras and back to torch, in both precisions, and compare all three; return the Keras model."""
    module = (module if isinstance(module, nn.Module) else Function(module)).eval()
    for dtype, limit in PRECISIONS[: 1 if len(shape) == 4 else 2]:
        torch.manual_seed(0)
        x = torch.randn(2, *shape, dtype=dtype) - 1  # mostly negative: a maximum over zeros shows
        model = bridge.to_keras(module, (x,), dynamic)
        want = check.to_last(module(x).numpy())
        assert check.relative(model(check.to_last(x.numpy())), want) < limit
        again = bridge.to_torch(model)
        assert check.relative(check.to_last(again(x).numpy()), want) < limit
    check.same_graph(model, again, (x,), dynamic)
    check.same_graph(model, module, (x,), dynamic)
    return model


def in_float32(check, model, size):
    """What `check.both_ways` does, where TensorFlow has no float64."""
    shape = [n or size for n in model.input_shape[1:]]
    array = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    tensor = torch.from_numpy(check.to_first(array))
    want = model(array)
    module = bridge.to_torch(model)
    assert check.relative(check.to_last(module(tensor).numpy()), want) < 2e-6
    moved = {i + 1 for i, n in enumerate(model.input_shape) if n is None and i} | {0}
    again = bridge.to_keras(module, (tensor,), [moved])
    assert check.relative(again(array), want) < 2e-6
    return module, again


def both_ways(check, layer, *shape, size=8):
    """Carry a model of a single layer to torch and back; return the layer that came back and the module's source."""
    x = keras.Input((*shape, 3), name="image")
    model = keras.Model(x, layer(x))
    module, again = check.both_ways(model, size=size) if len(shape) < 3 else in_float32(check, model, size)
    sizes = [n or size for n in shape]
    tensor = torch.randn(2, 3, *sizes) if len(shape) > 1 else torch.randn(2, *sizes, 3)
    moved = (0, *(i + 1 + (len(shape) > 1) for i, n in enumerate(shape) if n is None))
    check.same_graph(model, module, (tensor,), [set(moved)])
    return again.layers[-1], convert.source(model).text


@pytest.mark.parametrize("sizes", [(8, 9), (None, 7)])
@pytest.mark.parametrize("pool, strides", [(2, 2), (3, 2), (3, 1), (2, 1), (5, 3), (1, 2), (2, 3), ((3, 2), (1, 2))])
@pytest.mark.parametrize("kind", ["Max", "Average"])
def test_same(check, kind, pool, strides, sizes):
    layer = getattr(layers, f"{kind}Pooling2D")(pool, strides, "same")
    back, _ = both_ways(check, layer, *sizes)
    assert isinstance(back, type(layer))
    assert (back.pool_size, back.strides) == (layer.pool_size, layer.strides)


@pytest.mark.parametrize("sizes", [(8, 9), (None, 9)])
@pytest.mark.parametrize("pool, strides", [(2, 2), (3, 2), ((3, 2), (2, 1))])
@pytest.mark.parametrize("kind", ["Max", "Average"])
def test_valid(check, kind, pool, strides, sizes):
    layer = getattr(layers, f"{kind}Pooling2D")(pool, strides)
    back, _ = both_ways(check, layer, *sizes)
    assert (back.pool_size, back.strides, back.padding) == (layer.pool_size, layer.strides, "valid")


@pytest.mark.parametrize("size", [6, None])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kind", ["Max", "Average"])
@pytest.mark.parametrize("rank", [1, 3])
def test_ranks(check, rank, kind, padding, size):
    layer = getattr(layers, f"{kind}Pooling{rank}D")(3, 2, padding)
    back, _ = both_ways(check, layer, *[5, 4][: rank - 1], size)
    assert isinstance(back, type(layer))


@pytest.mark.parametrize(
    "size, pool, stride", [(3, 6, 6), (2, 5, 1), (2, 5, 5), (3, 7, 2), (4, 5, 3), (1, 3, 3), (1, 2, 2)]
)
@pytest.mark.parametrize("known", [True, False])
def test_a_window_larger_than_a_volume(check, size, pool, stride, known):
    """nn.AvgPool3d refuses it, padded or not."""
    shape = (size, size, size if known else None)
    layer = layers.AveragePooling3D(pool, stride, "same")
    back, _ = both_ways(check, layer, *shape, size=max(size, 2))  # torch.export fixes an axis of 1
    assert (back.pool_size, back.strides, back.padding) == (layer.pool_size, layer.strides, "same")


@pytest.mark.parametrize("known", [True, False])
def test_a_window_larger_than_a_volume_that_counts_its_padding(check, known):
    x = keras.Input((3, 3, 3 if known else None, 2), name="image")
    model = keras.Model(x, layers.AveragePooling3D(4, 2)(layers.ZeroPadding3D(2)(x)))
    module, _ = in_float32(check, model, 3)
    check.same_graph(model, module, (torch.randn(2, 2, 3, 3, 3),), [{0} if known else {0, 4}])


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("pool, strides", [(2, 2), (3, 2), (3, 1), ((1, 2, 3), (3, 1, 2)), (4, 3)])
@pytest.mark.parametrize("shape", [(6, 5, 7), (4, 4, 4), (5, 8, 6)])
def test_a_maximum_over_a_volume_in_double(shape, pool, strides, padding, data_format):
    layer = layers.MaxPooling3D(pool, strides, padding, data_format)
    x = keras.random.normal((2, *shape, 3) if data_format == "channels_last" else (2, 3, *shape), seed=0) - 1
    values, slopes = [], []
    for function, dtype in ((layer, "float32"), (lambda x: pooling.DOUBLE["MaxPooling3D"](layer, x), "float64")):
        v = tf.Variable(tf.cast(x, dtype))
        with tf.GradientTape() as tape:
            y = function(v)
            loss = tf.reduce_sum(y * tf.reshape(tf.cast(tf.range(tf.size(y)), dtype), y.shape))
        assert y.dtype == dtype
        values.append(y.numpy())
        slopes.append(tape.gradient(loss, v).numpy())
    np.testing.assert_array_equal(*values)
    np.testing.assert_array_equal(*slopes)


@pytest.mark.parametrize(
    "sizes, output", [((8, 9), 2), ((7, 5), (3, 5)), ((3, 4), 6), ((8, 6), (1, 3)), ((1, 6), (1, 2))]
)
@pytest.mark.parametrize("kind", ["Max", "Average"])
def test_adaptive(check, kind, sizes, output):
    if 1 in sizes or output == (1, 3):  # Keras cannot run it: the same from torch
        name = kind[:3].replace("Ave", "Avg")
        model = from_torch(check, getattr(nn, f"Adaptive{name}Pool2d")(output), 3, *sizes)
        assert model.layers[-1].pool_size == tuple(n // o for n, o in zip(sizes, output, strict=True))
        return
    back, _ = both_ways(check, getattr(layers, f"Adaptive{kind}Pooling2D")(output), *sizes)
    assert back.output_size == (output if isinstance(output, tuple) else (output, output))


@pytest.mark.parametrize("kind", ["Max", "Average"])
@pytest.mark.parametrize("rank", [1, 3])
def test_adaptive_ranks(check, rank, kind):
    both_ways(check, getattr(layers, f"Adaptive{kind}Pooling{rank}D")(2), *[5, 4, 3][:rank])


@pytest.mark.parametrize(
    "layer, line",
    [
        (layers.MaxPooling2D(name="pool"), "nn.MaxPool2d(2)"),
        (layers.MaxPooling2D(2, padding="same", name="pool"), "nn.MaxPool2d(2, ceil_mode=True)"),
        (layers.MaxPooling2D(3, 2, "same", name="pool"), "MaxPool2dSame((3, 3), stride=(2, 2))"),
        (
            layers.AveragePooling2D(3, 1, "same", name="pool"),
            "nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)",
        ),
        (layers.AveragePooling2D(2, 1, "same", name="pool"), "AvgPool2dSame((2, 2), stride=(1, 1))"),
    ],
)
def test_source_at_open_sizes(layer, line):
    x = keras.Input((None, None, 3), name="image")
    assert f"self.pool = {line}\n" in convert.source(keras.Model(x, layer(x))).text


def test_source_at_a_known_size(tmp_path):
    """GoogLeNet's pooling: SAME is ceil_mode where the image is even; F.pad is left for what no option says."""
    x = keras.Input((112, 112, 3), name="image")
    y = layers.MaxPooling2D(3, 2, "same", name="a")(x)
    y = layers.MaxPooling2D(4, 1, "same", name="b")(y)
    y = layers.AveragePooling2D(4, 1, "same", name="c")(y)
    text = convert.source(keras.Model(x, y)).text
    assert "self.a = nn.MaxPool2d(3, stride=2, ceil_mode=True)\n" in text
    assert 'self.b(F.pad(x, (1, 2, 1, 2), value=float("-inf")))' in text
    (tmp_path / "model.py").write_text(text)
    command = [sys.executable, "-m", "ruff", "check", "--isolated", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("size", [(8, 6), (7, 9)])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 3, "stride": 2, "ceil_mode": True},
        {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
        {"kernel_size": 2, "ceil_mode": True},
        {"kernel_size": (2, 3), "stride": (3, 1), "padding": (1, 0)},
        {"kernel_size": 4, "stride": 3, "padding": 2},
        {"kernel_size": 1, "stride": 2, "ceil_mode": True},
    ],
)
@pytest.mark.parametrize("kind", ["Max", "Avg"])
def test_from_torch(check, kind, options, size):
    model = from_torch(check, getattr(nn, f"{kind}Pool2d")(**options), 3, *size)
    assert not any(isinstance(v, layers.Permute) for v in model.layers)


@pytest.mark.parametrize("pool, stride, padding", [(5, 4, 1), (3, 4, 0)])
def test_ceil_mode_of_a_maximum(check, pool, stride, padding):
    """torch drops a window that would begin after the image: the second case, at 8."""
    from_torch(check, nn.MaxPool2d(pool, stride, padding, ceil_mode=True), 3, 8, 9)


@pytest.mark.parametrize("kind", ["Max", "Avg"])
@pytest.mark.parametrize("rank", [1, 3])
def test_from_torch_ranks(check, rank, kind):
    module = nn.Sequential(getattr(nn, f"{kind}Pool{rank}d")(3, 2, 1), nn.Flatten())
    from_torch(check, module, 3, *[7, 6, 5][:rank])


@pytest.mark.parametrize(
    "size, options",
    [
        ((7, 9), {"kernel_size": 3, "stride": 2, "padding": 1}),
        ((8, 9), {"kernel_size": 3, "stride": 1, "padding": 1}),
        ((7, 8), {"kernel_size": 2, "ceil_mode": True}),
        ((8, 8), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    ],
)
def test_average_of_the_cells_inside(check, size, options):
    model = from_torch(check, nn.AvgPool2d(**options, count_include_pad=False), 3, *size)
    assert [type(v) for v in model.layers[1:]] == [layers.AveragePooling2D]
    assert model.layers[1].padding == "same"


@pytest.mark.parametrize("dynamic", [None, [{0, 2, 3}]])
@pytest.mark.parametrize(
    "pool, stride, padding",
    [(3, 2, 1), (5, 3, 2), (5, 2, 1), ((3, 1), (2, 3), (1, 0)), (4, 2, 1), (4, 3, 1), (6, 1, 2)],
)
def test_average_of_the_cells_inside_that_is_not_same(check, pool, stride, padding, dynamic):
    """At even sizes it is SAME with stride 1, cropped, of which every n-th window is taken; and one node."""
    module = nn.AvgPool2d(pool, stride, padding, count_include_pad=False)
    model = from_torch(check, module, 3, 8, 10, dynamic=dynamic)
    assert [n.operator for n in keras_reader.read(model).nodes] == ["inside_average_pooling"]
    assert str(next(bridge.to_torch(model).children())) == str(module)


@pytest.mark.parametrize("rank", [1, 3])
def test_average_of_the_cells_inside_in_other_ranks(check, rank):
    module = getattr(nn, f"AvgPool{rank}d")(3, 2, 1, count_include_pad=False)
    from_torch(check, module, 3, *[8, 6, 4][:rank])


@pytest.mark.parametrize("dynamic", [None, [{0, 2, 3}]])
@pytest.mark.parametrize(
    "strides, crop", [(1, (1, 0)), (1, (0, 2)), (2, (0, 2)), (2, (1, 2)), (1, (2, 2)), (2, (2, 2))]
)
def test_a_crop_of_an_average_is_less_padding(check, strides, crop, dynamic):
    """The first crops stay within the padding of a window of 4, (1, 2); the last does not."""
    x = keras.Input((9, 8, 3) if dynamic is None else (None, None, 3), name="image")
    y = layers.Cropping2D((crop, crop))(layers.AveragePooling2D(4, 1, "same", name="pool")(x))
    model = keras.Model(x, layers.MaxPooling2D(1, strides)(y))
    module = check.both_ways(model, size=9).module
    check.same_graph(model, module, (torch.randn(2, 3, 9, 8),), dynamic)
    read = [n.operator for n in keras_reader.read(model).nodes]
    assert read[0] == "average_pooling" if crop == (1, 2) else "inside_average_pooling"
    assert len(read) == (1 if crop != (2, 2) else 3)
    if crop == (0, 2):
        assert (
            f"AvgPool2dInside((4, 4), stride=({strides}, {strides}), pads=(1, 0, 1, 0))" in convert.source(model).text
        )


def test_the_helper_of_uneven_padding():
    """It takes any size, and survives copying, pickling and compilation."""
    x = keras.Input((None, None, 3), name="image")
    model = keras.Model(x, layers.Cropping2D(((1, 0), (0, 1)))(layers.AveragePooling2D(3, 1, "same", name="pool")(x)))
    module = bridge.to_torch(model)
    assert type(module.pool).__name__ == "AvgPool2dInside"
    compiled = torch.compile(module, backend="eager", fullgraph=True, dynamic=True)
    for size in ((5, 8), (3, 2)):
        array = np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")
        for other in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module)), compiled):
            have = np.moveaxis(other(torch.from_numpy(np.moveaxis(array, -1, 1).copy())).numpy(), 1, -1)
            np.testing.assert_allclose(have, np.asarray(model(array)), rtol=1e-5, atol=1e-6)
    assert module.half()(torch.randn(2, 3, 5, 5).half()).dtype == torch.float16


@pytest.mark.parametrize(
    "options", [{}, {"padding": 1}, {"padding": 1, "ceil_mode": True}, {"count_include_pad": False}]
)
def test_divisor_override(check, options):
    from_torch(check, nn.AvgPool2d(3, 2, divisor_override=4, **options), 3, 8, 6)
    model = from_torch(check, nn.AvgPool2d((2, 3), divisor_override=6), 3, 8, 9)
    assert [type(v).__name__ for v in model.operations[1:]] == ["AveragePooling2D"]


@pytest.mark.parametrize(
    "sizes, output",
    [((1, 1), 7), ((3, 3), 7), ((6, 6), 6), ((8, 8), (1, 3)), ((5, 1), (2, 3)), ((1, 8), (1, 3)), ((1, 5), (4, 1))],
)
@pytest.mark.parametrize("kind", ["Max", "Avg"])
def test_adaptive_that_keras_cannot_hold(check, kind, sizes, output):
    """VGG and AlexNet at small images: an axis of one cell, or one that becomes one cell."""
    from_torch(check, getattr(nn, f"Adaptive{kind}Pool2d")(output), 3, *sizes)


@pytest.mark.parametrize("sizes, output", [((1,), 4), ((1, 5, 4), (2, 1, 3))])
def test_adaptive_that_keras_cannot_hold_in_other_ranks(check, sizes, output):
    from_torch(check, getattr(nn, f"AdaptiveAvgPool{len(sizes)}d")(output), 3, *sizes)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("function", ["max_pool", "average_pool"])
@pytest.mark.parametrize("shape", [(7,), (7, None), (5, 6, 4)])
def test_functions_of_keras(check, shape, function, padding):
    """What they do is a layer when it comes back."""
    function = getattr(ops, function)
    for options in ({"pool_size": 2}, {"pool_size": (3, 2, 2)[: len(shape)], "strides": 2}):
        back, _ = both_ways(check, lambda x, o=options: function(x, padding=padding, **o), *shape)
        assert type(back).__name__.endswith(f"Pooling{len(shape)}D")


@pytest.mark.parametrize("function", ["adaptive_max_pool", "adaptive_average_pool"])
def test_adaptive_functions_of_keras(check, function):
    function = getattr(ops, function)
    x = keras.Input((7, 5, 3), name="image")
    y = function(ops.transpose(x, (0, 3, 1, 2)), (3, 2), data_format="channels_first")
    _, again = in_float32(check, keras.Model(x, ops.transpose(y, (0, 2, 3, 1))), 7)
    assert again.layers[-1].output_size == (3, 2) and len(again.layers) == 2
    with pytest.raises(
        bridge.BridgeError, match=r"Keras takes its output to be of shape .*; use the layer, Adaptive\w+2D"
    ):
        bridge.to_torch(keras.Model(x, function(x, (2, 2))))


@pytest.mark.parametrize("options", [{}, {"stride": 2, "ceil_mode": True}])
@pytest.mark.parametrize("norm", [2, 3.5])
def test_a_power_average(check, norm, options):
    """nn.LPPool is exported as powers and an average."""
    model = bridge.to_keras(nn.Sequential(nn.ReLU(), nn.LPPool2d(norm, 3, **options)), (torch.randn(2, 3, 7, 8),))
    module = nn.Sequential(nn.ReLU(), nn.LPPool2d(norm, 3, **options))
    x = torch.randn(2, 3, 7, 8)
    assert check.relative(model(check.to_last(x.numpy())), check.to_last(module(x).numpy())) < 2e-6
    check.same_graph(model, module, (x,))


def test_verified(check):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.AdaptiveAvgPool2d((1, 3))
    )
    model = bridge.to_keras(module, (torch.randn(2, 3, 12, 16),))
    assert bridge.verify(model, module).passed and bridge.verify(model, bridge.to_torch(model)).passed


def test_padding_that_is_not_same(check):
    model = from_torch(check, nn.MaxPool2d(3, 2, 1), 3, 8, 8)
    assert [type(v).__name__ for v in model.operations[1:]] == ["Pad", "MaxPooling2D"]
    model = from_torch(check, nn.AvgPool2d(3, 2, 1), 3, 8, 8)
    assert [type(v).__name__ for v in model.layers[1:]] == ["ZeroPadding2D", "AveragePooling2D"]
    model = from_torch(check, nn.MaxPool2d(3, 2, 1), 3, 7, 7)
    assert [type(v).__name__ for v in model.operations[1:]] == ["MaxPooling2D"]


def test_padded_model_can_be_saved(check, tmp_path):
    """Its -inf goes through the JSON of a .keras file."""
    x = torch.randn(2, 3, 8, 8)
    model = bridge.to_keras(nn.MaxPool2d(3, 2, 1), (x,))
    model.save(tmp_path / "model.keras")
    other = keras.models.load_model(tmp_path / "model.keras")
    array = check.to_last(x.numpy())
    np.testing.assert_array_equal(np.asarray(other(array)), np.asarray(model(array)))


def test_zero_padding_before_a_maximum_stays(check):
    """ResNet50 of keras.applications: those zeros take part in the maximum."""
    x = keras.Input((7, 7, 3), name="image")
    y = layers.ZeroPadding2D(1, name="pad")(x)
    check.both_ways(keras.Model(x, layers.MaxPooling2D(3, 2, name="pool")(y)))


@pytest.mark.parametrize("dynamic", [None, [{0, 2, 3}]])
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_global_from_torch(check, kind, dynamic):
    """The usual end of a torch classifier becomes one Keras layer."""
    pool = nn.AdaptiveAvgPool2d(1) if kind == "avg" else nn.AdaptiveMaxPool2d((1, 1))
    model = from_torch(check, nn.Sequential(pool, nn.Flatten()), 3, 5, 4, dynamic=dynamic)
    assert [type(v).__name__ for v in model.layers[1:]] == [f"Global{'Average' if kind == 'avg' else 'Max'}Pooling2D"]
    function = getattr(F, f"adaptive_{kind}_pool2d")
    model = from_torch(check, lambda x: function(x, 1).flatten(1), 3, 5, 4, dynamic=dynamic)
    assert len(model.layers) == 2
    model = from_torch(check, lambda x: function(x, 1), 3, 5, 4, dynamic=dynamic)
    assert model.layers[1].keepdims


def test_open_sizes_from_torch(check):
    dynamic = [{0, 2, 3}]
    for module in (
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    ):
        model = from_torch(check, module, 3, 8, 5, dynamic=dynamic)
        assert model.input_shape == (None, None, None, 3)
        x = torch.randn(2, 3, 5, 10)
        have = np.asarray(model(check.to_last(x.numpy()).astype(model.input.dtype)))
        assert check.relative(have, check.to_last(module(x).numpy())) < 1e-6


@pytest.mark.parametrize("kind", ["Max", "Average"])
def test_helper_class(check, kind):
    """It takes any size, and survives copying, pickling and compilation."""
    x = keras.Input((None, None, 3), name="image")
    model = keras.Model(x, getattr(layers, f"{kind}Pooling2D")(3, 2, "same", name="pool")(x))
    module = bridge.to_torch(model)
    compiled = torch.compile(module, backend="eager", dynamic=True)
    for h, w in ((5, 8), (6, 3), (1, 2)):
        array = np.random.default_rng(h).normal(size=(2, h, w, 3)).astype("float32")
        tensor = torch.from_numpy(check.to_first(array))
        want = check.to_first(np.asarray(model(array)))
        for other in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module)), compiled):
            np.testing.assert_allclose(other(tensor).numpy(), want, rtol=1e-6, atol=1e-7)
        assert module.double()(tensor.double()).dtype == torch.float64
        module.float()


@pytest.mark.parametrize("name", ["MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "AdaptiveMaxPooling2D"])
def test_channels_first(check, name):
    options = {"AdaptiveMaxPooling2D": {"output_size": 2}, "GlobalAveragePooling2D": {}}
    options = options.get(name, {"pool_size": 3, "strides": 2, "padding": "same"})
    x = keras.Input((5, 7, 3), name="image")
    y = getattr(layers, name)(data_format="channels_first", **options)(layers.Permute((3, 1, 2))(x))
    model = keras.Model(x, y if name.startswith("Global") else layers.Permute((2, 3, 1))(y))
    _, again = check.both_ways(model)
    assert not any(isinstance(v, layers.Permute) for v in again.layers)


@pytest.mark.parametrize(
    "module, shape, text",
    [
        (
            nn.MaxPool2d(3, dilation=2, ceil_mode=True),
            (9, 9),
            r"0 \(MaxPool2d\): ceil_mode=True with a dilation; use ceil_mode=False, and pad the image",
        ),
        (
            nn.FractionalMaxPool2d(3, output_size=4),
            (8, 8),
            "there is no rule for the operator fractional_max_pool2d",
        ),
        (nn.MaxPool2d(2, return_indices=True), (8, 8), "return_indices=True; .* leave them out"),
        (Function(lambda x: F.adaptive_max_pool2d(x, 2, return_indices=True)), (8, 8), "its output 1 is used"),
    ],
)
def test_refused(module, shape, text):
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_keras(nn.Sequential(module), (torch.randn(2, 4, *shape),))


@pytest.mark.parametrize(
    "module, text",
    [
        (nn.MaxPool2d(2, 2, 1, ceil_mode=True), "ceil_mode=True with an open size, a window of 2 with padding 1"),
        (
            Function(lambda x: F.adaptive_avg_pool2d(x, (x.shape[3], 2))),
            "computed from an open size of the input; export with that size fixed",
        ),
    ],
)
def test_refused_at_open_sizes(module, text):
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_keras(nn.Sequential(module), (torch.randn(2, 4, 8, 8),), [{0, 2, 3}])


def test_no_batch_is_refused():
    with pytest.raises(bridge.BridgeError, match="has no batch; give it a batch"):
        bridge.to_keras(nn.MaxPool2d(2), (torch.randn(4, 5, 5),), [set()])


@pytest.mark.parametrize(
    "module, shape",
    [
        (nn.MaxPool1d(3, 2, 1, dilation=3), (4, 9)),
        (nn.MaxPool2d(3, 2, 1, dilation=2), (3, 8, 9)),
        (nn.MaxPool2d((2, 1), (1, 2), dilation=(3, 2)), (3, 8, 9)),
        (nn.MaxPool3d((2, 1, 2), dilation=(2, 1, 1)), (2, 6, 5, 7)),
        (nn.AvgPool1d(4, 2, 2, count_include_pad=False), (3, 8)),
        (nn.AvgPool2d((2, 4), (1, 3), (1, 2), count_include_pad=False), (3, 8, 9)),
        (nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), (3, 8, 9)),
        (nn.AvgPool2d(5, 4, 1, ceil_mode=True), (3, 8, 8)),
    ],
)
def test_what_keras_has_no_layer_for(check, module, shape):
    """It is a small model of keras.ops, and the same module again."""
    check.from_torch(nn.Sequential(module), torch.randn(2, *shape))


def test_training_with_what_keras_has_no_layer_for(tmp_path):
    """Behind a ReLU many cells are equal; the average of three axes has no kernel of float64 in TensorFlow."""
    torch.manual_seed(0)
    pools = [nn.MaxPool2d(2, dilation=2), nn.AvgPool2d(2, 1, 1, count_include_pad=False)]
    module, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), *pools, nn.Conv2d(4, 2, 3)), torch.randn(2, 3, 13, 14)
    model = bridge.to_keras(module, (x,))
    report = bridge.verify(model, module)
    assert report.passed, report
    deep = nn.Sequential(nn.Conv3d(2, 3, 1), nn.AvgPool3d(2))
    assert bridge.verify(bridge.to_keras(deep, (torch.randn(2, 2, 4, 5, 6),)), deep).passed


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.MaxPool2d((5, 4), (3, 2), (1, 2), ceil_mode=True),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.AvgPool2d(4, 3, 1, ceil_mode=True),
        nn.AvgPool2d(4, 2, 1, ceil_mode=True, count_include_pad=False),
    ],
    ids=str,
)
def test_ceil_mode_at_open_sizes(check, pool):
    """At every size, though the export has seen one."""
    module, x = nn.Sequential(nn.Conv2d(3, 2, 1), pool).eval().double(), torch.randn(2, 3, 9, 11).double()
    model = bridge.to_keras(module, (x,), [{0, 2, 3}])
    check.same_graph(model, module, (x,), [{0, 2, 3}])
    back = bridge.to_torch(model)
    assert "ceil_mode=True" in inspect.getsource(type(back))
    for n in range(3, 21):
        x = torch.randn(2, 3, n, 23 - n).double()
        want = module(x).detach()
        assert check.relative(check.to_first(model(check.to_last(x.numpy())).numpy()), want) < 1e-12
        assert check.relative(back(x).detach(), want) < 1e-12


@pytest.mark.parametrize(
    "pool, rank",
    [
        (nn.AdaptiveAvgPool2d((3, 7)), 2),
        (nn.AdaptiveAvgPool2d((None, 2)), 2),
        (nn.AdaptiveAvgPool2d((1, None)), 2),
        (nn.AdaptiveMaxPool2d((5, 1)), 2),
        (nn.AdaptiveMaxPool1d(4), 1),
        (nn.AdaptiveAvgPool3d((2, None, 3)), 3),
    ],
    ids=str,
)
def test_adaptive_at_open_sizes(check, pool, rank):
    """At sizes that are no multiple of the windows, and at fewer cells than windows."""
    kind, dynamic = getattr(nn, f"Conv{rank}d"), [{0, *range(2, 2 + rank)}]
    module, x = nn.Sequential(kind(3, 2, 1), pool).eval().double(), torch.randn(2, 3, *(9, 11, 4)[:rank]).double()
    model = bridge.to_keras(module, (x,), dynamic)
    check.same_graph(model, module, (x,), dynamic)
    back = bridge.to_torch(model)
    for n in range(1, 21):
        x = torch.randn(3, 3, *(n, 21 - n, 4)[:rank]).double()
        want = module(x).detach()
        assert check.relative(check.to_first(model(check.to_last(x.numpy())).numpy()), want) < 1e-12
        assert check.relative(back(x).detach(), want) < 1e-12


class Pyramid(nn.Module):
    """PSPNet's, with maxima behind a ReLU, where many cells are equal."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(12, 2, 1)

    def forward(self, x):
        x = torch.relu(self.first(x) - 0.5)
        pools = [F.adaptive_avg_pool2d(x, 3), F.adaptive_max_pool2d(-x, 2)]
        return self.last(torch.cat([x, *(F.interpolate(y, x.shape[2:], mode="bilinear") for y in pools)], 1))


def test_training_with_adaptive_pooling_at_open_sizes(tmp_path):
    torch.manual_seed(0)
    module = Pyramid()
    model = bridge.to_keras(module, (torch.randn(2, 3, 8, 7),), [{0, 2, 3}])
    model.save(tmp_path / "model.keras")
    report = bridge.verify(keras.saving.load_model(tmp_path / "model.keras"), module)
    assert report.passed, report
