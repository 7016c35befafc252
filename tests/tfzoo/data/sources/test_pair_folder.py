"""Pairs in two folders and pairs side by side."""

import numpy as np
import pytest
from PIL import Image

import tfzoo.data

rng = np.random.default_rng(0)


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def pictures(count, width=6):
    return rng.integers(0, 255, (count, 4, width, 3), np.uint8)


def pairs(part):
    return {a.tobytes(): b for a, b in part}


def refusal(folder):
    with pytest.raises(ValueError) as error:
        tfzoo.data.open(str(folder), "pairs", seed=0)
    return str(error.value)


@pytest.mark.parametrize("layout", ["two folders", "side by side"])
def test_pairs_stay_together(tmp_path, layout):
    a, b = pictures(9), pictures(9)
    for n in range(9):
        if layout == "two folders":
            save(tmp_path / "A" / "some" / f"{n}.png", a[n])
            save(tmp_path / "B" / "some" / f"{n}.bmp", b[n])
        else:
            save(tmp_path / f"{n}.png", np.concatenate([a[n], b[n]], 1))
    source = tfzoo.data.open(str(tmp_path), "pairs", seed=0)
    assert [len(part) for part in (source.training, source.validation, source.held_out)] == [7, 1, 1]
    met = pairs(source.training) | pairs(source.validation) | pairs(source.held_out)
    assert len(met) == 9
    for n in range(9):
        np.testing.assert_array_equal(met[a[n].tobytes()], b[n])


def test_parts_that_the_folder_names(tmp_path):
    for name, count in {"train": 4, "val": 2, "test": 3}.items():
        for n, both in enumerate(pictures(count, 10)):
            save(tmp_path / name / f"{n}.png", both)
    source = tfzoo.data.open(str(tmp_path), "pairs", seed=0)
    assert [len(part) for part in (source.training, source.validation, source.held_out)] == [4, 2, 3]


def test_everything_wrong_is_named_at_once(tmp_path):
    for side in "AB":
        for n, picture in enumerate(pictures(5)):
            save(tmp_path / side / f"{n}.png", picture)
    (tmp_path / "A" / "0.png").unlink()
    (tmp_path / "B" / "1.png").unlink()
    save(tmp_path / "B" / "2.png", pictures(1, 8)[0])
    (tmp_path / "B" / "3.png").write_bytes(b"")
    save(tmp_path / "A" / "4.bmp", pictures(1)[0])
    message = refusal(tmp_path)
    for problem in (
        "B/0.png: there is none of its name in A/",
        "A/1.png: there is none of its name in B/",
        "A/2.png: differs in size from B/2.png: 6x4 and 8x4",
        "A/3.png: cannot identify image file",
        "A/4.png: has the same name as 4.bmp",
    ):
        assert f"\n  {problem}" in message
    assert len(message.splitlines()) == 6


def test_what_cannot_be_halved(tmp_path):
    for n, picture in enumerate(pictures(3)):
        save(tmp_path / f"{n}.png", picture)
    save(tmp_path / "odd.png", pictures(1, 7)[0])
    assert "odd.png: two pictures side by side must be an even number of pixels wide. Received: 7x4" in refusal(
        tmp_path
    )
    (tmp_path / "A").mkdir()
    assert "B: there is no such folder" in refusal(tmp_path)
