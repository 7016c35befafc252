"""setup.cfg, requirements.txt and CONTRIBUTING.md say the same."""

import configparser
import pathlib
import re
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = configparser.ConfigParser()
CONFIG.read(ROOT / "setup.cfg")
EXTRAS = CONFIG["options.extras_require"]
PINNED_EXTRAS = ("onnx", "tfds", "dev")  # what the tests need; the others depend on the machine
DIRECT = [
    Requirement(line)
    for text in (CONFIG["options"]["install_requires"], *(EXTRAS[name] for name in PINNED_EXTRAS))
    for line in text.split("\n")
    if line
]
LINES = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
PINS = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in LINES)}


@pytest.mark.parametrize("requirement", DIRECT, ids=str)
def test_the_pin_is_in_the_range(requirement):
    assert PINS[canonicalize_name(requirement.name)] in requirement.specifier


@pytest.mark.parametrize("line", LINES)
def test_a_line_is_an_exact_public_pin(line):
    assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9.]+", line) and "nvidia" not in line


@pytest.mark.parametrize("requirement", DIRECT, ids=str)
def test_the_reason_for_it_is_told(requirement):
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("## Dependencies")[2].partition("## Add")[0]
    assert re.search(rf"^\|.*\b{re.escape(requirement.name)}\b.*\|.*\|$", table, re.MULTILINE)


def test_the_extras_are_there():
    assert {"gpu", "onnx", "serve", "tfds", "dev"} <= set(EXTRAS)
    assert "tensorflow[and-cuda]" in EXTRAS["gpu"]


def test_all_of_it_imports_together():
    code = (
        "import tensorflow_probability, tf_keras, onnx, tf2onnx, onnxruntime, safetensors, skimage, sklearn\n"
        "from bridge.onnx import import_torchvision\nimport_torchvision()\nimport onnx2torch"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
