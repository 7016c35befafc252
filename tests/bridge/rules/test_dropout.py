"""Dropout by rate and by the axes that share a mask, both ways."""

import inspect

import keras
import numpy as np
import pytest
import torch

import bridge
from bridge import keras_reader, layout, torch_reader
from bridge.onnx import import_torchvision

layers = keras.layers
SHAPES = {2: (6,), 3: (5, 6), 4: (4, 5, 6), 5: (3, 4, 5, 6)}


def model_of(layer, rank=4):
    x = keras.Input(SHAPES[rank], name="image")
    return keras.Model(x, layer(x))


def shared_axes(output):
    """The axes along which a mask on a tensor of ones does not change."""
    return tuple(a for a in range(output.ndim) if (output == np.take(output, [0], a)).all())


@pytest.mark.parametrize(
    "make, rank, torch_class",
    [
        (lambda: layers.Dropout(0.25, name="d"), 2, "Dropout"),
        (lambda: layers.Dropout(0.25, name="d"), 4, "Dropout"),
        (lambda: layers.Dropout(0, name="d"), 4, "Dropout"),
        (lambda: layers.Dropout(0.25, seed=3, noise_shape=(None, 5, 6), name="d"), 3, "Dropout"),
        (lambda: layers.Dropout(0.25, noise_shape=(None, 1, 1, None), name="d"), 4, "Dropout2d"),
        (lambda: layers.Dropout(0.25, noise_shape=(None, 1, None, 6), name="d"), 4, "SharedDropout"),
        (lambda: layers.Dropout(0.25, noise_shape=(1, None, None, 1), name="d"), 4, "SharedDropout"),
        (lambda: layers.Dropout(0.25, noise_shape=(None, 1), name="d"), 2, "SharedDropout"),
        (lambda: layers.SpatialDropout1D(0.25, name="d"), 3, "SharedDropout"),
        (lambda: layers.SpatialDropout2D(0.25, name="d"), 4, "Dropout2d"),
        (lambda: layers.SpatialDropout3D(0.25, name="d"), 5, "Dropout3d"),
        (lambda: layers.SpatialDropout2D(0.25, data_format="channels_first", name="d"), 4, "SharedDropout"),
        (lambda: layers.Dropout(0.25, noise_shape=(None, 1, 1, 1), name="d"), 4, "SharedDropout"),
        (lambda: layers.Dropout(0.25, noise_shape=(1, 1, 1, 1), name="d"), 4, "SharedDropout"),
        (lambda: layers.AlphaDropout(0.25, name="d"), 2, "AlphaDropout"),
        (lambda: layers.AlphaDropout(0.25, name="d"), 4, "AlphaDropout"),
        (lambda: layers.AlphaDropout(0, name="d"), 4, "AlphaDropout"),
        (lambda: layers.AlphaDropout(0, noise_shape=(None, 1), name="d"), 2, "SharedAlphaDropout"),
        (lambda: layers.AlphaDropout(0.25, noise_shape=(None, 1, 1, 6), name="d"), 4, "FeatureAlphaDropout"),
        (lambda: layers.AlphaDropout(0.25, noise_shape=(None, 1, None), name="d"), 3, "SharedAlphaDropout"),
        (lambda: layers.AlphaDropout(0.25, noise_shape=(None, 1, 1, 1), name="d"), 4, "SharedAlphaDropout"),
    ],
)
def test_from_keras_and_back(check, make, rank, torch_class):
    layer = make()
    model = model_of(layer, rank)
    module, again = check.both_ways(model, back="float32")
    assert type(module.d).__name__ == torch_class and module.d.p == layer.rate
    assert again.get_layer("d").rate == layer.rate
    assert "permute" not in inspect.getsource(type(module))
    first = layout.convert(keras_reader.read(model), "last").nodes[0]
    assert first.attributes == layout.convert(keras_reader.read(again), "last").nodes[0].attributes
    if layer.rate:
        keras.utils.set_random_seed(0)
        ones = np.ones((32, *SHAPES[rank]), "float32")
        want = shared_axes(np.asarray(layer(ones, training=True)))
        have = module.train()(torch.from_numpy(check.to_first(ones))).detach().numpy()
        assert shared_axes(check.to_last(have)) == want
        assert shared_axes(np.asarray(again(ones, training=True))) == want
        alone = type(layer) if isinstance(layer, layers.AlphaDropout) else layers.Dropout
        values = np.unique(np.asarray(alone(layer.rate)(ones, training=True)))
        assert all(np.isclose(values, v, atol=1e-6).any() for v in np.unique(have)) and len(values) == 2
        assert bridge.verify(model, module).passed and bridge.verify(again, module).passed


@pytest.mark.parametrize(
    "make, shape, axes, rate",
    [
        (lambda: torch.nn.Dropout(0.3), (2, 6, 4, 5), None, 0.3),
        (lambda: torch.nn.Dropout(0.3, inplace=True), (2, 6), None, 0.3),
        (lambda: torch.nn.Dropout1d(0.3), (2, 6, 4), (2,), 0.3),
        (lambda: torch.nn.Dropout2d(0.3), (2, 6, 4, 5), (2, 3), 0.3),
        (lambda: torch.nn.Dropout2d(0.3), (2, 6, 4), (2,), 0.3),
        (lambda: torch.nn.Dropout3d(), (2, 6, 3, 4, 5), (2, 3, 4), 0.5),
        (lambda: torch.nn.Dropout2d(0.3), (2, 6, 1, 1), None, 0.3),
        (lambda: torch.nn.AlphaDropout(0.3), (2, 6, 4), None, 0.3),
        (lambda: torch.nn.FeatureAlphaDropout(0.3), (2, 6, 4), (2,), 0.3),
        (lambda: torch.nn.FeatureAlphaDropout(0.3), (2, 6, 3, 4, 5), (2, 3, 4), 0.3),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_from_torch_and_back(make, shape, axes, rate):
    module = torch.nn.Sequential(make())
    x = torch.randn(shape)
    node = torch_reader.read(module, (x,)).nodes[0]
    assert node.attributes == {"rate": rate} | ({"axes": axes} if axes else {}) and node.name == "0"
    model = bridge.to_keras(module, (x,))
    again = torch_reader.read(bridge.to_torch(model), (x,)).nodes[0]
    assert again.attributes == node.attributes
    assert module.training  # as it was before the export


def test_a_shared_mask_follows_the_layout(check):
    """SpatialDropout1D between convolutions is torch's Dropout1d, on channels-first tensors."""
    x = keras.Input((9, 4), name="steps")
    y = layers.Conv1D(5, 3, name="a")(x)
    y = layers.SpatialDropout1D(0.2, name="d")(y)
    module, again = check.both_ways(keras.Model(x, layers.Conv1D(3, 2, name="b")(y)))
    assert type(module.d) is torch.nn.Dropout1d
    assert isinstance(again.get_layer("d"), layers.SpatialDropout1D)


def test_rows_pass_through_dropout(check):
    """Flatten -> Dropout -> Dense: the kernel's rows are reordered and nothing is permuted."""
    x = keras.Input((4, 5, 3), name="image")
    y = layers.Dropout(0.5, name="d")(layers.Flatten()(layers.Conv2D(3, 2, name="c")(x)))
    module = check.both_ways(keras.Model(x, layers.Dense(4, name="fc")(y))).module
    assert "permute" not in inspect.getsource(type(module))


def test_a_shared_mask_over_rows_is_permuted(check):
    x = keras.Input((4, 5, 3), name="image")
    y = layers.Dropout(0.5, noise_shape=(None, 1), name="d")(layers.Flatten()(x))
    check.both_ways(keras.Model(x, layers.Dense(4, name="fc")(y)))


def test_open_sizes(check):
    x = keras.Input((None, None, 3), name="image")
    y = layers.Dropout(0.5, noise_shape=(None, 1, None, None), name="d")(layers.Conv2D(3, 2, name="c")(x))
    module = check.both_ways(keras.Model(x, y)).module
    assert module.d.axes == (2,)


def test_a_recorded_training_false_is_overruled_by_keras(check):
    """Keras' fit drops also where a layer was called with training=False, so the module does, too."""
    x = keras.Input((6,), name="x")
    model = keras.Model(x, layers.Dropout(0.5, name="d")(x, training=False))
    assert (np.asarray(model(np.ones((8, 6)), training=True)) == 0).any()
    assert bridge.to_torch(model).d.p == 0.5


class DropPath(torch.nn.Module):
    """As in timm."""

    def __init__(self, drop_prob=0.0, scale_by_keep=True):
        super().__init__()
        self.drop_prob, self.scale_by_keep = drop_prob, scale_by_keep

    def forward(self, x):
        if not self.drop_prob or not self.training:
            return x
        mask = x.new_empty((len(x), *[1] * (x.ndim - 1))).bernoulli_(1 - self.drop_prob)
        return x * (mask / (1 - self.drop_prob) if self.scale_by_keep else mask)


def stochastic_depth(mode):
    import_torchvision()
    from torchvision.ops import StochasticDepth

    return StochasticDepth(0.3, mode)


class Residual(torch.nn.Module):
    """A block whose branch is dropped."""

    def __init__(self, drop):
        super().__init__()
        self.c, self.drop, self.d = torch.nn.Conv2d(3, 3, 3, padding=1), drop, torch.nn.Conv2d(3, 2, 1)

    def forward(self, x):
        y = self.c(x)
        return self.d(self.drop(y) + x + y)


@pytest.mark.parametrize(
    "make, noise_shape",
    [
        (lambda: stochastic_depth("row"), (None, 1, 1, 1)),
        (lambda: stochastic_depth("batch"), (1, 1, 1, 1)),
        (lambda: DropPath(0.3), (None, 1, 1, 1)),
    ],
)
def test_stochastic_depth_is_seen(check, make, noise_shape):
    """In eval mode these modules return their input itself, so that an export shows nothing of them."""
    module, x = Residual(make()).eval(), torch.randn(2, 3, 5, 7)
    model = bridge.to_keras(module, (x,))
    layer = model.get_layer("drop")
    assert isinstance(layer, layers.Dropout) and layer.rate == 0.3 and layer.noise_shape == noise_shape
    assert check.relative(check.to_first(np.asarray(model(check.to_last(x.numpy())))), module(x).detach()) < 1e-5
    assert bridge.verify(model, module).passed
    again = bridge.to_torch(model)
    assert type(again.drop).__name__ == "SharedDropout" and bridge.verify(model, again).passed
    module.drop = torch.nn.Identity()
    assert not bridge.verify(model, module).passed


def test_a_rate_that_differs_is_told(check):
    model = bridge.to_keras(Residual(DropPath(0.3)), (torch.randn(2, 3, 5, 7),))
    module = bridge.to_torch(model)
    module.drop.p = 0.4
    report = str(bridge.verify(model, module))
    assert "drop: rate is 0.3 in Keras and 0.4 in torch" in report


def test_drop_path_without_a_rate():
    x = torch.randn(2, 3, 5, 7)
    assert bridge.to_keras(Residual(DropPath(None)), (x,)).get_layer("drop").rate == 0
    with pytest.raises(bridge.BridgeError, match="scale_by_keep=False leaves what is kept as it is"):
        bridge.to_keras(Residual(DropPath(0.3, scale_by_keep=False)), (x,))
    assert bridge.to_keras(Residual(DropPath(0.0, scale_by_keep=False)), (x,)).get_layer("drop").rate == 0


def test_by_name_and_by_keyword(check):
    """A module that gets its input by keyword leaves its trace, too."""

    class Block(Residual):
        def forward(self, x):
            return self.d(self.drop(x=self.c(x)) + x)

    module, x = Block(DropPath(0.3)), torch.randn(2, 3, 5, 7)
    model = bridge.to_keras(module, (x,))
    assert model.get_layer("drop").rate == 0.3
    assert bridge.verify(model, module).passed


def test_functional_dropout_has_its_rate():
    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(6, 5)

        def forward(self, x):
            x = torch.nn.functional.dropout(self.fc(x), 0.3, self.training)
            return torch.nn.functional.alpha_dropout(x, 0.2, self.training) * 2

    module = Module()
    model = bridge.to_keras(module, (torch.randn(2, 6),))
    assert [type(x) for x in model.layers[2:4]] == [layers.Dropout, layers.AlphaDropout]
    assert [x.rate for x in model.layers[2:4]] == [0.3, 0.2]
    assert bridge.verify(model, module).passed


def test_stochastic_depth_of_keras_applications(check):
    """keras.applications.ConvNeXt has a class of its own for it."""
    from keras.src.applications.convnext import StochasticDepth

    x = keras.Input((5, 7, 3), name="image")
    y = layers.Conv2D(3, 3, padding="same", name="c")(x)
    model = keras.Model(x, layers.Add()([x, StochasticDepth(0.3, name="d")(y)]))
    module, again = check.both_ways(model)
    assert module.d.p == 0.3 and again.get_layer("d").noise_shape == (None, 1, 1, 1)
    assert bridge.verify(model, module).passed


def test_the_helpers_compile():
    x = keras.Input((4, 5, 6), name="image")
    y = layers.AlphaDropout(0.25, noise_shape=(None, 1, 1, 1), name="a")(x)
    module = bridge.to_torch(keras.Model(x, layers.Dropout(0.25, noise_shape=(None, 1, 1, 1), name="d")(y))).train()
    image = torch.randn(2, 6, 4, 5)
    assert torch.compile(module, backend="eager", fullgraph=True)(image).shape == image.shape
    assert module.half()(image.half()).dtype == torch.float16


def test_refusals():
    x = keras.Input((4, 5, 6), name="x")
    y = layers.Dropout(0.5, name="always")(x, training=True)
    y = layers.Dropout(0.5, noise_shape=(8, 1, 1, None), name="batch_of_eight")(y)
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_torch(keras.Model(x, y))
    assert "always (Dropout): it is called with training=True" in str(e.value)
    assert "batch_of_eight (Dropout): noise_shape=(8, 1, 1, None)" in str(e.value) and "None elsewhere" in str(e.value)

    class Always(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.dropout(x, 0.5, training=True)

    with pytest.raises(bridge.BridgeError, match="random in inference too; leave it to the model's own mode"):
        bridge.to_keras(Always(), (torch.randn(2, 3),))


def test_a_namesake_without_a_rate():
    class DropPath(torch.nn.Module):
        def forward(self, x):
            return x * torch.empty(len(x), 1).bernoulli_(0.8) if self.training else x

    with pytest.raises(bridge.BridgeError, match=r"0 \(DropPath\): in training it also calls empty, bernoulli_, mul"):
        bridge.to_keras(torch.nn.Sequential(DropPath()), (torch.randn(2, 3),))


def test_dropout_of_a_weight(check):
    class Table(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.drop = torch.nn.Parameter(torch.randn(3, 4)), torch.nn.Dropout(0.2)

        def forward(self, x):
            return x @ self.drop(self.table)

    module, x = Table(), torch.randn(2, 3)
    assert bridge.verify(check.from_torch(module, x), module).passed
