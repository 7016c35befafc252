"""Files of Keras: the layers' names, all weights, what the optimizer keeps, nothing from elsewhere."""

import re
import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import bridge
from bridge import checkpoints

NAMES = [
    "batch_normalization#0/0",
    "batch_normalization#0/1",
    "batch_normalization#0/2",
    "batch_normalization#0/3",
    "dense#0/0",
    "dense#0/1",
    "dense#1/0",
    "dense#1/1",
    "inner/a/0",
    "inner/a/1",
    "stem/0",
    "stem/1",
]


def refusal(path):
    with pytest.raises(bridge.BridgeError) as error, checkpoints.open(path) as found:
        list(found.values())
    return str(error.value)


@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_a_file_of_keras_3(model, files, ending):
    with checkpoints.open(files[ending]) as found:
        assert sorted(name for name in found if not name.startswith("optimizer/")) == NAMES
        kept = [v.numpy() for v in model.optimizer.variables]
        assert len(kept) == sum(name.startswith("optimizer/") for name in found) > 20
        for i, value in enumerate(kept):
            np.testing.assert_array_equal(found[f"optimizer/{i}"], value)
        for name, layer in {"stem": model.get_layer("stem"), "inner/a": model.get_layer("inner").layers[0]}.items():
            for i, weight in enumerate(layer.get_weights()):
                np.testing.assert_array_equal(found[f"{name}/{i}"], weight)
                assert found.tensors[f"{name}/{i}"].shape == weight.shape
                assert found.tensors[f"{name}/{i}"].dtype == weight.dtype
        assert found.left_out == []


def test_a_file_of_keras_2(model, files):
    with checkpoints.open(files[".h5"]) as found:
        assert {"stem/kernel", "stem/bias", "inner/a/kernel", "inner/a/bias"} <= found.keys()
        np.testing.assert_array_equal(found["stem/kernel"], model.get_layer("stem").kernel)
        np.testing.assert_array_equal(found["inner/a/bias"], model.get_layer("inner").layers[0].bias)
        (iteration,) = [name for name in found if re.fullmatch(r"optimizer/adam(_\d+)?/iteration", name)]
        assert found[iteration] == 1
        weights = [name for name in found if not name.startswith("optimizer/")]
        assert len(weights) == len(model.weights)
        assert len(found) - len(weights) == len(model.optimizer.variables)


def test_names_as_tf_keras_has_them(tmp_path):
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["layer_names0"] = [b"dense"]  # long lists are cut into several
        file.attrs["layer_names1"] = [b"other"]
        for layer, names in {"dense": [b"dense/kernel:0", b"dense/bias:0"], "other": [b"dense/kernel:0"]}.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = names
            for i, name in enumerate(names):
                group[name.decode()] = np.full((2, i + 1), len(layer), "float32")
    with checkpoints.open(tmp_path / "old.h5") as found:
        assert {name: array.flat[0] for name, array in found.items()} == {
            "dense/kernel": 5,
            "dense/bias": 5,
            "other/dense/kernel": 5,
        }


def test_any_other_file_of_datasets(tmp_path):
    with h5py.File(tmp_path / "own.h5", "w") as file:
        file["a/b"], file["a/c"], file["d"] = np.arange(3), np.ones((2, 2)), np.float16(1.5)
        file.create_dataset("packed", data=np.arange(100), chunks=(10,), compression="gzip")
        file["empty"] = np.zeros((0, 3))
    with checkpoints.open(tmp_path / "own.h5") as found:
        assert {name: array.tolist() for name, array in found.items()} == {
            "a/b": [0, 1, 2],
            "a/c": [[1, 1], [1, 1]],
            "d": 1.5,
            "packed": list(range(100)),
            "empty": [],
        }


def test_bfloat16(tmp_path):
    dense = layers.Dense(3, dtype="bfloat16", name="head")
    model = keras.Sequential([keras.Input((2,)), dense])
    model.save_weights(tmp_path / "half.weights.h5")
    with checkpoints.open(tmp_path / "half.weights.h5") as found:
        assert found["head/0"].dtype == "bfloat16"
        np.testing.assert_array_equal(found["head/0"], np.asarray(dense.kernel))
        assert np.abs(found["head/0"].astype("float32")).max() > 0


def test_an_archive_that_is_packed(files, tmp_path):
    with (
        zipfile.ZipFile(files[".keras"]) as archive,
        zipfile.ZipFile(tmp_path / "p.keras", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in archive.namelist():
            new.writestr(name, archive.read(name))
    with checkpoints.open(tmp_path / "p.keras") as packed, checkpoints.open(files[".keras"]) as plain:
        assert packed.keys() == plain.keys()
        for name in plain:
            np.testing.assert_array_equal(packed[name], plain[name])


@pytest.mark.parametrize("ending", [".keras", ".weights.h5", ".h5"])
def test_no_framework_is_imported(files, ending):
    script = (
        "import sys; from bridge import checkpoints\n"
        f"with checkpoints.open({str(files[ending])!r}) as found: print(sum(a.size for a in found.values()))\n"
        "assert not {'tensorflow', 'keras', 'torch'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and int(done.stdout) > 100, done.stderr


@pytest.mark.parametrize("how", ["soft", "external", "dataset", "virtual", "text"])
def test_what_is_not_in_the_file_is_refused(tmp_path, how):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.ones(3)
    (tmp_path / "raw").write_bytes(b"secretsecretsecretsecret")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["real"] = np.zeros(3)
        if how == "soft":
            file["x"] = h5py.SoftLink("/real")
        elif how == "external":
            file["x"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/secret")
        elif how == "dataset":
            file.create_dataset("x", (3,), "float64", external=[(str(tmp_path / "raw"), 0, 24)])
        elif how == "virtual":
            layout = h5py.VirtualLayout((3,), "float64")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "secret", (3,))
            file.create_virtual_dataset("x", layout)
        else:
            file["x"] = "some text"
    said = refusal(tmp_path / "a.h5")
    assert "a.h5 cannot be read" in said and "x" in said
    assert any(word in said for word in ("link to another place", "in another file", "where numbers should be"))


@pytest.mark.parametrize("ending", [".keras", ".weights.h5", ".h5"])
def test_damaged_files(files, tmp_path, ending):
    whole = files[ending].read_bytes()
    cut, empty = tmp_path / f"cut{ending}", tmp_path / f"empty{ending}"
    cut.write_bytes(whole[: len(whole) // 2])
    empty.write_bytes(b"")
    for path in (cut, empty):
        assert f"{path.name} cannot be read" in refusal(path) and "copy it once more" in refusal(path)


def test_sizes_that_no_honest_file_has(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (2**20, 2**20), "float32", chunks=(1024, 1024))
    assert "its tensors would take 4,398,046,511,104 bytes" in refusal(tmp_path / "a.h5")
