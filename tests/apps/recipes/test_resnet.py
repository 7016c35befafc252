"""What the recipes of classifiers share, on ResNet's: data as they say, figures, pictures, builder's options."""

import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tfzoo
import tfzoo.data
from apps import train
from apps.recipes import _classifier
from apps.recipes import resnet as recipe
from tfzoo.data.examples import Arrays


def dataset(images, labels, batch=4):
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch)


def reading(scores):
    """A model that gives an image's first pixels as logits, and images that hold these logits."""
    image = keras.Input((4, 4, 1))
    classes = scores.shape[-1]
    model = keras.Model(image, keras.layers.Flatten()(image)[:, :classes])
    images = np.zeros((len(scores), 16), "float32")
    images[:, :classes] = scores
    return model, images.reshape(-1, 4, 4, 1)


def test_figures_are_those_of_scikit_learn():
    from sklearn import metrics

    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(50, 7)).astype("float32"), rng.integers(0, 7, 50)
    scores[np.arange(50), labels] += 1
    model, images = reading(scores)
    found = recipe.evaluate(model, dataset(images, labels))
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    guesses = scores.argmax(1)
    expected = {
        "top1": metrics.accuracy_score(labels, guesses),
        "top5": metrics.top_k_accuracy_score(labels, scores, k=5),
        "recall": metrics.recall_score(labels, guesses, average="macro"),
        "precision": metrics.precision_score(labels, guesses, average="macro", zero_division=0),
        "nll": metrics.log_loss(labels, probabilities),
        "most_frequent": np.bincount(labels).max() / 50,
    }
    assert {k: v for k, v in found.items() if k != "calibration"} == pytest.approx(expected, rel=1e-5)
    assert 0 < found["calibration"] < 1 and 0.2 < found["top1"] < 0.9


def test_few_classes_have_no_top5():
    model, images = reading(np.eye(3, dtype="float32"))
    found = recipe.evaluate(model, dataset(images, np.array([0, 1, 2])))
    assert "top5" not in found and found["top1"] == 1


def test_classes_that_the_model_does_not_know():
    model, images = reading(np.eye(3, dtype="float32"))
    with pytest.raises(ValueError, match="the data has 5 classes or more, the model 3. Judge it on data of the"):
        recipe.evaluate(model, dataset(images, np.array([0, 1, 4])))
    with pytest.raises(ValueError, match="labels are numbers of classes, from 0. Received: -1"):
        recipe.evaluate(model, dataset(images, np.array([0, 1, -1])))


@pytest.mark.parametrize("wrong", [0, 1, 20])
def test_the_picture_is_drawn_with_and_without_mistakes(tmp_path, wrong):
    scores = 3 * np.eye(6, dtype="float32")[np.arange(30) % 6]
    labels = np.arange(30) % 6
    labels[:wrong] = (labels[:wrong] + 1) % 6
    model, images = reading(scores)
    recipe.draw(model, dataset(images, labels), tmp_path / "a.png", classes=("a cat", "$_", "c", "d", "e", "f"))
    with Image.open(tmp_path / "a.png") as drawn:
        assert drawn.width == 800 and np.ptp(np.asarray(drawn.convert("L"))) > 100
        assert (drawn.height > 500) == (wrong > 6)


def test_the_mistakes_are_the_surest_of_all_batches():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(50, 3)).astype("float32"), rng.integers(0, 3, 50)
    model, images = reading(scores)
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    wrong = [i for i in range(50) if scores[i].argmax() != labels[i]]
    expected = sorted(wrong, key=lambda i: -probabilities[i].max())
    assert len(wrong) > 20
    assert _classifier.surest_mistakes(labels, scores, 50).tolist() == expected
    for most in (0, 5, 50):
        found_labels, found_scores, mistakes = _classifier.judged(model, dataset(images, labels), most)
        np.testing.assert_array_equal(found_labels, labels)
        np.testing.assert_array_equal(found_scores, scores)
        for part, whole in zip(mistakes, (images, labels, scores), strict=True):
            np.testing.assert_array_equal(part, whole[expected[:most]])


def test_equally_sure_mistakes_keep_their_order():
    scores = np.float32([[0, 2], [2, 0], [0, 2], [3, 0]])
    assert _classifier.surest_mistakes(np.array([0, 0, 0, 1]), scores, 3).tolist() == [3, 0, 2]


def test_a_row_is_what_a_class_is_taken_for():
    scores = np.eye(4, dtype="float32")[[0, 1, 1, 2]]
    shares = _classifier.taken_for(np.array([0, 0, 1, 1]), scores)
    np.testing.assert_allclose(shares, [[0.5, 0.5, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def test_the_loss_is_of_numbers_and_of_shares():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(9, 7)).astype("float32"), rng.integers(0, 5, 9)
    shares = rng.dirichlet(np.ones(5), 9).astype("float32")
    log = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    found = _classifier.cross_entropy(keras.ops.convert_to_tensor(labels), keras.ops.convert_to_tensor(logits))
    np.testing.assert_allclose(found, -log[np.arange(9), labels], rtol=1e-5)
    found = _classifier.cross_entropy(keras.ops.convert_to_tensor(shares), keras.ops.convert_to_tensor(logits))
    np.testing.assert_allclose(found, -(shares * log[:, :5]).sum(1), rtol=1e-5)
    for truth in (shares, shares.argmax(1)):
        for metric, most in zip(_classifier.tops(7), (1, 5), strict=True):
            metric.update_state(truth, logits)
            among = np.argsort(-logits, 1)[:, :most] == shares.argmax(1)[:, None]
            assert float(metric.result()) == pytest.approx(among.any(1).mean())


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_pictures_are_mixed_for_training_only(mix):
    plain, mixed, again = (
        recipe.datasets("digits", (16, 16, 1), batch_size=32, seed=3, start=2, **how)
        for how in ({}, {"mix": mix}, {"mix": mix})
    )
    (images, labels), (blended, shares) = (next(x.training.as_numpy_iterator()) for x in (plain, mixed))
    np.testing.assert_array_equal(blended, next(again.training.as_numpy_iterator())[0])
    assert shares.shape == (32, 10) and shares.dtype == "float32"
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-6)
    own = shares[np.arange(32), labels]
    assert np.mean((own > 0.01) & (own < 0.99)) > 0 and blended.min() >= -1 and blended.max() <= 1
    unlike = np.abs(blended - images).reshape(32, -1)
    assert np.sum(own < 0.9) > 3 and np.all(unlike.max(1)[own < 0.9] > 0.1)
    if mix == "cutmix":  # what is not of the box is as it was
        others = own < 0.999  # of another class
        assert np.all(np.mean(unlike > 1e-6, 1)[others] <= 1 - own[others] + 1e-6)
    for one, other in zip(plain.held_out.as_numpy_iterator(), mixed.held_out.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_what_pictures_are_made_of_changes_what_is_learned(invoke, tmp_path):
    few, learned = ["--epochs", 1, "--steps-per-epoch", 3, "--batch-size", 8], []
    for name, options in {"plain": [], "mixup": ["--mix", "mixup"], "values": ["--values", 0, 2]}.items():
        result = invoke("train", "resnet", *few, *options, "--output", tmp_path / name)
        assert result.exit_code == 0, result.stderr
        learned.append(keras.models.load_model(tmp_path / name / "model.keras").get_layer("fc").get_weights()[0])
    options = json.loads((tmp_path / "mixup" / "options.json").read_text())
    assert options["mix"] == "mixup" and options["values"] == [-1, 1]
    assert not any(np.array_equal(one, other) for one, other in itertools.combinations(learned, 2))
    assert invoke("evaluate", tmp_path / "mixup").exit_code == 0


def test_a_run_older_than_an_option_goes_on(invoke, tmp_path):
    run = ["--epochs", 2, "--steps-per-epoch", 1, "--batch-size", 4, "--output", tmp_path / "run"]
    assert invoke("train", "resnet", *run).exit_code == 0
    (tmp_path / "run" / "training.json").unlink()
    path = tmp_path / "run" / "options.json"
    old = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in old.items() if key not in ("mix", "values")}))
    assert invoke("evaluate", tmp_path / "run").exit_code == 0
    result = invoke("train", "resnet", *run, "--mix", "cutmix")
    assert result.exit_code == 2 and "mix: 'none' there, 'cutmix' now" in result.stderr
    result = invoke("train", "resnet", *run, "--mix", "none", "--values", -1, 1)
    assert result.exit_code == 0, result.stderr


def test_what_is_right_in_bfloat16():
    scores = keras.ops.one_hot(np.arange(300, 400), 1000, dtype="bfloat16")
    metric = _classifier.tops(1000)[0]
    metric.update_state(np.arange(301, 401), scores)  # its neighbours, which bfloat16 does not tell apart
    assert float(metric.result()) == 0


def test_a_run_from_weights_that_are_there(invoke, tmp_path):
    model = tfzoo.build("resnet", size="tiny", image_shape=(8, 8, 1), classes=7)
    logits = keras.layers.Dense(10, name="fc")(model.get_layer("fc").input)
    begin = keras.Model(model.input, logits)
    begin.save(tmp_path / "begin.keras")
    model.save(tmp_path / "seven.keras")
    still = ["--epochs", 1, "--steps-per-epoch", 1, "--batch-size", 4, "--learning-rate", 1e-30]
    run = [*still, "--output", tmp_path / "run", "--set"]
    result = invoke("train", "resnet", *run, f"weights={tmp_path / 'begin.keras'}")
    assert result.exit_code == 0, result.stderr
    trained = keras.models.load_model(tmp_path / "run" / "model.keras")
    for one, other in zip(begin.trainable_variables, trained.trainable_variables, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    for file, said in (("seven.keras", "7)"), ("none.keras", "there is no file")):
        result = invoke("train", "resnet", *still, "--output", tmp_path / "no", "--set", f"weights={tmp_path / file}")
        assert result.exit_code == 2 and said in result.stderr, result.stderr
        assert not (tmp_path / "no").exists()


def test_what_is_not_mixed(invoke, tmp_path):
    result = invoke("train", "resnet", "--mix", "cutout", "--output", tmp_path / "run")
    assert result.exit_code == 2 and "--mix must be one of none, mixup, cutmix. Received: cutout" in result.stderr
    result = invoke("train", "unet", "--mix", "mixup", "--output", tmp_path / "run")
    assert (
        result.exit_code == 2
        and "--mix is an option of googlenet, resnet, spatial_transformer, vit alone" in result.stderr
    )
    assert not (tmp_path / "run").exists()


def test_digits_are_shifted_for_training_only():
    data = recipe.datasets("digits", (16, 16, 1), batch_size=32, seed=3)
    images, labels = next(data.training.as_numpy_iterator())
    assert images.shape == (32, 16, 16, 1) and images.min() == -1 and images.max() <= 1 and labels.shape == (32,)
    held, _ = next(data.held_out.as_numpy_iterator())
    rows = (held[..., 0] > -1).any(2)
    assert rows[:, 1].all() and rows[:, -2].all()  # every digit reaches from top to bottom, as scikit-learn has them
    assert not (images[..., 0] > -1).any(2)[:, :2].all()
    again = next(recipe.datasets("digits", (16, 16, 1), batch_size=32, seed=3).training.as_numpy_iterator())
    np.testing.assert_array_equal(images, again[0])


def coloured_and_grey(side):
    """Pictures `(2, side, side, 3)` uint8 that are brighter to the right, by which a mirrored one is known."""
    drawn = np.broadcast_to(np.linspace(20, 120, side), (side, side))
    return np.stack([np.stack([drawn, drawn, blue], -1) for blue in (drawn / 2, drawn)]).astype(np.uint8)


def are_mirrored(images):
    """Say of pictures of `coloured_and_grey`, shifted or cut, whether they are mirrored."""
    shifted = images.shape[2] // 8
    columns = images.mean((1, 3))[:, shifted:-shifted]
    return columns[:, 0] > columns[:, -1]


@pytest.mark.parametrize("side", [16, 96])
def test_coloured_pictures_are_mirrored_and_grey_ones_never(tmp_path, side):
    """A folder's are all of three channels; a grey b would be learned as a d."""
    for name, picture in zip(("coloured", "grey"), coloured_and_grey(side), strict=True):
        (tmp_path / name).mkdir()
        for i in range(8):
            Image.fromarray(picture).save(tmp_path / name / f"{i}.png")
    data = recipe.datasets(str(tmp_path), (side, side, 3), batch_size=80, seed=0)
    images, labels = next(data.training.as_numpy_iterator())
    mirrored = are_mirrored(images)
    assert 0.2 < mirrored[labels == 0].mean() < 0.8 and not mirrored[labels == 1].any()
    seen_in_grey = recipe.datasets(str(tmp_path), (side, side, 1), batch_size=80, seed=0)
    images, _ = next(seen_in_grey.training.as_numpy_iterator())
    assert not are_mirrored(images).any()


def test_which_are_mirrored_of_a_batch_that_is_made_at_once(monkeypatch):
    part = Arrays((np.tile(coloured_and_grey(16), (20, 1, 1, 1)), np.tile([0, 1], 20)))
    source = tfzoo.data.Source(part, part, part, "made here", ("coloured", "grey"))
    monkeypatch.setattr(tfzoo.data, "open", lambda *_, **__: source)
    images, labels = next(recipe.datasets("any", (16, 16, 3), batch_size=80, seed=0).training.as_numpy_iterator())
    mirrored = are_mirrored(images)
    assert 0.2 < mirrored[labels == 0].mean() < 0.8 and not mirrored[labels == 1].any()


def test_digits_in_three_channels_are_those_in_one():
    one, three = (
        next(recipe.datasets("digits", (16, 16, channels), batch_size=32, seed=0).training.as_numpy_iterator())
        for channels in (1, 3)
    )
    np.testing.assert_array_equal(one[1], three[1])
    np.testing.assert_allclose(three[0], np.repeat(one[0], 3, -1), atol=1e-6)


@pytest.fixture
def photographs(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog", "owl"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(rng.integers(0, 255, (90, 120, 3), np.uint8)).save(tmp_path / "data" / name / f"{i}.png")
    return tmp_path / "data"


def test_windows_of_photographs(photographs):
    data = recipe.datasets(str(photographs), (72, 96, 3), batch_size=4, seed=0)
    images, _ = next(data.training.as_numpy_iterator())
    assert images.shape == (4, 72, 96, 3) and -1 <= images.min() < 0 < images.max() <= 1
    assert data.classes == ("cat", "dog", "owl")
    held, _ = next(data.held_out.as_numpy_iterator())
    np.testing.assert_array_equal(held, next(data.held_out.as_numpy_iterator())[0])


@pytest.mark.parametrize(("smallest", "size"), [(1, (8, 8)), (15, (32, 32))])
def test_the_builders_options_follow_from_the_data(smallest, size):
    options = {"data": "digits", "seed": 0, "settings": {}}
    assert _classifier.settings(options, smallest) == {"classes": 10, "image_shape": (*size, 1)}


def test_more_classes_than_asked_for(photographs):
    options = {"data": str(photographs), "seed": 0, "settings": {"classes": 2}}
    with pytest.raises(ValueError, match=r"has 3 classes. Accepted: --set classes=3 or more. Received: 2"):
        recipe.settings(options)
    assert recipe.settings({**options, "settings": {}}) == {"classes": 3, "image_shape": (224, 224, 3)}


def test_a_run_is_built_for_its_data(photographs, tmp_path):
    asked = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "settings": {"image_shape": (24, 24, 3)}}
    train.train("resnet", tmp_path / "run", data=str(photographs), **asked)
    options = json.loads((tmp_path / "run" / "options.json").read_text())
    assert options["settings"] == {"classes": 3, "image_shape": [24, 24, 3]}
    assert keras.models.load_model(tmp_path / "run" / "model.keras").output_shape == (None, 3)


@pytest.mark.parametrize("image_shape", [(16, 24, 3), (96, 80, 3), (16, 16, 1), (96, 90, 1)], ids=str)
def test_what_is_judged_is_what_is_served_and_explained(image_shape, invoke, tmp_path, explained):
    """Of a large and a small picture, neither of them a square."""
    rng = np.random.default_rng(0)
    for part in ("train", "val", "test"):
        for name, size in (("cat", (150, 260)), ("dog", (30, 20))):
            (tmp_path / part / name).mkdir(parents=True)
            coarse = Image.fromarray(rng.integers(0, 255, (9, 9, 3), np.uint8))
            coarse.resize(size[::-1], Image.Resampling.BICUBIC).save(tmp_path / part / name / "a.png")
    files = [tmp_path / "test" / name / "a.png" for name in ("cat", "dog")]
    model = tfzoo.build("resnet", size="tiny", image_shape=image_shape, classes=2)
    for weight in model.trainable_weights:
        if len(weight.shape) > 1:
            weight.assign(rng.normal(0, (2 / np.prod(weight.shape[:-1])) ** 0.5, weight.shape))
    model.save(tmp_path / "resnet.keras")

    images, _ = next(recipe.datasets(str(tmp_path), image_shape, batch_size=2, seed=0).held_out.as_numpy_iterator())
    logits = np.asarray(model(images))
    result = invoke("explain", tmp_path / "resnet.keras", *files, "-o", tmp_path / "explained")
    assert result.exit_code == 0, result.stderr
    np.testing.assert_allclose(np.concatenate(explained), images, atol=1e-5)
    np.testing.assert_allclose(np.asarray(model(np.concatenate(explained))), logits, rtol=1e-4, atol=1e-4)

    assert invoke("export", tmp_path / "resnet.keras", "-o", tmp_path / "models").exit_code == 0
    assert invoke("predict", tmp_path / "models", *files, "-o", tmp_path / "predicted").exit_code == 0
    found = json.loads((tmp_path / "predicted" / "predictions.json").read_text())["predictions"]
    served = np.log([one["outputs"]["probabilities"] for one in found])
    np.testing.assert_allclose(served - served[:, :1], logits - logits[:, :1], rtol=1e-4, atol=1e-4)
    assert np.abs(logits[0] - logits[1]).max() > 1e-2


def folder_of(folder, *sizes):
    """A folder of two classes, each with pictures of these sizes `(H, W)`."""
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i, (height, width) in enumerate(sizes):
            Image.new("RGB", (width, height), (i, 9, 9)).save(folder / name / f"{i}.png")
    return str(folder)


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ([(30, 40)] * 5 + [(300, 400)], (224, 224, 3)),
        ([(300, 400)] + [(30, 40)] * 5, (224, 224, 3)),
        ([(30, 40), (40, 30), (35, 35)], (40, 40, 3)),
    ],
)
def test_the_largest_picture_decides_whatever_the_seed(tmp_path, sizes, shape):
    options = {"data": folder_of(tmp_path / "data", *sizes), "settings": {}}
    assert {_classifier.settings({**options, "seed": seed})["image_shape"] for seed in range(6)} == {shape}


@pytest.mark.parametrize("image_shape", [(32, 32, 3), (96, 96, 3)])
def test_the_models_size_decides_how_pictures_are_judged(tmp_path, image_shape):
    """Whichever picture a seed has first."""
    sizes = [(30, 40), (300, 400), (50, 30)]
    for part in ("train", "val", "test"):
        data = folder_of(tmp_path / "data" / part, *sizes)
    data = str(tmp_path / "data")
    held_out = [
        np.concatenate([x for x, _ in recipe.datasets(data, image_shape, batch_size=4, seed=seed).held_out])
        for seed in range(3)
    ]
    for other in held_out[1:]:
        np.testing.assert_array_equal(other, held_out[0])
    assert recipe.fit(image_shape[:2]) == ("stretch" if image_shape[0] == 32 else "middle")


@pytest.mark.parametrize("image_shape", [(None, None, 3), (16, 16, 4), (16, 0, 3), (16, 16), (None, 16, 1)], ids=str)
def test_sizes_that_pictures_cannot_be_brought_to(image_shape):
    with pytest.raises(ValueError, match=r"image_shape must be \(height, width, 1 or 3\). Received: image_shape=\("):
        recipe.datasets("digits", image_shape, batch_size=4, seed=0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["image_shape=(16,16,4)"], ["image_shape must be (height, width, 1 or 3)"]),
        (["image_shape=(None,None,3)"], ["Received: image_shape=(None, None, 3)"]),
        (["include_top=False"], ["resnet is no classifier of pictures"]),
        (["classes=2", "widths=3"], ["has 3 classes. Accepted", "widths must be"]),
        (["classes=2", "blok=1"], ["has 3 classes. Accepted", "no option blok"]),
    ],
    ids=str,
)
def test_settings_that_cannot_be_trained_leave_nothing(photographs, invoke, tmp_path, settings, said):
    given = [text for setting in settings for text in ("--set", setting)]
    for more in (["--dry-run"], []):
        result = invoke("train", "resnet", "--data", photographs, *given, *more, "--output", tmp_path / "run")
        assert result.exit_code == 2 and not (tmp_path / "run").exists()
        for words in said:
            assert words in result.stderr


def test_what_gives_no_logits_is_neither_compiled_nor_judged():
    model = tfzoo.build("resnet", size="tiny", include_top=False)
    with pytest.raises(ValueError, match="resnet is no classifier of pictures"):
        recipe.compile(model, optimizer=lambda kind, **more: kind(0.1, **more), jit_compile=False)
    with pytest.raises(ValueError, match="resnet is no classifier of pictures"):
        recipe.evaluate(model, None)
