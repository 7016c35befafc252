"""Learning rates over a training's steps: constant, cosine or in steps, each behind a linear warm-up.

    cosine     lr (1 + cos(π (step - w) / (steps - w))) / 2     Loshchilov & Hutter, 2017, https://arxiv.org/abs/1608.03983
    step       lr 0.1^k, k = 1 from half, 2 from three quarters of the steps on          He et al., 2016, section 4.2,
                                                                                    https://arxiv.org/abs/1512.03385
    warm-up    lr step / w, while step < w                      Goyal et al., 2017, https://arxiv.org/abs/1706.02677

Each is computed from the optimizer's step alone, the constant one too: a training that goes on from a checkpoint has
the rate of its step, and no variable holds one. The step is a batch: with `gradient_accumulation_steps` Keras shows a
schedule every batch, not every update.
"""

import math
from numbers import Integral, Real

import keras
from keras import ops
from keras.optimizers import schedules


def schedule(name: str, learning_rate: float, steps: int, warm_up: float = 0.05) -> schedules.LearningRateSchedule:
    """Make a learning-rate schedule by its name.

    Args:
        name: One of `NAMES`.
        learning_rate: The greatest rate, where the warm-up ends.
        steps: Batches of the whole training, all epochs together.
        warm_up: Share of the steps, in [0, 1), over which the rate rises from 0; one step at least, or 0 for none.

    Returns:
        A function from the step to a scalar; an optimizer's `learning_rate`.

    Raises:
        ValueError: There is no such schedule, or an argument is out of range.
    """
    if name not in NAMES:
        raise ValueError(
            f"There is no schedule of that name. Received: {name!r}; accepted: {', '.join(map(repr, NAMES))}. "
            "Choose one of them, or write another function into tfzoo/training/schedules.py and add it to SCHEDULES."
        )
    wrong = []
    if not (isinstance(learning_rate, Real) and 0 < learning_rate < math.inf):
        wrong.append(f"learning_rate must be a positive number. Received: {learning_rate!r}")
    if not (isinstance(steps, Integral) and steps > 0):
        wrong.append(f"steps must be a positive integer, epochs times batches. Received: {steps!r}")
    if not (isinstance(warm_up, Real) and 0 <= warm_up < 1):
        wrong.append(f"warm_up must be a share of the steps, in [0, 1); 0.05 is every twentieth. Received: {warm_up!r}")
    if wrong:
        raise ValueError("\n".join(wrong))
    warm_up_steps = max(math.floor(steps * warm_up + 1e-9), 1) if warm_up else 0  # 0.29 * 100 is 28.999999999999996
    return SCHEDULES[name](float(learning_rate), int(steps), warm_up_steps)


def constant(learning_rate: float, steps: int, warm_up_steps: int) -> schedules.LearningRateSchedule:
    """Keep the rate."""
    return Staircase(learning_rate, warm_up_steps=warm_up_steps)


def cosine(learning_rate: float, steps: int, warm_up_steps: int) -> schedules.LearningRateSchedule:
    """Lower the rate along half a cosine: 0 when `steps` are done."""
    if not warm_up_steps:
        return schedules.CosineDecay(learning_rate, steps)
    decay_steps = max(steps - warm_up_steps, 1)
    return schedules.CosineDecay(0.0, decay_steps, warmup_target=learning_rate, warmup_steps=warm_up_steps)


def step(learning_rate: float, steps: int, warm_up_steps: int) -> schedules.LearningRateSchedule:
    """Divide the rate by ten at half and at three quarters of the steps."""
    return Staircase(learning_rate, (math.ceil(steps / 2), math.ceil(steps * 3 / 4)), 0.1, warm_up_steps)


@keras.saving.register_keras_serializable(package="tfzoo")
class Staircase(schedules.LearningRateSchedule):
    """A rate that is multiplied at boundaries, behind a linear warm-up; without boundaries, a constant one.

    Keras has the two apart only: `PiecewiseConstantDecay` cannot warm up.

    Args:
        learning_rate: The rate between the warm-up and the first boundary.
        boundaries: Steps from which on one more factor counts.
        factor: What the rate is multiplied by at each boundary.
        warm_up_steps: The rate is `learning_rate * step / warm_up_steps` before this step.
    """

    def __init__(
        self, learning_rate: float, boundaries: tuple[int, ...] = (), factor: float = 0.1, warm_up_steps: int = 0
    ):
        super().__init__()
        self.learning_rate = learning_rate
        self.boundaries = tuple(boundaries)
        self.factor = factor
        self.warm_up_steps = warm_up_steps

    def __call__(self, step):
        rate = ops.convert_to_tensor(self.learning_rate)
        step = ops.cast(step, rate.dtype)
        for k, boundary in enumerate(self.boundaries, 1):
            rate = ops.where(step < boundary, rate, self.learning_rate * self.factor**k)
        if self.warm_up_steps:
            rate = rate * ops.minimum(step / self.warm_up_steps, 1.0)
        return rate

    def get_config(self):
        return {
            "learning_rate": self.learning_rate,
            "boundaries": self.boundaries,
            "factor": self.factor,
            "warm_up_steps": self.warm_up_steps,
        }


SCHEDULES = {function.__name__: function for function in (constant, cosine, step)}
NAMES = tuple(SCHEDULES)
