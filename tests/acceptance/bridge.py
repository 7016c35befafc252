"""Well-known networks across the bridge, in both directions, with live random weights at an odd size.

    .venv/bin/python tests/acceptance/bridge.py [NAME ...] [--output FILE]      about 25 minutes on two cores

Of keras.applications and torchvision, each without its weights, which are drawn so that every layer's output depends
on the picture. For each: the values of the two sides in float64 and in float32, the trainable parameters counted, the
changes of layout in what was written (none is wanted), the weights there and back bit for bit; of the Keras networks
also onnxruntime's opinion on what tf2onnx exports, and of the smaller networks the whole of `bridge.verify`. One
converted network is compiled by torch's inductor.
"""

import argparse
import datetime
import gc
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's depthwise convolution in float64 is slow with several threads
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "bridge"))
sys.path.insert(0, str(ROOT))

import keras  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from conftest import live, live_torch, pictures, relative, to_first, to_last  # noqa: E402

import bridge  # noqa: E402
from bridge import convert, walk  # noqa: E402
from bridge import onnx as second_opinion  # noqa: E402
from bridge.twin import Twin  # noqa: E402

SIZE = 123
EXACT = 1e-9  # in float64, unless a framework computes an operator in less
LESS = dict.fromkeys(("convnext_tiny", "ConvNeXtTiny", "vit_b_16", "swin_t"), 1e-7)  # the exact GELU of TensorFlow
ROUNDING = 3  # times Keras' own distance between float32 and float64, as `bridge.verify` asks ...
FLOOR = 3e-6  # ... which by luck may be small
ONNX = 1e-4  # float32 from float32, two other frameworks
NOT_IN_ONNX = {"ConvNeXtTiny"}  # tf2onnx knows neither its GELU nor its grouped convolutions
COMPILED = "MobileNetV3Small"

# name -> (the smallest size to verify at, or None; options)
KERAS = {
    "ResNet50": (33, {}),
    "MobileNetV2": (33, {}),
    "DenseNet121": (None, {}),
    "InceptionV3": (None, {}),
    "EfficientNetB0": (None, {}),
    "VGG16": (33, {}),
    "MobileNet": (None, {}),
    "MobileNetV3Small": (33, {}),
    "Xception": (None, {}),
    "NASNetMobile": (None, {}),
    "EfficientNetV2B0": (None, {}),
    "ConvNeXtTiny": (None, {}),
    "ResNet50V2": (None, {}),
    "InceptionResNetV2": (None, {}),
}
TORCH = {
    "resnet18": (33, {}),
    "mobilenet_v2": (33, {}),
    "densenet121": (None, {}),
    "shufflenet_v2_x1_0": (33, {}),
    "squeezenet1_1": (None, {}),
    "mnasnet1_0": (None, {}),
    "efficientnet_b0": (None, {}),
    "convnext_tiny": (None, {}),
    "regnet_y_400mf": (None, {}),
    "googlenet": (None, {"aux_logits": False, "init_weights": False}),
    "inception_v3": (None, {"aux_logits": False, "init_weights": False}),
    "vgg11_bn": (None, {}),
    "mobilenet_v3_small": (None, {}),
    "vit_b_16": (None, {"image_size": 112}),
    "swin_t": (None, {}),
}


MIXES = ("swin_t",)  # networks that permute axes themselves


def from_keras(name: str) -> dict:
    """Measure one of keras.applications."""
    size, options = KERAS[name]

    def build(shape):
        keras.utils.clear_session()
        kind = getattr(keras.applications, name)
        return live(kind(weights=None, include_top=False, input_shape=shape, **options))

    model = build((SIZE, SIZE, 3))
    x = pictures(model, 2, seed=1)
    start = time.perf_counter()
    module = bridge.to_torch(model)
    seconds = time.perf_counter() - start
    single = torch.from_numpy(to_first(x))
    exact = np.asarray(walk.run(model, [x], Twin("float64"))[0])
    with torch.no_grad():
        have = to_last(module(single).numpy())
        double = to_last(bridge.to_torch(model).double()(single.double()).numpy())
    again = bridge.to_keras(module, (single,))
    result = {
        "seconds": seconds,
        "float64": relative(double, exact),
        "float32": relative(have, model(x, training=False)),
        "own": relative(model(x, training=False), exact),
        "alive": alive(exact),
        "parameters": [
            sum(int(np.prod(w.shape)) for w in model.trainable_weights),
            sum(p.numel() for p in module.parameters() if p.requires_grad),
        ],
        "permutes": convert.source(model).text.count("permute("),
        "back": same(*map(trained_and_counted, (model, again))),
    }
    if name not in NOT_IN_ONNX:
        result["onnx"] = onnxruntime(model, x, have)
    if name == COMPILED:
        result["inductor"] = inductor(module, single)
    if size:
        model = build((size, size + 2, 3))
        result["verify"] = verdict(bridge.verify(model, bridge.to_torch(model), [pictures(model, 3, seed=2)]))
    return result


def from_torch(name: str) -> dict:
    """Measure one of torchvision's."""
    size, options = TORCH[name]
    kind = getattr(second_opinion.import_torchvision().models, name)
    side = options.get("image_size", SIZE)
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    module = live_torch(kind(weights=None, **options), x)
    start = time.perf_counter()
    model = bridge.to_keras(module, (x,))
    seconds = time.perf_counter() - start
    last = to_last(x.numpy())
    have = to_first(np.asarray(model(last, training=False)))
    double = to_first(np.asarray(walk.run(model, [last.astype("float64")], Twin("float64"))[0]))
    with torch.no_grad():
        single = module(x).numpy()
        exact = module.double()(x.double()).numpy()
    module.float()
    again = bridge.to_torch(model)
    result = {
        "seconds": seconds,
        "float64": relative(double, exact),
        "float32": relative(have, single),
        "own": relative(have, double),
        "alive": alive(exact),
        "parameters": [
            sum(p.numel() for p in module.parameters() if p.requires_grad),
            sum(int(np.prod(w.shape)) for w in model.trainable_weights),
        ],
        "permutes": sum(
            type(y).__name__ in ("Permute", "Transpose") and len(y.output.shape) == 4 for y in model.operations
        ),  # a shuffle of channels has five axes
        "back": contained(*(by_content(t.numpy() for t in m.state_dict().values()) for m in (module, again))),
    }
    if size:
        x = torch.randn(3, 3, size, size + 2, generator=torch.Generator().manual_seed(2))
        module = live_torch(kind(weights=None, **options), x)
        result["verify"] = verdict(bridge.verify(bridge.to_keras(module, (x,)), module, [to_last(x.numpy())]))
    return result


def alive(values: np.ndarray) -> float:
    """How much two pictures differ in what comes out, as a share of the largest value."""
    return float(np.abs(values[0] - values[1]).max() / np.abs(values).max())


def same(mine: list, theirs: list) -> bool:
    """Tell whether two lists of arrays are equal bit for bit."""
    return len(mine) == len(theirs) and all(map(np.array_equal, mine, theirs))


def contained(mine: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
    """Tell whether all of these weights are among those; tables that `forward` makes come back as buffers, too."""
    return not Counter(a.tobytes() for a in mine) - Counter(a.tobytes() for a in theirs)


def by_content(arrays) -> list[np.ndarray]:
    """Weights as rows, in an order of their own: what comes back is in the bridge's normal form.

    There a separable convolution is two layers, nested models are one, a grouped convolution of one channel each is a
    depthwise one; torch's counters of batches are left out, as Keras has none.
    """
    return sorted((a.ravel() for a in arrays if a.dtype.kind == "f"), key=lambda a: (a.size, a.tobytes()))


def trained_and_counted(model) -> list[np.ndarray]:
    """The weights of a Keras model, without the constants of a Normalization, which may be no weights."""
    layers = (x for x in model._flatten_layers(include_self=False) if not isinstance(x, keras.layers.Normalization))
    return by_content({id(w): np.asarray(w) for x in layers for w in x.weights}.values())


def onnxruntime(model, x: np.ndarray, have: np.ndarray) -> float:
    """The distance of onnxruntime on tf2onnx' export from the converted module."""
    import onnxruntime

    session = onnxruntime.InferenceSession(second_opinion.to_onnx(model).SerializeToString())
    return relative(have, session.run(None, {session.get_inputs()[0].name: x})[0])


def inductor(module, x: torch.Tensor) -> dict:
    """The distance of the compiled module from itself, and the seconds that torch.compile takes."""
    with torch.no_grad():
        want, start = module(x).numpy(), time.perf_counter()
        have = torch.compile(module, fullgraph=True)(x).numpy()
    return {"float32": relative(have, want), "seconds": time.perf_counter() - start}


def verdict(report) -> dict:
    """What `bridge.verify` found."""
    return {"passed": report.passed, "failures": report.failures, "figures": report.figures()}


def shortfalls(name: str, result: dict) -> list[str]:
    """What a network falls short of."""
    bounds = {
        "float64": LESS.get(name, EXACT),
        "float32": max(ROUNDING * result["own"], FLOOR) + LESS.get(name, 0),
        "permutes": np.inf if name in MIXES else 0,
        "onnx": ONNX,
    }
    found = [f"{k} {result[k]:.1e} is over {v:.1e}" for k, v in bounds.items() if k in result and not result[k] <= v]
    mine, theirs = result["parameters"]
    found += [f"{theirs} trainable parameters of {mine}"] if mine != theirs else []
    compiled = result.get("inductor", {}).get("float32", 0.0)
    found += [f"compiled by inductor it differs by {compiled:.1e}"] if compiled > bounds["float32"] else []
    found += [] if result["back"] else ["the weights that came back differ"]
    found += [] if result["alive"] > 1e-3 else ["the output hardly depends on the picture"]
    return found + [sentence for _, sentence in result.get("verify", {}).get("failures", [])]


def line(name: str, result: dict) -> str:
    """A row of the table."""
    figures = " ".join(f"{result[k]:8.1e}" if k in result else " " * 8 for k in ("float64", "float32", "own", "onnx"))
    proof = {None: "-", True: "equal", False: "NOT equal"}[result.get("verify", {}).get("passed")]
    same_weights = "same" if result["back"] else "NOT"
    return f"{name:18} {figures} {result['permutes']:8} {same_weights:>5} {proof:>9} {result['seconds']:6.1f} s"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="networks to measure; all by default")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    results, missed = {}, {}
    print(f"{'network':18} {'float64':>8} {'float32':>8} {'own':>8} {'onnx':>8} permutes  back    verify  convert")
    for name in arguments.names or [*KERAS, *TORCH]:
        try:
            results[name] = from_keras(name) if name in KERAS else from_torch(name)
            missed[name] = shortfalls(name, results[name])
            print(line(name, results[name]), flush=True)
        except Exception as e:  # the next network is measured all the same
            results[name], missed[name] = {"error": f"{type(e).__name__}: {e}"}, [f"{type(e).__name__}: {e}"]
        for sentence in missed[name]:
            print(f"    {name} falls short: {sentence}", flush=True)
        gc.collect()
    if arguments.output:
        record = {
            "date": datetime.date.today().isoformat(),
            "machine": f"{os.cpu_count()} cores",
            "size": SIZE,
            "results": results,
        }
        arguments.output.write_text(json.dumps(record, indent=2) + "\n")
    return int(any(missed.values()))


if __name__ == "__main__":
    sys.exit(main())
