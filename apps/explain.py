"""Draw where a classifier looks: Grad-CAM, or what a Vision Transformer pays attention to, over pictures."""

import pathlib
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

from typer import Argument, Option

RESULTS = pathlib.Path("explanations")


class Method(StrEnum):
    """How the map is made."""

    auto = "auto"
    grad_cam = "grad-cam"
    attention = "attention"


def run(
    target: Annotated[pathlib.Path, Argument(metavar="RUN", help="A run folder (its best model), or a .keras file.")],
    images: Annotated[list[pathlib.Path], Argument(metavar="IMAGE...", help="Picture files.")],
    output: Annotated[pathlib.Path, Option("--output", "-o", help="Folder of the pictures.")] = RESULTS,
    method: Annotated[Method, Option(help="auto: attention, where the model has it.")] = Method.auto,
    label: Annotated[
        str | None, Option("--class", help="Name or number, for Grad-CAM.", show_default="the likeliest")
    ] = None,
    layer: Annotated[
        str | None, Option(help="For Grad-CAM; it gives (B, h, w, C).", show_default="the last that has places")
    ] = None,
    values: Annotated[
        tuple[float, float] | None,
        Option(help="What black and white of a file become.", show_default="as it was trained, or 0 1"),
    ] = None,
) -> int:
    """Run the command."""
    from bridge import _quiet

    _quiet.import_tensorflow()
    import tensorflow as tf

    from apps import run_folder
    from apps.export import trained_on
    from apps.predict import checked, likeliest, read, safe
    from bridge.files import aside
    from tfzoo.explanations.overlay import overlay
    from tfzoo.export.pictures import Pictures
    from tfzoo.export.signatures import unique

    run_folder.check(output)
    model, asked = run_folder.load(target), run_folder.asked(target)
    *size, channels = classifier_shape(model)
    pictures = Pictures(None if None in size else tuple(size), channels, values or trained_on(asked.get("family")))
    names = asked.get("classes") or []
    explain = explainer(model, method, label, layer, names)
    files = [read(path) for path in checked(images)]
    with run_folder.room(output):
        for path, file, stem in zip(images, files, unique([safe(path.stem) for path in images]), strict=True):
            image = pictures.decode(tf.constant([file])).numpy()
            outputs, heat, what, seen = explain(image)
            black, white = pictures.values
            with aside(output / f"{stem}.png") as side:
                overlay((seen - black) / (white - black), heat).save(side, "PNG")
            print(f"{path}: {likeliest(outputs)}; {what}: {output / stem}.png")
    return 0


def classifier_shape(model) -> tuple[int | None, ...]:
    """Give `(H, W, C)` of a classifier's pictures; raises a ValueError for another model."""
    from bridge.models import is_functional
    from tfzoo.layers.classifier import logits

    if is_functional(model) and len(model.inputs) == 1 and len(model.inputs[0].shape) == 4:
        scores, shape = logits(model.output), tuple(model.inputs[0].shape[1:])
        if len(getattr(scores, "shape", ())) == 2 and shape[2] in (1, 3):
            return shape
    raise ValueError(
        f"{model.name} is no classifier of pictures. Accepted: a functional model from (B, H, W, 1 or 3) to logits "
        "(B, classes), or to a dictionary that has them as logits"
    )


def explainer(model, method: Method, label: str | None, layer: str | None, names: list[str]) -> Callable[[Any], tuple]:
    """Choose how pictures are explained.

    Args:
        model: A classifier.
        method: Of `Method`.
        label: The class asked for, by name or number; None for the likeliest.
        layer: The layer asked for; None for the last that has places.
        names: The classes' names, as far as they are known.

    Returns:
        A function from a picture `(1, H, W, C)` to its outputs as `apps.predict.likeliest` has them, the map `(h, w)`,
        what it shows in words, and the picture that it lies over `(H, W, C)`.

    Raises:
        ValueError: There is no such class, or the method is none of this model's.
    """
    import keras
    import numpy as np
    from scipy.special import softmax

    from tfzoo.explanations.attention import WEIGHTS, rollout
    from tfzoo.explanations.grad_cam import grad_cam
    from tfzoo.layers.classifier import logits

    scores = logits(model.output)
    names = [*names, *map(str, range(len(names), scores.shape[-1]))]
    wanted = None if label is None else number(label, names)
    attends = any(WEIGHTS.fullmatch(part.name) for part in model.layers)
    if method is Method.auto:
        method = Method.attention if attends and label is None and layer is None else Method.grad_cam
    if method is Method.attention and (label is not None or layer is not None):
        raise ValueError("attention is no class's and no layer's. Leave --class and --layer out, or --method attention")
    # What a spatial transformer's classifier sees is another picture, and its map lies over that one.
    seen = next((part.output for part in model.operations if part.name == "rectified"), model.input)
    both = keras.Model(model.input, [seen, scores])

    def explain(image: np.ndarray) -> tuple[dict[str, Any], np.ndarray, str, np.ndarray]:
        picture, found = (np.asarray(x)[0] for x in both(image, training=False))
        outputs = {"probabilities": softmax(found.astype("float64")), "labels": np.array(names, object)}
        if method is Method.attention:
            return outputs, rollout(model, image)[0], "what it takes from where, by attention rollout", picture
        chosen = int(found.argmax()) if wanted is None else wanted
        heat = grad_cam(model, image, [chosen], layer)[0]
        return outputs, heat, f"what speaks for {names[chosen]}, by Grad-CAM", picture

    return explain


def number(label: str, names: list[str]) -> int:
    """Give a class's number by its name or number; raises a ValueError that lists the names."""
    if label in names:
        return names.index(label)
    if label.isdecimal() and int(label) < len(names):
        return int(label)
    known = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    raise ValueError(f"there is no class {label!r}. Accepted for --class: {known}, or a number below {len(names)}.")
