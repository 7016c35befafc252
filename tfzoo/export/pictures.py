"""Pictures in the graph: PNG and JPEG files in, the tensor that a model was trained on out.

The operations are TensorFlow's own, so TensorFlow Serving runs them where Python is not. They do what
`tfzoo.data.image_folder` does with Pillow: the file is decoded as it is displayed (a JPEG's EXIF orientation is
obeyed), alpha is left out, grey is Pillow's (ITU-R 601-2 luma), the window is the largest centred one of the model's
aspect ratio, and it is resampled bilinearly over the area that a new pixel covers. A classifier's recipe judges by
`grey_or_rgb` and `fitted` of this file, so that what is judged is what is served.

How many pixels a file claims is read from its header before anything is decoded.
"""

from dataclasses import dataclass

import tensorflow as tf

from tfzoo.data.black_and_white import Values, scaled, wrong

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
EXIF = b"Exif\x00\x00"
LUMA = (19595, 38470, 7471)  # of 2**16
FITS = ("crop", "middle", "stretch")
SHARE = 0.875  # of a middle's sides, 224 of 256 pixels


@dataclass(frozen=True)
class Pictures:
    """How files become the tensor of a model.

    Attributes:
        size: `(H, W)` in pixels; None keeps each file's own, which must then be one for all of a request.
        channels: 1 (grey) or 3.
        values: What black and white become, as `tfzoo.data.black_and_white` has them.
        fit: As `fitted` has it.
        limit: Pixels that a file may have at most; without `size`, those of a request together.
    """

    size: tuple[int, int] | None
    channels: int
    values: Values = (0.0, 1.0)
    fit: str = "crop"
    limit: int = 25_000_000

    def __post_init__(self):
        whole = self.size is None or min(self.size) > 0
        if self.fit not in FITS or self.channels not in (1, 3) or self.limit < 1 or not whole:
            raise ValueError(
                f"pictures have 1 or 3 channels, fit by {' or '.join(FITS)}, a size above 0, and at least one "
                f"pixel. Received: {self}"
            )
        if said := wrong(self.values, self.channels):
            raise ValueError(said)

    def decode(self, files: tf.Tensor) -> tf.Tensor:
        """Decode the files of a request.

        Args:
            files: Strings `(B,)`.

        Returns:
            float32 `(B, H, W, channels)`.
        """
        one = tf.TensorSpec([*(self.size or (None, None)), self.channels], tf.float32)
        places = tf.range(tf.size(files))
        # of open sizes all of them are kept at their own size, side by side
        together = tf.ones([], tf.int64) if self.size else tf.size(files, tf.int64)
        few = None if tf.executing_eagerly() else 2  # at a time: each may be large
        made = tf.map_fn(
            lambda x: self._one(*x, together), (files, places), fn_output_signature=one, parallel_iterations=few
        )
        return tf.ensure_shape(made, [files.shape[0], *one.shape])

    def _one(self, file: tf.Tensor, place: tf.Tensor, together: tf.Tensor) -> tf.Tensor:
        png, jpeg = (tf.strings.substr(file, 0, len(start)) == start for start in (PNG, JPEG))
        length = tf.strings.length(file)
        known = refuse(
            png | jpeg, "the file at place {} is neither PNG nor JPEG; its length in bytes is {}", place, length
        )
        with tf.control_dependencies([known]):
            height, width = tf.cond(png, lambda: png_size(file), lambda: jpeg_size(file))
        # PNG's two may be below 0; of a long thin picture the resampling keeps one side beside the model's other one
        sides = (height * self.size[1], width * self.size[0]) if self.size else ()
        most = tf.reduce_max(tf.stack([height * width, *sides]))
        few = (tf.minimum(height, width) > 0) & (most * together <= self.limit)
        wrong = (
            f"the file at place {{}} must have from 1 to {self.limit} pixels; by its header it has {{}} rows of {{}}"
        )
        small = refuse(few, wrong, place, height, width)
        with tf.control_dependencies([small]):  # nothing else would keep the decoder waiting
            file = tf.identity(file)
        picture = tf.cond(png, lambda: tf.io.decode_png(file, channels=3), lambda: displayed_jpeg(file))
        picture = grey_or_rgb(picture, self.channels)
        picture = fitted(picture, self.size, self.fit) if self.size else tf.cast(picture, tf.float32)
        return scaled(picture, self.values, 255)


def fitted(picture: tf.Tensor, size: tuple[int, int], fit: str) -> tf.Tensor:
    """Resample a picture to a size.

    Args:
        picture: `(h, w, C)` uint8.
        size: `(H, W)` in pixels.
        fit: "crop" takes the largest centred window of the size's aspect ratio, "middle" the middle `SHARE` of that,
            "stretch" the whole picture.

    Returns:
        `(H, W, C)` float32 from 0 to 255.
    """
    if picture.shape[:2] == size and fit != "middle":
        return tf.cast(picture, tf.float32)
    have, want = tf.cast(tf.shape(picture)[:2], tf.float32), tf.constant(size, tf.float32)
    scale = want / have
    if fit != "stretch":
        scale = tf.fill([2], tf.reduce_max(scale) / (SHARE if fit == "middle" else 1))
    made = tf.raw_ops.ScaleAndTranslate(
        images=picture[None],
        size=size,
        scale=scale,
        translation=(want - have * scale) / 2,
        kernel_type="triangle",
        antialias=True,
    )
    return tf.ensure_shape(made[0], [*size, picture.shape[-1]])


def grey_or_rgb(picture: tf.Tensor, channels: int) -> tf.Tensor:
    """Make a picture of 1 or 3 channels one of `channels`, uint8."""
    if picture.shape[-1] == channels:
        return picture
    return luma(picture) if channels == 1 else tf.image.grayscale_to_rgb(picture)


def refuse(accepted: tf.Tensor, sentence: str, *values: tf.Tensor) -> tf.Operation | None:
    """Fail with a sentence, whose {} are filled with numbers, unless something is true."""
    return tf.debugging.Assert(accepted, [tf.strings.format(sentence, values)])


def png_size(file: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Read height and width from the header chunk, with which every PNG begins; 0 where the file is too short."""
    header = tf.strings.substr(tf.strings.join([file, b"\0" * 24]), 16, 8)
    width, height = tf.unstack(tf.cast(tf.io.decode_raw(header, tf.int32, little_endian=False), tf.int64), num=2)
    return height, width


def jpeg_size(file: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Read height and width from the frame's header."""
    height, width, _ = tf.unstack(tf.cast(tf.io.extract_jpeg_shape(file), tf.int64), num=3)
    return height, width


def luma(picture: tf.Tensor) -> tf.Tensor:
    """Make a picture grey as Pillow does: `(H, W, 3)` to `(H, W, 1)`, uint8."""
    weighted = tf.reduce_sum(tf.cast(picture, tf.int32) * tf.constant(LUMA), -1, keepdims=True)
    return tf.cast((weighted + 0x8000) // 0x10000, tf.uint8)


def displayed_jpeg(file: tf.Tensor) -> tf.Tensor:
    """Decode a JPEG and turn it as its EXIF orientation says."""
    picture = tf.io.decode_jpeg(file, channels=3, dct_method="INTEGER_ACCURATE")  # Pillow's
    turns = orientation(file)
    picture = tf.cond(turns > 4, lambda: tf.transpose(picture, [1, 0, 2]), lambda: picture)
    # what is left for 1 to 8 once 5 to 8 are transposed: which axes are mirrored
    rows = tf.gather([False, False, True, True, False, False, True, True], turns - 1)
    columns = tf.gather([False, True, True, False, False, True, True, False], turns - 1)
    picture = tf.cond(rows, lambda: picture[::-1], lambda: picture)
    return tf.cond(columns, lambda: picture[:, ::-1], lambda: picture)


def orientation(file: tf.Tensor) -> tf.Tensor:
    """Read a JPEG's EXIF orientation, a number from 1 to 8; 1 where there is none.

    EXIF 2.32, 4.5.4 and 4.6.2: among the segments that come first (marker, length) one is APP1 and begins with
    "Exif\\0\\0"; then comes a TIFF header (byte order, 42, place of the directory), and in the directory entries of 12
    bytes each: tag, type, count, value.
    """

    def bytes_at(place: tf.Tensor, size: int) -> tf.Tensor:
        begin = tf.minimum(place, tf.strings.length(file))
        some = tf.strings.substr(tf.strings.join([file, b"\0" * size]), begin, size)
        return tf.cast(tf.io.decode_raw(some, tf.uint8), tf.int32)

    def length(place: tf.Tensor) -> tf.Tensor:
        head = bytes_at(place, 4)
        return 256 * head[2] + head[3]

    def is_exif(place: tf.Tensor) -> tf.Tensor:
        return tf.reduce_all(bytes_at(place, 2) == [0xFF, 0xE1]) & tf.reduce_all(bytes_at(place + 4, 6) == list(EXIF))

    def goes_on(place: tf.Tensor) -> tf.Tensor:
        head = bytes_at(place, 2)
        segment = (head[0] == 0xFF) & (head[1] != 0xDA) & (length(place) >= 2)  # not the picture itself
        return segment & ~is_exif(place)

    (place,) = tf.while_loop(goes_on, lambda place: [place + 2 + length(place)], [tf.constant(2)])
    begin = tf.minimum(place + 10, tf.strings.length(file))
    body = tf.strings.substr(tf.strings.join([file, b"\0" * 64]), begin, 1 << 16)
    tiff = tf.cast(tf.io.decode_raw(body, tf.uint8), tf.int32)
    little = tiff[0] == ord("I")

    def number(place: tf.Tensor, size: int) -> tf.Tensor:
        """Unsigned, in the file's byte order; places behind the end read as the last byte."""
        places = tf.clip_by_value(place[..., None] + tf.range(size), 0, tf.size(tiff) - 1)
        digits = tf.gather(tiff, places)
        digits = tf.where(little, digits, tf.reverse(digits, [-1]))
        return tf.reduce_sum(digits * tf.constant([256**i for i in range(size)]), -1)

    directory = tf.clip_by_value(number(tf.constant(4), 4), 0, tf.size(tiff))
    entries = directory + 2 + 12 * tf.range(number(directory, 2))
    values = tf.where(number(entries + 2, 2) == 4, number(entries + 8, 4), number(entries + 8, 2))  # LONG, else SHORT
    named = tf.boolean_mask(values, number(entries, 2) == 0x0112)
    value = tf.concat([named, [1]], 0)[0]
    return tf.where(is_exif(place) & (value >= 1) & (value <= 8), value, 1)
