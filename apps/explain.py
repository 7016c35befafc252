"""Draw where a classifier looks: Grad-CAM, or what a Vision Transformer pays attention to, over pictures."""

import pathlib
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

from typer import Argument, Option

from apps.values import Given, numbers

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
    values: Given = None,
) -> int:
    """Run the command."""
    from bridge import _quiet

    _quiet.import_tensorflow()
    import tensorflow as tf

    from apps import refuse, refused, run_folder
    from apps.export import assumed, trained_on
    from apps.predict import checked, likeliest, read, safe
    from bridge.files import aside
    from tfzoo.data.black_and_white import shown
    from tfzoo.explanations.overlay import overlay
    from tfzoo.export.pictures import Pictures
    from tfzoo.export.signatures import unique
    from tfzoo.layers.classifier import image_shape

    run_folder.check(output)
    wanted = numbers(values)
    model = run_folder.load(target)
    *size, channels = image_shape(model)
    family, asked = run_folder.family(target, model), run_folder.asked(target)
    was, names = trained_on(family, asked, model), asked.get("classes") or []
    problems: list[str] = []
    with refused(problems):
        pictures = Pictures(None if None in size else tuple(size), channels, wanted or was["values"], was["fit"])
    with refused(problems):
        explain = explainer(model, method, label, layer, names)
    with refused(problems):
        files = [read(path) for path in checked(images)]
    refuse(problems)
    if not values and not asked:
        print(f"{assumed(target, family, was['values'])} (--values names others)")
    with run_folder.room(output):
        for path, file, stem in zip(images, files, unique([safe(path.stem) for path in images]), strict=True):
            image = pictures.decode(tf.constant([file])).numpy()
            outputs, heat, what, seen = explain(image)
            with aside(output / f"{stem}.png") as side:
                overlay(shown(seen, pictures.values), heat).save(side, "PNG")
            print(f"{path}: {likeliest(outputs)}; {what}: {output / stem}.png")
    return 0


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
        ValueError: There is no such class or layer, or the method is none of this model's; names all that is wrong.
    """
    import keras
    import numpy as np
    from scipy.special import softmax

    from apps import refuse, refused
    from tfzoo.explanations.attention import WEIGHTS, rollout
    from tfzoo.explanations.grad_cam import grad_cam, places
    from tfzoo.layers.classifier import logits

    scores = logits(model.output)
    names = [*names, *map(str, range(len(names), scores.shape[-1]))]
    problems: list[str] = []
    with refused(problems):
        wanted = None if label is None else number(label, names)
    if layer is not None and layer not in places(model):
        problems.append(
            "Grad-CAM looks at what a layer gives for every place. Accepted for --layer: "
            f"{', '.join(places(model)) or 'none, as there is no such layer'}. Received: {layer}"
        )
    attends = any(WEIGHTS.fullmatch(part.name) for part in model.layers)
    if method is Method.auto:
        method = Method.attention if attends and label is None and layer is None else Method.grad_cam
    if method is Method.attention and (label is not None or layer is not None):
        problems.append("attention is no class's and no layer's. Leave --class and --layer out, or --method attention")
    refuse(problems)
    # What a spatial transformer's classifier sees is another picture, and its map lies over that one.
    seen = next((part.output for part in model.operations if part.name == "rectified"), model.input)
    both = keras.Model(model.input, [seen, scores])

    def explain(image: np.ndarray) -> tuple[dict[str, Any], np.ndarray, str, np.ndarray]:
        picture, found = (np.asarray(x)[0] for x in both(image, training=False))
        outputs = {"probabilities": softmax(found.astype("float64")), "labels": np.array(names, object)}
        if method is Method.attention:
            return outputs, rollout(model, image)[0], "what it takes from where, by attention rollout", picture
        chosen = int(found.argmax()) if wanted is None else wanted
        at = layer or next(reversed(places(model, image.shape)), None)
        heat = grad_cam(model, image, [chosen], at)[0]
        return outputs, heat, f"what speaks for {names[chosen]}, by Grad-CAM at {at}", picture

    return explain


def number(label: str, names: list[str]) -> int:
    """Give a class's number by its name or number; raises a ValueError that lists the names."""
    if label in names:
        return names.index(label)
    if label.isdecimal() and int(label) < len(names):
        return int(label)
    known = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    raise ValueError(f"there is no class {label!r}. Accepted for --class: {known}, or a number below {len(names)}.")
