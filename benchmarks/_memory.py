"""Convert a network in this process and write, as JSON, by how much its memory grew at the most.

    .venv/bin/python benchmarks/_memory.py to_torch|to_keras NETWORK FILE

By the operating system's figure for what is resident, from the network in memory on. The libraries are loaded and have
worked before, and what they freed is handed back.
"""

import ctypes
import gc
import json
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
import _measure  # noqa: E402, F401  first: it quietens TensorFlow

# isort: split
import keras  # noqa: E402
import torch  # noqa: E402

import bridge  # noqa: E402
from bridge.onnx import import_torchvision  # noqa: E402


def resident(figure: str) -> int:
    """Bytes of this process: "VmRSS" now, "VmHWM" the most since it was last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(figure))


def job(direction: str, name: str):
    """Make the network; give its bytes and the function that converts it."""
    if direction == "to_torch":
        model = getattr(keras.applications, name)(weights=None)
        return sum(v.value.numpy().nbytes for v in model.variables), lambda: bridge.to_torch(model)
    module = getattr(import_torchvision().models, name)(weights=None)
    tensors = module.state_dict().values()
    return sum(t.numel() * t.element_size() for t in tensors), lambda: bridge.to_keras(
        module, (torch.rand(1, 3, 224, 224),)
    )


def main(direction: str, name: str, file: str) -> None:
    layers = keras.layers
    small = bridge.to_torch(
        keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(3, 3), layers.BatchNormalization()])
    )
    bridge.to_keras(small, (torch.rand(2, 3, 8, 8),))
    weights, convert = job(direction, name)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    start = time.perf_counter()
    result = convert()
    seconds = time.perf_counter() - start
    growth = resident("VmHWM") - before
    del result
    record = {"network": name, "weights": weights, "growth": growth, "ratio": growth / weights, "seconds": seconds}
    Path(file).write_text(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
