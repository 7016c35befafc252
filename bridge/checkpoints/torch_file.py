"""`.pt`, `.pth` and `.bin`, as `torch.save` writes them; no code in them is run.

What is in dictionaries and lists in one another has a name of all their keys, `model.conv1.weight`,
`optimizer.state.0.exp_avg`.
"""

import contextlib
import functools
import zipfile
from collections.abc import Iterator

import numpy as np

from bridge import untrusted
from bridge.checkpoints import Tensor


@contextlib.contextmanager
def reading(path: str) -> Iterator[tuple[dict[str, Tensor], list[str]]]:
    """Open a file; see `bridge.checkpoints.open`."""
    import torch

    mapped = zipfile.is_zipfile(path)
    if mapped:
        untrusted.check_archive(path)
    tensors: dict[str, Tensor] = {}
    left_out: list[str] = []
    for name, value in flat(torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)):
        if isinstance(value, torch.Tensor) and name not in tensors:
            array = as_array(value[:0] if value.ndim else value)
            tensors[name] = Tensor(tuple(value.shape), array.dtype, functools.partial(as_array, value))
        else:
            left_out.append(name)
    yield tensors, left_out


def flat(value, path: str = "") -> Iterator[tuple[str, object]]:
    """Give what is in dictionaries and lists in one another, with a name of all their keys."""
    inside = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else None
    )
    if inside is None:
        yield path, value
        return
    for key, one in inside:
        yield from flat(one, f"{path}.{key}" if path else str(key))


def as_array(tensor) -> np.ndarray:
    """Copy a tensor's numbers; those of dtypes that NumPy has not become those of `ml_dtypes`."""
    import ml_dtypes
    import torch

    tensor = tensor.detach().contiguous()
    own = {
        torch.bfloat16: ml_dtypes.bfloat16,
        torch.float8_e4m3fn: ml_dtypes.float8_e4m3fn,
        torch.float8_e5m2: ml_dtypes.float8_e5m2,
    }
    if tensor.dtype in own:
        as_bytes = torch.uint8 if tensor.element_size() == 1 else torch.int16
        return tensor.view(as_bytes).numpy().copy().view(own[tensor.dtype])
    return tensor.numpy().copy()


def write(path: str, tensors, metadata) -> None:
    """Write tensors as a state dict, all of which is in memory then, as `torch.save` wants it.

    Args:
        path: The file.
        tensors: By name, as `bridge.checkpoints.open` gives them.
        metadata: Not written: a state dict has names and tensors alone.
    """
    import torch

    from bridge.tensors import tensor

    torch.save({name: tensor(one.read()) for name, one in tensors.items()}, path)
