import numpy as np
import pytest
import tensorflow as tf

from tfzoo.metrics import samples
from tfzoo.metrics.feature_distance import FrechetDistance, KernelDistance
from tfzoo.metrics.precision_recall import PrecisionRecall


def test_the_same_as_the_metrics(features, pictures):
    real, made = pictures
    options = {"subsets": 3, "subset_size": 20, "seed": 4}
    batches = tf.data.Dataset.from_tensor_slices(real).batch(20), [made[:9], made[9:]]
    found = samples.evaluate(*batches, features, neighbours=1, **options)
    expected = {"real": 53, "generated": 41, **features.describe()}
    kernel, manifolds = KernelDistance(features, 53, **options), PrecisionRecall(features, 53, neighbours=1)
    for metric in (FrechetDistance(features), kernel, manifolds):
        metric.update_state(real, made)
        expected |= {name.removeprefix("generated_"): value for name, value in metric.compute().items()}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, float):
            np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)
        else:
            assert found[name] == value


@pytest.mark.parametrize(
    ("options", "least"), [({}, 4), ({"neighbours": 6}, 7), ({"subsets": 2, "subset_size": 50}, 50)]
)
def test_too_few_pictures(options, least, features, pictures):
    with pytest.raises(
        ValueError, match=f"either set needs {least} pictures. Received: 53 real, {least - 1} generated"
    ):
        samples.evaluate([pictures[0]], [pictures[0][: least - 1]], features, **options)


def test_no_pictures(features, pictures):
    with pytest.raises(ValueError, match="Received: 0 real, 41 generated"):
        samples.evaluate([], [pictures[1]], features)
