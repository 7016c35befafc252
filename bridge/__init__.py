"""Move tensors, weights and whole models between TensorFlow/Keras and PyTorch, and prove that they are the same.

The public names are imported when they are used, so that `import bridge` loads no framework.
"""

import importlib

from bridge.graph import BridgeError

_HOMES = {
    "to_torch": "convert",
    "to_keras": "convert",
    "fold_batchnorm": "fold",
    "save_torch": "folder",
    "load_torch": "folder",
    "verify": "verification",
    "assert_equivalent": "verification",
    "load_weights": "weights",
    "optimizer_to_torch": "optimizer_state",
    "optimizer_to_keras": "optimizer_state",
    "rule": "own_rules",
    "tf_to_torch": "tensors",
    "torch_to_tf": "tensors",
    "nhwc_to_nchw": "tensors",
    "nchw_to_nhwc": "tensors",
}
__all__ = ["BridgeError", *_HOMES]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'bridge' has no attribute {name!r}")
    module = importlib.import_module(f"bridge.{_HOMES[name]}")
    globals()[name] = getattr(module, name)
    return globals()[name]


def __dir__():
    return sorted([*globals(), *_HOMES])
