"""A run that is killed, interrupted, without room or without rights: nothing is lost, and the same command goes on.

Every run here is a process of its own, and what the system does to it is real. What "as if nothing had happened" means:
the last checkpoint, `log.csv` and both models are those of a run that nothing disturbed, bit for bit. Families that
draw noise or keep averages of their own are killed, too, and trained by two workers, which end as one process does.
"""

import ctypes
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from apps import launch
from tests import _selection
from tfzoo.training.checkpoint import kept

LIBC = ctypes.CDLL(None, use_errno=True)
ROOT = pathlib.Path(__file__).parents[2]
# Checkpoints of the steps 2, 4 (the epoch's end), 6 and 8; the last two stay.
RUN = ("train", "unet", "--size", "tiny", "--epochs", "2", "--steps-per-epoch", "4", "--batch-size", "4")
RUN += ("--checkpoint-steps", "2", "--ema", ".9", "--set", "dropout=.1", "--output")
# `tfzoo` with one change: it sends itself a signal in the second epoch, at the sixth step or in the validation behind
# the eighth. "stuck" lets nobody read its output any more.
STRUCK = """
import os, signal, sys

number, place, stuck = int(sys.argv.pop(1)), sys.argv.pop(1), sys.argv.pop(1) == "stuck"

from apps.__main__ import main
from bridge import _quiet

_quiet.import_tensorflow()
from tfzoo.training.checkpoint import Checkpoints

def strike(self, batch, logs=None, there=getattr(Checkpoints, place)):
    if self.epoch == 1 and batch == 1:
        if stuck:
            print("this stays in the buffer")
            os.set_blocking(1, False)
            try:
                while True:
                    os.write(1, b"x")
            except BlockingIOError:
                os.set_blocking(1, True)
        print("struck", file=sys.stderr, flush=True)
        os.kill(os.getpid(), number)
    there(self, batch, logs)

setattr(Checkpoints, place, strike)
main()
"""


def tfzoo(*arguments, before=("-m", "apps"), room=resource.RLIM_INFINITY, rights=True):
    """Start `tfzoo`; `room` is how large a file may become, in bytes; without `rights` root, too, is held to them."""

    def prepare():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a background job has it ignored
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        if not rights and os.geteuid() == 0:
            for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
                if LIBC.prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
                    raise OSError(ctypes.get_errno(), "root's rights cannot be given up")

    command = [sys.executable, *before, *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, preexec_fn=prepare, **pipes)


def struck(folder, number, place, stuck=False, run=RUN):
    """Start a run that a signal comes to."""
    how = (int(number), place, "stuck" if stuck else "free")
    return tfzoo(*how, *run, folder, before=("-c", STRUCK))


def ended(running, timeout=60):
    """Wait for a process; gives its exit code and what it said to stderr."""
    try:
        _, said = running.communicate(timeout=timeout)
    finally:
        running.kill()
    return running.returncode, said


def content(folder):
    """Give everything in a folder: the bytes of files by their path."""
    return {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def state(folder):
    """Give all that the newest checkpoint of a run holds, by name."""
    reader = tf.train.load_checkpoint(str(folder / "checkpoints" / f"step-{kept(folder / 'checkpoints')[-1]}"))
    names = [name for name in reader.get_variable_to_shape_map() if name.startswith("variables/")]
    return {name: reader.get_tensor(name) for name in names}


def assert_same(run, whole):
    """Compare the ends of two runs, and that nothing else was left behind."""
    assert set(content(run)) == set(content(whole))
    assert (run / "log.csv").read_text() == (whole / "log.csv").read_text()
    a, b = state(run), state(whole)
    assert a.keys() == b.keys() and len(a) > 40
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    names = sorted(path.name for path in whole.glob("*.keras"))
    assert len(names) >= 2  # the last and the best, of several networks each
    for name in names:
        models = [keras.models.load_model(folder / name).get_weights() for folder in (run, whole)]
        for left, right in zip(*models, strict=True):
            np.testing.assert_array_equal(left, right, err_msg=name)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs side by side: one that nothing disturbed, one that was killed in its last validation."""
    folder = tmp_path_factory.mktemp("survival")
    whole, killed = tfzoo(*RUN, folder / "whole"), struck(folder / "killed", signal.SIGKILL, "on_test_batch_end")
    code, said = ended(killed)
    assert code == -signal.SIGKILL, said
    code, said = ended(whole)
    assert code == 0, said
    return folder


@pytest.fixture
def whole(runs):
    """What every run is to end as; not to be changed."""
    return runs / "whole"


@pytest.fixture
def killed(runs, tmp_path):
    """A run with the checkpoints of the steps 4 and 6."""
    shutil.copytree(runs / "killed", tmp_path / "run")
    assert kept(tmp_path / "run" / "checkpoints") == [4, 6]
    return tmp_path / "run"


@pytest.fixture
def goes_on(invoke):
    """Give the command again, in this process, which has TensorFlow already."""

    def go(folder, *options):
        result = invoke(*RUN, folder, *options)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    return go


def test_a_full_disk_leaves_the_last_checkpoint_to_go_on_from(killed, whole, goes_on):
    before = content(killed / "checkpoints")
    room = next(killed.glob("checkpoints/step-6.data-*")).stat().st_size - 1
    assert room > (whole / "best.keras").stat().st_size  # so it is the checkpoint that finds no room
    code, said = ended(tfzoo(*RUN, killed, room=room))
    assert code == 3 and f"error: there is no room left to write in {killed} (File too large)." in said
    assert said.count("\n") == 1 and "What was written whole is kept." in said
    after = content(killed / "checkpoints")
    # TensorFlow leaves the empty folder of the checkpoint that it could not write, and uses it the next time.
    assert after.pop("step-8_temp") is False
    assert before.pop("checkpoint") and after.pop("checkpoint") and kept(killed / "checkpoints") == [4, 6]
    assert after == before and not list(killed.glob(".partial*"))
    assert "going on after step 6 of 8" in goes_on(killed)
    assert_same(killed, whole)


@pytest.mark.parametrize("place", ["", "checkpoints", "tensorboard", "samples"])
def test_a_run_without_rights_is_refused_before_it_is_changed(place, killed):
    before = content(killed)
    (killed / place).chmod(0o555)
    try:
        code, said = ended(tfzoo(*RUN, killed, rights=False))
    finally:
        (killed / place).chmod(0o755)
    assert code == 2 and content(killed) == before
    assert said == (
        "error: the output must be in a folder that can be written. "
        f"Received: {killed / place} (Permission denied). Name another with --output.\n"
    )


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """Runs that a signal came to, side by side, and how they ended."""
    folder = tmp_path_factory.mktemp("interrupted")
    ways = {
        "int": (signal.SIGINT, "on_train_batch_end"),
        "int_validation": (signal.SIGINT, "on_test_batch_end"),
        "term_validation": (signal.SIGTERM, "on_test_batch_end"),
    }
    started = {name: struck(folder / name, *how) for name, how in ways.items()}
    return folder, {name: ended(running) for name, running in started.items()}


@pytest.mark.parametrize(
    ("name", "code", "last", "end"),
    [
        ("int", 130, 4, "interrupted\n"),
        ("int_validation", 130, 6, "interrupted\n"),
        ("term_validation", 143, 8, "stopped by SIGTERM. The same command goes on from step 8"),  # when it was through
    ],
)
def test_an_interrupted_run_goes_on(name, code, last, end, interrupted, whole, goes_on):
    folder, ends = interrupted
    found, said = ends[name]
    assert found == code and said.startswith(f"struck\n{end}")
    assert kept(folder / name / "checkpoints")[-1] == last  # the averages were in the model's place
    assert f"going on after step {last} of 8" in goes_on(folder / name)
    assert_same(folder / name, whole)


def test_the_second_ctrl_c_stops_at_once(tmp_path, whole, goes_on):
    running = struck(tmp_path / "run", signal.SIGINT, "on_train_batch_begin", stuck=True)
    try:
        assert running.stderr.readline() == "struck\n"
        assert running.stderr.readline() == "interrupted\n"
        time.sleep(0.5)
        assert running.poll() is None  # its last line still waits for somebody who reads it
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=3) in (-signal.SIGINT, 130)
    finally:
        running.kill()
        running.communicate()
    assert "going on after step 4 of 8" in goes_on(tmp_path / "run")
    assert_same(tmp_path / "run", whole)


def cut(path):
    os.truncate(path, path.stat().st_size * 2 // 3)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip])
@pytest.mark.parametrize("file", ["data-00000-of-00001", "index"])
def test_a_damaged_checkpoint_and_the_one_before_it(file, damage, killed, whole, invoke, goes_on):
    damage(killed / "checkpoints" / f"step-6.{file}")
    before = content(killed)
    result = invoke(*RUN, killed)
    assert result.exit_code == 2 and content(killed) == before
    assert f"error: the checkpoint of step 6 cannot be read back: {killed}/checkpoints/step-6 (" in result.stderr
    assert "The one before it may be whole: add --from-step 4." in result.stderr
    if file == "data-00000-of-00001":  # it is the same whatever is damaged
        assert "going on after step 4 of 8" in goes_on(killed, "--from-step", "4")
        assert_same(killed, whole)


@pytest.mark.parametrize("how", ["empty", "cut", "gone"])
def test_without_the_list_of_checkpoints_they_are_found(how, killed, whole, goes_on):
    path = killed / "checkpoints" / "checkpoint"
    text = path.read_text()
    path.unlink() if how == "gone" else path.write_text({"empty": "", "cut": text[:30]}[how])
    assert "going on after step 6 of 8" in goes_on(killed)
    assert_same(killed, whole)


FAMILIES = ["vae", "iaf_vae", "vq_vae", "normalizing_flow"]  # whose steps draw noise or move averages
# Checkpoints of every step, of which each epoch has three.
SHORT = ("--size", "tiny", "--epochs", "2", "--steps-per-epoch", "3", "--batch-size", "8", "--checkpoint-steps", "1")
SHORT += ("--ema", ".9", "--output")
# Trains families one after the other as one of several workers, which find one another once.
WORKER = """
import functools, pathlib, sys

from apps.__main__ import application
from bridge import _quiet
from typer.testing import CliRunner

_quiet.import_tensorflow()
from tfzoo.training import strategy

strategy.choose = functools.cache(strategy.choose)
folder, families, options = sys.argv[1], sys.argv[2].split(), sys.argv[3:]
for name in families:
    done = CliRunner().invoke(application(), ["train", name, *options, f"{folder}/{name}"], catch_exceptions=False)
    print(done.output)
    if done.exit_code:
        sys.exit(done.exit_code)
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, invoke):
    """Give the run of a family that nothing disturbed: `undisturbed("vae")`; not to be changed."""
    folder = tmp_path_factory.mktemp("undisturbed")

    def run(name):
        if not (folder / name).exists():
            result = invoke("train", name, *SHORT, folder / name)
            assert result.exit_code == 0, result.stderr
        return folder / name

    return run


def pytest_generate_tests(metafunc):
    """Test the families that have changed and one more, as tests/conformance does."""
    if "family" in metafunc.fixturenames:
        some = _selection.chosen(_selection.changed(), FAMILIES)
        metafunc.parametrize("family", FAMILIES if _selection.everything(metafunc.config) else some)


def test_a_killed_run_that_draws_goes_on_as_if_nothing_had_happened(family, tmp_path, undisturbed, invoke):
    """Killed in an epoch's midst, behind a step that no checkpoint has: draws, averages and metrics go on, too."""
    killed = struck(tmp_path / "run", signal.SIGKILL, "on_train_batch_end", run=("train", family, *SHORT))
    whole = undisturbed(family)
    code, said = ended(killed, timeout=120)
    assert code == -signal.SIGKILL, said
    assert kept(tmp_path / "run" / "checkpoints")[-1] == 4
    result = invoke("train", family, *SHORT, tmp_path / "run")
    assert result.exit_code == 0 and "going on after step 4 of 6" in result.stdout, result.stderr
    assert_same(tmp_path / "run", whole)


@pytest.fixture(scope="module")
def of_two_workers(tmp_path_factory, request):
    """The folder of every family's run by two worker processes."""
    folder = tmp_path_factory.mktemp("workers")
    tested = {
        item.callspec.params["family"] for item in request.session.items if "test_two_workers_that_draw" in item.nodeid
    }
    command = [sys.executable, "-c", WORKER, str(folder), " ".join(sorted(tested)), *SHORT]
    assert launch.supervise([command] * 2, launch.environments(2)) == 0
    return folder


def test_two_workers_that_draw_end_as_one_process(family, of_two_workers, undisturbed):
    """Weights, averages, seeds and the optimizer's; of what metrics count and add up, the quotients in `log.csv`."""
    run, whole = of_two_workers / family, undisturbed(family)
    figures = [np.loadtxt(folder / "log.csv", delimiter=",", skiprows=1) for folder in (run, whole)]
    np.testing.assert_allclose(*figures, rtol=1e-6, atol=1e-6)
    a, b = state(run), state(whole)
    arrays = [key for key in b if b[key].shape]
    assert a.keys() == b.keys() and len(arrays) > 30
    for key in arrays:
        np.testing.assert_allclose(a[key], b[key], rtol=1e-6, atol=1e-6, err_msg=key)
