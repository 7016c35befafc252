"""Arithmetic with arrays, constant and trained, and Rescaling, both ways."""

import inspect
import itertools

import keras
import numpy as np
import pytest
import torch

import bridge
from bridge import keras_reader, torch_reader
from bridge.rules import rescaling

layers, ops = keras.layers, keras.ops
FUNCTIONS = list(rescaling.FUNCTIONS)
RANDOM = np.random.default_rng(0)


def numbers(*shape, dtype="float32"):
    """No two alike, none near 0."""
    return RANDOM.uniform(0.5, 2, shape).astype(dtype)


def between(rank, make, size=5):
    """What stands between two convolutions, or two Dense layers."""
    x = keras.Input((*[size] * (rank - 2), 3), name="x")
    kind = (
        (lambda *a, **k: getattr(layers, f"Conv{rank - 2}D")(*a, 2, padding="same", **k)) if rank > 2 else layers.Dense
    )
    return keras.Model(x, kind(2, name="b")(make(kind(3, name="a")(x))))


@pytest.mark.parametrize(
    "function, rank", [*((function, 4) for function in FUNCTIONS), *(("divide", rank) for rank in (2, 3, 5))]
)
def test_one_number_for_each_channel(check, function, rank):
    array = numbers(3) - (0 if function == "divide" else 1.1)
    model = between(rank, lambda x: getattr(ops, function)(x, array))
    module, again = check.both_ways(model)
    assert inspect.getsource(type(module)).count("permute") == 2 * (rank == 3)  # sequences enter channels-last
    assert not [p for p in again.weights if p.path.split("/")[0] not in "ab"]
    if rank == 3:
        assert bridge.verify(model, module).passed


@pytest.mark.parametrize("shape", [(5, 1, 1), (1, 5, 1), (5, 5, 1), (5, 5, 3), (1, 5, 3), (1, 1, 5, 3), (5, 1), (1,)])
def test_along_any_axes(check, shape):
    array = numbers(*shape)
    model = between(4, lambda x: ops.subtract(ops.multiply(x, array), array))
    module = check.both_ways(model).module
    assert "permute" not in inspect.getsource(type(module))
    check.same_graph(model, module, (torch.randn(2, 3, 5, 5),))


@pytest.mark.parametrize("shape", [(4, 3), (4, 1)])
def test_positions_of_a_sequence(check, shape):
    array = numbers(*shape)
    x = keras.Input((4, 3), name="x")
    y = layers.Dense(3, name="a")(x) + array
    check.both_ways(keras.Model(x, layers.Conv1D(2, 1, name="c")(y)))


@pytest.mark.parametrize(
    "function",
    [
        lambda x, a: ops.multiply(a, x),
        lambda x, a: ops.add(a, x),
        lambda x, a: ops.subtract(a, x),
        lambda x, a: (x - a) / a,
        lambda x, a: ops.maximum(a, x),
        lambda x, a: x * ops.convert_to_tensor(a),
        lambda x, a: x * a.astype(int) - a.sum(),
        lambda x, a: x * a[:1],
        lambda x, a: x * np.float32(2),
    ],
)
def test_operands(check, function):
    array = numbers(3)
    model = between(4, lambda x: function(x, array))
    module = check.both_ways(model).module
    check.same_graph(model, module, (torch.randn(2, 3, 5, 5),))


def test_open_sizes_and_rows(check):
    array = numbers(3)
    x = keras.Input((None, None, 3), name="x")
    check.both_ways(keras.Model(x, layers.Conv2D(2, 1, name="c")(layers.Conv2D(3, 1, name="d")(x) * array)))
    x = keras.Input((4, 5, 3), name="x")
    y = layers.Flatten()(layers.Conv2D(3, 2, name="c")(x)) * numbers(36)
    check.both_ways(keras.Model(x, layers.Dense(2, name="d")(y)))


def test_a_constant_survives_the_file(check, tmp_path):
    """A Keras model that came from torch is saved and loaded with its arrays, to the last bit."""
    model = between(4, lambda x: (x - numbers(3)) / numbers(5, 5, 3))
    again = bridge.to_keras(bridge.to_torch(model), (torch.randn(2, 3, 5, 5),))
    again.save(tmp_path / "m.keras")
    loaded, x = keras.saving.load_model(tmp_path / "m.keras"), numbers(2, 5, 5, 3)
    np.testing.assert_array_equal(loaded(x), again(x))


class Normalised(torch.nn.Module):
    """As torchvision's models and many others begin."""

    def __init__(self, shape=(3, 1, 1)):
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(numbers(*shape)))
        self.register_buffer("std", torch.from_numpy(numbers(*shape)))
        self.c = torch.nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.c((x - self.mean) / self.std)


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 3, 1, 1), (1, 5, 7), (3, 5, 7), (1, 1, 1), (3, 5, 1)])
def test_buffers_of_torch(check, shape):
    module, x = Normalised(shape), torch.randn(2, 3, 5, 7)
    model = bridge.to_keras(module, (x,))
    assert check.relative(check.to_first(np.asarray(model(check.to_last(x.numpy())))), module(x).detach()) < 1e-5
    again = bridge.to_torch(model)
    assert "permute" not in inspect.getsource(type(again))
    for other in (module, again):
        check.same_graph(model, other, (x,))
    if shape == (3, 1, 1):
        assert bridge.verify(model, module).passed
        for key in ("mean", "std"):
            np.testing.assert_array_equal(again.state_dict()[key], module.state_dict()[key])
        assert set(again.state_dict()) == set(module.state_dict())
        assert len(list(again.parameters())) == 2


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: torch.rsub(x, m.a),
        lambda m, x: m.a - x,
        lambda m, x: x.mul_(m.a),
        lambda m, x: torch.maximum(m.a, x) + m.a,
        lambda m, x: torch.minimum(x, m.a) * m.b,
        lambda m, x: x * m.n - m.n,
        lambda m, x: x + m.frozen,
    ],
)
def test_functions_of_torch(check, function):
    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(4, 5)
            self.a = torch.nn.Buffer(torch.from_numpy(numbers(5)))
            self.b = torch.nn.Buffer(torch.from_numpy(numbers(1, 3, 5)))
            self.n = torch.nn.Buffer(torch.tensor(0.3))
            self.frozen = torch.nn.Parameter(torch.from_numpy(numbers(3, 1)), requires_grad=False)

        def forward(self, x):
            return function(self, self.fc(x))

    module, x = Module().eval(), torch.randn(2, 3, 4)
    model = check.to_keras(module, (x,))
    assert check.relative(model(x.numpy()), module(x).detach()) < 1e-5
    check.same_graph(model, bridge.to_torch(model), (x,))


class Scaled(torch.nn.Module):
    """Layer scale: a trained number for each channel."""

    def __init__(self, *shape):
        super().__init__()
        self.c = torch.nn.Conv2d(3, 4, 1)
        self.gamma = torch.nn.Parameter(torch.from_numpy(numbers(*shape)))

    def forward(self, x):
        y = self.c(x)
        return y + y.tanh() * self.gamma


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1), (5, 7), (4, 5, 7), (1, 5, 1)])
def test_trained_factors(check, shape):
    module, x = Scaled(*shape), torch.randn(2, 3, 5, 7)
    model = check.to_keras(module, (x,))
    scale = model.get_layer("gamma")
    assert isinstance(scale, layers.EinsumDense) and len(model.trainable_weights) == 3
    assert check.relative(check.to_first(np.asarray(model(check.to_last(x.numpy())))), module(x).detach()) < 1e-5
    again = bridge.to_torch(model)
    assert isinstance(again.gamma, torch.nn.Parameter)
    assert "permute" not in inspect.getsource(type(again))
    check.both_ways(model, randomised=False)
    if shape[0] == 4:
        assert bridge.verify(model, module).passed
        torch.testing.assert_close(again.state_dict(), module.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    "equation, shape",
    [
        ("...c,c->...c", (3,)),
        ("abcd,d->abcd", (5, 5, 3)),
        ("ab...,b->ab...", (5,)),
        ("abcd,bd->abcd", (5, 5, 3)),
    ],
)
def test_einsum_dense_without_a_sum(check, equation, shape):
    model = between(4, layers.EinsumDense(equation, shape, name="s"))
    module, again = check.both_ways(model)
    assert isinstance(module.s, torch.nn.Parameter) and isinstance(again.get_layer("s"), layers.EinsumDense)
    model.trainable = False
    module = bridge.to_torch(model)
    assert not isinstance(module.s, torch.nn.Parameter)
    check.same_graph(model, module, (torch.randn(2, 3, 5, 5),))


def test_layer_scale_of_keras_applications(check):
    from keras.src.applications.convnext import LayerScale

    model = between(4, LayerScale(0.5, 3, name="s"))
    module, again = check.both_ways(model)
    assert module.s.shape == (3, 1, 1) and isinstance(again.get_layer("s"), layers.EinsumDense)
    assert bridge.verify(model, module).passed


@pytest.mark.parametrize(
    "scale, offset",
    itertools.product(
        (1, 1 / 255, [1.1, 0.2, 1 / 3], np.float64([[0.1], [0.2], [0.3], [0.4], [0.5]])), (0, 1, [0.1, 0.2, -0.3])
    ),
)
def test_rescaling(check, scale, offset):
    model = between(4, layers.Rescaling(scale, offset, name="r"))
    module = check.both_ways(model).module
    assert "permute" not in inspect.getsource(type(module))
    check.same_graph(model, module, (torch.randn(2, 3, 5, 5),))
    if isinstance(scale, list):
        assert bridge.verify(model, module).passed
    x = numbers(2, 5, 5, 3) * 255
    alone = keras.Model(model.inputs, layers.Rescaling(scale, offset)(model.inputs[0]))
    have = bridge.to_torch(alone)(torch.from_numpy(check.to_first(x))).numpy()
    np.testing.assert_array_equal(check.to_last(have), np.asarray(alone(x)))


def test_rescaling_where_keras_is_set_to_channels_first(check):
    """Keras then takes a scale for each channel for one along axis 1, and leaves the offset along the last."""
    x = keras.Input((3, 5, 3), name="x")
    model = keras.Model(x, layers.Rescaling([1.0, 2.0, 3.0], [0.1, 0.2, 0.3])(x))
    keras.config.set_image_data_format("channels_first")
    try:
        values = numbers(2, 3, 5, 3)
        have = bridge.to_torch(model)(torch.from_numpy(check.to_first(values)))
        np.testing.assert_array_equal(check.to_last(have.numpy()), model(values))
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_whole_numbers(check, dtype):
    """An image of whole numbers becomes floats of the network's dtype first."""
    x = keras.Input((5, 7, 3), dtype=dtype, name="image")
    model = keras.Model(x, layers.Conv2D(2, 3, name="c")(layers.Rescaling(1 / 255, [0.1, 0.2, 0.3], name="r")(x)))
    check.randomise(model)
    module = bridge.to_torch(model)
    image = np.arange(210, dtype=dtype).reshape(2, 5, 7, 3)
    tensor = torch.from_numpy(check.to_first(image))
    assert check.relative(check.to_last(module(tensor).detach().numpy()), model(image)) < 1e-6
    again = bridge.to_keras(module, (tensor,))
    assert again.inputs[0].dtype == dtype
    assert bridge.verify(model, module).passed and bridge.verify(again, module).passed


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_dtypes(check, dtype):
    x = keras.Input((5, 7, 3), dtype=dtype, name="image")
    y = layers.Rescaling([0.1, 1 / 3, 0.7], 0.1, dtype=dtype)(x) * numbers(3, dtype=dtype)
    model = keras.Model(x, layers.Conv2D(2, 3, dtype=dtype, name="c")(y))
    module = bridge.to_torch(check.randomise(model))
    image = numbers(2, 5, 7, 3, dtype=dtype)
    have = module(torch.from_numpy(check.to_first(image)))
    assert str(have.dtype) == f"torch.{dtype}"
    assert check.relative(check.to_last(have.detach().numpy()), model(image)) < (1e-2 if dtype == "float16" else 1e-12)


def test_one_buffer_twice_is_no_tied_weight(check):
    class Module(Normalised):
        def forward(self, x):
            return self.c((x - self.mean) * self.mean) * 2

    module, x = Module(), torch.randn(2, 3, 5, 7)
    assert bridge.verify(bridge.to_keras(module, (x,)), module).passed


def test_a_wrong_constant_is_told(check):
    model = between(4, lambda x: x - numbers(3))
    module = bridge.to_torch(model)
    module.state_dict()["subtract" if "subtract" in module.state_dict() else list(module.state_dict())[2]].add_(1e-6)
    assert "the weights differ by up to 1" in str(bridge.verify(model, module))


def test_the_module_compiles():
    model = between(4, lambda x: layers.Rescaling(2, [1.0, 2, 3])(layers.EinsumDense("...c,c->...c", (3,))(x)))
    module, x = bridge.to_torch(model), torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(torch.compile(module, backend="eager", fullgraph=True)(x), module(x))
    assert module.half()(x.half()).dtype == torch.float16


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda x: x * numbers(3, dtype="float64"), "with an array of float64 it makes float64 of a tensor of float32"),
        (lambda x: layers.EinsumDense("abcd,db->abcd", (5, 5, 3))(x), "turns its kernel"),
    ],
)
def test_refusals_from_keras(make, text):
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_torch(between(4, make))
    assert text in str(e.value)


@pytest.mark.parametrize("make", [lambda x: x * numbers(3, 5, 5, 3), lambda x: ops.divide(numbers(3), x)])
def test_arrays_that_flow(check, make):
    """What no operator holds is a weight that nothing trains."""
    model = check.randomise(between(4, make))
    module = bridge.to_torch(model)
    assert bridge.verify(model, module).passed
    check.same_graph(model, module, (torch.randn(3, 3, 5, 5),))


def test_both_readers_say_the_same():
    """Height, width and channel run along (2, 3, 1) where the channels are first."""
    model = between(4, lambda x: x * numbers(5, 1, 3))
    node = next(n for n in keras_reader.read(model).nodes if n.operator == "arithmetic")
    assert node["along"] == (1, 3) and node["shape"] == (5, 3)
    node = next(
        n
        for n in torch_reader.read(bridge.to_torch(model), (torch.randn(2, 3, 5, 5),)).nodes
        if n.operator == "arithmetic"
    )
    assert node["along"] == (2, 1) and node["shape"] == (5, 3)
