"""Modules as torch.export is shown them: a recurrent one is one operator, over an open number of steps, too.

torch.export would write a loop in Python out, as often as the example has steps, and of nn.LSTM it shows states that
are made of open sizes. The operator has the module's weights and its options; its rule reads it, `recurrent` or
`convolutional_recurrent`.
Batch normalisation with a mask is shown with that, of which nothing is left in eval mode.
"""

import contextlib
import inspect
import json
from collections.abc import Iterator
from unittest import mock

import torch
from torch import nn

from bridge import rules
from bridge.graph import BridgeError

HEADER = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n\n\n"


def _compute(
    x: torch.Tensor, mask: torch.Tensor | None, states: list[torch.Tensor], weights: list[torch.Tensor], options: str
) -> list[torch.Tensor]:
    """What a module of these options and weights returns: the output and, one after the other, its states."""
    o = json.loads(options)
    if name := o.pop("helper", None):
        made = _helper(name, o, weights).forward(x, states, *([] if mask is None else [mask]))
    else:
        sizes = _sizes(x, o)
        _fit(states, sizes)  # which the function itself does not ask, and reads what lies behind
        given = states or [x.new_zeros(size) for size in sizes[: 1 + (o["kind"] == "LSTM")]]
        settings = weights, o["bias"], o["layers"], o["dropout"], False, o["bidirectional"], o["batch_first"]
        made = getattr(torch, o["kind"].lower())(x, given if o["kind"] == "LSTM" else given[0], *settings)
    return [t.clone() for t in made]


_recurrent = torch.library.custom_op("bridge::recurrent", _compute, mutates_args=())
_convolutional = torch.library.custom_op("bridge::convolutional_recurrent", _compute, mutates_args=())


@_convolutional.register_fake
def _(x, mask, states, weights, options):
    o = json.loads(options)
    sizes = rules.for_operator("convolutional_recurrent").sizes_after(x.shape[3:], o)
    state = x.shape[0], o["out_channels"], *sizes
    y = (*state[:2], x.shape[2], *sizes) if o["sequences"] else state
    _fit(states, [state] * len(states))
    return [x.new_empty(y), x.new_empty(state), x.new_empty(state)]


@_recurrent.register_fake
def _(x, mask, states, weights, options):
    o = json.loads(options)
    if "helper" in o:
        ways, units, batch, steps = 1 + o["bidirectional"], o["hidden_size"], x.shape[0], x.shape[1]
        width = units * ways if o["merge"] == "concat" else units
        many = ways * (1 + (o.get("cell", o["helper"]).endswith("LSTM")))
        y = (batch, steps, width) if o["sequences"] else (batch, width)
        _fit(states, [(batch, units)] * len(states))
        return [x.new_empty(y), *(x.new_empty(batch, units) for _ in range(many))]
    sizes = _sizes(x, o)
    _fit(states, sizes)
    y = x.new_empty(*x.shape[:2], (1 + o["bidirectional"]) * sizes[0][2])
    return [y, *(x.new_empty(size) for size in sizes[: 1 + (o["kind"] == "LSTM")])]


def _sizes(x: torch.Tensor, o: dict) -> list[tuple]:
    """The sizes of the states of a module of torch's: what it returns last and, of an LSTM, what it keeps."""
    first = o["layers"] * (1 + o["bidirectional"]), x.shape[1 - o["batch_first"]]
    return [(*first, o["projected"] or o["units"]), (*first, o["units"])]


def _fit(states: list[torch.Tensor], shapes: list[tuple]) -> None:
    """Let sizes be equal that the module wants equal: a state has as many examples as the sequence."""
    for state, shape in zip(states, shapes, strict=False):
        for have, want in zip(state.shape, shape, strict=True):
            said = f"a state is {tuple(state.shape)}, not {shape}; `dynamic` names the axes that stay open"
            torch._check(have == want, lambda said=said: said)


def _helper(name: str, options: dict, weights: list[torch.Tensor]) -> nn.Module:
    """A helper of ours with these weights."""
    from bridge.torch_writer import execute

    made = execute(HEADER + "\n\n".join(map(rules.helper_source, ("merged", "stepped", name))))
    with torch.device("meta"):
        module = getattr(made, name)(**options)
    names = [n for n, _ in module.named_parameters()]
    state = {
        n: w.detach() for n, w in zip(names, weights, strict=True)
    }  # else what is frozen would be trained after it
    module.load_state_dict(state, assign=True)
    return module.eval()


def _of_torch(self, input, hx=None):
    """The forward of nn.LSTM, nn.GRU and nn.RNN."""
    if not isinstance(input, torch.Tensor):
        raise BridgeError(
            f"{type(self).__name__} is given a packed sequence, which Keras has not: give it the padded batch, and "
            "take the steps that count from its output, or let a Keras model have a mask"
        )
    if input.ndim != 3:
        raise BridgeError(f"{type(self).__name__} is given a tensor of rank {input.ndim}: give it a batch of sequences")
    o = {
        "kind": self.mode,
        "units": self.hidden_size,
        "layers": self.num_layers,
        "bias": bool(self.bias),
        "batch_first": bool(self.batch_first),
        "dropout": float(self.dropout),
        "bidirectional": bool(self.bidirectional),
        "projected": self.proj_size,
    }
    states = [] if hx is None else [hx] if isinstance(hx, torch.Tensor) else list(hx)
    weights = [getattr(self, n) for n in self._flat_weights_names]
    y, *states = _recurrent(input, None, states, weights, json.dumps(o))
    return y, tuple(states) if self.mode == "LSTM" else states[0]


def _of_helper(self, x, states=(), mask=None):
    """The forward of our helpers."""
    names = [n for n in inspect.signature(type(self).__init__).parameters if n != "self"]
    o = {"helper": type(self).__name__} | {n: getattr(self, n) for n in names}
    operator = getattr(torch.ops.bridge, rules.shown_as(type(self)))
    return tuple(operator(x, mask, list(states), list(self.parameters()), json.dumps(o)))


def _masked(self, x, mask):
    """The forward of batch normalisation with a mask, which it does not read in eval mode but has to be shown."""
    x = torch.ops.aten.alias(x)  # it comes first
    return type(self).__mro__[1].forward(self, torch.where(mask.unsqueeze(self.lacking), x, x))


@contextlib.contextmanager
def as_one(module: nn.Module) -> Iterator[None]:
    """Let the recurrent modules of a network call one operator each."""
    forwards = dict.fromkeys((nn.LSTM, nn.GRU, nn.RNN), _of_torch)
    shown = {type(m) for m in module.modules() if rules.shown(type(m))}
    forwards |= {k: _masked if issubclass(k, nn.modules.batchnorm._BatchNorm) else _of_helper for k in shown}
    with contextlib.ExitStack() as stack:
        for kind, forward in forwards.items():
            stack.enter_context(mock.patch.object(kind, "forward", forward))
        yield
