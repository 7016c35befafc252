"""Write a trained model as the SavedModel that TensorFlow Serving loads, and check it there."""

import pathlib
from typing import Annotated

from typer import Argument, Option

from apps import VerificationFailed

# Of the largest output. The SavedModel runs the model's own kernels; here the two have not differed at all.
TOLERANCE = 1e-5


def run(
    target: Annotated[pathlib.Path, Argument(metavar="RUN", help="A run folder (its best model), or a .keras file.")],
    output: Annotated[pathlib.Path, Option("--output", "-o", help="Folder of the versions, such as models/unet.")],
    version: Annotated[int | None, Option(min=1, help="A new one.", show_default="the highest plus one")] = None,
) -> int:
    """Run the command."""
    from apps import _quiet

    _quiet.import_tensorflow()
    from apps import run_folder

    model = run_folder.load(target)
    path = output / str(version or next_version(output))
    difference = export(model, path)
    print(f"wrote {path}, which gives the model's numbers (largest difference {difference:.1e} of the largest output)")
    print(f"Next: saved_model_cli show --all --dir {path}")
    return 0


def next_version(folder: pathlib.Path) -> int:
    """Give the number after the highest version in a folder of versions, which may not exist yet."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return max((int(name) for name in names if name.isdecimal()), default=0) + 1


def export(model, path: pathlib.Path) -> float:
    """Write a SavedModel to the side, and give it its name once it has given the model's numbers.

    Args:
        model: A `keras.Model`; its inputs' and outputs' names become those of the signature `serving_default`.
        path: `<folder>/<version>`; must not exist.

    Returns:
        The largest difference from the model, as `difference` gives it.

    Raises:
        ValueError: The version exists, or the folder cannot be written.
        VerificationFailed: The SavedModel gives other numbers; it is not kept.
    """
    import keras
    import tensorflow as tf

    from apps import run_folder
    from bridge.files import aside

    def serve(*inputs):
        outputs = model(inputs[0] if len(inputs) == 1 else list(inputs), training=False)
        return dict(zip(model.output_names, tf.nest.flatten(outputs), strict=True))

    if path.exists():
        raise ValueError(f"a version is never overwritten. Received: {path}, which exists. Accepted: a new --version.")
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serving_default", serve, [tf.TensorSpec(x.shape, x.dtype, x.name) for x in model.inputs])
    run_folder.make(path.parent)
    with aside(path) as side:
        archive.write_out(side, verbose=False)
        largest = difference(model, side)
        if not largest <= TOLERANCE:
            raise VerificationFailed(f"the SavedModel differs from its model by {largest:.1e} of the largest output.")
    return largest


def difference(model, path: pathlib.Path) -> float:
    """Run a SavedModel as TensorFlow Serving does, by the session loader, and compare it with its model.

    Args:
        model: A `keras.Model`.
        path: The SavedModel's folder, with a signature of the model's names.

    Returns:
        The largest difference of any output on random input, divided by the largest output.
    """
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(0)
    inputs = {}
    for x in model.inputs:
        inputs[x.name] = rng.random([2, *(size or 64 for size in x.shape[1:])]).astype(x.dtype)
    values = list(inputs.values())
    outputs = tf.nest.flatten(model.predict_on_batch(values[0] if len(values) == 1 else values))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(path)).signature_def["serving_default"]
        served = session.run(
            {name: signature.outputs[name].name for name in model.output_names},
            {signature.inputs[name].name: value for name, value in inputs.items()},
        )
    differences = [
        np.abs(served[name] - output).max() / np.abs(output).max()
        for name, output in zip(model.output_names, outputs, strict=True)
    ]
    return float(np.max(differences))
