"""Ask an exported model, in its folder or behind TensorFlow Serving, about pictures."""

import pathlib
import re
from collections.abc import Iterator
from typing import Annotated, Any

from typer import Argument, Option

RESULTS = pathlib.Path("predictions")
MANY = 1000  # numbers of an output, which get a file of their own


def run(
    model: Annotated[
        str, Argument(metavar="MODEL", help="models/unet, http://HOST:8501/v1/models/unet or grpc://HOST:8500/unet.")
    ],
    images: Annotated[list[pathlib.Path], Argument(metavar="IMAGE...", help="Picture files.")],
    output: Annotated[pathlib.Path, Option("--output", "-o", help="Folder of the results.")] = RESULTS,
    signature: Annotated[str, Option(help="One that takes files.")] = "serving_bytes",
    batch: Annotated[int, Option(min=1, help="Pictures in a request.")] = 8,
    timeout: Annotated[float, Option(min=0.001, help="Seconds that an answer may take.")] = 60.0,
    retries: Annotated[int, Option(min=0, max=4, help="Where the server is busy or away.")] = 3,
) -> int:
    """Run the command."""
    from bridge import _quiet

    _quiet.import_tensorflow()
    from apps import run_folder
    from tfzoo.export import client

    run_folder.check(output)
    files = [read(path) for path in checked(images)]
    with client.connect(model, timeout=timeout, retries=retries) as opened, run_folder.room(output):
        answers: list[dict[str, Any]] = []
        try:
            for some in ask(opened, signature, batch, images, files):
                answers += some
        finally:  # what was answered before a refusal, a lost server or Ctrl-C is kept
            for path, outputs in zip(images, answers, strict=False):
                if said := likeliest(outputs):
                    print(f"{path}: {said}")
            if answers:
                written = write(output, images[: len(answers)], answers)
                print(f"wrote {output / 'predictions.json'} of {len(answers)} picture(s), {written} file(s) beside it")
    return 0


def checked(images: list[pathlib.Path]) -> list[pathlib.Path]:
    """Give back the pictures if all can be read; raises a ValueError that lists the others."""
    from tfzoo.data.pictures import open_picture

    problems = []
    for path in images:
        try:
            open_picture(path).load()
        except Exception as error:  # Pillow's decoders raise anything on a broken file
            problems.append(f"{path}: {str(error) or type(error).__name__}")
    if problems:
        raise ValueError(
            "every IMAGE must be a picture, opaque, of 8 bits per channel. Received, of which none can be taken:\n  "
            + "\n  ".join(problems)
        )
    return images


def read(path: pathlib.Path) -> bytes:
    """Give a picture's file as it is sent: itself, or a PNG of what the model could not decode."""
    import io

    from PIL import Image

    from tfzoo.data.pictures import ORIENTATION, open_picture

    with Image.open(path) as picture:
        kind, turned = picture.format, picture.getexif().get(ORIENTATION, 1) != 1
    if kind == "JPEG" or (kind == "PNG" and not turned):
        return path.read_bytes()
    file = io.BytesIO()
    open_picture(path).convert("RGB").save(file, "PNG")
    return file.getvalue()


def ask(client, signature: str, batch: int, images: list[pathlib.Path], files: list[bytes]) -> Iterator[list[dict]]:
    """Send the files in batches, with progress.

    Args:
        client: A `tfzoo.export.client.Client`.
        signature: One with one input, of texts.
        batch: Files in a request; a model of a fixed batch gets that many, the last one again where some are missing.
        images: The files' names, for messages.
        files: Their contents.

    Yields:
        After each request, for each of its files the outputs by name, arrays without the batch.

    Raises:
        ValueError: There is no such signature, it takes no files, or a file is refused; names the file.
    """
    import numpy as np
    import tensorflow as tf
    from rich.console import Console
    from rich.progress import track

    if signature not in client.signatures:
        known = ", ".join(sorted(client.signatures)) or "none"
        raise ValueError(f"the model has no signature {signature!r}. Accepted: --signature, one of {known}.")
    inputs = client.signatures[signature].inputs
    if len(inputs) != 1 or next(iter(inputs.values())).dtype != tf.string.as_datatype_enum:
        taken = ", ".join(sorted(inputs))
        raise ValueError(f"the signature {signature} takes {taken}, no files. Accepted: one whose only input is texts.")
    name, info = next(iter(inputs.items()))
    fixed = info.tensor_shape.dim[0].size if info.tensor_shape.dim else -1
    batch = fixed if fixed > 0 else batch
    begins = range(0, len(files), batch)
    for begin in track(begins, "asking", console=Console(stderr=True), disable=len(begins) < 2):
        some = files[begin : begin + batch]
        padded = some + [some[-1]] * (batch - len(some)) if fixed > 0 else some
        try:
            made = client.ask(signature, {name: np.array(padded, object)})
        except ValueError as error:
            found = re.search(r"the file at place (\d+)", str(error))
            names = [images[begin + int(found[1])]] if found else images[begin : begin + len(some)]
            raise ValueError(f"{', '.join(map(str, names))}: {error}") from error
        yield [{key: value[i] if value.ndim else value for key, value in made.items()} for i in range(len(some))]


def likeliest(outputs: dict[str, Any], most: int = 5) -> str:
    """Give the likeliest classes of a picture in words, by its `probabilities` and, if they are there, `labels`.

    Args:
        outputs: Arrays by name, without the batch.
        most: How many classes at most; those below half a per mille are left out.

    Returns:
        Such as "cat 97.1%, dog 2.9%"; nothing for what no classifier gave.
    """
    import numpy as np

    shares = outputs.get("probabilities")
    if shares is None or shares.ndim != 1 or shares.dtype.kind != "f":
        return ""
    names = outputs.get("labels")
    if names is None or names.shape != shares.shape:
        names = [f"class {i}" for i in range(len(shares))]
    best = [i for i in np.argsort(-shares, kind="stable")[:most] if shares[i] >= 5e-4]
    return ", ".join(f"{text(names[i])} {shares[i]:.1%}" for i in best)


def text(value: Any) -> str:
    """Give a text that a server sent; what would move the terminal's cursor is replaced."""
    decoded = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return "".join(x if x.isprintable() else "\ufffd" for x in decoded)


def write(output: pathlib.Path, images: list[pathlib.Path], answers: list[dict[str, Any]]) -> int:
    """Write `predictions.json`, and each output that is a picture as a PNG, or with many numbers as a NumPy file.

    Args:
        output: The folder.
        images: The pictures that were asked about.
        answers: The outputs of each by name.

    Returns:
        How many files were written beside it.
    """
    import numpy as np

    from apps import run_folder
    from bridge.files import aside
    from tfzoo.export.signatures import unique

    found, written = [], 0
    stems = unique([safe(path.stem) for path in images])
    for path, stem, outputs in zip(images, stems, answers, strict=True):
        values: dict[str, Any] = {}
        for name, value in outputs.items():
            drawn = picture(value)
            if drawn is None and value.size <= MANY:
                values[name] = value.tolist() if value.dtype.kind != "O" else [text(x) for x in value.ravel()]
                continue
            values[name] = f"{safe(name)}/{stem}.{'npy' if drawn is None else 'png'}"
            with aside(output / values[name]) as side:
                drawn.save(side) if drawn else np.save(side, value, allow_pickle=False)
            written += 1
        found.append({"image": str(path), "outputs": values})
    run_folder.write_json(output / "predictions.json", {"predictions": found})
    return written


def safe(name: str) -> str:
    """Give a name that a file may have, wherever it came from."""
    return re.sub(r"[^\w-]", "_", name).encode()[:80].decode(errors="ignore") or "_"


def picture(value):
    """Draw an output, if it is a picture: `(H, W, 1 or 3)` in [0, 1], or `(H, W, classes)`, whose largest is shown.

    Args:
        value: An array without the batch.

    Returns:
        A Pillow image, or None.
    """
    import numpy as np
    from PIL import Image

    if value.ndim != 3 or value.dtype.kind != "f" or min(value.shape[:2]) < 2:
        return None
    if value.shape[-1] in (1, 3):
        if not (value >= -1e-6).all() or not (value <= 1 + 1e-6).all():  # logits and the like: numbers, not a picture
            return None
        pixels = np.rint(np.clip(value, 0, 1) * 255).astype(np.uint8)
        return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    drawn = Image.fromarray(value.argmax(-1).astype(np.uint8)).convert("P")
    hues = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
    hues[0] = 0
    drawn.putpalette(hues.tobytes())
    return drawn
