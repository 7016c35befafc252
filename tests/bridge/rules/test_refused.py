"""What is not carried says so, and what to do."""

import keras
import pytest

import bridge
from bridge.rules import refused

ops = keras.ops


@pytest.mark.parametrize(
    "function, text",
    [
        (lambda x: ops.rfft(x)[0], r"\(RFFT\): it makes or takes complex numbers, .*; compute with real and imaginary"),
        (lambda x: ops.nanmedian(x, axis=1), r"\(Nanmedian\): it finds its places without NaN, .*; replace NaN before"),
        (lambda x: ops.nextafter(x, x), r"\(Nextafter\): Keras computes it in float64 and rounds, .*; leave it out"),
        (lambda x: ops.nonzero(x)[0], r"\(Nonzero\): the size of its result depends on the data; use a mask"),
    ],
)
def test_refused(function, text):
    x = keras.Input((4,))
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_torch(keras.Model(x, function(x)))


@pytest.mark.parametrize("name", refused.REFUSED)
def test_each_has_a_reason_and_a_remedy(name):
    reason, remedy = refused.REFUSED[name]
    assert reason and remedy
