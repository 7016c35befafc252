"""Keras' optimizers for torch: what they do to a weight is what Keras does. This file needs torch alone.

torch's own classes go by other rules: its Adam adds epsilon behind the bias correction, its RMSprop outside of the
root, and its SGD keeps a velocity without the learning rate, which matters when that changes. Here every rule, what may
be done to the gradients before, and weight decay are Keras' (keras/src/optimizers), down to the powers that it computes
in the weights' own dtype. A schedule belongs to the optimizer, as there: a dictionary of its class and its settings.

    optimizer = optimizers.Adam(module.parameters(), 1e-3, epsilon=1e-7, global_clipnorm=1.0)

Of an embedding Keras squares what comes of each time that a row was read, and adds the squares up: with
`nn.Embedding(sparse=True)` it is so here, too, where torch's dense gradient would be squared as a whole.

Everything is in `state_dict()`, so that `torch.save` and `load_state_dict` are all that a training needs to go on.
"""

import functools
import json
import math
from collections.abc import Callable
from typing import ClassVar

import torch

COMMON = {
    "iterations": 0,  # steps so far
    "schedule": None,  # {"class_name": one of SCHEDULES, "config": its settings, "dtype": "float32"}; sets lr
    "weight_decay": None,  # of the weight itself, times lr, before the step
    "clipnorm": None,  # of each weight's gradient
    "clipvalue": None,
    "global_clipnorm": None,  # of all gradients together
    "gradient_accumulation_steps": None,
    "loss_scale_factor": None,  # what the loss was multiplied by
    "use_ema": False,  # keep an average of the weights
    "ema_momentum": 0.99,
    "ema_overwrite_frequency": None,  # steps after which the weights become their average
}


class KerasOptimizer(torch.optim.Optimizer):
    """What Keras' optimizers have in common, which is all but the rule.

    Args:
        params: As any optimizer of torch takes them; groups may have settings of their own.
        lr: The learning rate.
        **settings: Those of the class, and `COMMON`, with Keras' names.
    """

    SETTINGS: ClassVar[dict] = {}
    SLOTS: tuple[str, ...] = ()

    def __init__(self, params, lr: float = 0.001, **settings):
        known = COMMON | self.SETTINGS
        if unknown := settings.keys() - known.keys():
            raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(unknown))}. Accepted: {', '.join(known)}")
        super().__init__(params, {"lr": lr, **known, **settings})

    def start(self, slot: str, group: dict) -> float:
        """What a slot begins with."""
        return 0.0

    def slots(self, group: dict) -> list[str]:
        """The slots that a weight of a group has."""
        also = {"average": group["use_ema"], "gradient_accumulator": group["gradient_accumulation_steps"]}
        return [*self.SLOTS, *(name for name, has in also.items() if has)]

    @torch.no_grad()
    def step(self, closure=None):
        """Take a step; see `torch.optim.Optimizer.step`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        group = self.param_groups[0]  # what is not of single weights is the same in all of them
        taken, every = group["iterations"], group["gradient_accumulation_steps"] or 1
        updates = taken // every
        for one in self.param_groups:
            if one["schedule"]:
                one["lr"] = rate(one["schedule"], taken)
            for weight in one["params"]:
                for slot in self.slots(one):
                    if slot not in self.state[weight]:
                        self.state[weight][slot] = torch.full_like(weight, self.start(slot, one))
        held = [(weight, one) for one in self.param_groups for weight in one["params"]]
        found = [(weight, one) for weight, one in held if weight.grad is not None]
        gradients = [weight.grad for weight, _ in found]
        if scale := group["loss_scale_factor"]:
            gradients = [each(gradient, lambda g: g / scale) for gradient in gradients]
        if every > 1:
            sums = [self.state[weight]["gradient_accumulator"] for weight, _ in found]
            gradients = [dense(gradient) + total for gradient, total in zip(gradients, sums, strict=True)]
            if (taken + 1) % every:
                for total, new in zip(sums, gradients, strict=True):
                    total.copy_(new)
                found, gradients = [], []
            else:
                gradients = [gradient / every for gradient in gradients]
                for weight, _ in held:
                    self.state[weight]["gradient_accumulator"].zero_()
        gradients = clipped(gradients, group)
        for weight, one in found:
            if one["weight_decay"] is not None:
                weight.sub_(weight * cast(one["weight_decay"], weight) * scalar(one["lr"], weight))
        if found:
            self.before(found[0][0].dtype, updates + 1)
        for (weight, one), gradient in zip(found, gradients, strict=True):
            whole, lr = dense(gradient), scalar(one["lr"], weight)
            self.update(weight, whole, self.state[weight], one, lr, updates + 1, functools.partial(summed, gradient))
        for weight, one in held if group["use_ema"] else ():
            average, momentum = self.state[weight]["average"], one["ema_momentum"] if updates else 0.0
            average.copy_(average * momentum + weight * (1 - momentum))
            if (turn := one["ema_overwrite_frequency"]) and (updates + 1) % turn == 0:
                weight.copy_(average)
        for one in self.param_groups:
            one["iterations"] += 1
        return loss

    @torch.no_grad()
    def finalize(self) -> None:
        """End a training as Keras' `fit` does: where an average is kept, it takes the weights' place."""
        for group in self.param_groups:
            for weight in group["params"] if group["use_ema"] else ():
                if "average" in self.state[weight]:
                    weight.copy_(self.state[weight]["average"])

    def before(self, dtype: torch.dtype, step: int) -> None:
        """What is done once in a step, before the weights' turn."""

    def update(self, weight, gradient, state: dict, group: dict, lr, step: int, summed: Callable) -> None:
        """Move a weight.

        Args:
            weight: It is changed in place.
            gradient: Of it, clipped.
            state: Its slots, which are changed in place.
            group: Its settings.
            lr: A scalar of the weight's dtype.
            step: 1 for the first.
            summed: `summed(function)` is the sum of the function of all that the gradient is the sum of: of an
                `nn.Embedding(sparse=True)` a part for each time that a row was read.
        """
        raise NotImplementedError


class SGD(KerasOptimizer):
    """`keras.optimizers.SGD`: the velocity has the learning rate in it."""

    SETTINGS: ClassVar[dict] = {"momentum": 0.0, "nesterov": False}
    SLOTS = ("momentum",)

    def slots(self, group):
        return [slot for slot in super().slots(group) if slot != "momentum" or group["momentum"]]

    def update(self, weight, gradient, state, group, lr, step, summed):
        if not group["momentum"]:
            weight.sub_(gradient * lr)
            return
        momentum = cast(group["momentum"], weight)
        velocity = state["momentum"].mul_(momentum).sub_(gradient * lr)
        weight.add_(velocity * momentum - gradient * lr if group["nesterov"] else velocity)


class Adam(KerasOptimizer):
    """`keras.optimizers.Adam`: epsilon is added to the root of what is not yet corrected (Kingma & Ba, section 2)."""

    SETTINGS: ClassVar[dict] = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "amsgrad": False}
    SLOTS = ("momentum", "velocity", "velocity_hat")

    def slots(self, group):
        return [slot for slot in super().slots(group) if slot != "velocity_hat" or group["amsgrad"]]

    def update(self, weight, gradient, state, group, lr, step, summed):
        momentum, velocity = state["momentum"], state["velocity"]
        one, two = (cast(group[beta], weight) ** step for beta in ("beta_1", "beta_2"))
        alpha = lr * torch.sqrt(1 - two) / (1 - one)
        momentum.add_((gradient - momentum) * (1 - group["beta_1"]))
        velocity.add_((summed(torch.square) - velocity) * (1 - group["beta_2"]))
        if group["amsgrad"]:
            velocity = torch.maximum(state["velocity_hat"], velocity, out=state["velocity_hat"])
        weight.sub_(momentum * alpha / (velocity.sqrt() + group["epsilon"]))


class AdamW(Adam):
    """`keras.optimizers.AdamW`: Adam with weight decay."""

    SETTINGS: ClassVar[dict] = {**Adam.SETTINGS, "weight_decay": 0.004}


class RMSprop(KerasOptimizer):
    """`keras.optimizers.RMSprop`: epsilon is under the root, and the momentum has the learning rate in it."""

    SETTINGS: ClassVar[dict] = {"rho": 0.9, "momentum": 0.0, "epsilon": 1e-7, "centered": False}
    SLOTS = ("velocity", "momentum", "average_gradient")

    def slots(self, group):
        without = {"momentum": not group["momentum"] > 0, "average_gradient": not group["centered"]}
        return [slot for slot in super().slots(group) if not without.get(slot)]

    def update(self, weight, gradient, state, group, lr, step, summed):
        rho = group["rho"]
        velocity = state["velocity"].mul_(rho).add_(summed(torch.square) * (1 - rho))
        if group["centered"]:
            mean = state["average_gradient"].mul_(rho).add_(gradient * (1 - rho))
            velocity = velocity - mean.square()
        move = gradient * lr / torch.sqrt(velocity + group["epsilon"])
        if group["momentum"] > 0:
            move = state["momentum"].mul_(group["momentum"]).add_(move)
        weight.sub_(move)


class Adagrad(KerasOptimizer):
    """`keras.optimizers.Adagrad`: epsilon is under the root."""

    SETTINGS: ClassVar[dict] = {"initial_accumulator_value": 0.1, "epsilon": 1e-7}
    SLOTS = ("accumulator",)

    def start(self, slot, group):
        return group["initial_accumulator_value"] if slot == "accumulator" else 0.0

    def update(self, weight, gradient, state, group, lr, step, summed):
        accumulator = state["accumulator"].add_(summed(torch.square))
        weight.sub_(gradient * lr / torch.sqrt(accumulator + group["epsilon"]))


class Adamax(KerasOptimizer):
    """`keras.optimizers.Adamax`: epsilon is not among what the largest is taken of."""

    SETTINGS: ClassVar[dict] = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
    SLOTS = ("momentum", "norm")

    def update(self, weight, gradient, state, group, lr, step, summed):
        momentum, norm = state["momentum"], state["norm"]
        momentum.add_((gradient - momentum) * (1 - group["beta_1"]))
        torch.maximum(norm * group["beta_2"], summed(torch.abs), out=norm)
        one = cast(group["beta_1"], weight) ** step
        weight.sub_(momentum * lr / ((norm + group["epsilon"]) * (1 - one)))


class Nadam(KerasOptimizer):
    """`keras.optimizers.Nadam`: torch's NAdam with `momentum_decay=1` and `decoupled_weight_decay=True`."""

    SETTINGS: ClassVar[dict] = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "momentum_product": 1.0}
    SLOTS = ("momentum", "velocity")

    def before(self, dtype, step):
        for group in self.param_groups:
            product = torch.tensor(group["momentum_product"], dtype=dtype)
            decay = torch.tensor(0.96, dtype=dtype) ** step
            group["momentum_product"] = (product * group["beta_1"] * (1 - 0.5 * decay)).item()

    def update(self, weight, gradient, state, group, lr, step, summed):
        momentum, velocity = state["momentum"], state["velocity"]
        decay, beta_1, beta_2 = (cast(value, weight) for value in (0.96, group["beta_1"], group["beta_2"]))
        product = scalar(group["momentum_product"], weight)
        now, then = (beta_1 * (1 - 0.5 * decay**n) for n in (step, step + 1))
        momentum.add_((gradient - momentum) * (1 - beta_1))
        velocity.add_((summed(torch.square) - velocity) * (1 - beta_2))
        ahead = momentum * then / (1 - product * then) + gradient * (1 - now) / (1 - product)
        weight.sub_(ahead * lr / (torch.sqrt(velocity / (1 - beta_2**step)) + group["epsilon"]))


class Lion(KerasOptimizer):
    """`keras.optimizers.Lion`, which torch has none of (Chen et al., 2023, algorithm 2)."""

    SETTINGS: ClassVar[dict] = {"beta_1": 0.9, "beta_2": 0.99}
    SLOTS = ("momentum",)

    def update(self, weight, gradient, state, group, lr, step, summed):
        momentum = state["momentum"]
        beta_1, beta_2 = (cast(group[beta], weight) for beta in ("beta_1", "beta_2"))
        weight.sub_(torch.sign(momentum * beta_1 + gradient * (1 - beta_1)) * lr)
        momentum.mul_(beta_2).add_(gradient * (1 - beta_2))


def scalar(value: float, weight: torch.Tensor) -> torch.Tensor:
    """A number of a weight's dtype, which counts with it on any device."""
    return torch.tensor(value, dtype=weight.dtype)


def cast(value: float, weight: torch.Tensor) -> torch.Tensor:
    """A setting as `keras.ops.cast` gives it, which goes through float32 to any dtype."""
    return torch.tensor(value, dtype=torch.float32).to(weight.dtype)


def clipped(gradients: list[torch.Tensor], group: dict) -> list[torch.Tensor]:
    """Bound gradients, each by its norm, all by their norm together, or each of their numbers."""
    if limit := group["clipnorm"]:
        norms = [torch.clamp(summed(gradient, torch.square).sum().sqrt(), min=limit) for gradient in gradients]
        return [
            each(gradient, lambda g, n=norm: g * limit / n) for gradient, norm in zip(gradients, norms, strict=True)
        ]
    if (limit := group["global_clipnorm"]) and gradients:
        norm = torch.stack([summed(gradient, torch.square).sum() for gradient in gradients]).sum().sqrt()
        scale = limit * torch.clamp(1 / norm, max=1 / limit)
        return [dense(gradient) * scale for gradient in gradients]  # what Keras does to a sparse one makes it whole
    if limit := group["clipvalue"]:
        return [each(gradient, lambda g: g.clamp(-limit, limit)) for gradient in gradients]
    return gradients


def each(gradient: torch.Tensor, function: Callable) -> torch.Tensor:
    """Apply a function to a gradient, of a sparse one to each of the parts that it is the sum of, as Keras does."""
    if not gradient.is_sparse:
        return function(gradient)
    values = function(gradient._values())
    return torch.sparse_coo_tensor(gradient._indices(), values, gradient.shape, check_invariants=False)


def dense(gradient: torch.Tensor) -> torch.Tensor:
    """Add a sparse gradient's parts up."""
    return gradient.to_dense() if gradient.is_sparse else gradient


def summed(gradient: torch.Tensor, function: Callable) -> torch.Tensor:
    """Add up a function of each of a gradient's parts."""
    return dense(each(gradient, function))


def rate(schedule: dict, step: int) -> float:
    """The learning rate of a step, counted from 0, computed in the dtype that Keras computes it in."""
    dtype = getattr(torch, schedule.get("dtype", "float32"))
    numbers = {
        name: torch.tensor(value, dtype=dtype) if type(value) in (int, float) else value
        for name, value in schedule["config"].items()
    }
    return float(SCHEDULES[schedule["class_name"]](torch.tensor(step, dtype=dtype), **numbers))


def exponential_decay(step, initial_learning_rate, decay_steps, decay_rate, staircase=False):
    """`keras.optimizers.schedules.ExponentialDecay`."""
    turns = step / decay_steps
    return initial_learning_rate * decay_rate ** (turns.floor() if staircase else turns)


def inverse_time_decay(step, initial_learning_rate, decay_steps, decay_rate, staircase=False):
    """`keras.optimizers.schedules.InverseTimeDecay`."""
    turns = step / decay_steps
    return initial_learning_rate / (1 + decay_rate * (turns.floor() if staircase else turns))


def polynomial_decay(step, initial_learning_rate, decay_steps, end_learning_rate, power, cycle=False):
    """`keras.optimizers.schedules.PolynomialDecay`."""
    if cycle:
        decay_steps = decay_steps * (torch.ceil(step / decay_steps) if step else 1)
    share = torch.minimum(step, decay_steps) / decay_steps
    return (initial_learning_rate - end_learning_rate) * (1 - share) ** power + end_learning_rate


def piecewise_constant_decay(step, boundaries, values):
    """`keras.optimizers.schedules.PiecewiseConstantDecay`: a value counts up to its boundary, and there."""
    return torch.tensor(values, dtype=step.dtype)[sum(step.item() > boundary for boundary in boundaries)]


def cosine_decay(step, initial_learning_rate, decay_steps, alpha, warmup_target=None, warmup_steps=0):
    """`keras.optimizers.schedules.CosineDecay`."""
    start = initial_learning_rate
    if warmup_target is not None:
        if step < warmup_steps:
            return (warmup_target - start) * (step / warmup_steps) + start
        start, step = warmup_target, step - warmup_steps
    share = torch.minimum(step, decay_steps) / decay_steps
    return start * ((1 - alpha) * 0.5 * (1 + torch.cos(math.pi * share)) + alpha)


def cosine_decay_restarts(step, initial_learning_rate, first_decay_steps, t_mul, m_mul, alpha):
    """`keras.optimizers.schedules.CosineDecayRestarts`."""
    share = step / first_decay_steps
    if t_mul == 1:
        turn = share.floor()
        share = share - turn
    else:
        turn = torch.floor(torch.log(1 - share * (1 - t_mul)) / torch.log(t_mul))
        share = (share - (1 - t_mul**turn) / (1 - t_mul)) / t_mul**turn
    return initial_learning_rate * ((1 - alpha) * 0.5 * m_mul**turn * (1 + torch.cos(math.pi * share)) + alpha)


def table(step, rates):
    """The rates of the first steps, one by one; behind them the last."""
    return torch.tensor(rates[min(int(step), len(rates) - 1)], dtype=step.dtype)


SCHEDULES = {
    "ExponentialDecay": exponential_decay,
    "InverseTimeDecay": inverse_time_decay,
    "PolynomialDecay": polynomial_decay,
    "PiecewiseConstantDecay": piecewise_constant_decay,
    "CosineDecay": cosine_decay,
    "CosineDecayRestarts": cosine_decay_restarts,
    "Table": table,
}


def save(optimizer: torch.optim.Optimizer, module: torch.nn.Module, path) -> None:
    """Write an optimizer of this file as a `.safetensors` file: the slots by weight, the settings as JSON beside them.

    Args:
        optimizer: Over parameters of `module`.
        module: Its names are what the weights are known by.
        path: The file; it is replaced if it exists.
    """
    from safetensors.torch import save_file

    names = {id(weight): name for name, weight in module.named_parameters()}
    groups = [
        {**{k: v for k, v in g.items() if k != "params"}, "params": [names[id(w)] for w in g["params"]]}
        for g in optimizer.param_groups
    ]
    tensors = {
        f"{names[id(weight)]}/{slot}": value.detach().cpu().contiguous()
        for group in optimizer.param_groups
        for weight in group["params"]
        for slot, value in optimizer.state[weight].items()
    }
    sparse = [name for name, part in module.named_modules() if getattr(part, "sparse", False) is True]
    told = {"class_name": type(optimizer).__name__, "groups": groups, "sparse": sparse}
    save_file(tensors, path, metadata={"optimizer": json.dumps(told)})


def load(path, module: torch.nn.Module) -> KerasOptimizer:
    """Read what `save` wrote.

    Args:
        path: The file.
        module: With the weights that the optimizer was saved with, by the same names.

    Returns:
        The optimizer over the module's parameters.

    Raises:
        ValueError: The file is of another module, or no such file.
    """
    from safetensors import safe_open

    weights = dict(module.named_parameters())
    with safe_open(path, framework="pt") as file:
        told = json.loads((file.metadata() or {}).get("optimizer", "null"))
        kinds = {cls.__name__: cls for cls in (SGD, Adam, AdamW, RMSprop, Adagrad, Adamax, Nadam, Lion)}
        if not isinstance(told, dict) or told.get("class_name") not in kinds:
            raise ValueError(f"{path} holds no optimizer. Accepted: what optimizers.save wrote")
        names = file.keys()
        slots = {name: file.get_tensor(name) for name in names}
    named = [name for group in told["groups"] for name in group["params"]]
    wrong = [name for name in named if name not in weights]
    for name, value in slots.items():
        owner = name.rpartition("/")[0]
        if owner not in named or (owner in weights and value.shape != weights[owner].shape):
            wrong.append(f"{name} {tuple(value.shape)}")
    if wrong:
        raise ValueError(f"{path} is not of this {type(module).__name__}: {', '.join(wrong)}")
    kind = kinds[told["class_name"]]
    known = {"lr", *COMMON, *kind.SETTINGS}
    groups = [
        {k: v for k, v in g.items() if k in known} | {"params": [weights[n] for n in g["params"]]}
        for g in told["groups"]
    ]
    optimizer = kind(groups)
    for name, part in module.named_modules():
        if name in told["sparse"] and isinstance(part, torch.nn.Embedding):
            part.sparse = True
    for name, value in slots.items():
        owner, _, slot = name.rpartition("/")
        optimizer.state[weights[owner]][slot] = value.to(weights[owner].device)
    return optimizer
