"""Small models of keras.ops that stand for a layer: known by what they compute, saved as any nested model."""

import keras

import bridge
from bridge import composed, keras_reader


def crop(height=None):
    tensors = [keras.KerasTensor((None, height, 5, 3)), keras.KerasTensor((None, 4, 4, 2))]
    options = {"function": "bilinear", "padding": "zeros", "align_corners": False}
    return composed.made("grid_sample", options, tensors, "sampled"), options


def test_known_by_what_it_computes():
    model, options = crop()
    assert composed.known(model) == ("model.grid_sample", options)
    renamed = keras.Model.from_config(model.get_config() | {"name": "other"})
    assert composed.known(renamed) == ("model.grid_sample", options)
    x, y = model.inputs
    assert composed.known(keras.Model([x, y], model([x, y]) * 2.0)) is None


def test_one_layer_of_a_network(tmp_path):
    model, _ = crop(6)
    x, y = keras.Input((6, 5, 3)), keras.Input((4, 4, 2))
    network = keras.Model([x, y], keras.layers.Dense(2)(model([x, y])))
    network.save(tmp_path / "network.keras")
    again = keras.models.load_model(tmp_path / "network.keras", safe_mode=True)
    assert [n.operator for n in keras_reader.read(again).nodes] == ["grid_sample", "dense"]
    assert bridge.verify(again, bridge.to_torch(again)).passed


def test_a_model_of_the_users_own_is_none():
    """It may have the operations that are looked for, called in any way."""
    x, y = keras.Input((4, 4, 3)), keras.Input((4, 4, 3))
    z = keras.ops.flip(x=keras.ops.maximum(x1=x, x2=y), axis=1)[:, 1:]
    assert composed.known(keras.Model([x, y], keras.ops.equal(x1=z, x2=z))) is None
    assert composed.known(keras.Model(x, keras.layers.BatchNormalization()(keras.ops.maximum(x, x)))) is None
