import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from tfzoo.export.pictures import Pictures


def pillow(file: bytes, size: tuple[int, int], mode: str = "RGB", fit: str = "crop") -> np.ndarray:
    """The same as `tfzoo.data.image_folder` does: `(H, W, C)` of [0, 255], rounded."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(file))).convert("RGB").convert(mode)
    (h, w), box = size, None
    if fit != "stretch":
        zoom = min(picture.width / w, picture.height / h) * (0.875 if fit == "middle" else 1)
        left, top = (picture.width - zoom * w) / 2, (picture.height - zoom * h) / 2
        box = (left, top, left + zoom * w, top + zoom * h)
    made = np.asarray(picture.resize((w, h), Image.Resampling.BILINEAR, box), np.float32)
    return made if made.ndim == 3 else made[..., None]


KINDS = {
    "RGB": ("RGB", "PNG", {}),
    "grey": ("L", "PNG", {}),
    "alpha": ("RGBA", "PNG", {}),
    "grey and alpha": ("LA", "PNG", {}),
    "palette": ("P", "PNG", {}),
    "bits": ("1", "PNG", {}),
    "JPEG": ("RGB", "JPEG", {"quality": 80}),
    "grey JPEG": ("L", "JPEG", {}),
    "progressive JPEG": ("RGB", "JPEG", {"progressive": True}),
    "CMYK JPEG": ("CMYK", "JPEG", {}),
}


@pytest.fixture(scope="module")
def decoders():
    """The graphs, traced once: by size, channels and fit."""
    made = {}

    def decode(files, *options, **more):
        key = (*options, *sorted(more.items()))
        if key not in made:
            made[key] = tf.function(
                Pictures(*options, **more).decode, input_signature=[tf.TensorSpec([None], tf.string)]
            )
        return made[key](tf.constant(files)).numpy()

    return decode


@pytest.mark.parametrize("mode, kind, options", KINDS.values(), ids=KINDS)
def test_as_pillow_has_it(decoders, astronaut, encode, mode, kind, options):
    picture = astronaut
    if mode in ("RGBA", "LA"):
        alpha = Image.fromarray(np.random.default_rng(0).integers(0, 256, astronaut.size[::-1], np.uint8))
        picture = astronaut.convert(mode)
        picture.putalpha(alpha)
    file = encode(picture.convert(mode), kind, **options)
    have = decoders([file], (48, 37), 3)[0]
    assert have.shape == (48, 37, 3) and np.ptp(have) > 0.3
    np.testing.assert_allclose(have * 255, pillow(file, (48, 37)), atol=1.01)  # Pillow rounds twice


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_as_it_is_displayed(decoders, astronaut, encode, orientation, order):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x8298] = "maker", orientation, "mine"
    exif.endian = order
    file = encode(astronaut, "JPEG", exif=exif, quality=90)
    have, plain = (decoders([f], (48, 37), 3)[0] * 255 for f in (file, encode(astronaut, "JPEG", quality=90)))
    np.testing.assert_allclose(have, pillow(file, (48, 37)), atol=1.01)
    assert (np.abs(have - plain).max() > 50) == (orientation != 1)


def test_an_orientation_where_others_put_it(decoders, astronaut, encode):
    """Behind 100 kB of other segments, as a LONG, and not in a comment that looks like it."""
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x04\0\0\0\x01\0\0\0\x03\0\0\0\0"

    def segment(marker, body):
        return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body

    file = encode(astronaut, "JPEG")
    far = file[:2] + 2 * segment(0xE2, b"x" * 50_000) + segment(0xE1, b"Exif\0\0" + tiff) + file[2:]
    comment = file[:2] + segment(0xFE, b"Exif\0\0" + tiff) + file[2:]
    plain, turned, commented = decoders([file, far, comment], (48, 37), 3)
    np.testing.assert_array_equal(commented, plain)
    np.testing.assert_allclose(turned * 255, pillow(far, (48, 37)), atol=1.01)
    assert np.abs(turned - plain).max() > 0.2


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_an_orientation_that_is_none(decoders, astronaut, encode, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    files = [encode(astronaut, "JPEG", exif=exif), encode(astronaut, "JPEG")]
    np.testing.assert_array_equal(*decoders(files, (48, 37), 3))


def test_a_directory_that_leads_nowhere(decoders, astronaut, encode):
    file = encode(astronaut, "JPEG")
    for tiff in (b"II*\0" + b"\xff" * 12, b"MM\0*\x7f\xff\xff\xff" + b"\xff" * 8, b"", b"II*\0\x08\0\0\0\xff\xff"):
        exif = b"Exif\0\0" + tiff
        broken = file[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + file[2:]
        np.testing.assert_array_equal(*decoders([file, broken], (48, 37), 3))


@pytest.mark.parametrize("size", [(48, 37), (200, 31), (400, 500)])  # smaller, narrower, larger
@pytest.mark.parametrize("fit", ["crop", "middle", "stretch"])
def test_any_size(decoders, astronaut, encode, size, fit):
    file = encode(astronaut, "PNG")
    have = decoders([file], size, 3, fit=fit)[0] * 255
    np.testing.assert_allclose(have, pillow(file, size, fit=fit), atol=1.01)


def test_a_picture_of_the_models_size_is_left_as_it_is(decoders, astronaut, encode):
    file, size = encode(astronaut, "PNG"), astronaut.size[::-1]
    for fit in ("crop", "stretch"):
        have = decoders([file], size, 3, fit=fit)[0] * 255
        np.testing.assert_allclose(have, np.asarray(astronaut), atol=1e-3)
    assert np.abs(decoders([file], size, 3, fit="middle")[0] * 255 - np.asarray(astronaut)).max() > 20


def test_grey_is_pillows(decoders, astronaut, encode):
    file = encode(astronaut, "PNG")
    have = decoders([file], None, 1)[0] * 255
    np.testing.assert_allclose(have[..., 0], np.asarray(astronaut.convert("L")), atol=1e-4)


def test_the_values_of_black_and_white(decoders, encode):
    file = encode(Image.fromarray(np.array([[0, 255]], np.uint8)), "PNG")
    np.testing.assert_allclose(decoders([file], None, 1, values=(-1.0, 3.0))[0].ravel(), [-1, 3], atol=1e-6)


def test_files_keep_their_place(decoders, encode):
    files = [encode(Image.new("L", (9 + i, 20 - i), 20 * i), "PNG") for i in range(7)]
    np.testing.assert_allclose(decoders(files, (4, 4), 1).mean((1, 2, 3)) * 255, np.arange(7) * 20, atol=1e-4)


@pytest.mark.parametrize(
    "file, words",
    [
        (b"", "is neither PNG nor JPEG; its length in bytes is 0"),
        (b"GIF89a", "is neither PNG nor JPEG; its length in bytes is 6"),
        (b"\x89PNG\r\n\x1a\n", "must have from 1 to 25000000 pixels; by its header it has 0 rows of 0"),
        (
            b"\x89PNG\r\n\x1a\n" + b"\0" * 8 + b"\xff" * 8,
            "by its header it has -1 rows of -1",
        ),  # two numbers below 0, multiplied
        (b"\xff\xd8\xff", "JPEG"),
    ],
)
def test_no_picture(decoders, astronaut, encode, file, words):
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        decoders([encode(astronaut, "PNG"), file], (48, 37), 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_small_file_does_not_become_a_huge_tensor(kind, encode):
    """Nothing of the file but its header is there: that it is refused for its size shows that it was not decoded."""
    file = encode(Image.new("L", (5001, 5000)), kind)
    decode = tf.function(Pictures((8, 8), 3).decode)
    for some in (file, file[: len(file) // 2]):
        with pytest.raises(
            tf.errors.InvalidArgumentError, match="the file at place 0 must .* header it has 5000 rows of 5001"
        ):
            decode(tf.constant([some]))
    exact = encode(Image.new("L", (50, 40)), kind)
    assert Pictures((8, 8), 3, limit=2000).decode(tf.constant([exact])).shape == (1, 8, 8, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="from 1 to 1999 pixels; .* it has 40 rows of 50"):
        Pictures((8, 8), 3, limit=1999).decode(tf.constant([exact]))


def test_a_long_thin_picture_is_not_resampled_either(encode):
    """One side of it beside the model's other one would be gigabytes."""
    file = encode(Image.new("L", (200_000, 1)), "PNG")
    assert len(file) < 1000
    decode = tf.function(Pictures((256, 256), 3).decode)
    with pytest.raises(tf.errors.InvalidArgumentError, match="it has 1 rows of 200000"):
        decode(tf.constant([file]))
    assert Pictures((8, 8), 3).decode(tf.constant([file])).shape == (1, 8, 8, 3)


def test_a_request_of_open_sizes_is_bounded_as_a_whole(encode):
    file = encode(Image.new("L", (50, 40)), "PNG")
    pictures = Pictures(None, 1, limit=4000)
    assert pictures.decode(tf.constant([file] * 2)).shape == (2, 40, 50, 1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="from 1 to 4000 pixels"):
        pictures.decode(tf.constant([file] * 3))


@pytest.mark.parametrize(
    "wrong",
    [{"size": (0, 8)}, {"size": (-4, 8)}, {"fit": "pad"}, {"channels": 4}, {"limit": 0}],
)
def test_options_that_are_none(wrong):
    with pytest.raises(ValueError, match="pictures have 1 or 3 channels.*Received: Pictures"):
        Pictures(**{"size": (8, 8), "channels": 3, **wrong})


@pytest.mark.parametrize("values", [(1.0, 1.0), ((0.0, 0.0), (1.0, 1.0))], ids=str)
def test_values_that_are_none(values):
    with pytest.raises(ValueError, match=r"one for each channel \(3 here\). Received: "):
        Pictures((8, 8), 3, values)
