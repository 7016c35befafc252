"""`tfzoo traverse`: a row for each latent, all of them moving, and a map of two."""

import numpy as np
from PIL import Image

from apps import run_folder, sheets, train, traverse


def test_a_row_for_each_latent(invoke, autoencoder, tmp_path):
    done = invoke("traverse", autoencoder, "--steps", 5, "--reach", 2, "--picture", 7, "--output", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert "3 latents from -2 to 2" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["traverse.gif", "traverse.png"]
    model = run_folder.load(autoencoder)
    held_out = np.concatenate(
        [b[0] for b in run_folder.datasets(autoencoder, model, None).held_out.as_numpy_iterator()]
    )
    rows = model.traverse(held_out[7], np.linspace(-2, 2, 5))
    with Image.open(tmp_path / "traverse.png") as drawn:
        sheet = sheets.tiles(rows.reshape(15, 8, 8, 1), 5)
        np.testing.assert_array_equal(
            drawn, sheets.labelled(sheet, ["z[0]", "z[1]", "z[2]"], ["-2", "-1", "0", "1", "2"])
        )
    with Image.open(tmp_path / "traverse.gif") as opened:
        assert opened.n_frames == 8
    assert np.ptp(rows, axis=1).max() > 1e-4


def same(image, wanted):
    np.testing.assert_array_equal(np.asarray(image), np.asarray(wanted))


def test_many_latents_are_drawn_beside_one_another():
    """Of 70 latents 32 are below one another, then 32, then 6: each under its own name."""
    rows, values = np.random.default_rng(0).random((70, 3, 8, 8, 1)), np.array([-1, -0.0, 0.33333])
    drawn, left = np.asarray(traverse.draw_rows(rows, values)), 0
    assert len(drawn) == sheets.LINE + 32 * 66 - 2 and drawn.shape[1] < 1000
    for first, last in ((0, 32), (32, 64), (64, 70)):
        sheet = sheets.tiles(rows[first:last].reshape(-1, 8, 8, 1), 3)
        wanted = sheets.labelled(sheet, [f"z[{i}]" for i in range(first, last)], ["-1", "0", "0.333"])
        same(drawn[: wanted.height, left : left + wanted.width], wanted)
        left += wanted.width + sheets.LINE


def test_a_frame_says_the_value_and_which_latent_a_row_begins_with():
    rows = np.random.default_rng(0).random((5, 2, 8, 8, 1))
    frames = traverse.draw_frames(rows, [-3, 3])
    assert len(frames) == 2
    same(frames[1], sheets.labelled(sheets.tiles(rows[:, 1], 3), ["z[0]", "z[3]"], ["3", "", ""]))


def test_how_many_lie_beyond_a_map():
    means = np.array([[0.0, 0.0], [-2.0, 2.5], [4.0, 0.0], [0.0, -3.5], [-9.0, 9.0]])
    assert traverse.counted(means, 3.0) == "5 held-out pictures, 3 of them beyond"
    assert traverse.counted(means, 9.0) == "5 held-out pictures"


def test_two_latents_are_a_map(invoke, tmp_path):
    asked = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 4, "size": "tiny", "settings": {"latents": 2}}
    train.train("vae", tmp_path / "run", **asked)
    done = invoke("traverse", tmp_path / "run", "--steps", 3)
    assert done.exit_code == 0, done.stderr
    with Image.open(tmp_path / "run" / "samples" / "map.png") as drawn:
        assert drawn.size == (1300, 650) and np.asarray(drawn).std() > 20


def test_where_the_places_of_a_map_are():
    """Of 2 x 2 over -1 to 1 the middles are a half from the axes; the first is on the left, above."""
    np.testing.assert_allclose(traverse.places(1.0, 2), [[-0.5, 0.5], [0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]])
    np.testing.assert_allclose(np.abs(traverse.places(3.0, 20)).max(), 3 * 19 / 20)


class Coloured:
    """Red where the first latent is large, green where the second is: none at -6, all at 6."""

    def decode(self, latents):
        red, green = (latents.T + 6) / 12
        pixel = np.stack([red, green, 0 * red], -1)
        return np.tile(pixel[:, None, None], (1, 4, 4, 1))

    def encode(self, pictures):
        return np.array([[0.0, 0.0], [-2.0, 2.5], [4.0, 0.0]])[: len(pictures)]


def test_a_map_has_the_first_latent_to_the_right_and_the_second_up():
    drawn = np.asarray(traverse.draw_map(Coloured(), np.zeros((3, 4, 4, 3)), 3.0), float)
    left = drawn[:, :650]
    coloured = (left[..., 2] < 20) & (left[..., :2].max(-1) > 60)  # not the axes, which are grey
    y, x = np.nonzero(coloured)
    red, green = left[y, x, 0], left[y, x, 1]
    assert np.corrcoef(x, red)[0, 1] > 0.95 and np.corrcoef(y, green)[0, 1] < -0.95
    wanted = [255 * (6 - 2.85) / 12, 255 * (6 + 2.85) / 12]  # the middles of the outermost of 20 places
    for shades in (red, green):
        np.testing.assert_allclose(np.percentile(shades, [2, 98]), wanted, atol=2)


def test_a_picture_that_is_not_there(invoke, autoencoder, tmp_path):
    done = invoke("traverse", autoencoder, "--picture", 360, "--output", tmp_path)
    assert done.exit_code == 2 and "--picture must be below 360, the held-out pictures. Received: 360" in done.stderr
    assert not list(tmp_path.iterdir())
