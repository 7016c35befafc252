"""Noise in training by its strength, both ways; what changes images in training alone is noted."""

import inspect

import keras
import numpy as np
import pytest
import torch

import bridge
from bridge import convert, torch_reader
from bridge.rules import noise

layers = keras.layers


def network(*noisy):
    x = y = keras.Input((5, 7, 3), name="image")
    for i, layer in enumerate(noisy):
        y = layer(layers.Conv2D(3, 3, padding="same", name=f"c{i}")(y))
    return keras.Model(x, layers.Conv2D(2, 1, name="last")(y))


@pytest.mark.parametrize(
    "make, option",
    [
        (lambda v: layers.GaussianNoise(v, name="n"), "stddev"),
        (lambda v: layers.GaussianDropout(v, seed=3, name="n"), "rate"),
    ],
)
@pytest.mark.parametrize("strength", [0, 0.3])
def test_both_ways(check, make, option, strength):
    layer = make(strength)
    model = network(layer)
    module, again = check.both_ways(model, back="float32")
    assert type(module.n).__name__ == type(layer).__name__ == type(again.get_layer("n")).__name__
    assert getattr(module.n, option) == getattr(again.get_layer("n"), option) == strength
    assert "permute" not in inspect.getsource(type(module))
    assert bridge.verify(model, module).passed and bridge.verify(again, module).passed


@pytest.mark.parametrize("make", [lambda: layers.GaussianNoise(0.3), lambda: layers.GaussianDropout(0.3)])
def test_the_same_noise(make):
    """In training both have the same mean and spread, and in eval mode none."""
    x = keras.Input((1000,), name="x")
    module = bridge.to_torch(keras.Model(x, make()(x)))
    values = np.full((64, 1000), 2.0, "float32")
    want = np.asarray(make()(values, training=True))
    have = module.train()(torch.from_numpy(values)).numpy()
    assert want.std() > 0.2
    np.testing.assert_allclose([have.mean(), have.std()], [want.mean(), want.std()], rtol=0.02)
    assert (module.eval()(torch.from_numpy(values)).numpy() == values).all()


def test_on_a_branch_and_at_the_ends():
    """The module returns its input itself in eval mode, and is still seen where it stands."""
    x = keras.Input((6,), name="x")
    y = layers.GaussianNoise(0.1, name="first")(x)
    z = layers.GaussianDropout(0.2, name="branch")(y)
    model = keras.Model(x, [layers.Add()([x, y, z]), layers.GaussianNoise(0.3, name="last")(z)])
    module = bridge.to_torch(model)
    names = [n.name for n in torch_reader.read(module, (torch.randn(2, 6),)).nodes if n.name]
    assert names == ["first", "branch", "last"]
    assert bridge.verify(model, module).passed


def test_noise_that_differs_is_told():
    model = network(layers.GaussianNoise(0.3, name="n"))
    module = bridge.to_torch(model)
    module.n.stddev = 0.4
    assert "n: stddev is 0.3 in Keras and 0.4 in torch" in str(bridge.verify(model, module))
    module.n = torch.nn.Identity()
    assert "n (gaussian_noise) has no counterpart in the torch module" in str(bridge.verify(model, module))


def test_noise_between_dropouts():
    """Each kind is counted: a Dropout that is active in the place of noise of the same strength is none."""
    model = network(layers.GaussianDropout(0.3, name="n"), layers.Dropout(0.3, name="d"))
    module = bridge.to_torch(model)
    assert bridge.verify(model, module).passed
    module.d.forward = lambda x: x
    assert not bridge.verify(model, module).passed


def test_the_helpers_compile():
    module = bridge.to_torch(network(layers.GaussianNoise(0.3), layers.GaussianDropout(0.3))).train()
    x = torch.randn(2, 3, 5, 7)
    assert torch.compile(module, backend="eager", fullgraph=True)(x).shape == (2, 2, 5, 7)
    assert module.half()(x.half()).dtype == torch.float16


def test_every_random_layer_of_keras_is_known():
    base = keras.src.layers.preprocessing.image_preprocessing.base_image_preprocessing_layer.BaseImagePreprocessingLayer
    random = {n for n in dir(layers) if n.startswith("Random") and issubclass(getattr(layers, n), base)}
    others = {"AugMix", "CutMix", "MixUp", "RandAugment", "Solarization"}
    assert random | others == set(noise.AUGMENTATIONS)


OPTIONS = {
    "RandomCrop": {"height": 8, "width": 9},
    "RandomShear": {"x_factor": 0.3},
    "RandomPosterization": {"factor": 4},
    "RandomZoom": {"height_factor": 0.3},
    "RandomTranslation": {"height_factor": 0.2, "width_factor": 0.2},
}
NUMBERS = ("Rotation", "Contrast", "Brightness", "ColorDegeneration", "Hue", "Saturation", "Sharpness")
OPTIONS |= {f"Random{name}": {"factor": 0.5} for name in NUMBERS}


@pytest.mark.parametrize("kind", noise.AUGMENTATIONS)
def test_what_changes_images_in_training_alone(check, kind):
    """As Keras predicts, and with a note; a training step of both is compared without."""
    x = y = keras.Input((8, 9, 3), name="image")
    y = getattr(layers, kind)(**OPTIONS.get(kind, {}), name="a")(y)
    model = check.randomise(keras.Model(x, layers.Conv2D(2, 3, name="c")(y), name="net"))
    module = bridge.to_torch(model)
    images = np.random.default_rng(0).uniform(0, 255, (2, 8, 9, 3)).astype("float32")
    want = model.predict(images, verbose=0)
    with torch.no_grad():
        have = check.to_last(module(torch.from_numpy(check.to_first(images))).numpy())
    assert check.relative(have, want) < 1e-6
    said = f"a: {kind} changes images in Keras' training, and not in the torch module's"
    assert f"Note: {said}." in convert.source(model).text
    assert [type(m).__name__ for m in module.children()] == ["Conv2d"]
    if kind in ("RandomRotation", "RandAugment", "MixUp"):  # the others are left out in the same way
        report = bridge.verify(model, module)
        assert report.passed, str(report)
        assert said in str(report)


def test_a_pipeline(check):
    x = keras.Input((8, 9, 3), name="image")
    inner = layers.Pipeline([layers.RandomFlip(), layers.Pipeline([layers.RandomZoom(0.2)])], name="p")
    model = check.randomise(keras.Model(x, layers.Conv2D(2, 3, name="c")(inner(x)), name="net"))
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed, str(report)
    assert "p: Pipeline changes images in Keras' training" in str(report)


@pytest.mark.parametrize(
    "make, shape, dtype, text",
    [
        (
            lambda x: layers.RandomCrop(4, 5)(x),
            (8, 9, 3),
            "float32",
            "it says that it makes (None, 4, 5, 3) of (None, 8,",
        ),
        (
            lambda x: layers.RandomFlip()(x),
            (8, 9, 3),
            "uint8",
            "it is called with uint8; give it one tensor of float32",
        ),
        (
            lambda x: layers.Pipeline([layers.RandomFlip(), layers.Rescaling(2.0)])(x),
            (8, 9, 3),
            "float32",
            "it holds Rescaling; call its layers one after the other",
        ),
    ],
)
def test_refusals_of_what_changes_images(make, shape, dtype, text):
    x = keras.Input(shape, dtype=dtype)
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_torch(keras.Model(x, make(x)))
    assert text in str(e.value)


@pytest.mark.parametrize("kind", ["AutoContrast", "ContrastLimitedAdaptiveHistogramEqualization"])
def test_what_changes_images_in_inference_too_is_refused(kind):
    x = keras.Input((8, 9, 3))
    with pytest.raises(bridge.BridgeError, match="in inference too, and there is no rule for it; put it into the data"):
        bridge.to_torch(keras.Model(x, getattr(layers, kind)()(x)))


def test_refusals():
    x = y = keras.Input((8, 8, 3), name="x")
    y = layers.GaussianNoise(0.5, name="always")(y, training=True)
    y = layers.GaussianDropout(1.0, name="endless")(y)
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_torch(keras.Model(x, y))
    assert "always (GaussianNoise): it is called with training=True" in str(e.value)
    assert "endless (GaussianDropout): rate=1 is noise without bounds; give a rate below 1" in str(e.value)
