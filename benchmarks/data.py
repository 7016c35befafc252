"""What a recipe's pictures cost its training step: steps on new batches, made meanwhile, and on one batch again.

    .venv/bin/python benchmarks/data.py [RECIPE ...] [--output FILE]        three minutes on two cores for a line

Every recipe, as it trains by default; the U-Net also on folders of photographs, kept in memory and decoded anew each
time. Steps on new batches begin with nothing made ahead, and behind the first batches, for which a part is made once
and kept (cluttered digits, photographs): so this can go on for ever. Those on one batch begin when the making
has come to rest.

All is measured twice: with the step on all cores, which then has to share them with the making, and, besides, with its
operations on one core each, as if there were more cores than it can use, or a GPU.
"""

import functools
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
from _measure import finish, options, summary  # noqa: E402  first: it quietens TensorFlow
from PIL import Image  # noqa: E402

import tfzoo.data  # noqa: E402
from apps import recipes, train  # noqa: E402
from tfzoo.data import pasted_digits, pipeline  # noqa: E402

GOAL = 1.05
STEPS = 20  # in a turn, or as many as take SECONDS
SECONDS = 3.0
ROUNDS = 6
FIRST = 160  # batches, through which all that is made once is made: of 256 digits, 32 epochs
REST = 1.0  # seconds, in which all that is made ahead is made


def prepared(name: str, data: str):
    """Open a recipe's data and compile its model; gives what trains on the next batches and on one again."""
    recipe = recipes.find(name)
    chosen = recipes.DEFAULTS | recipe.DEFAULTS | {"data": data}
    if hasattr(recipe, "settings"):
        chosen["settings"] = recipe.settings(chosen) | chosen["settings"]
    model = train.build(name, chosen)
    recipe.compile(model, optimizer=lambda kind, **_: kind(chosen["learning_rate"]), jit_compile=False)
    opened = recipe.datasets(data, model.input_shape[1:], batch_size=chosen["batch_size"], seed=0)
    batches = iter(opened.training)
    again = next(batches)
    for _ in range(FIRST):
        next(batches)
    model.train_on_batch(*again)
    start = time.perf_counter()
    model.train_on_batch(*again)
    steps = max(STEPS, round(SECONDS / (time.perf_counter() - start)))

    def timed(source) -> float:
        start = time.perf_counter()
        for batch in itertools.islice(source, steps):
            model.train_on_batch(*batch)
        return (time.perf_counter() - start) / steps

    def new() -> float:
        for _ in range(2 * pipeline.AHEAD):
            next(batches)
        return timed(batches)

    def same() -> float:
        time.sleep(REST)
        return timed(itertools.repeat(again))

    return new, same


def measured(name: str, data: str, rounds: int) -> dict[str, float]:
    """Time both in turns, as `_measure.compare` does."""
    new, same = prepared(name, data)
    new(), same()
    times: list[list[float]] = [[], [], [], []]
    for _, (turn, function) in itertools.product(range(rounds), enumerate((new, same, new, same))):
        times[turn].append(function())
    return summary(*times)


def photographs(folder: Path, pictures: int = 40) -> None:
    """Write a folder of photographs of 640 x 480 with masks, as people have them: JPEG and PNG."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for i in range(pictures):
        made = pasted_digits.picture("training", (480, 640, 3), 0, 0, i)
        Image.fromarray((made.image * 255).astype("uint8")).save(folder / "images" / f"{i:03}.jpg", quality=90)
        Image.fromarray((made.mask[..., 0] * 255).astype("uint8")).save(folder / "masks" / f"{i:03}.png")


def main() -> int:
    parser = options()
    parser.add_argument("recipes", nargs="*")
    parser.add_argument("--spared", action="store_true", help="in the second process")
    every = sorted(path.stem for path in Path(recipes.__file__).parent.glob("[!_]*.py"))
    arguments = parser.parse_args()
    names, results, rounds = arguments.recipes or every, {}, ROUNDS // 2 if arguments.spared else ROUNDS
    for name in names:
        data = recipes.find(name).DEFAULTS["data"]
        results[f"{name}: {data}"] = measured(name, data, rounds)
    with tempfile.TemporaryDirectory() as folder:
        if "unet" in names:
            photographs(Path(folder))
            results["unet: photographs, kept in memory"] = measured("unet", folder, rounds)
            with mock.patch.object(tfzoo.data, "open", functools.partial(tfzoo.data.open, keep=0)):
                results["unet: photographs, decoded each time"] = measured("unet", folder, rounds)
    besides = {} if arguments.spared else {"besides": with_a_core_to_spare(names)}
    return finish(results, dict.fromkeys(results, GOAL), **besides)


def with_a_core_to_spare(names: list[str]) -> dict[str, dict]:
    """Measure the same in a process whose operations do not share out their work over cores."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "found.json")
        command = [sys.executable, __file__, *names, "--spared", "--output", found]
        subprocess.run(command, env={**os.environ, "TF_NUM_INTRAOP_THREADS": "1"}, check=False)
        return json.loads(found.read_text())["results"]


if __name__ == "__main__":
    sys.exit(main())
