"""The Python of docs/metrics.md runs as it stands, and its table has every metric."""

import importlib
import inspect
import pathlib
import re

import keras
import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "metrics.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SHARED = {"Overlap", "PictureMean", "FeatureMetric", "Moments", "Rows"}  # what metrics have in common or are made of


@pytest.mark.parametrize("block", BLOCKS, ids=["use", "batches"])
def test_the_examples_run(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    exec(compile(block, "metrics.md", "exec"), {})
    said = [dict(eval_numbers(line)) for line in capsys.readouterr().out.splitlines()]
    distances = [found["frechet_distance"] for found in said if "frechet_distance" in found]
    if "samples" in block:
        assert float(said[0]["accuracy"]) > 0.8 and (tmp_path / "confusion.png").stat().st_size > 1000
        assert float(distances[1]) > 2 * float(distances[0]) > 0  # the noisy half is farther away
    else:
        assert float(distances[0]) > 0


def eval_numbers(line):
    """Give the names and numbers of a printed dictionary."""
    return re.findall(r"'(\w+)': (?:np\.float64\()?(-?[\d.e-]+)", line)


def test_the_table_has_every_metric():
    made = set()
    for path in (ROOT / "tfzoo" / "metrics").glob("[!_]*.py"):
        module = importlib.import_module(f"tfzoo.metrics.{path.stem}")
        for name, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, keras.Metric) and kind.__module__ == module.__name__ and name not in SHARED:
                made.add(f"{path.stem}.{name}")
    assert made == {name for name in re.findall(r"^\| `([\w.]+)", PAGE, re.MULTILINE) if not name.startswith("keras")}
