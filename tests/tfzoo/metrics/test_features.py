import keras
import numpy as np
import pytest
import tensorflow as tf

from tfzoo.metrics.feature_distance import FrechetDistance
from tfzoo.metrics.features import Features, weights_hash


def test_features_are_the_layers_output(classifier, pictures):
    kernel, bias = classifier.get_layer("hidden").get_weights()
    pooled = Features(classifier, "pooled")(pictures[0])
    np.testing.assert_allclose(Features(classifier, "hidden")(pictures[0]), np.tanh(pooled @ kernel + bias), rtol=1e-5)


def test_feature_maps_are_averaged(classifier, pictures):
    maps, pooled = Features(classifier, "maps"), Features(classifier, "pooled")
    assert maps.dimensions == pooled.dimensions == 5
    np.testing.assert_allclose(maps(pictures[0]), pooled(pictures[0]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer", ["maps", "hidden"])
def test_no_pictures_have_no_features(classifier, pictures, layer):
    features = Features(classifier, layer)
    traced = tf.function(features, input_signature=[tf.TensorSpec((None, 8, 9, 2))])
    for found in (features(pictures[0][:0]), traced(pictures[0][:0])):
        assert found.shape == (0, features.dimensions)
    np.testing.assert_allclose(traced(pictures[0]), features(pictures[0]), rtol=1e-5, atol=1e-6)


def test_what_they_are_is_said(classifier):
    said = Features(classifier, "hidden").describe()
    assert said == {
        "classifier": "judge",
        "layer": "hidden",
        "weights": weights_hash(classifier),
        "dimensions": 4,
    }


def test_the_hash_is_of_the_weights(classifier, tmp_path):
    before = weights_hash(classifier)
    classifier.save(tmp_path / "judge.keras")
    loaded = keras.saving.load_model(tmp_path / "judge.keras")
    assert weights_hash(loaded) == before and len(before) == 16
    kernel = loaded.get_layer("logits").kernel
    kernel.assign(np.nextafter(kernel.numpy(), 1))
    assert weights_hash(loaded) != before


def test_layers_that_have_no_features(classifier):
    with pytest.raises(ValueError, match="judge has no layer 'pool3'. It has: .*maps, pooled, .*logits"):
        Features(classifier, "pool3")
    own = keras.Sequential([keras.layers.Dense(3, name="open")])
    with pytest.raises(ValueError, match="one output tensor, in a functional model.*Received: 'open'"):
        Features(own, "open")


def test_several_outputs_are_no_features():
    image = keras.Input((4, 3))
    x, *_ = keras.layers.LSTM(2, return_state=True, name="states")(image)
    with pytest.raises(ValueError, match="one output tensor.*Received: 'states'"):
        Features(keras.Model(image, x), "states")


def test_several_inputs_are_no_pictures():
    images = [keras.Input((4,)), keras.Input((4,))]
    model = keras.Model(images, keras.layers.Add(name="sum")(images))
    with pytest.raises(ValueError, match="a functional model of one input. Received: 'sum'"):
        Features(model, "sum")


def test_of_a_layer_that_is_called_twice_the_first_call():
    image = keras.Input((4,))
    layer = keras.layers.Dense(4, name="twice")
    x = np.random.default_rng(0).normal(size=(3, 4))
    np.testing.assert_allclose(
        Features(keras.Model(image, layer(layer(image))), "twice")(x), x @ layer.kernel, rtol=1e-5
    )


def test_the_metric_is_no_number_within_a_step(features, pictures):
    metric = FrechetDistance(features)

    @tf.function(jit_compile=True)
    def step(real, made):
        metric.update_state(real, made)
        return metric.result()

    assert np.isnan(step(*pictures))
    assert metric.result() > 0
    assert metric.real.result() == 53 and metric.generated.result() == 41


def test_in_the_evaluation_of_a_compiled_model(features, pictures):
    real, made = pictures
    image = keras.Input((8, 9, 2))
    model = keras.Model(image, keras.layers.Rescaling(0.5)(image))
    model.compile(loss="mse", metrics=[FrechetDistance(features)])
    found = model.evaluate(made, real[:41], batch_size=16, verbose=0, return_dict=True)["frechet_distance"]
    alone = FrechetDistance(features)
    alone.update_state(real[:41], 0.5 * made)
    assert found == pytest.approx(float(alone.result()), rel=1e-5)


def test_pictures_of_open_sizes():
    image = keras.Input((None, None, 1))
    features = Features(keras.Model(image, keras.layers.Conv2D(2, 3, name="maps")(image)), "maps")
    traced = tf.function(features, input_signature=[tf.TensorSpec((None, None, None, 1))])
    assert traced(np.zeros((0, 5, 6, 1), "float32")).shape == (0, 2)
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 1)).astype("float32")
    np.testing.assert_allclose(traced(x), np.mean(features.model(x), (1, 2)), rtol=1e-5, atol=1e-6)


def test_sets_may_come_apart(features, pictures):
    together, apart = FrechetDistance(features), FrechetDistance(features)
    together.update_state(*pictures)
    apart.update_state(pictures[0], None)
    apart.update_state(None, pictures[1][:7])
    apart.update_state(None, pictures[1][7:])
    np.testing.assert_allclose(apart.result(), together.result(), rtol=1e-5)


def test_it_starts_again(features, pictures):
    metric, other = FrechetDistance(features), FrechetDistance(features)
    metric.update_state(pictures[0], pictures[0])
    metric.reset_state()
    metric.update_state(*pictures)
    other.update_state(*pictures)
    assert metric.result() == other.result()


def test_describe_has_the_figure_and_the_classifier(features, pictures):
    metric = FrechetDistance(features, name="fd")
    metric.update_state(*pictures)
    assert metric.describe() == {"fd": float(metric.result()), "real": 53, "generated": 41, **features.describe()}


def test_refusals(features, pictures):
    metric = FrechetDistance(features)
    with pytest.raises(ValueError, match="frechet_distance counts every picture once and takes no sample_weight"):
        metric.update_state(*pictures, sample_weight=np.ones(53))
    with pytest.raises(NotImplementedError, match="weights of a classifier, which a configuration does not keep"):
        keras.saving.serialize_keras_object(metric)
