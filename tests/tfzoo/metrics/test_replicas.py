"""Every metric on two replicas gives what it gives on one device; what a compiled model may hold, is saved with it.

`_replicas.py` measures both ways in one process.
"""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from tfzoo.metrics.calibration import BrierScore, CalibrationError
from tfzoo.metrics.classification import ConfusionMatrix
from tfzoo.metrics.image_quality import PSNR, SSIM
from tfzoo.metrics.likelihood import BitsPerDimension, NegativeLogLikelihood
from tfzoo.metrics.overlap import Dice, IoU

SCRIPT = pathlib.Path(__file__).with_name("_replicas.py")
MEASURED = [
    *("iou", "dice", "plain_dice", "confusion_recall", "confusion_precision", "confusion_accuracy", "brier"),
    *("calibration_expected", "calibration_maximum", "psnr", "ssim", "nll", "bits_per_dimension"),
    *("frechet_distance", "kernel_distance", "subsets", "generated_precision", "generated_recall"),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("replicas") / "results.npz"
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[3])}
    done = subprocess.run([sys.executable, SCRIPT, path], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(np.load(path))


@pytest.mark.parametrize("name", MEASURED)
def test_two_replicas_equal_one_device(results, name):
    one, two = ([results[f"{way}:{name}_{skipped}"] for skipped in (0, 1)] for way in ("one", "mirrored"))
    np.testing.assert_allclose(two, one, rtol=2e-6)
    assert np.isfinite(one).all() and one[0] != one[1] and 0 not in one


def test_in_fit(results):
    names = [name.removeprefix("one:") for name in results if name.startswith("one:fit_")]
    assert len(names) == 2 * 9  # 8 figures and the loss, in training and validation
    for name in names:
        one, two = results[f"one:{name}"], results[f"mirrored:{name}"]
        np.testing.assert_allclose(two, one, rtol=2e-5, err_msg=name)
        assert np.isfinite(one).all() and len(one) == 2
    assert not np.allclose(results["one:fit_dice"], results["one:fit_weighted_dice"], rtol=1e-4)


METRICS = [
    IoU(3, targets=(0, 2), ignore=255, name="a"),
    Dice(threshold=0.25),
    ConfusionMatrix(2, threshold=0.25, name="c"),
    CalibrationError(2, bins=4, from_logits=True),
    BrierScore(2, from_logits=True),
    PSNR(2),
    SSIM(2, filter_size=3, filter_sigma=0.7),
    NegativeLogLikelihood(),
    BitsPerDimension(12, 128.0),
]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: type(metric).__name__)
def test_a_configuration_makes_the_same_metric(metric):
    config = keras.saving.serialize_keras_object(metric)
    made = keras.saving.deserialize_keras_object(config)
    assert type(made) is type(metric) and made.dtype == "float64"
    assert keras.saving.serialize_keras_object(made) == config
    assert [variable.shape for variable in made.variables] == [variable.shape for variable in metric.variables]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_compiled_model_is_saved_with_its_metrics(jit_compile, tmp_path):
    image = keras.Input((6, 7, 1))
    model = keras.Model(image, keras.layers.Dense(1)(image))
    metrics = [Dice(threshold=0.0), PSNR(1), CalibrationError(2, from_logits=True)]
    model.compile("sgd", "mse", metrics=metrics, jit_compile=jit_compile)
    rng = np.random.default_rng(0)
    data = rng.normal(size=(5, 6, 7, 1)), rng.integers(0, 2, (5, 6, 7, 1))
    judged = model.evaluate(*data, verbose=0, return_dict=True)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras").evaluate(*data, verbose=0, return_dict=True)
    assert judged.keys() == {"loss", "dice", "psnr", "calibration_expected", "calibration_maximum"}
    assert again == pytest.approx(judged, rel=1e-5)
    alone = Dice(threshold=0.0)
    alone.update_state(data[1], model.predict(data[0], verbose=0))
    assert judged["dice"] == pytest.approx(float(alone.result()), rel=1e-6)
