"""Batches are functions of the seed and the step, whoever makes them and wherever the stream is entered."""

from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from tfzoo.data import Source, augmentation, numbers, pipeline
from tfzoo.data.examples import Arrays, Read

COUNT = 11


def arrays(count=COUNT):
    rng = np.random.default_rng(0)
    return Arrays((rng.integers(0, 255, (count, 6, 4, 3), np.uint8), np.arange(count)))


def read(count=COUNT):
    some = arrays(count)
    return Read(range(count), lambda i: some[i], keep=True)


class Fresh:
    """Examples that are new in every epoch."""

    fixed = True

    def __len__(self):
        return COUNT

    def __getitem__(self, i):
        return self.at(-1, i)

    def at(self, epoch, i):
        return (np.array([epoch, i]),)


def augment(key, image, label):
    image = augmentation.flip(key, augmentation.in_unit_range(image))
    return augmentation.pad_and_crop(key, image, 2), tf.one_hot(label, COUNT)


OPTIONS = {
    "plain": {},
    "augmented": {"augment": augment},
    "mixed": {"augment": augment, "mix": augmentation.mixup},
}


def taken(examples, start=0, steps=7, batch_size=6, seed=3, **options):
    made = pipeline.training(examples, batch_size=batch_size, seed=seed, start=start, **options)
    return list(islice(made.as_numpy_iterator(), steps))


def assert_same(some, others):
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("make", [arrays, read])
def test_every_epoch_has_every_example_once_in_the_order_of_the_seed(make):
    labels = np.concatenate([label for _, label in taken(make(), steps=11)])  # six epochs
    for epoch in range(6):
        expected = np.random.default_rng([*b"order", 3, epoch]).permutation(COUNT)
        np.testing.assert_array_equal(labels[epoch * COUNT : (epoch + 1) * COUNT], expected)
    some = arrays()
    for image, label in taken(make()):
        np.testing.assert_array_equal(image, some.arrays[0][label])


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("make", [arrays, read])
def test_any_step_can_be_entered(make, options):
    undisturbed = taken(make(), **options)
    for start in (2, 5):
        assert_same(taken(make(), start=start, steps=7 - start, **options), undisturbed[start:])


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_workers_share_every_batch(options, monkeypatch):
    undisturbed = taken(arrays(), **options)
    parts = []
    for worker in range(2):
        monkeypatch.setattr(numbers, "place", lambda strategy, worker=worker: (worker, 2))
        made = pipeline.training(arrays(), batch_size=6, seed=3, **options)
        assert made.options().experimental_distribute.auto_shard_policy == tf.data.experimental.AutoShardPolicy.OFF
        parts.append(list(islice(made.unbatch().batch(3).as_numpy_iterator(), 7)))
    together = [tuple(np.concatenate(rows) for rows in zip(*step, strict=True)) for step in zip(*parts, strict=True)]
    assert_same(together, undisturbed)


def test_what_is_drawn_differs_by_seed_epoch_and_example():
    def draw(key, image, label):
        return augmentation.uniform(key, "any"), label

    shares, labels = (np.concatenate(part) for part in zip(*taken(arrays(), steps=11, augment=draw), strict=True))
    assert len(set(shares)) == 66
    # Not of the place in the epoch: the key is the example's, so that it can be made by itself.
    for i, (share, label) in enumerate(zip(shares, labels, strict=True)):
        assert share == augmentation.uniform(augmentation.key(3, i // COUNT, label), "any")
    others, _ = (np.concatenate(part) for part in zip(*taken(arrays(), seed=4, augment=draw), strict=True))
    assert not set(shares) & set(others)


def test_partners_are_any_of_the_whole_set():
    def both(key, one, other):
        return one[1], other[1]

    one, other = (np.concatenate(part) for part in zip(*taken(arrays(), steps=200, mix=both), strict=True))
    met = np.histogram2d(one, other, COUNT)[0]  # (COUNT, COUNT) of 1200 pairs
    expected = len(one) / COUNT**2
    assert np.sum((met - expected) ** 2 / expected) < 175  # chi-square of 120 degrees of freedom: 99.9%


def test_what_is_new_in_every_epoch_is_not_shuffled():
    made = np.concatenate([part for (part,) in taken(Fresh(), steps=4)])
    np.testing.assert_array_equal(made, np.stack(np.divmod(np.arange(24), COUNT), -1))
    judged = np.concatenate([part for (part,) in pipeline.whole(Fresh(), batch_size=4).as_numpy_iterator()])
    np.testing.assert_array_equal(judged, [[-1, i] for i in range(COUNT)])


@pytest.mark.parametrize("make", [arrays, read])
def test_judged_in_order_and_once(make):
    made = pipeline.whole(make(), batch_size=4, prepare=lambda image, label: (image, 2 * label))
    batches = list(made.as_numpy_iterator())
    assert [len(labels) for _, labels in batches] == [4, 4, 3]
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), 2 * np.arange(COUNT))
    np.testing.assert_array_equal(np.concatenate([images for images, _ in batches]), arrays().arrays[0])


def strategy_over(count, kind="CPU"):
    """What is asked of a strategy, for a machine that has not so many devices."""
    devices = tuple(f"/job:localhost/replica:0/task:0/device:{kind}:{i}" for i in range(count))
    return lambda: SimpleNamespace(num_replicas_in_sync=count, extended=SimpleNamespace(worker_devices=devices))


@pytest.mark.parametrize(
    ("count", "devices", "size"), [(9, 1, 8), (9, 2, 7), (8, 2, 8), (5, 3, 8), (13, 4, 8), (17, 4, 6)]
)
def test_no_device_is_without_an_example_to_judge(count, devices, size, monkeypatch):
    monkeypatch.setattr(tf.distribute, "get_strategy", strategy_over(devices))
    assert pipeline.for_every_device(count, 8) == size


@pytest.mark.parametrize(("count", "devices"), [(9, 2), (17, 4), (3, 4)])
def test_a_gpu_may_be_without_an_example_to_judge(count, devices, monkeypatch):
    monkeypatch.setattr(tf.distribute, "get_strategy", strategy_over(devices, "GPU"))
    assert pipeline.for_every_device(count, 8) == 8


def test_the_devices_of_real_strategies_are_known():
    assert pipeline.for_every_device(1, 8) == 8  # outside any
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        assert pipeline.for_every_device(1, 8) == 8
    assert "CPU" in str(tf.distribute.MirroredStrategy(["CPU:0"]).extended.worker_devices)


def test_fewer_examples_than_devices_are_refused(monkeypatch):
    monkeypatch.setattr(tf.distribute, "get_strategy", strategy_over(4))
    with pytest.raises(ValueError, match="4 devices cannot share 3 examples to judge by"):
        pipeline.for_every_device(3, 8)


def test_shapes_are_known_as_far_as_they_are():
    spec = pipeline.training(arrays(), batch_size=6, seed=0).element_spec
    assert [tuple(part.shape) for part in spec] == [(6, 6, 4, 3), (6,)]
    spec = pipeline.whole(read(), batch_size=6).element_spec
    assert [tuple(part.shape) for part in spec] == [(None, None, None, 3), (None,)]
    spec = pipeline.whole(Fresh(), batch_size=6).element_spec
    assert [tuple(part.shape) for part in spec] == [(None, 2)]


def test_kept_examples_are_not_changed_by_what_is_made_of_them():
    held = np.ones((3, 5), np.float32)
    examples = Read(range(3), lambda i: (held[i],), keep=True)
    for _ in range(2):
        for (row,) in pipeline.whole(examples, batch_size=1, prepare=lambda x: (x * 2 + 1,)).as_numpy_iterator():
            np.testing.assert_array_equal(row, np.full((1, 5), 3))
    np.testing.assert_array_equal(held, np.ones((3, 5)))


def test_nothing_is_tuned():
    source = Source(arrays(), arrays(), read(), "some")
    made = pipeline.datasets(source, batch_size=4, seed=0)
    for part in (made.training, made.validation, made.held_out):
        assert part.options().autotune.enabled is False
    assert made.description == "some" and made.classes is None


def test_a_file_that_has_gone_is_named():
    def gone(item):
        raise ValueError(f"{item}: is not there any more")

    examples = Read(["a.png"], lambda item: (np.zeros(2),))
    made = pipeline.whole(examples, batch_size=1)
    object.__setattr__(examples, "read", gone)
    with pytest.raises(tf.errors.OpError, match="a.png: is not there any more"):
        list(made)
