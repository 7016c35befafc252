"""The Vision Transformer's recipe learns; tests/apps/recipes/test_resnet.py has what it shares with the others."""

import keras
import pytest

import tfzoo
from apps.recipes import vit as recipe


def test_it_learns_the_digits():
    keras.utils.set_random_seed(0)
    model = tfzoo.build("vit", size="tiny")
    seen = []

    def optimizer(kind, **arguments):
        seen.append((kind, arguments))
        return kind(3e-3, **arguments)

    recipe.compile(model, optimizer=optimizer, jit_compile=False)
    assert seen == [(keras.optimizers.AdamW, {"weight_decay": 0.05})]
    data = recipe.datasets("digits", (8, 8, 1), batch_size=64, seed=0)
    before = recipe.evaluate(model, data.held_out)
    model.fit(data.training, steps_per_epoch=150, verbose=0)
    after = recipe.evaluate(model, data.held_out)
    assert before["top1"] < 0.3 and after["top1"] > 0.4 and after["nll"] < 0.8 * before["nll"]
    assert before["nll"] == pytest.approx(2.303, abs=0.1)  # ln 10: the head begins with zeros


def test_a_run_has_its_own_settings():
    assert tfzoo.build("vit", size="tiny", **recipe.DEFAULTS["settings"]).output_shape == (None, 10)
