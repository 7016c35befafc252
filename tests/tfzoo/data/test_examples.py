"""Collections give the same example each time, and are read once where they are kept."""

import numpy as np
import pytest

from tfzoo.data.examples import Arrays, Read


def test_rows_of_arrays():
    some = Arrays((np.arange(12).reshape(4, 3), np.arange(4))).choose(np.array([3, 1]))
    assert len(some) == 2
    np.testing.assert_array_equal(some[0][0], [9, 10, 11])
    assert some[1][1] == 1
    with pytest.raises(IndexError):
        some[2]


@pytest.mark.parametrize("keep", [False, True])
def test_what_is_kept_is_read_once(keep):
    asked = []

    def read(item):
        asked.append(item)
        return (np.full(2, ord(item)),)

    examples = Read("abc", read, keep=keep)
    for _ in range(2):
        for i in (2, 0):
            np.testing.assert_array_equal(examples[i][0], np.full(2, ord("abc"[i])))
    assert asked == (["c", "a"] if keep else ["c", "a", "c", "a"]) and len(examples) == 3
