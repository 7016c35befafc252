"""The whole matrix: what holds for every model, for every family and three seeds.

    .venv/bin/python tests/acceptance/conformance.py [--output FILE] [--seeds N]      about two minutes a family

`make test` has the same tests with one seed, of the families that changed and one of the others.
"""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

from _record import ROOT, options, write

sys.path.insert(0, str(ROOT))

import tfzoo

MATRIX = "tests/conformance/test_every_model.py"


def run(seeds: int, report: Path) -> int:
    """Run the matrix in two processes; gives pytest's exit code."""
    command = [sys.executable, "-m", "pytest", "--seeds", seeds, "--junitxml", report, MATRIX]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    return subprocess.run([*map(str, command), "--numprocesses", "2"], cwd=ROOT, env=environment).returncode


def found(report: Path) -> dict[str, dict[str, dict]]:
    """Give each family's properties: how many cases held of how many, or why it does not apply.

    A case that was skipped says nothing, so it does not hold.
    """
    results = defaultdict(lambda: defaultdict(lambda: {"held": 0, "of": 0}))
    for case in ElementTree.parse(report).iter("testcase"):
        name, _, label = case.get("name").removesuffix("]").partition("[")
        cell = results[label.split("-")[0]][name.removeprefix("test_")]
        cell["of"] += 1
        cell["held"] += all(case.find(outcome) is None for outcome in ("failure", "error", "skipped"))
    for family in tfzoo.names():
        for name, reason in getattr(tfzoo.family(family), "DOES_NOT_APPLY", {}).items():
            results[family][name] = {"reason": f"{family}: {reason}"}
    return results


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        code = run(arguments.seeds, report)
        if not report.exists():
            print(f"pytest ended with exit code {code} and left no report: see above")
            return 1
        write(arguments.output, found(report), seeds=arguments.seeds)
    return code


if __name__ == "__main__":
    sys.exit(main())
