"""The float64 twin of a Keras model, for comparisons that float32 would blur.

It is no model but the layers of one, made anew from their configuration with another dtype: `walk.run` puts
each in the place of the layer that it is the twin of. So whatever the model's own graph says of nesting, sharing and
names holds for its twin.
"""

import keras
import numpy as np

from bridge import rules


class Twin:
    """Layers in another dtype that hold the same weights, made when they are first needed.

    Args:
        dtype: The dtype policy of every layer; None for the layer's own.
        deterministic: Set the rates of Dropout and the like to 0.
    """

    def __init__(self, dtype: str | None = "float64", deterministic: bool = False):
        self.dtype, self.deterministic = dtype, deterministic
        self.layers: dict[int, keras.Layer] = {}
        self.variables: dict[int, keras.Variable] = {}  # id of a variable of the model -> the twin's

    def layer(self, operation, arguments, keywords):
        """Return the twin of a layer, built; a function of keras.ops follows the dtype of its inputs anyway.

        Args:
            operation: A layer or operation of the model.
            arguments: What it is to be called with, in the twin's dtype.
            keywords: The same.

        Raises:
            Exception: Whatever a layer raises that cannot be made from its configuration, or has no kernel.
        """
        kind, is_layer = type(operation), isinstance(operation, keras.Layer)
        name = rules.class_name(kind) if is_layer else f"ops.{kind.__name__}"
        rule = rules.for_keras(name)
        double = getattr(rule, "DOUBLE", {}).get(name)
        if double and self.dtype == "float64":
            return lambda *inputs, **given: double(operation, *inputs, **({} if is_layer else given))
        if not is_layer:
            return operation
        if self.deterministic and name in rules.passed():
            return lambda x, **_: keras.ops.cast(x, self.dtype or operation.compute_dtype)
        if id(operation) not in self.layers:
            config = self._replace(operation.get_config())
            if self.deterministic:
                config = _calm(config, getattr(rule, "RANDOM", ()))
            other = kind.from_config(config)
            other.trainable = operation.trainable
            other(*arguments, **{**keywords, **({"training": False} if "training" in keywords else {})})  # builds it
            for mine, twin in zip(operation.weights, other.weights, strict=True):
                if (known := self.variables.get(id(mine))) is not None:  # what computed with it came first
                    twin._value = known._value
                twin.assign(mine)
                twin.trainable = mine.trainable
                self.variables[id(mine)] = twin
            for name in getattr(rule, "FREEZES", ()):  # as exact as the layer has them, not as they were given
                if np.ndim(held := getattr(operation, name, 0)):
                    exact = keras.ops.cast(held, operation.compute_dtype)
                    setattr(other, name, keras.ops.cast(exact, other.compute_dtype))
            self.layers[id(operation)] = other
        return self.layers[id(operation)]

    def variable(self, variable):
        """Return the twin of a variable that the model computes with itself."""
        if id(variable) not in self.variables:
            dtype = self.dtype if self.dtype and "float" in variable.dtype else variable.dtype
            self.variables[id(variable)] = keras.Variable(
                np.asarray(variable), trainable=variable.trainable, dtype=dtype
            )
        return self.variables[id(variable)]

    def _replace(self, config):
        if isinstance(config, dict):
            found = {k: self._replace(v) for k, v in config.items()}
            if self.dtype and (isinstance(config.get("dtype"), dict) or str(config.get("dtype")).startswith("float")):
                found["dtype"] = self.dtype
            return found
        if isinstance(config, (list, tuple)):
            found = [self._replace(v) for v in config]
            return tuple(found) if isinstance(config, tuple) else found
        return config


def _calm(config, names):
    """A configuration in which these entries, of layers inside it too, are 0."""
    if isinstance(config, dict):
        return {k: 0.0 if k in names and v is not None else _calm(v, names) for k, v in config.items()}
    return [_calm(v, names) for v in config] if isinstance(config, list) else config
