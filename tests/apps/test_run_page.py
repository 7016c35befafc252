import base64
import html.parser
import itertools
import json
import os
import re
import shlex
import shutil

import pytest
from PIL import Image

from apps import run_page
from apps.train import parse

HOSTILE = """<script>alert("x")</script>'&"""
OPTIONS = {
    "family": "unet", "seed": 7, "settings": {"widths": [4, 8]}, "jit": True, "learning_rate": 0.002, "ema": 0.0,
    "strategy": "mirrored", "devices": 4,
    "data": "/my pictures/*", "batch_size": 4, "examples": "pictures", "command": "tfzoo train unet",
    "versions": {"keras": "3.15.1"},
}  # fmt: skip
LOG = "epoch,loss,val_loss,learning_rate\n0,1.0,2.0,0.5\n1,0.5,3.0,0.25\n2,0.25,1.5,0.0\n"
SPEED = "epoch,seconds,examples_per_second\n0,60.0,10.0\n1,30.0,20.0\n2,35.0,20.0\n"


@pytest.fixture
def folder(tmp_path):
    """A run folder, but for its models."""
    run = tmp_path / "run"
    (run / "samples").mkdir(parents=True)
    (run / "options.json").write_text(json.dumps(OPTIONS))
    (run / "log.csv").write_text(LOG)
    (run / "speed.csv").write_text(SPEED)
    (run / "evaluate.json").write_text('{"iou": 0.912345}')
    Image.new("RGB", (3, 2), "red").save(run / "samples" / "evaluate.png")
    return run


class Page(html.parser.HTMLParser):
    """A page as a browser sees it: its tags, what they point to, and its texts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.sources, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.texts += [data.strip()] if data.strip() else []

    def value(self, name):
        """The text behind another."""
        return self.texts[self.texts.index(name) + 1]


def page(folder):
    run_page.write(folder)
    return Page((folder / "run.html").read_text(encoding="utf-8"))


def test_it_says_what_the_run_was_and_what_came_of_it(folder):
    found = page(folder)
    assert found.value("iou") == "0.9123" and found.value("keras") == "3.15.1" and found.value("seed") == "7"
    assert found.value("strategy") == "mirrored" and found.value("devices") == "4"
    assert found.value("epochs") == "3" and found.value("time") == "0:02:05"
    assert found.value("examples per second") == "15"  # of three epochs of 100 examples each: 300 in 10 + 5 + 5 s
    assert found.value("lowest validation loss") == "1.5, epoch 3"
    assert "cannot be shown" not in " ".join(found.texts)


def test_it_needs_nothing_beside_it(folder):
    found = page(folder)
    assert len(found.sources) == 1
    kind, _, data = found.sources[0].partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == (folder / "samples" / "evaluate.png").read_bytes()
    assert not {"script", "link", "iframe"} & set(found.tags)
    text = (folder / "run.html").read_text()
    assert not re.search(r"https?://|url\(|@import", text)


def test_a_curve_goes_where_its_values_are(folder):
    found = {chart["name"]: chart for chart in run_page.charts(
        run_page.lines(LOG), run_page.lines(SPEED)
    )}  # fmt: skip
    assert list(found) == ["loss", "learning_rate", "examples per second"]
    training, validation = found["loss"]["lines"]
    assert [x for x, _ in training["dots"]] == [x for x, _ in validation["dots"]]
    left, middle, right = (x for x, _ in training["dots"])
    assert middle - left == right - middle > 100
    ys = [y for _, y in training["dots"] + validation["dots"]]  # of 1, .5, .25, 2, 3, 1.5
    low, high = run_page.HEIGHT - run_page.BOTTOM, run_page.TOP  # .25 is at the bottom, 3 at the top
    expected = [low + (value - 0.25) / 2.75 * (high - low) for value in (1, 0.5, 0.25, 2, 3, 1.5)]
    assert ys == pytest.approx(expected, abs=0.06)
    assert found["loss"]["ticks"][0][0] == "0.25" and found["loss"]["ticks"][-1][0] == "3"
    assert [text for text, _ in found["loss"]["epochs"]] == ["1", "3"]
    assert len(found["learning_rate"]["lines"]) == 1


def test_a_long_curve_is_smoothed_and_a_short_one_is_not():
    """A parabola is its own smoothing; of an impulse the parabolas of 7 leave 7/21."""
    numbers = [(epoch, 40.0 * epoch**2) for epoch in range(1, 16)]
    assert run_page.smooth(numbers) == [(epoch, pytest.approx(value)) for epoch, value in numbers]
    assert run_page.smooth([(epoch, float(epoch == 8)) for epoch in range(1, 16)])[7] == (8, pytest.approx(7 / 21))
    assert not run_page.smooth(numbers[:-1])
    for count in (14, 15):
        text = "epoch,loss\n" + "".join(f"{epoch},{epoch % 3}\n" for epoch in range(count))
        (line,) = run_page.charts(run_page.lines(text), [])[0]["lines"]
        assert len(line["smooth"].split()) == (15 if count == 15 else 0)


def test_the_page_draws_the_smoothed_line_over_the_other(folder):
    for count, lines in ((14, 1), (15, 2)):
        text = "epoch,loss\n" + "".join(f"{epoch},{epoch % 3}\n" for epoch in range(count))
        (folder / "log.csv").write_text(text)
        run_page.write(folder)
        assert (folder / "run.html").read_text().partition('aria-label="loss')[2].partition("</svg>")[0].count(
            "<polyline"
        ) == lines


@pytest.mark.parametrize("text", ["epoch,loss\n0,0.5\n", "epoch,loss\n0,0.5\n1,0.5\n", "epoch,loss\n0,nan\n1,1e999\n"])
def test_a_chart_of_next_to_nothing(text):
    for chart in run_page.charts(run_page.lines(text), []):
        assert "nan" not in str(chart) and "inf" not in str(chart)


def test_the_command_says_every_option(folder):
    line = page(folder).value("To repeat it")
    words = shlex.split(line)
    assert words[:3] == ["tfzoo", "train", "unet"] and words[-2:] == ["--output", "run-again"]
    given = dict(itertools.pairwise(words))
    assert given["--data"] == "/my pictures/*" and given["--learning-rate"] == "0.002" and given["--ema"] == "0.0"
    assert given["--batch-size"] == "4" and given["--seed"] == "7" and "--jit" in words
    assert parse([given["--set"]]) == {"widths": [4, 8]}
    assert given["--strategy"] == "mirrored"
    assert not {"--family", "--examples", "--command", "--versions", "--devices"} & set(words)
    assert "--no-jit" in run_page.command({**OPTIONS, "jit": False}, "x")


def test_the_command_makes_the_same_run_again(trained, invoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(Page((trained / "run.html").read_text()).value("To repeat it"))
    result = invoke(*words[1:])
    assert result.exit_code == 0, result.stderr
    again = tmp_path / f"{trained.name}-again"
    assert (again / "log.csv").read_text() == (trained / "log.csv").read_text()


def test_hostile_texts_are_texts(folder):
    options = {**OPTIONS, "data": HOSTILE, "command": HOSTILE, "settings": {HOSTILE: HOSTILE}, HOSTILE: HOSTILE}
    options |= {"family": HOSTILE, "examples": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    (folder / "options.json").write_text(json.dumps(options))
    (folder / "log.csv").write_text(f'epoch,"{HOSTILE.replace(chr(34), chr(34) * 2)}"\n0,0.5\n')
    (folder / "evaluate.json").write_text(json.dumps({HOSTILE: HOSTILE, "wide": "\ud800"}))
    (folder / "samples" / HOSTILE.replace("/", "_")).with_suffix(".png").write_bytes(b"no picture")
    other = folder.with_name("<b>run" + "'")
    folder.rename(other)
    found = page(other)
    assert not {"script", "b"} & set(found.tags)
    text = (other / "run.html").read_text()
    assert "<script" not in text and "&lt;script&gt;" in text
    assert found.value("It was begun by:") == HOSTILE
    assert shlex.split(found.value("To repeat it"))[2] == HOSTILE


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("options.json", None),
        ("options.json", b"{"),
        ("options.json", b"[1]"),
        ("options.json", b"\xff"),
        ("options.json", b"[" * 100_000),
        ("options.json", b'{"versions": 3, "settings": 4, "family": null, "jit": [1], "command": {}}'),
        ("log.csv", None),
        ("log.csv", b""),
        ("log.csv", b"loss\n1\n"),
        ("log.csv", b"epoch,val_loss\n0,x\n1e999,1\n"),
        ("log.csv", b'epoch,loss\n0,1,2,3\n1\n"'),
        ("speed.csv", None),
        ("speed.csv", b"epoch,seconds,examples_per_second\n0,1e299,0\n"),
        ("speed.csv", b"epoch,seconds,examples_per_second\n0,1e299,1\n"),
        ("speed.csv", b"epoch,seconds,examples_per_second\n0,,\n"),
        ("evaluate.json", b"nonsense"),
        ("evaluate.json", b'{"iou": [1, null], "dice": NaN}'),
        ("samples/evaluate.png", b"nonsense"),
    ],
)
def test_a_damaged_or_missing_piece_does_not_stop_the_page(name, content, folder):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    found = " ".join(page(folder).texts)
    assert "To repeat it" in found and "Curves" in found
    if content in (None, b"{", b"nonsense", b"[1]", b"\xff", b"loss\n1\n") or content == b"[" * 100_000:
        assert f"{name.rpartition('/')[2]} cannot be shown: " in found


def test_what_is_too_large_or_no_file_is_named(folder, monkeypatch):
    monkeypatch.setattr(run_page, "TEXT", 40)
    monkeypatch.setattr(run_page, "PICTURE", 40)
    monkeypatch.setattr(run_page, "PICTURES", 2)
    os.mkfifo(folder / "samples" / "a.png")  # nobody writes into it
    Image.new("RGB", (3, 2)).save(folder / "samples" / "z.png")
    said = " ".join(page(folder).texts)
    assert "log.csv cannot be shown: ValueError: it has more than 40 bytes" in said
    assert "a.png cannot be shown: it is no file" in said
    assert "evaluate.png cannot be shown: it has more than 40 bytes" in said
    assert "1 more pictures are in samples/" in said


def test_an_empty_folder_and_a_page_that_was_there(tmp_path):
    (tmp_path / "run.html").write_text("before")
    run_page.write(tmp_path)
    assert "options.json cannot be shown: FileNotFoundError" in (tmp_path / "run.html").read_text()
    assert os.listdir(tmp_path) == ["run.html"]


def test_evaluate_makes_it_anew_in_a_run_folder_alone(trained, invoke, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    assert "Held-out figures" not in Page((run / "run.html").read_text()).texts
    result = invoke("evaluate", run)
    assert result.exit_code == 0 and f"{run / 'run.html'}" in result.stdout, result.stderr
    figures = json.loads((run / "evaluate.json").read_text())
    assert Page((run / "run.html").read_text()).value("otsu_iou") == f"{figures['otsu_iou']:.4g}"
    result = invoke("evaluate", run, "--output", tmp_path / "elsewhere")
    assert result.exit_code == 0 and "run.html" not in result.stdout
    assert not (tmp_path / "elsewhere" / "run.html").exists()


def test_the_speed_of_no_epoch_and_the_time_of_all():
    found = run_page.summary([], run_page.lines("epoch,seconds,examples_per_second\n0,60,0.0\n1,5,\n"))
    assert found == {"epochs": "0", "time": "0:01:05"}
