"""The learning rate among the logs, where every callback that comes later finds it."""

import keras

from tfzoo.training.checkpoint import optimizers


class LearningRates(keras.callbacks.Callback):
    """Add the learning rate that an epoch ends with to its logs, as Keras' own schedulers do.

    One optimizer's is `learning_rate`; of several, such as `generator_optimizer`, `generator_learning_rate`.
    """

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Add it."""
        logs |= rates(self.model)


def rates(model: keras.Model) -> dict[str, float]:
    """Give the learning rate that each optimizer of a model has now, by its name in the logs."""
    found = optimizers(model)
    if len(found) == 1:
        return {"learning_rate": now(found[0])}
    attributes = {id(value): name for name, value in vars(model).items() if isinstance(name, str)}
    names = [attributes.get(id(each), f"optimizer_{i}").removesuffix("_optimizer") for i, each in enumerate(found)]
    return {f"{name}_learning_rate": now(each) for name, each in zip(names, found, strict=True)}


def now(optimizer: keras.optimizers.Optimizer) -> float:
    """Give the learning rate that an optimizer would take its next step with."""
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))
