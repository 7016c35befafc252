"""Rollout is the product of the blocks' mixings, from the layers' own weights; shares add up to 1."""

import keras
import numpy as np
import pytest

import tfzoo
from tfzoo.explanations.attention import attention, rollout

rng = np.random.default_rng(0)


def live(pool):
    model = tfzoo.build("vit", size="tiny", image_shape=(6, 8, 1), pool=pool, depth=3)
    for weight in model.weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    return model, rng.normal(size=(3, 6, 8, 1)).astype("float32")


@pytest.mark.parametrize("pool", ["token", "average"])
def test_rollout(pool):
    model, images = live(pool)
    weights = attention(model, images)
    before = pool == "token"
    tokens = 12 + before
    assert weights.shape == (3, 3, 2, tokens, tokens)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert np.ptp(weights, axis=0).max() > 0.1  # the output depends on the picture
    for picture, blocks in zip(rollout(model, images), weights.astype("float64"), strict=True):
        mixed = np.linalg.multi_dot([(block.mean(0) + np.eye(tokens)) / 2 for block in blocks[::-1]])
        expected = mixed[0, 1:] if before else mixed.mean(0)
        np.testing.assert_allclose(picture, expected.reshape(3, 4), rtol=1e-5)
        assert picture.sum() == pytest.approx(1 - (mixed[0, 0] if before else 0), rel=1e-5)


def test_a_token_that_looks_at_one_patch_only():
    model, images = live("token")
    for layer in model.layers:  # queries and keys of nothing: every token looks at all alike
        if layer.name.endswith("qkv"):
            layer.kernel.assign(np.zeros(layer.kernel.shape))
            layer.bias.assign(np.zeros(layer.bias.shape))
    np.testing.assert_allclose(attention(model, images), 1 / 13, rtol=1e-5)
    alike = (np.full((13, 13), 1 / 13) + np.eye(13)) / 2
    expected = np.linalg.matrix_power(alike, 3)[0, 1]
    np.testing.assert_allclose(rollout(model, images), expected, rtol=1e-5)


def test_others_have_no_attention():
    with pytest.raises(ValueError, match="Received: resnet. Grad-CAM explains others"):
        rollout(tfzoo.build("resnet", size="tiny"), np.zeros((1, 16, 16, 1)))
    image = keras.Input((4, 4, 1))
    x = keras.layers.Softmax(name="attn_weights")(keras.layers.Reshape((1, 4, 4))(image))
    with pytest.raises(ValueError, match="the 4 tokens of .* must be a grid of patches"):
        rollout(keras.Model(image, x), np.zeros((1, 4, 4, 1)))
