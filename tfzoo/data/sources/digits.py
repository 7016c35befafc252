"""scikit-learn's 1,797 handwritten digits, 8x8: embedded, so nothing is downloaded.

A fifth is held out and a tenth is for validation, stratified and the same for every seed, so that runs can be compared.
Those of `pasted_digits` are split in the same way.
"""

import numpy as np

from tfzoo.data import Source, Wanted
from tfzoo.data.examples import Arrays

PATTERN = "digits"
KINDS = {kind: "digits (handwritten, embedded)" for kind in ("classes", "images")}


def open(text: str, wanted: Wanted) -> Source:
    """Open the digits as a `Source` of pictures `(8, 8, 1)` uint8, 17 greys up to 255, and class numbers int64."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pictures, labels = load_digits(return_X_y=True)
    pictures = np.round(pictures.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    rest, held_out = train_test_split(np.arange(len(labels)), test_size=360, stratify=labels, random_state=0)
    training, validation = train_test_split(rest, test_size=180, stratify=labels[rest], random_state=0)
    arrays = (pictures, labels.astype(np.int64)) if wanted.kind == "classes" else (pictures,)
    return Source(
        *(Arrays(arrays).choose(rows) for rows in (training, validation, held_out)),
        "handwritten digits: 1257 to train on, 180 for validation, 360 held out",
        tuple("0123456789") if wanted.kind == "classes" else None,
    )
