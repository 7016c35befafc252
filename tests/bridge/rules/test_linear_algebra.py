"""Linear algebra, both ways: values, gradients, and the vectors that are refused."""

import keras
import numpy as np
import pytest
import torch

import bridge

ops = keras.ops
linalg = torch.linalg


def positive(x):
    """A symmetric, positive definite matrix."""
    return ops.matmul(x, ops.transpose(x, (0, 2, 1))) + np.eye(4, dtype="float32")


def regular(x):
    return x * 0.3 + np.eye(4, dtype="float32") * np.array([1.0, -2, 3, 1.5], "float32")


CASES = {
    "cholesky": (lambda x: ops.cholesky(positive(x)), (4, 4)),
    "cholesky upper": (lambda x: ops.cholesky(positive(x), upper=True), (4, 4)),
    "cholesky_inverse": (lambda x: ops.linalg.cholesky_inverse(ops.cholesky(positive(x))), (4, 4)),
    "det": (lambda x: ops.det(regular(x)), (4, 4)),
    "eigenvalues": (lambda x: ops.eigh(positive(x))[0], (4, 4)),
    "inv": (lambda x: ops.inv(regular(x)), (4, 4)),
    "logdet": (lambda x: ops.logdet(positive(x)), (4, 4)),
    "pinv": (lambda x: ops.pinv(x), (5, 3)),
    "qr": (lambda x: ops.qr(x), (5, 3)),
    "qr complete": (lambda x: ops.qr(regular(x), mode="complete"), (4, 4)),
    "singular values": (lambda x: ops.svd(x, compute_uv=False), (5, 3)),
    "singular values with vectors": (lambda x: ops.svd(x, full_matrices=False)[1], (5, 3)),
    "slogdet": (lambda x: ops.slogdet(regular(x))[1], (4, 4)),
    "solve": (lambda x, y: ops.solve(regular(x), y), (4, 4), (4, 3)),
    "solve for a vector": (lambda x, y: ops.solve(regular(x), y), (4, 4), (4,)),
    "solve_triangular": (lambda x, y: ops.solve_triangular(regular(x), y, lower=True), (4, 4), (4, 3)),
    "solve_triangular for a vector": (lambda x, y: ops.solve_triangular(regular(x), y), (4, 4), (4,)),
}


@pytest.mark.parametrize("name", CASES)
def test_both_ways(carried, name):
    function, *shapes = CASES[name]
    carried(function, *shapes, single=1e-3)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: linalg.cholesky(x @ x.mT + torch.eye(4, dtype=x.dtype)),
        lambda x: torch.cholesky_inverse(
            linalg.cholesky(x @ x.mT + torch.eye(4, dtype=x.dtype), upper=True), upper=True
        ),
        lambda x: torch.det(x) + linalg.det(x),
        lambda x: linalg.eigvalsh(x @ x.mT) + linalg.eigh(x @ x.mT).eigenvalues,
        lambda x: torch.inverse(x) + linalg.inv(x),
        lambda x: linalg.pinv(x[..., :3]) + torch.pinverse(x[..., :3], 1e-9),
        lambda x: linalg.qr(x)[0] + linalg.qr(x, "complete").R,
        lambda x: linalg.slogdet(x).logabsdet + torch.slogdet(x)[1],
        lambda x: linalg.solve(x, x[..., :2]),
        lambda x: linalg.solve_triangular(x, x, upper=True),
        lambda x: linalg.svdvals(x) + linalg.svd(x).S,
    ],
)
def test_from_torch(check, function):
    check.from_torch(check.Function(function), torch.randn(2, 4, 4) + 3 * torch.eye(4))


def test_of_an_image(check):
    """Matrices are the last two axes, wherever the channels are."""
    check.from_torch(check.Function(lambda x: linalg.inv(x)), torch.randn(2, 3, 4, 4) + 3 * torch.eye(4))


def test_least_squares():
    a, b = keras.Input(batch_shape=(5, 3)), keras.Input(batch_shape=(5,))
    model = keras.Model([a, b], ops.lstsq(a, b))
    arrays = [np.random.default_rng(0).normal(size=t.shape).astype("float32") for t in (a, b)]
    have = bridge.to_torch(model)(*map(torch.from_numpy, arrays))
    np.testing.assert_allclose(have, np.linalg.lstsq(*arrays)[0], rtol=1e-4)
    np.testing.assert_allclose(have, model(arrays), rtol=1e-4)


@pytest.mark.parametrize("function", [lambda x: ops.eigh(x)[1], lambda x: ops.svd(x)[0]])
def test_vectors_are_refused(function):
    x = keras.Input((4, 4))
    with pytest.raises(bridge.BridgeError, match="its vectors are used, whose signs are each framework's own; use the"):
        bridge.to_torch(keras.Model(x, function(x)))


@pytest.mark.parametrize(
    "function, text",
    [
        (
            lambda x: linalg.slogdet(x)[0],
            "the sign of a determinant is used, of which Keras says a wrong shape; use the",
        ),
        (lambda x: linalg.eigh(x).eigenvectors, "its vectors are used"),
        (lambda x: linalg.solve(x, x, left=False), "left=False; transpose the equation"),
        (lambda x: linalg.qr(x, "r").R, "mode='r'; give mode='reduced'"),
        (lambda x: linalg.pinv(x, hermitian=True), "hermitian=True; give rtol alone"),
    ],
)
def test_refused_from_torch(check, function, text):
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_keras(check.Function(function), (torch.randn(2, 4, 4),))
