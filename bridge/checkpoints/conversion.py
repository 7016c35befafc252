"""A checkpoint from one kind of file to another, tensor by tensor."""

import importlib
import os
from pathlib import Path

from bridge import checkpoints, untrusted
from bridge.files import writing
from bridge.graph import BridgeError

ENDINGS = {".safetensors": "safetensors", ".h5": "hdf5", ".pt": "torch_file"}


def convert(source: str | os.PathLike, output: str | os.PathLike) -> tuple[int, int, list[str]]:
    """Write the tensors of a checkpoint, by the same names and of the same values, as a file of another kind.

    Args:
        source: As `checkpoints.open` takes it.
        output: A new file, `.safetensors`, `.h5` (datasets of the tensors' names) or `.pt` (a state dict, which is all
            in memory before it is written; of the others it is one tensor at a time).

    Returns:
        How many tensors, how many bytes they are, and names of what was left out as it is no tensor of numbers.

    Raises:
        BridgeError: The source cannot be read or the output not be written, of which nothing is left then.
    """
    path = Path(output)
    if path.suffix not in ENDINGS or path.name.endswith(".weights.h5"):
        raise BridgeError(
            f"{path}: a checkpoint is converted to {', '.join(ENDINGS)}. A `.weights.h5` or `.keras` is a model's: "
            "bridge weights SRC --into MODEL -o OUT"
        )
    if path.exists():
        raise BridgeError(f"{path} exists already: name a new file, or remove that one")
    with checkpoints.open(source) as found:
        with writing(path) as side:
            module = importlib.import_module(f"bridge.checkpoints.{ENDINGS[path.suffix]}")
            try:
                module.write(os.fspath(side), found.checked(), {"source": Path(source).name})
            except (TypeError, ValueError) as e:  # a name that is a group and a dataset, of HDF5
                if isinstance(e, BridgeError):
                    raise
                raise BridgeError(f"{path} cannot hold tensors of these names: {untrusted.why(e)}") from e
        return len(found), sum(tensor.nbytes for tensor in found.tensors.values()), found.left_out
