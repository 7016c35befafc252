"""Variational autoencoder (Kingma & Welling, 2014, https://arxiv.org/abs/1312.6114); beta-VAE (Higgins et al., 2017).

    picture - encoder - mean, log variance of q(z|x)      z = mean + sigma * noise
                                      z - decoder - p(x|z)

`tfzoo.variational` has what the decoder says of a picture, and the objective: beta, its warm-up, capacity, free bits.
"""

import math

import keras
from keras import layers, ops

from tfzoo.layers import arguments
from tfzoo.variational import likelihood as likelihoods
from tfzoo.variational import objective as objectives
from tfzoo.variational.likelihood import Likelihood, picture
from tfzoo.variational.model import Autoencoder, in_chunks
from tfzoo.variational.objective import Objective

SIZES = {
    "digits": {
        "image_shape": (8, 8, 1),
        "latents": 16,
        "encoder": (),
        "encoder_units": (256,),
        "decoder_units": (256,),
        "decoder": None,
        "dropout": 0.1,
    },
    # The encoder and decoder of TensorFlow's tutorial on convolutional VAEs.
    "cvae_mnist": {},
    # Those of beta-VAE, with the encoder's later kernels as in Locatello et al. (2019), whose library it is known from.
    "beta_64": {
        "image_shape": (64, 64, 1),
        "latents": 10,
        "encoder": ((32, 4), (32, 4), (64, 2), (64, 2)),
        "padding": "same",
        "encoder_units": (256,),
        "decoder_units": (256,),
        "decoder": (64, (64, 4), (32, 4), (32, 4), 4),
    },
    "linear": {
        "image_shape": (8, 8, 1),
        "latents": 8,
        "encoder": (),
        "encoder_units": (),
        "decoder_units": (),
        "decoder": None,
        "likelihood": "gaussian",
    },
    "tiny": {
        "image_shape": (8, 8, 1),
        "latents": 3,
        "encoder": ((8, 3),),
        "padding": "same",
        "decoder": (8, (8, 3), 0),
    },
}
PARAMETERS = {"digits": 45_664, "cvae_mnist": 69_989, "beta_64": 690_517, "linear": 1_617, "tiny": 2_023}
DOES_NOT_APPLY = {
    "jit_compile_agrees": "XLA draws other random numbers by the same seed; test_vae.py compares with given ones"
}
ABLE = ("sample", "reconstruct", "interpolate", "traverse")


class Vae(Autoencoder):
    """An encoder and a decoder with a normal posterior whose latents are independent."""

    def posterior(self, pictures, training: bool = False):
        """Give q(z|x), a `tfd.Independent` of normal distributions `(B, K)`."""
        from tensorflow_probability import distributions as tfd

        found = {k: ops.cast(v, keras.backend.floatx()) for k, v in self.encoder(pictures, training=training).items()}
        return tfd.Independent(tfd.Normal(found["mean"], ops.exp(found["log_variance"] / 2)), 1)

    def prior(self):
        """Give p(z), a `tfd.Independent` of standard normal distributions `(K,)`."""
        from tensorflow_probability import distributions as tfd

        return tfd.Independent(tfd.Normal(ops.zeros(self.decoder.input_shape[1:]), 1.0), 1)

    def terms(self, pictures, draw, training=False, analytic=True):
        from tensorflow_probability import distributions as tfd

        posterior, prior = (each.distribution for each in (self.posterior(pictures, training), self.prior()))
        latent = posterior.loc + posterior.scale * draw(self.decoder.input_shape[1:])
        log_likelihood = self.likelihood.log_prob(self.decoder(latent, training=training), pictures)
        if analytic:
            return log_likelihood, tfd.kl_divergence(posterior, prior)
        return log_likelihood, posterior.log_prob(latent) - prior.log_prob(latent)

    def encode(self, pictures):
        return in_chunks(lambda x: self.encoder(x, training=False)["mean"], pictures)


@arguments.plain
def vae(
    image_shape: tuple[int, int, int] = (28, 28, 1),
    latents: int = 2,
    encoder: tuple = ((32, 3), (64, 3)),
    padding: str = "valid",
    encoder_units: tuple[int, ...] = (),
    decoder_units: tuple[int, ...] = (),
    decoder: tuple | None = (32, (64, 3), (32, 3), 0),
    activation: str = "relu",
    dropout: float = 0.0,
    likelihood: str = "bernoulli",
    sigma: float | str = likelihoods.LEARNED,
    levels: int = likelihoods.LEVELS,
    beta: float = 1.0,
    warm_up: int = 0,
    capacity: float | None = None,
    capacity_steps: int = 0,
    free_bits: float = 0.0,
    divergence: str = "analytic",
) -> Vae:
    """Build a variational autoencoder.

    Args:
        image_shape: `(H, W, C)` in pixels.
        latents: Dimensions of z.
        encoder: Convolutions as `(channels, kernel)`, each of stride 2; none for dense layers alone.
        padding: Of those, as Keras has it.
        encoder_units: Dense layers behind them.
        decoder_units: Dense layers in front of the decoder's convolutions.
        decoder: Channels of the smallest picture; transposed convolutions as `(channels, kernel)`, each of stride 2;
            and the kernel of the last one, which has stride 2 too, or 0 for one of 3x3 and stride 1. None for
            dense layers alone.
        activation: Between the layers.
        dropout: Share of the dense layers' units.
        likelihood: One of `tfzoo.variational.likelihood.KINDS`.
        sigma: As `tfzoo.variational.likelihood.Likelihood` has it.
        levels: The same.
        beta: As `tfzoo.variational.objective.Objective` has it.
        warm_up: The same, in steps.
        capacity: The same, in nats.
        capacity_steps: The same.
        free_bits: The same, in nats.
        divergence: "analytic", or "monte_carlo" by one sample.

    Returns:
        A `Vae` of two networks: `encoder`, from pictures `(B, H, W, C)` to `mean` and `log_variance` `(B, latents)`;
        and `decoder`, from latents to what `likelihood` takes.

    Raises:
        ValueError: Names every argument that cannot be.
    """
    check(**{k: v for k, v in locals().items()})
    chosen = Likelihood(likelihood, sigma, levels)
    x = image = keras.Input(image_shape, name="image")
    for i, (channels, kernel) in enumerate(encoder):
        x = layers.Conv2D(channels, kernel, 2, padding, activation=activation, name=f"conv{i}")(x)  # (B, H/2, W/2, C)
    x = dense(layers.Flatten(name="flat")(x), encoder_units, activation, dropout)
    found = {name: layers.Dense(latents, name=name)(x) for name in ("mean", "log_variance")}
    networks = {"encoder": keras.Model(image, found, name="encoder")}

    x = latent = keras.Input((latents,), name="latent")
    x = dense(x, decoder_units, activation, dropout)
    if decoder is None:
        x = layers.Dense(math.prod(image_shape), name="pixels")(x)
        x = layers.Reshape(image_shape, name="picture")(x)
    else:
        start, *steps, last = decoder
        times = 2 ** (len(steps) + bool(last))
        smallest = (image_shape[0] // times, image_shape[1] // times, start)
        x = layers.Dense(math.prod(smallest), activation, name="smallest")(x)
        x = layers.Reshape(smallest, name="rows")(x)
        for i, (channels, kernel) in enumerate(steps):
            x = layers.Conv2DTranspose(channels, kernel, 2, "same", activation=activation, name=f"up{i}")(x)
        x = layers.Conv2DTranspose(image_shape[2], last or 3, 2 if last else 1, "same", name="picture")(x)
    networks["decoder"] = keras.Model(latent, chosen.head(x), name="decoder")
    objective = Objective(beta, warm_up, capacity, capacity_steps, free_bits, divergence == "analytic")
    return Vae(networks, chosen, objective, "vae")


def dense(x, units: tuple[int, ...], activation: str, dropout: float):
    """Apply dense layers `(B, N)` to `(B, units[-1])`."""
    for i, width in enumerate(units):
        x = layers.Dense(width, activation, name=f"dense{i}")(x)
        x = layers.Dropout(dropout, name=f"dropout{i}")(x) if dropout else x
    return x


def signatures(networks: dict[str, keras.Model]):
    """Give what an export serves: `image` to its reconstruction and its posterior, and `latent` to a picture."""
    import tensorflow as tf

    from tfzoo.export.signatures import DEFAULT, Signature

    encoder, decoder = networks["encoder"], networks["decoder"]
    image = tf.TensorSpec(encoder.input_shape, "float32", "image")
    latent = tf.TensorSpec(decoder.input_shape, "float32", "latent")

    def reconstruct(image):
        found = encoder(image, training=False)
        return {**found, "reconstruction": picture(decoder(found["mean"], training=False))}

    def decode(latent):
        return {"picture": picture(decoder(latent, training=False))}

    return {DEFAULT: Signature(reconstruct, (image,)), "decode": Signature(decode, (latent,))}


def check(
    image_shape,
    latents,
    encoder,
    padding,
    encoder_units,
    decoder_units,
    decoder,
    activation,
    dropout,
    likelihood,
    sigma,
    levels,
    beta,
    warm_up,
    capacity,
    capacity_steps,
    free_bits,
    divergence,
) -> None:
    """Raise one ValueError that names every argument of another type or out of range."""

    def pairs(some) -> bool:
        return isinstance(some, (tuple, list)) and all(
            isinstance(one, (tuple, list)) and len(one) == 2 and all(map(arguments.is_positive, one)) for one in some
        )

    problems = []
    if not pairs(encoder):
        problems.append(f"encoder must be pairs of integers from 1, (channels, kernel). Received: encoder={encoder!r}")
    times = 1
    if decoder is not None:
        good = isinstance(decoder, (tuple, list)) and len(decoder) >= 2
        if (
            not good
            or not pairs(decoder[1:-1])
            or not arguments.is_positive(decoder[0])
            or (decoder[-1] != 0 and not arguments.is_positive(decoder[-1]))
        ):
            problems.append(
                "decoder must be None, or the channels of the smallest picture, pairs of channels and kernel, and the "
                f"last kernel or 0, as (32, (64, 3), (32, 3), 0). Received: decoder={decoder!r}"
            )
        else:
            times = 2 ** (len(decoder) - 2 + bool(decoder[-1]))
    units = {"encoder_units": encoder_units, "decoder_units": decoder_units}
    arguments.refuse(
        problems,
        arguments.image_shape(
            image_shape,
            open_size=False,
            multiple=times,
            why=f"the decoder doubles a picture {times.bit_length() - 1} times",
        ),
        arguments.positive(latents=latents),
        *(arguments.positives(**{k: v}) for k, v in units.items() if v != () and v != []),
        arguments.among(("valid", "same"), padding=padding),
        arguments.rates(dropout=dropout),
        arguments.activations(activation=activation),
        likelihoods.arguments(likelihood, sigma, levels),
        objectives.arguments(beta, warm_up, capacity, capacity_steps, free_bits, divergence),
    )
