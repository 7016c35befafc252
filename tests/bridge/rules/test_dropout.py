"""Dropout by rate and by the axes that share a mask, both ways."""

import inspect

import keras
import numpy as np
import pytest
import torch

import bridge
from bridge import keras_reader, layout, torch_reader

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
    ],
)
def test_from_keras_and_back(check, make, rank, torch_class):
    layer = make()
    model = model_of(layer, rank)
    module, again = check.both_ways(model)
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
        assert set(np.unique(have)) <= {0, np.float32(1 / 0.75)}


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
    module, _ = check.both_ways(keras.Model(x, layers.Dense(4, name="fc")(y)))
    assert "permute" not in inspect.getsource(type(module))


def test_a_shared_mask_over_rows_is_permuted(check):
    x = keras.Input((4, 5, 3), name="image")
    y = layers.Dropout(0.5, noise_shape=(None, 1), name="d")(layers.Flatten()(x))
    check.both_ways(keras.Model(x, layers.Dense(4, name="fc")(y)))


def test_open_sizes(check):
    x = keras.Input((None, None, 3), name="image")
    y = layers.Dropout(0.5, noise_shape=(None, 1, None, None), name="d")(layers.Conv2D(3, 2, name="c")(x))
    module, _ = check.both_ways(keras.Model(x, y))
    assert module.d.axes == (2,)


def test_a_recorded_training_false_is_overruled_by_keras(check):
    """Keras' fit drops also where a layer was called with training=False, so the module does, too."""
    x = keras.Input((6,), name="x")
    model = keras.Model(x, layers.Dropout(0.5, name="d")(x, training=False))
    assert (np.asarray(model(np.ones((8, 6)), training=True)) == 0).any()
    assert bridge.to_torch(model).d.p == 0.5


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
