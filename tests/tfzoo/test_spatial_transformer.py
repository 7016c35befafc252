"""The spatial transformer: places, pixels and gradients as SciPy and torch have them, and a plain Keras model."""

import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from keras import ops
from scipy import ndimage
from scipy.interpolate import RBFInterpolator
from torch.nn import functional as F

import bridge
import tfzoo
from tfzoo import spatial_transformer as st
from tfzoo.data.sources import cluttered_digits

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "spatial_transformer.md"
MODES = {"zeros": "grid-constant", "border": "nearest"}  # what SciPy calls them
SMALL = {
    "image_shape": (8, 10, 2),
    "classes": 3,
    "localisation_widths": (3,),
    "localisation_units": 8,
    "widths": (4,),
    "units": 9,
}


def small(transform, **options):
    """A small network; the grid of control points is not the default one."""
    more = {"points": 3} if transform == "thin_plate" else {}
    return tfzoo.build("spatial_transformer", **{**SMALL, **more, **options}, transform=transform)


def images(*shape, dtype="float64"):
    return np.random.default_rng(1).random(shape).astype(dtype)


def theta(transform, batch, spread=0.3, points=4):
    """Numbers around the identity, other ones for each example."""
    start = np.array(st.identity(transform, points), float)
    return start + spread * np.random.default_rng(2).uniform(-1, 1, (batch, len(start)))


def own(size):
    """The places of an output's own pixels, (x, y)."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, n) if n > 1 else [0.0] for n in size], indexing="ij")
    return np.stack([x, y], -1)


def read(image, grid, border):
    """Read pictures `(B, H, W, C)` at places by SciPy."""
    places = (grid + 1) * (np.array([image.shape[2], image.shape[1]]) - 1) / 2
    return np.stack(
        [
            np.stack(
                [ndimage.map_coordinates(one[..., c], [at[..., 1], at[..., 0]], order=1, mode=MODES[border])
                 for c in range(image.shape[-1])],
                -1,
            )
            for one, at in zip(image, places, strict=True)
        ]
    )  # fmt: skip


def randomize(model):
    """Give every weight a random value; theta's keep it near the identity."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        near = "/theta/" in f"/{weight.path}"
        scale = 0.05 if near else (2 / max(int(np.prod(weight.shape[:-1])), 1)) ** 0.5
        weight.assign(near * weight + rng.normal(0, scale, weight.shape))
    return model


def layer(model, name):
    """What a layer of a model, or of the transformer in it, gives."""
    holder = model if name in {one.name for one in model.layers} else model.get_layer("transformer")
    return keras.Model(holder.input, holder.get_layer(name).output)


@pytest.mark.parametrize("transform", st.GRIDS)
@pytest.mark.parametrize("size", [(7, 10), (13, 5), (33, 48), (60, 60), (1, 4)])
@pytest.mark.parametrize("border", st.BORDERS)
def test_the_identity_is_exact(transform, size, border):
    # At 60 pixels a float32 knows a place to 9e-7, which in noise, and in noise only, may come to more than 1e-6.
    digits = np.stack([cluttered_digits.picture("held_out", (60, 60), 0, 0, i).image for i in range(3)]) / np.float32(
        255
    )
    image = digits if size == (60, 60) else images(3, *size, 2, dtype="float32")
    start = tf.constant(st.identity(transform), "float32", (1, len(st.identity(transform))))
    grid = st.GRIDS[transform](tf.repeat(start, 3, 0), size)
    np.testing.assert_array_equal(grid, np.broadcast_to(own(size).astype("float32"), grid.shape))
    np.testing.assert_allclose(st.sample(image, grid, border), image, rtol=0, atol=1e-6)


@pytest.mark.parametrize("transform", st.GRIDS)
@pytest.mark.parametrize("size", [(5, 6), (16, 23)])
def test_the_identity_at_another_size_resizes(transform, size):
    image = images(2, 9, 12, 3)
    grid = st.GRIDS[transform](tf.constant([st.identity(transform)] * 2, "float64"), size)
    np.testing.assert_allclose(st.sample(image, grid), read(image, np.stack([own(size)] * 2), "zeros"), atol=1e-12)


@pytest.mark.parametrize(
    ("numbers", "change"),
    [
        ((-1, 0, 0, 0, 1, 0), lambda x: x[:, :, ::-1]),
        ((1, 0, 0, 0, -1, 0), lambda x: x[:, ::-1]),
        ((0, 1, 0, 1, 0, 0), lambda x: x.transpose(0, 2, 1, 3)),
        ((0, 1, 0, -1, 0, 0), lambda x: np.rot90(x, -1, (1, 2))),  # what is above comes to the right
        ((1, 0, 2 * 2 / 6, 0, 1, 0), lambda x: np.pad(x, ((0, 0), (0, 0), (0, 2), (0, 0)))[:, :, 2:]),
        ((1, 0, 0, 0, 1, -2 / 6), lambda x: np.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]),
    ],
    ids=["mirrored", "upside down", "transposed", "turned", "two columns", "one row"],
)
def test_affine_changes_that_need_no_interpolation(numbers, change):
    image = images(2, 7, 7, 2)
    grid = st.affine(tf.constant([numbers] * 2, "float64"), (7, 7))
    np.testing.assert_allclose(st.sample(image, grid), change(image), atol=1e-12)


def test_translation_is_in_halves_of_the_picture():
    image = images(1, 5, 9, 1)
    grid = st.translation(tf.constant([[1.0, -0.5]], "float64"), (5, 9))
    expected = np.pad(image, ((0, 0), (1, 0), (0, 4), (0, 0)))[:, :5, 4:]
    np.testing.assert_allclose(st.sample(image, grid), expected, atol=1e-12)


@pytest.mark.parametrize("border", st.BORDERS)
@pytest.mark.parametrize("size", [(6, 9), (13, 4)])
def test_affine_equals_scipy_and_torch(border, size):
    image, numbers = images(3, 8, 11, 2), theta("affine", 3, 0.8)
    grid = st.affine(tf.constant(numbers), size)
    found = st.sample(image, grid, border)
    places = F.affine_grid(torch.tensor(numbers).reshape(3, 2, 3), (3, 2, *size), align_corners=True)
    np.testing.assert_allclose(grid, places, atol=1e-12)
    expected = F.grid_sample(torch.tensor(image).permute(0, 3, 1, 2), places, padding_mode=border, align_corners=True)
    np.testing.assert_allclose(found, expected.permute(0, 2, 3, 1), atol=1e-12)
    np.testing.assert_allclose(found, read(image, places.numpy(), border), atol=1e-12)
    assert abs(places).max() > 1.5  # else the border would not have been seen


@pytest.mark.parametrize(
    ("place", "zeros", "border"),
    [(-1, 1, 1), (-1.25, 0.5, 1), (-1.5, 0, 1), (-9, 0, 1), (0.75, 3.5, 3.5), (1, 5, 5), (1.25, 2.5, 5), (2, 0, 5)],
)
def test_the_border_fades_over_a_pixel_or_goes_on(place, zeros, border):
    image = np.array([1.0, 7, 3, 2, 5]).reshape(1, 1, 5, 1)
    for rule, expected in (("zeros", zeros), ("border", border)):
        found = st.sample(image, np.array([place, 0.0]).reshape(1, 1, 1, 2), rule)
        np.testing.assert_allclose(found, np.reshape(expected, (1, 1, 1, 1)), atol=1e-12)


def gradients(image, numbers, transform, border, weights):
    """Gradients of a weighted sum of the output for the picture and theta."""
    image, numbers = tf.constant(image), tf.constant(numbers)
    with tf.GradientTape() as tape:
        tape.watch([image, numbers])
        out = st.sample(image, st.GRIDS[transform](numbers, weights.shape[1:3]), border)
        loss = tf.reduce_sum(out * weights)
    return loss.numpy(), *[g.numpy() for g in tape.gradient(loss, [image, numbers])]


@pytest.mark.parametrize("transform", st.GRIDS)
@pytest.mark.parametrize("border", st.BORDERS)
def test_gradients_equal_finite_differences(transform, border):
    image, numbers, weights = images(2, 6, 7, 2), theta(transform, 2, 0.15), images(2, 5, 4, 2) - 0.3
    _, of_image, of_numbers = gradients(image, numbers, transform, border, weights)
    rng = np.random.default_rng(3)
    for start, found, place in ((image, of_image, 0), (numbers, of_numbers, 1)):
        for _ in range(3):
            step = 1e-6 * rng.normal(size=start.shape)
            ends = []
            for sign in (1, -1):
                given = [image, numbers]
                given[place] = start + sign * step
                ends.append(gradients(*given, transform, border, weights)[0])
            np.testing.assert_allclose((ends[0] - ends[1]) / 2, (found * step).sum(), rtol=1e-5, atol=1e-12)
    assert abs(of_numbers).min() > 0


@pytest.mark.parametrize("border", st.BORDERS)
@pytest.mark.parametrize(
    "spread", [0, 0.5]
)  # at the identity every pixel is at a kink; torch is there without rounding at sides of 2^n + 1
def test_gradients_equal_torch(border, spread):
    image, numbers, weights = images(2, 5, 9, 2), theta("affine", 2, spread), images(2, 5, 9, 2) - 0.3
    _, *found = gradients(image, numbers, "affine", border, weights)
    given = [torch.tensor(image, requires_grad=True), torch.tensor(numbers, requires_grad=True)]
    places = F.affine_grid(given[1].reshape(2, 2, 3), (2, 2, 5, 9), align_corners=True)
    expected = F.grid_sample(given[0].permute(0, 3, 1, 2), places, padding_mode=border, align_corners=True)
    (expected.permute(0, 2, 3, 1) * torch.tensor(weights)).sum().backward()
    for mine, theirs in zip(found, given, strict=True):
        np.testing.assert_allclose(mine, theirs.grad, atol=1e-10)


def test_projective_is_the_homogeneous_formula():
    numbers = theta("projective", 3, 0.4)
    matrices = np.concatenate([numbers, np.ones((3, 1))], 1).reshape(3, 3, 3)
    flat = np.concatenate([own((5, 7)), np.ones((5, 7, 1))], -1)
    u = np.einsum("bij,hwj->bhwi", matrices, flat)
    np.testing.assert_allclose(st.projective(tf.constant(numbers), (5, 7)), u[..., :2] / u[..., 2:], atol=1e-12)
    still = np.concatenate([theta("affine", 2), np.zeros((2, 2))], 1)
    np.testing.assert_allclose(
        st.projective(tf.constant(still), (4, 6)), st.affine(tf.constant(still[:, :6]), (4, 6)), atol=1e-12
    )


def test_nothing_is_infinite_on_the_horizon():
    numbers = tf.constant([[1, 0, 0, 0, 1, 0, 1, 0]], "float64")  # s = x + 1, which is 0 in the first column
    image = images(1, 5, 5, 1)
    value, *found = gradients(image, numbers, "projective", "zeros", np.ones((1, 5, 5, 1)))
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in found)


@pytest.mark.parametrize("points", [2, 3, 4])
def test_thin_plate_goes_through_its_points_and_is_smooth_between(points):
    numbers = theta("thin_plate", 2, 0.3, points)
    side = 2 * (points - 1) + 1  # every second pixel is a control point
    found = np.array(st.thin_plate(tf.constant(numbers), (side, side), points))
    np.testing.assert_allclose(found[:, ::2, ::2].reshape(2, -1), numbers, atol=1e-12)
    control = own((points, points)).reshape(-1, 2)
    found = st.thin_plate(tf.constant(numbers), (6, 9), points)
    for one, values in zip(found, numbers, strict=True):
        spline = RBFInterpolator(control, values.reshape(-1, 2), kernel="thin_plate_spline", degree=1)
        np.testing.assert_allclose(one, spline(own((6, 9)).reshape(-1, 2)).reshape(6, 9, 2), atol=1e-10)


def test_thin_plate_of_points_moved_as_a_plane_is_affine():
    numbers = theta("affine", 3)
    moved = st.affine(tf.constant(numbers), (4, 4))
    found = st.thin_plate(tf.reshape(moved, (3, -1)), (7, 10))
    np.testing.assert_allclose(found, st.affine(tf.constant(numbers), (7, 10)), atol=1e-12)


@pytest.mark.parametrize("transform", st.GRIDS)
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("size", [(4, 4), (1, 4), (6, 4)])
def test_every_example_is_by_itself_in_a_batch_of_any_size(transform, batch, size):
    # Keras' addition takes (1, n, 1) for a bias: sizes of the batch and the axes that are alike, or 1, would show it.
    image, numbers = images(batch, 4, 6, 1), theta(transform, batch)
    inputs = keras.Input((4, 6, 1), dtype="float64"), keras.Input((numbers.shape[1],), dtype="float64")
    model = keras.Model(inputs, st.sample(inputs[0], st.GRIDS[transform](inputs[1], size), "border"))
    found = model([image, numbers])
    one = np.concatenate([st.GRIDS[transform](tf.constant(n[None]), size) for n in numbers])
    np.testing.assert_allclose(found, read(image, one, "border"), atol=1e-10)


@pytest.mark.parametrize("border", st.BORDERS)
def test_a_place_that_is_no_number_gives_none(border):
    grid = own((3, 4))[None].copy()
    grid[0, 1, 2] = np.nan
    found = st.sample(images(1, 3, 4, 2), grid, border).numpy()
    assert np.isnan(found[0, 1, 2]).all() and np.isnan(found).sum() == 2


@pytest.mark.parametrize("border", st.BORDERS)
def test_at_an_infinite_place_is_what_is_beyond(border):
    """So is what a float32 has no number for, once it is in pixels."""
    far = [np.inf, -np.inf, 3e38, -3e38]
    grid = np.array([[x, y] for x in far for y in far] + [[x, 0.1] for x in far] + [[-0.3, y] for y in far], "float32")
    image = images(1, 9, 5, 2, dtype="float32")
    with tf.GradientTape() as tape:
        given = [tf.constant(image), tf.constant(grid[None, None])]
        tape.watch(given)
        found = st.sample(*given, border)
    near = st.sample(image, np.clip(grid, -9, 9)[None, None], border)
    assert np.any(near) == (border == "border")
    np.testing.assert_array_equal(found, near)
    of_image, of_grid = tape.gradient(found, given)
    assert np.isfinite(of_image).all()
    beyond = abs(grid) > 1
    np.testing.assert_array_equal(np.asarray(of_grid)[0, 0][beyond], 0)


@pytest.mark.parametrize(("options", "count"), [
    ({}, 1_185_378), ({"transform": None}, 949_482), ({"transform": "translation"}, 1_185_174),
    ({"transform": "projective"}, 1_185_480), ({"transform": "thin_plate"}, 1_186_704),
    ({"output_size": (28, 28)}, 464_482),
])  # fmt: skip
def test_count(options, count):
    assert tfzoo.build("spatial_transformer", **options).count_params() == count
    if "output_size" not in options:
        transform = options.get("transform", "affine")
        shown = f'"{transform}"' if transform else "None"
        assert f"| `{shown}` | {count:,} |" in re.sub("<!--.*?-->", "", PAGE.read_text())


def test_sizes_are_all_counted():
    assert list(st.PARAMETERS) == tfzoo.sizes("spatial_transformer") == ["default", "tiny"]
    for size, count in st.PARAMETERS.items():
        assert tfzoo.build("spatial_transformer", size).count_params() == count
        assert f"{count:,}" in PAGE.read_text()


@pytest.mark.parametrize("transform", st.GRIDS)
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_the_first_pass_is_the_identity(transform, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = small(transform)
    finally:
        keras.config.set_dtype_policy(before)
    x = images(3, 8, 10, 2, dtype="float32")
    np.testing.assert_allclose(layer(model, "rectified")(x), x, rtol=0, atol=1e-6)
    kernel, bias = model.get_layer("transformer").get_layer("theta").get_weights()
    assert not kernel.any() and kernel.shape[0] == 8
    np.testing.assert_array_equal(bias, np.float32(st.identity(transform, 3)))


@pytest.mark.parametrize("transform", st.GRIDS)
@pytest.mark.parametrize("border", st.BORDERS)
@pytest.mark.parametrize("size", [None, (5, 6)])
def test_the_model_is_its_parts(transform, border, size):
    model = randomize(small(transform, border=border, output_size=size))
    x = images(3, 8, 10, 2, dtype="float32")
    numbers = layer(model, "theta")(x)
    assert np.std(numbers, axis=0).min() > 1e-3  # other ones for each picture
    more = {"points": 3} if transform == "thin_plate" else {}
    rectified = read(x, np.array(st.GRIDS[transform](numbers, size or (8, 10), **more)), border)
    np.testing.assert_allclose(layer(model, "rectified")(x), rectified, atol=1e-5)
    plain = small(None, image_shape=(*(size or (8, 10)), 2))
    for one in plain.layers:
        one.set_weights(model.get_layer(one.name).get_weights())
    np.testing.assert_allclose(plain(rectified), model(x), rtol=1e-4, atol=1e-5)
    assert len(plain.weights) == len(model.weights) - len(model.get_layer("transformer").weights) > 0


@pytest.mark.parametrize("transform", ["affine", "thin_plate"])
def test_the_penalty_is_the_squared_distance_from_the_identity(transform):
    model = small(transform, identity_penalty=0.1)
    x = images(4, 8, 10, 2, dtype="float32")
    rectified = layer(model, "rectified")(x)
    np.testing.assert_allclose(rectified, x, rtol=0, atol=1e-6)  # the identity still, and no loss
    model(x, training=True)
    np.testing.assert_array_equal(model.losses, [0.0])
    randomize(model)
    plain = small(transform)
    plain.set_weights(model.get_weights())
    model(x, training=True)
    away = layer(model, "theta")(x) - np.float32(st.identity(transform, 3))
    assert np.std(away, axis=0).min() > 1e-3
    np.testing.assert_allclose(model.losses, [0.1 * np.square(away).sum(1).mean()], rtol=1e-5)
    assert not plain.losses
    np.testing.assert_allclose(model(x), plain(x), rtol=1e-4, atol=1e-5)


def test_a_transformer_is_a_layer_in_front_of_anything():
    front = st.transformer((8, 10, 2), "thin_plate", (5, 5), (3,), 4)
    model = keras.Sequential([keras.Input((8, 10, 2)), front, keras.layers.Flatten(), keras.layers.Dense(3)])
    model.compile("adam", "mse")
    before = front.get_layer("theta").get_weights()[0]
    model.fit(images(8, 8, 10, 2), images(8, 3), epochs=1, verbose=0)
    assert front.output_shape == (None, 5, 5, 2)
    assert (front.get_layer("theta").get_weights()[0] != before).mean() > 0.2  # of some hidden units nothing is seen


@pytest.mark.parametrize("way", ["side by side", "one behind the other"])
def test_two_transformers_in_one_model(way, tmp_path):
    image = keras.Input((8, 10, 2))
    one = st.transformer((8, 10, 2), localisation_widths=(3,), localisation_units=4, name="one")
    two = st.transformer((8, 10, 2), "translation", (5, 5), (3,), 4, border="border", name="two")
    if way == "side by side":
        x = keras.layers.Concatenate()([one(image)[:, :5, :5], two(image)])
    else:
        x = two(keras.layers.Conv2D(2, 3, padding="same")(one(image)))
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    randomize(model)
    before = [np.array(front.get_layer("theta").bias) for front in (one, two)]
    model.compile("sgd", "mse")
    model.fit(images(8, 8, 10, 2), images(8, 3), epochs=1, verbose=0)
    for name, old in zip(("one", "two"), before, strict=True):
        assert (np.array(model.get_layer(name).get_layer("theta").bias) != old).all()
    model.save(tmp_path / "two.keras")
    x = images(3, 8, 10, 2, dtype="float32")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "two.keras")(x), model(x))
    with torch.no_grad():
        found = bridge.to_torch(model)(torch.from_numpy(bridge.nhwc_to_nchw(x)))
    np.testing.assert_allclose(found, model(x), rtol=1e-4, atol=1e-5)


def test_numbers_may_be_numpys(check):
    given = {"classes": np.int64(5), "transform": "thin_plate", "output_size": tuple(np.array([8, 9]))}
    more = {"points": np.int8(3), "identity_penalty": np.float32(0.5), "units": np.uint8(7), "dropout": np.float64(0.5)}
    plain = {"points": 3, "identity_penalty": 0.5, "units": 7, "dropout": 0.5}
    model = tfzoo.build("spatial_transformer", "tiny", **given, **more)
    expected = tfzoo.build("spatial_transformer", "tiny", **{**given, "classes": 5, "output_size": (8, 9)}, **plain)
    assert check.architecture(model) == check.architecture(expected)


def test_features_and_dropout():
    features = tfzoo.build("spatial_transformer", "tiny", include_top=False)
    assert features.output_shape == (None, 4, 4, 16)
    model = tfzoo.build("spatial_transformer", **SMALL, dropout=0.5)
    assert not np.any(model(images(2, 8, 10, 2)))  # the logits begin with zeros
    randomize(model)
    x = images(2, 8, 10, 2)
    np.testing.assert_array_equal(model(x, training=False), model(x, training=False))
    assert not np.array_equal(model(x, training=True), model(x, training=True))


def test_layers_that_hold_weights_have_names_of_their_own():
    first, second = (tfzoo.build("spatial_transformer", "tiny") for _ in range(2))
    assert [w.path for w in first.weights] == [w.path for w in second.weights]
    assert first.name == "spatial_transformer"


def test_saved_and_loaded_without_tfzoo(tmp_path):
    x, expected = images(2, 8, 10, 2, dtype="float32"), {}
    np.save(tmp_path / "x.npy", x)
    for transform in st.GRIDS:
        model = randomize(small(transform))
        model.save(tmp_path / f"{transform}.keras")
        expected[transform] = model(x)
        assert np.std(expected[transform], axis=0).max() > 1e-3  # else the comparison could not fail
        open_batch = tf.function(model, input_signature=[tf.TensorSpec((None, 8, 10, 2))])
        np.testing.assert_allclose(open_batch(x), expected[transform], rtol=1e-4, atol=1e-5)
    code = (
        "import sys; sys.modules.update(tfzoo=None, apps=None, bridge=None)\n"
        "import keras, numpy as np, pathlib\n"
        "for path in pathlib.Path('.').glob('*.keras'):\n"
        "    np.save(path.stem, keras.models.load_model(path)(np.load('x.npy')))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    for transform, y in expected.items():
        np.testing.assert_array_equal(np.load(tmp_path / f"{transform}.npy"), y)


@pytest.mark.parametrize(("transform", "border"), zip(st.GRIDS, 2 * st.BORDERS, strict=True))
def test_the_same_in_torch(transform, border):
    points = 3 if transform == "thin_plate" else 4
    model = randomize(st.transformer((8, 6, 2), transform, (5, 5), (3,), 4, points, border))
    module = bridge.to_torch(model)
    x = images(3, 8, 6, 2, dtype="float32")
    with torch.no_grad():
        found = module(torch.from_numpy(bridge.nhwc_to_nchw(x)))
    np.testing.assert_allclose(bridge.nchw_to_nhwc(found.numpy()), model(x), rtol=1e-4, atol=1e-5)


def test_the_bridge_proves_it():
    model = randomize(tfzoo.build("spatial_transformer", **SMALL, transform="projective", output_size=(5, 6)))
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed, str(report)


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        ({"image_shape": (None, 60, 1)}, [r"three positive integers: .* Received: image_shape=\(None, 60, 1\)"]),
        (
            {"image_shape": (3, 60, 1), "output_size": (28, 3)},
            [
                r"localisation network halves its picture 2 times, so .* image_shape must be 4 or more.*\(3, 60, 1\)",
                r"classifier halves its picture 2 times, so .* 4 or more. Received: \(28, 3\), widths=\(32, 32\)",
            ],
        ),
        (
            {"transform": None, "output_size": (28, 28), "points": 9, "border": "border", "identity_penalty": 0.5},
            [
                r"output_size is of no effect without a transform. Received: output_size=\(28, 28\)",
                "points is of no effect without transform='thin_plate'. Received: points=9",
                "border is of no effect without a transform. Received: border='border'",
                "identity_penalty is of no effect without a transform. Received: identity_penalty=0.5",
            ],
        ),
        ({"include_top": False, "dropout": 0.5}, ["dropout is of no effect without include_top=True. Received"]),
        ({"points": 5}, ["points is of no effect without transform='thin_plate'. Received: points=5"]),
        (
            {
                "classes": 0, "transform": "rotation", "output_size": 28, "localisation_widths": (), "points": 1,
                "localisation_units": 1.5, "border": "wrap", "widths": 3, "units": True, "dropout": 1, "include_top": 1,
                "identity_penalty": -1,
            },
            [
                "classes must be .* Received: classes=0",
                "'affine', 'translation', 'projective', 'thin_plate', None. Received: transform='rotation'",
                "output_size must be 2 integers from 1. Received: output_size=28",
                r"localisation_widths must be .* Received: localisation_widths=\(\)",
                "localisation_units must be .* Received: localisation_units=1.5",
                "points must be an integer from 2. Received: points=1",
                "border must be one of 'zeros', 'border'. Received: border='wrap'",
                "widths must be .* Received: widths=3",
                "units must be .* Received: units=True",
                "dropout must be .* Received: dropout=1",
                "include_top must be .* Received: include_top=1",
                r"identity_penalty must be a number in \[0, 1\). Received: identity_penalty=-1",
            ],
        ),
    ],
    ids=["open", "small", "without", "top", "points", "all"],
)  # fmt: skip
def test_refusals_name_everything(options, messages):
    with pytest.raises(ValueError) as error:
        tfzoo.build("spatial_transformer", **options)
    for message in messages:
        error.match(message)
    assert len(str(error.value).splitlines()) == len(messages)


@pytest.mark.parametrize("size", st.SIZES)
def test_every_size_without_a_transformer(size):
    none = {"output_size": None, "points": 4, "border": "zeros", "identity_penalty": 0.0}
    model = tfzoo.build("spatial_transformer", size, transform=None, **none)
    assert model.get_layer("logits") and "transformer" not in {one.name for one in model.layers}


@pytest.mark.parametrize(
    ("call", "messages"),
    [
        (lambda: st.transformer((8, 8, 1), None), ["transform must be .*'thin_plate'. Received: transform=None"]),
        (
            lambda: st.transformer((8, 8, 1), "projective", points=3),
            ["points is of no effect without transform='thin_plate'. Received: points=3"],
        ),
        (lambda: st.identity("turn", 1), ["Received: transform='turn'", "Received: points=1"]),
        (lambda: st.affine(ops.ones((2, 5)), (3, 3)), [r"theta must be \(B, 6\)\. Received: .*\(2, 5\)"]),
        (lambda: st.thin_plate(ops.ones((2, 32)), (3, 3), 3), [r"theta must be \(B, 18\)\. Received: .*\(2, 32\)"]),
        (
            lambda: st.sample(keras.Input((None, 4, 1)), ops.ones((2, 3, 2)), "edge"),
            [r"H and W not open.*\(None, None, 4, 1\)", r"grid must be .*\(2, 3, 2\)", "Received: border='edge'"],
        ),
    ],
)  # fmt: skip
def test_the_parts_refuse(call, messages):
    with pytest.raises(ValueError) as error:
        call()
    for message in messages:
        error.match(message)
