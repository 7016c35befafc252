"""Recurrent layers, both ways."""

import keras
import pytest
from torch import nn

import bridge

layers = keras.layers
KINDS = {"lstm": layers.LSTM, "gru": layers.GRU, "rnn": layers.SimpleRNN}


def model_of(layer, *shape, states=()):
    x = keras.Input(shape or (None, 3), name="x")
    given = [keras.Input((n,), name=f"state{i}") for i, n in enumerate(states)]
    y = layer(x, initial_state=given) if given else layer(x)
    return keras.Model([x, *given] if given else x, y)


def proved(model, module):
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    return report


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_plain(check, kind, sequences, bias):
    """torch's own module holds it."""
    model = model_of(KINDS[kind](4, return_sequences=sequences, use_bias=bias, name="r"))
    module, again = check.both_ways(model)
    assert type(module.r) is {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[kind]
    assert type(again.get_layer("r")) is KINDS[kind] and again.get_layer("r").return_sequences == sequences
    proved(model, module)
