"""A picture of a density of two variables, and of the Gaussians fitted to it: the best q is narrow where p is not."""

import os
from pathlib import Path

import numpy as np

from bridge.files import aside

POINTS = 200  # along either axis
SHARES = (0.9, 0.5)  # of a Gaussian's mass inside its ellipses


def draw_contours(
    log_density, fits: dict, path: str | os.PathLike, span: tuple[float, float, float, float] = (-3, 3, -3, 3)
) -> None:
    """Write a PNG with a density in grey, and an ellipse around 50 % and 90 % of every Gaussian.

    Args:
        log_density: From NumPy arrays `(S, 2)` to ln p `(S,)`, up to a constant.
        fits: Name -> `(mean (2,), covariance (2, 2))`.
        path: Of the PNG.
        span: Left, right, bottom, top, in the variables' unit.

    Raises:
        ValueError: A Gaussian is not of two variables, or the span is empty.
    """
    problems = [
        f"{name} must be a mean (2,) and a covariance (2, 2). Received: {np.shape(mean)} and {np.shape(covariance)}"
        for name, (mean, covariance) in fits.items()
        if np.shape(mean) != (2,) or np.shape(covariance) != (2, 2)
    ]
    left, right, bottom, top = span
    if not left < right or not bottom < top:
        problems.append(f"span must be left < right, bottom < top. Received: span={span}")
    if problems:
        raise ValueError("\n".join(problems))
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    x, y = np.meshgrid(np.linspace(left, right, POINTS), np.linspace(bottom, top, POINTS))
    log_p = np.asarray(log_density(np.stack([x.ravel(), y.ravel()], 1))).reshape(x.shape)
    figure = Figure(figsize=(5, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.contourf(x, y, np.exp(log_p - log_p.max()), levels=12, cmap="Greys")
    for i, (name, (mean, covariance)) in enumerate(fits.items()):
        for share in SHARES:
            line = ellipse(np.asarray(mean), np.asarray(covariance), share)
            axes.plot(*line.T, color=f"C{i}", label=name if share == SHARES[0] else None)
    axes.set(xlim=(left, right), ylim=(bottom, top), xlabel="$z_1$", ylabel="$z_2$")
    if fits:
        axes.legend()
    with aside(Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def ellipse(mean: np.ndarray, covariance: np.ndarray, share: float) -> np.ndarray:
    """Give points `(100, 2)` of the ellipse that holds a share of a Gaussian: radius squared -2 ln(1 - share)."""
    angle = np.linspace(0, 2 * np.pi, 100)
    circle = np.sqrt(-2 * np.log(1 - share)) * np.stack([np.cos(angle), np.sin(angle)], 1)
    return mean + circle @ np.linalg.cholesky(covariance).T
