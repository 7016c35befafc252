"""What a Keras model is, before anyone reads it. Neither torch nor a rule is imported for it: a training needs this."""

import keras

SIZES = (17, 16, 24, 32, 48, 64, 96, 128, 224, 299, 12, 9, 8, 6, 4)  # tried for open axes, the first that is taken


def functional(model):
    """The graph of layers that a model is or, for a Sequential, has."""
    return model._functional if isinstance(model, keras.Sequential) else model


def is_functional(model) -> bool:
    """Tell whether a model is a graph of layers: functional, or Sequential and built."""
    own = (keras.src.models.Functional, keras.Sequential)
    if not isinstance(model, own) or not getattr(model, "inputs", None):
        return False
    return type(model).call in [kind.call for kind in own]  # another `call` may do anything


def parts(model) -> dict[str, keras.Model]:
    """The networks that are a model's attributes, by their names."""
    return {k: v for k, v in vars(model).items() if isinstance(v, keras.Model) and not k.startswith("_")}


def input_names(model) -> list[str]:
    """The names of a model's inputs; a KerasTensor's own name is another in each process."""
    return [t._keras_history.operation.name for t in keras.tree.flatten(functional(model).inputs)]
