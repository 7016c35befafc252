import contextlib
import csv
import json
import os
import pathlib
import signal
import string
import subprocess
import sys
import time
from types import SimpleNamespace

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from apps.launch import environments
from apps.recipes import find
from apps.train import check_devices, optimizer, parse, train

TINY = ("--size", "tiny", "--epochs", "1", "--steps-per-epoch", "3", "--batch-size", "4")


def test_the_run_folder_holds_the_run(trained):
    assert {path.name for path in trained.iterdir()} == {
        "options.json", "model.keras", "best.keras", "log.csv", "speed.csv", "tensorboard", "samples", "checkpoints",
        "run.html", "training.json", "optimizer.json",
    }  # fmt: skip
    options = json.loads((trained / "options.json").read_text())
    assert options["family"] == "unet" and options["size"] == "tiny" and options["steps_per_epoch"] == 3
    assert options["learning_rate"] == find("unet").DEFAULTS["learning_rate"] and options["seed"] == 0
    assert options["strategy"] == "auto" and options["devices"] == 1
    rows = list(csv.DictReader((trained / "log.csv").open()))
    assert len(rows) == 1 and float(rows[0]["loss"]) > 0 and float(rows[0]["val_loss"]) > 0


def test_plain_keras_loads_the_models(trained):
    for name in ("model.keras", "best.keras"):
        assert keras.models.load_model(trained / name).input_shape == (None, 32, 32, 3)


def test_the_seed_decides_everything(trained, invoke, tmp_path):
    def weights(seed):
        result = invoke("train", "unet", *TINY, "--seed", seed, "--output", tmp_path / str(seed))
        assert result.exit_code == 0, result.stderr
        return keras.models.load_model(tmp_path / str(seed) / "model.keras").get_weights()

    first = keras.models.load_model(trained / "model.keras").get_weights()
    for a, b in zip(first, weights(0), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(first, weights(1), strict=True))


def test_set_reaches_the_builder(invoke, tmp_path):
    result = invoke("train", "unet", *TINY, "--set", "widths=(2, 3)", "--set", "batch_norm=True", "--output", tmp_path)
    assert result.exit_code == 0, result.stderr
    model = keras.models.load_model(tmp_path / "model.keras")
    assert any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)
    assert json.loads((tmp_path / "options.json").read_text())["settings"] == {"widths": [2, 3], "batch_norm": True}


def pictures(folder, count=6):
    """Write a user's own folder of pictures and masks."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        mask = np.zeros((32, 32), bool)
        mask[4 * i % 16 :][:12, 8:20] = True
        image = rng.integers(0, 100, (32, 32, 3)) + 150 * mask[..., None]
        Image.fromarray(image.astype(np.uint8)).save(folder / "images" / f"{i}.png")
        Image.fromarray((255 * mask).astype(np.uint8)).save(folder / "masks" / f"{i}.png")


def test_a_folder_of_ones_own(invoke, tmp_path):
    pictures(tmp_path / "mine")
    result = invoke("train", "unet", *TINY, "--data", tmp_path / "mine", "--output", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert json.loads((tmp_path / "run" / "options.json").read_text())["data"] == str(tmp_path / "mine")


def test_a_folder_of_ones_own_is_found_from_another_place(invoke, tmp_path, monkeypatch):
    pictures(tmp_path / "here" / "mine")
    monkeypatch.chdir(tmp_path / "here")
    result = invoke("train", "unet", *TINY, "--data", "mine", "--output", "my run")
    assert result.exit_code == 0, result.stderr
    assert "Next: tfzoo evaluate 'my run'\n" in result.stdout
    monkeypatch.chdir(tmp_path)
    result = invoke("evaluate", "here/my run")
    assert result.exit_code == 0, result.stderr


def test_the_datas_name_is_not_taken_for_a_folder(invoke, tmp_path, monkeypatch):
    (tmp_path / "pasted_digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert invoke("train", "unet", *TINY, "--output", "run").exit_code == 0
    assert json.loads((tmp_path / "run" / "options.json").read_text())["data"] == "pasted_digits"


def test_a_run_does_not_go_on_with_other_pictures(invoke, tmp_path):
    pictures(tmp_path / "mine")
    run = ("train", "unet", *TINY, "--checkpoint-steps", "2", "--data", tmp_path / "mine", "--output", tmp_path / "run")
    assert invoke(*run).exit_code == 0
    (tmp_path / "run" / "training.json").unlink()
    for name in ("images", "masks"):
        (tmp_path / "mine" / name / "6.png").write_bytes((tmp_path / "mine" / name / "0.png").read_bytes())
    result = invoke(*run)
    assert result.exit_code == 2 and "the data is not what the run" in result.stderr
    assert "mine: 4 pictures to train on" in result.stderr and "mine: 5 pictures to train on" in result.stderr


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_gets_a_bar_and_a_log_a_line_per_epoch(terminal, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    options = {**find("unet").DEFAULTS, "size": "tiny", "epochs": 2, "steps_per_epoch": 2, "batch_size": 2}
    train("unet", tmp_path / "run", **options, seed=0, settings={})
    said = capsys.readouterr().out
    for epoch in (1, 2):
        assert len([line for line in said.splitlines() if f"epoch {epoch}/2 - loss " in line]) == 1
    assert said.count(" examples/s - 0:00:") == 2
    assert ("━" in said) == ("2/4" in said) == terminal


@pytest.mark.parametrize(("epochs", "good"), [(1, "none"), (2, "run/best.keras")])
def test_a_run_that_diverges_at_the_end_of_an_epoch(epochs, good, invoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = ("--size", "tiny", "--epochs", epochs, "--steps-per-epoch", 2 // epochs, "--learning-rate", "1e30")
    result = invoke("train", "unet", *run, "--output", "run")
    assert result.exit_code == 3 and "error: the validation loss became nan at step " in result.stderr
    assert f"Last good model: {good}" in result.stderr
    kept = [keras.models.load_model(path) for path in (tmp_path / "run").glob("*.keras")]
    assert len(kept) == (0 if good == "none" else 2)
    assert all(np.isfinite(w).all() for model in kept for w in model.get_weights())


def test_a_loss_that_is_no_number_exits_with_3(invoke, tmp_path):
    run = ("--size", "tiny", "--epochs", "1", "--steps-per-epoch", "40", "--batch-size", "2")
    result = invoke("train", "unet", *run, "--learning-rate", "1e38", "--output", tmp_path)
    assert result.exit_code == 3
    assert "error: the loss became nan at step " in result.stderr
    assert not (tmp_path / "model.keras").exists() and (tmp_path / "options.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["resnext", "--output", "run"], "no recipe for the family 'resnext'. Accepted: googlenet, "),
        (["../unet", "--output", "run"], "no recipe for the family '../unet'"),
        (["unet", "--size", "huge", "--set", "depth=3", "--output", "run"], "no size 'huge'; its sizes are default"),
        (["unet", "--size", "huge", "--set", "depth=3", "--output", "run"], "no option depth; its options are"),
        (["unet", "--set", "widths", "--output", "run"], "--set takes KEY=VALUE, such as batch_norm=True. Received:"),
        (["unet", "--set", "widths=many", "--output", "run"], "Received: widths='many'"),
        (["unet", "--set", "name=1", "--output", "run"], "unet cannot be built with {'name': 1}"),
        (["unet", "--set", "size=tiny", "--output", "run"], "the size is chosen by --size, not by --set"),
        (["unet", "--set", "batch_norm=false", "--output", "run"], "True or False. Received: batch_norm='false'"),
        (["unet", "--data", "pasted_digit", "--output", "run"], "no folder pasted_digit. Accepted for --data: pasted_"),
        (["unet", "--set", "image_shape=(33, 32, 3)", "--output", "run"], "must be multiples of 16"),
        (["unet", "--set", "classes=4", "--output", "run"], "classes=4"),
        (["unet", "--data", "nowhere", "--output", "run"], "nowhere"),
        (["unet", "--data", "empty", "--output", "run"], "empty"),
        (["unet", "--set", "widths=(2,)", "--set", "widths=(4,)"], "every key once. Received more than once: widths."),
        (["unet", "--learning-rate", "inf"], "--learning-rate must be a finite number, such as 0.002. Received: inf"),
        (["unet", "--output", "full"], "the output folder must be new or empty"),
        (["unet", "--output", "full/file/run"], "the output must be in a folder that can be written."),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(arguments, said, invoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    result = invoke("train", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and said in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"batch_size": 9}, "GPU", "all 2 devices, so it must be a multiple of 2. Received: 9"),
        ({"batch_size": 8, "jit": True}, "CPU", "--jit works on one device or on GPUs"),
        ({"batch_size": 8, "jit": True}, "GPU", None),
        ({"batch_size": 8}, "CPU", None),
    ],
)
def test_what_several_devices_cannot_do_is_refused(options, kind, said):
    devices = SimpleNamespace(worker_devices=[f"/device:{kind}:{i}" for i in range(2)])
    with pytest.raises(ValueError, match=said) if said else contextlib.nullcontext():
        check_devices({"jit": False, **options}, SimpleNamespace(num_replicas_in_sync=2, extended=devices))


def test_an_optimizer_has_the_runs_schedule_over_its_own_steps():
    options = {"epochs": 2, "steps_per_epoch": 10, "learning_rate": 0.1, "schedule": "cosine", "warm_up": 0.0}
    options |= {"clip": 0.0, "accumulate": 1}
    one = optimizer(options, keras.optimizers.SGD)
    critic = optimizer(options, keras.optimizers.SGD, rate=4, steps_in_a_batch=5, momentum=0.5)
    for steps in (0, 7, 15):  # batches
        expected = 4 * one._learning_rate(steps)
        np.testing.assert_allclose(critic._learning_rate(5 * steps), expected, rtol=1e-6)
        assert expected > 0
    assert critic.momentum == 0.5


literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=5,
)


@hypothesis.given(st.dictionaries(st.text(string.ascii_lowercase, min_size=1), literals, max_size=3))
def test_parse_gives_back_literals(values):
    assert parse([f"{key}={value!r}" for key, value in values.items()]) == values


def test_parse_takes_the_rest_for_text():
    assert parse(["a=many words", "b=x=y", "c="]) == {"a": "many words", "b": "x=y", "c": ""}


def test_parse_lists_all_that_are_no_pairs():
    with pytest.raises(ValueError, match=r"KEY=VALUE.*Received: alone, 3=4, =5"):
        parse(["alone", "a=1", "3=4", "=5"])


ROOT = pathlib.Path(__file__).parents[2]
LONG = ("unet", "--size", "tiny", "--epochs", "3", "--steps-per-epoch", "6", "--batch-size", "4", "--ema", ".9")
LONG += ("--checkpoint-steps", "2", "--set", "dropout=.1", "--set", "batch_norm=True")


def process(*arguments):
    """Start `tfzoo` as a process of its own."""
    command = [sys.executable, "-m", "apps", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def workers(launcher):
    """The processes that a launcher started."""
    return [int(n) for n in pathlib.Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()]


def wait_for(step, folder, running):
    """Wait until a run has a checkpoint of that step or a later one."""
    for _ in range(1200):
        there = [int(path.stem.partition("-")[2]) for path in folder.glob("checkpoints/step-*.index")]
        if max(there, default=0) >= step:
            return
        assert running.poll() is None, running.stdout.read()
        time.sleep(0.05)
    raise AssertionError(f"no checkpoint of step {step} within a minute")


def assert_same(one, other):
    rows, others = (list(csv.DictReader((folder / "log.csv").open())) for folder in (one, other))
    assert len(rows) == len(others) == 3
    for row, other_row in zip(rows, others, strict=True):
        for name in row:
            assert row[name] == other_row[name]
    for name in ("model.keras", "best.keras"):
        a, b = (keras.models.load_model(folder / name).get_weights() for folder in (one, other))
        for left, right in zip(a, b, strict=True):
            np.testing.assert_array_equal(left, right)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    running = process("train", *LONG, "--output", folder)
    assert running.wait() == 0, running.stdout.read()
    return folder


def test_a_run_that_is_stopped_three_times_ends_as_if_it_had_not_been(whole, tmp_path):
    for step, number in ((2, signal.SIGKILL), (6, signal.SIGTERM), (14, signal.SIGKILL)):
        running = process("train", *LONG, "--output", tmp_path / "run")
        wait_for(step, tmp_path / "run", running)
        start = time.monotonic()
        running.send_signal(number)
        said, _ = running.communicate()
        if number == signal.SIGTERM:
            assert running.returncode == 143 and "stopped by SIGTERM" in said, said
            assert time.monotonic() - start < 10
        else:
            assert running.returncode == -signal.SIGKILL, said
        assert not (tmp_path / "run" / "training.json").exists()
    running = process("train", "unet", "--output", tmp_path / "run", "--resume")  # the other options are the run's
    said, _ = running.communicate()
    assert running.returncode == 0 and "going on after step 1" in said, said
    assert_same(whole, tmp_path / "run")


def test_two_workers_of_which_one_is_killed(tmp_path):
    launch = ("launch", "--workers", "2", "--", "train", *LONG, "--output")
    running = process(*launch, tmp_path / "run")
    wait_for(8, tmp_path / "run", running)
    children = workers(running)
    os.kill(children[1], signal.SIGKILL)
    said, _ = running.communicate()
    assert running.returncode == 3 and "SIGKILL" in said, said
    assert not any(pathlib.Path(f"/proc/{child}").exists() for child in children)
    running = process(*launch, tmp_path / "run")
    wait_for(12, tmp_path / "run", running)
    silent = workers(running)[1]
    os.kill(silent, signal.SIGSTOP)  # as a busy or a paused machine does: longer than TensorFlow's own patience
    start = time.monotonic()
    undisturbed = process(*launch, tmp_path / "whole")
    said, _ = undisturbed.communicate()
    assert undisturbed.returncode == 0, said
    time.sleep(max(0, start + 13 - time.monotonic()))
    os.kill(silent, signal.SIGCONT)
    said, _ = running.communicate()
    assert running.returncode == 0, said
    assert_same(tmp_path / "whole", tmp_path / "run")


def test_workers_that_do_not_share_their_files_are_refused(unfinished, tmp_path):
    others = tmp_path / "elsewhere" / "run"
    command = [sys.executable, "-m", "apps", "train", "unet", *TINY, "--checkpoint-steps", "2", "--output"]
    running = [
        subprocess.Popen([*command, folder], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        for folder, environment in zip((unfinished, others), environments(2), strict=True)
    ]
    for each in running:
        _, said = each.communicate()
        assert each.returncode == 2 and "do not see the same run: they would go on behind the steps 3, 0" in said, said
    assert not others.exists()


@pytest.fixture
def unfinished(invoke, tmp_path):
    """A run whose end was taken away."""
    result = invoke("train", "unet", *TINY, "--checkpoint-steps", "2", "--output", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    (tmp_path / "run" / "training.json").unlink()
    return tmp_path / "run"


def test_a_run_goes_on_with_another_strategy(unfinished, invoke):
    before = (unfinished / "options.json").read_bytes()
    result = invoke("train", "unet", "--strategy", "one", "--output", unfinished)
    assert result.exit_code == 0, result.stderr
    assert (unfinished / "options.json").read_bytes() == before


def test_options_that_differ_from_the_runs_are_listed_at_once(unfinished, invoke):
    before = {path: path.read_bytes() for path in unfinished.rglob("*") if path.is_file()}
    different = ("--batch-size", "5", "--ema", ".5", "--set", "dropout=.1")
    result = invoke("train", "unet", "--size", "tiny", *different, "--output", unfinished)
    assert result.exit_code == 2
    for said in ("batch_size: 4 there, 5 now", "ema: 0.0 there, 0.5 now", "settings: {} there", "another folder"):
        assert said in result.stderr
    assert "size: " not in result.stderr.replace("batch_size: ", "")
    assert {path: path.read_bytes() for path in unfinished.rglob("*") if path.is_file()} == before


def test_the_same_command_goes_on_where_the_recipe_added_settings(invoke, tmp_path):
    settings = ("--set", "widths=(4, 6, 8)", "--set", "depths=(1, 1, 1)", "--set")
    command = ("train", "resnet", *TINY, "--data", "digits", "--output", tmp_path, *settings)
    result = invoke(*command, "dropout=0.1")
    assert result.exit_code == 0, result.stderr
    (tmp_path / "training.json").unlink()
    before = (tmp_path / "options.json").read_bytes()
    assert json.loads(before)["settings"].keys() == {"dropout", "widths", "depths", "classes", "image_shape"}
    result = invoke(*command, "dropout=0.2")
    assert result.exit_code == 2 and "holds an unfinished run with other options" in result.stderr
    assert "settings: " in result.stderr and not (tmp_path / "training.json").exists()
    result = invoke(*command, "dropout=0.1")
    assert result.exit_code == 0 and "going on after step 3 of 3" in result.stdout, result.stderr
    assert (tmp_path / "options.json").read_bytes() == before


def test_a_damaged_checkpoint_and_the_way_on(unfinished, invoke):
    path = next(unfinished.glob("checkpoints/step-2.data-*"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    result = invoke("train", "unet", "--output", unfinished, "--from-step", "2")
    assert result.exit_code == 2 and "step 2 cannot be read back" in result.stderr
    assert "There is none before it" in result.stderr
    path.write_bytes(whole)
    result = invoke("train", "unet", "--output", unfinished, "--from-step", "9")
    assert result.exit_code == 2 and "Accepted for --from-step: 2, 3" in result.stderr
    result = invoke("train", "unet", "--output", unfinished, "--from-step", "2")
    assert result.exit_code == 0, result.stderr
    assert (unfinished / "training.json").exists()


def test_resume_and_no_resume_are_held_to(unfinished, invoke, tmp_path):
    result = invoke("train", "unet", "--output", unfinished, "--no-resume")
    assert result.exit_code == 2 and "holds an unfinished run" in result.stderr
    result = invoke("train", "unet", "--output", tmp_path / "none", "--resume")
    assert result.exit_code == 2 and "holds none" in result.stderr and not (tmp_path / "none").exists()


def test_a_finished_run_is_not_overwritten(trained, invoke):
    result = invoke("train", "unet", *TINY, "--output", trained)
    assert result.exit_code == 2 and "new or empty" in result.stderr


def test_a_dry_run_writes_nothing(invoke, tmp_path):
    result = invoke("train", "unet", *TINY, "--dry-run", "--output", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert "would train 3 steps" in result.stdout and "schedule = 'cosine'" in result.stdout
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        ("--precision", "mixed_bfloat16"),
        ("--precision", "mixed_float16"),
        ("--jit",),
        ("--accumulate", "2"),
        ("--clip", ".1"),
        ("--schedule", "step", "--warm-up", "0"),
        ("--schedule", "constant"),
        ("--ema", ".5"),
    ],
    ids=lambda options: options[-1] if len(options) == 1 else " ".join(options[:2]),
)
def test_every_option_changes_what_is_learned(options, trained, invoke, tmp_path):
    result = invoke("train", "unet", *TINY, *options, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert keras.config.dtype_policy().name == "float32"
    a, b = (keras.models.load_model(folder / "model.keras").get_weights() for folder in (trained, tmp_path / "run"))
    assert any((left != right).any() for left, right in zip(a, b, strict=True))
    assert all(np.isfinite(right).all() for right in b)


def test_early_stopping_ends_the_run(invoke, tmp_path):
    still = ("--epochs", "6", "--learning-rate", "1e-30", "--early-stopping", "2")  # no epoch is better than the first
    run = ("--size", "tiny", "--steps-per-epoch", "1", "--batch-size", "2", *still, "--output", tmp_path / "run")
    result = invoke("train", "unet", *run)
    assert result.exit_code == 0, result.stderr
    assert json.loads((tmp_path / "run" / "training.json").read_text()).items() >= {"epochs": 3, "steps": 3}.items()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--precision", "half"), "--precision must be one of float32"),
        (("--schedule", "sine"), "'constant', 'cosine', 'step'"),
        (("--strategy", "two"), "no strategy 'two'"),
        (("--strategy", "multi-worker"), "tfzoo launch"),
        (("--ema", "1"), "--ema must be at least 0 and less than 1"),
    ],
)
def test_an_option_that_cannot_be_is_refused(options, said, invoke, tmp_path):
    result = invoke("train", "unet", *TINY, *options, "--output", tmp_path / "run")
    assert result.exit_code == 2 and said in result.stderr and not (tmp_path / "run").exists()
