import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

import tfzoo
from tfzoo.export import Different, save, session, versions, warm_up
from tfzoo.export.signatures import BYTES, DEFAULT, Signature


@pytest.fixture(scope="module")
def rounded(unet, tmp_path_factory):
    """The U-Net, exported with weights in bfloat16."""
    folder = tmp_path_factory.mktemp("rounded") / "unet"
    return save(unet, folder, signatures=tfzoo.unet.signatures, precision="bfloat16")


def dtypes(path) -> set[str]:
    """Of the weights in a SavedModel."""
    found = tf.train.load_checkpoint(str(path / "variables" / "variables")).get_variable_to_dtype_map()
    return {kind.name for name, kind in found.items() if name != "_CHECKPOINTABLE_OBJECT_GRAPH"}


def test_what_is_served_is_the_model(version, unet):
    image = np.random.default_rng(1).random((3, 32, 32, 3), np.float32)
    want = 1 / (1 + np.exp(-np.asarray(unet(image), np.float64)))
    with session.load(version) as (signatures, run):
        mask = run(DEFAULT, {"image": image})["mask"]
        shapes = {
            name: {k: [d.size for d in v.tensor_shape.dim] for k, v in (*s.inputs.items(), *s.outputs.items())}
            for name, s in signatures.items()
        }
    np.testing.assert_allclose(mask, want, rtol=1e-5)
    picture, mask = [-1, 32, 32, 3], [-1, 32, 32, 1]
    assert shapes == {DEFAULT: {"image": picture, "mask": mask}, BYTES: {"image_bytes": [-1], "mask": mask}}


def test_the_warm_up_asks_every_signature(version):
    asked = dict(warm_up.read(version))
    assert asked.keys() == {DEFAULT, BYTES}
    with session.load(version) as (_, run):
        for name, inputs in asked.items():
            assert run(name, inputs)["mask"].shape == (2, 32, 32, 1)


def test_the_command_line_of_tensorflow_reads_it(version):
    command = [pathlib.Path(sys.executable).with_name("saved_model_cli"), "show", "--all", "--dir", version]
    said = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout
    assert "signature_def['serving_bytes']" in said and "inputs['image'] tensor_info" in said
    assert "Method name is: tensorflow/serving/predict" in said


def test_the_servers_settings(version):
    config = text_format.Parse((version.parent / "models.config").read_text(), ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("unet", "/models/unet", "tensorflow")
    assert {file.name for file in version.parent.iterdir()} == {
        "1",
        "models.config",
        "batching.config",
        "monitoring.config",
    }


def test_folded(unet, tmp_path, version):
    made = save(unet, tmp_path / "unet", signatures=tfzoo.unet.signatures, fold=True)
    assert 0 < made.changes[DEFAULT] < 1e-5
    pb = (made.path / "saved_model.pb").read_bytes()
    assert b"Rsqrt" not in pb and b"Rsqrt" in (version / "saved_model.pb").read_bytes()


def test_bfloat16(unet, rounded, version):
    made = rounded
    assert 1e-5 < made.changes[DEFAULT] < 0.05
    assert dtypes(made.path) == {"bfloat16"} and dtypes(version) == {"float32"}
    other = keras.models.clone_model(unet)
    for w, v in zip(other.weights, unet.weights, strict=True):
        w.assign(tf.cast(tf.cast(v.value, tf.bfloat16), tf.float32))
    image = np.random.default_rng(1).random((3, 32, 32, 3), np.float32)
    want = tf.sigmoid(other(image)).numpy()
    with session.load(made.path) as (_, run):
        np.testing.assert_allclose(run(DEFAULT, {"image": image})["mask"], want, rtol=1e-5)


def test_a_fixed_batch_and_open_sizes(live, tmp_path):
    model = live(tfzoo.build("unet", size="tiny", image_shape=(None, None, 1)))
    path = save(model, tmp_path / "unet", signatures=tfzoo.unet.signatures, batch=3).path
    assert "allowed_batch_sizes: 3\n" in (path.parent / "batching.config").read_text()
    image = np.random.default_rng(1).random((3, 20, 12, 1), np.float32)
    want = tf.sigmoid(model(image)).numpy()
    with session.load(path) as (_, run):
        np.testing.assert_allclose(run(DEFAULT, {"image": image})["mask"], want, rtol=1e-5)
        with pytest.raises(ValueError, match="Cannot feed value of shape"):
            run(DEFAULT, {"image": image[:2]})
    assert dict(warm_up.read(path))[BYTES]["image_bytes"].shape == (3,)


def test_several_networks(tmp_path):
    x, z = keras.Input((6,), name="x"), keras.Input((2,), name="z")
    parts = {"encoder": keras.Model(x, keras.layers.Dense(2)(x)), "decoder": keras.Model(z, keras.layers.Dense(6)(z))}
    whole = keras.Model(x, parts["decoder"](parts["encoder"](x)))

    class Both(keras.Model):
        pass

    model = Both()
    model.encoder, model.decoder = parts.values()
    for i, given in enumerate((parts, model)):
        path = save(given, tmp_path / f"vae{i}").path
        value = np.random.default_rng(0).normal(size=(3, 6)).astype("float32")
        with session.load(path) as (signatures, run):
            assert set(signatures) == {DEFAULT, "encoder", "decoder"}
            (code,) = run("encoder", {"x": value}).values()
            (back,) = run("decoder", {"z": code}).values()
        np.testing.assert_allclose(back, whole(value), rtol=1e-5)


def test_lookup_tables_are_carried(tmp_path):
    word = keras.Input((3,), dtype="string", name="word")
    numbers = keras.layers.StringLookup(vocabulary=["0", "1", "2"])(word)
    model = keras.Model(word, keras.layers.Embedding(4, 2)(numbers))
    path = save(model, tmp_path / "words").path
    with session.load(path) as (_, run):
        (have,) = run(DEFAULT, {"word": np.array([[b"1", b"x", b"2"]], object)}).values()
    np.testing.assert_array_equal(have, model(tf.constant([["1", "x", "2"]])))


def test_another_function_is_not_published(unet, tmp_path, monkeypatch):
    write = warm_up.write

    def other(path, requests):  # the SavedModel is another one by the time it is asked
        write(path, requests)
        shutil.rmtree(path / "variables")
        unet.get_layer("logits").bias.assign_add([1e-3])
        again = save(unet, tmp_path / "other", signatures=tfzoo.unet.signatures).path
        unet.get_layer("logits").bias.assign_add([-1e-3])
        shutil.copytree(again / "variables", path / "variables")

    def once(path, requests):
        monkeypatch.setattr(warm_up, "write", write)
        other(path, requests)

    monkeypatch.setattr(warm_up, "write", once)
    with pytest.raises(Different, match="the SavedModel differs serving_default by .* Nothing was published") as caught:
        save(unet, tmp_path / "unet", signatures=tfzoo.unet.signatures)
    assert caught.value.exit_code == 1 and not (tmp_path / "unet").exists()


def test_the_numbers_of_versions(tmp_path, version):
    folder = tmp_path / "unet"
    shutil.copytree(version, folder / "7")
    (folder / ".partial-12-8").mkdir()  # of an export that was killed
    assert versions.choose(folder, None) == 8 and versions.choose(folder, 30) == 30
    assert versions.highest(folder) == folder / "7"


def test_no_room_leaves_nothing(unet, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises((OSError, tf.errors.OpError)):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
            save(unet, tmp_path / "models" / "unet", signatures=tfzoo.unet.signatures)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{"precision": "int8"}, {"batch": 0}])
def test_options_that_are_none(options, unet, tmp_path):
    with pytest.raises(ValueError, match=r"precision is float32 or bfloat16, and a batch.*Received: precision="):
        save(unet, tmp_path / "unet", **options)


def test_the_card(version, unet):
    card = (version / "model_card.md").read_text()
    assert f"| parameters of model | {unet.count_params():,} |" in card
    assert "| `serving_bytes` | `image_bytes` string (?) | `mask` float32 (?, 32, 32, 1) | 0.0e+00 |" in card
    for file, digest in re.findall(r"^\| (\S+) \| ([0-9a-f]{64}) \|$", card, re.MULTILINE):
        import hashlib

        assert hashlib.sha256((version / file.replace("\\", "")).read_bytes()).hexdigest() == digest
    assert card.count(" | ") > 10 and "tf_serving_warmup_requests" in card


def test_a_model_with_a_call_of_its_own_is_served_whole(tmp_path):
    """Not the network that it has in it alone."""

    class Scaled(keras.Model):
        def __init__(self):
            super().__init__(name="scaled")
            self.backbone = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])

        def call(self, x):
            return self.backbone(x) * 7

    model, x = Scaled(), np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    want = np.asarray(model(x))
    with session.load(save(model, tmp_path / "m").path) as (signatures, run):
        assert set(signatures) == {DEFAULT, "model", "backbone"}
        np.testing.assert_allclose(run(DEFAULT, {"x": x})["output"], want, rtol=1e-5)


def test_signatures_of_ones_own(tmp_path):
    """As a family of several networks has them; each row of `sample` has a seed of its own."""
    x, z = keras.Input((6,), name="x"), keras.Input((2,), name="z")
    encoder, decoder = keras.Model(x, keras.layers.Dense(2)(x)), keras.Model(z, keras.layers.Dense(6)(z))

    def signatures(networks):
        def normal(seed):
            return tf.random.stateless_normal([2], tf.stack([seed, 0]))

        def sample(seed):
            return {"x": networks["decoder"](tf.map_fn(normal, seed, fn_output_signature=tf.float32))}

        encode = Signature(lambda x: {"z": networks["encoder"](x)}, (tf.TensorSpec([None, 6], "float32", "x"),))
        decode = Signature(lambda z: {"x": networks["decoder"](z)}, (tf.TensorSpec([None, 2], "float32", "z"),))
        seed = tf.TensorSpec([None], "int32", "seed")
        sampled = Signature(sample, (seed,), lambda _: {"seed": np.array([3, 4], "int32")})
        return {DEFAULT: encode, "encode": encode, "decode": decode, "sample": sampled}

    path = save({"encoder": encoder, "decoder": decoder}, tmp_path / "vae", signatures=signatures).path
    np.testing.assert_array_equal(dict(warm_up.read(path))["sample"]["seed"], [3, 4])
    noise = np.stack([tf.random.stateless_normal([2], [seed, 0]) for seed in (5, 6, 5)])
    want = np.asarray(decoder(noise))
    with session.load(path) as (served, run):
        assert set(served) == {DEFAULT, "encode", "decode", "sample"}
        have = run("sample", {"seed": np.array([5, 6, 5], "int32")})["x"]
    np.testing.assert_allclose(have, want, rtol=1e-5)
    assert (have[0] == have[2]).all() and (have[0] != have[1]).any()


LAYERS = keras.layers
MODELS = {
    "sequential": lambda: keras.Sequential([keras.Input((8, 8, 3)), LAYERS.Conv2D(3, 3), LAYERS.Flatten()]),
    "nested": lambda: keras.Sequential([keras.Input((4,)), keras.Sequential([keras.Input((4,)), LAYERS.Dense(2)])]),
    "text": lambda: keras.Sequential(
        [
            keras.Input((), dtype="string"),
            LAYERS.TextVectorization(vocabulary=["a", "b"], output_sequence_length=4),
            LAYERS.Embedding(5, 2),
        ]
    ),
    "recurrent": lambda: keras.Sequential([keras.Input((5,), dtype="int32"), LAYERS.Embedding(2, 4), LAYERS.LSTM(3)]),
    "mixed_bfloat16": lambda: keras.Sequential(
        [keras.Input((8, 8, 3)), LAYERS.Conv2D(16, 3, activation="gelu", dtype="mixed_bfloat16"), LAYERS.Flatten()]
    ),
    "labels": lambda: keras.Sequential([keras.Input((8, 8, 3)), LAYERS.Conv2D(4, 3), LAYERS.Lambda(keras.ops.argmax)]),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_that_people_have(name, tmp_path):
    precision = "bfloat16" if name in ("text", "labels") else "float32"
    made = save(MODELS[name](), tmp_path / name, precision=precision)
    assert max(made.differences.values()) < 1e-6 and (precision == "bfloat16") == bool(made.changes)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy, tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = tfzoo.build("unet", size="tiny", widths=(4, 8), batch_norm=True)
    finally:
        keras.config.set_dtype_policy(before)
    made = save(model, tmp_path / "unet", signatures=tfzoo.unet.signatures)
    assert max(made.differences.values()) < 1e-6
    with session.load(made.path) as (served, _):
        assert served[DEFAULT].outputs["mask"].dtype == tf.float32.as_datatype_enum


def test_a_weight_in_16_bits_is_kept_once(unet, rounded):
    shapes = tf.train.load_checkpoint(str(rounded.path / "variables" / "variables")).get_variable_to_shape_map()
    kept = [shape for name, shape in shapes.items() if name != "_CHECKPOINTABLE_OBJECT_GRAPH"]
    assert sum(int(np.prod(shape)) for shape in kept) == unet.count_params()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_model_of_mixed_precision_is_folded(policy, tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = tfzoo.build("resnet", size="tiny")
    finally:
        keras.config.set_dtype_policy(before)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(
            np.abs(rng.normal(1, 0.2, weight.shape)) if "var" in weight.name else rng.normal(0, 0.3, weight.shape)
        )
    made = save(model, tmp_path / "resnet", signatures=tfzoo.resnet.signatures, fold=True)
    assert 1e-5 < max(made.changes.values()) < 0.2  # as what is folded is rounded otherwise, layer after layer


def test_folding_keeps_the_names_of_outputs(live, tmp_path):
    x = keras.Input((8, 8, 4), name="x")
    y = LAYERS.BatchNormalization(name="norm")(LAYERS.Conv2D(3, 3, name="conv")(x))
    path = save(live(keras.Model(x, y)), tmp_path / "m", fold=True).path
    with session.load(path) as (served, _):
        assert list(served[DEFAULT].outputs) == ["norm"]


def test_random_numbers_are_refused(tmp_path):
    class Sampling(LAYERS.Layer):
        def __init__(self):
            super().__init__()
            self.seed = keras.random.SeedGenerator(1)

        def call(self, x):
            return x + keras.random.normal(keras.ops.shape(x), seed=self.seed)

    x = keras.Input((4,), name="x")
    with pytest.raises(ValueError, match="serving_default draws random numbers, which nobody can check"):
        save(keras.Model(x, Sampling()(x)), tmp_path / "m")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given, words", [({}, "Received: {}"), ("x.keras", "Received: model: str")])
def test_no_model(given, words, tmp_path):
    with pytest.raises(ValueError, match=f"what is exported is a keras.Model, or several by name. {words}"):
        save(given, tmp_path / "m")


@pytest.mark.parametrize("name", ["my input", "a:0", "größe", "self", "1st"])
def test_names_that_no_request_can_hold(name, tmp_path):
    x = keras.Input((4,), name=name)
    with pytest.raises(ValueError, match="names of letters, digits, _ and . that begin with a letter"):
        save(keras.Model(x, LAYERS.Dense(1)(x)), tmp_path / "m")


def test_signatures_without_a_default(unet, tmp_path):
    with pytest.raises(ValueError, match="there is no serving_default, which a request that names none gets"):
        save(unet, tmp_path / "m", signatures=lambda networks: {})


def test_the_name_of_a_folder_that_is_here(tmp_path, monkeypatch):
    (tmp_path / "unet").mkdir()
    monkeypatch.chdir(tmp_path / "unet")
    x = keras.Input((4,), name="x")
    save(keras.Model(x, LAYERS.Dense(1)(x)), ".")
    assert 'name: "unet"' in (tmp_path / "unet" / "models.config").read_text()


def smallest():
    """A model that is exported at once."""
    x = keras.Input((4,), name="x")
    return keras.Model(x, LAYERS.Dense(1)(x))


def test_what_a_killed_export_left_is_removed(tmp_path):
    for name in (".partial-999999999-1", f".partial-{os.getppid()}-1"):  # nobody's, and another running process's
        (tmp_path / "m" / name).mkdir(parents=True)
    save(smallest(), tmp_path / "m")
    assert [path.name for path in (tmp_path / "m").glob(".*")] == [f".partial-{os.getppid()}-1"]


def test_a_number_that_another_export_has_taken(tmp_path, monkeypatch):
    write = warm_up.write

    def meanwhile(path, requests):
        write(path, requests)
        (tmp_path / "m" / "1").mkdir()

    monkeypatch.setattr(warm_up, "write", meanwhile)
    with pytest.raises(ValueError, match="another export has written .*1 meanwhile"):
        save(smallest(), tmp_path / "m")


@pytest.mark.parametrize("option", [{"size": (8, 8)}, {"values": (-1, 1)}, {"fit": "stretch"}, {"max_pixels": 9}])
def test_options_of_pictures_for_what_is_none(option, tmp_path):
    with pytest.raises(ValueError, match="are of files of pictures. There is no signature serving_bytes: it needs"):
        save(smallest(), tmp_path / "m", **option)
