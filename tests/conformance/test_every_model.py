"""What holds for every model at its tiny size; `conftest.py` says which are tested in a run.

A family for which something cannot hold says so in its file: `DOES_NOT_APPLY = {"one_batch_is_overfitted": "reason"}`.
"""

import json
import pathlib
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import torch

import bridge
import tfzoo
from apps.run_folder import networks, save, structures
from bridge import onnx
from tfzoo import export
from tfzoo.export import session, warm_up

HERE = pathlib.Path(__file__).parent
PLAIN_KERAS = """
import sys; sys.modules.update(tfzoo=None, apps=None, bridge=None)
import keras, numpy as np, pathlib
for path in sorted(pathlib.Path(".").glob("*.keras")):
    given = np.load(path.with_suffix(".npz"))
    model = keras.models.load_model(path)
    arrays = keras.tree.pack_sequence_as(model.input, [given[name] for name in given.files])
    made = keras.tree.flatten(model(arrays))
    np.savez(path.with_suffix(".out.npz"), *map(np.asarray, made))
"""


def sample(network, seed=0):
    """Draw arrays that a network takes, three examples."""
    rng = np.random.default_rng(seed)
    shapes = [(3, *[8 if n is None else n for n in x.shape[1:]]) for x in network.inputs]
    kinds = [str(x.dtype) for x in network.inputs]
    return [
        rng.normal(size=s).astype(k) if k.startswith("float") else rng.integers(0, 4, s).astype(k)
        for s, k in zip(shapes, kinds, strict=True)
    ]


def trainable(model) -> int:
    """Count the parameters that are trained: no statistics."""
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def outputs(network, arrays):
    """Give what a network makes of arrays, flat; it must not be the same for every example."""
    inputs = keras.tree.pack_sequence_as(structures(network)[0], arrays)
    made = [np.asarray(x) for x in keras.tree.flatten(network(inputs))]
    assert all(np.ptp(x, axis=0).max() > 1e-4 for x in made), "an output that does not depend on the input"
    return made


@pytest.fixture(scope="module")
def trained(family):
    """The tiny model behind ten steps, so that no weight is what it was made with; not to be changed."""
    model = family.compile(family.build())
    before = model.get_weights()
    family.fit(model, family.data(model).training, 10)
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
    return model


def test_counts(family, request):
    counts = family.module.PARAMETERS
    assert counts.keys() == family.module.SIZES.keys() and "tiny" in counts
    chosen = counts if request.config.getoption("--seeds") > 1 else (next(iter(counts)), "tiny")
    built = {size: trainable(tfzoo.build(family.name, size=size)) for size in chosen}
    assert built == {size: counts[size] for size in chosen}


def test_fit_lowers_the_loss(family):
    model = family.compile(family.build())
    data = family.data(model, batch_size=32)
    before = family.loss(model, data.validation)
    family.fit(model, data.training, 200)
    assert family.loss(model, data.validation) < 0.9 * before


def test_one_batch_is_overfitted(family):
    model = family.compile(family.build(), rate=1e-2)
    batch = family.data(model).training.take(1)
    before = family.loss(model, batch)
    family.fit(model, batch.repeat(), 200)
    assert family.loss(model, batch) < 0.2 * before


def test_saved_and_loaded(family, trained, tmp_path):
    for name, network in networks(trained).items():
        save(network, tmp_path / f"{name}.keras")
        arrays = sample(network)
        again = keras.models.load_model(tmp_path / f"{name}.keras")
        for a, b in zip(outputs(again, arrays), outputs(network, arrays), strict=True):
            np.testing.assert_array_equal(a, b)


def test_plain_keras_loads_it_in_a_fresh_process(family, trained, tmp_path):
    for name, network in networks(trained).items():
        save(network, tmp_path / f"{name}.keras")
        np.savez(tmp_path / f"{name}.npz", *sample(network))
    subprocess.run([sys.executable, "-c", PLAIN_KERAS], cwd=tmp_path, check=True, timeout=120)
    for name, network in networks(trained).items():
        found = np.load(tmp_path / f"{name}.out.npz")
        for key, b in zip(found.files, outputs(network, sample(network)), strict=True):
            np.testing.assert_array_equal(found[key], b)


def test_mirrored_equals_single(family):
    command = [sys.executable, HERE / "_mirrored.py", family.name, str(family.seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["replicas"] == 2 and found["moved"] > 1e-4 and found["apart"] < 1e-6, found


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_is_finite(family, policy):
    model = family.compile(family.build(policy))
    before = model.get_weights()
    steps = 8  # in float16 the first ones may find only by how much the loss can be scaled
    history = family.fit(model, family.data(model).training, steps).history
    assert all(np.isfinite(value).all() for value in history.values())
    assert all(np.isfinite(w).all() for w in model.get_weights())
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))


def test_jit_compile_agrees(family):
    ends = []
    for jit_compile in (False, True):
        model = family.compile(family.build(), "SGD", 0.01, jit_compile=jit_compile)
        rng = np.random.default_rng(family.seed)
        for weight in model.trainable_variables:  # away from where they begin, which may be special: an identity, zeros
            weight.assign_add(rng.normal(0, 0.02, weight.shape))
        before = model.get_weights()
        loss = family.fit(model, family.data(model).training, 3).history["loss"]
        ends.append([*model.get_weights(), np.asarray(loss)])
    assert max(np.abs(a - b).max() for a, b in zip(before, ends[1], strict=False)) > 1e-3  # what could differ
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


def test_the_saved_model_agrees_in_a_session(family, trained, tmp_path):
    made = export.save(trained, tmp_path / family.name, signatures=family.module.signatures)
    assert made.differences.keys() and all(d < 1e-5 for d in made.differences.values())
    asked = dict(warm_up.read(made.path))
    command = [pathlib.Path(sys.executable).with_name("saved_model_cli"), "show", "--all", "--dir", made.path]
    said = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout
    assert all(f"signature_def['{signature}']" in said for signature in asked)
    with session.load(made.path) as (signatures, run):
        assert signatures.keys() == asked.keys() == made.differences.keys()
        for signature, inputs in asked.items():
            found = run(signature, inputs)
            assert found.keys() == set(signatures[signature].outputs)
            for key, value in found.items():
                shape = [d.size for d in signatures[signature].outputs[key].tensor_shape.dim]
                assert all(n in (-1, m) for n, m in zip(shape, value.shape, strict=True)), key


def test_there_and_back_over_the_bridge(family, trained):
    for network in networks(trained).values():
        module = bridge.to_torch(network)
        report = bridge.verify(network, module)
        assert report.passed, str(report)
        arrays = sample(network)
        tensors = tuple(torch.from_numpy(bridge.nhwc_to_nchw(x) if x.ndim in (4, 5) else x) for x in arrays)
        back = bridge.to_keras(module, tensors)
        # an array of the graph, such as a mask, is a buffer there, and comes back as a weight that nothing trains
        held = [w for w in back.weights if w.trainable or not w.path.endswith(".constant/kernel")]
        for a, b in zip(network.weights, held, strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(outputs(network, arrays), outputs(back, arrays), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


def test_the_second_way_agrees(family, trained):
    """tf2onnx with onnxruntime, and with onnx2torch, against Keras and against the bridge."""
    for network in networks(trained).values():
        arrays = sample(network)
        wanted = outputs(network, arrays)
        proto = onnx.to_onnx(network)
        assert onnx.apart(wanted, onnx.run(proto, arrays)) < onnx.LIMIT
        try:
            peer = onnx.onnx_to_torch(proto)
        except bridge.BridgeError as e:
            assert "not implemented" in str(e), e
            warnings.warn(f"{family.name}: {e}", stacklevel=1)  # printed with the run: what the peer lacks
        else:
            with torch.no_grad():
                made = keras.tree.flatten(peer(*map(torch.from_numpy, arrays)))
            assert onnx.apart(wanted, made) < onnx.LIMIT
        found = onnx.three_ways(network, bridge.to_torch(network))
        assert len(found) == 3 and max(found.values()) < onnx.LIMIT, found


def test_the_seed_decides_everything(family, trained):
    again = family.compile(family.build())
    family.fit(again, family.data(again).training, 10)
    for a, b in zip(trained.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    other = type(family)(family.name, family.seed + 1).build()
    assert any((a != b).any() for a, b in zip(again.get_weights(), other.get_weights(), strict=True))
