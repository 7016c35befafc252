"""Pictures anywhere below a folder."""

import numpy as np
from PIL import Image

import tfzoo.data


def test_pictures_anywhere(tmp_path):
    for n, name in enumerate(["a.png", "b/a.JPG", "b/c/a.bmp", "z.tif", "b/b.jpeg"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4 + n, 3), 40 * n).save(tmp_path / name)
    (tmp_path / "b" / "notes.txt").write_text("mine")
    source = tfzoo.data.open(str(tmp_path), "images", seed=0)
    pictures = [image for part in (source.training, source.validation, source.held_out) for (image,) in part]
    assert sorted(image.shape for image in pictures) == [(3, 4 + n, 3) for n in range(5)]
    for image in pictures:
        assert image.dtype == np.uint8 and np.ptp(image) <= 2
        assert abs(int(image.mean()) - 40 * (image.shape[1] - 4)) <= 2
    assert source.description == f"{tmp_path}: 3 pictures to train on, 1 for validation, 1 held out"
