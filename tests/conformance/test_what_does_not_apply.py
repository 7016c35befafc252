"""What a family says does not apply to it is a property of the matrix, and says why; that is printed."""

import pathlib
import re
import subprocess
import sys

import pytest

import tfzoo

MATRIX = pathlib.Path(__file__).with_name("test_every_model.py")
PROPERTIES = set(re.findall(r"^def test_(\w+)\(family", MATRIX.read_text(), re.MULTILINE))
DECLARED = """
import sys, pytest, tfzoo.unet
tfzoo.unet.DOES_NOT_APPLY = {"counts": "nobody has counted its parameters"}
sys.exit(pytest.main(["-q", "--every-case", "-p", "no:cacheprovider", "-k", "test_counts", sys.argv[1]]))
"""


@pytest.mark.parametrize("name", tfzoo.names())
def test_it_is_a_property_with_a_reason(name):
    declared = getattr(tfzoo.family(name), "DOES_NOT_APPLY", {})
    assert len(PROPERTIES) > 9 and declared.keys() <= PROPERTIES
    assert all(len(reason) > 20 for reason in declared.values())


def test_the_reason_is_printed():
    root = MATRIX.parents[2]
    done = subprocess.run([sys.executable, "-c", DECLARED, MATRIX], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and "1 skipped" in done.stdout, done.stdout
    assert "unet: counts does not apply: nobody has counted its parameters" in done.stdout
