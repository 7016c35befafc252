"""Make the classifiers' pictures from the runs that the acceptance scripts leave in runs/acceptance/.

    .venv/bin/python docs/pictures.py [RUNS]

docs/images/FAMILY.png is what `tfzoo evaluate` draws, of seed 0; FAMILY_explained.png what `tfzoo explain` draws over
held-out digits.
"""

import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from apps import recipes, run_folder  # noqa: E402
from apps.explain import Method, explainer  # noqa: E402
from tfzoo.data.black_and_white import shown  # noqa: E402
from tfzoo.explanations.overlay import overlay  # noqa: E402

RUNS = {
    "resnet": "resnet-resnet-0",
    "googlenet": "googlenet-digits-0",
    "vit": "vit-digits-0",
    "spatial_transformer": "spatial_transformer-affine-0",
}
DIGITS = 8  # in a picture


def explained(family: str, folder: Path) -> Image.Image:
    """Draw held-out digits, and below each where the model looks."""
    model, recipe, options = run_folder.load(folder), recipes.find(family), run_folder.options(folder)
    shape = {"batch_size": DIGITS, "seed": options["seed"]}
    images = next(iter(recipe.datasets(options["data"], model.input_shape[1:], **shape).held_out))[0].numpy()
    explain = explainer(model, Method.auto, None, None, [])
    maps = [explain(x[None])[1::2] for x in images]  # the map, and the picture that it lies over
    drawn = [overlay(shown(picture, recipe.DEFAULTS["values"]), heat) for heat, picture in maps]
    rows = [np.concatenate(np.split(np.asarray(one), 2, axis=1)) for one in drawn]  # side by side to one below another
    return Image.fromarray(np.concatenate(rows, axis=1)).resize((96 * DIGITS, 192))


def main() -> int:
    runs = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "runs" / "acceptance"
    for family, run in RUNS.items():
        shutil.copy(runs / run / "samples" / "evaluate.png", ROOT / "docs" / "images" / f"{family}.png")
        explained(family, runs / run).save(ROOT / "docs" / "images" / f"{family}_explained.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
