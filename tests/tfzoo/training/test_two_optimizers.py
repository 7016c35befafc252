"""Two optimizers: each learns its own network, both are saved, and random draws go on where they stopped.

That replicas and workers give the same weights as one device: test_distributed_fit.py, the case "two_optimizers".
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from tfzoo.training.two_optimizers import TwoOptimizers

RNG = np.random.default_rng(0)
X = RNG.normal(size=(11, 3)).astype("float32")
Z = RNG.normal(size=(11, 2)).astype("float32")


class Means(TwoOptimizers):
    """Linear networks, so that the gradients are known: the critic's slope is its kernel."""

    def critic_loss(self, batch):
        x, z = batch
        return ops.mean(self.critic(self.generator(z))) - ops.mean(self.critic(x))

    def generator_loss(self, batch):
        return -ops.mean(self.critic(self.generator(batch[1])))


class Noise(Means):
    """Draws its noise."""

    def critic_loss(self, batch):
        return super().critic_loss((batch, self.draw(keras.random.normal, batch, (2,))))

    def generator_loss(self, batch):
        return super().generator_loss((batch, self.draw(keras.random.uniform, batch, (2,), minval=-1.0)))


def linear(inputs, outputs, **options):
    return keras.Sequential([keras.Input((inputs,)), layers.Dense(outputs, use_bias=False, **options)])


def two(kind=Means, seed=0, optimizer=keras.optimizers.SGD, compiled=True, **options):
    keras.utils.set_random_seed(seed)
    model = kind(linear(2, 3), linear(3, 1), seed=seed, **options)
    if compiled:
        model.compile(optimizer(0.1), optimizer(0.2), jit_compile=False)
    return model


def kernels(model):
    return [ops.convert_to_numpy(network.layers[0].kernel) for network in (model.generator, model.critic)]


@pytest.mark.parametrize("critic_steps", [0, 1, 3])
def test_equals_gradient_descent_in_numpy(critic_steps):
    model = two(critic_steps=critic_steps)
    made, score = kernels(model)  # (2, 3), (3, 1)
    losses = []
    for _ in range(2):
        for _ in range(critic_steps):
            losses.append(np.mean(Z @ made @ score) - np.mean(X @ score))
            score = score - 0.2 * (Z @ made - X).mean(0)[:, None]
        made = made + 0.1 * np.outer(Z.mean(0), score)
    data = tf.data.Dataset.from_tensors((X, Z)).repeat(2)
    history = model.fit(data, verbose=0).history
    np.testing.assert_allclose(kernels(model)[0], made, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(kernels(model)[1], score, rtol=1e-5, atol=1e-6)
    assert set(history) == {"generator_loss", "critic_loss"}
    np.testing.assert_allclose(history["critic_loss"], [np.mean(losses or [0])], rtol=1e-5, atol=1e-6)
    assert (model.generator_optimizer.iterations, model.critic_optimizer.iterations) == (2, 2 * critic_steps)


def test_losses_count_by_their_examples():
    model = two()
    model.compile(keras.optimizers.SGD(0.0), keras.optimizers.SGD(0.0))
    history = model.fit(tf.data.Dataset.from_tensor_slices((X, Z)).batch(4), epochs=2, verbose=0).history
    made, score = kernels(model)
    np.testing.assert_allclose(history["generator_loss"], [-np.mean(Z @ made @ score)] * 2, rtol=1e-5)


def test_compile_builds_both_optimizers_and_no_other():
    model = two(optimizer=keras.optimizers.Adam)
    assert model.optimizer is None
    assert [len(optimizer.variables) for optimizer in (model.generator_optimizer, model.critic_optimizer)] == [4, 4]
    assert all(optimizer.built for optimizer in (model.generator_optimizer, model.critic_optimizer))
    variables = model.critic_optimizer.variables
    model.compile(model.generator_optimizer, model.critic_optimizer)
    assert all(now is was for now, was in zip(model.critic_optimizer.variables, variables, strict=True))
    assert [metric.name for metric in model.metrics] == ["generator_loss", "critic_loss"]


def test_a_network_without_weights_is_refused():
    with pytest.raises(ValueError, match="The critic is not built: call it once, or give it an input shape. Received"):
        TwoOptimizers(linear(2, 3), keras.Sequential([layers.Dense(1)]))


def state(model):
    optimizers = model.generator_optimizer, model.critic_optimizer
    return [*model.variables, *(variable for optimizer in optimizers for variable in optimizer.variables)]


def copy_state(model, other, path):
    """As checkpoints do: variable by variable; the seed is one of them."""
    for variable, value in zip(state(other), state(model), strict=True):
        variable.assign(value)


def save_and_load_weights(model, other, path):
    """Keras leaves out every seed, so this is enough for a model that draws none."""
    model.save_weights(path / "half.weights.h5")
    other.load_weights(path / "half.weights.h5")


@pytest.mark.parametrize(("kind", "carry"), [(Noise, copy_state), (Means, save_and_load_weights)])
def test_goes_on_as_if_not_interrupted(tmp_path, kind, carry):
    data = tf.data.Dataset.from_tensor_slices(X if kind is Noise else (X, Z)).batch(4)  # 3 steps
    whole, resumed = (two(kind, seed, keras.optimizers.Adam, critic_steps=2) for seed in range(2))
    whole.fit(data, verbose=0)
    carry(whole, resumed, tmp_path)
    whole.fit(data, verbose=0)
    resumed.fit(data, verbose=0)
    for found, expected in zip(state(resumed), state(whole), strict=True):
        if kind is Noise or "seed" not in expected.path:
            np.testing.assert_array_equal(ops.convert_to_numpy(found), ops.convert_to_numpy(expected))


def test_draws_are_new_at_every_call_and_the_same_for_a_seed():
    model = two(seed=5, compiled=False)
    first, second = (model.draw(keras.random.normal, (X, Z), (2, 3)) for _ in range(2))
    assert first.shape == (11, 2, 3)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, two(seed=5, compiled=False).draw(keras.random.normal, X, (2, 3)))
    whole = two(compiled=False).draw(keras.random.randint, X, (), minval=0, maxval=10)
    assert whole.shape == (11,)
    assert model.seed_generator.state in model.variables


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_the_loss_is_scaled_where_float16_needs_it(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = two(compiled=False)
        model.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.2))
    finally:
        keras.config.set_dtype_policy(before)
    expected = two()
    data = tf.data.Dataset.from_tensors((X, Z)).repeat(3)
    expected.fit(data, verbose=0)
    history = model.fit(data, verbose=0).history
    scaled = isinstance(model.critic_optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == isinstance(model.generator_optimizer, keras.optimizers.LossScaleOptimizer) == (policy != "float32")
    assert np.isfinite([*history.values()]).all()
    for found, kernel in zip(kernels(model), kernels(expected), strict=True):
        np.testing.assert_allclose(found, kernel, rtol=5e-3, atol=5e-3)
