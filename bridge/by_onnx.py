"""The commands that go by ONNX: `bridge to-onnx`, and `bridge to-torch` of a SavedModel."""

from pathlib import Path

import numpy as np

from bridge import onnx
from bridge.files import writing
from bridge.folder import new_folder
from bridge.graph import BridgeError, flatten

PROGRAM = '''"""{name}, a SavedModel, by tf2onnx and onnx2torch: for inference alone.

BatchNorm is folded away and part of the weights are buffers, which do not train. Tensors have TensorFlow's axes.
"""

from pathlib import Path

INPUTS = {inputs}


def load(path=None):
    """Return the network; it needs onnx2torch."""
    import onnx2torch

    return onnx2torch.convert(str(path or Path(__file__).with_name("model.onnx"))).eval()
'''
SAID = (
    "by tf2onnx and onnx2torch, for inference alone: part of the weights do not train. A .keras file of the model "
    "becomes source that does"
)


def is_saved_model(source: str) -> bool:
    """Tell whether a source is the folder of a SavedModel."""
    return (Path(source) / "saved_model.pb").is_file()


def trusted(source: str, trust: bool) -> None:
    """Ask for trust: the graph of a SavedModel may read and write files when it is run."""
    if not trust:
        raise BridgeError(
            f"{source} is a program of TensorFlow and would be run: if you know who made it, pass --trust"
        )


def check(output: Path) -> None:
    """Refuse what is no new file of ONNX, before the work."""
    if output.suffix != ".onnx":
        raise BridgeError(f"{output}: the output is an .onnx file")
    if output.exists():
        raise BridgeError(f"{output} exists already: name a new file, or remove that one")
    onnx.check()


def write(proto, output: Path) -> None:
    """Write an ONNX model, whole or not at all."""
    if (size := proto.ByteSize()) >= onnx.LARGEST:
        raise BridgeError(f"{output}: the model has {size:,} bytes, and an .onnx file less than {onnx.LARGEST:,}")
    with writing(output) as side:
        side.write_bytes(proto.SerializeToString())


def of_keras(model) -> tuple:
    """Export a Keras model, and say by how much onnxruntime's outputs differ from its own."""
    from bridge import keras_reader, samples, walk

    proto = onnx.to_onnx(model)
    arrays = samples.inputs_of(model, keras_reader.read(model))
    return proto, onnx.apart(flat(walk.run(model, arrays)[0]), onnx.run(proto, arrays))


def of_torch(module, example_inputs: tuple, dynamic) -> tuple:
    """The same of a torch module."""
    import torch

    from bridge import inference

    proto = onnx.to_onnx(module, example_inputs, dynamic)
    with torch.no_grad(), inference.in_eval(module):
        wanted = torch.utils._pytree.tree_leaves(module(*example_inputs))  # in the order in which torch exports them
    arrays = [x.detach().cpu().numpy() for x in example_inputs]
    return proto, onnx.apart([x.numpy() for x in wanted], onnx.run(proto, arrays))


def of_saved_model(folder: str) -> tuple:
    """The same of a SavedModel; and its inputs, by name: shape, dtype and random numbers."""
    import tensorflow as tf

    signature = onnx.serving(folder)
    rng, inputs = np.random.default_rng(0), {}
    for name, spec in signature.structured_input_signature[1].items():
        shape = tuple(d or n for d, n in zip(spec.shape, (2, *[32] * 8), strict=False))
        value = rng.normal(size=shape) if spec.dtype.is_floating else np.ones(shape)
        inputs[name] = tuple(spec.shape), spec.dtype.name, value.astype(spec.dtype.as_numpy_dtype)
    proto = onnx.to_onnx(folder)
    try:
        found = signature(**{name: tf.constant(value) for name, (_, _, value) in inputs.items()})
    except tf.errors.OpError as e:
        raise BridgeError(f"{folder} does not take a random input of these sizes: {onnx.why(e)}") from e
    wanted = [np.asarray(found[name]) for name in sorted(found)]
    return proto, onnx.apart(wanted, onnx.run(proto, [value for _, _, value in inputs.values()])), inputs, wanted


def to_torch(source: str, output: Path) -> float:
    """Write a SavedModel as a folder of model.onnx and a model.py that loads it in torch.

    Returns:
        By how much the outputs differ on a random input, as a share of the largest.
    """
    import torch

    with new_folder(output) as side:
        proto, _, inputs, wanted = of_saved_model(source)
        module = onnx.onnx_to_torch(proto)
        with torch.no_grad():
            found = flat(module(*(torch.from_numpy(value) for _, _, value in inputs.values())))
        (side / "model.onnx").write_bytes(proto.SerializeToString())
        told = {name: (shape, dtype) for name, (shape, dtype, _) in inputs.items()}
        name = "".join(c if c.isalnum() or c in "_-. " else "_" for c in Path(source).name)
        (side / "model.py").write_text(PROGRAM.format(name=name, inputs=told), encoding="utf-8")
    return onnx.apart(wanted, found)


def flat(outputs) -> list[np.ndarray]:
    """Arrays of whatever a model returns."""
    return [np.asarray(x) for x in flatten(outputs)]
