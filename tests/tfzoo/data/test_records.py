"""Any record by its number, as TensorFlow wrote it; files that are cut short are refused."""

import os

import numpy as np
import pytest
import tensorflow as tf

from tfzoo.data.records import Records


@pytest.fixture
def written(tmp_path):
    rng = np.random.default_rng(0)
    contents = [[rng.bytes(int(n)) for n in rng.integers(0, 300, count)] for count in (3, 1, 6)]
    paths = []
    for i, some in enumerate(contents):
        paths.append(tmp_path / f"{i}.tfrecord")
        with tf.io.TFRecordWriter(str(paths[-1])) as writer:
            for record in some:
                writer.write(record)
    return paths, contents


def test_any_record(written):
    paths, contents = written
    records = Records(paths, [3, 1, 6])
    assert len(records) == 10
    expected = [record for some in contents for record in some]
    for i in np.random.default_rng(1).permutation(10):
        assert records[int(i)] == expected[i]


def test_no_file_stays_open(written):
    """A set may have thousands of files, a process often no more than 1,024."""
    records = Records(written[0], [3, 1, 6])
    before = len(os.listdir("/proc/self/fd"))
    assert len(list(records[i] for i in range(10))) == 10
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("missing", [1, 20])
def test_a_file_that_is_cut_short(written, missing):
    paths, _ = written
    paths[2].write_bytes(paths[2].read_bytes()[:-missing])
    with pytest.raises(ValueError, match=r"2.tfrecord: must hold 6 whole records. Received: \d, \d+ bytes"):
        Records(paths, [3, 1, 6])


def test_another_number_of_records(written):
    with pytest.raises(ValueError, match="must hold 2 whole records. Received: 1"):
        Records(written[0], [3, 2, 6])
