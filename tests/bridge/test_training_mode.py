"""Training mode: what the rules carry passes in silence, all else is refused by path or noted, and nothing changes."""

import random
import warnings

import numpy as np
import pytest
import torch

import bridge
from bridge import torch_export, torch_reader, training_mode

nn, F = torch.nn, torch.nn.functional
X = torch.randn(2, 3, 6, 5)
ROWS = torch.randn(2, 5, 4)
SDPA = "scaled_dot_product_attention"


class Module(nn.Module):
    """A function as a module; `self.c` is a convolution."""

    def __init__(self, function, **attributes):
        super().__init__()
        self.function, self.c = function, conv()
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, *x):
        return self.function(self, *x)


class DropPath(nn.Module):
    """As many a repository has it."""

    def __init__(self, drop_prob):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x):
        if not self.training:
            return x
        kept = 1 - self.drop_prob
        return x * torch.bernoulli(torch.full((len(x), 1, 1, 1), kept)) / kept


class Scaled(DropPath):
    """The same under a name that no rule knows."""


class Residual(nn.Module):
    def __init__(self, path):
        super().__init__()
        self.c, self.path = conv(), path

    def forward(self, x):
        return x + self.path(self.c(x))


class FixedNorm(nn.BatchNorm2d):
    def train(self, mode=True):
        return super().train(False)


class Average(nn.Module):
    def __init__(self, update, used=True):
        super().__init__()
        self.update, self.used = update, used
        self.register_buffer("mean", torch.ones(3, 1, 1))

    def forward(self, x):
        y = x - self.mean if self.used else x * 2
        if self.training:
            self.update(self, x.mean((0, 2, 3))[:, None, None])
        return y


def conv():
    return nn.Conv2d(3, 3, 3, padding=1)


def attention(m, x):
    y = F.scaled_dot_product_attention(x, x, x, dropout_p=m.p if m.training else 0.0)
    return F.scaled_dot_product_attention(y, x, x, None, 0.1 if m.training else 0.0)


def stochastic_depth():
    from bridge.onnx import import_torchvision

    import_torchvision()
    from torchvision.ops import StochasticDepth

    return StochasticDepth(0.2, "row")


def logged(m, x):
    if m.training:
        m.seen = x.mean().item()
    return m.c(x)


def assigned(m, x):
    m.mean = 0.9 * m.mean + 0.1 * x


def cell(m, x):
    m.mean[0] = x[0]


UPDATES = {
    "in place": lambda m, x: m.mean.mul_(0.9).add_(x, alpha=0.1),
    "data": lambda m, x: m.mean.data.mul_(0.9),
    "a view": lambda m, x: m.mean[1:].mul_(0.9),
    "assigned": assigned,
    "a cell": cell,
}

SAME = {
    "Dropout": lambda: nn.Sequential(conv(), nn.Dropout(0.3), nn.Dropout2d(0.2), nn.AlphaDropout(0.1)),
    "Dropout in place": lambda: nn.Sequential(conv(), nn.Dropout(0.3, inplace=True), nn.ReLU(inplace=True)),
    "Dropout behind what is in place": lambda: nn.Sequential(conv(), nn.ReLU(inplace=True), nn.Dropout(0.3), conv()),
    "functional": lambda: Module(lambda m, x: F.dropout(m.c(x), 0.3, m.training) + torch.dropout(x, 0.3, m.training)),
    "around Dropout": lambda: Module(lambda m, x: m.c(x + m.d(x)), d=nn.Dropout(0.3)),
    "BatchNorm": lambda: nn.Sequential(conv(), nn.BatchNorm2d(3), nn.ReLU()),
    "InstanceNorm": lambda: nn.Sequential(conv(), nn.InstanceNorm2d(3)),
    "frozen BatchNorm": lambda: nn.Sequential(conv(), FixedNorm(3).requires_grad_(False)),
    "DropPath": lambda: Residual(DropPath(0.2)),
    "torchvision": lambda: Residual(stochastic_depth()),
    "a rate of zero": lambda: Module(lambda m, x: x if m.training and torch.rand(1) < m.p else m.c(x), p=0.0),
    "Python's of zero": lambda: Module(lambda m, x: x if m.training and random.random() < m.p else m.c(x), p=0.0),
    "weight_norm": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(conv())),
    "spectral_norm": lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(conv())),
    "spectral_norm by a hook": lambda: nn.Sequential(nn.utils.spectral_norm(conv())),
}


@pytest.mark.parametrize("name", SAME)
def test_what_the_rules_carry(name):
    assert training_mode.look(SAME[name](), (X,)) == training_mode.Training()


DIFFERENT = {
    "noise": (
        lambda: Module(lambda m, x: m.c(x) + torch.randn_like(x) if m.training else m.c(x)),
        "forward (Module): in training it also calls randn_like, add",
    ),
    "another name": (
        lambda: Residual(Scaled(0.2)),
        "path (Scaled): in training it also calls full, bernoulli, mul, div",
    ),
    "a layer more": (
        lambda: Module(lambda m, x: m.c(m.c(x) if m.training else x)),
        "c (Conv2d): in training it also calls",
    ),
    "a layer less": (
        lambda: Module(lambda m, x: x if m.training and torch.rand(1) < m.p else x + m.c(x), p=0.2),
        "forward (Module): in training it leaves out c, add",
    ),
    "by a number": (
        lambda: Module(lambda m, x: x if m.training and torch.rand(()).item() > m.p else x + m.c(x), p=0.8),
        "forward (Module): in training it leaves out c, add",
    ),
    "Python's chance": (
        lambda: Module(lambda m, x: x if random.uniform(0, 1) < m.p and m.training else x + m.c(x), p=0.5),
        "forward (Module): in training it leaves out c, add",
    ),
    "NumPy's chance": (
        lambda: Module(lambda m, x: m.c(x) * (np.random.rand() if m.training else 1.0)),
        "forward (Module): in training it calls mul with other arguments",
    ),
    "order": (
        lambda: Module(lambda m, x: m.d(m.c(x)) if m.training else m.c(m.d(x)), d=conv()),
        "c (Conv2d): in training it calls conv2d on other tensors",
    ),
    "operands": (
        lambda: Module(lambda m, x: m.c(x) - x if m.training else x - m.c(x)),
        "forward (Module): in training it calls sub on other tensors",
    ),
    "a rate": (
        lambda: Module(lambda m, x: F.dropout(m.c(x), 0.3 if m.training else 0.1, m.training)),
        "forward (Module): in training it calls dropout with other arguments",
    ),
    "no Dropout": (
        lambda: Module(lambda m, x: F.dropout(m.c(x), 0.3, False)),
        "forward (Module): in training its dropout of 0.3 is not active",
    ),
    "read behind Dropout in place": (
        lambda: Module(lambda m, x: (lambda y: m.d(y) + y)(m.c(x)), d=nn.Dropout(0.3, inplace=True)),
        "forward (Module): in training it calls add on other tensors",
    ),
    "behind Dropout in place": (
        lambda: Module(lambda m, x: (lambda y: m.d(y).relu_() + y)(m.c(x)), d=nn.Dropout(0.3)),
        "forward (Module): in training it calls add on other tensors",
    ),
    "statistics": (
        lambda: nn.Sequential(FixedNorm(3)),
        "0 (FixedNorm): in training it goes on with its running statistics",
    ),
    "outputs": (
        lambda: Module(lambda m, x: m.c(x) if m.training else (m.c(x), x * 2)),
        "forward (Module): in training it returns other outputs",
    ),
} | {
    f"a buffer, {how}": (
        lambda update=update: nn.Sequential(Average(update)),
        "0 (Average): in training it changes 0.mean",
    )
    for how, update in UPDATES.items()
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_is_refused(name):
    make, said = DIFFERENT[name]
    (obstacle,) = training_mode.look(make(), (X,)).obstacles
    assert str(obstacle).startswith(said)


def test_everything_is_said_at_once():
    module = nn.Sequential(
        conv(),
        nn.Sequential(nn.ReLU(), Scaled(0.2)),
        Module(lambda m, x: torch.lgamma(x)),
        Average(UPDATES["in place"]),
    )
    with pytest.raises(bridge.BridgeError, match="Sequential has 3 operator") as e:
        bridge.to_keras(module, (X,))
    assert [o.path for o in e.value.obstacles] == ["2", "1.1", "3"]
    assert "take it out of the module, or do it in eval mode too" in str(e.value)


def test_an_operator_that_is_refused_anyway_is_named_once():
    module = nn.Sequential(conv(), nn.InstanceNorm2d(3, track_running_stats=True), nn.BatchNorm2d(3, momentum=None))
    with pytest.raises(bridge.BridgeError, match="Sequential has 2 operator"):
        bridge.to_keras(module, (X,))


@pytest.mark.parametrize(
    "module, note",
    [
        (Module(lambda m, x: (m.c(x), m.d(x)) if m.training else m.c(x), d=conv()), "eval mode depends on.*: d$"),
        (
            Module(lambda m, x: {"a": m.c(x), **({"b": m.d(x[:, 0:3])} if m.training else {})}, d=conv()),
            ": forward, d$",
        ),
        (nn.Sequential(conv(), Average(UPDATES["in place"], used=False)), "changes what no output.*: 1.mean$"),
        (nn.Sequential(conv(), Average(assigned, used=False)), "changes what no output.*: 1.mean$"),
        (Module(logged), "eval mode depends on.*: forward$"),
        (
            Module(lambda m, x: m.c(x) * (m.c(x)[x > 0].mean() if m.training else 1)),
            "not be looked for in forward: Dyn",
        ),
        (
            nn.Sequential(conv(), Module(lambda m, x: m.c(x).numpy() if m.training else m.c(x))),
            "could not be looked for in 1: RuntimeError",
        ),
    ],
)
def test_what_is_warned_of(module, note):
    with pytest.warns(UserWarning, match=note):
        bridge.to_keras(module, (X,))


def test_no_warning_where_there_is_no_difference():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bridge.to_keras(nn.Sequential(conv(), nn.BatchNorm2d(3), nn.Dropout(0.5)), (X,))


@pytest.mark.parametrize("training", [True, False])
def test_nothing_changes(training):
    shared = [torch.zeros(3)]

    def everything(m, x):
        shared[0].add_(1)
        m.count += 1
        m.seen = m.b(m.c(x))
        m.mean = m.mean * 0.5
        m.c.weight.data.mul_(0.5)
        return F.dropout(m.seen, 0.5) * random.random() * np.random.rand() * torch.rand(1)

    modules = [nn.utils.spectral_norm(conv()), Average(UPDATES["in place"]), FixedNorm(3)]
    module = nn.Sequential(*modules, Module(everything, count=0, b=nn.BatchNorm2d(3))).train(training)
    module[3].register_buffer("mean", torch.ones(()))
    module[1].eval()
    attributes = [dict(vars(m)) for m in module.modules()]
    flags = [m.training for m in module.modules()]
    held = dict(module.state_dict(keep_vars=True))
    values = {name: t.detach().clone() for name, t in held.items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()
    assert not training_mode.look(module, (X,)).rates
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), np.random.get_state()[1].tobytes())
    assert [dict(vars(m)) for m in module.modules()] == attributes and [m.training for m in module.modules()] == flags
    assert all(after is held[name] for name, after in module.state_dict(keep_vars=True).items())
    for name, tensor in values.items():
        torch.testing.assert_close(held[name].detach(), tensor, rtol=0, atol=0)
    assert not shared[0].any() and not any(torch.nn.modules.module._global_forward_hooks)


class OffInEval(nn.Module):
    """The rate itself is 0 in eval mode, as in the attention of transformers."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Dropout(0.1)

    def forward(self, x):
        rate = 0.0 if not self.training else 0.3
        x = x.contiguous() if self.training else x  # which changes no number
        x = self.b(F.dropout(x, 0.2, self.training))
        return F.dropout(self.a(x), p=rate, training=self.training)


def test_a_rate_that_is_0_in_eval_mode(check):
    module = check.live_torch(OffInEval(), ROWS)
    assert training_mode.look(module, (ROWS,)) == training_mode.Training(rates={("", "dropout", 1): 0.3})
    model = bridge.to_keras(module, (ROWS,))
    assert [x.rate for x in model.layers if type(x).__name__ == "Dropout"] == [0.2, 0.1, 0.3]
    assert bridge.verify(model, module).passed
    module.b.p = 0.4
    assert not bridge.verify(model, module).passed


def test_the_rates_of_attention():
    mha = nn.MultiheadAttention(4, 2, 0.3, batch_first=True)
    found = training_mode.look(Module(lambda m, x: m.a(x, x, x, need_weights=False)[0], a=mha), (ROWS,))
    assert found == training_mode.Training(rates={("a", SDPA, 0): 0.3})
    found = training_mode.look(nn.TransformerEncoderLayer(4, 2, 8, 0.4, batch_first=True), (ROWS,))
    assert found == training_mode.Training(rates={("self_attn", SDPA, 0): 0.4})
    assert training_mode.look(Module(attention, p=0.2), (ROWS,)).rates == {("", SDPA, 0): 0.2, ("", SDPA, 1): 0.1}
    assert not training_mode.look(Module(lambda m, x: m.a(x, x, x)[0], a=mha), (ROWS,)).obstacles


MASKS = {
    "padding": {"key_padding_mask": (2, 5)},
    "attention": {"attn_mask": (5, 5)},
    "both": {"key_padding_mask": (2, 5), "attn_mask": (5, 5)},
}


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_attention_with_masks_of_booleans(kind, weights, dropout):
    """torch's own attention, which runs here, makes numbers of them first."""

    class Attended(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.MultiheadAttention(4, 2, dropout, batch_first=True)

        def forward(self, x, *masks):
            return self.a(x, x, x, **dict(zip(MASKS[kind], masks, strict=True)), need_weights=weights)[0]

    masks = [torch.zeros(shape, dtype=torch.bool) for shape in MASKS[kind].values()]
    found = training_mode.look(Attended(), (ROWS, *masks))
    assert not found.notes and not found.obstacles
    assert found.rates == ({("a", SDPA, 0): dropout} if dropout else {})


def test_layers_of_transformers_with_masks_of_booleans():
    module = Module(lambda m, x, mask: m.t(x, src_key_padding_mask=mask))
    module.t = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, 0.3, batch_first=True), 2)
    found = training_mode.look(module, (ROWS, torch.zeros(2, 5, dtype=torch.bool)))
    assert not found.notes and not found.obstacles
    assert found.rates == {(f"t.layers.{i}.self_attn", SDPA, 0): 0.3 for i in range(2)}


@pytest.mark.parametrize("given", [True, False])
def test_the_reader_tells_a_rule_the_rate_of_attention(given, monkeypatch):
    inner = Module(attention, p=0.2)
    mha = nn.MultiheadAttention(4, 2, 0.3, batch_first=True)
    module = nn.Sequential(inner, Module(lambda m, x: m.a(x, x, x, need_weights=False)[0], a=mha), inner)
    program, seen = torch_export.export(module, (ROWS,)), []
    training = training_mode.look(module, (ROWS,)) if given else None
    read = torch_reader.Reader._operation
    monkeypatch.setattr(torch_reader.Reader, "_operation", lambda *a: seen.append(read(*a)) or seen[-1])
    torch_reader.read(module, (ROWS,), program=program, training=training, obstacles=[])
    rates = [o["dropout_p"] for o in seen if o.target == "scaled_dot_product_attention"]
    assert list(dict.fromkeys(rates)) == [0.2, 0.1] and rates[:2] == rates[-2:]
    assert 0.3 in [o["p"] for o in seen if o.target == "dropout"]  # that of nn.MultiheadAttention


def test_an_exported_program_holds_inference_alone():
    module = torch.export.unflatten(torch.export.export(nn.Sequential(conv(), nn.Dropout(0.5)).eval(), (X,)))
    assert training_mode.look(module, (X,)) == training_mode.Training()


def test_a_batch_of_one_is_doubled():
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    assert training_mode.look(module, (torch.randn(1, 4),)) == training_mode.Training()
