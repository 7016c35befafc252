"""`tfds:NAME` or `tfds:NAME/CONFIG`: the data sets of tensorflow_datasets (the extra `tfds`), by random access.

They lie in `$TFDS_DATA_DIR` or `~/tensorflow_datasets`, and are downloaded when they are first asked for. What is new
is prepared as ArrayRecord; what is there as TFRecord is read through an index, `tfzoo.data.records`. Names with a
namespace, such as `huggingface:`, are refused, as tensorflow_datasets would download code for them.
"""

import contextlib
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from tfzoo.data import Source, Wanted, image_folder
from tfzoo.data.examples import Read
from tfzoo.data.lock import alone
from tfzoo.data.records import Records
from tfzoo.data.split import cut

PATTERN = "tfds:.*"
KINDS = {kind: "tfds:NAME or tfds:NAME/CONFIG (downloaded)" for kind in ("classes", "images")} | {
    "masks": "tfds:NAME of one with a segmentation_mask, such as tfds:oxford_iiit_pet,foreground=1 (downloaded)"
}
NAME = re.compile(r"tfds:([a-z]\w*(?:/[\w.+-]+)?(?::\d+\.\d+\.\d+)?)((?:,foreground=\d+(?:\+\d+)*|,first=\d+)*)")
SHARE = 0.1  # of the training split, for validation, and as many held out, where the set has no such split
SPLITS = {"training": "train", "validation": "validation", "held_out": "test"}
LOOKED_AT = 16  # examples: their size is taken for that of all, and their labels' or masks' values are checked at once


def open(text: str, wanted: Wanted) -> Source:
    """Open the set as a `Source`: `train`, `validation` and `test`, or what is missing of them cut off `train`."""
    name, options = parse(text, wanted.kind)
    builder = prepared(name)
    raw = {part: decoded(builder, split) for part, split in SPLITS.items() if split in builder.info.splits}
    if "training" not in raw:
        raise ValueError(f"{text} has no split train. It has: {', '.join(builder.info.splits)}. Give another --data.")
    read, classes = reader(text, builder.info, wanted, options)
    keep = bytes_of(raw["training"]) * sum(map(len, raw.values())) <= wanted.keep
    parts = {part: Read(Chosen(some), read, keep=keep) for part, some in raw.items()}
    if wanted.kind == "classes" and "held_out" in parts and parts["held_out"][0][1] < 0:
        del parts["held_out"]  # its labels are secret
    for salt, part in enumerate(("held_out", "validation")):
        if part not in parts:  # without labels, as those of all examples are known only when all are decoded
            items = parts["training"].items
            rest, off = cut(len(items), SHARE, [wanted.seed, salt])
            parts["training"], parts[part] = (Read(items.choose(rows), read, keep=keep) for rows in (rest, off))
    parts = [parts[part] for part in ("training", "validation", "held_out")]
    if wanted.kind == "classes":
        parts = [replace(part, read=known(read, text, len(classes))) for part in parts]
        for part in parts:
            for i in range(min(LOOKED_AT, len(part))):
                part[i]
    counts = [len(part) for part in parts]
    description = f"{text}: {counts[0]} examples to train on, {counts[1]} for validation, {counts[2]} held out"
    if wanted.kind == "masks":
        image_folder.check_shape(wanted.image_shape)
        for i in range(min(LOOKED_AT, counts[0])):
            parts[0][i][0].read(wanted.classes)
        return image_folder.windows([First(part) for part in parts], wanted, description)
    return Source(*parts, description, classes)


def parse(text: str, kind: str) -> tuple[str, dict[str, list[int]]]:
    """Read `tfds:NAME,foreground=1+2,first=0`: the name, and what is said of masks by key."""
    found = NAME.fullmatch(text)
    if not found or (found[2] and kind != "masks"):
        more = "; ,foreground=1 or ,foreground=1+3: the values that are foreground; ,first=1: the value of class 0"
        raise ValueError(f"--data {text} cannot be read. Accepted: {KINDS[kind]}{more if kind == 'masks' else ''}.")
    pairs = (pair.split("=") for pair in found[2].split(",")[1:])
    return found[1], {key: [int(n) for n in values.split("+")] for key, values in pairs}


def prepared(name: str):
    """Find the set, and download it if it is not there; raises a ValueError if that cannot be done."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(f"tfds:{name} needs the extra tfds: pip install 'tfzoo[tfds]'. ({error})") from error
    folder = os.environ.get("TFDS_DATA_DIR") or os.path.expanduser("~/tensorflow_datasets")
    try:
        builder = tfds.builder(name, data_dir=folder)
    except tfds.core.DatasetNotFoundError as error:
        close = re.search(r"Did you mean: .* -> (\w+)", str(error))
        raise ValueError(
            f"tensorflow_datasets knows no {name}, and there is none in {folder}."
            + (f" Did you mean tfds:{close[1]}?" if close else "")
            + " All names: https://www.tensorflow.org/datasets/catalog/overview"
        ) from error
    except Exception as error:
        raise ValueError(f"tfds:{name} cannot be opened: {error}") from error
    if not builder.is_prepared():
        try:
            # Workers have Python's random numbers in common, of which tfds makes the names of its temporary folders.
            with alone(folder), few_retries():
                builder = tfds.builder(name, data_dir=folder)  # another worker may have prepared it meanwhile
                if not builder.is_prepared():
                    builder.download_and_prepare(file_format="array_record")
        except Exception as error:  # of the network, of a disk, of a package that the set needs: any
            reason = re.sub(r"\s+", " ", str(error))[:500] or type(error).__name__
            raise ValueError(
                f"tfds:{name} is not in {folder} and cannot be downloaded: {reason}\nWhere there is a network, run\n"
                f"  tfds build {name} --file_format=array_record --data_dir=FOLDER\nand copy FOLDER/{builder.name} to "
                f"{folder}/{builder.name}, or give another --data. TFDS_DATA_DIR names another folder than {folder}."
            ) from error
    return builder


@contextlib.contextmanager
def few_retries():
    """Let a download be tried 5 times: tfds' 11 take more than three minutes to find that there is no network."""
    from tensorflow_datasets.core.download import downloader

    before, said = downloader.MAX_RETRIES, logging.getLogger("urllib3.connectionpool")
    downloader.MAX_RETRIES = 4
    level = said.level
    said.setLevel(logging.ERROR)  # what is said of every try
    try:
        yield
    finally:
        downloader.MAX_RETRIES = before
        said.setLevel(level)


def decoded(builder, split: str) -> Sequence:
    """Give the examples of a split by number, as dictionaries of NumPy arrays."""
    info = builder.info.splits[split]
    if builder.info.file_format.value != "tfrecord":
        try:
            return builder.as_data_source(split)
        except (NotImplementedError, ImportError) as error:
            raise ValueError(f"tfds:{builder.name} cannot be read by number: {error}") from error
    records = Records(info.filepaths, info.shard_lengths)
    return Read(range(len(records)), lambda i: builder.info.features.deserialize_example_np(records[i]))


def known(read, text: str, classes: int):
    """Refuse an example whose label is none of the classes, such as -1 where it is secret."""

    def checked(example: dict[str, Any]) -> tuple[np.ndarray, np.int64]:
        image, label = read(example)
        if not 0 <= label < classes:
            raise ValueError(
                f"{text}: labels must be 0 to {classes - 1}, the numbers of its {classes} classes. Received: {label}. "
                "Give another --data."
            )
        return image, label

    return checked


def bytes_of(examples: Sequence) -> float:
    """Estimate the bytes of an example in memory by the first ones."""
    some = [examples[i] for i in range(min(LOOKED_AT, len(examples)))]
    return sum(np.asarray(part).nbytes for example in some for part in example.values()) / max(len(some), 1)


class Chosen(Sequence):
    """Some of a collection's examples."""

    def __init__(self, examples: Sequence, rows: np.ndarray | None = None):
        self.examples, self.rows = examples, np.arange(len(examples)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int):
        return self.examples[int(self.rows[i])]

    def choose(self, rows: np.ndarray) -> "Chosen":
        """Give some of these."""
        return Chosen(self.examples, self.rows[rows])


class First(Sequence):
    """The first part of every example."""

    def __init__(self, examples: Sequence):
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, i: int):
        return self.examples[i][0]


@dataclass(frozen=True)
class Pair:
    """A picture `(H, W, C)` and a mask `(H, W)`, uint8."""

    image: np.ndarray
    mask: np.ndarray

    def read(self, classes: int) -> tuple[Image.Image, Image.Image]:
        """Give both as pictures."""
        image = self.image[..., 0] if self.image.shape[-1] == 1 else self.image
        return Image.fromarray(image).convert("RGB"), image_folder.as_mask(self.mask, classes)


def reader(text: str, info, wanted: Wanted, options: dict[str, list[int]]):
    """Choose an example's features; gives a function from tfds' dictionary to the example, and the classes' names."""
    import tensorflow_datasets as tfds

    features = info.features

    def only(kind: type) -> str:
        there = [
            name
            for name, feature in sorted(features.items())
            if isinstance(feature, kind) and name != "segmentation_mask"
        ]
        chosen = [name for name in there if name in (info.supervised_keys or ())] or there
        if len(chosen) != 1:
            raise ValueError(
                f"{text} must have one feature {kind.__name__}. Received: {', '.join(there) or 'none'}, of "
                f"{', '.join(sorted(features))}. Give another --data."
            )
        return chosen[0]

    image = only(tfds.features.Image)
    if features[image].np_dtype != np.uint8 or features[image].shape[-1] not in (1, 3):
        raise ValueError(
            f"{text}: pictures must be uint8 with 1 or 3 channels. Received: {features[image]}. Give another --data."
        )
    if wanted.kind == "images":
        return lambda example: (example[image],), None
    if wanted.kind == "classes":
        label = only(tfds.features.ClassLabel)
        return lambda example: (example[image], np.int64(example[label])), tuple(features[label].names)
    if "segmentation_mask" not in features:
        raise ValueError(
            f"{text} has no feature segmentation_mask. It has: {', '.join(sorted(features))}. Give another --data."
        )

    def pair(example: dict[str, Any]) -> tuple[Pair]:
        mask = np.squeeze(example["segmentation_mask"], -1)
        if "foreground" in options:
            mask = np.isin(mask, options["foreground"]).astype(np.uint8)
        first = options.get("first", [0])[0]
        if mask.min() < first:
            raise ValueError(f"{text}: mask values must be {first} or more. Received: {mask.min()}")
        return (Pair(example[image], mask - np.uint8(first)),)

    return pair, None
