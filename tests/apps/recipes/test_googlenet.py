"""GoogLeNet's recipe trains all three heads and judges the one that counts."""

import keras
import numpy as np
import pytest

import tfzoo
from apps.recipes import _classifier
from apps.recipes import googlenet as recipe


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = tfzoo.build("googlenet", size="tiny", image_shape=(32, 32, 1), **recipe.SMALL)
    rng = np.random.default_rng(0)
    for name in ("fc", "aux1_fc2", "aux2_fc2"):  # the heads, which begin with zeros
        kernel = model.get_layer(name).kernel
        kernel.assign(rng.normal(0, 0.1, kernel.shape))
    recipe.compile(model, optimizer=lambda kind, **arguments: kind(0.02, **arguments), jit_compile=False)
    return model


def test_the_loss_is_weighted(model):
    data = recipe.datasets("digits", (32, 32, 1), batch_size=8, seed=0)
    images, labels = next(data.training.as_numpy_iterator())
    assert labels.keys() == {"logits", "aux1", "aux2"} and all((y == labels["aux1"]).all() for y in labels.values())
    logits = model(images)
    own = {k: np.mean(keras.losses.sparse_categorical_crossentropy(labels[k], logits[k], True)) for k in labels}
    found = model.test_on_batch(images, labels, return_dict=True)
    assert len(set(own.values())) == 3
    assert found["loss"] == pytest.approx(own["logits"] + 0.3 * (own["aux1"] + own["aux2"]), rel=1e-5)


def test_the_logits_are_judged(model):
    data = recipe.datasets("digits", (32, 32, 1), batch_size=90, seed=0)
    truth = np.concatenate([y["logits"] for _, y in data.held_out.as_numpy_iterator()])
    guesses = np.concatenate([model(x)["logits"] for x, _ in data.held_out.as_numpy_iterator()]).argmax(1)
    assert recipe.evaluate(model, data.held_out)["top1"] == pytest.approx((truth == guesses).mean())


def test_small_pictures_are_enlarged_to_what_the_heads_take(monkeypatch):
    for side, enlarged in ((28, 32), (31, 31), (40, 40)):
        monkeypatch.setattr(_classifier, "largest", lambda source, side=side: (side, side, 1))
        found = recipe.settings({"data": "digits", "seed": 0, "settings": {}, "size": "tiny"})
        assert found["image_shape"] == (enlarged, enlarged, 1)


def test_every_head_learns_from_mixed_labels():
    data = recipe.datasets("digits", (32, 32, 1), batch_size=8, seed=0, mix="cutmix")
    _, labels = next(data.training.as_numpy_iterator())
    assert labels.keys() == {"logits", "aux1", "aux2"}
    for shares in labels.values():
        np.testing.assert_array_equal(shares, labels["logits"])
        assert shares.shape == (8, 10) and np.any((shares > 0.01) & (shares < 0.99))


def test_the_builders_options():
    options = {"data": "digits", "seed": 0, "settings": {}, "size": "tiny"}
    plain = {"classes": 10, "image_shape": (32, 32, 1), "auxiliary": True}
    assert recipe.settings(options) == plain | recipe.SMALL
    assert recipe.settings({**options, "size": "torchvision"}) == plain
    for paper in ({"size": "paper"}, {"settings": {"variant": "paper"}}):
        assert recipe.settings({**options, **paper})["image_shape"] == (80, 80, 1)
    assert recipe.settings({**options, "size": "paper"}) == plain | {"image_shape": (80, 80, 1)}
    with pytest.raises(ValueError, match="trains the auxiliary heads, too. Leave --set auxiliary=False out"):
        recipe.settings({**options, "settings": {"auxiliary": False}})
