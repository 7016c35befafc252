"""The whole way in a few minutes: train a U-Net, measure it, export it, carry it to PyTorch and back, prove it."""

import itertools
import pathlib
import time
from typing import Annotated

from typer import Option

from apps import VerificationFailed


def run(
    output: Annotated[
        pathlib.Path | None, Option(help="Run folder.", show_default="runs/demo, runs/demo-2, ...")
    ] = None,
    size: Annotated[str | None, Option(help="Size of the U-Net.")] = None,
    epochs: Annotated[int | None, Option(min=1, help="How often the model is judged and saved.")] = None,
    steps_per_epoch: Annotated[int | None, Option(min=1, help="Batches in an epoch.")] = None,
    seed: Annotated[int, Option(min=0, max=2**32 - 1, help="Decides every random choice.")] = 0,
) -> int:
    """Run the command."""
    from apps.evaluate import evaluate, show
    from apps.recipes import find
    from apps.train import train

    unet = find("unet")
    given = {"size": size, "epochs": epochs, "steps_per_epoch": steps_per_epoch}
    options = unet.DEMO | {key: value for key, value in given.items() if value is not None}
    output = output or free_folder(pathlib.Path("runs", "demo"))

    title = f"1/4  training, about {unet.MINUTES['demo']} minutes on two cores as the recipe has it"
    start = time.monotonic()
    train("unet", output, **options, seed=seed, settings={}, title=title)
    minutes = (time.monotonic() - start) / 60
    print("2/4  measuring it on pictures that it has not seen")
    figures = evaluate(output, output)
    print("3/4  exporting a SavedModel and running it as TensorFlow Serving does")
    figures |= exported(output)
    print("4/4  carrying it to PyTorch and back, comparing outputs, gradients and settings")
    figures |= carried(output)

    show("U-Net, held-out pictures", {"minutes of training": minutes, **figures})
    for path, what in {
        "samples/evaluate.png": "held-out pictures, masks and predictions",
        "best.keras": "the model; plain Keras loads it",
        "models/unet/1": "the same for TensorFlow Serving; model_card.md in it says how to ask it",
        "torch/model.py": "the same as PyTorch source, model.safetensors beside it",
        "torch/report.html": "the proof that they are equal",
        "back.keras": "from PyTorch back to Keras",
        "run.html": "the training and its figures as one page; tensorboard/ beside it",
    }.items():
        print(f"{output / path!s:36} {what}")
    return 0


def free_folder(path: pathlib.Path) -> pathlib.Path:
    """Give `path`, or `path-2`, `path-3`, ...: the first that does not exist."""
    others = (path.with_name(f"{path.name}-{n}") for n in itertools.count(2))
    return next(candidate for candidate in itertools.chain([path], others) if not candidate.exists())


def exported(folder: pathlib.Path) -> dict[str, str]:
    """Export a run's best model to `models/unet/1`; the export compares itself with the model.

    Args:
        folder: The run folder.

    Returns:
        The figure for the summary.

    Raises:
        tfzoo.export.Different: The SavedModel gives other numbers.
    """
    import tfzoo.unet
    from apps import run_folder
    from apps.export import facts
    from tfzoo.export import save

    with run_folder.room(folder):
        made = save(
            run_folder.load(folder),
            folder / "models" / "unet",
            signatures=tfzoo.unet.signatures,
            facts=facts(folder),
        )
    largest = max(made.differences.values())
    return {"SavedModel against Keras": f"verified, {largest:.1e} largest difference in float32"}


def carried(folder: pathlib.Path) -> dict[str, str]:
    """Carry a run's best model to PyTorch, `torch/`, and back, `back.keras`, and verify each step.

    Args:
        folder: The run folder.

    Returns:
        The figures for the summary.

    Raises:
        VerificationFailed: The two sides differ; the message is the report.
    """
    import numpy as np
    import torch

    import bridge
    from apps import run_folder

    model = run_folder.load(folder)
    there = bridge.save_torch(model, folder / "torch")
    module = bridge.load_torch(folder / "torch", trust=True)
    height, width, channels = model.input_shape[1:]
    back = bridge.to_keras(module, (torch.zeros(2, channels, height, width),))
    again = bridge.verify(back, module)
    for report in (there, again):
        if not report.passed:
            raise VerificationFailed(str(report))
    same = zip(model.get_weights(), back.get_weights(), strict=True)
    if not all(np.array_equal(a, b) for a, b in same):
        raise VerificationFailed("the weights that came back from PyTorch are not bit for bit those that went.")
    with run_folder.room(folder):
        run_folder.save(back, folder / "back.keras")
    return {
        "to PyTorch": f"verified, {there.figures()['forward float64']:.1e} largest difference in float64",
        "back to Keras": f"verified, all {model.count_params():,} weights bit-identical",
    }
