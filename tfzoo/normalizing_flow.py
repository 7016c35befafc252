"""Normalizing flows: densities by invertible steps from the data x to normal noise z.

    x - block0 - block1 - ... - z          log p(x) = log N(z; 0, 1) + sum_k log |det of block k|

| kind | paper | density | inverse, samples |
|---|---|---|---|
| planar, radial | Rezende & Mohamed, 2015, https://arxiv.org/abs/1505.05770 | one pass | bisection; closed form |
| realnvp | Dinh et al., 2017, https://arxiv.org/abs/1605.08803 | one pass | one pass |
| spline | Durkan et al., 2019, https://arxiv.org/abs/1906.04032 | one pass | one pass |
| maf | Papamakarios et al., 2017, https://arxiv.org/abs/1705.07057 | one pass | D passes, one number after the other |

`tfzoo.flows` has a file for each. Unlike in the papers there is no batch normalization between the blocks, which would
make the density of an example one of its batch.
"""

import functools
import math
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tfzoo.flows import autoregressive, coupling, planar, radial, spline
from tfzoo.layers import arguments
from tfzoo.training.distributed_fit import scale_loss
from tfzoo.variational.model import in_chunks, looked_at, normal

SIZES = {
    "digits": {},
    "realnvp": {"kind": "realnvp", "blocks": 8, "units": (256, 256)},
    "planar": {"kind": "planar", "blocks": 32},
    "radial": {"kind": "radial", "blocks": 32},
    # Of the plane, such as two moons.
    "plane": {
        "shape": (2,),
        "kind": "spline",
        "blocks": 2,
        "units": (128, 128),
        "dropout": 0.0,
        "bound": 4.0,
        "bins": 16,
    },
    "tiny": {"kind": "realnvp", "blocks": 2, "units": (16,), "dropout": 0.0},
}
PARAMETERS = {"digits": 247_680, "realnvp": 922_624, "planar": 4_128, "radial": 2_112, "plane": 58_044, "tiny": 6_432}
ABLE = ("sample",)
KINDS = ("planar", "radial", "realnvp", "spline", "maf")


class NormalizingFlow(keras.Model):
    """A density over arrays of one shape, and its inverse.

    Args:
        flow: From x `(B, *shape)` to `latent` `(B, D)` and `log_determinant` `(B,)`.
        back: From z `(B, D)`, tensors, to x, the same.
        inverse_network: That of "realnvp" and "spline", of the same weights: from z `(B, D)` to x `(B, *shape)`.
        levels: Greys of the pictures that it is about.
    """

    def __init__(self, flow: keras.Model, back: Callable, inverse_network: keras.Model | None, levels: int):
        super().__init__(name="normalizing_flow")
        self.flow, self.levels = flow, levels
        if inverse_network is not None:
            self.inverse_network = inverse_network
        self.back = tf.function(back, autograph=False, reduce_retracing=True)
        self.density = tf.function(lambda x: self(x, training=False), autograph=False, reduce_retracing=True)
        self.log_likelihood = keras.metrics.Mean(name="log_likelihood")
        self.built = True  # as its networks are

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Of the data, `(None, *shape)`."""
        return self.flow.input_shape

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """Of what `sample` gives, the same."""
        return self.flow.input_shape

    def base(self):
        """Give the density of z, a `tfd.Independent` of standard normal distributions `(D,)`."""
        from tensorflow_probability import distributions as tfd

        return tfd.Independent(tfd.Normal(ops.zeros(math.prod(self.input_shape[1:])), 1.0), 1)

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Give log p(x) in nats, `(B, *shape)` to `(B,)`."""
        found = self.flow(x, training=bool(training))
        latent, log_determinant = (ops.cast(found[k], keras.backend.floatx()) for k in ("latent", "log_determinant"))
        return self.base().log_prob(latent) + log_determinant

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training: bool = True) -> tf.Tensor:
        """Give the mean negative log-likelihood of the examples, in nats."""
        return scale_loss(-ops.mean(y_pred))

    def compute_metrics(self, x, y, y_pred, sample_weight=None) -> dict[str, tf.Tensor]:
        """Add up the log-likelihood."""
        self.log_likelihood.update_state(y_pred)
        return self.get_metrics_result()

    def fit(self, x=None, *args, **kwargs):
        """Train as `keras.Model.fit` does.

        Raises:
            ValueError: The data, or the first batch of a data set, is none that a density can be of.
        """
        self.check(x)
        return super().fit(x, *args, **kwargs)

    def check(self, data) -> None:
        """Refuse data of another shape, NaN, and whole numbers; of a data set the first batch is looked at."""
        data, shape, problems = looked_at(data), self.input_shape[1:], []
        if data is None:
            return
        if data.shape[1:] != shape:
            problems.append(f"{self.name} takes arrays of the shape {shape}. Received: {data.shape[1:]}")
        if np.issubdtype(data.dtype, np.floating) and not np.isfinite(data).all():
            problems.append(f"{np.sum(~np.isfinite(data)):,} value(s) of the data are NaN or infinite: leave those out")
        if not np.issubdtype(data.dtype, np.floating) or (data.size and (data == np.round(data)).all()):
            problems.append(
                "a density over numbers is without bound at values that are repeated: add noise of a level's width to "
                f"whole numbers, (k + u) / (levels - 1). Received: {data.dtype} of whole numbers"
            )
        arguments.refuse(problems)

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Give log p(x) in nats, `(N, *shape)` to `(N,)`, in one parallel pass."""
        return in_chunks(self.density, x)

    def inverse(self, z: np.ndarray) -> np.ndarray:
        """Give the x `(N, *shape)` of noise `(N, D)`.

        One parallel pass for "realnvp" and "spline", D passes for "maf", bisection for "planar", a closed form for
        "radial".
        """
        found = in_chunks(self.back, z)
        return found.reshape(len(found), *self.input_shape[1:]).astype(keras.backend.floatx())

    def sample(self, count: int, seed: int = 0) -> np.ndarray:
        """Draw examples `(count, *shape)`; the first ones do not depend on how many there are."""
        return self.inverse(normal(count, (math.prod(self.input_shape[1:]),), seed))


@arguments.plain
def normalizing_flow(
    shape: tuple[int, ...] = (8, 8, 1),
    kind: str = "maf",
    blocks: int = 5,
    units: tuple[int, ...] = (256,),
    activation: str = "relu",
    dropout: float = 0.2,
    bound: float = 3.0,
    bins: int = 8,
    levels: int = 17,
) -> NormalizingFlow:
    """Build a normalizing flow.

    Args:
        shape: Of an example: a picture's `(H, W, C)`, a vector's `(D,)`, or any other.
        kind: "planar", "radial", "realnvp", "spline" or "maf".
        blocks: Steps.
        units: Hidden layers of the network of a step, for "realnvp", "spline" and "maf".
        activation: Of these.
        dropout: Share of their units.
        bound: Of the logarithm of a scale, for "realnvp" and "maf"; of "spline" the numbers beyond which y is x.
        bins: Of a spline.
        levels: Greys of the pictures that the recipe adds noise to.

    Returns:
        A `NormalizingFlow` of one network, `flow`, from `(B, *shape)` to `latent` `(B, D)` and `log_determinant`
        `(B,)`; "realnvp" and "spline" have another one, `inverse_network`, of the same weights.

    Raises:
        ValueError: Names every argument that cannot be.
    """
    check(shape, kind, blocks, units, activation, dropout, bound, bins, levels)
    size = math.prod(shape)
    module = {"planar": planar, "radial": radial, "realnvp": coupling, "spline": spline, "maf": autoregressive}[kind]
    with_network = {"units": units, "activation": activation, "dropout": dropout, "bound": bound}
    steps = []
    for k in range(blocks):
        x = keras.Input((size,), name="x")
        options = with_network if kind in ("realnvp", "spline", "maf") else {}
        options = options | ({"kept": coupling.mask(shape, k)} if kind in ("realnvp", "spline") else {})
        options = options | ({"bins": bins} if kind == "spline" else {})
        steps.append(keras.Model(x, module.parameters(x, **options), name=f"block{k}"))

    reverses = kind == "maf"
    x = given = keras.Input(shape, name="x")
    x, total = layers.Flatten(name="flat")(x), 0.0  # (B, D)
    for k, step in enumerate(steps):
        if reverses and k:
            x = ops.flip(x, -1)  # what came last in a block comes first in the next
        x, log_determinant = module.forward(x, *step(x))
        total = total + log_determinant
    flow = keras.Model(given, {"latent": x, "log_determinant": total}, name="flow")

    def back(z):
        for k, step in reversed(list(enumerate(steps))):
            z = module.inverse(z, functools.partial(step, training=False))
            z = ops.flip(z, -1) if reverses and k else z
        return z

    network = None
    if kind in ("realnvp", "spline"):
        z = noise = keras.Input((size,), name="z")
        for step in reversed(steps):
            z = module.inverse(z, step)
        network = keras.Model(noise, layers.Reshape(shape, name="example")(z), name="inverse")
    return NormalizingFlow(flow, back, network, levels)


def signatures(networks: dict[str, keras.Model]):
    """Give what an export serves: `x` to its latent and its log-likelihood, and `decode`, `latent` to x, if it can."""
    from tfzoo.export.signatures import DEFAULT, Signature

    flow = networks["flow"]

    def likelihood(x):
        found = flow(x, training=False)
        size = found["latent"].shape[-1]
        squares = ops.sum(ops.square(found["latent"]), -1)
        nats = found["log_determinant"] - (squares + size * math.log(2 * math.pi)) / 2
        return {"latent": found["latent"], "log_likelihood": nats}

    served = {DEFAULT: Signature(likelihood, (tf.TensorSpec(flow.input_shape, "float32", "x"),))}
    if "inverse_network" in networks:
        inverse = networks["inverse_network"]
        latent = tf.TensorSpec(inverse.input_shape, "float32", "latent")
        served["decode"] = Signature(lambda latent: {"x": inverse(latent, training=False)}, (latent,))
    return served


def check(shape, kind, blocks, units, activation, dropout, bound, bins, levels) -> None:
    """Raise one ValueError that names every argument of another type or out of range."""
    problems = []
    if kind in ("realnvp", "spline") and arguments.positives(shape=shape) == [] and math.prod(shape) < 2:
        problems.append(f"{kind} leaves half of the numbers as they are, so it takes two or more. Received: {shape=}")
    if not arguments.is_positive(bins) or not 2 <= bins <= spline.MOST:
        problems.append(f"bins must be an integer from 2 to {spline.MOST}. Received: bins={bins!r}")
    if not isinstance(levels, int) or isinstance(levels, bool) or levels < 2:
        problems.append(f"levels must be an integer from 2. Received: levels={levels!r}")
    arguments.refuse(
        problems,
        arguments.positives(shape=shape),
        arguments.among(KINDS, kind=kind),
        arguments.positive(blocks=blocks),
        arguments.positives(units=units),
        arguments.rates(dropout=dropout),
        arguments.factors(bound=bound),
        arguments.activations(activation=activation),
        arguments.idle(normalizing_flow, "kind='spline'", bins=bins) if kind != "spline" else [],
    )
