"""Who comes second waits, in another process or another thread; a folder that cannot be written to stops no one."""

import subprocess
import sys
import threading

import pytest

from tfzoo.data import lock

HOLD = """
import sys
from tfzoo.data import lock
with lock.alone(sys.argv[1]):
    print("in", flush=True)
    sys.stdin.readline()
"""


def waits(folder):
    """Say whether a thread is kept out, and let it end."""
    entered = threading.Event()

    def enter():
        with lock.alone(folder):
            entered.set()

    thread = threading.Thread(target=enter, daemon=True)
    thread.start()
    return not entered.wait(0.3), thread


def test_another_process_is_waited_for(tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "new"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "in\n"
    kept_out, thread = waits(tmp_path / "new")
    assert kept_out and not waits(tmp_path)[0]  # another folder is free
    other.kill()  # a lock does not outlive its process
    other.communicate()
    thread.join(10)
    assert not thread.is_alive()


def test_another_thread_is_waited_for_even_if_it_fails(tmp_path):
    with pytest.raises(KeyError), lock.alone(tmp_path):
        kept_out, thread = waits(tmp_path)
        raise KeyError
    thread.join(10)
    assert kept_out and not thread.is_alive()


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with lock.alone(tmp_path / "file"):
        pass
