"""Exact resume: a run that is killed twenty times, at random steps, against one that is not.

.venv/bin/python benchmarks/resume.py [--output FILE]        about six minutes on two cores
"""

import argparse
import datetime
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
ROOT = Path(__file__).parents[1]
EPOCHS, STEPS, KILLS = 8, 50, 20
RUN = ["unet", "--size", "tiny", "--epochs", EPOCHS, "--steps-per-epoch", STEPS, "--batch-size", 4, "--ema", 0.99]
RUN += ["--checkpoint-steps", 5, "--set", "dropout=.1", "--set", "batch_norm=True"]


def start(output: Path) -> subprocess.Popen:
    """Start the training, or go on with it."""
    command = [sys.executable, "-m", "apps", "train", *map(str, RUN), "--output", str(output)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)


def newest(output: Path) -> int:
    """Give the step of the newest checkpoint."""
    return max((int(path.stem.partition("-")[2]) for path in output.glob("checkpoints/step-*.index")), default=0)


def killed(output: Path, steps: list[int], delays: random.Random) -> list[int]:
    """Kill a run as soon as it has gone past each of the steps, and a moment later; give the steps it went on from."""
    went_on = []
    for step in steps:
        running = start(output)
        while newest(output) <= step and running.poll() is None:
            time.sleep(0.005)
        time.sleep(delays.uniform(0, 0.2))
        if running.poll() is not None:
            sys.exit(f"the run ended with {running.returncode} before it was killed behind step {step}")
        running.send_signal(signal.SIGKILL)
        running.wait()
        went_on.append(newest(output))
        print(f"killed behind step {step}; goes on from {went_on[-1]}", flush=True)
    if code := start(output).wait():
        sys.exit(f"the run ended with {code}")
    return went_on


def largest_difference(one: Path, other: Path) -> float:
    """Compare two models; 0 where every bit is the same."""
    import keras
    import numpy as np

    a, b = (keras.models.load_model(path).get_weights() for path in (one, other))
    return max(0.0 if np.array_equal(x, y) else float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True))


def main() -> int:
    """Measure, print, write; 1 if a bit differs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path)
    output = parser.parse_args().output
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        whole, broken = Path(folder, "whole"), Path(folder, "broken")
        if code := start(whole).wait():
            sys.exit(f"the run ended with {code}")
        # Not the last steps, so that there is something left to be killed.
        steps = sorted(chance.sample(range(EPOCHS * STEPS - 30), KILLS))
        went_on = killed(broken, steps, chance)
        differences = {name: largest_difference(whole / name, broken / name) for name in ("model.keras", "best.keras")}
        same_log = (whole / "log.csv").read_bytes() == (broken / "log.csv").read_bytes()
    for name, difference in differences.items():
        print(f"{name}: largest difference {difference}")
    print(f"log.csv: {'the same' if same_log else 'differs'}")
    if output:
        record = {
            "date": datetime.date.today().isoformat(),
            "kills": KILLS,
            "steps": EPOCHS * STEPS,
            "went_on": went_on,
        }
        output.write_text(json.dumps(record | {"differences": differences, "same_log": same_log}, indent=2) + "\n")
    return int(any(differences.values()) or not same_log)


if __name__ == "__main__":
    sys.exit(main())
