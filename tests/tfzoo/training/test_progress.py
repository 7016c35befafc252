import io
import re

import numpy as np
import pytest

from tfzoo.training.progress import Progress, duration, figures
from tfzoo.training.speed import Speed


class Terminal(io.StringIO):
    """A terminal that remembers."""

    def isatty(self):
        return True


@pytest.fixture
def watched():
    """Follow a run of three epochs of four steps, a second each: `watched(stream, start=5)` gives what was written."""

    def follow(stream, start=0, breaks=False):
        now = iter(range(1000))
        speed = Speed(8, steps_per_epoch=4, epochs=3, start=start, clock=lambda: float(next(now)))
        with Progress(speed, stream) as progress:
            speed.on_train_begin()
            for epoch in range(start // 4, 3):
                speed.on_epoch_begin(epoch)
                for batch in range(start % 4 if epoch == start // 4 else 0, 4):
                    for callback in (speed, progress):
                        callback.on_train_batch_end(batch, {"loss": 0.5})
                    if breaks:
                        raise KeyboardInterrupt
                progress.on_epoch_end(epoch, {"iou": 0.25, "loss": np.float32(0.5), "val_loss": 1 / 3})
        return stream.getvalue()

    return follow


def test_a_log_gets_a_line_for_every_epoch(watched):
    lines = watched(io.StringIO()).splitlines()
    assert len(lines) == 3
    for number, line in enumerate(lines, 1):
        assert line.startswith(f"epoch {number}/3 - loss 0.5 - iou 0.25 - val_loss 0.3333 - 8 examples/s - 0:00:")
        assert line.endswith(" left")
    assert lines[-1].endswith("- 0:00:00 left")


def test_a_run_that_goes_on_counts_from_where_it_went_on(watched):
    assert [line.partition(" -")[0] for line in watched(io.StringIO(), start=5).splitlines()] == [
        "epoch 2/3",
        "epoch 3/3",
    ]
    assert "5/12" in watched(Terminal(), start=5)


def test_a_terminal_gets_a_bar_besides(watched, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    said = watched(Terminal())
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said)
    for epoch in (1, 2, 3):
        assert plain.count(f"epoch {epoch}/3 - loss 0.5 - iou 0.25 ") == 1
        assert re.search(
            rf"epoch {epoch}/3, validation [━╸╺]+ +{4 * epoch}/12 loss 0\.5 8 examples/s 0:00:\d\d left", plain
        )
    assert said.count("\x1b[?25l") == said.count("\x1b[?25h") == 1  # the cursor goes and comes back


def test_a_run_that_breaks_off_leaves_the_terminal_whole(watched, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with pytest.raises(KeyboardInterrupt):
        watched(terminal, breaks=True)
    assert terminal.getvalue().rstrip().endswith("\x1b[2K") and "\x1b[?25h" in terminal.getvalue()


def test_names_are_no_markup(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with Progress(Speed(8, steps_per_epoch=4, epochs=3), terminal) as progress:
        progress.on_epoch_end(0, {"[bold]iou[/nothing]": 0.5})
    assert "[bold]iou[/nothing] 0.5" in terminal.getvalue()


def test_the_loss_comes_first_and_what_is_no_number_not_at_all():
    logs = {"a": 1.0, "loss": 2.0, "val_a": 3.0, "val_loss": 4.0, "per_class": np.ones(3), "none": None}
    assert figures(logs) == ["loss 2", "a 1", "val_loss 4", "val_a 3"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00:00"), (59.6, "0:01:00"), (3725, "1:02:05"), (90000, "1 day, 1:00:00")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
