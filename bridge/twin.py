"""The float64 twin of a Keras model, for comparisons that float32 would blur."""

import keras

from bridge.keras_reader import is_functional

RANDOM = ("rate", "dropout", "recurrent_dropout", "stddev")  # configuration entries that make a layer random


def twin(model, dtype: str = "float64", deterministic: bool = False):
    """Rebuild a model from its configuration with another dtype, holding the same weights.

    Args:
        model: A functional or Sequential model.
        dtype: The dtype policy of every layer.
        deterministic: Set the rates of Dropout and the like to 0.

    Returns:
        The twin.

    Raises:
        Exception: Whatever a layer raises that cannot be made from its configuration.
    """
    config = _replace(model.get_config(), dtype, deterministic)
    custom = {type(x).__name__: type(x) for x in model._flatten_layers() if not type(x).__module__.startswith("keras.")}
    with keras.utils.custom_object_scope(custom):
        other = type(model).from_config(config) if not is_functional(model) else _functional(model, config)
    if not other.built:
        other.build(model.input_shape)
    _copy(model, other)
    return other


def _copy(mine, theirs) -> None:
    """Copy weights and flags, by the names of the layers: the twin's may come in another order."""
    theirs.trainable = mine.trainable  # of all that it holds, whose own flags follow
    if is_functional(mine):
        named = {x.name: x for x in theirs.layers}
        for layer in mine.layers:
            _copy(layer, named[layer.name])
        return
    for a, b in zip(mine._flatten_layers(), theirs._flatten_layers(), strict=True):
        b.trainable = a.trainable
    for a, b in zip(mine.weights, theirs.weights, strict=True):
        b.assign(a)


def _functional(model, config):
    return (keras.Sequential if isinstance(model, keras.Sequential) else keras.Model).from_config(config)


def _replace(config, dtype: str, deterministic: bool):
    if isinstance(config, dict):
        found = {k: _replace(v, dtype, deterministic) for k, v in config.items()}
        if isinstance(config.get("dtype"), dict) or str(config.get("dtype")).startswith("float"):
            found["dtype"] = dtype
        if deterministic:
            found |= {k: 0.0 for k in RANDOM if isinstance(config.get(k), (int, float))}
        return found
    if isinstance(config, (list, tuple)):
        return type(config)(_replace(v, dtype, deterministic) for v in config)
    return config
