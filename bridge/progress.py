"""What is being done, for people who wait: `bridge` logs each stage of its work, and its commands show the last one.

In your own program: `logging.getLogger("bridge").setLevel("INFO")`, and a handler.
"""

import logging


def printable(text) -> str:
    """Text for a terminal: names come from files, and what moves its cursor or is no text is shown by its code."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in str(text))


def _printable(record: logging.LogRecord) -> bool:
    record.msg, record.args = printable(record.getMessage()), ()
    return True


log = logging.getLogger("bridge")
log.addFilter(_printable)  # wherever it goes: a log file, say, may not hold a lone surrogate


class Shown(logging.Handler):
    """The stage that was logged last, with a spinner, on the terminal to which errors go; nowhere if it is none."""

    def __init__(self):
        super().__init__()
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner

        self.console, self.level_before = Console(stderr=True), log.level
        self.spinner = Spinner("dots")
        # what a model of the user's own prints still goes where it should
        self.live = Live(self.spinner, console=self.console, transient=True, redirect_stdout=False)

    def emit(self, record: logging.LogRecord) -> None:
        if self.console.is_terminal:
            from rich.text import Text

            self.spinner.update(text=Text(record.getMessage()))  # Text: names are never read as markup
            self.live.start()

    def close(self) -> None:
        self.live.stop()
        super().close()


def show() -> None:
    """Show the stages from now on."""
    log.addHandler(Shown())
    log.setLevel(logging.INFO)


def hide() -> None:
    """Take what is shown away, before anything else is printed."""
    for handler in [h for h in log.handlers if isinstance(h, Shown)]:
        log.removeHandler(handler)
        log.setLevel(handler.level_before)
        handler.close()
