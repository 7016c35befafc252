"""A convolution as the papers and torch have it: with as much padding on either side."""

from keras import layers


def convolve(x, filters: int, size: int, stride: int, name: str, pad: str, **options):
    """Convolve: `(B, H, W, C)` to `(B, ceil(H / stride), ceil(W / stride), filters)`.

    Args:
        x: What comes in.
        filters: How many.
        size: Of the kernel, an odd number.
        stride: Its step.
        name: The convolution's.
        pad: That of the layer of zeros before it, which is there where TensorFlow would pad less in front than behind.
        **options: Others of `keras.layers.Conv2D`.
    """
    padding = "same"  # which is so where the stride is 1
    if stride > 1 and size > 1:
        x, padding = layers.ZeroPadding2D(size // 2, name=pad)(x), "valid"
    return layers.Conv2D(filters, size, stride, padding, name=name, **options)(x)
