"""A variational autoencoder with an inverse autoregressive flow on handwritten digits, or on your own pictures.

    tfzoo train iaf_vae --output RUN                two minutes on two cores: held-out ELBO >= -17.9 nats
    tfzoo train iaf_vae --set blocks=0              without a flow: >= -18.3
    tfzoo train iaf_vae --size ladder --epochs 80   four minutes: >= -18.3
    tfzoo train iaf_vae --set "image_shape=(28,28,1)" --data keras:mnist

The digits are black and white, cut at half of their 16 greys. On the same 360 held-out ones independent pixels have
-25.2 nats and a mixture of 50 such -18.1.
"""

from apps.recipes import _pictures
from apps.recipes.vae import asks, bounded, compile

DEFAULTS = {
    "size": "digits",
    "data": "digits",
    "epochs": 160,
    "steps_per_epoch": 60,
    "batch_size": 64,
    "learning_rate": 2e-3,
}
MINUTES = {"full": 2}  # on two cores
DATA = "handwritten digits (embedded), or DIR with pictures anywhere below it, keras:mnist, tfds:NAME"
datasets, draw, evaluate = _pictures.datasets, _pictures.draw, bounded
__all__ = ["DATA", "DEFAULTS", "MINUTES", "asks", "compile", "datasets", "draw", "evaluate"]
