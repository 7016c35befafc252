"""No figure in a page is typed by hand: what docs/figures.py makes is what stands there."""

import importlib.util
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("figures", ROOT / "docs" / "figures.py")
figures = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(figures)


@pytest.mark.parametrize("page", figures.pages(), ids=lambda p: p.name)
def test_a_page_is_what_its_script_makes(page):
    text = page.read_text()
    assert figures.fill(text) == text, "run: .venv/bin/python docs/figures.py"


def test_every_part_is_used():
    text = "".join(page.read_text() for page in figures.pages())
    assert all(re.search(f"<!-- {name}[ >]", text) for name in figures.PARTS)


def test_the_record_of_the_matrix_has_all_of_its_properties():
    """Else docs/conformance.md is older than the tests: run tests/acceptance/conformance.py."""
    text = (ROOT / "tests" / "conformance" / "test_every_model.py").read_text()
    wanted = set(re.findall(r"^def test_(\w+)\(", text, re.MULTILINE))
    for family, found in figures.newest("acceptance-conformance")["results"].items():
        assert set(found) == wanted, family
