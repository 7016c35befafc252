"""`.h5`, `.weights.h5` and `.keras`, by h5py: what Keras 3 and Keras 2 write, and any other file of datasets.

Keras 3 has `layers/<class>_<number>/vars/<number>`, and the layer's own name beside its variables; a layer without one
(`dense_3`, the number depends on what was made before) is `dense#1` here, the second Dense layer. Keras 2 has the names
of all weights in lists. Links out of the file are refused.
"""

import contextlib
import functools
import io
import itertools
import re
import zipfile
from collections.abc import Callable, Iterator
from typing import IO

import numpy as np

from bridge import untrusted
from bridge.checkpoints import Tensor

LISTS = ("layers", "_layer_checkpoint_dependencies")  # of a model's layers; the latter's before Keras 3
NUMBER = r"_\d+$"  # what Keras adds to a name or class that it has had before


@contextlib.contextmanager
def reading(path: str) -> Iterator[tuple[dict[str, Tensor], list[str]]]:
    """Open a file; see `bridge.checkpoints.open`."""
    import h5py

    with contextlib.ExitStack() as stack:
        content = path
        if path.endswith(".keras"):
            untrusted.check_archive(path)
            content = stack.enter_context(member(path, "model.weights.h5"))
        file = stack.enter_context(h5py.File(content, "r"))
        found = of_keras_2(file) if listed(weights_of(file), "layer_names") else walk(file, is_named(file))
        yield {name: tensor(dataset) for name, dataset in found.items()}, []


class Part(io.RawIOBase):
    """Bytes of a file from a place on, as a file of its own."""

    def __init__(self, file: IO[bytes], start: int, size: int):
        self.file, self.start, self.size, self.place = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.size}[whence]
        return self.place

    def tell(self) -> int:
        return self.place

    def readinto(self, buffer) -> int:
        self.file.seek(self.start + self.place)
        count = self.file.readinto(memoryview(buffer)[: max(self.size - self.place, 0)])
        self.place += count
        return count


@contextlib.contextmanager
def member(path: str, name: str) -> Iterator[io.IOBase]:
    """Open a file in an archive, to be read anywhere: where it is stored as it is, in the archive itself."""
    with zipfile.ZipFile(path) as archive:
        inside = archive.getinfo(name)
        if inside.compress_type != zipfile.ZIP_STORED:
            with archive.open(inside) as packed:
                yield io.BytesIO(packed.read())
            return
    with open(path, "rb") as file:  # the name and what is beside it may be longer than in the directory
        file.seek(inside.header_offset + 26)
        lengths = [int.from_bytes(file.read(2), "little") for _ in range(2)]
        yield Part(file, inside.header_offset + 30 + sum(lengths), inside.file_size)


def weights_of(file):
    """The group that has a model's weights in a file of Keras 2, of weights alone or of the whole model."""
    return group(file, "model_weights") if "model_weights" in file else file


def is_named(file) -> bool:
    """Tell whether a file has the layers' names, which Keras 3 has not always written."""
    return "vars" in file and "name" in file["vars"].attrs


def walk(above, named: bool, path: str = "", leave_out: Callable[..., bool] = lambda *_: False) -> dict:
    """The datasets of a group of Keras 3, or of any other, and what is below it, by their names here.

    Args:
        above: The group.
        named: Whether the file has the layers' names.
        path: The group's, by the names here.
        leave_out: `leave_out(path, key, name)` says that a group is not to be looked into; keys and names come without
            the number that Keras adds.
    """
    import h5py

    found, listed = {}, "vars" not in above
    for key in above:
        if isinstance(check(above, key), h5py.Dataset):
            found[f"{path}{key}"] = above[key]
            continue
        inside = above[key]
        if key == "vars":
            found |= {f"{path}{i}": dataset(inside, i) for i in inside}
            continue
        name = key
        if listed and named:
            name = title_of(inside, key)
        if leave_out(path, *(re.sub(NUMBER, "", text) for text in (key, name))):
            continue
        below = path if key in LISTS and "vars" not in inside else f"{path}{name}/"
        more = walk(inside, named, below, leave_out)
        if both := found.keys() & more.keys():
            raise ValueError(f"it has two layers of one name: {', '.join(sorted(both))}")
        found |= more
    return found


def title_of(layer, key: str) -> str:
    """The name of a layer, or its class and number where it has none of its own."""
    title = layer["vars"].attrs.get("name", "") if "vars" in layer else ""
    title = " ".join(str(title).split())[:100]
    kind, number = re.fullmatch("(.*?)(?:_([0-9]+))?", key).groups()
    return title if title and re.sub(NUMBER, "", title) != kind else f"{kind}#{number or 0}"


def of_keras_2(file) -> dict:
    """The weights in an `.h5` as Keras 2 wrote it, and those of the optimizer, as `dense/kernel`."""
    inside, found = weights_of(file), {}
    layers = [group(inside, name) for name in listed(inside, "layer_names") if name in inside]
    if "top_level_model_weights" in inside:
        layers.append(group(inside, "top_level_model_weights"))
    for layer in layers:
        for name in listed(layer, "weight_names"):
            known = name.removesuffix(":0")
            known = known if known not in found else f"{layer.name.rpartition('/')[2]}/{known}"
            if known in found:
                raise ValueError(f"it has two weights of one name, {known!r:.200}")
            found[known] = dataset(layer, name)
    if "optimizer_weights" in file:
        optimizer = group(file, "optimizer_weights")
        found |= {
            f"optimizer/{name.removesuffix(':0')}": dataset(optimizer, name)
            for name in listed(optimizer, "weight_names")
        }
    return found


def listed(inside, attribute: str) -> list[str]:
    """A list of names; a long one is in several attributes instead, `layer_names0` and so on."""
    parts = [inside.attrs[attribute]] if attribute in inside.attrs else []
    numbered = itertools.takewhile(inside.attrs.__contains__, (f"{attribute}{i}" for i in itertools.count()))
    parts = parts or [inside.attrs[name] for name in numbered]
    return [name.decode() if isinstance(name, bytes) else str(name) for part in parts for name in part]


def check(above, name: str):
    """Give what is in a group, if it is in this file."""
    import h5py

    for place in name.split("/"):
        if not isinstance(above.get(place, getlink=True), h5py.HardLink):
            raise ValueError(f"{place!r:.200} is a link to another place, or not there")
        above = above[place]
    return above


def group(above, name: str):
    """Give a group in a group."""
    import h5py

    if not isinstance(found := check(above, name), h5py.Group):
        raise ValueError(f"{name!r:.200} is no group")
    return found


def dataset(above, name: str):
    """Give a dataset in a group."""
    import h5py

    if not isinstance(found := check(above, name), h5py.Dataset):
        raise ValueError(f"{name!r:.200} is no dataset")
    return found


def tensor(found) -> Tensor:
    """A dataset, if it has numbers and keeps them in this file."""
    if found.external or found.is_virtual:
        raise ValueError(f"{found.name!r:.200} keeps its numbers in another file")
    dtype, code = found.dtype, found.dtype
    if dtype == "V2":  # bfloat16, which HDF5 has no name for
        import ml_dtypes

        dtype = np.dtype(ml_dtypes.bfloat16)
    if dtype.kind not in "biufc" and code != "V2":
        raise ValueError(f"{found.name!r:.200} holds {found.dtype} where numbers should be")
    return Tensor(found.shape, dtype, functools.partial(numbers, found, dtype))


def numbers(found, dtype: np.dtype) -> np.ndarray:
    """Read a dataset."""
    array = np.empty(found.shape, found.dtype)
    found.read_direct(array) if array.size else None
    return array.view(dtype)


def write(path: str, tensors, metadata) -> None:
    """Write tensors as datasets of these names, a group for each part of a name, each read when it is its turn.

    Args:
        path: The file.
        tensors: By name, as `bridge.checkpoints.open` gives them.
        metadata: Texts by name, which become attributes of the file.
    """
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs.update(metadata)
        for name, one in tensors.items():
            array = one.read()
            file.create_dataset(name, data=array.view("V2") if one.dtype.kind == "V" else array)
