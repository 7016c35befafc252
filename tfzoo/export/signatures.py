"""Signatures: the functions of an exported model, by the names under which they are asked for.

A family says what it serves by a function `signatures(networks)` in its file; any other model serves its inputs and
outputs by their names. Whatever the family, a signature whose one input is pictures gets a companion that takes PNG and
JPEG files.
"""

import inspect
import io
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.export.export_utils import get_input_signature
from PIL import Image

from bridge.models import SIZES, functional, input_names, is_functional
from tfzoo.export.pictures import Pictures

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.]*")
DEFAULT, BYTES = "serving_default", "serving_bytes"  # the first is what TensorFlow Serving takes when none is named


@dataclass(frozen=True)
class Signature:
    """A function that is served.

    Attributes:
        function: Takes tensors by the names of `inputs` and gives a dictionary of tensors. Its first axis is the batch.
        inputs: The shape, dtype and name of each; open axes are None.
        examples: From a size for the open axes to two examples of each input by name, for the comparison and the
            warm-up; None draws them at random.
    """

    function: Callable[..., Mapping[str, tf.Tensor]]
    inputs: tuple[tf.TensorSpec, ...]
    examples: Callable[[int], dict[str, np.ndarray]] | None = None


def of_model(model: keras.Model) -> dict[str, Signature]:
    """Give the signature of any model: its inputs and outputs by their names.

    Args:
        model: A functional or Sequential model, or one with a `call` of its own that has been called.

    Raises:
        ValueError: Lists every input that a request cannot hold; or the model has not been called yet.
    """
    if not is_functional(model):
        return {DEFAULT: of_call(model)}
    graph = functional(model)
    structure = graph._inputs_struct
    outputs = keys(graph._outputs_struct) or unique(graph.output_names)
    inputs = dict(zip(keys(structure) or unique(input_names(model)), graph.inputs, strict=True))
    wrong = [f"{name}: sparse" for name, x in inputs.items() if getattr(x, "sparse", False)]
    wrong += [f"{name}: ragged" for name, x in inputs.items() if getattr(x, "ragged", False)]
    wrong += [f"{name}: shape {x.shape}, whose first axis is no open batch" for name, x in inputs.items() if fixed(x)]
    if wrong:
        raise ValueError(
            f"{model.name} has inputs that no request can hold. Accepted: dense tensors whose first axis is the batch. "
            "Received:\n  " + "\n  ".join(wrong)
        )

    def serve(**tensors):
        given = keras.tree.pack_sequence_as(structure, [tensors[name] for name in inputs])
        return dict(zip(outputs, keras.tree.flatten(model(given, training=False)), strict=True))

    return {DEFAULT: Signature(serve, tuple(tf.TensorSpec(x.shape, x.dtype, name) for name, x in inputs.items()))}


def keys(structure) -> list[str]:
    """Give names of the tensors of a dictionary, by its keys; nothing of another structure."""
    if not isinstance(structure, dict):
        return []
    return ["_".join(map(str, path)) for path, _ in keras.tree.flatten_with_path(structure)]


def of_call(model: keras.Model) -> Signature:
    """Give the signature of a `call` of one's own: what it was first called with, by the arguments' names."""
    structure = get_input_signature(model)
    arguments = [name for name in inspect.signature(model.call).parameters if name not in ("training", "mask")]
    if len(arguments) != len(structure):
        raise ValueError(
            f"the call of {model.name} takes {', '.join(arguments)}, and Keras has noted {len(structure)} of them as "
            "tensors. Pass signatures=, a function that says what is served, or call the model with tensors for all."
        )
    specs = {
        "_".join([arguments[first], *map(str, rest)]): x
        for (first, *rest), x in keras.tree.flatten_with_path(structure)
    }

    def serve(**tensors):
        given = keras.tree.pack_sequence_as(structure, [tensors[name] for name in specs])
        found = {"_".join(map(str, path)): x for path, x in keras.tree.flatten_with_path(model(*given))}
        return {name or "output": x for name, x in found.items()}

    return Signature(serve, tuple(tf.TensorSpec(x.shape, x.dtype, name) for name, x in specs.items()))


def in_float32(signature: Signature) -> Signature:
    """Give a signature whose outputs of 16 bits, as mixed precision makes them, are float32: JSON has no other."""

    def function(**inputs):
        outputs = signature.function(**inputs)
        return {k: tf.cast(x, tf.float32) if x.dtype in (tf.bfloat16, tf.float16) else x for k, x in outputs.items()}

    return replace(signature, function=function)


def check(served: Mapping[str, Signature]) -> None:
    """Refuse what cannot be served; raises a ValueError that lists it."""
    wrong = [] if DEFAULT in served else [f"there is no {DEFAULT}, which a request that names none gets"]
    for name, signature in served.items():
        names = [x.name for x in signature.inputs]
        wrong += [f"{name}: {x!r} is no name of an input" for x in names if not NAME.fullmatch(x) or x == "self"]
        if len({x.lower() for x in names}) < len(names):
            wrong.append(f"{name}: {', '.join(names)} do not differ but in their case")
    if wrong:
        raise ValueError(
            "a signature's inputs have names of letters, digits, _ and . that begin with a letter, such as "
            'keras.Input(..., name="image"). Received:\n  ' + "\n  ".join(wrong)
        )


def fixed(x: keras.KerasTensor) -> bool:
    """Tell whether a tensor has no open batch."""
    return not x.shape or x.shape[0] is not None


def unique(names: list[str]) -> list[str]:
    """Give names that differ: a layer that is called twice gives two outputs of one name."""
    seen, found = Counter(), []
    for name in names:
        found.append(f"{name}_{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found if len(set(found)) == len(found) else unique(found)


def with_pictures(served: dict[str, Signature], pictures: Pictures) -> tuple[dict[str, Signature], list[str]]:
    """Add the signature that takes files, if the one that is served by default takes pictures and nothing else.

    Args:
        served: What is served so far.
        pictures: Their size where the model takes any; its channels are the model's.

    Returns:
        What is served, and why there is no such signature where there is none.

    Raises:
        ValueError: The model has another size than the one that was asked for.
    """
    plain = served[DEFAULT]
    shape = plain.inputs[0].shape
    if BYTES in served:
        return served, []
    if len(plain.inputs) != 1 or shape.rank != 4 or shape[3] not in (1, 3) or not plain.inputs[0].dtype.is_floating:
        taken = ", ".join(f"{x.name}: {x.dtype.name} {tuple(x.shape)}" for x in plain.inputs)
        return served, [
            f"There is no signature {BYTES}: it needs one input of pictures, floats of shape (B, H, W, 1 or 3); the "
            f"model takes {taken}."
        ]
    own = tuple(shape[1:3])
    if pictures.size and any(n not in (None, size) for n, size in zip(own, pictures.size, strict=True)):
        raise ValueError(f"the model takes pictures of {own}. Received: size={pictures.size}")
    size = pictures.size or (own if None not in own else None)
    pictures = replace(pictures, size=size, channels=shape[3])
    image, dtype = plain.inputs[0].name, plain.inputs[0].dtype
    name = f"{image}_bytes"

    def serve(**inputs):
        return plain.function(**{image: tf.cast(pictures.decode(inputs[name]), dtype)})

    def examples(n: int) -> dict[str, np.ndarray]:
        sizes = [(61, 83), (120, 90)] if size else [(n, n)] * 2  # of a fixed size, others that are brought to it
        files = [encoded(h, w, *kind) for (h, w), kind in zip(sizes, (("RGB", "PNG"), ("L", "JPEG")), strict=True)]
        return {name: np.array(files, object)}

    return {**served, BYTES: Signature(serve, (tf.TensorSpec([None], tf.string, name),), examples)}, []


def encoded(height: int, width: int, mode: str, kind: str) -> bytes:
    """Draw a picture with a little of everything and give its file."""
    rows, columns = np.mgrid[:height, :width]
    waves = np.sin(np.stack([rows, columns, rows + columns], -1) / 7)
    noise = np.random.default_rng(0).normal(0, 20, waves.shape)
    pixels = np.clip(waves * 100 + 128 + noise, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()


def with_batch(signature: Signature, batch: int | None) -> Signature:
    """Give a signature whose batch is fixed; None leaves it open."""
    if batch is None:
        return signature
    specs = tuple(tf.TensorSpec([batch, *x.shape[1:]], x.dtype, x.name) for x in signature.inputs)
    return replace(signature, inputs=specs)


def example(name: str, signature: Signature) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Give inputs of a signature and what its function makes of them, not yet exported.

    Args:
        name: The signature's.
        signature: Open sizes are tried as `bridge.verification` does, the first that its function takes.

    Returns:
        Inputs and outputs by name, two examples each, or as many as the batch has.

    Raises:
        ValueError: It takes none of the sizes, or its outputs are not finite.
    """
    batch, open_axes = signature.inputs[0].shape[0], any(None in x.shape[1:] for x in signature.inputs)
    make = signature.examples or (lambda size: drawn(signature, size))
    for size in SIZES if open_axes or signature.examples else (1,):
        inputs = {k: x if batch is None else np.resize(x, [batch, *x.shape[1:]]) for k, x in make(size).items()}
        try:
            outputs = evaluate(signature, inputs)
        except (ValueError, tf.errors.OpError) as error:
            refusal = error
            continue
        return inputs, finite(name, outputs)
    said = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(refusal)).split())[:500]
    if not open_axes:
        raise ValueError(f"{name} does not take what its inputs say. It said: {said}")
    raise ValueError(
        f"{name} takes none of the sizes {tuple(SIZES)} in its open axes. The last try said: {said}. "
        "Export a model of fixed sizes, or name its pictures' size with --size."
    )


def evaluate(signature: Signature, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a signature's function before it is exported, as a graph: in 16 bits that rounds elsewhere than eagerly."""
    outputs = tf.function(signature.function, autograph=False)(**{k: tf.constant(x) for k, x in inputs.items()})
    return {name: np.asarray(value) for name, value in outputs.items()}


def drawn(signature: Signature, size: int) -> dict[str, np.ndarray]:
    """Draw random inputs: floats in [0, 1), whole numbers 0 and 1, texts of digits."""
    rng, inputs = np.random.default_rng(0), {}
    for spec in signature.inputs:
        shape = [2, *(n or size for n in spec.shape[1:])]
        values: Any = rng.random(shape)
        if spec.dtype == tf.string:
            values = np.array([str(n).encode() for n in range(values.size)], object).reshape(shape)
        elif not spec.dtype.is_floating:
            values = (values < 0.5).astype(spec.dtype.as_numpy_dtype)
        inputs[spec.name] = values if spec.dtype == tf.string else values.astype(spec.dtype.as_numpy_dtype)
    return inputs


def finite(name: str, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Give back outputs of which every number is finite; raises a ValueError that names the others."""
    wrong = [k for k, x in outputs.items() if x.dtype.kind in "fc" and not np.isfinite(x).all()]
    if wrong:
        raise ValueError(
            f"a model is exported if its outputs are finite. Received: {name}, whose output {', '.join(wrong)} is not. "
            "Export another, or train again with a lower --learning-rate."
        )
    return outputs
