"""Write a trained model as the SavedModel that TensorFlow Serving loads, and check it there."""

import pathlib
import shlex
from typing import Annotated, Any

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
    from bridge import _quiet

    _quiet.import_tensorflow()
    from apps import run_folder

    model = run_folder.load(target)
    path = output / str(version or next_version(output))
    difference = export(model, path)
    print(f"wrote {path}, which gives the model's numbers (largest difference {difference:.1e} of the largest output)")
    print(f"Next: saved_model_cli show --all --dir {shlex.quote(str(path))}")
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
        ValueError: The version exists, the folder cannot be written, or the model gives no finite numbers.
        VerificationFailed: The SavedModel gives other numbers; it is not kept.
        RunFailed: There is no room left to write.
    """
    import keras
    import tensorflow as tf

    from apps import run_folder
    from bridge.files import aside

    def serve(*inputs):
        outputs = model(keras.tree.pack_sequence_as(structure, list(inputs)), training=False)
        return dict(zip(model.output_names, keras.tree.flatten(outputs), strict=True))

    if path.exists():
        raise ValueError(f"a version is never overwritten. Received: {path}, which exists. Accepted: a new --version.")
    run_folder.check(path.parent)
    structure, _ = run_folder.structures(model)
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serving_default", serve, [tf.TensorSpec(x.shape, x.dtype, x.name) for x in model.inputs])
    with run_folder.room(path.parent), aside(path) as side:
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
        The largest difference of any output on random input, divided by the largest output unless that is 0.

    Raises:
        ValueError: The model's own numbers are not finite.
    """
    import numpy as np
    import tensorflow as tf

    inputs, outputs = example(model)
    if wrong := [name for name, output in outputs.items() if not np.isfinite(output).all()]:
        raise ValueError(
            f"a model is exported if its outputs on random input are finite. Received: {model.name}, whose output "
            f"{', '.join(wrong)} is not. Export another, or train again with a lower --learning-rate."
        )
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(path)).signature_def["serving_default"]
        served = session.run(
            {name: signature.outputs[name].name for name in outputs},
            {signature.inputs[name].name: value for name, value in inputs.items()},
        )
    differences = [
        np.abs(served[name] - output).max() / (np.abs(output).max() or 1) for name, output in outputs.items()
    ]
    return float(np.max(differences))


def example(model) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give random inputs by name and the model's outputs for them by name.

    Args:
        model: A `keras.Model`; open sizes are tried as `bridge.verification` does, the first that it takes.

    Returns:
        NumPy arrays, two examples each.

    Raises:
        ValueError: The model takes none of the sizes.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    from apps import run_folder

    sizes, refusal = (1,), None
    if any(None in x.shape[1:] for x in model.inputs):
        from bridge.samples import SIZES as sizes
    structure, _ = run_folder.structures(model)
    for size in sizes:
        rng = np.random.default_rng(0)
        inputs = [rng.random([2, *(n or size for n in x.shape[1:])]).astype(x.dtype) for x in model.inputs]
        try:
            outputs = keras.tree.flatten(model.predict_on_batch(keras.tree.pack_sequence_as(structure, inputs)))
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            refusal = error
            continue
        names = [x.name for x in model.inputs]
        return dict(zip(names, inputs, strict=True)), dict(zip(model.output_names, outputs, strict=True))
    said = " ".join(str(refusal).split())
    raise ValueError(
        f"{model.name} takes none of the sizes {sizes} in its open axes. The last try said: {said}. "
        "Export a model of fixed sizes."
    )
