"""Convert one torch module to Keras by one tool and write, as JSON, what came of it.

    PYTHON benchmarks/_peer.py TOOL MODULE FOLDER

PYTHON has the tool; benchmarks/peers_to_keras.py makes such an environment for each. FOLDER gets `result.json`, the
converted model in the format of the tool's Keras, and `arrays.npz`: an input and what torch makes of it.
"""

import contextlib
import io
import json
import os
import re
import resource
import sys
import time
import warnings
from importlib import metadata
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from _modules import MODULES, SMALL, living  # noqa: E402  first: it finds `bridge` and its conftest
from conftest import relative, to_last  # noqa: E402
from torch import nn  # noqa: E402

# A tool that takes ONNX gets each of torch's exports until one gives torch's values. The first leaves most to train: in
# the others BatchNorm is part of the convolutions' weights.
EXPORTS = {
    "TorchScript, PRESERVE": {
        "dynamo": False,
        "training": torch.onnx.TrainingMode.PRESERVE,
        "do_constant_folding": False,
    },
    "TorchScript": {"dynamo": False},
    "dynamo": {"dynamo": True},
}
RIGHT = 1e-3
MEMORY = 18  # GiB that a tool may take; `bridge.verify` takes 11 for vit_b_16
PACKAGES = ("tensorflow", "keras", "tf_keras", "torch", "onnx")


def bridge_(module, x, folder):
    import bridge

    return bridge.to_keras(module, (x,))


def nobuco(module, x, folder):
    """As its README has it, channels last on both sides; what is no picture keeps its order."""
    from nobuco import ChannelOrder, pytorch_to_keras

    order = ChannelOrder.TENSORFLOW if x.ndim == 4 else ChannelOrder.PYTORCH
    with contextlib.redirect_stdout(io.StringIO()):
        return pytorch_to_keras(module, args=[x], inputs_channel_order=order, outputs_channel_order=order)


def onnx(module, x, folder, export: str) -> str:
    """Export a module in one of the ways of EXPORTS."""
    file = str(folder / "module.onnx")
    with contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(module, (x,), file, input_names=["x"], output_names=["y"], **EXPORTS[export])
    return file


def onnx2tf(module, x, folder, export):
    import onnx2tf as tool

    kept = {} if x.ndim == 4 else {"keep_shape_absolutely_input_names": ["x"]}
    return tool.convert(
        input_onnx_file_path=onnx(module, x, folder, export),
        output_folder_path=str(folder / "onnx2tf"),
        tflite_backend="tf_converter",  # the other one gives no Keras model
        disable_model_save=True,
        non_verbose=True,
        verbosity="error",
        **kept,
    )


def onnx2keras(module, x, folder, export):
    import onnx as format_
    from onnx2keras import onnx_to_keras

    model = format_.load(onnx(module, x, folder, export))
    return onnx_to_keras(model, ["x"], verbose=False, change_ordering=x.ndim == 4)


def pytorch2keras(module, x, folder):
    from pytorch2keras import pytorch_to_keras

    return pytorch_to_keras(module, x, change_ordering=x.ndim == 4)


TOOLS = {
    "bridge": bridge_,
    "nobuco": nobuco,
    "onnx2tf": onnx2tf,
    "onnx2keras": onnx2keras,
    "pytorch2keras": pytorch2keras,
}
OVER_ONNX = ("onnx2tf", "onnx2keras")


def distance(have, want) -> float:
    """The largest relative difference; a tool may give pictures in either order of the axes."""
    have = np.asarray(have)
    fitting = [w for w in (to_last(want), want) if w.shape == have.shape]
    if not fitting:
        raise ValueError(f"the result is {have.shape}, torch's {want.shape}")
    return min(float(relative(have, w)) for w in fitting)


def trained(model, x) -> int:
    """How many numbers of the trainable weights a gradient reaches in training mode."""
    import tensorflow as tf

    weights = [w if callable(w.value) else w.value for w in model.trainable_weights]  # Keras 2's are TensorFlow's own
    with tf.GradientTape() as tape:
        y = model(x, training=True)
        loss = tf.reduce_sum(y * tf.random.stateless_normal(tf.shape(y), (0, 1)))
    return sum(
        int(np.prod(w.shape)) for w, g in zip(weights, tape.gradient(loss, weights), strict=True) if g is not None
    )


def transposes(model, x) -> int:
    """How many Transpose operators TensorFlow's graph of a forward pass has."""
    import tensorflow as tf

    graph = tf.function(lambda x: model(x, training=False)).get_concrete_function(tf.TensorSpec(x.shape, "float32"))
    definition = graph.graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    return sum(node.op == "Transpose" for node in nodes)


def layers(model, kind: str) -> int:
    """How many layers there are whose class has such a name; a Dropout with a rate of 0 is none."""
    found = (y for y in model._flatten_layers(include_self=False) if kind in type(y).__name__)
    return sum(getattr(y, "rate", 1) > 0 for y in found)


def proof(model, module, x) -> dict:
    """The verdict of `bridge.verify`; it takes models of Keras 3."""
    import keras

    import bridge

    if not isinstance(model, keras.Model) or keras.__version__ < "3":
        return {"passed": None}
    try:
        report = bridge.verify(model, module, [x])
    except bridge.BridgeError as e:
        return {"passed": None, "reason": last_line(e)}
    return {"passed": report.passed, "failures": [sentence for _, sentence in report.failures]}


def save(model, folder) -> None:
    """In each format that the model's Keras has and that it can be written in; under its name when it is whole.

    Of a TFOpLambda the constants are numbers in a JSON text: large networks take minutes and many times their size.
    """
    for suffix in (".keras", ".h5"):
        with contextlib.suppress(Exception):
            model.save(str(folder / f"part{suffix}"))
            (folder / f"part{suffix}").rename(folder / f"model{suffix}")


def converted(tool: str, module, x, want, folder: Path) -> tuple:
    """The model of a tool, with the seconds and the difference of the first way that has torch's values.

    Else it is the first that has any.
    """
    convert, found, errors = TOOLS[tool], [], []
    for export in EXPORTS if tool in OVER_ONNX else (None,):
        arguments = (folder, export) if export else (folder,)
        try:
            convert(*living(*SMALL), *arguments)  # what it does but once is not timed
            start = time.perf_counter()
            model = convert(module, x, *arguments)
            seconds = time.perf_counter() - start
            difference = distance(model(to_last(x.numpy()), training=False), want)
        except (Exception, SystemExit) as e:  # onnx2tf ends the process where it cannot go on
            errors.append(e)
            continue
        found.append((model, {"seconds": seconds, "float32": difference, "export": export}))
        if difference < RIGHT:
            return found[-1]
    if not found:
        raise errors[0]
    return found[0]


def measure(tool: str, name: str, folder: Path) -> tuple:
    """The figures of one conversion, and the model."""
    module, x = living(*MODULES[name])
    with torch.no_grad():
        want = module(x).numpy()
    if np.abs(want[0] - want[1]).max() < 1e-3 * np.abs(want).max():
        raise AssertionError("the output hardly depends on the input")
    last = to_last(x.numpy())
    np.savez(folder / "arrays.npz", x=last, y=want)
    model, first = converted(tool, module, x, want, folder)
    result = first | {
        "kind": type(model).__module__.partition(".")[0],
        "trainable": sum(int(np.prod(w.shape)) for w in model.trainable_weights),
        "parameters": sum(p.numel() for p in module.parameters()),
        "norms": [layers(model, "BatchNorm"), count(module, nn.modules.batchnorm._BatchNorm)],
        "dropouts": [layers(model, "Dropout"), dropouts(module)],
        "transposes": transposes(model, last),
    }
    result["verify"] = proof(model, module, last)
    before = model.get_weights()  # the next one changes the statistics
    try:
        result["trained"] = trained(model, last)
    except Exception as e:
        result["trained"], result["untrained"] = 0, last_line(e)
    model.set_weights(before)
    return result, model


def count(module, kind) -> int:
    """How many submodules are of a kind."""
    return sum(isinstance(m, kind) for m in module.modules())


def dropouts(module) -> int:
    """How many submodules drop something out in training mode."""
    rates = [m.p for m in module.modules() if isinstance(m, nn.modules.dropout._DropoutNd)]
    rates += [m.dropout for m in module.modules() if isinstance(m, nn.MultiheadAttention)]
    return sum(rate > 0 for rate in rates)


def last_line(error: BaseException) -> str:
    """What an error says at its end, on one line that fits a table and names no folder of this machine.

    Keras appends the arguments of the call, a bullet each.
    """
    lines = map(str.strip, str(error).splitlines())
    text = [line for line in lines if line and line[0] != "•" and not line.startswith("Arguments received")] or [""]
    return f"{type(error).__name__}: {re.sub(r' [(]/.*[)]$', '', text[-1])}"[:300]


def versions(tool: str) -> dict[str, str]:
    """What this environment has."""
    found = {}
    for package in (*PACKAGES, tool):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def main(tool: str, name: str, folder: str) -> None:
    limit = MEMORY * 2**30
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    result, model, folder = {"versions": versions(tool)}, None, Path(folder)
    try:
        figures, model = measure(tool, name, folder)
        result |= figures
    except (Exception, SystemExit) as e:
        result["error"] = last_line(e)
    (folder / "result.json").write_text(json.dumps(result))
    if model is not None:
        save(model, folder)  # last: it may end for want of time or memory


if __name__ == "__main__":
    main(*sys.argv[1:])
