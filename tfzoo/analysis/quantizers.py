"""Vector quantisers without a network: the generalised Lloyd algorithm, LBG (Linde, Buzo & Gray, 1980).

A codebook is best for given cells if its vectors are their means, and cells are best for a codebook if each has the
vectors that are nearest to its own. One after the other lowers the distortion until neither changes anything. LBG
begins with one vector and doubles the codebook, each vector split in two along the direction in which its cell is
longest.
"""

import numpy as np

APART = 1.0  # of each half from the vector that is split, in standard deviations of its cell in that direction


def lbg(vectors: np.ndarray, codes: int, rounds: int = 100, tolerance: float = 1e-6) -> np.ndarray:
    """Find a codebook.

    Args:
        vectors: Data `(N, D)`.
        codes: Vectors of the codebook, a power of 2, no more than the data has.
        rounds: Of Lloyd's algorithm at each size, at the most.
        tolerance: The share by which a round must lower the distortion, or it was the last.

    Returns:
        The codebook `(codes, D)`.

    Raises:
        ValueError: The codebook is larger than the data, or no power of 2.
    """
    vectors = np.asarray(vectors, "float64")
    if codes < 1 or codes & (codes - 1) or codes > len(vectors):
        raise ValueError(
            f"codes must be a power of 2, and no more than the data's {len(vectors)} vectors. Received: codes={codes}"
        )
    book = vectors.mean(0, keepdims=True)
    while len(book) < codes:
        step = APART * longest(vectors, book)
        book = lloyd(vectors, np.concatenate([book - step, book + step]), rounds, tolerance)
    return book


def longest(vectors: np.ndarray, book: np.ndarray) -> np.ndarray:
    """Give for each code the first principal direction of its cell, one standard deviation long `(K, D)`."""
    codes, _ = nearest(vectors, book)
    found = np.zeros_like(book)
    for k in range(len(book)):
        own = vectors[codes == k]
        if len(own) > 1:
            apart = own - own.mean(0)
            variances, directions = np.linalg.eigh(apart.T @ apart / len(own))
            found[k] = directions[:, -1] * np.sqrt(max(variances[-1], 0))
    return found


def lloyd(vectors: np.ndarray, book: np.ndarray, rounds: int, tolerance: float) -> np.ndarray:
    """Improve a codebook `(K, D)`; a code that nothing uses begins again at the vector that is worst off."""
    before = np.inf
    for _ in range(rounds):
        codes, errors = nearest(vectors, book)
        counts = np.bincount(codes, minlength=len(book))
        sums = np.stack([np.bincount(codes, column, len(book)) for column in vectors.T], -1)
        book = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], book)
        unused = np.flatnonzero(counts == 0)
        book[unused] = vectors[np.argsort(-errors, kind="stable")[: len(unused)]]
        if before - errors.mean() <= tolerance * errors.mean() and not len(unused):
            break
        before = errors.mean()
    return book


def nearest(vectors: np.ndarray, book: np.ndarray, chunk: int = 4096) -> tuple[np.ndarray, np.ndarray]:
    """Give for each vector `(N, D)` the nearest code and the squared distance to it, each `(N,)`."""
    codes, errors = [], []
    for i in range(0, len(vectors), chunk):
        some = vectors[i : i + chunk]
        apart = np.square(some).sum(1)[:, None] - 2 * some @ book.T + np.square(book).sum(1)
        codes.append(apart.argmin(1))
        errors.append(np.maximum(apart[np.arange(len(some)), codes[-1]], 0))
    return np.concatenate(codes), np.concatenate(errors)


def blocks(picture: np.ndarray, side: int) -> np.ndarray:
    """Cut a picture `(H, W)` into squares, row by row `(N, side * side)`; what is left over at the ends is left out."""
    height, width = (n // side for n in picture.shape)
    cut = picture[: height * side, : width * side].reshape(height, side, width, side)
    return cut.transpose(0, 2, 1, 3).reshape(-1, side * side)


def distortion(vectors: np.ndarray, book: np.ndarray) -> float:
    """Give the mean squared error of a component when vectors `(N, D)` become the nearest of a codebook's."""
    return float(nearest(vectors, book)[1].mean() / vectors.shape[1])
