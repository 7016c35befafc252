"""The `train_step` of models with two optimizers: a generator, and a critic (or discriminator) of what it makes.

    batch -- critic_loss -- gradients of the critic's weights -- critic_optimizer -----'  critic_steps times
    batch -- generator_loss -- gradients of the generator's weights -- generator_optimizer   then once

All steps of one batch see the same examples, with new random draws: the critic of WGAN (Arjovsky et al., 2017,
https://arxiv.org/abs/1701.07875) learns `n_critic` times from new examples, which here would take batches `n_critic`
times as large. Every loss is the mean over a replica's own examples; it is scaled for `tf.distribute` and, under
mixed_float16, for its gradients here.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfzoo.training import draws
from tfzoo.training.distributed_fit import scale_loss, unscale_loss


class TwoOptimizers(keras.Model):
    """A generator and a critic that learn in turns. A family gives `generator_loss` and `critic_loss`.

    It has no `call`: the networks are used, saved and loaded on their own.

    Args:
        generator: A built model; its loss is the generator's.
        critic: A built model; learns first.
        critic_steps: How often the critic learns from a batch before the generator does.
        seed: Seed of `draw`. Its state is one of the model's `variables`, which checkpoints keep; Keras' weights files
            leave it out, as they do every layer's seed.
    """

    def __init__(
        self, generator: keras.Model, critic: keras.Model, critic_steps: int = 1, seed: int | None = None, **kwargs
    ):
        super().__init__(**kwargs)
        for name, network in (("generator", generator), ("critic", critic)):
            if not network.built:
                raise ValueError(
                    f"compile() makes the state of both optimizers, so the networks must have their weights. "
                    f"The {name} is not built: call it once, or give it an input shape. Received: {network}"
                )
        self.generator = generator
        self.critic = critic
        self.critic_steps = critic_steps
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.generator_loss_tracker = keras.metrics.Mean(name="generator_loss")
        self.critic_loss_tracker = keras.metrics.Mean(name="critic_loss")
        self.built = True  # no input shapes of its own; without this, load_weights would refuse

    def generator_loss(self, batch: Any) -> tf.Tensor:
        """Give the generator's loss, a float32 scalar: the mean over the examples of the batch."""
        raise NotImplementedError

    def critic_loss(self, batch: Any) -> tf.Tensor:
        """Give the critic's loss, a float32 scalar: the mean over the examples of the batch."""
        raise NotImplementedError

    def compile(
        self, generator_optimizer: keras.optimizers.Optimizer, critic_optimizer: keras.optimizers.Optimizer, **kwargs
    ) -> None:
        """Set both optimizers, and make their state at once: `load_weights` leaves out what an optimizer lacks.

        Args:
            generator_optimizer: Of the generator's trainable weights.
            critic_optimizer: Of the critic's trainable weights; another than the generator's.
            **kwargs: Options of `keras.Model.compile`, such as `run_eagerly`.
        """
        super().compile(optimizer=None, **kwargs)  # Keras' default is an RMSprop that nobody would use
        self.generator_optimizer = self._built(generator_optimizer, self.generator)
        self.critic_optimizer = self._built(critic_optimizer, self.critic)

    def _built(self, optimizer, network):
        if self.dtype_policy.name == "mixed_float16" and not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        if not optimizer.built:
            with self.distribute_strategy.scope():
                optimizer.build(network.trainable_variables)
        return optimizer

    @property
    def metrics(self) -> list[keras.Metric]:
        """Leave out the one loss of `compile`, which this model has not; with it, Keras logs only the last step."""
        return [metric for metric in super().metrics if metric.name != "loss"]

    def draw(self, distribution: Callable, batch: Any, shape: tuple[int, ...], **options) -> tf.Tensor:
        """Draw random numbers for a replica's examples: those that one device would draw for them.

        Args:
            distribution: A function of `keras.random`, such as `keras.random.normal`.
            batch: What the loss was given; its first axis counts the examples.
            shape: Of one example's numbers.
            **options: Further arguments of the distribution.

        Returns:
            Random numbers `(B, *shape)`, other ones at every call.
        """
        return draws.draw(distribution, batch, shape, self.seed_generator, **options)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        for _ in range(self.critic_steps):
            self._learn(self.critic, self.critic_loss, self.critic_optimizer, self.critic_loss_tracker, data)
        self._learn(self.generator, self.generator_loss, self.generator_optimizer, self.generator_loss_tracker, data)
        return self.get_metrics_result()

    def _learn(self, network, compute_loss, optimizer, tracker, data):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([variable.value for variable in network.trainable_variables])
            loss = scale_loss(compute_loss(data))
            scaled = optimizer.scale_loss(loss)
        tracker.update_state(unscale_loss(loss), sample_weight=draws.examples(data))
        variables = network.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(scaled, variables), variables, strict=True))
