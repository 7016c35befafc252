"""torch's own optimizers: which is nearest to Keras', what its state is there, and what differs.

Adam, AdamW  w -= lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps)    Keras: eps beside sqrt(v)
RMSprop      w -= lr g / (sqrt(v) + eps)                              Keras: sqrt(v + eps)
Adagrad      the same of the sum
Adamax       the largest of b2 u and |g| + eps                        Keras: eps beside the largest
SGD          u = m u + g,  w -= lr u                                  Keras: u = m u - lr g,  w += u
NAdam        Keras' Nadam for momentum_decay=1

"""

import math
from dataclasses import dataclass, field

import torch

from bridge import optimizers
from bridge.graph import BridgeError


@dataclass(frozen=True)
class Kind:
    """A class of `torch.optim` and ours that is nearest.

    Attributes:
        ours: Its class in `bridge.optimizers`.
        slots: Ours -> torch's.
        scaled: Slots of ours that have the learning rate in them, and by which sign.
        settings: Ours -> torch's; a pair is one of torch's `betas`.
        differs: What is not the same, if it is anything.
    """

    ours: str
    slots: dict[str, str]
    settings: dict[str, str | tuple[str, int]]
    scaled: dict[str, int] = field(default_factory=dict)
    differs: str = ""


ADAM = {"momentum": "exp_avg", "velocity": "exp_avg_sq", "velocity_hat": "max_exp_avg_sq"}
BETAS = {"beta_1": ("betas", 0), "beta_2": ("betas", 1), "epsilon": "eps"}
LATER = "epsilon is added behind the bias correction"
AMONG = "epsilon is among what the largest is taken of"
OUTSIDE = "epsilon is added outside of the root"
KINDS = {
    "SGD": Kind(
        "SGD", {"momentum": "momentum_buffer"}, {"momentum": "momentum", "nesterov": "nesterov"}, {"momentum": -1}
    ),
    "Adam": Kind("Adam", ADAM, {**BETAS, "amsgrad": "amsgrad"}, differs=LATER),
    "AdamW": Kind("AdamW", ADAM, {**BETAS, "amsgrad": "amsgrad"}, differs=LATER),
    "RMSprop": Kind(
        "RMSprop",
        {"velocity": "square_avg", "momentum": "momentum_buffer", "average_gradient": "grad_avg"},
        {"rho": "alpha", "momentum": "momentum", "epsilon": "eps", "centered": "centered"},
        {"momentum": 1},
        OUTSIDE,
    ),
    "Adagrad": Kind(
        "Adagrad",
        {"accumulator": "sum"},
        {"epsilon": "eps", "initial_accumulator_value": "initial_accumulator_value"},
        differs=OUTSIDE,
    ),
    "Adamax": Kind("Adamax", {"momentum": "exp_avg", "norm": "exp_inf"}, BETAS, differs=AMONG),
    "NAdam": Kind("Nadam", ADAM, BETAS),
}
DECOUPLED = ("AdamW", "NAdam")  # whose weight decay can be Keras'
RULE = ("decoupled_weight_decay", "momentum_decay", "nesterov", "centered", "amsgrad")  # settings that change the rule
COUPLED = "weight decay is a part of the gradient"
VELOCITY = "the learning rate is not in the velocity, so that a new rate counts for earlier steps, too"
LEFT_OUT = {
    "clipnorm": "torch.nn.utils.clip_grad_norm_ of each parameter before step()",
    "clipvalue": "torch.nn.utils.clip_grad_value_ before step()",
    "global_clipnorm": "torch.nn.utils.clip_grad_norm_ of all parameters before step()",
    "gradient_accumulation_steps": "step() after so many backward(), of the loss divided by them",
    "loss_scale_factor": "the loss as it is",
    "use_ema": "torch.optim.swa_utils.AveragedModel",
}


def nearest(optimizer, rule=None) -> tuple[torch.optim.Optimizer, list[str]]:
    """Make the optimizer of torch that is nearest to one of `bridge.optimizers`, with its state.

    Args:
        optimizer: It is left as it is.
        rule: One of `bridge.torch_rules` that the state is of: then nothing differs.

    Returns:
        It, and sentences on what differs.
    """
    kind, first = type(optimizer).__name__, optimizer.param_groups[0]
    decayed = any(group["weight_decay"] for group in optimizer.param_groups)
    if kind == "Adam" and decayed and not rule:
        kind = "AdamW"
    name = {"Nadam": "NAdam"}.get(kind, kind)
    if name not in KINDS:
        return optimizer, ["torch has none, and this one is that of bridge.optimizers"]
    known, groups = KINDS[name], []
    differences = [known.differs] if known.differs and not rule else []
    coupled = decayed and name not in DECOUPLED and (name != "SGD" or first["momentum"]) and not rule
    if coupled and name != "SGD":
        differences.append("weight decay is left out, as torch has it in the gradient: w.mul_(1 - lr * decay) does it")
    elif coupled:
        differences.append(f"{COUPLED}, and the velocity adds it up")
    if known.scaled and first["momentum"] and not rule:
        differences.append(VELOCITY)
        if not all(group["lr"] for group in optimizer.param_groups):
            differences.append("the velocity is lost, as it cannot be told from a learning rate of 0")
    differences += [f"{key}={first[key]} is left out: {what}" for key, what in LEFT_OUT.items() if first[key]]
    for group in optimizer.param_groups:
        made = {"params": group["params"], "lr": group["lr"]}
        for ours, theirs in known.settings.items():
            if isinstance(theirs, tuple):
                made["betas"] = (group["beta_1"], group["beta_2"])
            else:
                made[theirs] = group[ours]
        made["weight_decay"] = 0.0 if coupled and name != "SGD" else group["weight_decay"] or 0.0
        if name == "NAdam":
            made["momentum_decay"] = rule.momentum_decay if rule else 1.0
            made["decoupled_weight_decay"] = not (rule and rule.coupled)
        groups.append(made)
    result = getattr(torch.optim, name)(groups)
    steps = first["iterations"] // (first["gradient_accumulation_steps"] or 1)
    for group in result.param_groups:
        scaled = {} if rule else {slot: sign / (group["lr"] or math.inf) for slot, sign in known.scaled.items()}
        for weight in group["params"]:
            held = optimizer.state.get(weight, {})
            state = {theirs: held[ours] * scaled.get(ours, 1) for ours, theirs in known.slots.items() if ours in held}
            if name != "SGD":
                state["step"] = torch.tensor(float(steps))
            if name == "NAdam":
                state["mu_product"] = torch.tensor(first["momentum_product"])
            result.state[weight] = state
    if first["schedule"]:
        for group in result.param_groups:
            group["initial_lr"] = 1.0
        result.scheduler = torch.optim.lr_scheduler.LambdaLR(result, Rate(first["schedule"]), first["iterations"] - 1)
    return result, differences


class Rate:
    """The rates of a schedule, as `torch.optim.lr_scheduler.LambdaLR` asks for them."""

    def __init__(self, schedule: dict):
        self.schedule = schedule

    def __call__(self, step: int) -> float:
        return optimizers.rate(self.schedule, step)


def understood(optimizer, as_it_is: bool) -> tuple[optimizers.KerasOptimizer, list[str]]:
    """Read one of torch's optimizers as that of `bridge.optimizers` which is nearest.

    Args:
        optimizer: Of `torch.optim`.
        as_it_is: Leave torch's velocity without the learning rate.

    Returns:
        One over the same parameters with the same state, and sentences on what differs.

    Raises:
        BridgeError: It is of a class that has no counterpart, or has settings of which Keras has none.
    """
    name = type(optimizer).__name__
    if type(optimizer) is not getattr(torch.optim, name, None) or name not in KINDS:
        raise BridgeError(
            f"the rule of {type(optimizer).__module__}.{name} is not known. Accepted: torch's own {', '.join(KINDS)}, "
            "and those of bridge.optimizers"
        )
    known, wrong, groups = KINDS[name], [], []
    first = optimizer.param_groups[0]
    differences = [known.differs] if known.differs else []
    for group in optimizer.param_groups:
        for key, accepted in {"maximize": False, "dampening": 0, "lr_decay": 0}.items():
            if group.get(key, accepted) != accepted:
                wrong.append(f"{key}={group[key]}, which Keras has none of")
    own = {k for g in optimizer.param_groups for k in g if k in RULE and g[k] != first.get(k)}
    if own:
        wrong.append(f"groups of parameters with their own {', '.join(sorted(own))}, where Keras has one of each")
    decayed = any(group["weight_decay"] for group in optimizer.param_groups)
    same = name == "AdamW" or first.get("decoupled_weight_decay") or (name == "SGD" and not first["momentum"])
    if decayed and not same:
        differences.append(COUPLED)
    if name == "NAdam" and first["momentum_decay"] != 1:
        differences.append(f"momentum_decay is {first['momentum_decay']}, where Keras has 1")
    if known.scaled and first["momentum"]:
        differences.append(VELOCITY)
    steps = {int(s["step"]) for w, s in optimizer.state.items() if "step" in s and w.requires_grad}
    if len(steps) > 1:
        counts = ", ".join(map(str, sorted(steps)))
        wrong.append(f"its parameters have taken {counts} steps, and Keras counts once for all")
    if wrong:
        raise BridgeError("\n  - ".join([f"torch.optim.{name} has no counterpart in Keras:", *wrong]))
    for group in optimizer.param_groups:
        made = {"params": group["params"], "lr": float(group["lr"]), "weight_decay": group["weight_decay"] or None}
        made |= {"initial_lr": group["initial_lr"]} if "initial_lr" in group else {}  # of a scheduler
        for ours, theirs in known.settings.items():
            value = group[theirs[0]][theirs[1]] if isinstance(theirs, tuple) else group[theirs]
            made[ours] = float(value) if type(value) is int else value
        groups.append(made)
    result = getattr(optimizers, known.ours)(groups, iterations=max(steps, default=0))
    if name == "AdamW" and not decayed:
        for group in result.param_groups:
            group["weight_decay"] = 0.0
    for group in result.param_groups:
        group["iterations"] = max(steps, default=0)
        for weight in group["params"]:
            held = optimizer.state.get(weight, {})
            for ours, theirs in known.slots.items():
                if held.get(theirs) is not None:
                    factor = known.scaled.get(ours, 1) * group["lr"] if ours in known.scaled and not as_it_is else 1
                    result.state[weight][ours] = held[theirs] * factor
            if "mu_product" in held:
                group["momentum_product"] = float(held["mu_product"])
    return result, differences
