"""How near pictures are to what they should be: PSNR and SSIM, TensorFlow's own, averaged over pictures.

    PSNR = 10 log10(max_val^2 / mean square error)      of each picture, in dB
    SSIM                                                (Wang et al., 2004, https://doi.org/10.1109/TIP.2003.819861)

Both are of each picture, and the mean of them is not that of all pixels together.
"""

import keras
import tensorflow as tf
from keras import ops


class PictureMean(keras.metrics.Mean):
    """The mean over pictures of a measure of pairs of them.

    Args:
        max_val: The distance from black to white in the pictures' own unit: 1 for [0, 1], 2 for [-1, 1], 255 for bytes.
        name: As Keras has it; by default that of the class, `psnr` or `ssim`.
        dtype: Of the sums.

    Raises:
        ValueError: max_val is not a positive number.
    """

    smallest = 1  # rows and columns that a picture needs

    def __init__(self, max_val: float, name: str | None = None, dtype="float64"):
        super().__init__(name=name or type(self).__name__.lower(), dtype=dtype)
        if not 0 < max_val < float("inf"):
            raise ValueError(
                "max_val is the distance from black to white, a positive number: 1 for [0, 1], 2 for [-1, 1], 255 for "
                f"bytes. Received: max_val={max_val}"
            )
        self.max_val = float(max_val)
        self._direction = "up"

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Add pictures.

        Args:
            y_true: `(B, H, W, C)`, any dtype, in the unit of `max_val`.
            y_pred: The same.
            sample_weight: `(B,)`; None for 1.

        Raises:
            ValueError: The shapes differ, are not of pictures, or too small.
        """
        # TensorFlow scales whole numbers to [0, 1] and leaves others as they are, in each of the two for itself.
        y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        shapes = y_true.shape, y_pred.shape
        if any(len(shape) != 4 for shape in shapes) or not shapes[0].is_compatible_with(shapes[1]):
            raise ValueError(
                f"{self.name} compares pictures (B, H, W, C) of one shape. "
                f"Received: y_true {tuple(shapes[0])}, y_pred {tuple(shapes[1])}"
            )
        if any(size is not None and size < self.smallest for size in shapes[0][1:3]):
            raise ValueError(
                f"{self.name} needs pictures of at least {self.smallest} rows and columns, its filter_size. "
                f"Received: {tuple(shapes[0])}. Give a smaller filter_size"
            )
        super().update_state(self.measure(y_true, y_pred), sample_weight)

    def measure(self, y_true, y_pred):
        """Give the measure of each pair of pictures `(B, H, W, C)`, float32: `(B,)`."""
        raise NotImplementedError

    def get_config(self):
        """Return what makes the same metric."""
        return {**super().get_config(), "max_val": self.max_val}


@keras.saving.register_keras_serializable(package="tfzoo")
class PSNR(PictureMean):
    """Peak signal-to-noise ratio in dB, the mean over pictures; a picture without an error makes it infinite."""

    def measure(self, y_true, y_pred):
        """Give the ratio of each pair of pictures, in dB `(B,)`."""
        return tf.image.psnr(y_true, y_pred, self.max_val)


@keras.saving.register_keras_serializable(package="tfzoo")
class SSIM(PictureMean):
    """Structural similarity, in [-1, 1], the mean over pictures; the channels are averaged.

    Args:
        max_val: As for `PictureMean`.
        filter_size: Rows and columns of the Gaussian window, 11 as in the paper; no larger than the pictures.
        filter_sigma: Its standard deviation in pixels, 1.5 as in the paper.
        name: As Keras has it; by default that of the class, `psnr` or `ssim`.
        dtype: Of the sums.

    Raises:
        ValueError: max_val, filter_size or filter_sigma is not positive.
    """

    def __init__(
        self,
        max_val: float,
        filter_size: int = 11,
        filter_sigma: float = 1.5,
        name: str | None = None,
        dtype="float64",
    ):
        super().__init__(max_val, name=name, dtype=dtype)
        if filter_size < 1 or not filter_sigma > 0:
            raise ValueError(
                "the window of SSIM has at least 1 row and a positive width. "
                f"Received: filter_size={filter_size}, filter_sigma={filter_sigma}"
            )
        self.filter_size = self.smallest = filter_size
        self.filter_sigma = filter_sigma

    def measure(self, y_true, y_pred):
        """Give the similarity of each pair of pictures `(B,)`."""
        return tf.image.ssim(y_true, y_pred, self.max_val, self.filter_size, self.filter_sigma)

    def get_config(self):
        """Return what makes the same metric."""
        return {**super().get_config(), "filter_size": self.filter_size, "filter_sigma": self.filter_sigma}
