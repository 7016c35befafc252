"""Where the time of a step goes, by the frameworks' own profilers: the share of each kind of operation."""

import re
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

# What an operation is, by its name and place in TensorFlow (`gradient_tape/resnet/conv1/convolution/...:Conv2D...`) and
# by its name in torch (`aten::convolution_backward`); the first that fits counts.
KINDS = {
    "convolutions": "conv",
    "BatchNorm": "batchnorm|batch_norm|bn[0-9]|downsample_1",
    "LayerNorm": "layer_norm|norm[12]?(_[0-9]+)?/",
    "GELU": "gelu|erf",
    "attention": "batchmatmul|/softmax|scaled_dot|multi_head|bmm|rescale_qkv|attn_(?!qkv|proj)|attn_heads|unstack",
    "Dense layers": "matmul|addmm|linear|aten::mm",
    "ReLU": "relu|threshold|clamp_min",
    "pooling, padding and means": "pool|pad|mean",
    "additions and the optimizer": "add|sgd/|optimizer|aten::mul_",
}
REST = "all else"


def shares(step: Callable[[], object], framework: str, rounds: int = 3) -> dict[str, float]:
    """Profile a step, and give each kind's share of the time that operations take.

    Args:
        step: Has been called before.
        framework: "tensorflow" or "torch".
        rounds: How often it is called.
    """
    found = (_tensorflow if framework == "tensorflow" else _torch)(step, rounds)
    kinds: Counter = Counter()
    for name, seconds in found.items():
        kinds[next((kind for kind, pattern in KINDS.items() if re.search(pattern, name, re.IGNORECASE)), REST)] += (
            seconds
        )
    return {kind: kinds[kind] / sum(kinds.values()) for kind in (*KINDS, REST) if kinds[kind]}


def _tensorflow(step: Callable[[], object], rounds: int) -> Counter:
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(rounds):
            step()
        tf.profiler.experimental.stop()
        space = xplane_pb2.XSpace()
        space.ParseFromString(next(Path(folder).rglob("*.xplane.pb")).read_bytes())
    found: Counter = Counter()
    for plane in space.planes:
        for line in plane.lines if plane.name.startswith("/host:CPU") else ():
            for event in line.events if line.name.startswith("tf_Compute") else ():
                name = plane.event_metadata[event.metadata_id].name
                if ":" in name and "::" not in name:  # an operation, and not the executor around it
                    found[name] += event.duration_ps
    return found


def _torch(step: Callable[[], object], rounds: int) -> Counter:
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(rounds):
            step()
    return Counter({event.key: event.self_cpu_time_total for event in profile.key_averages()})
