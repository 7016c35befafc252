"""What all classifiers have in common behind their logits."""

from collections.abc import Sequence

import keras


def logits(outputs):
    """Give the logits of what a classifier makes, which is a dictionary where there are auxiliary heads."""
    return outputs["logits"] if isinstance(outputs, dict) else outputs


def signatures(networks: dict[str, keras.Model], labels: Sequence[str] | None = None):
    """Give what an export serves: `image` to `probabilities`, one for each class, and the classes' names, if any.

    Args:
        networks: One, "model", from images to logits `(B, classes)`.
        labels: The classes' names in the order of their numbers; classes behind them are called by their number.

    Returns:
        The default signature; `probabilities` and `labels` are `(B, classes)`, as TensorFlow Serving's own signature
        for classifiers has its scores and classes.
    """
    import tensorflow as tf

    from tfzoo.export.signatures import DEFAULT, Signature

    model = networks["model"]
    classes = logits(model.output).shape[-1]
    names = [*labels, *map(str, range(len(labels), classes))][:classes] if labels else None

    def serve(image):
        found = {"probabilities": tf.nn.softmax(logits(model(image, training=False)))}
        return found | ({"labels": tf.tile([names], [tf.shape(image)[0], 1])} if names else {})

    return {DEFAULT: Signature(serve, (tf.TensorSpec(model.input_shape, "float32", "image"),))}
