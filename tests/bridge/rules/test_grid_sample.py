"""Sampling at the places of a grid, over all options, both ways; gradients, open sizes and files."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
import torch.nn.functional as F
from torch import nn

import bridge
from bridge import composed, convert, keras_reader
from bridge.rules import grid_sample

CASES = [
    (function, padding, align, rank)
    for rank in (2, 3)
    for function, padding, align in itertools.product(grid_sample.FUNCTIONS, grid_sample.PADDINGS, (False, True))
    if rank == 2 or function != "bicubic"
]


class Transformer(nn.Module):
    """A spatial transformer: where to look is computed from the image."""

    def __init__(self, **options):
        super().__init__()
        self.localisation, self.theta = nn.Conv2d(3, 4, 3, stride=2), nn.Linear(4 * 3 * 4, 6)
        self.last, self.options = nn.Conv2d(3, 2, 3), options

    def forward(self, x):
        theta = self.theta(torch.tanh(self.localisation(x)).flatten(1)).reshape(-1, 2, 3)
        align = self.options["align_corners"]
        return self.last(F.grid_sample(x, F.affine_grid(theta, x.shape, align_corners=align), **self.options))


def places(*shape, dtype=torch.float64):
    """Places in and around the image, some of them at its very corners."""
    grid = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype) * 1.3
    grid.view(-1)[:6] = torch.tensor([-1.0, 1.0, 0.0, 1.0, -1.0, -1.0])
    return grid


@functools.cache
def made(function, padding, align, *shapes):
    """The model for images and grids of these shapes: to make one takes longer than all else."""
    options = {"function": function, "padding": padding, "align_corners": align}
    model = composed.made("grid_sample", options, [keras.KerasTensor(s, "float64") for s in shapes])
    assert composed.known(model) == ("model.grid_sample", options)
    return model


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("sizes", [(5, 7, 4), (1, 4, 1)])
@pytest.mark.parametrize("function, padding, align, rank", CASES)
def test_values_and_gradients(function, padding, align, rank, sizes, opened):
    """Of the function of keras.ops, also at open sizes; with respect to the image and to the grid."""
    x = torch.randn(2, 3, *sizes[:rank], dtype=torch.float64, requires_grad=True)
    grid = places(2, *(4, 6, 2)[:rank], rank).requires_grad_()
    want = F.grid_sample(x, grid, mode=function, padding_mode=padding, align_corners=align)
    weight = torch.randn_like(want)
    gradients = torch.autograd.grad((want * weight).sum(), (x, grid))
    given = [tf.constant(x.detach().movedim(1, -1).numpy()), tf.constant(grid.detach().numpy())]
    shapes = [(None, *[None] * rank, t.shape[-1]) if opened else tuple(t.shape) for t in given]
    model = made(function, padding, align, *shapes)
    with tf.GradientTape() as tape:
        tape.watch(given)
        have = model(given)
        loss = tf.reduce_sum(have * weight.movedim(1, -1).numpy())
    np.testing.assert_allclose(have, want.detach().movedim(1, -1).numpy(), rtol=0, atol=1e-12)
    dx, dgrid = tape.gradient(loss, given, unconnected_gradients="zero")
    np.testing.assert_allclose(tf.convert_to_tensor(dx), gradients[0].movedim(1, -1).numpy(), rtol=0, atol=1e-11)
    np.testing.assert_allclose(dgrid, gradients[1].numpy(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("function, padding, align, rank", [CASES[0], CASES[9], CASES[16], CASES[-1]])
def test_from_torch(check, function, padding, align, rank):
    def sampled(x, grid):
        return F.grid_sample(x, grid, mode=function, padding_mode=padding, align_corners=align)

    check.from_torch(check.Function(sampled), torch.randn(2, 3, *(5, 7, 4)[:rank]), places(2, *(4, 6, 2)[:rank], rank))


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("sizes", [(5, 8), (1, 3), (2, 3, 4)])
def test_affine_grid(check, sizes, align):
    def grid(theta):
        return F.affine_grid(theta, (theta.shape[0], 3, *sizes), align_corners=align) * 2

    check.from_torch(check.Function(grid), torch.randn(2, len(sizes), len(sizes) + 1))


@pytest.mark.parametrize(
    "options",
    [
        {"align_corners": False},
        {"mode": "bilinear", "padding_mode": "border", "align_corners": True},
        {"mode": "bicubic", "padding_mode": "reflection", "align_corners": False},
    ],
)
def test_spatial_transformer(check, options, tmp_path):
    """Trained, both ways, and from a file; it is F.grid_sample again, whatever the layers are called."""
    torch.manual_seed(0)
    module, x = Transformer(**options).eval(), torch.randn(2, 3, 8, 9)
    with torch.no_grad():  # it begins where it looks at the whole image: at the border itself
        module.theta.weight.mul_(0.1)
        module.theta.bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))
    model = bridge.to_keras(module, (x,))
    report = bridge.verify(model, module)
    assert report.passed, report
    source = convert.source(model).text
    assert "F.grid_sample(" in source and "F.affine_grid(" in source
    model.save(tmp_path / "m.keras")
    check.same_graph(keras.saving.load_model(tmp_path / "m.keras"), module, (x,))
    check.same_graph(model, bridge.to_torch(model), (x,))


def test_open_sizes(check):
    """Of the image and of the grid."""
    module = check.Function(lambda x, grid: F.grid_sample(x, grid, align_corners=False))
    x, grid = torch.randn(2, 3, 5, 7), places(2, 4, 6, 2, dtype=torch.float32)
    model = check.to_keras(module, (x, grid), [{0, 2, 3}, {0, 1, 2}])
    x, grid = torch.randn(3, 3, 8, 4), places(3, 2, 9, 2, dtype=torch.float32)
    want = module(x, grid).movedim(1, -1).numpy()
    assert check.relative(model([check.to_last(x.numpy()), check.to_last(grid.numpy())]), want) < 1e-6


def test_a_model_that_computes_something_else():
    """What it is does not hang on a name: another model of the same inputs is read as any model is."""
    image, grid = keras.Input((5, 7, 3)), keras.Input((4, 6, 2))
    other = keras.Model([image, grid], grid_sample.sample(image, grid, "bilinear", "zeros", False) * 2.0)
    assert composed.known(other) is None
    x, y = keras.Input((5, 7, 3)), keras.Input((4, 6, 2))
    read = keras_reader.read(keras.Model([x, y], other([x, y])))
    assert "grid_sample" not in [n.operator for n in read.nodes] and len(read.nodes) > 10


@pytest.mark.parametrize("align", [False, True])
def test_an_affine_grid_of_an_open_size(check, align):
    def transformed(x):
        theta = x.mean((2, 3))[:, :2, None] + torch.tensor([[1.0, 0.2, 0.1], [-0.1, 1.0, -0.2]], dtype=x.dtype)
        return F.grid_sample(x, F.affine_grid(theta, x.shape, align_corners=align), align_corners=align)

    module, x, dynamic = check.Function(transformed), torch.randn(2, 3, 5, 7).double(), [{0, 2, 3}]
    model = bridge.to_keras(module, (x,), dynamic)
    check.same_graph(model, module, (x,), dynamic)
    back = bridge.to_torch(model)
    for shape in ((1, 3, 8, 4), (3, 3, 3, 3)):
        x = torch.randn(shape).double()
        assert check.relative(check.to_first(model(check.to_last(x.numpy())).numpy()), module(x)) < 1e-11
        assert check.relative(back(x), module(x)) < 1e-11
