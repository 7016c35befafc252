"""Whole models in both directions: nesting, sharing, several inputs and outputs, Sequential models."""

import tracemalloc

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

import bridge

layers = keras.layers


def conv(name, **options):
    return layers.Conv2D(3, 3, padding="same", name=name, **options)


def image(name="image", size=6):
    return keras.Input((size, 5, 3), name=name)


def nested(name, *stack):
    y = x = image(f"{name}_in")
    for layer in stack:
        y = layer(y)
    return keras.Model(x, y, name=name)


def two_deep():
    x = image()
    return keras.Model(x, conv("z")(nested("mid", nested("inner", conv("c"), layers.ReLU()), conv("c"))(x)))


def called_twice():
    x, shared = image(), nested("m", conv("c"), layers.BatchNormalization(name="n"))
    return keras.Model(x, shared(shared(x)))


def siamese():
    a, b = image("a"), image("b")
    tower = nested("tower", conv("c"), layers.Flatten(), layers.Dense(4, name="fc"))
    return keras.Model([b, a], layers.Dense(2, name="out")(layers.Concatenate()([tower(a), tower(b)])))


def sequential():
    return keras.Sequential([image(), conv("a"), layers.Flatten(), layers.Dense(3, activation="relu", name="b")])


def sequential_built():
    model = keras.Sequential([conv("a"), layers.Flatten(), layers.Dense(3, name="b")])
    model.build((None, 6, 5, 3))
    return model


def sequential_inside():
    x = image()
    return keras.Model(x, conv("z")(keras.Sequential([image("s"), conv("a"), layers.ReLU()], name="s")(x)))


def several_inputs_and_outputs():
    a, b = image("a"), keras.Input((90,), name="b")
    y = layers.Flatten()(conv("c")(a)) + b
    return keras.Model([a, b], [y, (conv("d")(a), [layers.Dense(2, name="fc")(y)])])


def an_input_that_leaves():
    x = image()
    return keras.Model(x, [x, conv("a")(x)])


def an_output_twice():
    x = image()
    y = conv("a")(x)
    return keras.Model(x, [y, y, layers.Permute((3, 1, 2))(y)])


def an_input_that_nothing_reads():
    a, b = image("a"), keras.Input((4,), name="b")
    return keras.Model([a, b], conv("c")(a))


def part_of_another():
    whole = nested("whole", conv("a"), layers.ReLU(name="r"), conv("b"))
    return keras.Model(whole.get_layer("r").input, whole.get_layer("b").output)


@pytest.mark.parametrize(
    "make",
    [
        two_deep,
        called_twice,
        siamese,
        sequential,
        sequential_built,
        sequential_inside,
        several_inputs_and_outputs,
        an_input_that_leaves,
        an_output_twice,
        an_input_that_nothing_reads,
        part_of_another,
    ],
)
def test_shapes_of_models(check, make):
    model = make()
    _, again = check.both_ways(model, same_layers=False)
    assert len(again.weights) == len(model.weights)


def test_dictionaries(check):
    inputs = {"b": image("b"), "a": keras.Input((4,), name="a")}
    outputs = {"z": conv("c")(inputs["b"]), "y": [layers.Dense(2, name="d")(inputs["a"])]}
    model = check.randomise(keras.Model(inputs, outputs))
    module = bridge.to_torch(model)
    rng = np.random.default_rng(0)
    x = {"b": rng.normal(size=(2, 6, 5, 3)).astype("float32"), "a": rng.normal(size=(2, 4)).astype("float32")}
    with torch.no_grad():
        have = module(**{k: torch.from_numpy(check.to_first(v)) for k, v in x.items()})
    want = model(x)
    assert have.keys() == want.keys() and len(have["y"]) == 1
    assert check.relative(check.to_last(have["z"].numpy()), want["z"]) < 1e-5
    assert check.relative(have["y"][0].numpy(), want["y"][0]) < 1e-5


def test_verify_believes_it_and_no_lie(check):
    model = check.randomise(siamese())
    module = bridge.to_torch(model)
    assert bridge.verify(model, module).passed
    with torch.no_grad():
        next(module.parameters()).mul_(1.001)
    assert not bridge.verify(model, module).passed


def test_eval_mode_and_weights(check):
    model = check.randomise(called_twice())
    module = bridge.to_torch(model)
    assert not any(m.training for m in module.modules())
    assert sum(p.numel() for p in module.parameters()) == sum(int(np.prod(w.shape)) for w in model.trainable_weights)


def test_a_fixed_batch(check):
    x = keras.Input(batch_shape=(2, 6, 5, 3), name="x")
    module = bridge.to_torch(check.randomise(keras.Model(x, conv("c")(x))))
    assert module(torch.randn(2, 3, 6, 5)).shape == (2, 3, 6, 5)


def test_the_same_model_gives_the_same_source():
    from bridge import convert

    config = sequential().get_config()
    texts = {convert.source(keras.Sequential.from_config(config)).text for _ in range(2)}
    assert len(texts) == 1


def test_everything_wrong_is_said_at_once():
    x = image()
    y = layers.Lambda(tf.abs, name="one", output_shape=(6, 5, 3))(x)
    y = layers.Flatten(data_format="channels_first", name="two")(conv("fine")(y))
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_torch(keras.Model(x, y))
    assert "one (Lambda)" in str(e.value) and "two (Flatten)" in str(e.value) and "fine" not in str(e.value)


def test_weights_are_in_memory_once():
    """Those of a Dense behind a Flatten too, whose rows change places."""
    x = image(size=100)
    model = keras.Model(x, layers.Dense(2000, name="wide")(layers.Flatten()(conv("c")(x))))
    tracemalloc.start()
    module = bridge.to_torch(model)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = sum(p.numel() * p.element_size() for p in module.parameters())
    assert size < most < 1.25 * size


def test_a_conversion_leaves_the_other_side_alone():
    x = image()
    model = keras.Model(x, layers.Dense(4, name="d")(layers.Flatten()(conv("c")(x))))
    module = bridge.to_torch(model)
    again, weights = bridge.to_keras(module, (torch.randn(2, 3, 6, 5),)), model.get_weights()
    with torch.no_grad():
        for p in module.parameters():
            p.zero_()
    for have, want in zip(again.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(have, want)
    for variable in again.variables:
        variable.assign_add(keras.ops.ones_like(variable))
    assert not any(p.any() for p in module.parameters())
    for have, want in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(have, want)


def test_a_size_that_torch_fixes_for_nothing():
    """Its max_pool1d looks at the numbers, and computes the same with others."""
    module = torch.nn.Sequential(torch.nn.MaxPool1d(3, 2), torch.nn.Conv1d(3, 4, 1)).eval()
    model = bridge.to_keras(module, (torch.randn(2, 3, 8),), [{0, 2}])
    x = torch.randn(4, 3, 13)
    np.testing.assert_allclose(model(x.numpy()), module(x).detach().numpy(), rtol=1e-4, atol=1e-6)
