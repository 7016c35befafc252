"""Changes in place: by themselves, through views, of parts, and what they must not take away."""

import numpy as np
import pytest
import torch

import bridge

nn = torch.nn


X = torch.randn(2, 3, 6, 5)


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: x.relu_() + x,
        lambda m, x: (lambda y: y.add_(1) * y)(x * 2),
        lambda m, x: (lambda y: y.permute(0, 2, 3, 1).add_(1))(x * 2),  # the tensor itself is not read again
    ],
)
def test_by_themselves(check, function):
    module = check.module_of(lambda m, x: function(m, m.c(x)), c=check.conv()).double()
    x = X.double()
    with torch.no_grad():
        want = module(x).numpy()
    have = np.asarray(bridge.to_keras(module, (x,))(check.to_last(x.numpy())))
    assert check.relative(check.to_first(have), want) < 1e-9


def through_a_view(m, x):
    y = x * 2
    y.permute(0, 2, 3, 1).add_(1)
    return y


def through_two_views(m, x):
    y = x * 2
    a, b = y.transpose(1, 2), y.transpose(2, 3)
    a.relu_()
    return b


def shifted(m, x):
    """Temporal shift (Lin et al., 2019), as people write it."""
    y = torch.zeros_like(x)
    y[:, :1, 1:] = x[:, :1, :-1]
    y[:, 1:2, :-1] = x[:, 1:2, 1:]
    y[:, 2:] = x[:, 2:]
    return y


def of_one_channel(m, x):
    y = x.clone()
    y[:, 0] += y[:, 1] * y[:, 2]
    y[..., -1] *= 3
    return y


def filled(m, x):
    y = x * 2
    y[:, :, 2:4] = 0.5
    y[:, 1].fill_(1)
    return y + x


def with_a_parameter(m, x):
    y = x * 2
    y[:, 1:2] = m.p
    return y


@pytest.mark.parametrize(
    "function",
    [through_a_view, through_two_views, shifted, of_one_channel, filled, with_a_parameter],
)
def test_through_views(check, function):
    children = {"c": check.conv(), "n": nn.BatchNorm2d(3), "d": nn.Dropout(0.3)}
    children["p"] = nn.Parameter(torch.ones(1, 1, 1, 1))
    module = check.module_of(lambda m, x: m.d(function(m, m.n(m.c(x)))), **children)
    check.from_torch(module, X)


def regions(m, x):
    """Numbers of the regions between which nothing is attended to in shifted windows."""
    made = x.new_zeros(x.shape[2:])
    parts = (slice(0, -3), slice(-3, -1), slice(-1, None))
    for i, rows in enumerate(parts):
        for j, columns in enumerate(parts):
            made[rows, columns] = 3 * i + j
    return x * made


@pytest.mark.parametrize("function", [shifted, of_one_channel, filled, regions])
def test_of_parts_of_open_axes(check, function):
    module = check.live_torch(check.module_of(lambda m, x: function(m, m.c(x)), c=check.conv())).double()
    model = bridge.to_keras(module, (X.double(),), [{0, 2, 3}])
    back = bridge.to_torch(model)
    assert dict(back.state_dict()).keys() == dict(module.state_dict()).keys()  # the numbers are no weights
    for shape in ((2, 3, 6, 5), (1, 3, 9, 4), (3, 3, 3, 8), (2, 3, 4, 3)):  # at three no cell is before the last three
        x = torch.randn(shape).double()
        want = module(x).detach()
        assert check.relative(check.to_first(model(check.to_last(x.numpy())).numpy()), want) < 1e-12
        assert check.relative(back(x).detach(), want) < 1e-12


@pytest.mark.parametrize(
    "key, reason",
    [
        (slice(1, -1), "from one end of an open axis to the other"),
        (slice(None, None, 2), "sets every 2th part"),
    ],
)
def test_of_parts_that_are_refused(check, key, reason):
    def write(m, x):
        y = m.c(x) * 2
        y[:, :, key] = 1
        return y

    with pytest.raises(bridge.BridgeError, match=reason):
        bridge.to_keras(check.module_of(write, c=check.conv()), (X,), [{0, 2, 3}])


def test_what_trains_stays(check):
    """Functional programs have no Dropout and another BatchNorm."""
    module = check.module_of(
        lambda m, x: shifted(m, m.d(m.n(m.c(x)))), c=check.conv(), n=nn.BatchNorm2d(3), d=nn.Dropout(0.3)
    ).eval()
    model = bridge.to_keras(module, (X,))
    assert model.get_layer("d").rate == 0.3 and model.get_layer("n").weights
    report = bridge.verify(model, module)
    assert report.passed, str(report)


def test_constants_may_be_written_to(check):
    def mask(m, x):
        region = torch.zeros(6, 5)
        for i, rows in enumerate((slice(0, 2), slice(2, 5), slice(5, None))):
            region[rows] = i
        return m.c(x) * (region - 1)

    check.from_torch(check.module_of(mask, c=check.conv()), X)


@pytest.mark.parametrize("write", [lambda m, x: m.c.weight.mul_(2), lambda m, x: m.c.bias[:1].add_(1)])
def test_weights_are_not(check, write):
    module = check.module_of(lambda m, x: (write(m, x), m.c(x))[1], c=check.conv())
    with pytest.raises(bridge.BridgeError, match="changes a weight or buffer in place"):
        bridge.to_keras(module, (X,))
