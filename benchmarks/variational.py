"""A training step of variational models against the same networks in plain torch, with the same optimizer.

.venv/bin/python benchmarks/variational.py [--output FILE]        a minute on two cores
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import torch  # noqa: E402
from _measure import compare, finish  # noqa: E402  first: it quietens TensorFlow
from torch import nn  # noqa: E402

import bridge  # noqa: E402
import tfzoo  # noqa: E402

GOAL = 1.0
RATE = 1e-3
rng = np.random.default_rng(0)


class Vae(nn.Module):
    """The convolutional autoencoder of TensorFlow's tutorial, as one writes it in torch."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 32, 3, 2), nn.ReLU(), nn.Conv2d(32, 64, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(2304, 4)
        )
        self.decoder = nn.Sequential(
            nn.Linear(2, 1568),
            nn.ReLU(),
            nn.Unflatten(1, (32, 7, 7)),
            nn.ConvTranspose2d(32, 64, 3, 2, 1, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 3, 2, 1, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 1, 3, 1, 1),
        )

    def forward(self, x):
        mean, log_variance = self.encoder(x).chunk(2, 1)
        z = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        entropy = nn.functional.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="none").sum((1, 2, 3))
        return (entropy + (mean**2 + log_variance.exp() - 1 - log_variance).sum(1) / 2).mean()


def steps(batch: int, jit: bool = False):
    """A step of Adam on a batch that is there, in each framework as its users write it."""
    model, network = tfzoo.build("vae", "cvae_mnist"), Vae()
    count = sum(p.numel() for p in network.parameters())
    assert count == sum(int(np.prod(w.shape)) for w in model.trainable_variables), "other networks"
    x = rng.integers(0, 2, (batch, 28, 28, 1)).astype("float32")
    model.compile(keras.optimizers.Adam(RATE), jit_compile=jit)
    data, given = tf.constant(x), bridge.tf_to_torch(tf.constant(np.moveaxis(x, -1, 1).copy()))
    optimizer = torch.optim.Adam(network.parameters(), RATE)

    def torchs():
        optimizer.zero_grad()
        loss = network(given)
        loss.backward()
        optimizer.step()
        return loss.item()

    return lambda: model.train_on_batch(data), torchs


def main() -> int:
    results = {f"convolutional VAE: training step, batch {n}": compare(*steps(n), rounds=30) for n in (32, 128)}
    besides = {"convolutional VAE: training step, batch 128, by XLA": compare(*steps(128, jit=True), rounds=30)}
    for name, found in besides.items():
        print(f"{name}: {found['ratio']:.3f}")
    return finish(results, dict.fromkeys(results, GOAL), besides=besides)


if __name__ == "__main__":
    sys.exit(main())
