"""How much of a picture the identity changes in float32: tfzoo's sampler at most 1e-6 of digits on 60 x 60 pixels.

    .venv/bin/python tests/acceptance/sampling.py [--output FILE]

Of a photograph and of the cluttered digits, both from black 0 to white 1, and of noise about 0, at several sides;
beside it what torch's `F.grid_sample` changes.
"""

import sys

import numpy as np
from _record import ROOT, options, write

sys.path.insert(0, str(ROOT))

SIDES = (60, 224, 500)
GOAL = 1e-6  # of digits on 60 x 60 pixels


def changed(image: np.ndarray) -> dict[str, float]:
    """Sample a picture `(H, W)` at its own pixels, with tfzoo and with torch, and give the largest differences."""
    import tensorflow as tf
    import torch
    import torch.nn.functional as F

    from tfzoo import spatial_transformer as st

    image = image.astype("float32")
    ours = st.sample(image[None, ..., None], st.affine(tf.constant([st.identity("affine")], "float32"), image.shape))
    given = torch.tensor(image)[None, None]
    theta = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    theirs = F.grid_sample(given, F.affine_grid(theta, given.shape, align_corners=True), align_corners=True)
    found = {"tfzoo": np.asarray(ours)[0, ..., 0], "torch": theirs.numpy()[0, 0]}
    return {name: float(abs(image - there).max()) for name, there in found.items()}


def main() -> int:
    from skimage import data
    from skimage.color import rgb2gray

    from tfzoo.data.sources import cluttered_digits

    arguments = options(__doc__).parse_args()
    photograph = rgb2gray(data.astronaut())
    results = {}
    for side in SIDES:
        pictures = {
            "digits": cluttered_digits.picture("held_out", (side, side), 0, 0, 0).image[..., 0] / 255,
            "photograph": photograph[:side, :side],
            "noise": np.random.default_rng(0).normal(size=(side, side)),
        }
        results[str(side)] = {name: changed(picture) for name, picture in pictures.items()}
        for name, found in results[str(side)].items():
            print(f"{side} x {side}, {name}: tfzoo {found['tfzoo']:.0e}, torch {found['torch']:.0e}")
    write(arguments.output, results)
    least = results["60"]["digits"]["tfzoo"]
    if least > GOAL:
        print(f"SHORT: {least:.1e} of digits on 60 x 60 pixels")
    return int(least > GOAL)


if __name__ == "__main__":
    sys.exit(main())
