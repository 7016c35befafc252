"""What a recipe's pictures cost its training step: 20 steps on new batches, made meanwhile, and on one batch again.

    .venv/bin/python benchmarks/data.py [--output FILE]        about three minutes on two cores for a recipe

Every recipe, at the size, batch and data that it has by default; the U-Net also on a folder of photographs.
"""

import itertools
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
from _measure import compare, finish  # noqa: E402  first: it quietens TensorFlow
from PIL import Image  # noqa: E402

import tfzoo  # noqa: E402
from apps import recipes  # noqa: E402
from tfzoo.data import pasted_digits  # noqa: E402

GOAL = 1.05
STEPS = 20


def fed(name: str, data: str):
    """Training by a recipe on batches that are made meanwhile, and on one that is there."""
    recipe = recipes.find(name)
    model = tfzoo.build(name, size=recipe.DEFAULTS["size"])
    recipe.compile(model, optimizer=lambda kind, **_: kind(recipe.DEFAULTS["learning_rate"]), jit_compile=False)
    opened = recipe.datasets(data, model.input_shape[1:], batch_size=recipe.DEFAULTS["batch_size"], seed=0)
    batches = iter(opened.training)
    again = next(batches)
    model.train_on_batch(*again)

    def train(source):
        def steps():
            for batch in itertools.islice(source, STEPS):
                model.train_on_batch(*batch)

        return steps

    return train(batches), train(itertools.repeat(again))


def photographs(folder: Path, pictures: int = 40) -> None:
    """Write a folder of photographs of 640 x 480 with masks, as people have them: JPEG and PNG."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for i in range(pictures):
        made = pasted_digits.picture("training", (480, 640, 3), 0, 0, i)
        Image.fromarray((made.image * 255).astype("uint8")).save(folder / "images" / f"{i:03}.jpg", quality=90)
        Image.fromarray((made.mask[..., 0] * 255).astype("uint8")).save(folder / "masks" / f"{i:03}.png")


def main() -> int:
    names = sorted(path.stem for path in Path(recipes.__file__).parent.glob("[!_]*.py"))
    with tempfile.TemporaryDirectory() as folder:
        photographs(Path(folder))
        cases = {
            f"{name}: {recipes.find(name).DEFAULTS['data']}": (name, recipes.find(name).DEFAULTS["data"])
            for name in names
        }
        cases["unet: a folder of photographs"] = ("unet", folder)
        results = {case: compare(*fed(*what), rounds=6, warm_up=1) for case, what in cases.items()}
    return finish(results, dict.fromkeys(results, GOAL))


if __name__ == "__main__":
    sys.exit(main())
