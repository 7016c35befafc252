import json
import os
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfzoo
from apps import NO_ROOM, RunFailed, run_folder
from tfzoo.training.two_optimizers import TwoOptimizers


def small(name="unet"):
    image = keras.Input((8, 8, 3), name="image")
    return keras.Model(image, keras.layers.Conv2D(1, 3, padding="same", name="logits")(image), name=name)


def contents(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_create_writes_the_options_and_the_versions(tmp_path):
    run_folder.create(tmp_path / "run", {"family": "unet", "settings": {"widths": (4, 8), "odd": {1}}})
    written = json.loads((tmp_path / "run" / "options.json").read_text())
    assert written["family"] == "unet" and written["settings"] == {"widths": [4, 8], "odd": "{1}"}
    assert written["versions"]["keras"] == keras.__version__ and written["command"]
    assert contents(tmp_path / "run") == ["options.json", "samples"]


@pytest.mark.parametrize("number", sorted(NO_ROOM))
def test_where_no_room_is_left_is_said(number, tmp_path):
    with pytest.raises(RunFailed, match=f"no room left to write in {tmp_path} .*--output"), run_folder.room(tmp_path):
        raise OSError(number, os.strerror(number))
    with pytest.raises(RunFailed, match="no room left"), run_folder.room(tmp_path):  # as TensorFlow passes it on
        raise tf.errors.OutOfRangeError(None, None, f"a/variables; {os.strerror(number)} [Op:SaveV2]")
    with pytest.raises(FileNotFoundError), run_folder.room(tmp_path):
        (tmp_path / "none").read_text()


def test_create_accepts_an_empty_folder(tmp_path):
    run_folder.create(tmp_path, {})
    assert contents(tmp_path) == ["options.json", "samples"]


def test_create_refuses_a_folder_with_something_in_it(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ValueError, match=r"must be new or empty.*mine\.txt.*Name another with --output"):
        run_folder.create(tmp_path, {})
    assert contents(tmp_path) == ["mine.txt"]


def test_create_refuses_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"a folder that can be written. Received: .*file/run.*Not a directory"):
        run_folder.create(tmp_path / "file" / "run", {})
    with pytest.raises(ValueError, match=r"Received: .*file \(Not a directory\)"):
        run_folder.create(tmp_path / "file", {})
    assert contents(tmp_path) == ["file"]


def test_a_model_of_dictionaries_comes_back_as_one(tmp_path):
    b, a = keras.Input((4,), name="b"), keras.Input((2,), name="a")
    outputs = {"second": keras.layers.Dense(3, name="y")(b), "first": keras.layers.Dense(1, name="x")(a)}
    model = keras.Model({"b": b, "a": a}, outputs)
    run_folder.save(model, tmp_path / "model.keras")
    given = {"a": np.ones((5, 2), np.float32), "b": np.ones((5, 4), np.float32)}
    again = run_folder.load(tmp_path / "model.keras")(given)
    assert set(again) == {"first", "second"}
    for name, expected in model(given).items():
        np.testing.assert_array_equal(again[name], expected)


def test_a_sequential_model_that_was_never_called(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    run_folder.save(model, tmp_path / "model.keras")
    assert run_folder.load(tmp_path / "model.keras").output_shape == (None, 3)


def test_a_save_that_fails_leaves_the_model_before_it(tmp_path, monkeypatch):
    run_folder.save(small(), tmp_path / "best.keras")
    before = (tmp_path / "best.keras").read_bytes()

    def half(model, path):
        pathlib.Path(path).write_bytes(before[: len(before) // 2])
        raise OSError("pulled out")

    monkeypatch.setattr(keras.Model, "save", half)
    with pytest.raises(OSError, match="pulled out"):
        run_folder.save(small(), tmp_path / "best.keras")
    assert (tmp_path / "best.keras").read_bytes() == before and contents(tmp_path) == ["best.keras"]


def test_a_saved_model_asks_for_nothing_of_the_project(tmp_path):
    model = small()
    model.compile("sgd", loss=lambda truth, guess: keras.ops.mean((truth - guess) ** 2))
    run_folder.save(model, tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.name == "unet" and [layer.name for layer in again.layers] == ["image", "logits"]
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("how", ["empty", "cut short", "a bit flipped", "text"])
def test_a_damaged_model_is_refused_by_name(how, damaged):
    with pytest.raises(ValueError, match=r"damaged\.keras cannot be read as a Keras model.*save it again") as error:
        run_folder.load(damaged(how))
    assert "not found" not in str(error.value)


def test_code_in_a_file_is_refused_without_advice_to_run_it(tmp_path):
    x = keras.Input((4,))
    keras.Model(x, keras.layers.Lambda(lambda t: t * 2)(x)).save(tmp_path / "l.keras")
    with pytest.raises(ValueError, match="never run from a file") as error:
        run_folder.load(tmp_path / "l.keras")
    assert "safe_mode" not in str(error.value) and "unsafe" not in str(error.value)


@pytest.mark.parametrize("options", [None, "{", "[]", "{}"])
def test_a_folder_that_is_no_run_is_named(options, tmp_path):
    if options is not None:
        (tmp_path / "options.json").write_text(options)
    with pytest.raises(ValueError, match=rf"{tmp_path} is not a run folder, or a damaged one: options\.json: "):
        run_folder.load(tmp_path)


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no such model: .*none\.keras"):
        run_folder.load(tmp_path / "none.keras")
    (tmp_path / "options.json").write_text('{"family": "unet"}')
    with pytest.raises(ValueError, match=r"no such model: .*best\.keras"):
        run_folder.load(tmp_path)


SETTINGS = {"widths": [4, 8], "dropout": 0.1, "classes": 10}  # the last is of the recipe


@pytest.mark.parametrize("given", [{}, {"widths": (4, 8)}, {"dropout": 0.1, "widths": [4, 8]}, SETTINGS])
def test_settings_that_are_left_out_are_the_runs(given, tmp_path):
    run_folder.create(tmp_path / "run", {"family": "resnet", "settings": SETTINGS})
    asked = run_folder.same(tmp_path / "run", {"family": "resnet", "settings": given}, {})
    assert asked["settings"] == SETTINGS


@pytest.mark.parametrize("given", [{"dropout": 0.2}, {"widths": (4, 9)}, {"classes": 11}, {"stem": "small"}])
def test_another_setting_than_the_runs_is_refused(given, tmp_path):
    run_folder.create(tmp_path / "run", {"family": "resnet", "settings": SETTINGS})
    with pytest.raises(ValueError, match="other options:\n  settings: .* there, .* now\nLeave these options out"):
        run_folder.same(tmp_path / "run", {"family": "resnet", "settings": given}, {})


def epochs(folder, log, model, losses):
    keep = run_folder.KeepModels(folder, log)
    keep.set_model(model)
    bias = model.get_layer("logits").bias
    for epoch, loss in enumerate(losses, len(log.rows)):
        bias.assign([epoch])
        for callback in (keep, log):
            callback.on_epoch_end(epoch, {"loss": 1.0, "val_loss": loss})


def biases(folder):
    models = (keras.models.load_model(folder / name) for name in ("model.keras", "best.keras"))
    return [float(model.get_layer("logits").bias[0]) for model in models]


def test_the_best_model_is_the_one_of_the_lowest_validation_loss(tmp_path):
    epochs(tmp_path, run_folder.Log(tmp_path, 0), small(), [0.5, 0.3, 0.4])
    assert biases(tmp_path) == [2, 1]


class WithCall(TwoOptimizers):
    """Networks, and a `call` that uses one of them."""

    def call(self, x):
        return self.generator(x)


@pytest.mark.parametrize("kind", [TwoOptimizers, WithCall])
def test_a_model_of_several_networks_is_kept_network_by_network(kind, tmp_path):
    model = kind(small("generator"), small("critic"))
    log = run_folder.Log(tmp_path, 0)
    keep = run_folder.KeepModels(tmp_path, log)
    keep.set_model(model)
    for epoch in range(2):  # no validation loss: the last are the best
        model.critic.get_layer("logits").bias.assign([epoch])
        for callback in (keep, log):
            callback.on_epoch_end(epoch, {"critic_loss": 1.0 - epoch})
    assert contents(tmp_path) == [
        "best_critic.keras", "best_generator.keras", "critic.keras", "generator.keras", "log.csv",
    ]  # fmt: skip
    for name in ("critic.keras", "best_critic.keras"):
        assert keras.models.load_model(tmp_path / name).get_layer("logits").bias[0] == 1
    assert log.losses() == [] and not run_folder.StopEarly(0, log).reached()


def test_a_run_that_goes_on_knows_the_epochs_before(tmp_path):
    epochs(tmp_path, run_folder.Log(tmp_path, 0), small(), [0.5, 0.3, 0.1])
    log = run_folder.Log(tmp_path, 2)  # the third was never completed
    assert log.losses() == [0.5, 0.3]
    epochs(tmp_path, log, small(), [0.4, 0.2])
    assert biases(tmp_path) == [3, 3]
    assert run_folder.Log(tmp_path, 9).losses() == [0.5, 0.3, 0.4, 0.2]


class Measured:
    """A speed that is given."""

    def __init__(self, *epochs):
        self.epochs = iter(epochs)

    def seconds(self):
        self.seconds_now, self.rate = next(self.epochs)
        return self.seconds_now

    def examples_per_second(self):
        return self.rate


def test_the_speed_is_kept_by_epoch_and_made_again_with_the_log(tmp_path):
    for epoch, speed in ((0, Measured((60.00049, 10.0), (5.0, 40.0), (1.0, 1.0))), (2, Measured((7.0, 20.0)))):
        log = run_folder.SpeedLog(tmp_path, epoch, speed)  # the third was never completed
        for each in range(epoch, 3):
            log.on_epoch_end(each, {})
    text = "epoch,seconds,examples_per_second\n0,60.0,10.0\n1,5.0,40.0\n2,7.0,20.0\n"
    assert (tmp_path / "speed.csv").read_text() == text
    # 3 epochs of 40 examples: 120 in 4 + 1 + 2 s
    assert run_folder.totals(log.rows) == {"seconds": 72.0, "examples_per_second": round(120 / 7, 3)}
    assert run_folder.totals([]) == {}


def test_a_speed_that_is_none_does_not_stop_a_run(tmp_path):
    (tmp_path / "speed.csv").write_text("epoch,seconds,examples_per_second\n0,2,0.0\n1,3,10\n2,4,inf\n3,nan,30\n")
    rows = run_folder.SpeedLog(tmp_path, 4, None).rows
    assert run_folder.totals(rows) == {"seconds": 9.0, "examples_per_second": 15.0}  # two epochs of 30: in 3 + 1 s
    assert run_folder.totals(rows[:1]) == {"seconds": 2.0}


def test_a_column_that_later_epochs_lack_stays(tmp_path):
    (tmp_path / "log.csv").write_text("epoch,loss,val_loss,mine\n0,1.0,0.5,yes\n")
    log = run_folder.Log(tmp_path, 1)
    log.on_epoch_end(1, {"loss": 0.5, "val_loss": 0.25, "new": 3.0})
    text = "epoch,loss,val_loss,mine,new\n0,1.0,0.5,yes,\n1,0.5,0.25,,3.0\n"
    assert (tmp_path / "log.csv").read_text() == text
    assert run_folder.Log(tmp_path, 2).losses() == [0.5, 0.25]


@pytest.mark.parametrize("name", ["log.csv", "speed.csv"])
@pytest.mark.parametrize(
    "text",
    [
        "loss\n1\n",
        "epoch,loss\nx,1\n",
        "epoch\n\xff\n",
        "epoch,seconds,val_loss\n0,,1\n",
        "epoch,seconds,val_loss\n0,2,x\n",
        "epoch,seconds,val_loss\n0,2\n",
        "epoch,seconds\n0,2,3\n",
        "epoch,loss,examples_per_second\n0,1,\n",
    ],
)
def test_a_damaged_table_is_named(name, text, tmp_path):
    (tmp_path / name).write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=rf"{name} is damaged .*or remove it: the run goes on"):
        run_folder.Log(tmp_path, 3) if name == "log.csv" else run_folder.SpeedLog(tmp_path, 3, None)


def test_a_column_of_several_numbers_is_none_of_a_runs_business(tmp_path):
    log = run_folder.Log(tmp_path, 0)
    log.on_epoch_end(0, {"val_loss": 0.5, "per_class": np.ones(3)})
    assert run_folder.Log(tmp_path, 1).losses() == [0.5]


def test_a_worker_that_does_not_write_remembers(tmp_path):
    log = run_folder.Log(tmp_path, 0, write=False)
    log.on_epoch_end(0, {"val_loss": 0.5})
    assert log.losses() == [0.5] and not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("patience", "losses", "stops"),
    [(2, [3, 2, 2], False), (2, [3, 2, 2, 2.5], True), (2, [3, 2, 2.5, 1.9], False), (0, [1, 2, 3, 4], False)],
)
def test_stopping_early(patience, losses, stops, tmp_path):
    log = run_folder.Log(tmp_path, 0)
    for epoch, loss in enumerate(losses):
        log.on_epoch_end(epoch, {"val_loss": loss})
    stop = run_folder.StopEarly(patience, log)
    stop.set_model(small())
    stop.model.stop_training = False  # as fit has it
    stop.on_epoch_end(len(losses), {})
    assert stop.reached() == stops == bool(stop.model.stop_training)


@pytest.mark.parametrize("name", tfzoo.names())
def test_a_family_is_known_by_its_name(tmp_path, name):
    model = tfzoo.build(name, size="tiny")
    one = run_folder.networks(model).keys() == {"model"}  # of several, no file has all
    assert run_folder.family(tmp_path / "a.keras", model) == (name if one else None)


@pytest.mark.parametrize(
    ("name", "activation", "family"),
    [("unet", None, "unet"), ("unet", "linear", "unet"), ("unet", "sigmoid", None), ("mine", None, None)],
)
def test_the_family_of_a_file(tmp_path, name, activation, family):
    x = keras.Input((4, 4, 3))
    model = keras.Model(x, keras.layers.Conv2D(1, 1, activation=activation)(x), name=name)
    assert run_folder.family(tmp_path / "a.keras", model) == family
    run_folder.create(tmp_path / "run", {"family": "vit"})
    assert {run_folder.family(target, model) for target in (tmp_path / "run", tmp_path / "run" / "a.keras")} == {"vit"}
    softmax = keras.Model(x, keras.layers.Softmax()(model.output), name=name)
    assert run_folder.family(tmp_path / "a.keras", softmax) is None
