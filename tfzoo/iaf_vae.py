"""Variational autoencoders whose posterior is an inverse autoregressive flow (Kingma et al., 2016, arxiv 1606.04934).

    dense    picture - encoder - mean, log variance, context          start = mean + sigma * noise
             start, context - flow - z, log determinant               log q(z|x) = log q(start|x) - log determinant
             z - decoder - p(x|z)

    ladder   picture - up0 - up1 - ...           each level's posterior, in part, and features for the next one
             ... - down1 - down0 - p(x|z)        from above: its prior, the rest of its posterior, features for the next

In a ladder (the paper's figure 3 and appendix C.1) a level's latents are a picture of several channels, and what is
above decides their prior. In units of that prior, (z - mean) / sigma, all levels together are a row of latents of which
the decoder makes a picture as any decoder does: standard normal ones for a sample. Unlike the paper's, its convolutions
have no weight normalization.
"""

import math

import keras
import tensorflow as tf
from keras import layers, ops

from tfzoo import vae
from tfzoo.flows.inverse_autoregressive import step
from tfzoo.layers import arguments
from tfzoo.variational import likelihood as likelihoods
from tfzoo.variational import objective as objectives
from tfzoo.variational.ladder import channels, ladder
from tfzoo.variational.likelihood import Likelihood, picture
from tfzoo.variational.model import Autoencoder, in_chunks
from tfzoo.variational.objective import Objective

SIZES = {
    "digits": {},
    "ladder": {
        "kind": "ladder",
        "latents": 4,
        "blocks": 1,
        "flow_units": (32, 32),
        "width": 64,
        "activation": "elu",
        "warm_up": 1000,
    },
    "tiny": {
        "latents": 3,
        "flow_units": (8,),
        "context": 4,
        "encoder_units": (16,),
        "decoder_units": (16,),
        "dropout": 0.0,
    },
}
PARAMETERS = {"digits": 74_688, "ladder": 353_977, "tiny": 2_598}
DOES_NOT_APPLY = {
    "jit_compile_agrees": "XLA draws other random numbers by the same seed; test_iaf_vae.py compares with given ones"
}
ABLE = ("sample", "reconstruct", "interpolate", "traverse")
KINDS = ("dense", "ladder")


class IafVae(Autoencoder):
    """A variational model whose posterior is known by latents that are drawn from it.

    Args:
        networks: By their names.
        likelihood: Of pictures.
        objective: What `fit` lowers.
        groups: The latents that the divergence is summed over, for the objective: `(K, groups)` of 0 and 1.
    """

    def __init__(self, networks: dict[str, keras.Model], likelihood: Likelihood, objective: Objective, groups=None):
        super().__init__(networks, likelihood, objective, "iaf_vae")
        self.groups = groups

    @property
    def input_shape(self):
        return image_shape_of(self.networks())

    def networks(self) -> dict[str, keras.Model]:
        """Give the networks by their names."""
        names = ("encoder", "flow", "decoder") if hasattr(self, "flow") else ("inference", "decoder")
        return {name: getattr(self, name) for name in names}

    def terms(self, pictures, draw, training=False, analytic=True):
        from tensorflow_probability import distributions as tfd

        made = inferred(self.networks(), pictures, draw(self.decoder.input_shape[1:]), training)
        made = {k: ops.cast(v, keras.backend.floatx()) for k, v in made.items()}
        log_q = tfd.Normal(made["start_mean"], ops.exp(made["start_log_scale"])).log_prob(made["start"])
        log_p = tfd.Normal(ops.zeros_like(made["start"]), 1.0).log_prob(made["latent"]) - made["prior_log_scale"]
        divergence = log_q - made["log_determinant"] - log_p
        if self.groups is not None:
            divergence = ops.matmul(divergence, ops.cast(self.groups, divergence.dtype))
        return self.likelihood.log_prob(made, pictures), divergence

    def encode(self, pictures):
        def latent(x):
            noise = ops.zeros((len(x), *self.decoder.input_shape[1:]))
            return inferred(self.networks(), ops.convert_to_tensor(x), noise)["latent"]

        return in_chunks(latent, pictures)


def inferred(networks: dict[str, keras.Model], pictures, noise, training: bool = False) -> dict[str, tf.Tensor]:
    """Make latents of noise.

    Args:
        networks: A model's.
        pictures: `(B, H, W, C)`.
        noise: Standard normal `(B, K)`.
        training: As Keras has it.

    Returns:
        Mean and log scale of what the flow begins with, `start_mean` and `start_log_scale`; `start`; `log_determinant`
        of each latent; `latent`, in units of its prior, and `prior_log_scale`, all `(B, K)`; what the decoder gives.
    """
    if "inference" in networks:
        return networks["inference"]({"image": pictures, "noise": noise}, training=training)
    found = networks["encoder"](pictures, training=training)
    mean, log_scale = (ops.cast(x, noise.dtype) for x in (found["mean"], found["log_variance"] / 2))
    start = mean + ops.exp(log_scale) * noise
    flowed = networks["flow"]({"start": start, "context": found["context"]}, training=training)
    given = networks["decoder"](flowed["latent"], training=training)
    first = {"start_mean": mean, "start_log_scale": log_scale, "start": start, "prior_log_scale": ops.zeros_like(start)}
    return {**first, **flowed, **given}


def image_shape_of(networks: dict[str, keras.Model]) -> tuple[int | None, ...]:
    """Give the shape of the pictures that a model takes, `(None, H, W, C)`."""
    return networks["inference" if "inference" in networks else "encoder"].get_layer("image").batch_shape


@arguments.plain
def iaf_vae(
    image_shape: tuple[int, int, int] = (8, 8, 1),
    kind: str = "dense",
    latents: int = 16,
    blocks: int = 2,
    flow_units: tuple[int, ...] = (128,),
    context: int = 32,
    forget_bias: float = 1.5,
    encoder_units: tuple[int, ...] = (256,),
    decoder_units: tuple[int, ...] = (256,),
    dropout: float = 0.1,
    levels: tuple[int, ...] = (2,),
    width: int = 32,
    residual_scale: float = 1.0,
    activation: str = "relu",
    likelihood: str = "bernoulli",
    sigma: float | str = likelihoods.LEARNED,
    grey_levels: int = likelihoods.LEVELS,
    beta: float = 1.0,
    warm_up: int = 0,
    free_bits: float = 0.0,
) -> IafVae:
    """Build a variational autoencoder whose posterior is an inverse autoregressive flow.

    Args:
        image_shape: `(H, W, C)` in pixels.
        kind: "dense" or "ladder".
        latents: Dimensions of z; of a ladder, channels of each level's.
        blocks: Steps of the flow, of each level; 0 for none, which leaves latents that are independent given a picture.
        flow_units: Hidden units, or channels, of a step's network.
        context: Numbers, or channels, that the encoder tells every step.
        forget_bias: Of a step's gate; with 1 or 2, as the paper has it, a step begins by leaving the latents nearly as
            they are.
        encoder_units: Dense layers, of "dense".
        decoder_units: The same.
        dropout: Share of their units.
        levels: Of "ladder": how many there are of half the picture's size, of a quarter, and so on.
        width: Channels of a ladder's features.
        residual_scale: What each level adds to them is multiplied by this. The paper's code has .1, for twenty levels;
            with a few ones that would keep the latents from being used.
        activation: Between the layers.
        likelihood: One of `tfzoo.variational.likelihood.KINDS`.
        sigma: As `tfzoo.variational.likelihood.Likelihood` has it.
        grey_levels: Its `levels`.
        beta: As `tfzoo.variational.objective.Objective` has it.
        warm_up: The same, in steps.
        free_bits: The same, in nats, of each latent; of a ladder, as in the paper, of each channel of a level.

    Returns:
        An `IafVae`. Of "dense" its networks are `encoder`, from pictures `(B, H, W, C)` to `mean`, `log_variance` and
        `context`; `flow`, from `start` `(B, K)` and `context` to `latent` and `log_determinant` `(B, K)`; `decoder`,
        from latents to what `likelihood` takes. Of "ladder" they are `tfzoo.variational.ladder.ladder`'s.

    Raises:
        ValueError: Names every argument that cannot be.
    """
    check(**locals())
    chosen = Likelihood(likelihood, sigma, grey_levels)
    objective = Objective(beta, warm_up, None, 0, free_bits, analytic=False)

    def flow(start, told, name: str):
        z, total = start, ops.zeros_like(start)
        for i in range(blocks):
            turned = tuple(range(1, len(z.shape))) if i else ()  # what came last in a step comes first in the next
            z, total, told = reverse(z, turned), reverse(total, turned), reverse(told, turned[:-1])
            z, log_determinant = step(z, told, flow_units, activation, forget_bias, f"{name}{i}")
            total = total + log_determinant
        back = tuple(range(1, len(z.shape))) if blocks and blocks % 2 == 0 else ()
        return reverse(z, back), reverse(total, back)

    if kind == "ladder":
        networks = ladder(
            image_shape,
            latents,
            levels,
            width,
            residual_scale,
            context,
            activation,
            lambda start, told, level: flow(start, told, f"level{level}_step"),
            chosen.head,
        )
        return IafVae(networks, chosen, objective, channels(image_shape, latents, levels))

    image = keras.Input(image_shape, name="image")
    x = vae.dense(layers.Flatten(name="flat")(image), encoder_units, activation, dropout)
    found = {name: layers.Dense(latents, name=name)(x) for name in ("mean", "log_variance")}
    found["context"] = layers.Dense(context, activation, name="context")(x)
    networks = {"encoder": keras.Model(image, found, name="encoder")}

    start, told = keras.Input((latents,), name="start"), keras.Input((context,), name="context")
    z, total = flow(start, told, "step")
    outputs = {"latent": z, "log_determinant": total}
    networks["flow"] = keras.Model({"start": start, "context": told}, outputs, name="flow")

    latent = keras.Input((latents,), name="latent")
    x = vae.dense(latent, decoder_units, activation, dropout)
    x = layers.Dense(math.prod(image_shape), name="pixels")(x)
    x = layers.Reshape(image_shape, name="picture")(x)
    networks["decoder"] = keras.Model(latent, chosen.head(x), name="decoder")
    return IafVae(networks, chosen, objective)


def reverse(x, axes: tuple[int, ...]):
    """Turn axes around, if any."""
    return ops.flip(x, axes) if axes else x


def signatures(networks: dict[str, keras.Model]):
    """Give what an export serves: `image` to its latent and its reconstruction, and `latent` to a picture."""
    from tfzoo.export.signatures import DEFAULT, Signature

    decoder = networks["decoder"]
    image = tf.TensorSpec(image_shape_of(networks), "float32", "image")
    latent = tf.TensorSpec(decoder.input_shape, "float32", "latent")

    def reconstruct(image):
        made = inferred(networks, image, tf.zeros((tf.shape(image)[0], *decoder.input_shape[1:])))
        return {"latent": made["latent"], "reconstruction": picture(made)}

    def decode(latent):
        return {"picture": picture(decoder(latent, training=False))}

    return {DEFAULT: Signature(reconstruct, (image,)), "decode": Signature(decode, (latent,))}


def check(
    image_shape,
    kind,
    latents,
    blocks,
    flow_units,
    context,
    forget_bias,
    encoder_units,
    decoder_units,
    dropout,
    levels,
    width,
    residual_scale,
    activation,
    likelihood,
    sigma,
    grey_levels,
    beta,
    warm_up,
    free_bits,
) -> None:
    """Raise one ValueError that names every argument of another type or out of range."""
    problems = []
    if not isinstance(blocks, int) or isinstance(blocks, bool) or blocks < 0:
        problems.append(f"blocks must be an integer from 0. Received: blocks={blocks!r}")
    if isinstance(forget_bias, bool) or not isinstance(forget_bias, (int, float)) or not math.isfinite(forget_bias):
        problems.append(f"forget_bias must be a finite number. Received: forget_bias={forget_bias!r}")
    idle = []
    if kind == "dense":
        idle = arguments.idle(iaf_vae, "kind='ladder'", levels=levels, width=width, residual_scale=residual_scale)
    elif kind == "ladder":
        of_dense = {"encoder_units": encoder_units, "decoder_units": decoder_units, "dropout": dropout}
        idle = arguments.idle(iaf_vae, "kind='dense'", **of_dense)
    units = {"encoder_units": encoder_units, "decoder_units": decoder_units, "flow_units": flow_units}
    times = 2 ** len(levels) if kind == "ladder" and arguments.positives(levels=levels) == [] else 1
    arguments.refuse(
        arguments.among(KINDS, kind=kind),
        problems,
        arguments.image_shape(
            image_shape,
            open_size=False,
            multiple=times,
            why=f"the ladder halves a picture {times.bit_length() - 1} times",
        ),
        arguments.positive(latents=latents, context=context, width=width),
        arguments.positives(levels=levels),
        *(arguments.positives(**{k: v}) for k, v in units.items() if v != () and v != []),
        arguments.rates(dropout=dropout),
        arguments.factors(residual_scale=residual_scale),
        idle,
        arguments.activations(activation=activation),
        likelihoods.arguments(likelihood, sigma, grey_levels),
        objectives.arguments(beta, warm_up, None, 0, free_bits, "monte_carlo"),
    )
