"""The Python of docs/mean_field.md runs as it stands, and its table is what the acceptance script wrote."""

import json
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "mean_field.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
RECORD = json.loads(max((ROOT / "benchmarks" / "results").glob("*-acceptance-mean_field.json")).read_text())
FOUND = RECORD["results"]


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


def figures():
    """Give the rows of the table, as the record has them."""
    for what in ("gaussian, mean field", "gaussian, full rank", "banana, mean field"):
        yield [run["measured"] for run in FOUND["gradients"] if run["what"] == what], 4
    for what in dict.fromkeys(run["what"] for run in FOUND["coordinates"]):
        yield [run["exact"] - run["measured"] for run in FOUND["coordinates"] if run["what"] == what], 4
    yield [FOUND["diabetes"]["exact"] - FOUND["diabetes"]["measured"]], 4
    yield [FOUND["diabetes"]["mean_off"]], 3
    yield [FOUND["diabetes"]["least_ratio"], FOUND["diabetes"]["greatest_ratio"]], 3
    for name in ("advi", "jaakkola_jordan"):
        for key, digits in (("mean_off", 3), ("greatest_ratio", 3), ("elbo", 2)):
            yield [run[name][key] for run in FOUND["breast_cancer"]], digits


def test_the_table_is_what_was_measured():
    lines = [line for line in PAGE.split("## Results")[1].splitlines() if line.startswith("|")][2:]
    rows = [line.split("|")[3] for line in lines]
    wanted = [[f"{value:.{digits}f}" for value in values] for values, digits in figures()]
    assert [re.findall(r"-?\d+\.\d+", row) for row in rows] == wanted
    assert f"measured of {RECORD['date']}" in PAGE


def test_the_worst_chain_is_stated():
    assert f"r_hat of at most {max(run['r_hat'] for run in FOUND['breast_cancer']):.4f}" in PAGE
