"""What two checkpoints differ in, whatever kinds of files they are."""

import os
from dataclasses import dataclass, field

import numpy as np

from bridge import checkpoints

WHICH = ("first", "second")


@dataclass
class Difference:
    """What `compare` found.

    Attributes:
        missing: Names that only the first has.
        extra: Names that only the second has.
        shapes: Of the tensors that have another shape: name, the first's and the second's.
        dtypes: The same of dtypes; the numbers are compared none the less.
        far: Of the tensors whose numbers differ: name, the largest difference, and that of the largest number.
        not_finite: Names of tensors with NaN or infinite numbers, and in which of the two.
        equal: How many tensors are the same in everything.
    """

    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    shapes: list[tuple] = field(default_factory=list)
    dtypes: list[tuple] = field(default_factory=list)
    far: list[tuple[str, float, float]] = field(default_factory=list)
    not_finite: list[tuple[str, str]] = field(default_factory=list)
    equal: int = 0

    def __bool__(self) -> bool:
        return bool(self.missing or self.extra or self.shapes or self.dtypes or self.far)


def compare(first: str | os.PathLike, second: str | os.PathLike) -> Difference:
    """Compare two checkpoints, a tensor of each in memory at a time.

    Args:
        first: As `checkpoints.open` takes it.
        second: The same.

    Raises:
        BridgeError: One of them cannot be read.
    """
    with checkpoints.open(first) as a, checkpoints.open(second) as b:
        found = Difference([n for n in a if n not in b.tensors], [n for n in b if n not in a.tensors])
        for name in (n for n in a if n in b.tensors):
            mine, theirs = a.tensors[name], b.tensors[name]
            if mine.dtype != theirs.dtype:
                found.dtypes.append((name, str(mine.dtype), str(theirs.dtype)))
            if mine.shape != theirs.shape:
                found.shapes.append((name, mine.shape, theirs.shape))
                continue
            x, y = a[name], b[name]
            found.not_finite += [(name, "first")] * (not finite(x)) + [(name, "second")] * (not finite(y))
            far, share = apart(x, y)
            if far:
                found.far.append((name, far, share))
            elif mine.dtype == theirs.dtype:
                found.equal += 1
    return found


def rows(found: Difference) -> list[list[str]]:
    """Give a line for each tensor that is not the same in both: name, the first, the second, difference and share."""
    lines = [[name, "there", "missing", "", ""] for name in found.missing]
    lines += [[name, "missing", "there", "", ""] for name in found.extra]
    lines += [[name, str(a), str(b), "", ""] for name, a, b in (*found.shapes, *found.dtypes)]
    lines += [[name, "", "", f"{far:.3g}", f"{share:.1e}"] for name, far, share in found.far]
    return lines + [
        [name, *("NaN or infinite" if x == which else "" for x in WHICH), "", ""] for name, which in found.not_finite
    ]


def finite(array: np.ndarray) -> bool:
    """Tell whether all of an array's numbers are finite."""
    return array.dtype.kind in "biuOSU" or bool(np.isfinite(array).all())


def apart(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Give the largest difference, 0 where both have NaN or the same infinity, and its share of the largest number."""
    wide = np.complex128 if "c" in (x.dtype.kind, y.dtype.kind) else np.float64
    if x.dtype == y.dtype and np.array_equal(x, y):
        return 0.0, 0.0
    if x.dtype.kind in "iu" and y.dtype.kind in "iu":  # float64 does not hold all of them
        pairs = [(int(a), int(b)) for a, b in zip(x[x != y].ravel(), y[x != y].ravel(), strict=True)]
        far = float(max(abs(a - b) for a, b in pairs))
        return far, far / max(float(np.abs(x.astype(wide)).max()), 1e-300)
    x, y = x.astype(wide), y.astype(wide)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    if same.all():
        return 0.0, 0.0
    far = np.abs(x - y)[~same]
    far = float("inf") if np.isnan(far).any() else float(far.max())
    return far, far / max(float(np.abs(x[np.isfinite(x)]).max(initial=0)), 1e-300)
