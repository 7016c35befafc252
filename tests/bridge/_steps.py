"""Networks and steps that the tests of optimizers take on both sides."""

import contextlib

import keras
import numpy as np
import torch
from keras import layers

import bridge

STEPS = 3


SETTINGS = {
    "SGD": {"momentum": 0.9},
    "SGD, Nesterov, decay": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "SGD, plain": {},
    "Adam": {"global_clipnorm": 0.5},
    "Adam, plain": {},
    "Adam, amsgrad": {"amsgrad": True, "clipnorm": 0.1},
    "AdamW": {"weight_decay": 0.02},
    "RMSprop": {"clipvalue": 0.01},
    "RMSprop, centered": {"momentum": 0.8, "centered": True},
    "Adagrad": {"weight_decay": 0.01},
    "Adamax": {},
    "Nadam": {"weight_decay": 0.01},
    "Lion": {"weight_decay": 0.1},
    "Adam, averaged": {"use_ema": True, "ema_momentum": 0.7, "ema_overwrite_frequency": 4},
    "Adam, accumulated": {"gradient_accumulation_steps": 2},
    "SGD, scaled": {"momentum": 0.5, "loss_scale_factor": 8.0},
}


def convolutional():
    """Convolutions with BatchNorm, a frozen layer, and rows that follow another order of channels in torch."""
    image = keras.Input((7, 6, 3))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(image)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2D(5, 3, strides=2, trainable=False)(x)
    x = layers.DepthwiseConv2D(2)(layers.BatchNormalization()(x))
    return keras.Model(image, layers.Dense(3)(layers.Flatten()(x)))


def transformer():
    """A block of a transformer; without biases in attention: the key's has no gradient but of rounding."""
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(11, 8)(tokens)
    y = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(2, 4, use_bias=False)(y, y)
    y = layers.Dense(8)(layers.Dense(16, activation="silu")(layers.LayerNormalization()(x)))
    return keras.Model(tokens, layers.Dense(3)(layers.GlobalAveragePooling1D()(x + y)))


def recurrent():
    """An LSTM, and a GRU whose biases torch has in two tensors."""
    sequence = keras.Input((5, 4))
    x = layers.GRU(5, name="gru")(layers.LSTM(6, return_sequences=True, name="lstm")(sequence))
    return keras.Model(sequence, layers.Dense(3, name="dense")(x))


NETWORKS = {f.__name__: f for f in (convolutional, transformer, recurrent)}


@contextlib.contextmanager
def in_float64():
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before[0])
        keras.config.set_floatx(before[1])


def network(kind, seed=0):
    keras.utils.set_random_seed(seed)
    model = NETWORKS[kind]()
    rng = np.random.default_rng(seed)
    for v in model.weights:
        if "seed" not in v.path:
            v.assign(np.asarray(v) + rng.uniform(0.01, 0.1, size=v.shape))
    return model


def batches(model, number, seed=1):
    rng = np.random.default_rng(seed)
    shape = (4, *model.input_shape[1:])
    if "int" in model.inputs[0].dtype:
        x = rng.integers(0, 11, size=(number, *shape))
    else:
        x = rng.normal(size=(number, *shape))
    return list(zip(x, rng.normal(size=(number, 4, 3)), strict=True))


def train_keras(model, optimizer, data):
    import tensorflow as tf

    losses = []
    for x, y in data:
        with tf.GradientTape() as tape:
            out = model(x.astype(model.inputs[0].dtype), training=True)
            loss = keras.ops.mean(keras.ops.square(out - y.astype(out.dtype.name)))
            scaled = optimizer.scale_loss(loss)
        optimizer.apply(tape.gradient(scaled, [v.value for v in model.trainable_variables]), model.trainable_variables)
        losses.append(float(loss))
    return losses


def train_torch(module, optimizer, data, scale=1.0):
    losses = []
    dtype = next(p.dtype for p in module.parameters())
    module.train()
    for x, y in data:
        x = torch.from_numpy(np.moveaxis(x, -1, 1).copy() if x.ndim == 4 else x)
        optimizer.zero_grad()
        loss = (module(x.to(dtype) if x.is_floating_point() else x) - torch.from_numpy(y).to(dtype)).square().mean()
        (loss * scale).backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def same(model, module, rtol, atol):
    """The weights and statistics of both are the same, numbers near 0 to the size of the others."""
    want = bridge.to_torch(model).state_dict()
    have = module.state_dict()
    for name, value in want.items():
        if name.endswith("num_batches_tracked"):
            continue
        size = float(value.double().abs().max())
        np.testing.assert_allclose(
            have[name].double(), value.double(), rtol=rtol, atol=atol * max(size, 1e-3), err_msg=name
        )


def made(name, model, rate=2.0**-7):
    cls, _, _ = name.partition(",")
    optimizer = getattr(keras.optimizers, cls)(rate, **SETTINGS[name])
    if SETTINGS[name].get("weight_decay"):
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    optimizer.build(model.trainable_variables)
    return optimizer
