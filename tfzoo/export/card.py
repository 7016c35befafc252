"""The model card: what a version is, what it was measured to do, and how to ask it."""

import hashlib
import importlib.metadata
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

import keras
import tensorflow as tf

from tfzoo.export import session
from tfzoo.export.signatures import BYTES, DEFAULT

NAME = "model_card.md"
VALUES, DTYPES = {"string": '"text"', "bool": "False"}, {"string": "str", "bfloat16": "float32"}  # of NumPy and JSON
PACKAGES = ("tensorflow", "keras", "numpy")

CURL = """\
```sh
(printf '{{"signature_name": "{signature}", "inputs": {{"{input}": [{{"b64": "'; base64 -w0 picture.png
 printf '"}}]}}}}') | curl -s -d @- http://localhost:8501/v1/models/{name}:predict
```
"""
FILES = """\
```python
import base64, pathlib, requests

file = base64.b64encode(pathlib.Path("picture.png").read_bytes()).decode()
body = {{"signature_name": "{signature}", "inputs": {{"{input}": [{{"b64": file}}]{times}}}}}
answer = requests.post("http://localhost:8501/v1/models/{name}:predict", json=body, timeout=60)
print(answer.json()["outputs"])
```
"""
ARRAYS = """\
```python
import numpy as np, requests

inputs = {{{inputs}}}
body = {{"signature_name": "{signature}", "inputs": {{name: x.tolist() for name, x in inputs.items()}}}}
answer = requests.post("http://localhost:8501/v1/models/{name}:predict", json=body, timeout=60)
print(answer.json()["outputs"])
```
"""


def write(
    path: Path,
    name: str,
    version: int,
    networks: Mapping[str, keras.Model],
    differences: Mapping[str, float],
    changes: Mapping[str, float],
    notes: list[str],
    facts: Mapping[str, Mapping[str, object]],
) -> None:
    """Write the card into a version's folder, after everything else in it.

    Args:
        path: The folder, of a SavedModel.
        name: Of the model for the server.
        version: Its number.
        networks: By name; their parameters are counted.
        differences: From the Keras model, by signature.
        changes: From the model before its weights were rounded or folded, by signature; may be empty.
        notes: Sentences.
        facts: Sections by title, each of texts or numbers by name.
    """
    made = {
        "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        **{f"parameters of {key}": f"{network.count_params():,}" for key, network in networks.items()},
    }
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    digests = {str(file.relative_to(path)): digest(file) for file in sorted(path.rglob("*")) if file.is_file()}
    with session.load(path) as (signatures, _):
        asked = {key: (specs(s.inputs), specs(s.outputs)) for key, s in sorted(signatures.items())}
    lines = [f"# {plain(name)}, version {version}", "", *table(made), "", "## Signatures", ""]
    lines += ["| signature | inputs | outputs | difference from the Keras model |", "|---|---|---|---|"]
    lines += [
        f"| `{plain(key)}` | {cells(given)} | {cells(made)} | {differences[key]:.1e} |"
        for key, (given, made) in asked.items()
    ]
    lines += ["", "Differences are shares of the largest output; the batch and every other open axis is written as ?."]
    if changes:
        said = ", ".join(f"`{plain(key)}` {value:.1e}" for key, value in changes.items())
        lines += ["", f"From the model before its weights were rounded or folded: {said}."]
    lines += [line for note in notes for line in ("", plain(note))]
    for title, values in {**facts, "Versions": versions, "SHA-256 of the files": digests}.items():
        lines += ["", f"## {plain(title)}", "", *table(values)]
    lines += ["", "## Ask it", "", *request(name, asked)]
    (path / NAME).write_text("\n".join(lines) + "\n", encoding="utf-8")


def request(name: str, asked: Mapping[str, tuple[dict, dict]]) -> list[str]:
    """Write requests that can be pasted, in curl and in Python."""
    signature = BYTES if BYTES in asked else DEFAULT
    given, name = asked[signature][0], urllib.parse.quote(name, safe="")
    if signature == BYTES:
        ((input, (_, (batch,))),) = given.items()
        fields = {"signature": signature, "input": input, "name": name, "times": f" * {batch}" if batch else ""}
        # a shell's one file is a request only where any number is
        return [*([] if batch else [CURL.format(**fields)]), FILES.format(**fields)]
    shapes = {key: tuple(1 if n is None else n for n in shape) for key, (_, shape) in given.items()}
    arrays = ", ".join(
        f'"{key}": np.full({shapes[key]}, {VALUES.get(kind, "0")}, "{DTYPES.get(kind, kind)}")'
        for key, (kind, _) in given.items()
    )
    return [ARRAYS.format(signature=signature, name=name, inputs=arrays)]


def specs(infos) -> dict[str, tuple[str, list[int | None]]]:
    """Give dtype and shape by name, of a signature's inputs or outputs."""
    return {
        key: (tf.as_dtype(info.dtype).name, [None if d.size < 0 else d.size for d in info.tensor_shape.dim])
        for key, info in sorted(infos.items())
    }


def cells(found: dict[str, tuple[str, list[int | None]]]) -> str:
    """Write inputs or outputs for a cell of a table."""
    return "<br>".join(
        f"`{plain(key)}` {kind} ({', '.join('?' if n is None else str(n) for n in shape)})"
        for key, (kind, shape) in found.items()
    )


def table(values: Mapping[str, object]) -> list[str]:
    """Write names and values as a table's lines."""
    return ["| | |", "|---|---|", *(f"| {plain(key)} | {plain(value)} |" for key, value in values.items())]


def plain(value: object) -> str:
    """Write a text from elsewhere so that it stays in its cell and is no markup."""
    text = f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())[:500]
    return "".join(f"\\{c}" if c in "\\`*[]<>|#" else c for c in text)


def digest(file: Path) -> str:
    """Give the SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
