"""Deep-learning models as Keras 3 functional models, each verified against its paper.

>>> import tfzoo
>>> tfzoo.names()
['googlenet', 'iaf_vae', 'normalizing_flow', 'resnet', 'spatial_transformer', 'unet', 'vae', 'vit', 'vq_vae']
>>> model = tfzoo.build("unet", size="tiny", image_shape=(64, 64, 3))
"""

import importlib
import inspect
import os
from pathlib import Path


def names() -> list[str]:
    """List the model families: every file of this folder, by its name."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))


def sizes(name: str) -> list[str]:
    """List the sizes of a family; the first is its default.

    Args:
        name: A family of `names()`.

    Raises:
        ValueError: No such family.
    """
    return list(family(name).SIZES)


def build(name: str, size: str | None = None, weights: str | os.PathLike | None = None, **options):
    """Build a model.

    Args:
        name: A family of `names()`.
        size: One of `sizes(name)`; None for the first.
        weights: A file of weights, `.safetensors` or `.pt` with the names of a project in the family's `NAMES`, or
            Keras' own; or the address of one, which is fetched (`tfzoo.pretrained` has more). None for new ones.
        **options: Arguments of the family's builder; they take precedence over the size's.

    Returns:
        A `keras.Model`, freshly initialised or with the weights of the file.

    Raises:
        ValueError: No such family; no such size and options; options out of range; or weights that do not fit. All that
            is wrong of the first of these is in it, and the weights are not looked at before the model is built.
    """
    module = family(name)
    builder = getattr(module, name)
    size = next(iter(module.SIZES)) if size is None else size
    accepted = list(inspect.signature(builder).parameters)
    problems = []
    if size not in module.SIZES:
        problems.append(f"{name} has no size {size!r}; its sizes are {', '.join(module.SIZES)}")
    if unknown := [option for option in options if option not in accepted]:
        problems.append(f"{name} has no option {', '.join(unknown)}; its options are {', '.join(accepted)}")
    if problems:
        raise ValueError("\n".join(problems))
    from tfzoo.layers.names import counted_anew

    with counted_anew():
        model = builder(**{**module.SIZES[size], **options})
    if weights is not None:
        from tfzoo import pretrained

        pretrained.load(model, weights, module)
    return model


def family(name: str):
    """Import the module of a family."""
    if name not in names():
        raise ValueError(f"there is no model {name!r}; the models are {', '.join(names())}")
    return importlib.import_module(f"tfzoo.{name}")
