"""TensorFlow without the lines that it writes when it is imported."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


def import_tensorflow() -> None:
    """Import TensorFlow; of its log only faults are shown, unless TF_CPP_MIN_LOG_LEVEL asks for more."""
    level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" in sys.modules or level != "3":
        return
    with held_back():
        import tensorflow  # noqa: F401


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Hold back what is written to stderr, by C++ too, and show it only if the block fails."""
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        except Exception:
            file.seek(0)
            os.write(stderr, file.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
