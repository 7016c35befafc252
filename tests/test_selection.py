"""What `make test` leaves out: of what has not changed only some, by turns, so that all of it is run in a few days."""

import datetime
import functools
import types

import pytest

import tfzoo
from tests import _selection

RULES = ("convolution", "einsum", "flatten", "linear", "pooling", "slice")
FILES = [f"tests/bridge/rules/test_{name}.py" for name in RULES]


@pytest.fixture
def suite(monkeypatch):
    """What selects the tests, told what has changed and which day it is."""

    def told(files, day=0):
        monkeypatch.setattr(_selection, "changed", lambda: files)
        _selection.all_may_have_broken.cache_clear()
        today = datetime.date(2026, 1, 1 + day)
        calendar = types.SimpleNamespace(date=types.SimpleNamespace(today=lambda: today))
        monkeypatch.setattr(_selection, "datetime", calendar)
        return _selection

    yield told
    _selection.all_may_have_broken.cache_clear()


def run_of(suite, files, day):
    return {file for file in FILES if suite(files, day).its_turn(f"{file}::test_it")}


@pytest.mark.parametrize("changed", [{"docs/unet.md"}, {"bridge/layout.py"}], ids=["none", "bridge"])
def test_every_file_has_its_turn(suite, changed):
    turns = [run_of(suite, changed, day) for day in range(3)]
    assert set.union(*turns) == set(FILES) and sum(map(len, turns)) == len(FILES)
    for file in ("tests/test_readme.py", "tests/conformance/test_every_model.py"):
        assert days(suite, file, "docs/unet.md") == 3


def days(suite, file, *changed):
    """On how many of three days a file of tests is run."""
    return sum(suite(set(changed), day).its_turn(f"{file}::test_it") for day in range(3))


@pytest.mark.parametrize(
    "file, changed",
    [
        ("tests/tfzoo/training/test_checkpoint.py", "tfzoo/training/checkpoint.py"),
        ("tests/tfzoo/training/test_distributed_fit.py", "tests/tfzoo/training/_fit.py"),  # a script that it starts
        ("tests/apps/test_evaluate.py", "apps/evaluate.py"),
        ("tests/apps/test_evaluate.py", "tfzoo/training/ema.py"),  # by apps/train.py
        ("tests/apps/test_evaluate.py", "apps/recipes/_classifier.py"),  # which a recipe imports, by its name
        ("tests/apps/test_survival.py", "tfzoo/unet.py"),  # which it names
        ("tests/bridge/test_layout.py", "bridge/graph.py"),
        ("tests/bridge/test_main.py", "bridge/onnx.py"),  # by `-m bridge`
        ("tests/tfzoo/export/test_save.py", "bridge/rules/pooling.py"),
    ],
)
def test_what_a_test_is_made_of(suite, file, changed):
    assert days(suite, file, changed) == 3


@pytest.mark.parametrize(
    "file, changed",
    [
        ("tests/tfzoo/training/test_checkpoint.py", "tfzoo/flows/coupling.py"),
        ("tests/apps/test_survival.py", "tfzoo/vit.py"),
        ("tests/bridge/test_layout.py", "bridge/onnx.py"),
        ("tests/bridge/test_layout.py", "tfzoo/unet.py"),
    ],
)
def test_what_it_is_not_made_of(suite, file, changed):
    assert days(suite, file, changed) == 1


@pytest.mark.parametrize("changed", [None, {"pyproject.toml"}, set(FILES)], ids=["unknown", "settings", "themselves"])
def test_what_may_have_broken_is_run_whole(suite, changed):
    assert run_of(suite, changed, 0) == run_of(suite, changed, 1) == set(FILES)


def test_another_version_is_tested_with_all(suite, monkeypatch):
    here = (_selection.ROOT / "requirements.txt").read_text()
    keras = next(line for line in here.splitlines() if line.startswith("keras=="))
    for before, whole in ((here.replace(keras, "keras==3.0.0"), True), (here.replace(keras, ""), False)):
        monkeypatch.setattr(_selection, "git", lambda *arguments, before=before: before)
        assert suite({"requirements.txt"}).all_may_have_broken() == whole
        assert (run_of(suite, {"requirements.txt"}, 0) == set(FILES)) == whole


def test_a_family_is_tested_with_what_it_is_made_of(suite):
    for file in ("tests/tfzoo/test_resnet.py", "tests/apps/recipes/test_resnet.py"):
        assert days(suite, file, "tfzoo/vit.py", "apps/recipes/vit.py", "tests/tfzoo/test_vit.py", "docs/vit.md") == 1
        for own in ("tfzoo/resnet.py", "apps/recipes/resnet.py", "tfzoo/layers/names.py", "bridge/layout.py", file):
            assert days(suite, file, own) == 3


def test_a_changed_rule_is_tested_and_the_bridge_as_a_whole(suite):
    for day in range(3):
        assert "tests/bridge/rules/test_pooling.py" in run_of(suite, {"bridge/rules/pooling.py"}, day)
        assert suite({"bridge/layout.py"}, day).its_turn("tests/bridge/test_layout.py::test_it")


def test_cases_in_which_any_two_options_meet(suite, request):
    class Case:
        def __init__(self, **params):
            self.callspec = type("", (), {"params": params})

        def iter_markers(self, name):
            return iter(())

    cases = [Case(a=a, b=b, c=c) for a in "xyz" for b in "xyz" for c in "xyz"]
    kept = suite(set()).pairwise(cases)
    assert 9 <= len(kept) < 16  # of 27
    for one, other in (("a", "b"), ("a", "c"), ("b", "c")):
        met = {(case.callspec.params[one], case.callspec.params[other]) for case in kept}
        assert len(met) == 9
    few = [Case(a=a, b=b) for a in "xyz" for b in "xyz"]
    assert suite(set()).pairwise(few) == few


def test_the_matrix_is_of_what_has_changed_and_one_more():
    chosen = functools.partial(_selection.chosen, names=tfzoo.names())
    for file in ("tfzoo/vit.py", "apps/recipes/vit.py"):
        assert "vit" in chosen({file}) and len(chosen({file})) == 2
    assert "spatial_transformer" in chosen({"tfzoo/data/sources/cluttered_digits.py"})
    assert "unet" in chosen({"tfzoo/data/pasted_digits.py"})
    assert len(chosen({"docs/unet.md"})) == 1
    assert chosen(None) == tfzoo.names()
    assert {"resnet", "vit"} <= set(chosen({"apps/recipes/_classifier.py"}))  # what both are made of
