"""What torch.export is shown instead computes the same, at sizes that are not the example's."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

import bridge
from bridge import torch_export

X = torch.randn(2, 3, 13, 6)


def same(function, sizes=((5, 9), (12, 4), (8, 8), (1, 2))):
    """Export a function of an image of any size, and compare it with itself at other sizes."""

    class Module(nn.Module):
        def forward(self, x):
            return function(x)

    module = Module()
    program = torch_export.export(module, (X,), [{0, 2, 3}])
    for size in sizes:
        x = torch.randn(3, 3, *size)
        for have, want in zip(program.module()(x), function(x), strict=True):
            torch.testing.assert_close(have, want)
    return [str(n.target) for n in program.graph.nodes]


@pytest.mark.parametrize("sections", [2, 4])
def test_parts_of_an_open_axis(sections):
    """torch's own are those of the example's remainder."""
    names = same(lambda x: torch.tensor_split(x, sections, 2), [(n, 3) for n in range(2 * sections, 4 * sections + 1)])
    assert not any("tensor_split" in name for name in names)


@pytest.mark.parametrize("align", [True, False])
def test_a_grid_of_an_open_size(align):
    def function(x):
        return (F.affine_grid(x[:, :2, 0, :1] * torch.ones(3), x.shape, align_corners=align),)

    assert not any("affine_grid" in name for name in same(function))


def test_places():
    names = same(lambda x: (torch.linspace(-1, 1, x.shape[3]) * x, torch.linspace(0, x.shape[2] - 1, x.shape[2])))
    assert sum("bridge.linspace" in name for name in names) == 2


def test_take_along_dim_leaves_sizes_open():
    """By itself it compares them as numbers."""
    names = same(
        lambda x: (torch.take_along_dim(x, x.argsort(1)[:, :2], dim=1), x[:, :1].take_along_dim(x.argsort(1) % 1, 1))
    )
    assert sum("bridge.take_along_dim" in name for name in names) == 2


def test_products_of_three_leave_sizes_open():
    same(lambda x: (torch.einsum("bchw,bchw,bcw->bh", x, x, x[:, :, 0]),))


def test_norms_stay_whole():
    assert "bridge.normalize.default" in same(lambda x: (F.normalize(x), F.normalize(x, 1.0, (1, 2), eps=0.1)))


def test_a_length_is_told_of(check):
    """Python has len(x) of the example alone."""
    with pytest.raises(bridge.BridgeError, match=r"it calls len\(x\), which is a plain number: x.shape\[0\] is not"):
        bridge.to_keras(check.module_of(lambda m, x: m.c(x) / len(x), c=check.conv()), (X,))


@pytest.mark.parametrize("norm", [parametrizations.spectral_norm, nn.utils.spectral_norm])
def test_either_spectral_norm_is_one_operator(norm):
    module = nn.Sequential(norm(nn.Conv2d(3, 4, 3), dim=1)).eval()
    program = torch_export.export(module, (X,))
    assert [n.target.name() for n in program.graph.nodes if "bridge" in str(n.target)] == ["bridge::singular_value"]
    torch.testing.assert_close(program.module()(X), module(X))
