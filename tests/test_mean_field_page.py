"""The Python of docs/mean_field.md runs as it stands."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "mean_field.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=["coordinates", "regression", "gradients", "chain"])
def test_the_examples_run(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "mean_field.md", "exec"), {})
    said = capsys.readouterr().out
    numbers = [float(n) for n in re.findall(r"-?\d+\.\d*(?:e-?\d+)?", said)]
    if "mixture" in block:
        assert sum(n > 0.01 for n in numbers[-5:]) == 2  # components that are kept
    if "gaussian.png" in block:
        assert (tmp_path / "gaussian.png").stat().st_size > 1000 and abs(numbers[0] - numbers[1]) < 0.01
    if "hmc" in block:
        assert numbers[0] < 1.05 and numbers[-2] < numbers[-1]
