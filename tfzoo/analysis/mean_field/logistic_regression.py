"""Bayesian logistic regression by the bound of Jaakkola and Jordan (2000) (Bishop, 2006, section 10.6).

    y_n ~ Bernoulli(s(w . x_n)),   w_j ~ N(0, 1/alpha),   s(a) = 1/(1 + exp(-a))

    s(a) >= s(t) exp((a - t)/2 - l(t) (a^2 - t^2)),   l(t) = tanh(t/2)/(4 t)

With a t_n for each row, the bound is a Gaussian in w, and q(w) and t take turns:

    A = alpha I + 2 sum l(t_n) x_n x_n',   m = A^-1 sum (y_n - 1/2) x_n
    S = A^-1, or of a mean field 1/A_jj on the diagonal
    t_n^2 = E_q[(w . x_n)^2]

The means are updated together, as their optimum is that of a linear system whatever the variances are. A lower bound
on the ELBO goes up, so the ELBO of the q found is higher still: `elbo` gives it. `log_density` is what `advi` and `hmc`
take.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, log_expit

from tfzoo.analysis.mean_field import ascent, checks
from tfzoo.layers import arguments

NODES = 64  # of the Gauss-Hermite rule over one activation


@dataclass(frozen=True)
class Fitted:
    """q(w) = N(mean, covariance).

    Attributes:
        mean: `(D,)`.
        covariance: `(D, D)`; diagonal for mean field.
        elbo: The lower bound on the ELBO, in nats, after every update `(T,)`.
        converged: Whether the tolerance was reached.
    """

    mean: np.ndarray
    covariance: np.ndarray
    elbo: np.ndarray
    converged: bool

    @property
    def deviations(self) -> np.ndarray:
        """`(D,)`."""
        return np.sqrt(np.diag(self.covariance))


def fit(
    x: np.ndarray,
    y: np.ndarray,
    precision: float = 1.0,
    factorised: bool = True,
    tolerance: float = 1e-10,
    iterations: int = 10_000,
) -> Fitted:
    """Fit q(w) by coordinate ascent.

    Args:
        x: `(N, D)`; a column of ones for an intercept, which has the prior of the others.
        y: `(N,)`, 0 or 1.
        precision: alpha; 1 suits columns of scale 1.
        factorised: Whether q(w) is a mean field; else it has a full covariance.
        tolerance: As `ascent.ascend` has it.
        iterations: The most updates.

    Returns:
        q(w), and the bound after every update.

    Raises:
        ValueError: Names everything that cannot be.
    """
    x, y = check(x, y, precision)
    arguments.refuse(arguments.switches(factorised=factorised))
    target = x.T @ (y - 0.5)

    def update(state):
        *_, t = state
        curvature = precision * np.eye(x.shape[1]) + 2 * (x.T * slope(t)) @ x
        mean = np.linalg.solve(curvature, target)
        covariance = np.diag(1 / np.diag(curvature)) if factorised else np.linalg.inv(curvature)
        t = np.sqrt((x @ mean) ** 2 + variances(x, covariance))
        # l(t) meets E[a^2] - t^2 = 0 here
        likelihood = (log_expit(t) - t / 2).sum() + target @ mean
        return (mean, covariance, t), likelihood - divergence(mean, covariance, precision)

    (mean, covariance, _), bound, converged = ascent.ascend(
        update, (None, None, np.ones(len(x))), tolerance, iterations
    )
    return Fitted(mean, covariance, bound, converged)


def slope(t: np.ndarray) -> np.ndarray:
    """Give l(t), which is 1/8 at 0."""
    near = t < 1e-4
    safe = np.where(near, 1.0, t)
    return np.where(near, 0.125, np.tanh(safe / 2) / (4 * safe))


def variances(x: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Give the variance of w . x_n `(N,)`."""
    return ((x @ covariance) * x).sum(1)


def divergence(mean: np.ndarray, covariance: np.ndarray, precision: float) -> float:
    """Give KL(q || prior) in nats."""
    squares = precision * (mean @ mean + np.trace(covariance))
    return (squares - len(mean) * (1 + math.log(precision)) - np.linalg.slogdet(covariance)[1]) / 2


def elbo(x: np.ndarray, y: np.ndarray, mean: np.ndarray, covariance: np.ndarray, precision: float = 1.0) -> float:
    """Give the ELBO of a Gaussian q(w) by Gauss-Hermite quadrature: w . x_n is one normal variable.

    Args:
        x: `(N, D)`.
        y: `(N,)`, 0 or 1.
        mean: Of q `(D,)`.
        covariance: Of q `(D, D)`.
        precision: alpha.

    Raises:
        ValueError: Names everything that cannot be.
    """
    x, y = check(x, y, precision)
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    activation = (x @ mean)[:, None] + np.sqrt(variances(x, covariance))[:, None] * nodes
    signs = (2 * y - 1)[:, None]
    likelihood = (log_expit(signs * activation) @ weights).sum() / math.sqrt(2 * math.pi)
    return float(likelihood - divergence(mean, covariance, precision))


def log_density(x: np.ndarray, y: np.ndarray, precision: float = 1.0) -> Callable:
    """Give ln p(y, w) as a function of float64 tensors w `(S, D)`, for `advi.fit` and `hmc.sample`.

    Args:
        x: `(N, D)`.
        y: `(N,)`, 0 or 1.
        precision: alpha.

    Raises:
        ValueError: Names everything that cannot be.
    """
    x, y = check(x, y, precision)
    import tensorflow as tf
    from tensorflow_probability import distributions as tfd

    prior = tfd.Sample(tfd.Normal(tf.constant(0.0, "float64"), precision**-0.5), x.shape[1])
    columns = tf.constant(x.T)  # (D, N)

    def joint(w):
        likelihood = tfd.Bernoulli(logits=w @ columns).log_prob(y)  # (S, N)
        return tf.reduce_sum(likelihood, -1) + prior.log_prob(w)

    return joint


def predict(x: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Give P(y = 1) `(N,)` under a Gaussian q(w), by the same quadrature.

    Args:
        x: `(N, D)`.
        mean: Of q `(D,)`.
        covariance: Of q `(D, D)`.

    Raises:
        ValueError: x cannot be.
    """
    arguments.refuse(checks.finite(2, x=x))
    x = np.asarray(x, "float64")
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    activation = (x @ mean)[:, None] + np.sqrt(variances(x, covariance))[:, None] * nodes
    return expit(activation) @ weights / math.sqrt(2 * math.pi)


def check(x, y, precision) -> tuple[np.ndarray, np.ndarray]:
    """Raise a ValueError for what cannot be; give the data in float64."""
    problems = checks.finite(2, x=x) + checks.labels(y)
    problems += [] if problems else checks.as_many(x, y)
    arguments.refuse(problems, arguments.factors(precision=precision))
    return np.asarray(x, "float64"), np.asarray(y, "float64")
