"""What a recipe's pictures cost its training step: steps on new batches, made meanwhile, and on one batch again.

    .venv/bin/python benchmarks/data.py [--output FILE]        about five minutes on two cores for a recipe

Every recipe, at the size, batch and data that it has by default; the U-Net also on folders of photographs, kept in
memory and decoded anew each time. Steps on new batches begin with nothing made ahead, so what is measured can go on for
ever; those on one batch begin when the making has come to rest.
"""

import functools
import itertools
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
from _measure import finish, summary  # noqa: E402  first: it quietens TensorFlow
from PIL import Image  # noqa: E402

import tfzoo.data  # noqa: E402
from apps import recipes  # noqa: E402
from tfzoo.data import pasted_digits, pipeline  # noqa: E402

GOAL = 1.05
STEPS = 20
ROUNDS = 6
REST = 1.0  # seconds, in which all that is made ahead is made


def prepared(name: str, data: str):
    """Open a recipe's data and compile its model; gives what trains on the next batches and on one again."""
    recipe = recipes.find(name)
    model = tfzoo.build(name, size=recipe.DEFAULTS["size"])
    recipe.compile(model, optimizer=lambda kind, **_: kind(recipe.DEFAULTS["learning_rate"]), jit_compile=False)
    opened = recipe.datasets(data, model.input_shape[1:], batch_size=recipe.DEFAULTS["batch_size"], seed=0)
    batches = iter(opened.training)
    again = next(batches)
    model.train_on_batch(*again)

    def train(source) -> float:
        start = time.perf_counter()
        for batch in itertools.islice(source, STEPS):
            model.train_on_batch(*batch)
        return time.perf_counter() - start

    def new() -> float:
        for _ in range(2 * pipeline.AHEAD):
            next(batches)
        return train(batches)

    def same() -> float:
        time.sleep(REST)
        return train(itertools.repeat(again))

    return new, same


def measured(name: str, data: str) -> dict[str, float]:
    """Time both in turns, as `_measure.compare` does."""
    new, same = prepared(name, data)
    new(), same()
    times: list[list[float]] = [[], [], [], []]
    for _, (turn, function) in itertools.product(range(ROUNDS), enumerate((new, same, new, same))):
        times[turn].append(function() / STEPS)
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
    results = {}
    for name in sorted(path.stem for path in Path(recipes.__file__).parent.glob("[!_]*.py")):
        data = recipes.find(name).DEFAULTS["data"]
        results[f"{name}: {data}"] = measured(name, data)
    with tempfile.TemporaryDirectory() as folder:
        photographs(Path(folder))
        results["unet: photographs, kept in memory"] = measured("unet", folder)
        with mock.patch.object(tfzoo.data, "open", functools.partial(tfzoo.data.open, keep=0)):
            results["unet: photographs, decoded each time"] = measured("unet", folder)
    return finish(results, dict.fromkeys(results, GOAL))


if __name__ == "__main__":
    sys.exit(main())
