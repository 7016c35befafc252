"""WAV and FLAC files anywhere below a folder, cut into windows that do not overlap; several channels are averaged.

A window is read from where it begins, without what is before it. Whole recordings go to training, validation or the
held-out part; where a part is to be cut off one or two only, tenths of them do. What is left behind the last window is
not used.
"""

import struct
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
INTEGERS = ("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "ULAW", "ALAW")  # what is stored, by libsndfile's names
FEW = 3  # recordings to cut parts off; below that they are cut into tenths
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
    folder = Path(text)
    recordings, size_of_all = files.found(
        folder,
        listing=listing,
        size=size,
        rule=RULE,
        noun="recordings",
        files=lambda stretch: [stretch.path],
        among=rates,
        fewest=1,
    )
    few = len(recordings["training"]) < FEW and len(recordings) < len(files.PARTS)  # to cut a part off
    stretches = {part: tenths(some) if few else some for part, some in recordings.items()}
    parts = files.complete(stretches, wanted.seed)
    windows = [[window for stretch in some for window in cut(stretch, wanted.window)] for some in parts.values()]
    if not all(windows):
        raise ValueError(
            f"{text} cannot be used: for training, validation and judging there must be a recording each as long as a "
            f"window of {wanted.window} samples. Received windows: {', '.join(str(len(some)) for some in windows)}"
        )
    said = files.description(folder, parts.values(), "tenths of recordings" if few else "recordings")
    rate = parts["training"][0].rate
    return Source(
        *(
            Read(some, lambda stretch: (read(stretch, wanted.window),), fixed=True, keep=size_of_all <= wanted.keep)
            for some in windows
        ),
        f"{said}; {', '.join(f'{len(some)}' for some in windows)} windows of {wanted.window} samples at {rate} Hz",
    )


def listing(folder: Path, problems: list[str]) -> list[Stretch]:
    """Find the recordings below a folder."""
    import soundfile

    found, before = [], len(problems)
    for path in files.walk(folder, ENDINGS, problems):
        try:
            info = soundfile.info(path)
            if info.format not in FORMATS:
                raise ValueError(f"must be WAV or FLAC. Received: {info.format_info}")
            found.append(Stretch(path, 0, info.frames, info.samplerate))
        except Exception as error:
            problems.append(f"{path}: {error}")
    if not found and len(problems) == before:
        problems.append(f"{folder}: holds no recordings")
    return found


def tenths(stretches: list[Stretch]) -> list[Stretch]:
    """Cut each into ten of about the same length."""
    return [
        replace(one, start=i * one.stop // 10, stop=(i + 1) * one.stop // 10) for one in stretches for i in range(10)
    ]


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
        if file.format != "FLAC":
            check_length(stretch.path)
        if file.subtype in INTEGERS and file.format != "FLAC":  # of which none can be wrong
            file.seek(max(file.frames - 1, 0))
            decoded = file.tell()
        while len(block := file.read(BLOCK, dtype="float32")):
            decoded += len(block)
            if not np.abs(block).max() <= 1:  # of NaN neither is true
                raise ValueError(
                    f"samples must lie in [-1, 1]. Received: {np.abs(block).max()} at {decoded / file.samplerate:.1f} "
                    "seconds or before. Scale them, as with `sox --norm=-1 IN OUT`"
                )
        if decoded != file.frames or not decoded:
            raise ValueError(f"must have {file.frames} samples, one at least. Received: {decoded}")
    return 4 * stretch.stop


def check_length(path: Path) -> None:
    """Raise a ValueError if a WAV file ends before its samples do; libsndfile takes what is there for all of it.

    A chunk is its name, how many bytes (uint32) and those, filled up to an even number. 2^32 - 1 samples' bytes mean
    what the chunk ds64 says, after the file's own (EBU Tech 3306, https://tech.ebu.ch/docs/tech/tech3306.pdf).
    """
    there = path.stat().st_size
    with path.open("rb") as file:
        order = ">" if file.read(12)[:4] == b"RIFX" else "<"
        large = None
        while len(head := file.read(8)) == 8:
            name, count = struct.unpack(f"{order}4sI", head)
            if name == b"ds64":
                _, large = struct.unpack("<2Q", file.read(16))
                count -= 16
            if name == b"data":
                count = large if large is not None and count == 2**32 - 1 else count
                if file.tell() + count > there:
                    raise ValueError(
                        f"must have {count} bytes of samples, as its head says. Received: {there - file.tell()}. Get "
                        "it anew, or, if it is whole, write it anew, as with `sox --ignore-length IN OUT`"
                    )
                return
            file.seek(count + count % 2, 1)


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
