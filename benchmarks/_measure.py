"""How every benchmark measures: alternating, medians, and each thing against itself as a control."""

import argparse
import ctypes
import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


def keep_memory() -> None:
    """Have glibc keep the memory that is freed, for both sides alike.

    Else it hands some back and fetches it again; how often is an accident of the order of calls: 6,000 to 14,000 page
    faults were counted for a forward pass of one and the same module, and 5% in time go with them.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return
    mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD, bytes
    mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, the highest


keep_memory()


def compare(
    ours: Callable[[], object], theirs: Callable[[], object], rounds: int, warm_up: int = 2
) -> dict[str, float]:
    """Time two functions side by side.

    Args:
        ours: The function that is measured.
        theirs: What it is measured against.
        rounds: Each round calls ours, theirs, ours, theirs.
        warm_up: Rounds that are not counted.

    Returns:
        Medians in seconds, their `ratio`, and for each function the ratio of its two turns (`control_*`), which
        is 1 but for the noise.
    """
    times: list[list[float]] = [[], [], [], []]
    for i in range(warm_up + rounds):
        for k, function in enumerate((ours, theirs, ours, theirs)):
            start = time.perf_counter()
            function()
            if i >= warm_up:
                times[k].append(time.perf_counter() - start)
    return summary(*times)


def summary(ours: list[float], theirs: list[float], again: list[float], theirs_again: list[float]) -> dict[str, float]:
    """Give the medians of alternating turns, as `compare` does."""
    median, times = statistics.median, (ours, theirs, again, theirs_again)
    return {
        "ours": median(times[0] + times[2]),
        "theirs": median(times[1] + times[3]),
        "ratio": median(times[0] + times[2]) / median(times[1] + times[3]),
        "control_ours": median(times[0]) / median(times[2]),
        "control_theirs": median(times[1]) / median(times[3]),
    }


def options() -> argparse.ArgumentParser:
    """What every script takes; one that takes more adds it, and parses before it measures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path)
    return parser


def finish(results: dict[str, dict], goals: dict[str, float], **more: dict) -> int:
    """Print a table of the ratios, write them as JSON where `--output FILE` says, and tell whether all goals were met.

    Args:
        results: Of `compare`, by name.
        goals: The highest good ratio, by name.
        **more: Figures without a goal, to be written besides.

    Returns:
        The exit code: 1 if a ratio is above its goal.
    """
    print(f"{'what':44} {'ours':>10} {'theirs':>10} {'ratio':>7} {'goal':>6}  controls")
    for name, r in results.items():
        controls = f"{r['control_ours']:.3f} {r['control_theirs']:.3f}"
        print(
            f"{name:44} {r['ours'] * 1e3:8.1f}ms {r['theirs'] * 1e3:8.1f}ms {r['ratio']:7.3f} {goals[name]:6.2f}  "
            + controls
        )
    output = options().parse_known_args()[0].output
    if output:
        versions = {p: metadata.version(p) for p in ("tensorflow", "keras", "torch", "onnx2torch", "tf2onnx")}
        record = {
            "date": datetime.date.today().isoformat(),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}",
            "versions": versions,
            "results": {k: {**v, "goal": goals[k]} for k, v in results.items()},
            **more,
        }
        output.write_text(json.dumps(record, indent=2) + "\n")
    return int(any(r["ratio"] > goals[name] for name, r in results.items()))
