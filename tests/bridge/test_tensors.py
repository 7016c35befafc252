"""Tensors between the frameworks: every dtype, shape and memory layout; views; refusals."""

import gc
import subprocess
import sys

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
import torch

import bridge
from bridge.tensors import ALIGNMENT, DTYPES, held, owned

SHAPES = [(2, 3, 5), (1,), (), (0, 3), (2, 1, 3)]


def values(dtype, shape):
    """Values that differ from element to element, as far as the dtype can tell them apart."""
    x = np.arange(int(np.prod(shape)), dtype="float64").reshape(shape) - 1
    if dtype.startswith("complex"):
        x = x + 0.5j
    if dtype.startswith("uint"):
        x = x + 1
    name = getattr(ml_dtypes, dtype, None) or dtype
    return (x % 2 == 0) if dtype == "bool" else x.astype(name)


def to_tf(dtype, shape):
    return tf.constant(values(dtype, shape), tf.as_dtype(dtype))


def to_torch(dtype, shape):
    x = values(dtype, shape)
    return torch.from_numpy(np.array(x).reshape(-1).view("uint8")).view(getattr(torch, dtype)).reshape(shape)


def same_bits(tf_tensor, torch_tensor):
    assert tf_tensor.dtype.name == str(torch_tensor.dtype).removeprefix("torch.")
    assert tuple(tf_tensor.shape) == tuple(torch_tensor.shape)
    have = torch_tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8).numpy()
    np.testing.assert_array_equal(np.array(tf_tensor.numpy()).reshape(-1).view("uint8"), have)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_dtypes_and_shapes(dtype, shape):
    a, b = to_tf(dtype, shape), to_torch(dtype, shape)
    same_bits(a, bridge.tf_to_torch(a))
    same_bits(bridge.torch_to_tf(b), b)
    same_bits(a, b)


def test_memory_is_shared():
    x = torch.zeros(4)
    y = bridge.torch_to_tf(x)
    x[1] = 7
    np.testing.assert_array_equal(y.numpy(), [0, 7, 0, 0])
    z = bridge.tf_to_torch(y)
    assert z.data_ptr() == x.data_ptr()
    del x, y
    gc.collect()
    np.testing.assert_array_equal(z.numpy(), [0, 7, 0, 0])


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.T,
        lambda x: x[:, 1:],
        lambda x: x[1:],
        lambda x: x.flip(0),
        lambda x: x[::2],
        lambda x: x[:1].expand(3, 4),
        lambda x: x.reshape(-1)[1:].reshape(11),
        lambda x: x[0, 1],
    ],
)
def test_views_are_copied_where_they_must(make):
    x = make(torch.arange(12, dtype=torch.float32).reshape(3, 4))
    y = bridge.torch_to_tf(x)
    same_bits(y, x)
    np.testing.assert_allclose((y * 2 + y).numpy(), 3 * x.numpy())  # a kernel: TensorFlow aborts on misaligned memory


def test_lazy_conjugate_and_negative():
    x = torch.tensor([1 + 2j, 3 - 1j])
    np.testing.assert_array_equal(bridge.torch_to_tf(x.conj()).numpy(), [1 - 2j, 3 + 1j])
    np.testing.assert_array_equal(bridge.torch_to_tf(x.conj().imag).numpy(), [-2, 1])


def test_gradients_are_cut():
    x = torch.nn.Parameter(torch.ones(3))
    same_bits(bridge.torch_to_tf(x * 2), x * 2)
    same_bits(bridge.torch_to_tf(x), x)
    with tf.GradientTape() as tape:
        v = tf.Variable([1.0, 2.0])
        y = bridge.tf_to_torch(v * 2)
        assert not y.requires_grad
        z = bridge.torch_to_tf(y)
    assert tape.gradient(z, v) is None


@pytest.mark.parametrize("make", [lambda x: x, tf.constant, tf.Variable, keras.Variable])
def test_variables(make):
    x = make(tf.constant([[1.0, 2.0]]))
    np.testing.assert_array_equal(bridge.tf_to_torch(x).numpy(), [[1, 2]])


def test_assigning_a_variable_leaves_the_tensor_alone():
    v = tf.Variable([1.0, 2.0])
    x = bridge.tf_to_torch(v)
    v.assign_add([1.0, 1.0])
    np.testing.assert_array_equal(x.numpy(), [1, 2])


@pytest.mark.parametrize(
    "wrong, text",
    [
        (np.ones(3), "numpy.ndarray of shape (3,)"),
        ([1.0], "list"),
        (torch.ones(2), "torch.Tensor of shape (2,)"),
        (tf.ragged.constant([[1], [1, 2]]), "RaggedTensor"),
        (tf.sparse.from_dense([[1, 0]]), "SparseTensor"),
        (tf.constant(["a"]), "string"),
        (keras.Input((3,)), "KerasTensor of shape (None, 3)"),
        (None, "NoneType"),
        (tf.cast(tf.constant([1]), tf.qint8), "qint8"),
    ],
)
def test_what_is_no_tensor_of_tensorflow(wrong, text):
    with pytest.raises(bridge.BridgeError) as e:
        bridge.tf_to_torch(wrong)
    assert text in str(e.value) and "tf_to_torch takes" in str(e.value)


def test_a_tensor_of_a_traced_function():
    @tf.function(autograph=False)
    def f(x):
        bridge.tf_to_torch(x)

    with pytest.raises(bridge.BridgeError, match=r"an eager tf.Tensor"):
        f(tf.constant([1.0]))


@pytest.mark.parametrize(
    "wrong, text",
    [
        (np.ones(3), "numpy.ndarray of shape (3,)"),
        (tf.ones(2), "EagerTensor of shape (2,)"),
        (1.5, "builtins.float"),
        (torch.eye(2).to_sparse(), "torch.Tensor of shape (2, 2)"),
        (torch.ones(2, device="meta"), "holds data"),
        (lambda: torch.ones(2, dtype=torch.complex32), "complex32"),
        (lambda: torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.quint8), "quint8"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_is_no_tensor_of_torch(wrong, text):
    with pytest.raises(bridge.BridgeError) as e:
        bridge.torch_to_tf(wrong() if callable(wrong) else wrong)
    assert text in str(e.value) and "torch_to_tf takes" in str(e.value)


@pytest.mark.parametrize("make", [np.array, tf.constant, tf.Variable, torch.from_numpy])
@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 5, 7, 3), (2, 4, 5, 7, 3), (1, 2, 3, 4, 5, 6), (0, 5, 7, 3)])
def test_layouts(make, shape):
    x = np.random.default_rng(0).normal(size=shape)
    y = bridge.nhwc_to_nchw(make(x))
    rank = len(shape)
    want = x.transpose(0, rank - 1, *range(1, rank - 1))
    np.testing.assert_array_equal(np.asarray(y), want)
    z = bridge.nchw_to_nhwc(y)
    np.testing.assert_array_equal(np.asarray(z), x)
    if make is not tf.Variable:
        assert type(y) is type(make(x))


def test_layouts_are_views():
    x = np.zeros((2, 5, 7, 3))
    assert np.shares_memory(bridge.nhwc_to_nchw(x), x)
    t = torch.zeros(2, 3, 5, 7, requires_grad=True)
    assert bridge.nchw_to_nhwc(t).data_ptr() == t.data_ptr()
    bridge.nchw_to_nhwc(t).sum().backward()  # a layout change is differentiable
    assert t.grad.shape == t.shape


def test_layouts_inside_a_traced_function():
    f = tf.function(bridge.nhwc_to_nchw, autograph=False, input_signature=[tf.TensorSpec((None, None, 7, 3))])
    assert f(tf.ones((2, 5, 7, 3))).shape == (2, 3, 5, 7)
    with pytest.raises(bridge.BridgeError, match="rank 3 or more"):
        tf.function(bridge.nhwc_to_nchw, autograph=False, input_signature=[tf.TensorSpec(None)])(tf.ones((2, 5, 7, 3)))


@pytest.mark.parametrize("function, axes", [("nhwc_to_nchw", "(B, ..., C)"), ("nchw_to_nhwc", "(B, C, ...)")])
@pytest.mark.parametrize(
    "wrong, text",
    [
        (np.ones((2, 3)), "numpy.ndarray of shape (2, 3)"),
        (torch.ones(3), "torch.Tensor of shape (3,)"),
        (tf.ones(()), "EagerTensor of shape ()"),
        ([[[1.0]]], "builtins.list"),
        (None, "NoneType"),
    ],
)
def test_layouts_refuse(function, axes, wrong, text):
    with pytest.raises(bridge.BridgeError) as e:
        getattr(bridge, function)(wrong)
    assert text in str(e.value) and axes in str(e.value) and function in str(e.value)


def test_importing_and_numpy_need_no_framework():
    code = (
        "import sys, numpy as np, bridge\nbridge.nhwc_to_nchw(np.ones((1, 2, 3)))\n"
        "assert not {'torch', 'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int32", "bool"])
def test_held_looks_at_a_variable(dtype):
    variable = keras.Variable(values(dtype, (2, 3)), dtype=dtype, trainable=False)
    have = held(variable)
    assert have.dtype.name == dtype and not have.flags.writeable and np.shares_memory(have, held(variable))
    variable.assign(keras.ops.zeros_like(variable))
    np.testing.assert_array_equal(have, values(dtype, (2, 3)))


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (100,), (3, 40, 70), (33, 65), (70, 40, 3, 3)])
def test_owned_is_a_copy_in_one_piece(shape):
    x = np.random.default_rng(0).normal(size=shape)
    for view in (x, x.T):
        have = owned(view)
        np.testing.assert_array_equal(have, view)
        assert have.flags.c_contiguous and have.flags.writeable and not np.shares_memory(have, x)
        assert have.ctypes.data % ALIGNMENT == 0 or not have.size
