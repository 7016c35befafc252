"""Sums, products, maxima and concatenations of tensors and numbers, both ways."""

import inspect

import keras
import numpy as np
import pytest
import torch

import bridge
from bridge import keras_reader, layout, torch_reader
from bridge.align import align, differences

layers, ops = keras.layers, keras.ops
MERGES = ["Add", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"]


def images(rank=4, size=5, channels=(3, 3)):
    """A convolution's output and more inputs: orders that differ when the layout is changed."""
    inputs = [keras.Input((*[size] * (rank - 2), c), name=f"i{n}") for n, c in enumerate(channels)]
    first = (
        getattr(layers, f"Conv{rank - 2}D")(3, 2, padding="same", name="c")(inputs[0])
        if rank in (3, 4, 5)
        else layers.Dense(channels[0], name="c")(inputs[0])
    )
    return inputs, [first, *inputs[1:]]


def one_graph(model, module, x):
    """The graphs read from both sides are the same."""
    pairs, sentences = align(
        layout.convert(keras_reader.read(model), "first"), layout.convert(torch_reader.read(module, x), "first")
    )
    assert not sentences and not differences(pairs, keras_reader.read(model), torch_reader.read(module, x))


def torch_inputs(check, model, batch=2):
    rng = np.random.default_rng(3)
    return tuple(
        torch.from_numpy(check.to_first(rng.normal(size=(batch, *t.shape[1:])).astype("float32"))) for t in model.inputs
    )


@pytest.mark.parametrize(
    "kind, rank, count",
    [
        *((kind, 4, 3) for kind in MERGES),
        ("Subtract", 4, 2),
        *((kind, rank, 2) for kind in ("Add", "Concatenate") for rank in (2, 3, 5)),
        ("Average", 4, 2),
        ("Add", 3, 4),
    ],
)
def test_layers(check, kind, rank, count):
    inputs, tensors = images(rank, channels=(3,) * count)
    model = keras.Model(inputs, getattr(layers, kind)(name="merged")(tensors))
    module, again = check.both_ways(model)
    one_graph(model, module, torch_inputs(check, model))
    if kind in ("Add", "Subtract", "Maximum", "Concatenate"):
        assert type(again.layers[-1]) is getattr(layers, kind)


@pytest.mark.parametrize("axis", [-1, 1, 2, 3, -2, -4])
def test_concatenate_along(check, axis):
    inputs, tensors = images()
    model = keras.Model(inputs, layers.Concatenate(axis=axis, name="cat")(tensors))
    module, again = check.both_ways(model)
    assert "dim=" in inspect.getsource(type(module)) or axis == -4
    assert again.layers[-1].axis in (axis, axis % 4, axis - 4)


@pytest.mark.parametrize(
    "kind, shape",
    [
        ("Multiply", (1, 1, 3)),
        ("Multiply", (5, 5, 1)),
        ("Add", (5, 1, 1)),
        ("Average", (1, 1, 1)),
        ("Maximum", (1, 5, 3)),
    ],
)
def test_broadcasting(check, kind, shape):
    inputs, tensors = images()
    small = keras.Input(shape, name="small")
    check.both_ways(keras.Model([*inputs, small], getattr(layers, kind)()([small, tensors[0]])))


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: x + y,
        lambda x, y: x - y,
        lambda x, y: x * y,
        lambda x, y: x / (y * y + 1),
        lambda x, y: ops.divide(x, 2.0),
        lambda x, y: ops.add(x, y),
        lambda x, y: ops.subtract(y, x),
        lambda x, y: ops.maximum(x, y),
        lambda x, y: ops.minimum(x, y),
        lambda x, y: ops.concatenate([x, y, x], axis=-1),
        lambda x, y: ops.concatenate([x, y], axis=1),
        lambda x, y: -x + y,
        lambda x, y: x + 2,
        lambda x, y: 2 + x,
        lambda x, y: x - 0.1,
        lambda x, y: 1 - x,
        lambda x, y: x * 3,
        lambda x, y: 3.5 * x,
        lambda x, y: x / 7,
        lambda x, y: x * np.float32(0.1),
        lambda x, y: (x + y) * x,
        lambda x, y: (1 - x) * y + x * x,
        lambda x, y: ops.negative(x),
        lambda x, y: 1 / (y * y + 1),
        lambda x, y: 3.5 / (y * y + 1) + x * 1,
        lambda x, y: ops.maximum(x, 0.0) + y,
        lambda x, y: ops.maximum(0.2, x) + ops.minimum(y, -0.1),
        lambda x, y: x * -1.0 - -2,
    ],
)
def test_functions(check, function):
    inputs, tensors = images()
    model = keras.Model(inputs, function(*tensors))
    module = check.both_ways(model).module
    one_graph(model, module, torch_inputs(check, model))


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: x + y,
        lambda x, y: x.add_(y),
        lambda x, y: torch.sub(x, y),
        lambda x, y: torch.rsub(x, y),
        lambda x, y: x * y,
        lambda x, y: 1 - x,
        lambda x, y: 3 / 2 * x,
        lambda x, y: x / 3,
        lambda x, y: 3 / (x * x + 1) + y * 1,
        lambda x, y: -x,
        lambda x, y: torch.maximum(x, y),
        lambda x, y: torch.minimum(y, x),
        lambda x, y: torch.cat((x, y, x), dim=-3),
        lambda x, y: torch.cat([x, x]),
        lambda x, y: x.mul_(2) + y,
        lambda x, y: torch.cat([y], 1) + x,
        lambda x, y: (x + y).relu() * (x - y).relu(),
        lambda x, y: (x.relu_() + x) * y,
    ],
)
def test_from_torch(check, function):
    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.c = torch.nn.Conv2d(3, 3, 1)

        def forward(self, x, y):
            return function(self.c(x), y)

    module = Module().double().eval()
    x = tuple(torch.randn(2, 3, 4, 5, dtype=torch.float64) for _ in range(2))
    with torch.no_grad():
        want = module(*x).numpy()
    model = bridge.to_keras(module, x)
    have = np.asarray(model([check.to_last(t.numpy()) for t in x]))
    assert check.relative(check.to_first(have), want) < 1e-9
    with torch.no_grad():
        assert check.relative(bridge.to_torch(model)(*x).numpy(), want) < 1e-9


def test_one_value_twice(check):
    x = keras.Input((5, 5, 3), name="x")
    y = layers.Conv2D(3, 3, name="c")(x)
    y = layers.Add()([y, y])
    y = layers.Concatenate()([y, y, y])
    check.both_ways(keras.Model(x, layers.Multiply()([y, y])))


def test_one_layer_twice(check):
    x = keras.Input((6,), name="x")
    average = layers.Average(name="mean")
    y = layers.Dense(6, name="d")(x)
    check.both_ways(keras.Model(x, average([average([x, y, y]), y])))


def test_flattened_tensors_keep_their_rows(check):
    """Rows are reordered only on a straight way to Dense: two flattened tensors meet as they were read."""
    inputs, (a, b) = images()
    c = layers.Conv2D(3, 2, padding="same", name="c2")(b)
    for merge in (layers.Add(), layers.Concatenate(), layers.Maximum()):
        y = merge([layers.Flatten()(a), layers.Flatten()(c)])
        check.both_ways(keras.Model(inputs, layers.Dense(4, name="fc")(y)))
    flat = layers.Flatten()(a)
    check.both_ways(keras.Model(inputs, [layers.Dense(4, name="fc1")(flat), layers.Add()([flat, layers.Flatten()(b)])]))
    check.both_ways(keras.Model(inputs[0], layers.Dense(4, name="fc2")(flat + flat)))


def test_rows_pass_through_a_number(check):
    inputs, (a, _) = images()
    module = check.both_ways(keras.Model(inputs[0], layers.Dense(4, name="fc")(layers.Flatten()(a) * 2 + 1))).module
    assert "permute" not in inspect.getsource(type(module))


def test_no_permute_between_branches(check):
    """Branches of convolutions meet without a transpose."""
    inputs, (a, b) = images()
    y = layers.Concatenate()([a, layers.Conv2D(3, 1, name="c2")(b)])
    y = layers.Add()([y, layers.Conv2D(6, 1, name="c3")(a)]) * 0.5
    module = check.both_ways(keras.Model(inputs, layers.Conv2D(2, 3, name="c4")(y))).module
    assert "permute" not in inspect.getsource(type(module))


def test_different_orders_meet(check):
    x = keras.Input((6, 6, 6), name="x")
    y = layers.Concatenate()([layers.Conv2D(6, 3, padding="same", name="c")(x), layers.Permute((2, 3, 1))(x)])
    y = layers.Conv2D(6, 1, name="d")(y)
    check.both_ways(keras.Model(x, layers.Multiply()([layers.Permute((1, 3, 2))(y), x, y])))


def test_precedence_survives(check):
    """What is written inside another expression keeps its meaning."""
    x = keras.Input((4,), name="x")
    y = layers.Dense(4, name="d")(x)
    _, again = check.both_ways(keras.Model(x, -((y + 1) * (y - 2)) / 3 - (1 - y)))
    check.both_ways(again)


@pytest.mark.parametrize("kind", [layers.Add, layers.Multiply, layers.Average, layers.Subtract, layers.Maximum])
def test_keras_layers_put_new_axes_after_the_batch(check, kind):
    """A row joins every pixel, channel by channel."""
    x, row = keras.Input((6, 5, 3), name="x"), keras.Input((3,), name="row")
    y = kind(name="join")([layers.Conv2D(3, 1, name="c")(x), row])
    model = keras.Model([x, row], layers.Conv2D(2, 3, name="d")(y))
    module = check.both_ways(model).module
    assert "permute" not in inspect.getsource(type(module))
    assert bridge.verify(check.randomise(model), bridge.to_torch(model)).passed


def test_functions_put_new_axes_first(check):
    class Module(torch.nn.Module):
        def forward(self, x, y):  # (B, C, H, W) and (H, W) as its batch and rows
            return x * y + x.mean((2, 3), keepdim=True)

    x, y = torch.randn(2, 3, 5, 5), torch.randn(5, 5)
    model = bridge.to_keras(Module(), (x, y), [{0}, set()])
    have = model([check.to_last(x.numpy()), y.numpy()])
    assert check.relative(check.to_first(np.asarray(have)), Module()(x, y)) < 1e-6


@pytest.mark.parametrize(
    "function, text",
    [
        (lambda m, x: torch.add(x, 1.5, alpha=2), "alpha=2 with a number or a weight; multiply it before"),
        (
            lambda m, x: torch.div(x, 3, rounding_mode="floor"),
            "of floats is not the quotient rounded down",
        ),
    ],
)
def test_refusals_from_torch(function, text):
    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1, 4))

        def forward(self, x):
            return function(self, x)

    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_keras(Module(), (torch.randn(2, 4),))
    assert text in str(e.value)


@pytest.mark.parametrize("scale", [0.17, 1.0])
def test_the_scaled_sum_of_inception_resnet(check, scale):
    from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

    x = keras.Input((5, 4, 3), name="x")
    y = layers.Conv2D(3, 3, padding="same", name="a")(x)
    model = keras.Model(x, CustomScaleLayer(scale, name="sum")([y, layers.Conv2D(3, 1, name="b")(x)]))
    module, again = check.both_ways(model, same_layers=False)
    kinds = {type(y).__name__ for y in again.operations} - {"InputLayer", "Conv2D"}
    assert kinds == ({"Multiply", "Add"} if scale != 1 else {"Add"})
    assert bridge.verify(model, module).passed


@pytest.mark.parametrize(
    "join, count",
    [
        (lambda x, c: ops.add(layers.Conv2D(3, 1)(x), c), 1),
        (lambda x, c: layers.Add()([c, layers.BatchNormalization()(c), layers.Conv2D(3, 1)(x)]), 2),
        (lambda x, c: ops.add(c, x), 0),  # under torch.autocast of another dtype, as what a LayerNorm makes
        (lambda x, c: ops.add(layers.LayerNormalization()(layers.Conv2D(3, 1)(x)), c), 0),
        (lambda x, c: ops.add(c, layers.ReLU()(c)), 0),  # autograd needs what a ReLU returns
        (lambda x, c: ops.add(c, c), 0),
        (lambda x, c: ops.add(layers.Conv2D(3, 5)(x), x), 0),  # smaller: it is broadcast
        (lambda x, c: ops.subtract(c, x), 0),
    ],
)
def test_a_sum_takes_the_memory_of_what_nobody_reads_again(check, join, count):
    """That of a sum, too; but of nothing that is read twice."""
    x = keras.Input((5, 5, 3), name="x")
    model = keras.Model(x, layers.ReLU()(join(x, layers.Conv2D(3, 3, padding="same")(x))))
    check.both_ways(model)
    module = bridge.to_torch(model)
    assert inspect.getsource(type(module)).count(".add_(") == count
    assert bridge.verify(model, module).passed


def test_sums_of_tensors_from_outside_keep_their_memory():
    """Their batches may differ, and then one is broadcast."""
    inputs, tensors = images()
    module = bridge.to_torch(keras.Model(inputs, layers.Add()(tensors)))
    assert ".add_(" not in inspect.getsource(type(module))
    assert module(torch.ones(1, 3, 5, 5), torch.ones(2, 3, 5, 5)).shape[0] == 2


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: torch.add(x, y, alpha=2),
        lambda x, y: torch.sub(x, y, alpha=-0.5),
        lambda x, y: torch.rsub(x, y, alpha=3),
        lambda x, y: x.clone().add_(y, alpha=0.1),
    ],
)
def test_a_factor_of_the_second_part(check, function):
    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.c = torch.nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            return function(x, self.c(x))

    module = Module()
    model = check.from_torch(module, torch.randn(2, 3, 5, 4))
    assert bridge.verify(model, module).passed


def test_autocast_is_as_without_overwriting():
    """A sum of float32 and bfloat16 is float32."""
    x = keras.Input((5, 5, 3), name="x")
    y = layers.Conv2D(3, 3, padding="same")(x)
    module = bridge.to_torch(keras.Model(x, [ops.add(layers.Conv2D(3, 1)(x), y), ops.add(layers.Conv2D(3, 1)(y), x)]))
    with torch.autocast("cpu", torch.bfloat16):
        both, mixed = module(torch.ones(1, 3, 5, 5))
    assert both.dtype == torch.bfloat16 and mixed.dtype == torch.float32


def test_open_sizes_may_broadcast():
    x = keras.Input((None, None, 3), name="x")
    y, z = layers.Conv2D(3, 1)(x), layers.Permute((2, 1, 3))(layers.Conv2D(3, 1)(x))
    module = bridge.to_torch(keras.Model(x, ops.add(y, z)))
    assert module(torch.ones(2, 3, 1, 5)).shape == (2, 3, 5, 5)


@pytest.mark.parametrize(
    "make, shape",
    [
        (lambda x: x + np.arange(6, dtype="float32")[:, None], (6, 6, 4)),  # of the rows, as many as there are columns
        (lambda x: x + np.arange(4, dtype="float32")[:, None, None], (4, 6, 4)),  # as many as there are channels
        (lambda x: layers.Conv2D(4, 3, padding="same", data_format="channels_first")(x), (4, 4, 4)),
    ],
)
def test_sums_that_keras_takes_for_a_bias(make, shape):
    """keras.ops.add on TensorFlow is a bias_add where its second operand looks like one, along whichever axis."""
    x = keras.Input(shape, name="x")
    with pytest.raises(bridge.BridgeError, match="as a bias of another axis"):
        bridge.to_torch(keras.Model(x, make(x)))


@pytest.mark.parametrize("channels", [2, 3, 5])
def test_a_number_for_each_example(check, channels):
    """Keras takes those of as many examples as there are channels for a bias."""
    x = keras.Input((5, 6, 4), name="x")
    y = layers.Conv2D(channels, 1)(x)
    model = check.randomise(keras.Model(x, y + layers.Dense(1)(layers.GlobalAveragePooling2D(keepdims=True)(x))))
    module = bridge.to_torch(model)
    assert bridge.verify(model, module).passed
    back = bridge.to_keras(module, (torch.randn(2, 4, 5, 6),))
    batch = np.random.default_rng(0).normal(size=(channels, 5, 6, 4)).astype("float32")
    want = module(torch.from_numpy(check.to_first(batch))).detach()
    assert check.relative(check.to_first(np.asarray(back(batch))), want) < 1e-5


@pytest.mark.parametrize("shape, trained", [((6,), False), ((1, 1, 8, 1), True), ((6, 1), True), ((1, 8, 1, 1), True)])
def test_sums_of_torch_are_none(check, shape, trained):
    """Whatever the sizes of the axes are."""

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.c = torch.nn.Conv2d(3, 8, 1)
            part = torch.randn(shape, generator=torch.Generator().manual_seed(0))
            self.p = torch.nn.Parameter(part) if trained else torch.nn.Buffer(part)

        def forward(self, x):
            return self.c(x)[..., :6] + self.p

    module = Module()
    model = check.from_torch(module, torch.randn(2, 3, 8 if len(shape) == 4 else 6, 6))
    assert bridge.verify(model, module).passed


@pytest.mark.parametrize("value", [1, 0.5])
def test_a_product_added(check, value):
    """As in the response normalisation of ConvNeXt V2."""

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.c = torch.nn.Conv2d(3, 4, 3)
            self.weight, self.bias = (torch.nn.Parameter(torch.zeros(4)) for _ in range(2))

        def forward(self, x):
            x = self.c(x)
            norm = x.norm(p=2, dim=(2, 3), keepdim=True)
            norm = norm / (norm.mean(1, keepdim=True) + 1e-6)
            return x + torch.addcmul(self.bias.view(1, -1, 1, 1), self.weight.view(1, -1, 1, 1), x * norm, value=value)

    module = Module()
    model = check.from_torch(module, torch.randn(2, 3, 6, 5))
    assert bridge.verify(model, module).passed
