"""What is wrong with data, in words."""

import re

import numpy as np
import pytest

from tfzoo.analysis.mean_field import checks


@pytest.mark.parametrize(
    "rank, value, said",
    [
        (1, [1.0, 2.0], None),
        (2, [[1.0, 2.0]], None),
        (1, [[1.0, 2.0]], r"x must be finite numbers \(N,\), at least one. Received: the shape \(1, 2\)"),
        (2, [1.0], r"\(N, D\), at least one. Received: the shape \(1,\)"),
        (1, [], r"Received: the shape \(0,\)"),
        (1, [1.0, np.nan, np.inf], "Received: 2 of 3 are not"),
        (1, ["one"], "Received: list that is no array of numbers"),
    ],
)
def test_finite(rank, value, said):
    problems = checks.finite(rank, x=value)
    assert len(problems) == (said is not None)
    assert said is None or re.search(said, problems[0])


@pytest.mark.parametrize("y, said", [([0, 1, 1], []), ([0, 2, -1], ["y must be 0 or 1. Received: -1.0, 2.0"])])
def test_labels(y, said):
    assert checks.labels(y) == said


def test_labels_that_are_no_numbers():
    assert "1 of 2 are not" in checks.labels([0.0, np.nan])[0]


def test_as_many():
    assert checks.as_many([[1], [2]], [1]) == ["x and y must be as many. Received: 2 rows of x, 1 of y"]
    assert checks.as_many([[1]], [1]) == []
