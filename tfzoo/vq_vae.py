"""Vector-quantised autoencoder, VQ-VAE (van den Oord et al., 2017, https://arxiv.org/abs/1711.00937).

    picture - encoder - z (h, w, D) - quantiser - codes (h, w) - prior: log p(codes)
                                          '- e (h, w, D) - decoder - picture

    loss = |x - decoder(z + sg(e - z))|^2 / variance + |sg(z) - e|^2 + beta |z - sg(e)|^2        (equation 3)

The gradient of the decoder's input goes straight through to z. The codebook is learned by the loss' second term, or
follows by moving averages (`tfzoo.quantisation.averages`), and then there is no such term. Either way a code that is
hardly used begins again at a vector of the batch. The prior (`tfzoo.quantisation.prior`) is trained at once on the
codes, which have no gradient: neither changes the other's training, and after one run the model samples.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tfzoo.layers import arguments
from tfzoo.quantisation.averages import DEAD, Averages
from tfzoo.quantisation.codebook import quantiser, straight_through, vectors
from tfzoo.quantisation.perplexity import Perplexity, count, perplexity
from tfzoo.quantisation.prior import ancestral, certain, nats, pixel_cnn, uniform
from tfzoo.training.distributed_fit import scale_loss, summed
from tfzoo.variational.likelihood import Likelihood
from tfzoo.variational.model import Variational, in_chunks

SIZES = {
    "digits": {
        "image_shape": (8, 8, 1),
        "hidden": 64,
        "codes": 64,
        "dimensions": 16,
        "downsample": 1,
        "variance": 0.14,
        "prior_units": 32,
        "prior_depth": 3,
        "prior_dropout": 0.5,
    },
    # Those of sonnet's example, of which PyTorch's best known one leaves out the residual layers' biases.
    "paper": {"codebook": "loss"},
    "tiny": {
        "image_shape": (8, 8, 1),
        "hidden": 8,
        "residual_layers": 1,
        "residual_units": 4,
        "codes": 8,
        "dimensions": 4,
        "downsample": 1,
        "variance": 0.14,
        "prior_units": 8,
        "prior_depth": 2,
    },
}
PARAMETERS = {"digits": 201_681, "paper": 1_283_843, "tiny": 4_829}
DOES_NOT_APPLY = {
    "jit_compile_agrees": "XLA draws other vectors for dead codes by the same seed; test_vq_vae.py compares with none"
}
ABLE = ("sample", "reconstruct")


class VqVae(keras.Model):
    """An encoder, a quantiser, a decoder and a prior over codes.

    Args:
        networks: These four, by their names.
        commitment: beta.
        variance: What the squared error of a pixel is divided by.
        averages: Of the codes' use, which the codebook follows unless it is learned by the loss; None if no code begins
            again either.
    """

    def __init__(self, networks: dict[str, keras.Model], commitment: float, variance: float, averages: Averages | None):
        super().__init__(name="vq_vae")
        for key, network in networks.items():
            setattr(self, key, network)
        self.commitment, self.variance, self.averages = commitment, variance, averages
        self.codes = self.prior.output_shape[-1]
        self.learned = vectors(self.quantiser).trainable
        self.likelihood = Likelihood("gaussian")  # pictures are any finite numbers
        self.trackers = {
            name: keras.metrics.Mean(name=name)
            for name in ("squared_error", "commitment", "prior_nats", "batch_perplexity")
        }
        self.perplexity = Perplexity(self.codes)
        self.built = True  # as its networks are

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Of pictures, `(None, H, W, C)`."""
        return self.encoder.input_shape

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """Of pictures that come back, the same."""
        return self.input_shape

    def call(self, pictures: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        """Give what comes back of pictures and all that the loss is made of."""
        z = ops.cast(self.encoder(pictures, training=training), keras.backend.floatx())
        found = self.quantiser(z)
        back = self.decoder(straight_through(z, found["quantised"]), training=training)
        logits = self.prior(found["codes"], training=training)
        back, logits = (ops.cast(x, keras.backend.floatx()) for x in (back, logits))
        return {"z": z, "picture": back, "nats": nats(logits, found["codes"]), **found}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training: bool = True) -> tf.Tensor:
        """Give the loss, the mean over the examples; behind it, in training, the codebook moves.

        What is judged is judged without the prior: codes that are all the same would be the easiest to predict.
        """
        z, quantised = y_pred["z"], y_pred["quantised"]
        loss = mean_square(ops.cast(x, keras.backend.floatx()) - y_pred["picture"]) / self.variance
        loss += self.commitment * mean_square(z - ops.stop_gradient(quantised))
        if self.learned:
            loss += mean_square(ops.stop_gradient(z) - quantised)
        if training and self.averages is not None:  # by the codes that the batch had before
            self.averages.follow(self.quantiser, z, y_pred["codes"])
        if training:
            loss += ops.mean(y_pred["nats"], (1, 2))
        return scale_loss(ops.mean(loss))

    def compute_metrics(self, x, y, y_pred, sample_weight=None) -> dict[str, tf.Tensor]:
        """Add up the terms of the loss and how the codes are used; `prior_nats` are a picture's."""
        codes = y_pred["codes"]
        (counts,) = summed([count(codes, self.codes)])
        self.trackers["squared_error"].update_state(
            mean_square(ops.cast(x, keras.backend.floatx()) - y_pred["picture"])
        )
        self.trackers["commitment"].update_state(mean_square(y_pred["z"] - y_pred["quantised"]))
        self.trackers["prior_nats"].update_state(ops.sum(y_pred["nats"], (1, 2)))
        self.trackers["batch_perplexity"].update_state(perplexity(counts))
        self.perplexity.update_state(codes)
        return self.get_metrics_result()

    def fit(self, x=None, *args, **kwargs):
        """Train as `keras.Model.fit` does.

        Raises:
            ValueError: The pictures, or the first batch of a data set, are of another shape or not finite; or there
                are fewer vectors to quantise than codes.
        """
        Variational.check(self, x)
        self.check_count(x)
        return super().fit(x, *args, **kwargs)

    def check_count(self, data) -> None:
        """Refuse a codebook larger than the data; what an endless data set repeats, only its source knows."""
        each = int(np.prod(self.prior.input_shape[1:]))
        if isinstance(data, (np.ndarray, tf.Tensor)):
            refuse_few(self.codes, len(data) * each)
        elif isinstance(data, tf.data.Dataset) and data.cardinality() != tf.data.INFINITE_CARDINALITY:
            vectors = 0
            for batch in data:
                vectors += len(batch[0] if isinstance(batch, tuple) else batch) * each
                if vectors >= self.codes:
                    return
            refuse_few(self.codes, vectors)

    def encode(self, pictures: np.ndarray) -> np.ndarray:
        """Give the codes of pictures `(B, H, W, C)`: int32 `(B, h, w)`."""
        return in_chunks(lambda x: self.quantiser(self.encoder(x, training=False))["codes"], pictures)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Give the pictures of codes `(B, h, w)`: `(B, H, W, C)`.

        Raises:
            ValueError: Some are no codes.
        """
        codes = np.asarray(codes)
        if codes.size and not (codes.min() >= 0 and codes.max() < self.codes):
            raise ValueError(f"codes must be from 0 to {self.codes - 1}. Received: {codes.min()} to {codes.max()}")
        book = ops.convert_to_numpy(vectors(self.quantiser))
        return in_chunks(lambda e: self.decoder(e, training=False), book[codes.astype("int32")])

    def reconstruct(self, pictures: np.ndarray) -> np.ndarray:
        """Give pictures as they come back: `(B, H, W, C)` to the same."""
        return self.decode(self.encode(pictures))

    def sample(self, count: int, seed: int = 0) -> np.ndarray:
        """Draw pictures `(count, H, W, C)`: codes from the prior, decoded. The first do not depend on the count."""
        return self.decode(self.sample_codes(count, seed))

    def sample_codes(self, count: int, seed: int = 0) -> np.ndarray:
        """Draw codes `(count, h, w)` from the prior, one after the other."""
        numbers = uniform(tf.fill([count], tf.cast(seed, "int64")), tf.range(count), self.prior.input_shape[1:])
        return in_chunks(lambda u: ancestral(self.prior, tf.cast(u, "float32")), numbers)


def mean_square(x):
    """Give the mean square of each example `(B, ...)`: `(B,)`."""
    return ops.mean(ops.square(x), tuple(range(1, len(x.shape))))


def refuse_few(codes: int, vectors: int) -> None:
    """Raise a ValueError where there are fewer vectors than codes."""
    if vectors < codes:
        raise ValueError(
            f"the codebook is larger than the data: {codes} codes, and the pictures have {vectors} vectors to quantise."
            f" Give more pictures, or at most {vectors} codes (codes=)."
        )


@arguments.plain
def vq_vae(
    image_shape: tuple[int, int, int] = (32, 32, 3),
    hidden: int = 128,
    residual_layers: int = 2,
    residual_units: int = 32,
    codes: int = 512,
    dimensions: int = 64,
    downsample: int = 2,
    commitment: float = 0.25,
    variance: float = 1.0,
    codebook: str = "ema",
    decay: float = 0.99,
    dead: float = DEAD,
    prior_units: int = 64,
    prior_depth: int = 6,
    prior_dropout: float = 0.0,
) -> VqVae:
    """Build a vector-quantised autoencoder and its prior.

    Args:
        image_shape: `(H, W, C)` in pixels.
        hidden: Channels of the encoder and the decoder.
        residual_layers: Of each, at the smallest size.
        residual_units: Channels inside a residual layer.
        codes: Vectors of the codebook, K.
        dimensions: Of each, D.
        downsample: How often the encoder halves a picture, by 4x4 convolutions, and the decoder doubles it.
        commitment: beta.
        variance: What the squared error of a pixel is divided by: the pixels' variance, so that the loss' terms are
            of one size.
        codebook: "ema", or "loss".
        decay: Of the moving averages, of a batch: of vectors and their number, or with "loss" of the number alone.
        dead: A code whose average count is below this share of the mean begins again; 0 for never.
        prior_units: Channels of the prior.
        prior_depth: Its gated layers.
        prior_dropout: Share of its first and its last channels left out in training.

    Returns:
        A `VqVae` of four networks: `encoder`, from pictures `(B, H, W, C)` to `(B, h, w, D)`; `quantiser`, from that to
        `codes` int32 `(B, h, w)` and `quantised` `(B, h, w, D)`; `decoder`, from the latter to pictures; and `prior`,
        from codes to logits `(B, h, w, K)`.

    Raises:
        ValueError: Names every argument that cannot be.
    """
    whole = {"hidden": hidden, "residual_layers": residual_layers, "residual_units": residual_units, "codes": codes}
    whole |= {"dimensions": dimensions, "downsample": downsample, "prior_units": prior_units}
    problems = arguments.positive(**whole, prior_depth=prior_depth)
    times = 2**downsample if arguments.is_positive(downsample) else 1
    idle = arguments.idle(vq_vae, "codebook='ema' or dead", decay=decay) if codebook == "loss" and dead == 0 else []
    arguments.refuse(
        problems,
        arguments.image_shape(
            image_shape, open_size=False, multiple=times, why=f"the encoder halves a picture {downsample} times"
        ),
        ["codes must be 2 or more, or there is nothing to choose. Received: codes=1"] if codes == 1 else [],
        arguments.factors(commitment=commitment, variance=variance),
        arguments.among(("ema", "loss"), codebook=codebook),
        arguments.rates(decay=decay, dead=dead, prior_dropout=prior_dropout),
        idle,
    )
    residual = (hidden, residual_layers, residual_units)
    size = (image_shape[0] // times, image_shape[1] // times)

    x = image = keras.Input(image_shape, name="image")
    for i in range(downsample):
        channels = hidden if i == downsample - 1 else hidden // 2
        x = layers.Conv2D(channels, 4, 2, "same", activation="relu", name=f"down{i}")(x)  # (B, H/2, W/2, C)
    x = stack(layers.Conv2D(hidden, 3, padding="same", name="conv")(x), *residual)
    networks = {"encoder": keras.Model(image, layers.Conv2D(dimensions, 1, name="z")(x), name="encoder")}
    networks["quantiser"] = quantiser(size, codes, dimensions, codebook == "loss")

    x = given = keras.Input((*size, dimensions), name="quantised")
    x = stack(layers.Conv2D(hidden, 3, padding="same", name="conv")(x), *residual)
    for i in range(downsample - 1):
        x = layers.Conv2DTranspose(hidden // 2, 4, 2, "same", activation="relu", name=f"up{i}")(x)
    x = layers.Conv2DTranspose(image_shape[2], 4, 2, "same", name="picture")(x)
    networks["decoder"] = keras.Model(given, x, name="decoder")
    networks["prior"] = pixel_cnn(size, codes, prior_units, prior_depth, prior_dropout)
    learned = codebook == "loss"
    averages = None if learned and not dead else Averages(codes, dimensions, decay, dead, learned)
    return VqVae(networks, commitment, variance, averages)


def stack(x, hidden: int, count: int, units: int):
    """Apply residual layers without biases, x + 1x1(relu(3x3(relu(x)))), and ReLU: `(B, h, w, hidden)` to the same."""
    for i in range(count):
        inner = layers.ReLU(name=f"residual{i}_relu")(x)
        inner = layers.Conv2D(units, 3, padding="same", use_bias=False, activation="relu", name=f"residual{i}_conv0")(
            inner
        )
        x = x + layers.Conv2D(hidden, 1, use_bias=False, name=f"residual{i}_conv1")(inner)
    return layers.ReLU(name="relu")(x)


def signatures(networks: dict[str, keras.Model]):
    """Give what an export serves: `image` to its codes and its reconstruction, `codes` to a picture, and samples.

    `sample` gives of `seed` and `number`, of each request's rows, the picture of that number (from 0) among those that
    `VqVae.sample` gives by that seed.
    """
    from tfzoo.export.signatures import DEFAULT, Signature

    encoder, quantiser, decoder, prior = (networks[name] for name in ("encoder", "quantiser", "decoder", "prior"))
    image = tf.TensorSpec(encoder.input_shape, "float32", "image")
    codes = tf.TensorSpec(prior.input_shape, "int32", "codes")

    def reconstruct(image):
        found = quantiser(encoder(image, training=False))
        return {"codes": found["codes"], "reconstruction": decoder(found["quantised"], training=False)}

    def decode(codes):
        return {"picture": decoder(tf.gather(vectors(quantiser).value, codes), training=False)}

    def sample(seed, number):
        return decode(ancestral(prior, uniform(seed, number, prior.input_shape[1:])))

    def examples(size: int) -> dict[str, np.ndarray]:
        some = np.random.default_rng(0).integers(0, prior.output_shape[-1], (2, *prior.input_shape[1:]))
        return {"codes": some.astype("int32")}

    def seeds(size: int) -> dict[str, np.ndarray]:
        """Those of which a model of rounded weights draws the same codes, too."""
        number = np.arange(64)
        margin = certain(prior, uniform(0 * number, number, prior.input_shape[1:]))
        return {"seed": 0 * number[:2], "number": np.argsort(-np.asarray(margin))[:2]}

    asked = tuple(tf.TensorSpec([None], "int64", name) for name in ("seed", "number"))
    return {
        DEFAULT: Signature(reconstruct, (image,)),
        "decode": Signature(decode, (codes,), examples),
        "sample": Signature(sample, asked, seeds),
    }
