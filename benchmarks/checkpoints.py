"""How much memory `bridge convert` takes for a checkpoint of 3 GB: at most its largest tensor and 300 MB.

    .venv/bin/python benchmarks/checkpoints.py [--output FILE] [--gigabytes N]        two minutes, 9 GB of disk

By the operating system's figure for the most that the command's process had resident, all libraries included.
"""

import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
from _measure import options  # noqa: E402

ROOT = Path(__file__).parents[1]
MORE = 300  # MB beyond the largest tensor
LARGEST = 400  # MB
WAYS = (
    ("big.weights.h5", "a.safetensors"),
    ("big.keras", "b.safetensors"),
    ("a.safetensors", "c.h5"),
)


def make(folder: Path, gigabytes: float) -> None:
    """Write weights as Keras 3 lays them out, as a file of their own and in an archive."""
    import h5py
    import numpy as np

    rng, left, number = np.random.default_rng(0), gigabytes * 1e3, 0
    with h5py.File(folder / "big.weights.h5", "w") as file:
        file.create_group("vars").attrs["name"] = "big"
        while left > 0:
            size = min(LARGEST if number == 1 else 37 + 11 * (number % 7), left)  # MB
            held = file.create_group(f"layers/dense_{number}/vars")
            held.attrs["name"] = f"layer{number}"
            held["0"] = rng.random((round(size * 1e6 / 4 / 1000), 1000), "float32")
            left, number = left - size, number + 1
    with zipfile.ZipFile(folder / "big.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.write(folder / "big.weights.h5", "model.weights.h5")


def bridge(*arguments: object) -> tuple[int, float, float]:
    """Run the command; give its exit code, the most MB that it had resident, and its seconds."""
    start = time.perf_counter()
    running = subprocess.Popen([sys.executable, "-m", "bridge", *map(str, arguments)], cwd=ROOT)
    _, status, used = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    return running.returncode, used.ru_maxrss * 1024 / 1e6, time.perf_counter() - start


def main() -> int:
    parser = options()
    parser.add_argument("--gigabytes", type=float, default=3.0)
    arguments = parser.parse_args()
    results, wrong = {}, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, arguments.gigabytes)
        size = (folder / "big.weights.h5").stat().st_size / 1e9
        for source, output in WAYS:
            code, most, seconds = bridge("convert", folder / source, folder / output)
            what = f"{Path(source).name.removeprefix('big')} to {Path(output).suffix}"
            results[what] = {"megabytes": most, "goal": LARGEST + MORE, "seconds": seconds, "gigabytes": size}
            print(f"{what}: {most:,.0f} MB (goal {LARGEST + MORE}), {seconds:.0f} s")
            wrong += [what] if code or most > LARGEST + MORE else []
        code, most, seconds = bridge("diff", folder / "big.weights.h5", folder / "b.safetensors")
        wrong += ["what was written differs"] if code else []
    for what in wrong:
        print(f"SHORT: {what}")
    if arguments.output:
        about = {"date": datetime.date.today().isoformat(), "machine": f"{os.cpu_count()} cores, {platform.machine()}"}
        arguments.output.write_text(json.dumps({**about, "largest": LARGEST, "results": results}, indent=2) + "\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
