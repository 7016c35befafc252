"""Single tensors between TensorFlow and torch, and between channels-last and channels-first.

Memory is shared through DLPack where it can be, so a change in place on one side is seen on the other: `.clone()`
what you will change. Where it cannot be shared (strides, alignment, another device, float8) the values are copied.
Gradients do not cross: what comes out is a leaf.
"""

import sys

import numpy as np

from bridge.graph import BridgeError

DTYPES = (
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "complex64", "complex128"),
    *("float16", "bfloat16", "float32", "float64", "float8_e5m2", "float8_e4m3fn"),
)
ALIGNMENT = 64  # bytes; TensorFlow's kernels abort the process on a tensor that starts elsewhere
STRIP = 32  # numbers


def tf_to_torch(x):
    """Turn a TensorFlow tensor into a torch tensor of the same dtype, shape, values and, if torch has it, device.

    Args:
        x: An eager `tf.Tensor`, a `tf.Variable` or a `keras.Variable`.

    Returns:
        A `torch.Tensor` without gradient, which shares its memory with `x` where DLPack allows.

    Raises:
        BridgeError: `x` is something else, is symbolic, or has a dtype that torch lacks.
    """
    import tensorflow as tf
    import torch

    if (
        (not isinstance(x, (tf.Tensor, tf.Variable)) and not hasattr(x, "__tf_tensor__"))
        or tf.is_symbolic_tensor(x)
        or type(x).__name__ == "KerasTensor"
    ):
        raise BridgeError(
            f"tf_to_torch takes an eager tf.Tensor, a tf.Variable or a keras.Variable. Received: {_describe(x)}"
        )
    x = tf.convert_to_tensor(x)
    _check_dtype("tf_to_torch", x.dtype.name)
    try:
        return torch.utils.dlpack.from_dlpack(tf.experimental.dlpack.to_dlpack(x))
    except (tf.errors.OpError, RuntimeError, BufferError, TypeError):
        values = np.array(x.numpy(), order="C")
        flat = torch.from_numpy(values.reshape(-1).view(np.uint8))
        return flat.view(getattr(torch, x.dtype.name)).reshape(values.shape)


def torch_to_tf(x):
    """Turn a torch tensor into a TensorFlow tensor of the same dtype, shape, values and, if TensorFlow has it, device.

    Args:
        x: A dense `torch.Tensor`; its gradient is cut.

    Returns:
        An eager `tf.Tensor`, which shares its memory with `x` where DLPack allows.

    Raises:
        BridgeError: `x` is something else, holds no dense data, or has a dtype that TensorFlow lacks.
    """
    import tensorflow as tf
    import torch

    if not isinstance(x, torch.Tensor) or x.layout != torch.strided or x.is_meta or x.is_quantized:
        raise BridgeError(f"torch_to_tf takes a dense torch.Tensor that holds data. Received: {_describe(x)}")
    name = str(x.dtype).removeprefix("torch.")
    _check_dtype("torch_to_tf", name)
    x = x.detach().resolve_conj().resolve_neg().contiguous()
    if x.data_ptr() % ALIGNMENT:
        x = x.clone()
    try:
        return tf.experimental.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(x))
    except (tf.errors.OpError, RuntimeError, BufferError, TypeError):
        values = x.cpu().reshape(-1).view(torch.uint8).numpy()
        return tf.constant(values.view(tf.as_dtype(name).as_numpy_dtype).reshape(tuple(x.shape)))


def nhwc_to_nchw(x):
    """Move the channels from the last axis to the second, as `(B, H, W, C)` to `(B, C, H, W)`.

    Args:
        x: A NumPy array, TensorFlow tensor or torch tensor of rank 3 or more.

    Returns:
        The same kind of tensor; a view where the framework has views (NumPy, torch).

    Raises:
        BridgeError: `x` is something else, or has fewer axes.
    """
    return _move(x, -1, 1, "nhwc_to_nchw", "(B, ..., C)")


def nchw_to_nhwc(x):
    """Move the channels from the second axis to the last, as `(B, C, H, W)` to `(B, H, W, C)`.

    Args:
        x: A NumPy array, TensorFlow tensor or torch tensor of rank 3 or more.

    Returns:
        The same kind of tensor; a view where the framework has views (NumPy, torch).

    Raises:
        BridgeError: `x` is something else, or has fewer axes.
    """
    return _move(x, 1, -1, "nchw_to_nhwc", "(B, C, ...)")


def _move(x, source: int, target: int, function: str, axes: str):
    framework = next(
        (n for n in ("torch", "tensorflow") if isinstance(x, _classes(n))), "numpy" if isinstance(x, np.ndarray) else ""
    )
    rank = len(x.shape) if framework and x.shape is not None and getattr(x.shape, "rank", 0) is not None else 0
    if rank < 3:
        raise BridgeError(
            f"{function} takes a NumPy array, TensorFlow tensor or torch tensor of rank 3 or more with the axes "
            f"{axes}. Received: {_describe(x)}"
        )
    if framework == "torch":
        return x.movedim(source, target)
    if framework == "numpy":
        return np.moveaxis(x, source, target)
    import tensorflow as tf

    order = list(range(rank))
    order.insert(target % rank, order.pop(source % rank))
    return tf.transpose(x, order)


def _classes(framework: str) -> tuple:
    """The tensor classes of a framework; nothing is one where the framework was never imported."""
    module = sys.modules.get(framework)
    return tuple(getattr(module, n) for n in ("Tensor", "Variable") if hasattr(module, n))


def _check_dtype(function: str, name: str) -> None:
    if name not in DTYPES:
        raise BridgeError(
            f"{function} takes the dtypes that both frameworks have: {', '.join(DTYPES)}. Received: {name}"
        )


def _describe(x) -> str:
    kind = f"{type(x).__module__.split('.')[0]}.{type(x).__name__}"
    if not hasattr(x, "shape"):
        return kind
    shape = "unknown" if getattr(x.shape, "rank", 0) is None else tuple(x.shape)
    return f"{kind} of shape {shape}, {getattr(x, 'dtype', '?')}"


def array(tensor) -> np.ndarray:
    """The values of a torch tensor, in memory that it shares where it can; bfloat16 as TensorFlow's NumPy has it."""
    import torch

    tensor = tensor.detach().cpu()
    if tensor.dtype != torch.bfloat16:
        return tensor.numpy()
    import tensorflow as tf

    return tensor.contiguous().view(torch.int16).numpy().view(tf.bfloat16.as_numpy_dtype)


def tensor(values: np.ndarray):
    """A torch tensor of an array, in its memory; bfloat16 as TensorFlow's NumPy has it."""
    import torch

    if values.dtype.name != "bfloat16":
        return torch.from_numpy(values)
    return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)


def held(variable) -> np.ndarray:
    """The values of a Keras variable as a read-only look at its memory, bfloat16 as TensorFlow's NumPy has it.

    What is looked at stays as it is: TensorFlow gives the variable new memory when it is assigned.
    """
    import tensorflow as tf

    tensor = tf.convert_to_tensor(variable)
    if tensor.dtype != tf.bfloat16:
        return np.asarray(memoryview(tensor))
    return np.asarray(memoryview(tf.bitcast(tensor, tf.int16))).view(tf.bfloat16.as_numpy_dtype)


def owned(values: np.ndarray) -> np.ndarray:
    """A copy in one piece of memory, at an address that TensorFlow takes as it is.

    It is made in strips, which transposes a large matrix in a seventh of the time.
    """
    memory = np.empty(values.nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    made = memory[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    axis = max((a for a, n in enumerate(values.shape) if n > STRIP), default=None)
    if axis is None:
        made[...] = values
        return made
    for first in range(0, values.shape[axis], STRIP):
        at = (slice(None),) * axis + (slice(first, first + STRIP),)
        made[at] = values[at]
    return made
