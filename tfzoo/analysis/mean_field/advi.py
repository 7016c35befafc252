"""Automatic differentiation variational inference (Kucukelbir et al., 2017, https://arxiv.org/abs/1603.00788).

    q(z) = N(m, L L'),   z = m + L e,   e ~ N(0, I)          L diagonal: mean field; lower triangular: full rank
    ELBO = E_e[ln p(T(z)) + ln |dT/dz|] + sum_j ln L_jj + D/2 ln(2 pi e)

T maps the real numbers to where the variables live, such as exp for positive ones. The gradient goes through z, from
pairs e and -e: of a Gaussian density, that makes the gradient for m exact. Adam takes the place of the paper's step
sizes, and its rate falls to 0 along a cosine, so that the noise of the gradient averages out.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tfzoo.layers import arguments

JUDGED = 20_000  # samples of the final ELBO


@dataclass(frozen=True)
class Fitted:
    """q(z) = N(mean, scale scale') of the unconstrained variables.

    Attributes:
        mean: `(D,)`.
        scale: Lower triangular `(D, D)`; diagonal for mean field.
        elbo: In nats, by 20,000 fresh samples. KL(q || p) with its sign changed, where the density is normalised.
        error: The standard error of `elbo`.
        history: The ELBO that every step estimated `(T,)`; noisy, so it does decrease.
    """

    mean: np.ndarray
    scale: np.ndarray
    elbo: float
    error: float
    history: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """`(D, D)`."""
        return self.scale @ self.scale.T

    @property
    def deviations(self) -> np.ndarray:
        """`(D,)`."""
        return np.sqrt(np.diag(self.covariance))


def fit(
    log_density: Callable,
    dimensions: int,
    full_rank: bool = False,
    bijector=None,
    steps: int = 3000,
    samples: int = 16,
    learning_rate: float = 0.05,
    seed: int = 0,
) -> Fitted:
    """Fit a Gaussian to any log density that TensorFlow can differentiate.

    Args:
        log_density: From float64 tensors `(S, D)` to ln p `(S,)`, up to a constant.
        dimensions: D.
        full_rank: Whether the variables may be correlated.
        bijector: T, a `tfp.bijectors.Bijector` of vectors `(D,)`; None where they may be any real numbers.
        steps: Of Adam, from a standard normal q.
        samples: e for each step; half of them are drawn, and half are their negatives.
        learning_rate: Of the first step, in the unit of m and ln L_jj.
        seed: Of every e.

    Returns:
        q and its ELBO.

    Raises:
        ValueError: Names every argument that cannot be, or says that the log density is not finite `(S,)`.
    """
    problems = arguments.positive(dimensions=dimensions, steps=steps, samples=samples)
    problems += arguments.factors(learning_rate=learning_rate) + arguments.switches(full_rank=full_rank)
    if not problems and samples % 2:
        problems.append(f"samples must be even, as they are pairs. Received: samples={samples}")
    arguments.refuse(problems)
    run, terms = functions(log_density, dimensions, full_rank, bijector, steps, samples, learning_rate)
    parameters, history = (found.numpy() for found in run(np.array(seed, "int64")))
    if not np.isfinite(history).all() or not np.isfinite(parameters).all():
        first = np.flatnonzero(~np.isfinite(history))
        raise ValueError(
            "the log density and its gradient must be finite wherever the variables may be. Received: "
            f"{f'an ELBO of {history[first[0]]} at step {first[0]}' if len(first) else 'a gradient that is not'}; "
            "a bijector says where they may be, and a lower learning_rate stays near"
        )
    judged = terms(parameters, np.random.default_rng(seed).normal(size=(JUDGED, dimensions))).numpy()
    return Fitted(
        parameters[:dimensions],
        lower(parameters, dimensions, full_rank),
        float(judged.mean()),
        float(judged.std() / math.sqrt(JUDGED)),
        history,
    )


def functions(
    log_density: Callable,
    dimensions: int,
    full_rank: bool,
    bijector,
    steps: int,
    samples: int,
    learning_rate: float,
) -> tuple[Callable, Callable]:
    """Give two graphs: of all steps, from a seed to the parameters and the ELBOs; and of the ELBO's terms `(S,)`."""
    import tensorflow as tf

    below = tf.constant(np.stack(np.tril_indices(dimensions, -1), 1)) if full_rank else None
    size = 2 * dimensions + (dimensions * (dimensions - 1) // 2 if full_rank else 0)

    def terms(parameters, noise):
        mean, log_scale = parameters[:dimensions], parameters[dimensions : 2 * dimensions]
        z = mean + tf.exp(log_scale) * noise
        if full_rank:
            z += noise @ tf.transpose(tf.scatter_nd(below, parameters[2 * dimensions :], [dimensions, dimensions]))
        entropy = tf.reduce_sum(log_scale) + dimensions / 2 * math.log(2 * math.pi * math.e)
        if bijector is None:
            found = log_density(z)
        else:
            found = log_density(bijector.forward(z)) + bijector.forward_log_det_jacobian(z, 1)
        if found.shape.rank != 1:
            raise ValueError(f"the log density must be one number for each row, (S,). Received: {found.shape}")
        return found + entropy

    def step(number, parameters, first, second, seed, history):
        half = tf.random.stateless_normal([samples // 2, dimensions], tf.stack([seed, number]), dtype="float64")
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            elbo = tf.reduce_mean(terms(parameters, tf.concat([half, -half], 0)))
        slope = tape.gradient(elbo, parameters)
        done = tf.cast(number, "float64")
        rate = learning_rate * (1 + tf.cos(math.pi * done / steps)) / 2
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        unbiased = first / (1 - 0.9 ** (done + 1)), second / (1 - 0.999 ** (done + 1))
        parameters += rate * unbiased[0] / (tf.sqrt(unbiased[1]) + 1e-8)
        return number + 1, parameters, first, second, seed, history.write(tf.cast(number, "int32"), elbo)

    @tf.function(input_signature=[tf.TensorSpec([], "int64")])
    def run(seed):
        # (D,) of m, (D,) of ln L_jj, and what L has below its diagonal: a standard normal distribution
        zeros = tf.zeros(size, "float64")
        state = (tf.constant(0, "int64"), zeros, zeros, zeros, seed, tf.TensorArray("float64", steps))
        state = tf.while_loop(lambda number, *_: number < steps, step, state)
        return state[1], state[-1].stack()

    signature = [tf.TensorSpec([None], "float64"), tf.TensorSpec([None, dimensions], "float64")]
    return run, tf.function(terms, input_signature=signature)


def lower(parameters: np.ndarray, dimensions: int, full_rank: bool) -> np.ndarray:
    """Give L `(D, D)`."""
    scale = np.diag(np.exp(parameters[dimensions : 2 * dimensions]))
    if full_rank:
        scale[np.tril_indices(dimensions, -1)] = parameters[2 * dimensions :]
    return scale
