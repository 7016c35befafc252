"""The user's own folder: what is read, how it is cut, and everything that is refused."""

import functools
import threading

import keras
import numpy as np
import pytest
from PIL import Image

import tfzoo.data
from apps import recipes, train
from apps.recipes import unet as recipe
from tfzoo.data import files, image_folder, pipeline

SHAPE = (16, 16, 3)


def write(path, values, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8), mode).save(path)


def make(folder, count=10, height=24, width=32, on=255):
    """Images whose red is x, whose green is y, whose blue is their number; masks of the left half."""
    y, x = np.mgrid[0:height, 0:width]
    for n in range(count):
        write(folder / "images" / f"{n:02}.png", np.stack([8 * x, 8 * y, 0 * x + 10 * n], -1))
        write(folder / "masks" / f"{n:02}.png", on * (x < width // 2))
    return folder


def datasets(folder, image_shape, *, batch_size, seed, **wanted):
    source = tfzoo.data.open(str(folder), "masks", seed=seed, image_shape=image_shape, **wanted)
    made = pipeline.datasets(source, batch_size=batch_size, seed=seed)
    return made.training, made.validation, made.held_out, made.description


def refusal(folder, **options):
    with pytest.raises(ValueError) as error:
        datasets(folder, SHAPE, batch_size=2, seed=0, **options)
    return str(error.value)


def whole(dataset):
    images, masks = zip(*dataset.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(masks)


@pytest.mark.parametrize("on", [1, 255])
def test_judged_on_the_centred_window(tmp_path, on):
    _, validation, held_out, description = datasets(make(tmp_path, on=on), SHAPE, batch_size=4, seed=0)
    for part in (validation, held_out):
        images, masks = whole(part)
        assert images.shape == (2, *SHAPE) and masks.shape == (2, 16, 16, 1)
        assert images.dtype == masks.dtype == np.float32
        # 24x32 is cut to the 24x24 from column 4 to 28, then shrunk by 1.5: pixel i is centred on 1.5 (i + .5) - .5.
        centres = 1.5 * (np.arange(16) + 0.5) - 0.5
        inner = slice(1, -1)  # the resampling filter is cut off at the border
        for image, mask in zip(images, masks, strict=True):
            np.testing.assert_allclose(image[0, inner, 0] * 255, 8 * (centres + 4)[inner], atol=1.5)
            np.testing.assert_allclose(image[inner, 0, 1] * 255, 8 * centres[inner], atol=1.5)
            np.testing.assert_array_equal(mask[..., 0], np.broadcast_to(np.arange(16) < 8, (16, 16)))
    assert description == f"{tmp_path}: 6 pictures to train on, 2 for validation, 2 held out"


def test_parts_share_no_picture_and_depend_on_the_seed_alone(tmp_path, monkeypatch):
    make(tmp_path, 20)

    def numbered(pair, image_shape, classes, rng=None):
        number = np.float32(pair.image.stem)
        return np.full(image_shape, number), np.full((*image_shape[:2], 1), number)

    monkeypatch.setattr(image_folder, "example", numbered)

    def parts(seed):
        training, *others, _ = datasets(tmp_path, SHAPE, batch_size=14, seed=seed)
        stream = training.as_numpy_iterator()
        epochs = [next(stream)[0][:, 0, 0, 0].tolist() for _ in range(2)]
        return epochs, [set(whole(part)[0][:, 0, 0, 0]) for part in others]

    (epoch, next_epoch), (validation, held_out) = parts(0)
    assert (len(set(epoch)), len(validation), len(held_out)) == (14, 3, 3)
    assert set(epoch) | validation | held_out == set(range(20))
    assert set(next_epoch) == set(epoch) and next_epoch != epoch
    assert parts(0) == ([epoch, next_epoch], [validation, held_out])
    assert parts(1)[1] != [validation, held_out]


def test_training_windows_are_new_each_time_and_fit_their_masks(tmp_path):
    training, *_ = datasets(make(tmp_path), SHAPE, batch_size=4, seed=0)
    stream = training.as_numpy_iterator()
    images, masks = (np.concatenate(part) for part in zip(*(next(stream) for _ in range(6)), strict=True))
    assert len({image.tobytes() for image in images}) == 24
    assert set(np.unique(masks)) == {0, 1}
    mirrored = 0
    for image, mask in zip(images, masks, strict=True):
        red = image[..., 0].mean(0)
        left = mask[..., 0].mean(0)
        if 0 < left.mean() < 1:
            # The mask is the dark side, whichever way round the picture is.
            assert (red[left == 1].mean() < red[left == 0].mean()) and set(left) == {0, 1}
            mirrored += left[0] == 0
    assert 0 < mirrored < 24
    again = next(datasets(tmp_path, SHAPE, batch_size=4, seed=0)[0].as_numpy_iterator())
    np.testing.assert_array_equal(again[0], images[:4])


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_large_pictures_are_kept_no_finer_than_windows_need(tmp_path, ending):
    """Of 250 x 330 the largest window has 250 / 16 = 15.6 pixels for one of the model's; four are kept."""
    y, x = np.mgrid[0:250, 0:330]
    disc = (x - 190) ** 2 + (y - 110) ** 2 < 60**2  # in the middle of nothing: any shift would show
    for n in range(3):
        write(tmp_path / "images" / f"{n}.{ending}", np.repeat(255 * disc[..., None], 3, -1))
        write(tmp_path / "masks" / f"{n}.png", disc)
    source = tfzoo.data.open(str(tmp_path), "masks", seed=0, image_shape=SHAPE)
    for i in range(20):
        image, mask = source.training.at(i, 0)
        # Relit, but each pixel is still nearer to its own kind.
        light, dark = np.median(image[mask[..., 0] == 1]), np.median(image[mask[..., 0] == 0])
        wrong = (image.mean(-1) > (light + dark) / 2) != (mask[..., 0] == 1)
        assert 0 < mask.mean() < 1 and wrong.mean() < 0.02
    (((image, mask),),) = [pair.kept for pair in source.training.pairs]
    assert image.size == mask.size == (84, 64)
    # The same as of the whole picture, within what the means of small and of large parts differ by.
    pair = image_folder.Pair(tmp_path / "images" / f"0.{ending}", tmp_path / "masks" / "0.png")
    whole, small = (
        image_folder.example(one, SHAPE, 1) for one in (pair, image_folder.Pair(pair.image, pair.mask, (64, 64)))
    )
    np.testing.assert_allclose(small[0], whole[0], atol=0.12)
    assert abs(small[0] - whole[0]).mean() < 0.01
    assert (small[1] != whole[1]).sum() <= 2  # the nearest of the nearest


def test_large_pictures_are_checked_whole(tmp_path):
    rng = np.random.default_rng(0)
    for n in range(4):
        write(tmp_path / "images" / f"{n}.jpg", rng.integers(0, 255, (250, 330, 3)))
        write(tmp_path / "masks" / f"{n}.png", np.zeros((250, 330 if n else 331)))
    broken = tmp_path / "images" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:-2000])
    message = refusal(tmp_path)
    assert "images/0.jpg (330x250) and masks/0.png (331x250): differ in size" in message
    assert "images/3.jpg: " in message and len(message.splitlines()) == 3


def test_what_a_window_is_cut_by_is_drawn_for_it_alone(tmp_path, monkeypatch):
    source = tfzoo.data.open(str(make(tmp_path)), "masks", seed=0, image_shape=SHAPE)
    monkeypatch.setattr(image_folder, "example", lambda pair, shape, classes, rng: rng.random())
    assert source.training.at(2, 1) == np.random.default_rng([*b"window", 0, 2, 1]).random()
    plain = {np.random.default_rng(seed).random() for seed in (0, [0, 0], [0, 0, 0])}
    assert len(plain) == 1 and source.training.at(0, 0) not in plain


def test_a_pair_is_kept_once_also_if_two_threads_decode_it(tmp_path):
    both = threading.Barrier(2, timeout=10)

    class Slow(image_folder.Pair):
        def read(self, classes):
            if not self.kept:
                both.wait()
            return super().read(classes)

    make(tmp_path, 1)
    pair = Slow(tmp_path / "images" / "00.png", tmp_path / "masks" / "00.png")
    windows = image_folder.Windows([pair], SHAPE, 1, seed=0, keep=True)
    threads = [threading.Thread(target=windows.pair, args=(0,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pair.kept) == 1


def test_every_file_is_opened_as_a_picture_and_closed(tmp_path, monkeypatch):
    make(tmp_path, 2)
    write(tmp_path / "masks" / "00.png", np.zeros((24, 30)))
    asked, real = [], Image.open
    monkeypatch.setattr(
        Image, "open", lambda path, **options: asked.append((real(path, **options), options)) or asked[-1][0]
    )
    bad, good = image_folder.listing(tmp_path, [])
    assert image_folder.Size(1)(good) == 24 * 32 * 5 and len(asked) == 4
    with pytest.raises(files.Problems, match="differ in size"):
        image_folder.Size(1)(bad)
    assert len(asked) == 8 and all("formats" in options for _, options in asked)
    assert all(picture.fp is None for picture, _ in asked)


def test_class_numbers_are_kept(tmp_path):
    make(tmp_path, on=2)
    training, _, held_out, _ = datasets(tmp_path, SHAPE, batch_size=20, seed=0, classes=3)
    for masks in (whole(held_out)[1], next(training.as_numpy_iterator())[1]):
        assert set(np.unique(masks)) == {0, 2}  # no 1 where 0 and 2 meet
    assert "class numbers from 0 to 1. Received: 0, 2" in refusal(tmp_path, classes=2)


@pytest.mark.parametrize("name", ["a.JPG", "a.jpeg", "a.bmp", "a.tif", "a.tiff", "a.png"])
def test_formats(tmp_path, name):
    make(tmp_path, 3)
    values = np.full((24, 32, 3), 200)
    write(tmp_path / "images" / name, values)
    write(tmp_path / "masks" / "a.png", np.zeros((24, 32)))
    pair = next(pair for pair in image_folder.listing(tmp_path, []) if pair.image.name == name)
    image, mask = image_folder.example(pair, SHAPE, 1)
    np.testing.assert_allclose(image, 200 / 255, atol=0.01)
    assert not mask.any()


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA"])
def test_masks_of_any_mode_that_means_one_channel(tmp_path, mode):
    make(tmp_path, 3)
    for path in (tmp_path / "masks").iterdir():
        mask = Image.open(path).copy()
        if mode == "P":
            indexes = (np.asarray(mask) > 0).astype(np.uint8)
            mask = Image.fromarray(indexes).convert("P")
            mask.putpalette([255, 0, 0, 0, 0, 255])
        mask.convert(mode).save(path)
    pair = image_folder.listing(tmp_path, [])[0]
    expected = np.broadcast_to(np.arange(16) < 8, (16, 16))
    np.testing.assert_array_equal(image_folder.example(pair, SHAPE, 1)[1][..., 0], expected)


def test_grey_images_for_a_grey_model(tmp_path):
    *_, held_out, _ = datasets(make(tmp_path), (16, 16, 1), batch_size=2, seed=0)
    assert whole(held_out)[0].shape == (2, 16, 16, 1)


def test_camera_orientation_is_applied(tmp_path):
    make(tmp_path, 3)
    picture = Image.open(tmp_path / "images" / "00.png").transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # displayed turned by 90 degrees clockwise
    picture.save(tmp_path / "images" / "00.png", exif=exif)
    image, _ = image_folder.example(image_folder.listing(tmp_path, [])[0], SHAPE, 1)
    assert image[8, 12, 0] > image[8, 4, 0] + 0.1 and image[12, 8, 1] > image[4, 8, 1] + 0.1


def test_a_mask_that_is_not_turned_with_its_image(tmp_path):
    make(tmp_path, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "images" / "00.png"
    Image.open(path).save(path, exif=exif)
    message = refusal(tmp_path)
    assert (
        "images/00.png (24x32) and masks/00.png (32x24): differ in size; images/00.png is turned by its EXIF" in message
    )
    assert "masks/00.png is turned" not in message


def test_what_only_looks_like_a_picture(tmp_path):
    make(tmp_path, 3)
    (tmp_path / "images" / "folder.png").mkdir()
    (tmp_path / "masks" / "link.png").symlink_to(tmp_path / "gone.png")
    message = refusal(tmp_path)
    assert "images/folder.png: is a folder, and none is looked into" in message
    assert "masks/link.png: is a link to a file that is not there" in message
    assert len(message.splitlines()) == 3


def test_every_problem_is_named_at_once(tmp_path):
    make(tmp_path)
    images, masks = tmp_path / "images", tmp_path / "masks"
    (images / "00.png").write_bytes(b"not a picture")
    (images / "01.png").write_bytes((images / "01.png").read_bytes()[:60])
    (masks / "02.png").unlink()
    (images / "03.png").unlink()
    write(masks / "04.png", np.zeros((24, 30)))
    write(masks / "05.png", np.arange(24 * 32).reshape(24, 32) % 9)
    write(masks / "06.png", np.dstack([np.eye(24, 32), np.zeros((24, 32, 2))]))
    Image.fromarray(np.zeros((24, 32), np.uint16)).save(images / "07.png")
    write(images / "08.jpg", np.zeros((24, 32, 3)))
    (images / "notes.txt").write_text("mine")
    (masks / ".DS_Store").write_text("the file manager's")
    message = refusal(tmp_path)
    for problem in (
        f"{tmp_path} cannot be used",
        ".png .jpg .jpeg .tif .tiff .bmp",
        "images/00.png: cannot identify image file",
        "images/01.png: ",
        "images/02.png: there is no masks/02.*",
        "masks/03.png: there is no images/03.*",
        "images/04.png (32x24) and masks/04.png (30x24): differ in size",
        "masks/05.png: mask values must be 0 and 1, or 0 and 255. Received: 0, 1, 2, 3, 4, 5, 6, 7, ... (9 values)",
        "masks/06.png: a mask must have one channel. Received: a coloured or transparent picture",
        "images/07.png: must have 8 bits per channel: save it with 8. Received: 16 bits",
        "images/: same name twice: 08.jpg, 08.png",
        "images/notes.txt: is not a picture file",
    ):
        assert problem in message
    assert "09.png" not in message and ".DS_Store" not in message
    assert len(message.splitlines()) == 11


def test_empty_and_missing_folders(tmp_path):
    assert "images/: there is no such folder" in refusal(tmp_path)
    assert "masks/: there is no such folder" in refusal(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    assert "images/: holds no picture\n  masks/: holds no picture" in refusal(tmp_path)


def test_too_few_pictures(tmp_path):
    assert "2 images with masks; 3 are needed" in refusal(make(tmp_path, 2))
    make(tmp_path, 3)
    training, validation, held_out, _ = datasets(tmp_path, SHAPE, batch_size=8, seed=0)
    assert len(next(training.as_numpy_iterator())[0]) == 8  # the one picture, over and over
    assert [len(whole(part)[0]) for part in (validation, held_out)] == [1, 1]


def test_decompression_bombs_are_refused(tmp_path, monkeypatch):
    make(tmp_path)
    write(tmp_path / "images" / "00.png", np.zeros((50, 50, 3)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    message = refusal(tmp_path)
    assert "images/00.png: Image size (2500 pixels) exceeds limit of 2000 pixels" in message
    assert "images/01.png" not in message


@pytest.mark.parametrize("shape", [(None, None, 3), (16, 16), (16, 16, 4)])
def test_image_shape_must_be_fixed(tmp_path, shape):
    with pytest.raises(ValueError, match=r"must be \(height, width, 1 or 3\)"):
        datasets(make(tmp_path), shape, batch_size=2, seed=0)


def test_recipe_trains_on_a_folder(tmp_path):
    rng = np.random.default_rng(0)
    for n in range(20):
        mask = np.zeros((40, 50), np.uint8)
        top, left = rng.integers(5, 20, 2)
        mask[top : top + 15, left : left + 20] = 255
        write(tmp_path / "images" / f"{n}.png", rng.integers(60, 100, (40, 50, 3)) + mask[..., None] // 3)
        write(tmp_path / "masks" / f"{n}.png", mask)
    keras.utils.set_random_seed(0)
    opened = recipe.datasets(str(tmp_path), (32, 32, 3), batch_size=4, seed=0)
    model = tfzoo.build("unet", "tiny")
    options = recipes.DEFAULTS | {"learning_rate": 1e-2, "epochs": 1, "steps_per_epoch": 150}
    recipe.compile(model, optimizer=functools.partial(train.optimizer, options), jit_compile=False)
    model.fit(opened.training, steps_per_epoch=150, verbose=0, shuffle=False, validation_data=opened.validation)
    figures = recipe.evaluate(model, opened.held_out)
    assert figures["iou"] > 0.8 > figures["all_foreground_iou"] + 0.2
    assert opened.description == f"{tmp_path}: 14 pictures to train on, 3 for validation, 3 held out"
