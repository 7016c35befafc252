"""Grad-CAM: which places of a feature map speak for a class (Selvaraju et al., 2017, https://arxiv.org/abs/1610.02391).

    weight of feature k: the mean over all places of d logit / d feature k      (equation 1)
    map: ReLU of the sum over k of weight times feature                         (equation 2)

Of a network that ends in an average and a Dense layer it is the class activation map of Zhou et al. (2016).
"""

import keras
import numpy as np

from tfzoo.layers.classifier import logits


def grad_cam(model: keras.Model, images, classes=None, layer: str | None = None) -> np.ndarray:
    """Compute the maps of a batch.

    Args:
        model: Functional, from pictures `(B, H, W, C)` to logits `(B, classes)`, or to a dictionary with `logits`.
        images: As the model takes them.
        classes: The class of each picture, `(B,)` integers; None for the one that the model finds likeliest.
        layer: Whose output is looked at, `(B, h, w, C)`; None for the last one that has more than one place, of
            pictures of this size.

    Returns:
        float32 `(B, h, w)` from 0 on, in units of the logit.

    Raises:
        ValueError: There is no such layer, or none with places.
    """
    import tensorflow as tf

    known = places(model, np.shape(images))
    if not known or layer not in (None, *known):
        height, width = np.shape(images)[1:3]
        raise ValueError(
            f"Grad-CAM looks at what a layer gives for every place, of more than one. Accepted of {model.name} and "
            f"pictures of {height}x{width}: {', '.join(known) or 'none, as it has no such layer'}. Received: "
            f"{layer or 'no layer'}"
        )
    graph = keras.Model(model.input, [known[layer or list(known)[-1]], logits(model.output)])
    with tf.GradientTape() as tape:
        images = tf.convert_to_tensor(images)
        tape.watch(images)
        features, scores = graph(images, training=False)
        chosen = tf.argmax(scores, -1) if classes is None else tf.constant(classes, tf.int64)
        wanted = tf.gather(scores, chosen, batch_dims=1)
    weights = tf.reduce_mean(tape.gradient(wanted, features), (1, 2), keepdims=True)
    return np.asarray(tf.nn.relu(tf.reduce_sum(weights * features, -1)), np.float32)


def places(model: keras.Model, shape: tuple[int, ...] | None = None) -> dict[str, keras.KerasTensor]:
    """Give what the logits are made of that has places: tensors `(B, h, w, C)`, more than one place each, by layer.

    They are what convolutions, pooling and the like give, and what is made of those. A tensor of four axes that comes
    from elsewhere, such as a transformer's attention, is none. Operations that are no layers have numbers for names,
    which depend on what was built before, and are left out.

    Args:
        model: As `grad_cam` has it.
        shape: Of the pictures, `(B, H, W, C)`; None for the model's own, where an open size is more than one place.
    """
    maps, found = set(), {}
    for operation in keras.Model(model.input, logits(model.output)).operations:
        output = operation.output
        if not isinstance(output, keras.KerasTensor) or len(output.shape) != 4:
            continue
        if hasattr(operation, "data_format") or any(id(x) in maps for x in keras.tree.flatten(operation.input)):
            maps.add(id(output))
            # What is padded no longer lies over the picture as a whole.
            if isinstance(operation, keras.Layer) and not isinstance(operation, keras.layers.ZeroPadding2D):
                found[operation.name] = output
    shapes = [output.shape for output in found.values()]
    if shape is not None and found:
        shapes = keras.Model(model.input, list(found.values())).compute_output_shape(tuple(shape))
    return {name: found[name] for name, its in zip(found, shapes, strict=True) if tuple(its[1:3]) != (1, 1)}
