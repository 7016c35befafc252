"""Operators in the words of torch's decompositions: what they compute at every open size, and what is left whole."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import bridge
from bridge import decomposition, torch_export, torch_reader

nn = torch.nn
X = torch.randn(2, 3, 6, 5)


class Module(nn.Module):
    """A function of torch between two convolutions."""

    def __init__(self, function, channels=4):
        super().__init__()
        self.function, self.a, self.b = function, nn.Conv2d(3, 4, 1), nn.Conv2d(channels, 2, 1)

    def forward(self, x):
        return self.b(self.function(self.a(x)))


FUNCTIONS = {
    "broadcast_tensors": lambda x: torch.broadcast_tensors(x, x.mean(1, keepdim=True))[1] * x,
    "cdist": lambda x: x + torch.cdist(x[:, :2], x[:, 2:] * 2).mean((2, 3), keepdim=True).sum(1, keepdim=True),
    "cosine_similarity": lambda x: x * F.cosine_similarity(x, x.square(), 1)[:, None],
    "logit": lambda x: torch.logit(x.sigmoid(), 1e-3),
    "outer": lambda x: x * torch.outer(torch.arange(x.shape[2]).float(), torch.arange(1.0, x.shape[3] + 1)).cos(),
    "pairwise_distance": lambda x: x * F.pairwise_distance(x, x.square())[..., None],
    "softplus": lambda x: F.softplus(4 * x, 2, 3),
    "std_mean": lambda x: sum(torch.std_mean(x, 1, keepdim=True)) * x,
    "var_mean": lambda x: (
        (x - torch.var_mean(x, 1, keepdim=True)[1]) / (torch.var_mean(x, 1, True, keepdim=True)[0] + 1)
    ),
    "local_response_norm": lambda x: F.local_response_norm(x, 3),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_at_any_size(check, name):
    module = Module(FUNCTIONS[name]).eval()
    model = bridge.to_keras(module, (X,), [{0, 2, 3}])
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    back, other = bridge.to_torch(model), torch.randn(3, 3, 9, 4)
    torch.testing.assert_close(back(other), module(other), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize(
    "function",
    [
        lambda row, x, right: torch.bucketize(x, row, right=right),
        lambda row, x, right: torch.bucketize(x, row, right=right, out_int32=True),
        lambda row, x, right: torch.searchsorted(row, x, right=right),
        lambda row, x, right: torch.searchsorted(row, x, side="right" if right else "left"),
        lambda row, x, right: torch.searchsorted(row.flip(0), x, right=right, sorter=torch.arange(3, -1, -1)),
    ],
)
def test_places_in_a_sorted_row(check, function, right):
    row = nn.Buffer(torch.tensor([-1.0, 0.0, 0.5, 2.0]))
    module = check.module_of(lambda m, x: function(m.row, x, right), row=row)
    x = torch.tensor([[-2.0, -1.0, 0.0], [0.5, 0.7, 2.0], [2.1, float("nan"), float("-inf")]])
    model = bridge.to_keras(module, (x,))
    have, want = model(x.numpy()).numpy(), module(x).numpy()
    assert have.dtype == want.dtype
    np.testing.assert_array_equal(have, want)
    report = bridge.verify(model, module)
    assert report.passed, str(report)


class Written(nn.Module):
    """What scatter writes: ones at the largest, the largest themselves, and at places that are fixed."""

    def __init__(self):
        super().__init__()
        self.a, self.places = nn.Linear(4, 5), nn.Buffer(torch.tensor([[3, 1, 0]]))

    def forward(self, x):
        y = self.a(x)
        values, places = y.topk(2, 1)
        first = torch.zeros(y.shape[0], 5, dtype=y.dtype).scatter_(1, y.argmax(1, keepdim=True), 1)
        best = torch.full_like(y, -9.0).scatter(-1, places, values).softmax(-1)
        last = y.T.scatter(0, self.places.T.expand(3, y.shape[0]), y[:, :3].T).T
        return first * y, best, last


def test_scatter(check):
    module, x = Written(), torch.randn(3, 4)
    model = check.from_torch(module, x)
    report = bridge.verify(model, module)
    assert report.passed, str(report)


def test_scatter_to_a_part_is_refused():
    module = Module(lambda x: x.scatter(1, x[:, :1, :2].argmax(1, keepdim=True), 1.0))
    with pytest.raises(bridge.BridgeError, match="there is no rule for the operator scatter"):
        bridge.to_keras(module, (X,))


@pytest.mark.parametrize(
    "function, channels",
    [
        (lambda x: x.unfold(2, 3, 2).mean(-1), 4),
        (lambda x: x.unfold(3, 2, 1).unfold(2, 2, 2).flatten(4).amax(-1), 4),
    ],
)
def test_at_fixed_sizes(check, function, channels):
    check.from_torch(Module(function, channels), X)


def test_bilinear(check):
    class Bilinear(nn.Module):
        def __init__(self):
            super().__init__()
            self.b, self.l = nn.Bilinear(5, 6, 4), nn.Linear(5, 6)

        def forward(self, x):
            return self.b(x, self.l(x))

    check.from_torch(Bilinear(), torch.randn(2, 3, 5))


def test_every_part_goes_by_the_path_of_the_whole():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.Softplus(1, 3)))
    program = torch_export.export(module, (X,))
    torch_reader.read(module, (X,), program=program)
    parts = [n for n in program.graph.nodes if "where" in str(n.target) or "log1p" in str(n.target)]
    assert [[path for path, _ in n.meta["nn_module_stack"].values()][-1] for n in parts] == ["1.0", "1.0"]


def nodes(function, *inputs, open_axes=(0, 2, 3)):
    program = torch_export.export(Module(function), inputs, [set(open_axes)])
    return [n for n in program.graph.nodes if n.op == "call_function"]


def test_what_trains_is_not_taken_apart():
    """Its parts would be those of inference."""
    for function in (
        lambda x: F.dropout(x, 0.5, False),
        lambda x: F.rrelu(x),
        lambda x: F.batch_norm(x, x[0, :, 0, 0], x[0, :, 0, 1]),
    ):
        found = [n for n in nodes(function, X) if n.target.__name__.split(".")[0] in ("dropout", "rrelu", "batch_norm")]
        assert found and not any(decomposition.inline(n, ValueError()) for n in found)


def test_sizes_of_the_example_are_not_taken():
    """torch's decomposition of what is below F.affine_grid takes its sizes for numbers."""

    def function(x):
        theta = x.mean((2, 3))[:, :3, None].expand(-1, -1, 2).mT
        return F.grid_sample(x, torch.affine_grid_generator(theta, list(x.shape), False), align_corners=False)

    with pytest.raises(bridge.BridgeError, match="its size is computed from an open size of the input"):
        bridge.to_keras(Module(function), (X,), [{0, 2, 3}])


def test_the_reason_is_that_of_the_whole():
    with pytest.raises(bridge.BridgeError, match="there is no rule for the operator special_polygamma") as e:
        bridge.to_keras(Module(lambda x: torch.special.polygamma(1, x.exp())), (X,))
    assert len(e.value.obstacles) == 1
    with pytest.raises(bridge.BridgeError, match="return_indices=True; Keras' pooling has no indices"):
        bridge.to_keras(Module(lambda x: F.max_pool2d(x, 2, return_indices=True)[0]), (X,))
