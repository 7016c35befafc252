"""Padding and cropping, both ways, and how convolutions take padding in."""

import copy
import inspect
import pickle

import keras
import numpy as np
import pytest
import torch

import bridge

layers, ops = keras.layers, keras.ops


@pytest.mark.parametrize("kind", ["ZeroPadding", "Cropping"])
@pytest.mark.parametrize("rank, amount", [(1, (1, 2)), (2, ((1, 2), (0, 3))), (2, 1), (3, ((1, 0), (0, 2), (2, 1)))])
def test_layers(check, kind, rank, amount):
    x = keras.Input((*(6, 7, 8)[:rank], 3), name="x")
    layer = getattr(layers, f"{kind}{rank}D")(amount, name="p")
    _, again = check.both_ways(keras.Model(x, layer(x)), size=9)
    have, want = again.layers[-1].get_config(), layer.get_config()
    key = "padding" if kind == "ZeroPadding" else "cropping"
    assert type(again.layers[-1]) is type(layer)
    assert np.array_equal(have[key], want[key])


def test_channels_first(check):
    x = keras.Input((3, 6, 7), name="x")
    check.both_ways(keras.Model(x, layers.ZeroPadding2D(((1, 2), (0, 3)), data_format="channels_first")(x)))
    layer = layers.Cropping2D(((1, 2), (0, 3)), data_format="channels_first")
    image = np.random.default_rng(0).normal(size=(2, 3, 6, 7))
    have = bridge.to_torch(keras.Model(x, layer(x)))(torch.from_numpy(check.to_first(image)))
    np.testing.assert_array_equal(check.to_last(have.numpy()), image[:, :, 1:-2, :-3])


@pytest.mark.parametrize(
    "pads, value",
    [
        (((0, 0), (1, 2), (0, 3), (0, 0)), 0.0),
        (((0, 0), (1, 2), (0, 3), (2, 1)), 0.0),
        (((0, 0), (1, 2), (0, 3), (0, 0)), -1.5),
    ],
)
def test_functions(check, pads, value):
    x = keras.Input((6, 7, 3), name="x")
    check.both_ways(keras.Model(x, ops.pad(x, pads, constant_values=value) if value else ops.pad(x, pads)))


@pytest.mark.parametrize(
    "shape, nothing",
    [
        ((7, 3), layers.ZeroPadding1D(0)),
        ((6, 7, 3), layers.ZeroPadding2D(0)),
        ((7, 3), layers.Cropping1D(0)),
        ((6, 7, 3), layers.Cropping2D(0)),
        ((6, 7, 3), lambda x: ops.pad(x, [(0, 0)] * 4, constant_values=2.0)),
    ],
)
def test_nothing(check, shape, nothing):
    x = keras.Input(shape, name="x")
    model = keras.Model(x, layers.ReLU()(nothing(layers.LeakyReLU(0.1)(x))))
    module, again = check.both_ways(model)
    check.same_graph(model, module, (torch.randn(2, *shape).movedim(-1, 1 if len(shape) > 2 else -1),))
    assert [type(layer) for layer in again.layers[1:]] == [layers.LeakyReLU, layers.ReLU]


@pytest.mark.parametrize("pad", [(0, 0), (0, 0, 0, 0), (0,) * 8])
def test_nothing_from_torch(check, pad):
    class Module(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.pad(x, pad, value=2.0).relu() + x

    x = torch.randn(2, 3, 6, 7)
    model = bridge.to_keras(Module(), (x,))
    np.testing.assert_array_equal(check.to_first(np.asarray(model(check.to_last(x.numpy())))), Module()(x))
    check.same_graph(model, Module(), (x,))


def test_open_sizes(check):
    x = keras.Input((None, None, 3), name="x")
    y = layers.ZeroPadding2D(((1, 2), (0, 3)))(x)
    check.both_ways(keras.Model(x, layers.Cropping2D(((0, 1), (2, 1)))(layers.ReLU()(y))))


def test_convolutions_take_padding_in(check):
    """Caffe's and torchvision's padding is the convolution's own in torch, and asymmetric padding stays beside it."""
    x = keras.Input((9, 8, 3), name="x")
    y = layers.Conv2D(4, 7, strides=2, name="a")(layers.ZeroPadding2D(3)(x))
    y = layers.Conv2D(4, 3, padding="same", name="b")(layers.ZeroPadding2D(((1, 0), (0, 1)))(y))
    module = check.both_ways(keras.Model(x, y)).module
    assert module.a.padding == (3, 3) and inspect.getsource(type(module)).count("F.pad") == 1


def test_padding_that_others_read_stays(check):
    x = keras.Input((9, 8, 3), name="x")
    y = layers.ZeroPadding2D(1, name="p")(x)
    module = check.both_ways(keras.Model(x, [layers.Conv2D(4, 3, name="a")(y), y])).module
    assert module.a.padding == (0, 0)


@pytest.mark.parametrize(
    "pad, options",
    [
        ((1, 2), {}),
        ((1, 2, 3, 0), {}),
        ((1, 2, 3, 0), {"value": 2.0}),
        ((-1, 2, 3, -2), {}),
        ((0, 1, 0, 0, 2, 1), {}),
        ((-1, -1, -2, 0), {}),
    ],
)
def test_from_torch_and_back(check, pad, options):
    class Module(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.pad(x, pad, **options)

    x = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    want = Module()(x).numpy()
    model = bridge.to_keras(Module(), (x,))
    assert check.relative(check.to_first(np.asarray(model(check.to_last(x.numpy())))), want) < 1e-12
    assert check.relative(bridge.to_torch(model)(x).numpy(), want) < 1e-12


@pytest.mark.parametrize(
    "module", [torch.nn.ZeroPad2d((1, 2, 0, 3)), torch.nn.ConstantPad1d((2, 1), 0.5), torch.nn.ZeroPad3d(1)]
)
def test_modules(check, module):
    x = torch.randn((2, 3, 4, 5, 6)[: {"ConstantPad1d": 3, "ZeroPad3d": 5}.get(type(module).__name__, 4)])
    want = module(x).numpy()
    model = bridge.to_keras(torch.nn.Sequential(module), (x,))
    assert check.relative(check.to_first(np.asarray(model(check.to_last(x.numpy())))), want) < 1e-6


def from_torch(check, module, *shape, dynamic=None, other=None):
    """Carry a module to Keras and back, and compare values and graphs; `other` is a shape to try the results at, too.

    Returns:
        The names of the Keras model's operations, and the torch module that came back.
    """
    module = module.double() if isinstance(module, torch.nn.Module) else check.Function(module)
    torch.manual_seed(0)
    x = torch.randn(2, *shape, dtype=torch.float64)
    model = check.to_keras(module, (x,), dynamic)
    again = bridge.to_torch(model)
    for tensor in (x, *([torch.randn(2, *other, dtype=torch.float64)] if other else [])):
        want = module(tensor).detach().numpy()
        assert check.relative(check.to_first(np.asarray(model(check.to_last(tensor.numpy())))), want) < 1e-12
        assert check.relative(again(tensor).detach().numpy(), want) < 1e-12
    check.same_graph(model, again, (x,), dynamic)
    return [type(x).__name__ for x in model.operations[1:]], again


MODES = ("reflect", "replicate", "circular")


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("rank, pad", [(1, 1), (1, (0, 3)), (2, 1), (2, (0, 3)), (2, (2, 1)), (3, (2, 1))])
@pytest.mark.parametrize("mode", MODES)
def test_modes_from_torch(check, mode, rank, pad, opened):
    """Each axis with pads of its own, at known and at open sizes."""
    before, after = (pad, pad) if isinstance(pad, int) else pad
    flat = [p for i in range(rank) for p in ((before, after) if i % 2 == 0 else (after, before))]
    sizes, dynamic = (4, 5, 6)[:rank], [{0, *range(2, 2 + rank)}] if opened else None
    names, again = from_torch(
        check,
        lambda x: torch.nn.functional.pad(x, flat, mode=mode),
        3,
        *sizes,
        dynamic=dynamic,
        other=(3, *(7, 4, 5)[:rank]) if opened else None,
    )
    if mode == "reflect" or (mode == "replicate" and max(flat) == 1):
        assert [n for n in names if n != "Permute"] == ["Pad"]
    if not (opened and mode == "circular"):
        assert inspect.getsource(type(again)).count(f"mode='{mode}'") == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions_with_a_padding_mode(check, rank, mode):
    """The layer keeps its name; the padding is a function beside it."""
    torch.manual_seed(0)
    convolution = getattr(torch.nn, f"Conv{rank}d")(3, 4, 3, padding=(1, 2, 1)[:rank], padding_mode=mode)
    module = torch.nn.Sequential(convolution, torch.nn.ReLU())
    names, again = from_torch(check, module, 3, *(4, 5, 6)[:rank])
    assert f"Conv{rank}D" in names and f"mode='{mode}'" in inspect.getsource(type(again))
    x = torch.randn(2, 3, *(4, 5, 6)[:rank])
    model = bridge.to_keras(module.float(), (x,))
    assert type(model.get_layer("0")) is getattr(layers, f"Conv{rank}D")
    assert bridge.verify(model, module).passed and bridge.verify(model, bridge.to_torch(model)).passed


@pytest.mark.parametrize(
    "module, shape",
    [
        (torch.nn.ReflectionPad1d((2, 1)), (3, 5)),
        (torch.nn.ReflectionPad2d((2, 1, 0, 3)), (3, 5, 6)),
        (torch.nn.ReflectionPad3d((2, 1, 0, 3, 1, 1)), (3, 4, 5, 6)),
        (torch.nn.ReplicationPad1d((2, 1)), (3, 5)),
        (torch.nn.ReplicationPad2d((7, 1, 0, 3)), (3, 5, 6)),
        (torch.nn.ReplicationPad3d((2, 1, 0, 3, 1, 1)), (3, 4, 5, 6)),
        (torch.nn.CircularPad1d((2, 5)), (3, 5)),
        (torch.nn.CircularPad2d((2, 1, 5, 0)), (3, 5, 6)),
        (torch.nn.CircularPad2d((2, 1, 1, 1)), (3, 1, 6)),
        (torch.nn.CircularPad2d((1, 0, 1, 1)), (3, 1, 1)),
        (torch.nn.CircularPad3d((2, 1, 0, 3, 1, 1)), (3, 4, 5, 6)),
        (lambda x: torch.ops.aten.reflection_pad2d(x, [1, 2, 3, 0]), (3, 5, 6)),
        (lambda x: torch.ops.aten.replication_pad1d(x, [1, 2]), (3, 5)),
    ],
)
def test_modules_with_a_mode(check, module, shape):
    from_torch(check, module, *shape)


@pytest.mark.parametrize("pad", [(-1, 2), (2, -1), (-2, -1), (0, -2), (-1, 2, 3, -2), (1, -2, 2, 0)])
@pytest.mark.parametrize("mode", MODES)
def test_modes_that_cut(check, mode, pad):
    """torch mirrors and repeats what it cuts off afterwards, but goes round what is left."""
    from_torch(check, lambda x: torch.nn.functional.pad(x, pad, mode=mode), *((3, 6) if len(pad) == 2 else (3, 6, 7)))


@pytest.mark.parametrize("mode, opened", [("symmetric", False), ("symmetric", True), ("reflect", True)])
@pytest.mark.parametrize(
    "pads",
    [
        ((0, 0), (1, 2), (0, 3), (0, 0)),
        ((0, 0), (0, 3), (2, 1), (1, 1)),
        ((0, 1), (0, 3), (2, 1), (0, 0)),
        ((0, 0), (2, 2), (0, 0)),
        ((0, 0), (1, 0), (2, 1)),
        ((0, 0), (1, 0), (2, 1), (0, 2), (0, 0)),
        ((0, 0), (1, 0), (2, 1), (0, 2), (1, 1)),
        ((0, 0), (2, 1)),
    ],
)
def test_modes_of_keras(check, mode, pads, opened):
    """On any axis, the batch and the channels too, where torch's F.pad cannot follow."""
    shape = (4, 5, 6)[: len(pads) - 2]
    x = keras.Input((*([None] * len(shape) if opened and not any(pads[0]) else shape), 3), name="x")
    model = keras.Model(x, ops.pad(layers.ReLU()(x), pads, mode=mode))
    module, again = check.both_ways(model)
    assert [type(x).__name__ for x in again.operations if "Pad" in type(x).__name__] == ["Pad"]
    tensor = torch.randn(2, *(n or 5 for n in x.shape[1:]))
    check.same_graph(
        model,
        module,
        (tensor.movedim(-1, 1) if tensor.ndim in (4, 5) else tensor,),
        [{0, *(a + (len(shape) > 1) for a, n in enumerate(x.shape) if a and n is None)}],
    )


def test_symmetric_by_one_is_the_edge(check):
    x = keras.Input((5, 6, 3), name="x")
    module = bridge.to_torch(keras.Model(x, ops.pad(x, ((0, 0), (1, 0), (1, 1), (0, 0)), mode="symmetric")))
    assert "F.pad(image, (1, 1, 1, 0), mode='replicate')" in inspect.getsource(type(module)).replace("x, (", "image, (")
    check.same_graph(keras.Model(x, ops.pad(x, ((0, 0), (1, 0), (1, 1), (0, 0)), mode="symmetric")), module, SAMPLE)


SAMPLE = (torch.randn(2, 3, 5, 6),)


def test_edges_at_a_known_size_are_taken_at_once(check):
    names, _ = from_torch(check, torch.nn.ReplicationPad2d(9), 3, 5, 6)
    assert names == ["Take", "Take"]


@pytest.mark.parametrize("mode", ["symmetric", "reflect", "edge", "circular"])
def test_helper(check, mode):
    """It pads as NumPy does, at any size, and survives copying, pickling, halving and compilation."""
    x = keras.Input((None, None, 3), name="x")
    pads = ((0, 0), (2, 1), (0, 2), (1, 1))
    module = bridge.to_torch(keras.Model(x, ops.pad(x, pads, mode="symmetric")))
    module.get_submodule(next(name for name, _ in module.named_children())).mode = mode
    compiled = torch.compile(module, backend="eager", fullgraph=True, dynamic=True)
    for shape in ((2, 3, 4, 5), (2, 3, 3, 3)):
        tensor = torch.randn(shape)
        name = {"circular": "wrap"}.get(mode, mode)
        want = np.pad(tensor.numpy(), (pads[0], pads[3], pads[1], pads[2]), mode=name)
        for other in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module)), compiled):
            np.testing.assert_array_equal(other(tensor), want)
        assert module(tensor.half()).dtype == torch.float16 and module(tensor.double()).dtype == torch.float64


def test_constant_padding_alone_is_taken_in(check):
    x = keras.Input((9, 8, 3), name="x")
    y = layers.Conv2D(4, 3, name="a")(ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect"))
    model = keras.Model(x, layers.AveragePooling2D(2)(ops.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="symmetric")))
    module = check.both_ways(model).module
    assert module.a.padding == (0, 0) and inspect.getsource(type(module)).count("F.pad") == 2
    assert bridge.verify(model, module).passed


def test_other_cells_are_no_padding():
    x = keras.Input((6, 7, 3), name="x")
    for indices in ([0, 2, 1], [5, 0, 1, 2, 3, 4, 5, 1], [0, 0, 1, 2, 3, 4, 5, 0]):
        module = bridge.to_torch(keras.Model(x, ops.take(x, indices, axis=1)))
        assert [b.tolist() for b in module.buffers()] == [indices]


def test_refusals(check):
    x = keras.Input((6, 7, 3), name="x")
    with pytest.raises(bridge.BridgeError, match="padding mode 'edge', which TensorFlow lacks; use reflect, symmetric"):
        bridge.to_torch(keras.Model(x, ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")))
    with pytest.raises(bridge.BridgeError, match=r"circular padding of an open size by .*; slice the tensor before"):
        bridge.to_keras(
            check.Function(lambda x: torch.nn.functional.pad(x, (-1, 2, 0, 0), mode="circular")), SAMPLE, [{0, 2, 3}]
        )
    with pytest.raises(bridge.BridgeError, match=r"negative padding .* of the batch or the channels; slice the tensor"):
        bridge.to_keras(
            type(
                "M", (torch.nn.Module,), {"forward": lambda self, x: torch.nn.functional.pad(x, (-1, 0, -1, 0, -1, 0))}
            )(),
            (torch.randn(2, 3, 5, 5),),
        )


def test_a_crop_between_convolutions_permutes_nothing(check):
    x = image = keras.Input((9, 8, 3), name="image")
    x = layers.Cropping2D(((1, 0), (0, 2)))(layers.Conv2D(4, 3, activation="relu")(x))
    module, again = check.both_ways(keras.Model(image, layers.Conv2D(2, 2)(x)))
    assert "permute" not in inspect.getsource(type(module))
    assert not any(isinstance(layer, layers.Permute) for layer in again.layers)


def test_a_crop_of_axes_in_another_order(check):
    x = image = keras.Input((9, 8, 3), name="image")
    x = layers.BatchNormalization(axis=1)(layers.Conv2D(4, 3, activation="relu")(x))
    x = layers.Cropping2D(((1, 0), (0, 2)))(x)
    check.both_ways(keras.Model(image, x), limit=1e-7)
