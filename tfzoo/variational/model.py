"""A model of several networks that learns by a bound on the log-likelihood, and what can be done with it.

It is trained by Keras' `fit`; its networks are used, saved, exported and carried to PyTorch one by one.
"""

import warnings
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfzoo.training import draws
from tfzoo.training.distributed_fit import scale_loss
from tfzoo.variational.likelihood import Likelihood, picture
from tfzoo.variational.objective import Objective

CHUNK = 256  # examples that a network is given at once
FAR = 10  # beyond it an untrained encoder's variances are: the exponential of its output
Draw = Callable[[tuple[int, ...]], tf.Tensor]  # from the shape of one example's noise to that of all, (B, *shape)


class Variational(keras.Model):
    """Networks that learn together by a bound. A family gives `terms`.

    Args:
        networks: By their names, the one that takes pictures first.
        likelihood: Of pictures, by what the decoder gives.
        objective: What `fit` lowers.
        name: The family's.
    """

    def __init__(self, networks: dict[str, keras.Model], likelihood: Likelihood, objective: Objective, name: str):
        super().__init__(name=name)
        for key, network in networks.items():
            setattr(self, key, network)
        self.input_network = next(iter(networks))
        self.likelihood, self.objective = likelihood, objective
        self.seed_generator = keras.random.SeedGenerator()
        self.elbo_tracker = keras.metrics.Mean(name="elbo")
        self.divergence_tracker = keras.metrics.Mean(name="divergence")
        self.built = True  # as its networks are

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Of pictures, `(None, H, W, C)`."""
        return getattr(self, self.input_network).input_shape

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """Of pictures that come back, the same."""
        return self.input_shape

    def terms(self, pictures: tf.Tensor, draw: Draw, training: bool = False, analytic: bool = True):
        """Give the log-likelihood and the divergence, by a latent drawn from the posterior.

        Args:
            pictures: `(B, H, W, C)`.
            draw: Draws standard normal numbers.
            training: As Keras has it.
            analytic: Give the divergence in closed form where there is one, not log q(z|x) - log p(z) of the latent.

        Returns:
            log p(x|z) `(B,)`, and the divergence of each latent or group of them, `(B, K)`, in nats.
        """
        raise NotImplementedError

    def call(self, pictures: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        """Give the `terms` by new draws."""

        def draw(shape):
            return draws.draw(keras.random.normal, pictures, shape, self.seed_generator)

        found = self.terms(pictures, draw, bool(training), self.objective.analytic)
        return dict(zip(("log_likelihood", "divergence"), found, strict=True))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training: bool = True) -> tf.Tensor:
        """Give the objective's loss, the mean over the examples; what is judged is judged by its end."""
        step = self.optimizer.iterations if training else None
        losses = self.objective.loss(y_pred["log_likelihood"], y_pred["divergence"], step)
        return scale_loss(ops.mean(losses))

    def compute_metrics(self, x, y, y_pred, sample_weight=None) -> dict[str, tf.Tensor]:
        """Add up the bound and the divergence."""
        divergence = ops.sum(y_pred["divergence"], -1)
        self.elbo_tracker.update_state(y_pred["log_likelihood"] - divergence)
        self.divergence_tracker.update_state(divergence)
        return self.get_metrics_result()

    def fit(self, x=None, *args, **kwargs):
        """Train as `keras.Model.fit` does.

        Raises:
            ValueError: The pictures, or the first batch of a data set, are none that the decoder can give, or those for
                validation.
        """
        data = self.check(x)
        self.check(kwargs.get("validation_data"))
        if data is not None and (most := np.abs(data.astype("float32")).max()) > FAR:
            warnings.warn(
                f"pictures with values up to {most:g} in size may let the first steps overflow: divide them, such as "
                "bytes by 255",
                stacklevel=2,
            )
        return super().fit(x, *args, **kwargs)

    def check(self, data) -> np.ndarray | None:
        """Refuse pictures that the decoder cannot give; of a data set the first batch is looked at, and given."""
        data = looked_at(data)
        if data is None:
            return None
        shape, given = self.input_shape[1:], tuple(data.shape[1:])
        if len(shape) != len(given) or any(n is not None and n != m for n, m in zip(shape, given, strict=True)):
            raise ValueError(f"{self.name} takes pictures of the shape {shape}. Received: {given}")
        if problems := self.likelihood.check(data):
            raise ValueError("\n".join(problems))
        return data


class Autoencoder(Variational):
    """A variational model with a row of latents for each picture. A family gives `encode`, too."""

    def encode(self, pictures: np.ndarray) -> np.ndarray:
        """Give a latent for each picture `(B, H, W, C)`: the mean of its posterior `(B, K)`."""
        raise NotImplementedError

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Give the mean picture of each latent `(B, K)`: `(B, H, W, C)`."""
        return in_chunks(lambda z: picture(self.decoder(z, training=False)), latents)

    def reconstruct(self, pictures: np.ndarray) -> np.ndarray:
        """Give pictures as they come back: `(B, H, W, C)` to the same."""
        return self.decode(self.encode(pictures))

    def sample(self, count: int, seed: int = 0) -> np.ndarray:
        """Draw pictures `(count, H, W, C)`: the mean picture of latents from the prior."""
        return self.decode(normal(count, self.decoder.input_shape[1:], seed))

    def interpolate(self, first: np.ndarray, last: np.ndarray, steps: int) -> np.ndarray:
        """Give pictures on the straight way between the latents of two `(H, W, C)`: `(steps, H, W, C)`."""
        ends = self.encode(np.stack([first, last]))
        shares = np.linspace(0, 1, steps).reshape(-1, *[1] * (ends.ndim - 1))
        return self.decode((1 - shares) * ends[0] + shares * ends[1])

    def traverse(self, picture: np.ndarray, values: Sequence[float]) -> np.ndarray:
        """Change one latent of a picture `(H, W, C)` after the other: `(K, len(values), H, W, C)`."""
        latent = self.encode(picture[None])[0]
        changed = np.tile(latent, (latent.size, len(values), 1))
        for i in range(latent.size):
            changed[i, :, i] = values
        pictures = self.decode(changed.reshape(-1, latent.size))
        return pictures.reshape(latent.size, len(values), *pictures.shape[1:])


def looked_at(data) -> np.ndarray | None:
    """Give what of `fit`'s data is looked at before: an array, or the first batch of a data set; None of others."""
    if isinstance(data, tf.data.Dataset):
        first = keras.tree.flatten(data.element_spec)[0]
        empty = np.zeros([n or 0 for n in (first.shape if first.shape.rank else (0,))])
        data = next(iter(data.take(1).as_numpy_iterator()), empty)
    elif isinstance(data, keras.utils.PyDataset) and len(data):
        data = data[0]
    data = data[0] if isinstance(data, (tuple, list)) and data else data
    return np.asarray(data) if isinstance(data, (np.ndarray, tf.Tensor)) else None


def in_chunks(function: Callable, *arrays: np.ndarray) -> np.ndarray:
    """Apply a function to some examples at a time."""
    count = len(arrays[0])
    if not count:
        raise ValueError("nothing can be made of no examples: give one or more")
    parts = [
        np.asarray(function(*(np.asarray(a[i : i + CHUNK], keras.backend.floatx()) for a in arrays)))
        for i in range(0, count, CHUNK)
    ]
    return np.concatenate(parts)


def normal(count: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Draw standard normal numbers `(count, *shape)`; the first ones do not depend on how many there are."""
    return np.random.default_rng([*b"latent", seed]).normal(size=(count, *shape)).astype(keras.backend.floatx())
