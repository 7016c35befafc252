"""From a Keras model to the folder that TensorFlow Serving loads.

    models/unet/1/saved_model.pb, variables/       the model, with its signatures by name
                  assets.extra/tf_serving_warmup_requests
                  model_card.md                    what it is, what it was measured to do, how to ask it
    models/unet/models.config batching.config monitoring.config

A version is written to the side, loaded as the server loads it, asked its own warm-up requests, and compared with the
Keras model, signature by signature. Then it gets its number, at once, so a server that polls never sees half of it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
from tensorflow.saved_model.experimental import TrackableResource

from bridge.files import aside
from bridge.models import is_functional, parts
from tfzoo.data.black_and_white import Values, text
from tfzoo.export import card, configs, session, versions, warm_up, weights
from tfzoo.export.pictures import Pictures
from tfzoo.export.signatures import (
    BYTES,
    DEFAULT,
    Signature,
    check,
    evaluate,
    example,
    in_float32,
    of_model,
    with_batch,
    with_pictures,
)

Signatures = Callable[[dict[str, keras.Model]], Mapping[str, Signature]]

# Of the largest output. The SavedModel runs the model's own kernels: what was tried has differed by 2e-7 at most.
TOLERANCE = 1e-5
HALF = 0.05  # the same of a model that computes with 16 bits, whose kernels the loader joins and so rounds less often
# From the model as it was: folding rounds every weight anew; bfloat16 rounds each to 1 part in 256, layer after layer.
CHANGES = {"folded": 1e-3, "bfloat16": 0.2}


GUESS = (
    "serving_bytes gives the model pixels between {}, what black and white become; was it trained on others, name them "
    "(--values)."
)


class Different(ValueError):
    """What was written does not give the model's numbers; it is not kept."""

    exit_code = 1


@dataclass(frozen=True)
class Exported:
    """A version that was written.

    Attributes:
        path: Its folder.
        differences: From what was exported, by signature, of the largest output.
        changes: From the model before its weights were rounded or folded, by signature.
        notes: Sentences on what it does not have, and why.
    """

    path: Path
    differences: dict[str, float]
    changes: dict[str, float]
    notes: list[str] = field(default_factory=list)


def save(
    model: keras.Model | Mapping[str, keras.Model],
    folder: str | Path,
    *,
    version: int | None = None,
    signatures: Signatures | None = None,
    batch: int | None = None,
    precision: str = "float32",
    fold: bool = False,
    size: tuple[int, int] | None = None,
    values: Values = (0.0, 1.0),
    fit: str = "crop",
    max_pixels: int = 25_000_000,
    facts: Mapping[str, Mapping[str, object]] | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Exported:
    """Write a model as the next version of a folder.

    Args:
        model: Any model; of several networks a dictionary by their names, or a model whose attributes they are. One
            with a `call` of its own must have been called; its inputs are taken for float32 (`signatures` says more).
        folder: Of the versions; its name is that of the model for the server.
        version: Above all that are there; None for the next.
        signatures: From the networks by name to what is served by name, one of them `serving_default`, such as
            `tfzoo.unet.signatures`; None for the inputs and outputs by their names.
        batch: Examples of every request, for servers and accelerators that want one shape; None leaves it open.
        precision: "bfloat16" keeps the weights in half the space; they are computed with as float32.
        fold: Take each BatchNormalization into the convolution or Dense layer before it.
        size: `(H, W)` that pictures are brought to where the model takes any; None keeps each file's own.
        values: What black and white become, of what the model was trained on: a number each, or a row of them, one
            for each channel.
        fit: "crop" takes the largest centred window of the aspect ratio, "middle" the middle 87.5 % of that, "stretch"
            the whole picture.
        max_pixels: Of a file, by its header; more are refused before they are decoded.
        facts: Sections of the model card by title, each of texts or numbers by name.
        progress: Told what is being done.

    Returns:
        Where it was written, and by how much it differs.

    Raises:
        ValueError: An option, the folder or the model cannot be used; nothing has changed.
        Different: The SavedModel gives other numbers; it is not kept.
    """
    folder = Path(folder).resolve()
    if precision not in weights.KINDS or (batch is not None and batch < 1):
        raise ValueError(
            f"precision is {' or '.join(weights.KINDS)}, and a batch has one example or more. "
            f"Received: precision={precision!r}, batch={batch}"
        )
    chosen = versions.choose(folder, version)
    versions.tidy(folder)
    before, pictures = networks_of(model), Pictures(size, 3, values, fit, max_pixels)
    networks = {name: weights.folded(network) for name, network in before.items()} if fold else before
    served, notes = signatures_of(networks, signatures, batch, pictures)
    if BYTES not in served and pictures != Pictures(None, 3):
        raise ValueError(f"size, values, fit and max_pixels are of files of pictures. {' '.join(notes)}")
    wanted = {name: example(name, signature) for name, signature in served.items()}
    for name, (inputs, outputs) in wanted.items():
        if difference(evaluate(served[name], inputs), outputs) > TOLERANCE:
            raise ValueError(
                f"{name} draws random numbers, which nobody can check: let them come from an input, a seed."
            )
    changes, half = {}, any(weights.in_half(network) for network in before.values())
    tolerance = HALF if half else TOLERANCE
    if precision == "bfloat16" or fold:
        original, _ = signatures_of(before, signatures, batch, pictures)
        if precision == "bfloat16":
            served = weights.in_bfloat16(served, networks.values())
        unchanged = {name: example(name, one)[1] for name, one in original.items()}
        wanted = {name: (inputs, evaluate(served[name], inputs)) for name, (inputs, _) in wanted.items()}
        changes = {name: difference(wanted[name][1], unchanged[name]) for name in wanted}
        limit = CHANGES["bfloat16" if precision == "bfloat16" or half else "folded"]
        refuse({name: change for name, change in changes.items() if not change <= limit}, "the options change", limit)

    with aside(folder / str(chosen)) as side:
        progress("writing the SavedModel")
        write(served, networks.values(), side)
        warm_up.write(side, [warm_up.request(folder.name, name, inputs) for name, (inputs, _) in wanted.items()])
        progress("comparing it with the model")
        differences = replay(side, {name: outputs for name, (_, outputs) in wanted.items()})
        wrong = {name: far for name, far in differences.items() if not far <= tolerance}
        refuse(wrong, "the SavedModel differs", tolerance)
        asked = {"precision": precision, "fold": fold, "batch": batch or "any"}
        if BYTES in served:
            notes += [] if signatures else [GUESS.format(text(values))]
            asked |= {"values": values, "fit": fit, "size": size or "the model's", "max_pixels": max_pixels}
        about = {**(facts or {}), "Options of the export": asked}
        card.write(side, folder.name, chosen, networks, differences, changes, notes, about)
        versions.check_free(folder / str(chosen))
    configs.write(folder, folder.name, batch)
    return Exported(folder / str(chosen), differences, changes, notes)


def networks_of(model: keras.Model | Mapping[str, keras.Model]) -> dict[str, keras.Model]:
    """Give the networks by name; a model that is one itself, or has a `call` of its own, is called "model"."""
    found = dict(model) if isinstance(model, Mapping) else {"model": model}
    wrong = [f"{name}: {type(x).__name__}" for name, x in found.items() if not isinstance(x, keras.Model)]
    if wrong or not found:
        raise ValueError(
            f"what is exported is a keras.Model, or several by name. Received: {', '.join(wrong) or found}"
        )
    if isinstance(model, Mapping) or is_functional(model):
        return found
    networks = {name: part for name, part in parts(model).items() if is_functional(part)}
    return networks if networks and type(model).call is keras.Model.call else found | networks


def signatures_of(
    networks: dict[str, keras.Model], signatures: Signatures | None, batch: int | None, pictures: Pictures
) -> tuple[dict[str, Signature], list[str]]:
    """Give what is served, and why there is no signature for files where there is none."""
    if signatures:
        served = dict(signatures(networks))
    elif len(networks) == 1:
        served = of_model(next(iter(networks.values())))
    else:
        served = {name: of_model(network)[DEFAULT] for name, network in networks.items()}
        served = {DEFAULT: next(iter(served.values())), **served}
    check(served)
    served, notes = with_pictures(served, pictures)
    return {name: with_batch(in_float32(signature), batch) for name, signature in served.items()}, notes


def write(served: Mapping[str, Signature], networks: Iterable[keras.Model], path: Path) -> None:
    """Write a SavedModel of these signatures, whose functions call these networks."""
    archive = keras.export.ExportArchive()
    for layer in (layer for network in networks for layer in network._flatten_layers(include_self=False)):
        # it may hold a table; the weights that are used are found by themselves
        if layer.built and (not layer.variables or any(isinstance(x, TrackableResource) for x in vars(layer).values())):
            archive.track(layer)
    for name, signature in served.items():
        archive.add_endpoint(name, positional(signature), list(signature.inputs))
    archive.write_out(str(path), verbose=False)


def positional(signature: Signature) -> Callable:
    """Give a signature's function as Keras wants it: its inputs in their order."""
    names = [x.name for x in signature.inputs]
    return lambda *inputs: dict(signature.function(**dict(zip(names, inputs, strict=True))))


def replay(path: Path, wanted: dict[str, dict[str, np.ndarray]]) -> dict[str, float]:
    """Ask a SavedModel its own warm-up requests and compare its answers.

    Args:
        path: The SavedModel's folder.
        wanted: The answers, by signature and output.

    Returns:
        By signature, what `difference` gives.
    """
    asked = list(warm_up.read(path))  # not in a session's graph
    with session.load(path) as (there, run):
        if there.keys() != wanted.keys():
            raise Different(f"the SavedModel has the signatures {', '.join(there)}, not {', '.join(wanted)}.")
        return {name: difference(run(name, inputs), wanted[name]) for name, inputs in asked}


def difference(have: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> float:
    """Give the largest difference of any output as a share of its largest value; inf for another shape.

    Of whole numbers and texts it is the share of those that differ.
    """
    found = [0.0]
    for name, value in want.items():
        if name not in have or have[name].shape != value.shape or have[name].dtype != value.dtype:
            return float("inf")
        if value.dtype.kind in "fc":
            found.append(np.abs(have[name] - value).max() / (np.abs(value).max() or 1))
        else:
            found.append(float(np.mean(have[name] != value)))  # the share of those that differ
    return float(np.max(found))


def refuse(far: dict[str, float], what: str, limit: float) -> None:
    """Raise `Different` if any signature is too far off."""
    if far:
        said = ", ".join(f"{name} by {value:.1e}" for name, value in far.items())
        raise Different(f"{what} {said} of the largest output. Accepted: {limit:.0e}. Nothing was published.")
