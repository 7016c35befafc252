"""What an export of a classifier serves are probabilities, of the head that counts."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfzoo
from tfzoo.layers import classifier


def test_logits_of_one_head_and_of_several():
    assert classifier.logits(3) == 3 and classifier.logits({"aux1": 1, "logits": 2}) == 2


@pytest.mark.parametrize("name", ["resnet", "googlenet"])
def test_probabilities(name):
    model = tfzoo.build(name, size="tiny")
    signature = tfzoo.family(name).signatures({"model": model})["serving_default"]
    x = np.random.default_rng(0).normal(size=(3, *model.input_shape[1:])).astype("float32")
    made = signature.function(tf.constant(x))["probabilities"]
    np.testing.assert_allclose(made, tf.nn.softmax(classifier.logits(model(x))), rtol=1e-6)
    np.testing.assert_allclose(np.sum(made, 1), 1, rtol=1e-5)
    assert [spec.name for spec in signature.inputs] == ["image"]


@pytest.mark.parametrize(
    ("name", "received"),
    [("resnet", r"\(None, 4, 4, 32\)"), ("googlenet", "{.*features"), ("vit", r"\(None, 17, 32\)")],
)
def test_features_are_no_probabilities(name, received):
    model = tfzoo.build(name, size="tiny", include_top=False)
    with pytest.raises(ValueError, match=f"{name} gives no logits.* Accepted: .*B, classes.*Received: {received}"):
        classifier.signatures({"model": model})


def test_labels_are_served_beside_them_and_go_on_in_numbers():
    model = tfzoo.build("resnet", size="tiny")
    served = tfzoo.family("resnet").signatures({"model": model}, labels=["cat", "dog"])["serving_default"]
    made = served.function(tf.zeros((3, *model.input_shape[1:])))
    expected = [b"cat", b"dog", *(str(i).encode() for i in range(2, 10))]
    assert made["labels"].shape == made["probabilities"].shape == (3, 10)
    assert np.asarray(made["labels"]).tolist() == [expected] * 3
    none = tfzoo.family("resnet").signatures({"model": model})["serving_default"]
    assert list(none.function(tf.zeros((1, *model.input_shape[1:])))) == ["probabilities"]


@pytest.mark.parametrize("name", ["resnet", "googlenet"])
def test_the_size_of_its_pictures(name):
    model = tfzoo.build(name, size="tiny")
    assert classifier.image_shape(model) == model.input_shape[1:]
    assert classifier.image_shape(tfzoo.build("resnet", size="tiny", image_shape=(None, 8, 3))) == (None, 8, 3)


def test_what_is_no_classifier_of_pictures():
    x = keras.Input((4,))
    several = [keras.Input((8, 8, 3)) for _ in range(2)]
    others = [
        tfzoo.build("unet", size="tiny"),
        tfzoo.build("resnet", size="tiny", include_top=False),
        tfzoo.build("resnet", size="tiny", image_shape=(8, 8, 4)),
        keras.Model(x, keras.layers.Dense(2)(x)),
        keras.Model(several[0], {"scores": keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(several[0]))}),
        keras.Model(several, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(several[0] + several[1]))),
    ]
    for model in others:
        with pytest.raises(ValueError, match=f"{model.name} is no classifier of pictures. Accepted: a functional"):
            classifier.image_shape(model)
