"""The tables of `bridge inspect` and `bridge rules`."""

import keras
import pytest
import tensorflow as tf
from rich.table import Table

from bridge import inspect, keras_reader, rules

layers = keras.layers


def test_layers_and_refusals():
    x = keras.Input((6, 6, 2))
    y = layers.Conv2D(3, 3, activation="relu", name="c")(x)
    y = layers.Lambda(tf.abs, name="mine")(y)
    obstacles = []
    graph = keras_reader.read(keras.Model(x, layers.Conv2D(3, 3, name="d")(y)), obstacles=obstacles)
    rows = inspect.layers(graph, obstacles)
    assert rows[0] == ("c", "convolution", "convolution", "(?, 4, 4, 3)", "kernel (3, 3, 2, 3), bias (3,)")
    assert [r[0] for r in rows] == ["c", "+", "d", "mine"]
    assert rows[-1][2] == "REFUSED"


def test_every_rule_is_listed_with_what_it_reads():
    rows = inspect.supported()
    assert [r[0] for r in rows] == list(rules.families())
    assert all(title and kinds for _, title, *kinds in rows)
    assert "Conv2D" in dict((r[0], r[2]) for r in rows)["convolution"]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_table_is_as_wide_as_a_terminal_and_whole_in_a_file(terminal, monkeypatch, capsys):
    import sys

    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    table = Table("a")
    table.add_row("x" * 100)
    inspect.show_table(table)
    assert ("x" * 100 in capsys.readouterr().out) == (not terminal)
