"""A mixture of Gaussians, by q(Z) q(pi, mu, Lambda) (Bishop, 2006, section 10.2).

    x_n | z_n = k ~ N(mu_k, 1/Lambda_k),   z_n ~ pi,   pi ~ Dirichlet(a0)
    mu_k | Lambda_k ~ N(m0, 1/(l0 Lambda_k)),   Lambda_k ~ Wishart(W0, v0)

    ln r_nk = E[ln pi_k] + E[ln |Lambda_k|]/2 - E[(x_n - mu_k)' Lambda_k (x_n - mu_k)]/2 + constant of n
    a_k = a0 + N_k,   l_k = l0 + N_k,   v_k = v0 + N_k,   m_k = (l0 m0 + N_k mean_k)/l_k
    W_k^-1 = W0^-1 + N_k S_k + l0 N_k/l_k (mean_k - m0)(mean_k - m0)'

with N_k, mean_k, S_k the counts, means and covariances weighted by r. q(pi, mu, Lambda) is the exact posterior for
counts that may be fractions, so the ELBO after its update is the evidence of known assignments, and the entropy of r:

    ELBO = ln evidence(r) - sum_nk r_nk ln r_nk

The posterior has a mode for every order of the components. q settles on one: that alone costs up to ln K! nats.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, gammaln, logsumexp, multigammaln, xlogy

from tfzoo.analysis.mean_field import ascent, checks
from tfzoo.layers import arguments

MOST = 200_000  # assignments that `log_evidence` sums over


@dataclass(frozen=True)
class Prior:
    """The Dirichlet and Normal-Wishart prior; the defaults say little about data of scale 1 around 0.

    Attributes:
        concentration: a0; below 1 it empties components that are not needed.
        mean: m0 `(D,)`, or one number for all.
        strength: l0, in observations.
        scale: W0^-1 is this many times the identity, in the data's unit squared.
        degrees: v0, above D - 1; None for D + 1, at which correlations are uniform.
    """

    concentration: float = 0.1
    mean: np.ndarray | float = 0.0
    strength: float = 0.01
    scale: float = 1.0
    degrees: float | None = None


@dataclass(frozen=True)
class Parameters:
    """A Dirichlet and K Normal-Wishart distributions.

    Attributes:
        concentration: a `(K,)`.
        mean: m `(K, D)`.
        strength: l `(K,)`.
        inverse_scale: W^-1 `(K, D, D)`.
        degrees: v `(K,)`.
    """

    concentration: np.ndarray
    mean: np.ndarray
    strength: np.ndarray
    inverse_scale: np.ndarray
    degrees: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """E[pi] `(K,)`."""
        return self.concentration / self.concentration.sum()

    @property
    def covariance(self) -> np.ndarray:
        """1/E[Lambda] `(K, D, D)`."""
        return self.inverse_scale / self.degrees[:, None, None]


@dataclass(frozen=True)
class MeanField:
    """q(Z) and q(pi, mu, Lambda).

    Attributes:
        responsibilities: r `(N, K)`.
        parameters: Of q(pi, mu, Lambda).
        elbo: In nats, after every update `(T,)`.
        converged: Whether the tolerance was reached.
    """

    responsibilities: np.ndarray
    parameters: Parameters
    elbo: np.ndarray
    converged: bool


def fit(
    x: np.ndarray,
    components: int,
    prior: Prior | None = None,
    seed: int = 0,
    starts: int = 1,
    tolerance: float = 1e-10,
    iterations: int = 5000,
) -> MeanField:
    """Fit q(Z) q(pi, mu, Lambda) by coordinate ascent.

    Args:
        x: `(N, D)`.
        components: K.
        prior: None for `Prior()`.
        seed: Of the start: centres drawn far apart as k-means++ does, and every row given to the nearest.
        starts: How many are tried; the one of the highest ELBO is kept, as each comes to a local optimum.
        tolerance: As `ascent.ascend` has it.
        iterations: The most updates of each start; emptying a component can take hundreds.

    Returns:
        The factors, and the ELBO after every update.

    Raises:
        ValueError: Names everything that cannot be.
    """
    prior = prior or Prior()
    x = check(x, prior, components=components, starts=starts)
    random = np.random.default_rng(seed)

    def update(state):
        responsibilities = assign(x, state)
        state = posterior(x, responsibilities, prior)
        return state, bound(x, responsibilities, state, prior)

    def run():
        state = posterior(x, nearest(x, components, random), prior)
        state, elbo, converged = ascent.ascend(update, state, tolerance, iterations)
        return MeanField(assign(x, state), state, elbo, converged)

    return max((run() for _ in range(starts)), key=lambda found: found.elbo[-1])


def nearest(x: np.ndarray, components: int, random: np.random.Generator) -> np.ndarray:
    """Give every row to the nearest of K centres, each drawn by its squared distance to those before (N, K)."""
    centres = x[[random.integers(len(x))]]
    for _ in range(components - 1):
        distance = ((x[:, None] - centres) ** 2).sum(-1).min(1)
        chance = distance / distance.sum() if distance.any() else None
        centres = np.concatenate([centres, x[[random.choice(len(x), p=chance)]]])
    return np.eye(components)[((x[:, None] - centres) ** 2).sum(-1).argmin(1)]


def assign(x: np.ndarray, q: Parameters) -> np.ndarray:
    """Give the responsibilities `(N, K)`."""
    dimensions = x.shape[1]
    root = np.linalg.cholesky(q.inverse_scale)
    scaled = np.linalg.solve(root, np.moveaxis(x[:, None] - q.mean, 0, -1))  # (K, D, N)
    quadratic = dimensions / q.strength + q.degrees * (scaled**2).sum(1).T
    log_determinant = digamma((q.degrees[:, None] - np.arange(dimensions)) / 2).sum(1) + dimensions * math.log(2)
    log_determinant -= np.linalg.slogdet(q.inverse_scale)[1]
    log_r = digamma(q.concentration) + (log_determinant - quadratic) / 2  # E[ln pi] up to what all share
    return np.exp(log_r - logsumexp(log_r, axis=1, keepdims=True))


def posterior(x: np.ndarray, responsibilities: np.ndarray, prior: Prior) -> Parameters:
    """Give q(pi, mu, Lambda) for responsibilities `(N, K)`."""
    dimensions = x.shape[1]
    middle = np.broadcast_to(prior.mean, dimensions)
    counts = responsibilities.sum(0)
    strength = prior.strength + counts
    mean = (prior.strength * middle + responsibilities.T @ x) / strength[:, None]
    # Around m_k itself: the same matrix as in the docstring, and no division by an empty component's count.
    apart = x[:, None] - mean  # (N, K, D)
    inverse_scale = prior.scale * np.eye(dimensions) + np.einsum("nk,nki,nkj->kij", responsibilities, apart, apart)
    inverse_scale += prior.strength * np.einsum("ki,kj->kij", mean - middle, mean - middle)
    return Parameters(prior.concentration + counts, mean, strength, inverse_scale, degrees(prior, dimensions) + counts)


def bound(x: np.ndarray, responsibilities: np.ndarray, q: Parameters, prior: Prior) -> float:
    """Give the ELBO of q(pi, mu, Lambda) that is `posterior` of these responsibilities."""
    return known(x, q, prior) - float(xlogy(responsibilities, responsibilities).sum())


def known(x: np.ndarray, q: Parameters, prior: Prior) -> float:
    """Give ln p(x, Z) of assignments whose posterior is q: the normalisers of the posterior over those of the prior."""
    n, dimensions = x.shape
    k, v0 = len(q.degrees), degrees(prior, dimensions)
    log_evidence = gammaln(k * prior.concentration) - gammaln(q.concentration.sum())
    log_evidence += (gammaln(q.concentration) - gammaln(prior.concentration)).sum()
    log_evidence += dimensions / 2 * np.log(prior.strength / q.strength).sum()
    log_evidence += (multigammaln(q.degrees / 2, dimensions) - multigammaln(v0 / 2, dimensions)).sum()
    log_evidence += k * v0 / 2 * dimensions * math.log(prior.scale)
    log_evidence -= (q.degrees / 2 * np.linalg.slogdet(q.inverse_scale)[1]).sum()
    return float(log_evidence - n * dimensions / 2 * math.log(math.pi))


def log_evidence(x: np.ndarray, components: int, prior: Prior | None = None) -> float:
    """Give ln p(x) exactly, by the sum over all K^N assignments; for a handful of rows.

    Args:
        x: `(N, D)`, with K^N of at most 200,000.
        components: K.
        prior: None for `Prior()`.

    Raises:
        ValueError: Names everything that cannot be.
    """
    prior = prior or Prior()
    x = check(x, prior, components=components)
    if components ** len(x) > MOST:
        raise ValueError(
            f"the exact evidence sums over K^N assignments, of which {MOST:,} can be. "
            f"Received: {components} components, {len(x)} rows"
        )
    every = itertools.product(np.eye(components), repeat=len(x))
    return float(logsumexp([known(x, posterior(x, np.array(z), prior), prior) for z in every]))


def degrees(prior: Prior, dimensions: int) -> float:
    """Give v0."""
    return dimensions + 1.0 if prior.degrees is None else float(prior.degrees)


def check(x, prior: Prior, **counts: int) -> np.ndarray:
    """Raise a ValueError for data, counts or a prior that cannot be; give the data in float64."""
    problems = checks.finite(2, x=x) + arguments.positive(**counts)
    named = ("concentration", "strength", "scale")
    problems += arguments.factors(**{name: getattr(prior, name) for name in named})
    if not problems:
        dimensions = np.shape(x)[1]
        if np.shape(prior.mean) not in ((), (dimensions,)) or not np.isfinite(prior.mean).all():
            problems.append(f"mean must be finite, one number or {dimensions}. Received: mean={prior.mean!r}")
        if not dimensions - 1 < degrees(prior, dimensions) < math.inf:
            problems.append(f"degrees must be above D - 1 = {dimensions - 1}. Received: degrees={prior.degrees!r}")
    arguments.refuse(problems)
    return np.asarray(x, "float64")
