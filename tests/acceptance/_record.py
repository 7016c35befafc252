"""What the scripts of `make acceptance` share: their options, and the dated JSON that docs/figures.py reads."""

import argparse
import datetime
import json
import os
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]


def options(description: str) -> argparse.ArgumentParser:
    """What every script takes; one that takes more adds it."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    return parser


def write(output: Path | None, results: dict, **more: object) -> None:
    """Write what was found to where `--output FILE` says, with the day, the machine and the versions."""
    if output is None:
        return
    record = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores",
        "versions": {package: metadata.version(package) for package in ("tensorflow", "keras", "torch")},
        **more,
        "results": results,
    }
    output.write_text(json.dumps(record, indent=2) + "\n")
