"""A training step of variational models against the same networks in plain torch, with the same optimizer and weights.

    .venv/bin/python benchmarks/variational.py [--output FILE]        three minutes on two cores

A step is what `fit` calls for each batch, which comes from a `tf.data.Dataset`; torch has it there. Both report what a
log has of it. Before it is timed, both give the same loss and the same codebook.
"""

import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import torch  # noqa: E402
from _measure import compare, finish  # noqa: E402  first: it quietens TensorFlow
from _variational_by_hand import Vae, VqVae  # noqa: E402

import bridge  # noqa: E402
import tfzoo  # noqa: E402
from tfzoo.quantisation.codebook import vectors  # noqa: E402
from tfzoo.vq_vae import SIZES  # noqa: E402

GOAL = 1.0
RATE = 1e-3
rng = np.random.default_rng(0)


def vae(batch: int):
    """Give the convolutional VAE in both frameworks, with the same weights and the same bound, and pictures.

    torch's transposed convolutions cut off the other side of a picture than TensorFlow's, so its decoder is given the
    weights upside down, and the pictures are the same that way.
    """
    model, network = tfzoo.build("vae", "cvae_mnist"), Vae()
    state = bridge.to_torch(model.encoder).state_dict()
    heads = [torch.cat([state[f"{name}.{kind}"] for name in ("mean", "log_variance")]) for kind in ("weight", "bias")]
    fill(network.encoder, [state[f"conv{i}.{kind}"] for i in (0, 1) for kind in ("weight", "bias")] + heads)
    first, bias, *rest = (weight.numpy() for weight in model.decoder.weights)
    first, bias = (
        x.reshape(-1, 7, 7, 32)[:, ::-1, ::-1].transpose(3, 1, 2, 0).reshape(1568, -1) for x in (first, bias)
    )
    rest = [x.transpose(3, 2, 0, 1)[:, :, ::-1, ::-1] if x.ndim == 4 else x for x in rest]
    fill(network.decoder, [torch.from_numpy(x.copy()) for x in (first, bias[:, 0], *rest)])
    x, noise = rng.integers(0, 2, (batch, 28, 28, 1)).astype("float32"), rng.normal(size=(batch, 2)).astype("float32")
    x = np.maximum(x, x[:, ::-1, ::-1])
    found, divergence = model.terms(x, lambda shape: tf.constant(noise))
    with torch.no_grad():
        same(tf.reduce_mean(tf.reduce_sum(divergence, -1) - found), network(in_torch(x), torch.from_numpy(noise))[0])
    return model, network, x


def fill(network: torch.nn.Module, values: list[torch.Tensor]) -> None:
    """Give a network its weights, in order."""
    network.load_state_dict(dict(zip(network.state_dict(), values, strict=True)))


def vq_vae(size: str, batch: int):
    """Give VQ-VAE in both frameworks, with the same weights, loss and codebook that follows, and pictures."""
    model = tfzoo.build("vq_vae", size, codebook="ema")
    network = VqVae(**{k: v for k, v in SIZES[size].items() if k != "codebook"})
    x = rng.random((batch, *model.input_shape[1:]), "float32")
    z = np.asarray(model.encoder(x)).reshape(-1, model.encoder.output_shape[-1])
    book = vectors(model.quantiser)
    book.assign(z[rng.choice(len(z), model.codes, replace=False)])  # as in the midst of a training
    for name in ("encoder", "decoder", "prior"):
        bridge.load_weights(getattr(network, name), getattr(model, name))
    network.quantiser.book.copy_(torch.from_numpy(book.numpy()))
    found = model(x, training=False)
    with torch.no_grad():
        loss, _ = network.eval()(in_torch(x))
        _, _, counts = network.quantiser.train()(network.encoder(in_torch(x)))
    same(model.compute_loss(x, y_pred=found, training=False) + tf.reduce_mean(found["nats"]), loss)
    model.averages.follow(model.quantiser, found["z"], found["codes"])
    used = counts.numpy() >= 1  # the others begin again somewhere
    assert used.mean() > 0.5
    same(np.asarray(book)[used], network.quantiser.book[used])
    return model, network.train(), x


def same(ours, theirs) -> None:
    """See that both frameworks compute the same."""
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def in_torch(x: np.ndarray) -> torch.Tensor:
    """Give pictures to torch."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def steps(model, network, x: np.ndarray, jit: bool = False):
    """Give a step of Adam in each framework, as its users write it, and what it begins with.

    Returns:
        Pairs of functions, of TensorFlow and of torch, by what they do: the loss alone, with its gradients, all.
    """
    count = sum(p.numel() for p in network.parameters())
    assert count == sum(int(np.prod(w.shape)) for w in model.trainable_variables), "other networks"
    model.compile(keras.optimizers.Adam(RATE), jit_compile=jit)
    model.optimizer.build(model.trainable_variables)
    batches, given, of = iter(tf.data.Dataset.from_tensors((x,)).repeat()), in_torch(x), tf.constant(x)
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    weights = [weight.value for weight in model.trainable_variables]
    model.make_train_function()

    def loss():
        return model.compute_loss(of, y_pred=model(of, training=True))

    def gradients():
        with tf.GradientTape() as tape:
            found = loss()
        return tape.gradient(found, weights)

    def keras_step():
        return {name: float(value) for name, value in model.train_function(batches).items()}

    def torch_gradients():
        optimizer.zero_grad()
        found, besides = network(given)
        found.backward()
        return found, besides

    def torch_step():
        found, besides = torch_gradients()
        optimizer.step()
        return {"loss": found.item(), **{name: value.item() for name, value in besides.items()}}

    assert keras_step().keys() - {"batch_perplexity"} <= torch_step().keys(), "other figures"
    first, second = (tf.function(function, jit_compile=jit) for function in (loss, gradients))
    return {
        "the loss": (first, lambda: network(given)),
        "its gradients": (second, torch_gradients),
        "the optimizer, the figures, what is around": (keras_step, torch_step),
    }


def in_turn(parts: dict[str, tuple], rounds: int) -> dict[str, dict[str, float]]:
    """Time all parts of a step in every round, so that what else the machine does is in all of them; gives medians."""
    times = {(part, side): [] for part in parts for side in ("ours", "theirs")}
    for _ in range(rounds + 2):
        for part, both in parts.items():
            for side, function in zip(("ours", "theirs"), both, strict=True):
                start = time.perf_counter()
                function()
                times[part, side].append(time.perf_counter() - start)
    return {part: {s: float(np.median(times[part, s][2:])) for s in ("ours", "theirs")} for part in parts}


def main() -> int:
    """Measure, print and write; the exit code."""
    made = {
        "convolutional VAE: training step, batch 32": (60, vae, 32),
        "convolutional VAE: training step, batch 128": (30, vae, 128),
        "VQ-VAE of digits: training step, batch 64": (60, vq_vae, "digits", 64),
        "VQ-VAE of 32x32 RGB: training step, batch 32": (10, vq_vae, "paper", 32),
    }
    results, stages = {}, {}
    for name, (rounds, make, *arguments) in made.items():
        parts = steps(*make(*arguments))
        results[name] = compare(*list(parts.values())[-1], rounds=rounds)
        stages[name] = in_turn(parts, rounds)
    *_, by_xla = steps(*vae(128), jit=True).values()
    besides = {"convolutional VAE: training step, batch 128, by XLA": compare(*by_xla, rounds=20)}
    for name, found in besides.items():
        print(f"{name}: {found['ratio']:.3f}")
    for name, parts in stages.items():
        for part, r in parts.items():
            print(f"{name}, up to {part}: {r['ours'] * 1e3:.1f} ms, {r['theirs'] * 1e3:.1f} ms")
    return finish(results, dict.fromkeys(results, GOAL), besides=besides, stages=stages)


if __name__ == "__main__":
    sys.exit(main())
