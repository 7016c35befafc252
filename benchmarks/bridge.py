"""The bridge on well-known networks: the time of a conversion and of a forward pass against what else there is and
against what one writes by hand, and the memory that a conversion takes.

    .venv/bin/python benchmarks/bridge.py [--quick] [--output FILE]        about eight minutes on two cores

tf2onnx + onnx2torch takes most of them. --quick: fewer rounds, one network in place of three, and smaller ones for the
memory.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]  # `bridge` is the package, not this file
from _measure import compare, finish, options  # noqa: E402  first: it quietens TensorFlow

# isort: split
import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import torch  # noqa: E402
from _resnet import in_keras, in_torch  # noqa: E402

import bridge  # noqa: E402
import bridge.onnx  # noqa: E402

NETWORKS = ("ResNet50", "DenseNet121", "InceptionV3")
BATCHES = (1, 4)
# the largest of keras.applications, and of torchvision's convolutional networks
LARGEST = {"to_torch": "ConvNeXtXLarge", "to_keras": "regnet_y_128gf"}
QUICK = {"to_torch": "ResNet50", "to_keras": "resnet50"}
CONVERSION = "{} to torch: bridge / tf2onnx + onnx2torch"
BY_HAND = "batch {}: bridged / by hand"
FOLDED = "batch {}, folded: bridge / onnx2torch"
EXPORTED = "batch {}: bridged / Keras' .pt2"
BACK = "batch {}, in Keras: bridged / by hand"
GOALS = {CONVERSION.format(name): 0.1 for name in NETWORKS}
for pattern, goal in ((BY_HAND, 1.02), (FOLDED, 1.0), (EXPORTED, 0.5), (BACK, 1.02)):
    GOALS |= {pattern.format(batch): goal for batch in BATCHES}
SECONDS = {"to_torch": 2, "to_keras": 5}  # of a ResNet-50
MEMORY = 1.25  # times the weights


def live(network):
    """Give every BatchNorm statistics and factors of its own, so that the outputs depend on the picture."""
    rng = np.random.default_rng(0)

    def values(name, shape):
        spread = name.rpartition(".")[2] in ("gamma", "moving_variance", "weight", "running_var")
        return rng.uniform(0.5, 1.5, shape).astype("float32") if spread else rng.normal(0, 0.1, shape).astype("float32")

    if isinstance(network, torch.nn.Module):
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    for name, tensor in module.state_dict().items():
                        if tensor.ndim:
                            tensor.copy_(torch.from_numpy(values(name, tuple(tensor.shape))))
        return network.eval()
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for variable in layer.weights:
                variable.assign(values(variable.name, variable.shape))
    return network


def pictures(batch: int) -> np.ndarray:
    """Random pictures `(batch, 224, 224, 3)`."""
    return np.random.default_rng(1).normal(size=(batch, 224, 224, 3)).astype("float32")


def same(ours, theirs) -> None:
    """See that two results are the same but for rounding, and that they say something."""
    ours, theirs = (np.asarray(x) for x in (ours, theirs))
    largest = np.abs(theirs - theirs.mean()).max()
    if np.abs(ours - theirs).max() > 1e-3 * largest or largest < 1e-6:
        raise AssertionError(f"the results differ by {np.abs(ours - theirs).max():g} of {largest:g}")


def conversion(name: str, model) -> dict[str, float]:
    """Convert a network by both ways, twice each: the other one takes long."""
    bridge.to_torch(model)
    result = compare(lambda: bridge.to_torch(model), lambda: bridge.onnx.to_torch(model), rounds=2, warm_up=0)
    print(f"{name}: {result['ours']:.2f} s, {result['theirs']:.2f} s", flush=True)
    return result


def forward(ours, theirs, x, y, rounds: int) -> dict[str, float]:
    """Forward passes of two modules, each on the tensor that it takes."""

    def call(module, tensor):
        def run():
            with torch.inference_mode():
                return module(tensor)

        return run

    run, other = call(ours, x), call(theirs, y)
    same(run(), other())
    return compare(run, other, rounds)


def exports(model, folder: Path) -> dict[int, torch.nn.Module]:
    """Keras' own exports of a ResNet50, by the size of the batch; a process of its own has the other backend."""
    model.save_weights(folder / "model.weights.h5")
    command = [sys.executable, str(HERE / "_pt2.py"), str(folder / "model.weights.h5"), str(folder), *map(str, BATCHES)]
    subprocess.run(command, env={**os.environ, "KERAS_BACKEND": "torch"}, check=True)
    return {batch: torch.export.load(folder / f"{batch}.pt2").module() for batch in BATCHES}


def in_pytorch(model, rounds: int) -> dict[str, dict]:
    """What a ResNet50 of keras.applications has become, against the same by hand, onnx2torch's and Keras' export.

    onnx2torch's takes channels-last pictures and goes on so; both sides read the very same memory then.
    """
    bridged, results = bridge.to_torch(model), {}
    by_hand, folded, other = in_torch(bridged.state_dict()), bridge.fold_batchnorm(bridged), bridge.onnx.to_torch(model)
    with tempfile.TemporaryDirectory() as folder:
        exported = exports(model, Path(folder))
    for batch in BATCHES:
        y = torch.from_numpy(pictures(batch))
        x = y.movedim(-1, 1).contiguous()
        same(bridged(x).detach(), model(pictures(batch)))
        results[BY_HAND.format(batch)] = forward(bridged, by_hand, x, x, rounds)
        results[FOLDED.format(batch)] = forward(folded, other, y.movedim(-1, 1), y, rounds)
        results[EXPORTED.format(batch)] = forward(bridged, exported[batch], x, y, max(rounds // 3, 3))
    return results


def in_tensorflow(module, rounds: int) -> dict[str, dict]:
    """What torchvision's resnet50 has become, against the same by hand, each in a `tf.function`."""
    model = bridge.to_keras(module, (torch.rand(1, 3, 224, 224),))
    ours, theirs = tf.function(model), tf.function(in_keras(model))
    results = {}
    for batch in BATCHES:
        x = tf.constant(pictures(batch))
        same(ours(x), theirs(x))
        with torch.inference_mode():
            same(ours(x), module(torch.from_numpy(pictures(batch)).movedim(-1, 1)))
        results[BACK.format(batch)] = compare(lambda x=x: ours(x).numpy(), lambda x=x: theirs(x).numpy(), rounds)
    return results


def seconds(convert, rounds: int = 3) -> float:
    """The median time of a conversion, after a first one."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        convert()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def memory(direction: str, name: str) -> dict:
    """The growth of a process that converts one network, by benchmarks/_memory.py."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "memory.json"
        subprocess.run([sys.executable, str(HERE / "_memory.py"), direction, name, str(file)], check=True)
        return json.loads(file.read_text())


def main() -> int:
    parser = options()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    resident = {d: memory(d, name) | {"goal": MEMORY} for d, name in (QUICK if quick else LARGEST).items()}
    model = live(keras.applications.ResNet50(weights=None))
    module = live(bridge.onnx.import_torchvision().models.resnet50(weights=None))
    times = {
        "to_torch": seconds(lambda: bridge.to_torch(model)),
        "to_keras": seconds(lambda: bridge.to_keras(module, (torch.rand(1, 3, 224, 224),))),
    }
    rounds = 5 if quick else 40
    results = in_pytorch(model, rounds) | in_tensorflow(module, rounds)
    for name in NETWORKS[:1] if quick else NETWORKS:
        network = model if name == "ResNet50" else live(getattr(keras.applications, name)(weights=None))
        results[CONVERSION.format(name)] = conversion(name, network)
    missed = finish(
        {name: results[name] for name in GOALS if name in results},
        GOALS,
        seconds={d: {"seconds": s, "goal": SECONDS[d]} for d, s in times.items()},
        memory=resident,
    )
    for direction, r in resident.items():
        print(f"{direction} {r['network']}: {r['weights'] / 1e6:,.0f} MB, {r['ratio']:.3f} of them, goal {MEMORY}")
        print(f"{direction} ResNet-50: {times[direction]:.2f} s, goal {SECONDS[direction]}")
        missed |= r["ratio"] > MEMORY or times[direction] > SECONDS[direction]
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
