"""How each model is trained: one file per model, found by its name.

A recipe has `DEFAULTS`, `datasets` and `compile`; CONTRIBUTING.md says what they take and give.
"""

import importlib
import math
import pathlib
from types import ModuleType
from typing import Any

# What every recipe has, unless its DEFAULTS say otherwise.
DEFAULTS = {
    "seed": 0,
    "settings": {},
    "precision": "float32",
    "jit": False,
    "schedule": "cosine",
    "warm_up": 0.05,
    "clip": 0.0,
    "accumulate": 1,
    "ema": 0.0,
    "early_stopping": 0,
    "checkpoint_steps": 100,
}
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def names() -> list[str]:
    """Give the families that have a recipe, sorted."""
    return sorted(file.stem for file in pathlib.Path(__file__).parent.glob("[!_]*.py"))


def find(name: str) -> ModuleType:
    """Find a family's recipe by its file name.

    Args:
        name: A family.

    Returns:
        The module `apps.recipes.<name>`.

    Raises:
        ValueError: There is none.
    """
    if name not in names():
        raise ValueError(f"no recipe for the family {name!r}. Accepted: {', '.join(names())}.")
    return importlib.import_module(f"apps.recipes.{name}")


def having(option: str) -> list[str]:
    """Give the families whose recipes have an option."""
    return [name for name in names() if option in find(name).DEFAULTS]


def follows(recipe: ModuleType, model) -> dict[str, Any]:
    """Give the arguments of a recipe's `datasets` that follow from a model; most have none."""
    return recipe.asks(model) if hasattr(recipe, "asks") else {}


def check(options: dict[str, Any], known: set[str]) -> None:
    """Refuse options that no device can make right; raises a ValueError that lists them."""
    wrong = [
        f"--{key.replace('_', '-')} is an option of {', '.join(having(key)) or 'no recipe'} alone: leave it out"
        for key in options
        if key not in known
    ]
    if "size" in options["settings"]:
        wrong.append(f"the size is chosen by --size, not by --set. Received: --set size={options['settings']['size']}")
    if not math.isfinite(options["learning_rate"]):
        wrong.append(f"--learning-rate must be a finite number, such as 0.002. Received: {options['learning_rate']}")
    if not 0 <= options["ema"] < 1:
        wrong.append(f"--ema must be at least 0 and less than 1, such as 0.999. Received: {options['ema']}")
    if options["precision"] not in PRECISIONS:
        wrong.append(f"--precision must be one of {', '.join(PRECISIONS)}. Received: {options['precision']}")
    if wrong:
        raise ValueError("\n".join(wrong))
