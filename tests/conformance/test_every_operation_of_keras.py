"""Every class of keras.ops has a rule: one that carries it, or one that says why not and what to do."""

import importlib
import inspect
import pkgutil

import keras
import pytest

from bridge import rules
from bridge.rules import refused

ABSTRACT = {"Operation", "SegmentReduction"}  # those that others are made of


def operations() -> list[str]:
    """The names of the classes, from the files that have them."""
    found = set()
    for module in pkgutil.iter_modules(keras.src.ops.__path__, "keras.src.ops."):
        if module.name.endswith("_test"):
            continue
        members = vars(importlib.import_module(module.name)).items()
        found |= {
            name
            for name, kind in members
            if inspect.isclass(kind) and issubclass(kind, keras.Operation) and kind.__module__ == module.name
        }
    return sorted(found - ABSTRACT)


@pytest.mark.parametrize("name", operations())
def test_an_operation_has_a_rule(name):
    assert rules.for_keras(f"ops.{name}")


def test_what_is_refused_exists():
    assert {name.removeprefix("ops.") for name in refused.REFUSED} <= set(operations())
