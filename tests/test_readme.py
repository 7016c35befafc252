"""The README's Python runs as it stands, and its commands are those that exist."""

import pathlib
import re
import warnings

import pytest

from apps.__main__ import names

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in BLOCKS:  # the second loads what the first saved
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "`shuffle=True` was passed")  # a newcomer would wonder
            exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "unet_back.keras").exists() and (tmp_path / "encoder.keras").exists()


@pytest.mark.parametrize("block", BLOCKS, ids=["tfzoo", "bridge", "from torch"])
def test_the_examples_are_twenty_lines(block):
    assert len([line for line in block.splitlines() if line]) <= 20


def test_every_command_is_in_the_table():
    assert set(re.findall(r"^\| `tfzoo (\w+)", README, re.MULTILINE)) == set(names())


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (pathlib.Path(__file__).parents[1] / target).exists(), target
