"""What an export of a classifier serves are probabilities, of the head that counts."""

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
