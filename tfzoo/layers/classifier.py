"""What all classifiers have in common behind their logits."""

import keras


def logits(outputs):
    """Give the logits of what a classifier makes, which is a dictionary where there are auxiliary heads."""
    return outputs["logits"] if isinstance(outputs, dict) else outputs


def signatures(networks: dict[str, keras.Model]):
    """Give what an export serves: `image` to `probabilities`, one for each class."""
    import tensorflow as tf

    from tfzoo.export.signatures import DEFAULT, Signature

    model = networks["model"]
    image = tf.TensorSpec(model.input_shape, "float32", "image")
    return {
        DEFAULT: Signature(
            lambda image: {"probabilities": tf.nn.softmax(logits(model(image, training=False)))}, (image,)
        )
    }
