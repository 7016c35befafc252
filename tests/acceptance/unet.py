"""What the U-Net's recipes reach on held-out pictures: IoU .80 is to be had in minutes, .92 in a quarter of an hour.

    .venv/bin/python tests/acceptance/unet.py [RECIPE ...] [--output FILE] [--runs DIR] [--seeds N]

Three seeds of "demo" take about a quarter of an hour on two cores, three of "full" less than an hour. Runs are kept in
DIR; one that is there already, trained by the same options, is only measured again, and one that was stopped goes on.
The day written is that of the first training.
"""

import datetime
import json
import subprocess
import sys
from pathlib import Path

from _record import ROOT, options, write

sys.path.insert(0, str(ROOT))

from apps.recipes import unet

RECIPES = {"demo": (unet.DEMO, 0.80), "full": (unet.DEFAULTS, 0.92)}
COMMANDS = {"demo": "tfzoo demo", "full": "tfzoo train unet"}
SHOWN = {  # in docs/results.md
    "what": "digits on photographs, IoU of the foreground",
    "figure": "iou",
    "published": "0.920 on PhC-U373, other data (Ronneberger et al., 2015, table 2)",
    "best": "1: the masks are exact",
}


def tfzoo(*arguments: object) -> None:
    """Run a command of tfzoo and stop where it fails."""
    subprocess.run([sys.executable, "-m", "apps", *map(str, arguments)], check=True, cwd=ROOT)


def measure(folder: Path, recipe: dict, seed: int) -> dict[str, float]:
    """Train a run unless it is there, and give its held-out figures and its minutes."""
    wanted = recipe | {"seed": seed}
    if not (folder / "training.json").exists():
        given = [x for k, v in wanted.items() for x in (f"--{k.replace('_', '-')}", v)]
        tfzoo("train", "unet", "--output", folder, *given)
    had = json.loads((folder / "options.json").read_text())
    if any(had[k] != v for k, v in wanted.items()):
        raise SystemExit(f"{folder} was trained by other options: remove it")
    tfzoo("evaluate", folder)
    trained = folder / "training.json"
    day = datetime.date.fromtimestamp(trained.stat().st_mtime).isoformat()
    minutes = json.loads(trained.read_text())["seconds"] / 60
    return {"seed": seed, "trained": day, "minutes": minutes, **json.loads((folder / "evaluate.json").read_text())}


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("recipes", nargs="*", choices=[*RECIPES, []], metavar="RECIPE")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "acceptance")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    results = {}
    for name in arguments.recipes or RECIPES:
        recipe, goal = RECIPES[name]
        runs = [
            measure(arguments.runs.absolute() / f"unet-{name}-{seed}", recipe, seed) for seed in range(arguments.seeds)
        ]
        steps = recipe["epochs"] * recipe["steps_per_epoch"]
        results[name] = {**SHOWN, "command": COMMANDS[name], "goal": goal, "steps": steps, "runs": runs}
        for run in runs:
            print(
                f"{name}, seed {run['seed']}: IoU {run['iou']:.3f} (goal {goal:.2f}), Otsu {run['otsu_iou']:.3f}, "
                f"{run['minutes']:.0f} minutes"
            )
    write(arguments.output, results, date=min(run["trained"] for r in results.values() for run in r["runs"]))
    return int(any(run["iou"] < r["goal"] for r in results.values() for run in r["runs"]))


if __name__ == "__main__":
    sys.exit(main())
