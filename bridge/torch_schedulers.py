"""The learning-rate schedulers of torch as schedules of `bridge.optimizers`, which are Keras'.

torch has a scheduler beside the optimizer, and steps it when it is told to; Keras has a function of the step. So they
are the same where the scheduler is stepped after every step of the optimizer.
"""

import copy

from torch.optim import lr_scheduler

from bridge import torch_optimizers

ACCEPTED = "StepLR, MultiStepLR, ExponentialLR, PolynomialLR, and CosineAnnealingLR up to its T_max"


def read(scheduler, group: dict, steps: int | None) -> tuple[dict | None, list[str]]:
    """Read a scheduler.

    Args:
        scheduler: Of torch, or None.
        group: The settings of the optimizer's first group, among them how many steps it has taken.
        steps: How many steps the whole training has; else the scheduler must be one of `ACCEPTED`.

    Returns:
        What `bridge.optimizers.rate` takes, or None for a constant rate; and what is wrong.
    """
    if scheduler is None:
        if group.get("initial_lr") is not None and not group.get("schedule"):
            return None, ["the optimizer has a scheduler, which sets its learning rate: give it as scheduler="]
        return group.get("schedule"), []
    name = type(scheduler).__name__
    if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        return None, [f"{name} goes by the loss, and Keras' schedules by the step alone: set a number"]
    inside = leaves(scheduler)
    if any(getattr(one, "cycle_momentum", False) for one in inside):
        return None, [
            f"{name} changes the momentum, too, which Keras' schedules do not: make it with cycle_momentum=False"
        ]
    taken = steps_of(scheduler)
    if "iterations" in group and group["iterations"] not in (taken, 0):
        return None, [
            f"the scheduler has been stepped {taken} times, and the optimizer {group['iterations']}: Keras has a rate "
            "for each step of the optimizer"
        ]
    first = getattr(scheduler, "base_lrs", [None])[0]
    by_hand = abs(scheduler.get_last_lr()[0] - group["lr"]) > 1e-9 * group["lr"]
    own = type(scheduler) is getattr(lr_scheduler, name, None) and not by_hand
    if own and name == "LambdaLR" and isinstance(scheduler.lr_lambdas[0], torch_optimizers.Rate):
        return scheduler.lr_lambdas[0].schedule, []
    if own and name == "StepLR":
        config = {"decay_steps": scheduler.step_size, "decay_rate": scheduler.gamma, "staircase": True}
        return schedule("ExponentialDecay", initial_learning_rate=first, **config), []
    if own and name == "ExponentialLR":
        config = {"decay_steps": 1, "decay_rate": scheduler.gamma, "staircase": False}
        return schedule("ExponentialDecay", initial_learning_rate=first, **config), []
    if own and name == "PolynomialLR":
        config = {"decay_steps": scheduler.total_iters, "end_learning_rate": 0.0, "power": float(scheduler.power)}
        return schedule("PolynomialDecay", initial_learning_rate=first, **config, cycle=False), []
    if own and name == "MultiStepLR":
        bounds = sorted(scheduler.milestones.elements())
        values = [first * scheduler.gamma**i for i in range(len(bounds) + 1)]
        return schedule("PiecewiseConstantDecay", boundaries=[b - 1 for b in bounds], values=values), []
    if own and name == "CosineAnnealingLR" and taken <= scheduler.T_max and (steps is None or steps <= scheduler.T_max):
        config = {"decay_steps": scheduler.T_max, "alpha": scheduler.eta_min / first}
        return schedule("CosineDecay", initial_learning_rate=first, **config, warmup_target=None, warmup_steps=0), []
    if steps is None and by_hand:
        return None, [
            f"the learning rate {group['lr']} is not what {name} has set: give steps=, to have its rates written"
        ]
    if steps is None:
        return None, [
            f"Keras has no schedule for {name}: give steps=, those of the whole training. Without: {ACCEPTED}"
        ]
    return schedule("Table", rates=written_down(scheduler, steps, taken)), []


def leaves(scheduler) -> list:
    """The schedulers that one of several is made of, at any depth."""
    inside = getattr(scheduler, "_schedulers", None)
    return [leaf for one in inside for leaf in leaves(one)] if inside else [scheduler]


def steps_of(scheduler) -> int:
    """How often a scheduler has been stepped; 0 for none."""
    return getattr(scheduler, "last_epoch", None) or (leaves(scheduler)[0].last_epoch if scheduler else 0)


def schedule(name: str, **config) -> dict:
    """A schedule as the optimizers hold it."""
    return {"class_name": name, "config": config, "dtype": "float32"}


def written_down(scheduler, steps: int, taken: int) -> list[float]:
    """The rates of the steps to come; those that are over are the present one."""
    ahead = copy.deepcopy(scheduler)
    ahead.optimizer._opt_called = True  # it will not be: the rates alone are wanted
    rates = [ahead.optimizer.param_groups[0]["lr"]] * (taken + 1)
    while len(rates) < steps:
        ahead.step()
        rates.append(ahead.optimizer.param_groups[0]["lr"])
    return rates
