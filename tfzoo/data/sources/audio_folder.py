"""WAV and FLAC files anywhere below a folder, cut into windows that do not overlap; several channels are averaged.

A window is read from where it begins, without what is before it. Whole recordings go to training, validation or the
held-out part; if there are one or two only, tenths of them do. What is left behind the last window is not used.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tfzoo.data import Source, Wanted, files
from tfzoo.data.examples import Read

PATTERN = None
KINDS = {"audio": "a folder with WAV or FLAC files anywhere below it"}
RULE = "it must hold WAV or FLAC files of one sample rate"
ENDINGS = (".wav", ".flac")
FORMATS = ("WAV", "WAVEX", "RF64", "FLAC")  # libsndfile's names
FEW = 3  # recordings; below that they are cut into tenths
BLOCK = 2**18  # samples that are decoded at once to see whether a file is whole


@dataclass(frozen=True)
class Stretch:
    """Part of a recording, from sample `start` to before `stop`, of `rate` samples a second."""

    path: Path
    start: int
    stop: int
    rate: int


def open(text: str, wanted: Wanted) -> Source:
    """Open the folder as a `Source` of waveforms `(window,)` float32 in [-1, 1]."""
    source = files.source(
        Path(text),
        wanted,
        listing=listing,
        size=size,
        read=lambda stretch: (read(stretch, wanted.window),),
        rule=RULE,
        noun="recordings",
        files=lambda stretch: [stretch.path],
        among=rates,
    )
    parts = [source.training, source.validation, source.held_out]
    windows = [[window for stretch in part.items for window in cut(stretch, wanted.window)] for part in parts]
    if not all(windows):
        raise ValueError(
            f"{text} cannot be used: for training, validation and judging there must be a recording each as long as a "
            f"window of {wanted.window} samples. Received windows: {', '.join(str(len(some)) for some in windows)}"
        )
    rate = parts[0].items[0].rate
    return Source(
        *(Read(some, part.read, fixed=True, keep=part.keep) for some, part in zip(windows, parts, strict=True)),
        f"{source.description}; {', '.join(f'{len(some)}' for some in windows)} windows of {wanted.window} samples at "
        f"{rate} Hz",
    )


def listing(folder: Path, problems: list[str]) -> list[Stretch]:
    """Find the recordings below a folder; of one or two, their tenths."""
    import soundfile

    found = []
    for path in files.walk(folder, ENDINGS, problems):
        try:
            info = soundfile.info(path)
            if info.format not in FORMATS:
                raise ValueError(f"must be WAV or FLAC. Received: {info.format_info}")
            found.append(Stretch(path, 0, info.frames, info.samplerate))
        except Exception as error:
            problems.append(f"{path}: {error}")
    if len(found) >= FEW:
        return found
    return [replace(one, start=i * one.stop // 10, stop=(i + 1) * one.stop // 10) for one in found for i in range(10)]


def cut(stretch: Stretch, window: int) -> list[Stretch]:
    """Cut a stretch into windows."""
    starts = range(stretch.start, stretch.stop - window + 1, window)
    return [replace(stretch, start=start, stop=start + window) for start in starts]


def read(stretch: Stretch, window: int) -> np.ndarray:
    """Read a window, `(window,)` float32 in [-1, 1]; raises if the file has become shorter."""
    import soundfile

    samples, _ = soundfile.read(stretch.path, window, stretch.start, dtype="float32", always_2d=True)
    if len(samples) != window:
        raise ValueError(f"{stretch.path}: is shorter than it was")
    return samples.mean(1)


def size(stretch: Stretch) -> int:
    """Decode a recording to see whether that can be done, block by block; gives the bytes of its samples."""
    import soundfile

    decoded = 0
    with soundfile.SoundFile(stretch.path) as file:
        if file.format != "FLAC":  # plain numbers, of which none can be wrong: the end is enough
            file.seek(max(file.frames - 1, 0))
            decoded = file.tell()
        while block := len(file.read(BLOCK, dtype="float32")):
            decoded += block
        if decoded != file.frames or not decoded:
            raise ValueError(f"must have {file.frames} samples, one at least. Received: {decoded}")
    return 4 * (stretch.stop - stretch.start)


def rates(items: dict[str, list[Stretch]]) -> list[str]:
    """Name the recordings that have not the sample rate that most have."""
    stretches = [stretch for some in items.values() for stretch in some]
    there = [stretch.rate for stretch in stretches]
    common = max(set(there), key=lambda rate: (there.count(rate), rate), default=0)
    others = {(stretch.path, stretch.rate) for stretch in stretches if stretch.rate != common}
    return [
        f"{path}: has {rate} samples a second, most have {common}: convert it, as with `sox IN -r {common} OUT`"
        for path, rate in sorted(others)
    ]
