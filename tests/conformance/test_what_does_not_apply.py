"""What a family says does not apply to it is a property of the matrix, and says why; pytest prints that."""

import pathlib
import re

import pytest

import tfzoo

MATRIX = pathlib.Path(__file__).with_name("test_every_model.py")
PROPERTIES = set(re.findall(r"^def test_(\w+)\(family", MATRIX.read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", tfzoo.names())
def test_it_is_a_property_with_a_reason(name):
    declared = getattr(tfzoo.family(name), "DOES_NOT_APPLY", {})
    assert len(PROPERTIES) > 9 and declared.keys() <= PROPERTIES
    assert all(len(reason) > 20 for reason in declared.values())
