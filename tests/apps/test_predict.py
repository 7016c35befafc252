import contextlib
import json

import keras
import numpy as np
import pytest
from PIL import Image
from skimage import data

import tfzoo
from apps import predict
from tfzoo.export import client, save


@pytest.fixture(scope="module")
def model():
    """A tiny U-Net whose masks are not all the same."""
    model, rng = tfzoo.build("unet", size="tiny"), np.random.default_rng(0)
    for w in model.weights:
        scale = 3.0 if w.path == "logits/kernel" else (2 / np.prod(w.shape[:-1])) ** 0.5
        w.assign(rng.normal(0, scale if len(w.shape) > 1 else 0.1, w.shape))
    return model


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """The folder of its versions."""
    return save(model, tmp_path_factory.mktemp("models") / "unet", signatures=tfzoo.unet.signatures).path.parent


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Pictures of several kinds and sizes, two of them of one name."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "more").mkdir()
    names = {"a.png": data.astronaut(), "b.jpg": data.coffee(), "c.tiff": data.camera(), "more/a.bmp": data.cat()}
    for name, pixels in names.items():
        Image.fromarray(pixels).resize((61, 47)).save(folder / name)
    return [folder / name for name in names]


def test_masks_as_pictures(exported, model, pictures, invoke, tmp_path):
    result = invoke("predict", exported, *pictures, "-o", tmp_path / "out", "--batch", 3)
    assert result.exit_code == 0, result.stderr
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    assert [x["image"] for x in found] == list(map(str, pictures))
    assert [x["outputs"]["mask"] for x in found] == ["mask/a.png", "mask/b.png", "mask/c.png", "mask/a_1.png"]
    for path, x in zip(pictures, found, strict=True):
        picture = Image.open(path).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR, (7, 0, 54, 47))
        want = 1 / (1 + np.exp(-np.asarray(model(np.asarray(picture, np.float32)[None] / 255))))
        mask = np.asarray(Image.open(tmp_path / "out" / x["outputs"]["mask"]))
        assert mask.shape == (32, 32) and np.ptp(mask) > 60
        np.testing.assert_allclose(mask, 255 * want[0, ..., 0], atol=4)  # Pillow rounds the picture twice


@pytest.mark.parametrize("batch", [1, 3])
def test_a_fixed_batch_is_filled(model, pictures, invoke, tmp_path, batch):
    save(model, tmp_path / "fixed", signatures=tfzoo.unet.signatures, batch=3)
    result = invoke("predict", tmp_path / "fixed", *pictures, "-o", tmp_path / "out", "--batch", batch)
    assert result.exit_code == 0, result.stderr
    assert len(list((tmp_path / "out" / "mask").iterdir())) == 4


def test_numbers_go_into_the_file(tmp_path, pictures, invoke):
    image = keras.Input((8, 8, 3), name="image")
    flat = keras.layers.GlobalAveragePooling2D()(image)
    save(keras.Model(image, keras.layers.Dense(4, name="label")(flat)), tmp_path / "labels")
    assert invoke("predict", tmp_path / "labels", pictures[0], "-o", tmp_path / "out").exit_code == 0
    (found,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    assert len(found["outputs"]["label"]) == 4 and [path.name for path in (tmp_path / "out").iterdir()] == [
        "predictions.json"
    ]


@pytest.mark.parametrize(
    "shape, mode", [((5, 6, 1), "L"), ((5, 6, 3), "RGB"), ((5, 6, 4), "P"), ((6,), None), ((1, 1, 3), None)]
)
def test_what_is_a_picture(shape, mode):
    drawn = predict.picture(np.random.default_rng(0).random(shape))
    assert (drawn and drawn.mode) == mode and (drawn is None or drawn.size == (6, 5))


def test_numbers_that_are_no_picture_are_kept(tmp_path):
    value = np.random.default_rng(0).normal(size=(40, 30, 1)).astype(np.float32)  # logits
    answers = [{"image": value, "score": np.float32(3)[()] * np.ones([], np.float32), "名" * 90: value[:2, :2]}]
    assert predict.write(tmp_path, [tmp_path / ("名" * 90 + ".png")], answers) == 1
    (found,) = json.loads((tmp_path / "predictions.json").read_text())["predictions"]
    np.testing.assert_array_equal(np.load(tmp_path / found["outputs"]["image"]), value)
    assert found["image"].endswith(".png") and found["outputs"]["score"] == 3


def test_classes_have_colours():
    value = np.zeros((2, 3, 5), np.float32)
    value[0, 1, 4] = value[1, 2, 2] = 1
    drawn = predict.picture(value)
    assert np.asarray(drawn).tolist() == [[0, 4, 0], [0, 0, 2]]
    assert len(np.unique(np.asarray(drawn.convert("RGB")).reshape(-1, 3), axis=0)) == 3


def test_every_picture_that_cannot_be_read(exported, pictures, invoke, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    result = invoke(
        "predict", exported, pictures[0], tmp_path / "text.png", tmp_path / "none.png", "-o", tmp_path / "o"
    )
    assert result.exit_code == 2 and "of which none can be taken" in result.stderr
    assert "text.png: cannot identify image file" in result.stderr and "none.png: [Errno 2]" in result.stderr
    assert not (tmp_path / "o").exists()


def test_what_the_model_refuses_is_named(exported, pictures, invoke, tmp_path, monkeypatch):
    read = predict.read
    monkeypatch.setattr(predict, "read", lambda path: b"GIF" if path == pictures[2] else read(path))
    result = invoke("predict", exported, *pictures, "-o", tmp_path / "o", "--batch", 2)
    assert result.exit_code == 2 and f"{pictures[2]}: the file at place 0 is neither PNG nor JPEG" in result.stderr
    answered = json.loads((tmp_path / "o" / "predictions.json").read_text())["predictions"]
    assert [x["image"] for x in answered] == [str(path) for path in pictures[:2]]  # of the request before


@pytest.mark.parametrize(
    "signature, words",
    [
        ("encode", "no signature 'encode'. Accepted: --signature, one of serving_bytes, serving_default"),
        ("serving_default", "takes image, no files. Accepted: one whose only input is texts"),
    ],
)
def test_another_signature(exported, pictures, invoke, tmp_path, signature, words):
    result = invoke("predict", exported, pictures[0], "--signature", signature, "-o", tmp_path / "o")
    assert result.exit_code == 2 and words in result.stderr


def test_no_model(pictures, invoke, tmp_path):
    result = invoke("predict", tmp_path / "none", pictures[0])
    assert result.exit_code == 2 and "no exported model: " in result.stderr
    result = invoke("predict", "http://127.0.0.1:1/v1/models/unet", pictures[0], "--retries", 0)
    assert result.exit_code == 3 and "no answer from http://127.0.0.1:1" in result.stderr


def test_time_and_retries_reach_the_client(pictures, invoke, tmp_path, monkeypatch):
    given = {}

    @contextlib.contextmanager
    def connect(target, **options):
        given.update(options, target=target)
        raise client.NoAnswer("away")
        yield

    monkeypatch.setattr(client, "connect", connect)
    result = invoke("predict", "grpc://host:1/unet", pictures[0], "--timeout", 7, "--retries", 2, "-o", tmp_path)
    assert result.exit_code == 3 and given == {"target": "grpc://host:1/unet", "timeout": 7.0, "retries": 2}


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (
            {"probabilities": [0.2, 0.7, 0.1], "labels": [b"cat", b"dog", b"o\x1b[2Jwl"]},
            "dog 70.0%, cat 20.0%, o\ufffd[2Jwl 10.0%",
        ),
        ({"probabilities": [0.0004, 0.9996]}, "class 1 100.0%"),
        ({"probabilities": [0.125] * 8}, "class 0 12.5%, class 1 12.5%, class 2 12.5%, class 3 12.5%, class 4 12.5%"),
        ({"probabilities": [0.2, 0.8], "labels": [b"cat"]}, "class 1 80.0%, class 0 20.0%"),
        ({"probabilities": [[0.2, 0.8]]}, ""),
        ({"mask": [0.5]}, ""),
    ],
)
def test_the_likeliest_in_words(outputs, words):
    arrays = {k: np.array(x, object if k == "labels" else "float32") for k, x in outputs.items()}
    assert predict.likeliest(arrays) == words


def test_a_classifier_says_what_it_sees(classifier, pictures, invoke, tmp_path):
    """From the run to the answer: its classes' names, and the pixels that it was trained on."""
    result = invoke("export", classifier, "-o", tmp_path / "models")
    assert result.exit_code == 0, result.stderr
    result = invoke("predict", tmp_path / "models", *pictures[:2], "-o", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    model = keras.models.load_model(classifier / "best.keras")
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    for path, one in zip(pictures, found, strict=False):
        whole = Image.open(path).convert("RGB").resize((16, 16), Image.Resampling.BILINEAR)
        scores = np.asarray(model(2 * np.asarray(whole, np.float32)[None] / 255 - 1))[0]
        want = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose(one["outputs"]["probabilities"], want, atol=0.01)  # Pillow rounds to 8 bits
        assert one["outputs"]["labels"] == ["cat", "dog"]
        first = ("cat", "dog")[int(np.argmax(one["outputs"]["probabilities"]))]
        assert f"{path}: {first} {max(one['outputs']['probabilities']):.1%}" in result.stdout
