"""What the U-Net's recipes reach on held-out pictures: IoU .80 is to be had in minutes, .92 in half an hour.

    .venv/bin/python tests/acceptance/unet.py [--output FILE] [--runs DIR]      about 35 minutes on two cores

Runs are kept in DIR; one that is there already, trained by the same options, is only measured again.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from apps.recipes import unet

GOALS = {"demo": (unet.DEMO, 0.80), "full": (unet.DEFAULTS, 0.92)}


def tfzoo(*arguments: object) -> None:
    """Run a command of tfzoo and stop where it fails."""
    subprocess.run([sys.executable, "-m", "apps", *map(str, arguments)], check=True)


def measure(folder: Path, options: dict) -> dict[str, float]:
    """Train a run unless it is there, and give its held-out figures and its minutes."""
    wanted = {k: v for k, v in options.items() if v is not None}
    if not (folder / "model.keras").exists():
        tfzoo(
            "train",
            "unet",
            "--output",
            folder,
            *(x for k, v in wanted.items() for x in (f"--{k.replace('_', '-')}", v)),
        )
    had = json.loads((folder / "options.json").read_text())
    epochs = len((folder / "log.csv").read_text().splitlines()) - 1
    if any(had[k] != v for k, v in wanted.items()) or epochs != wanted["epochs"]:
        raise SystemExit(f"{folder} was trained by other options, or not to the end: remove it")
    tfzoo("evaluate", folder)
    minutes = ((folder / "model.keras").stat().st_mtime - (folder / "options.json").stat().st_mtime) / 60
    return json.loads((folder / "evaluate.json").read_text()) | {
        "steps": epochs * wanted["steps_per_epoch"],
        "minutes": minutes,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/acceptance"))
    arguments = parser.parse_args()
    results = {
        name: measure(arguments.runs / f"unet-{name}", options) | {"goal_iou": goal}
        for name, (options, goal) in GOALS.items()
    }
    for name, r in results.items():
        print(
            f"{name}: IoU {r['iou']:.3f} (goal {r['goal_iou']:.2f}), Otsu {r['otsu_iou']:.3f}, "
            f"{r['minutes']:.0f} minutes"
        )
    if arguments.output:
        record = {
            "date": datetime.date.today().isoformat(),
            "machine": f"{os.cpu_count()} cores",
            "seed": 0,
            "results": results,
        }
        arguments.output.write_text(json.dumps(record, indent=2) + "\n")
    return int(any(r["iou"] < r["goal_iou"] for r in results.values()))


if __name__ == "__main__":
    sys.exit(main())
