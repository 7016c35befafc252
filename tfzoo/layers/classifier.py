"""What all classifiers have in common: pictures in front of them, and what is behind their logits."""

from collections.abc import Sequence

import keras

from bridge.models import is_functional


def logits(outputs):
    """Give the logits of what a classifier makes, which is a dictionary where there are auxiliary heads."""
    return outputs["logits"] if isinstance(outputs, dict) else outputs


def scores_of(model: keras.Model):
    """Give what would be a model's logits; None of a dictionary without them."""
    return model.output.get("logits") if isinstance(model.output, dict) else model.output


def image_shape(model: keras.Model) -> tuple[int | None, ...]:
    """Give `(H, W, C)` of a classifier's pictures; raises a ValueError for another model."""
    if is_functional(model) and len(model.inputs) == 1 and len(model.inputs[0].shape) == 4:
        scores, shape = scores_of(model), tuple(model.inputs[0].shape[1:])
        if len(getattr(scores, "shape", ())) == 2 and shape[2] in (1, 3):
            return shape
    raise ValueError(
        f"{model.name} is no classifier of pictures. Accepted: a functional model from (B, H, W, 1 or 3) to logits "
        "(B, classes), or to a dictionary that has them as logits"
    )


def signatures(networks: dict[str, keras.Model], labels: Sequence[str] | None = None):
    """Give what an export serves: `image` to `probabilities`, one for each class, and the classes' names, if any.

    Args:
        networks: One, "model", from images to logits `(B, classes)`.
        labels: The classes' names in the order of their numbers; classes behind them are called by their number.

    Returns:
        The default signature; `probabilities` and `labels` are `(B, classes)`, as TensorFlow Serving's own signature
        for classifiers has its scores and classes.

    Raises:
        ValueError: The network gives no logits, such as one that was built with `include_top=False`.
    """
    import tensorflow as tf

    from tfzoo.export.signatures import DEFAULT, Signature

    model = networks["model"]
    scores = scores_of(model)
    if len(getattr(scores, "shape", ())) != 2:
        shapes = keras.tree.map_structure(lambda tensor: tuple(tensor.shape), model.output)
        raise ValueError(
            f"{model.name} gives no logits, so there are no probabilities to serve. Accepted: a model to logits "
            "(B, classes), or to a dictionary that has them as logits; tfzoo.export.save without signatures serves "
            f"other outputs by their names. Received: {shapes}"
        )
    classes = scores.shape[-1]
    names = [*labels, *map(str, range(len(labels), classes))][:classes] if labels else None

    def serve(image):
        found = {"probabilities": tf.nn.softmax(logits(model(image, training=False)))}
        return found | ({"labels": tf.tile([names], [tf.shape(image)[0], 1])} if names else {})

    return {DEFAULT: Signature(serve, (tf.TensorSpec(model.input_shape, "float32", "image"),))}
