"""The folder of a converted model: model.py, model.safetensors, report.json, report.html."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from bridge.files import writing
from bridge.graph import BridgeError

LIMIT = 64 * 2**20  # bytes of a model.py that is read; the largest networks are far below


@contextlib.contextmanager
def new_folder(path) -> Iterator[Path]:
    """Give a folder beside `path` to fill, and rename it to `path` when all went well; else nothing is left behind.

    Raises:
        BridgeError: The folder exists or cannot be written.
    """
    target = Path(path)
    if target.exists() or target.is_symlink():
        raise BridgeError(f"{target} exists already: name a new folder, or remove that one")
    with writing(target) as side:
        side.mkdir()
        yield side


def save_torch(model, folder, verify: bool = True, exact_training: bool = False, optimizer=None):
    """Convert a Keras model and write the result as a folder that needs nothing but torch.

    Args:
        model: A functional or Sequential `keras.Model`.
        folder: A path that does not exist yet.
        verify: Load what was written, compare it with the model, and write report.json and report.html.
        exact_training: As for `to_torch`.
        optimizer: A Keras optimizer that has trained the model: it is carried, too, with a program that goes on
            (`bridge.resume`).

    Returns:
        The `Report`, or None with `verify=False`. A model that fails the comparison is written too, with its report.

    Raises:
        BridgeError: The model cannot be carried, or the folder cannot be written. Nothing is left behind.
    """
    with new_folder(folder) as side:
        from bridge import torch_writer
        from bridge.convert import source

        written = source(model, exact_training)
        (side / "model.py").write_text(written.text, encoding="utf-8")
        _save_state(written.state, side / "model.safetensors")
        report = None
        program = torch_writer.execute((side / "model.py").read_text(encoding="utf-8"))
        if optimizer is not None:
            from bridge import resume
            from bridge.optimizer_state import optimizer_to_torch

            module = program.load(side / "model.safetensors")
            made = optimizer_to_torch(optimizer, model, module)
            if not hasattr(made, "SLOTS"):
                raise BridgeError(
                    f"the optimizer goes by torch's rule, as torch.optim.{type(made).__name__}, for which there is no "
                    "resume.py: bridge.optimizer_to_torch gives it"
                )
            resume.write(side, made, module, model)
        if verify:
            from bridge.verification import verify as compare

            report = compare(model, program.load(side / "model.safetensors"))
            (side / "report.json").write_text(report.to_json(), encoding="utf-8")
            (side / "report.html").write_text(report.to_html(), encoding="utf-8")
    return report


def _save_state(state, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from bridge.tensors import tensor

    try:
        save_file({k: tensor(v) for k, v in state.items()}, path, metadata={"format": "pt"})
    except SafetensorError as e:
        number = re.search(r"os error (\d+)", str(e))  # an OSError, which safetensors gives as text
        if not number:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from e


def _model_py(folder, trust: bool):
    folder = Path(folder)
    missing = [n for n in ("model.py", "model.safetensors") if not (folder / n).is_file()]
    if missing:
        raise BridgeError(f"{folder} is not a folder of `bridge to-torch`: it has no {' and no '.join(missing)}")
    if not trust:
        raise BridgeError(f"{folder}/model.py is a program and would be run: read it, then pass trust=True (--trust)")
    if (folder / "model.py").stat().st_size > LIMIT:
        raise BridgeError(f"{folder}/model.py is larger than {LIMIT >> 20} MiB")
    from bridge import torch_writer

    try:
        module = torch_writer.execute((folder / "model.py").read_text(encoding="utf-8"))
        return module, module.load(folder / "model.safetensors")
    except (Exception, SystemExit) as e:  # the program of somebody else may fail in any way
        raise BridgeError(f"{folder} cannot be loaded: {type(e).__name__}: {' '.join(str(e).split())}") from e


def load_torch(folder, trust: bool = False):
    """Load the module of a folder that `save_torch` wrote.

    Args:
        folder: The folder.
        trust: Must be true, as the folder's model.py is run.

    Returns:
        The `torch.nn.Module`, in eval mode.

    Raises:
        BridgeError: The folder is not one, is damaged, or is not trusted.
    """
    return _model_py(folder, trust)[1]


def load_keras_from(folder, trust: bool = False):
    """Convert the module of a folder that `save_torch` wrote to Keras; open sizes stay open.

    Args:
        folder: The folder.
        trust: Must be true, as the folder's model.py is run.

    Returns:
        The `keras.Model` and the module that it was made from.

    Raises:
        BridgeError: The folder is not one, or its module cannot be carried.
    """
    from bridge.convert import to_keras

    return with_examples(to_keras, folder, trust)


def with_examples(use: Callable, folder, trust: bool = False):
    """Call `use(module, example_inputs, dynamic)` with what the folder's model.py states of its inputs.

    Args:
        use: Takes a module, example inputs, and for each the axes that stay open; other sizes are tried for these
            while it raises a `BridgeError` without obstacles.
        folder: The folder.
        trust: Must be true, as the folder's model.py is run.

    Returns:
        What `use` gives, and the module.

    Raises:
        BridgeError: The folder is not one, or `use` takes its module with no size.
    """
    program, module = _model_py(folder, trust)
    try:
        inputs = {str(name): (tuple(shape), str(dtype)) for name, (shape, dtype) in program.INPUTS.items()}
    except (AttributeError, TypeError, ValueError) as e:
        raise BridgeError(f"{folder}/model.py has no INPUTS of the form {{name: (shape, dtype)}}") from e
    return examples(lambda *given: use(module, *given), inputs), module


def examples(use: Callable, inputs: dict):
    """Call `use(example_inputs, dynamic)` with tensors for a module's INPUTS, at a size that it takes."""
    import torch

    from bridge.graph import Graph, Value
    from bridge.models import SIZES
    from bridge.samples import sample

    values = [Value(name, shape, dtype) for name, (shape, dtype) in inputs.items()]
    dynamic = [{i for i, d in enumerate(v.shape) if d is None} for v in values]
    error = None
    for size in SIZES if any(d - {0} for d in dynamic) else SIZES[:1]:
        arrays = sample(Graph("", values, None, [], {}, "first"), size)
        try:
            return use(tuple(map(torch.from_numpy, arrays)), dynamic)
        except BridgeError as e:
            if e.obstacles:
                raise
            error = e
    raise error
