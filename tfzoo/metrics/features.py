"""Features of a given classifier, which distances between sets of pictures are taken in.

Published figures use the pool3 layer of one certain Inception network. A figure in other features is none of those:
whatever is measured here says which classifier, which layer, and a hash of its weights it was measured with.
"""

import hashlib

import keras
import numpy as np
import tensorflow as tf
from keras import ops


class Features:
    """What a classifier's layer makes of pictures.

    Args:
        classifier: A functional model of one input. Pictures are given to it as they are, so in the range that it was
            trained on. Under a strategy, made in its scope.
        layer: The name of the layer, usually the one before the logits. Of feature maps `(B, H, W, C)` the mean over
            the positions is taken; of a layer that is called several times, the first call.

    Attributes:
        dimensions: Features of a picture.

    Raises:
        ValueError: There is no such layer, or its output is not one tensor of a known number of features.
    """

    def __init__(self, classifier: keras.Model, layer: str):
        names = [each.name for each in classifier.layers]
        if layer not in names:
            raise ValueError(f"{classifier.name} has no layer {layer!r}. It has: {', '.join(names)}")
        try:
            (image,), output = classifier.inputs, classifier.get_layer(layer).output
            shape = output.shape
            self.model = keras.Model(image, output)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                "features are taken from a layer with one output tensor, in a functional model of one input. Received: "
                f"{layer!r} of {classifier.name} ({type(error).__name__}: {error})"
            ) from error
        if len(shape) < 2 or shape[-1] is None:
            raise ValueError(
                f"features are (B, D) or (B, ..., D) of a known D. Received: {tuple(shape)} from {layer!r} of "
                f"{classifier.name}"
            )
        self.classifier, self.layer, self.dimensions = classifier, layer, shape[-1]

    def __call__(self, pictures):
        """Give the features of pictures `(B, ...)`: `(B, D)` float32; the classifier does not train."""
        # A replica may get no picture of a last batch, and a convolution of none fails on a CPU (TensorFlow 2.21).
        pictures = ops.convert_to_tensor(pictures)
        count, *sizes = tf.unstack(tf.shape(pictures))
        one = tf.zeros([tf.cast(count == 0, tf.int32), *sizes], pictures.dtype)
        some = tf.concat([pictures, one], 0)  # a `tf.pad` would be fused with the convolution, and lost
        found = ops.cast(self.model(some, training=False), "float32")[:count]
        return ops.mean(found, range(1, len(found.shape) - 1)) if len(found.shape) > 2 else found

    def describe(self) -> dict[str, str | int]:
        """Say what the features are: the classifier's name, the layer, a hash of the weights, and how many."""
        return {
            "classifier": self.classifier.name,
            "layer": self.layer,
            "weights": weights_hash(self.classifier),
            "dimensions": self.dimensions,
        }


def weights_hash(model: keras.Model) -> str:
    """Give the first 16 digits of the SHA-256 of a model's weights: shapes, types and values in their order."""
    digest = hashlib.sha256()
    for weight in model.weights:
        value = np.ascontiguousarray(ops.convert_to_numpy(weight))
        digest.update(f"{value.shape} {value.dtype.str}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()[:16]


class FeatureMetric(keras.Metric):
    """A measure of two sets of pictures in a classifier's features.

    It is for evaluation. Pictures are added in compiled steps; the result is computed by SciPy or scikit-learn, outside
    of them: Keras asks for it after every step, and gets NaN there, and once more after the last, which counts.

    Args:
        features: Of the classifier.
        name: As Keras has it.
    """

    def __init__(self, features: Features, name: str):
        super().__init__(name=name, dtype="float64")
        self.features = features

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Add pictures; the two sets need not be of one size.

        Args:
            y_true: Real pictures `(B, ...)`, or None for no more of them.
            y_pred: Generated pictures `(B, ...)`, or None.
            sample_weight: None: every picture counts once.

        Raises:
            ValueError: There are weights.
        """
        if sample_weight is not None:
            raise ValueError(f"{self.name} counts every picture once and takes no sample_weight. Leave it out")
        for kept, pictures in ((self.real, y_true), (self.generated, y_pred)):
            if pictures is not None:
                kept.update_state(self.features(pictures))

    def compute(self) -> dict[str, float]:
        """Give the figures of what was added by their names, outside of compiled steps."""
        raise NotImplementedError

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the figures."""
        return (self.name,)

    def result(self):
        """Give the figure, or several by name, float64; NaN in a compiled step and for too few pictures."""
        figures = self.compute() if tf.executing_eagerly() else dict.fromkeys(self.names, float("nan"))
        figures = {name: ops.convert_to_tensor(figure, dtype="float64") for name, figure in figures.items()}
        return figures[self.name] if self.names == (self.name,) else figures

    def describe(self) -> dict[str, str | int | float]:
        """Give the figures by name, the number of pictures of either kind, and what they were measured with."""
        pictures = {name: int(kept.result()) for name, kept in (("real", self.real), ("generated", self.generated))}
        return {**self.compute(), **pictures, **self.features.describe()}

    def get_config(self):
        """Refuse: a configuration has no weights, and the figures would be those of another classifier.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            f"{self.name} depends on the weights of a classifier, which a configuration does not keep. "
            "Compile the model without it before it is saved, and make the metric anew"
        )
