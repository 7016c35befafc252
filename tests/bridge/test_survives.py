"""What people do to a model once they have it: a converted one survives all of it, in both frameworks.

torch.compile runs with the eager backend here; tests/acceptance/bridge.py lets inductor compile once.
"""

import copy
import io
import os
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
import torch
from torch import nn

import bridge

layers = keras.layers


def nested(name, *stack):
    y = x = keras.Input((None, None, 4), name=f"{name}_in")
    for layer in stack:
        y = layer(y)
    return keras.Model(x, y, name=name)


def of_helpers():
    """Nested classes, one called twice, BatchNorm, Dropout, and what torch has no module for; its sizes are open."""
    x = keras.Input((None, None, 3), name="image")
    y = layers.Conv2D(4, 3, strides=2, padding="same", name="stem")(x)  # SAME at an open size
    inner = nested("inner", layers.BatchNormalization(name="norm"), layers.ReLU(negative_slope=0.1, max_value=3.0))
    body = nested("body", layers.Conv2D(4, 3, padding="same", name="conv"), inner, layers.Dropout(0.3, name="drop"))
    y = body(body(y))
    y = layers.Conv2DTranspose(5, 3, 2, "same", name="up")(y)
    y = layers.AveragePooling2D(3, 2, "same")(layers.Activation("gelu")(y))
    y = layers.SpatialDropout2D(0.2)(layers.LayerNormalization(name="layer_norm")(y))
    return keras.Model(x, layers.Dense(3, activation="softmax")(layers.GlobalMaxPooling2D()(y)), name="helpers")


def mobile():
    """MobileNetV3 up to its second block with squeeze-and-excitation."""
    whole = keras.applications.MobileNetV3Small(weights=None, include_top=False, input_shape=(33, 35, 3), alpha=0.75)
    y = layers.GlobalAveragePooling2D(keepdims=True)(whole.get_layer("expanded_conv_4_add").output)
    y = layers.Dropout(0.2)(layers.Activation("hard_swish")(y))
    return keras.Model(whole.input, layers.Flatten()(layers.Conv2D(5, 1, name="logits")(y)), name="mobile")


NETWORKS = {"helpers": (of_helpers, (17, 15)), "mobile": (mobile, (33, 35))}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request, check):
    """A Keras model with live weights, its module, and pictures for it."""
    make, size = NETWORKS[request.param]
    model = check.live(make())
    x = 10 * torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(0))
    return model, bridge.to_torch(model), x


@pytest.fixture
def module(network):
    """The module of a test's own."""
    return copy.deepcopy(network[1])


def test_every_trainable_weight_is_a_parameter(network):
    model, module, _ = network
    counts = [w.shape.num_elements() for w in model.trainable_weights]
    parameters = [p for p in module.parameters() if p.requires_grad]
    assert all(isinstance(p, nn.Parameter) for p in parameters)
    assert sorted(p.numel() for p in parameters) == sorted(counts)


def test_torch_compile(network, module):
    x = network[2]
    torch._dynamo.reset()
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    for pictures in (x, x[:2]):
        torch.testing.assert_close(compiled(pictures), network[1](pictures), rtol=1e-5, atol=1e-6)
    compiled.train()
    assert compiled(x).requires_grad


def test_torch_export(network, module):
    model, _, x = network
    batch = torch.export.Dim.DYNAMIC
    axes = {0: batch, **{i: batch for i in (2, 3) if model.input_shape[i - 1] is None}}
    exported = torch.export.export(module, (x,), dynamic_shapes=(axes,)).module()
    others = [x, x[:2], x[..., :13, :14]] if len(axes) > 1 else [x, x[:2]]
    for pictures in others:
        torch.testing.assert_close(exported(pictures), module(pictures), rtol=1e-5, atol=1e-6)


def test_copies(network, module):
    x = network[2]
    want = network[1](x)
    loaded = torch.load(io.BytesIO(saved(module)), weights_only=False)
    for other in (module, pickle.loads(pickle.dumps(module)), loaded):
        assert torch.equal(other(x), want)
        with torch.no_grad():
            for p in other.parameters():
                p.zero_()
    assert torch.equal(network[1](x), want)  # none of them shares its weights


def saved(thing) -> bytes:
    file = io.BytesIO()
    torch.save(thing, file)
    return file.getvalue()


def test_dtypes(network, module):
    x = network[2]
    want = network[1](x).double()
    double = module.double()(x.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double, want, rtol=1e-3, atol=1e-4)
    module.load_state_dict(network[1].state_dict())
    for dtype in (torch.bfloat16, torch.float16):
        result = module.to(dtype)(x.to(dtype))
        assert result.dtype == dtype and result.isfinite().all()
    torch.testing.assert_close(result.double(), want, rtol=0.1, atol=0.05)


def test_meta(network, module):
    x, empty = network[2], module.to("meta")
    assert empty(x.to("meta")).shape == network[1](x).shape
    empty.to_empty(device="cpu").load_state_dict(network[1].state_dict())
    assert torch.equal(empty(x), network[1](x))


def test_state_dict(network, module):
    state = torch.load(io.BytesIO(saved(module.state_dict())), weights_only=True)
    with torch.no_grad():
        for t in (*module.parameters(), *module.buffers()):
            t.zero_()
    assert not module.load_state_dict(state, strict=True).missing_keys
    assert torch.equal(module(network[2]), network[1](network[2]))


def test_train_and_eval(network, module):
    x = network[2]
    want = module(x)
    module.train()
    assert all(m.training for m in module.modules())
    assert not torch.equal(module(x), module(x))  # Dropout draws
    module.eval()
    assert not torch.equal(module(x), want)  # the statistics have moved
    module.load_state_dict(network[1].state_dict())
    assert torch.equal(module(x), want)


def test_gradient_checkpointing(network, module):
    x = network[2]
    gradients = []
    for run in (module, lambda x: torch.utils.checkpoint.checkpoint(module, x, use_reentrant=False)):
        torch.manual_seed(0)
        module.load_state_dict(network[1].state_dict())
        module.train().zero_grad()
        run(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in module.parameters()])
    assert any(g.abs().max() > 0 for g in gradients[0])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_data_parallel_shapes(network, module):
    """`torch.func`: the module as a function of its weights, a gradient for each picture."""
    x = network[2]
    state = {k: v.detach() for k, v in module.named_parameters()}

    def loss(state, picture):
        return torch.func.functional_call(module, state, picture[None]).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(state, x)
    one = torch.func.grad(loss)(state, x[1])
    for name, gradient in one.items():
        scale = gradient.abs().max()
        torch.testing.assert_close(each[name][1], gradient, rtol=1e-3, atol=float(1e-4 * scale) + 1e-7)


def python(code, *arguments, cwd):
    """Run a program of its own, to which the bridge is not to be had."""
    without = "import sys\nfor name in ('tensorflow', 'keras', 'bridge', 'tfzoo'): sys.modules[name] = None\n"
    result = subprocess.run(
        [sys.executable, "-c", without + code, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": ""},
    )
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.parametrize("network", ["helpers"], indirect=True)
def test_pickled_from_its_folder(network, tmp_path):
    """One process pickles what the folder's model.py loads, another has it back; neither knows the bridge."""
    model, module, x = network
    bridge.save_torch(model, tmp_path / "out", verify=False)
    np.save(tmp_path / "x.npy", x.numpy())
    python("import model, torch\ntorch.save(model.load(), '../module.pt')", cwd=tmp_path / "out")
    code = (
        "import numpy as np, torch\nmodule = torch.load('../module.pt', weights_only=False)\n"
        "with torch.no_grad(): np.save('../y.npy', module(torch.from_numpy(np.load('../x.npy'))))\n"
    )
    python(code, cwd=tmp_path / "out")
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "y.npy")), module(x).detach(), rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- what comes from torch


class Network(nn.Module):
    """Torch's own ways: padding before a convolution, a pool that rounds up, groups, pixels out of channels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(3, 8, 4, 2, bias=False), nn.BatchNorm2d(8), nn.Hardswish()
        )
        self.body = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
            nn.GroupNorm(2, 8),
            nn.PReLU(8),
            nn.MaxPool2d(3, 2, ceil_mode=True),
        )
        self.up = nn.ConvTranspose2d(8, 12, 3, 2, 1, 1)
        self.shuffle, self.drop, self.fc = nn.PixelShuffle(2), nn.Dropout(0.1), nn.Linear(3, 5)

    def forward(self, x):
        y = self.shuffle(self.up(self.body(self.stem(x))))
        return self.fc(self.drop(y.mean((2, 3))))


@pytest.fixture(scope="module")
def carried(tmp_path_factory, check):
    """A Keras model from torch, the file that it was saved in, pictures, and what torch makes of them."""
    x = torch.randn(2, 3, 21, 18, generator=torch.Generator().manual_seed(0))
    module = check.live_torch(Network(), x)
    path = tmp_path_factory.mktemp("carried") / "model.keras"
    model = bridge.to_keras(module, (x,))
    model.save(path)
    return model, path, check.to_last(x.numpy()), module(x).detach().numpy()


ALONE = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("torch", "bridge"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import keras, numpy as np, tensorflow as tf
file, x, y, exported = sys.argv[1:]
model = keras.models.load_model(file)
x, want = np.load(x), np.load(y)
np.testing.assert_allclose(model(x, training=False), want, rtol=1e-4, atol=1e-5)
np.testing.assert_allclose(model.predict(x, verbose=0), want, rtol=1e-4, atol=1e-5)
model.export(exported, verbose=False)
before = model.get_weights()
model.compile("sgd", "mse")
history = model.fit(x, want + 1, epochs=1, batch_size=2, verbose=0).history["loss"]
assert np.isfinite(history).all()
moved = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
assert all(moved), [w.path for w, m in zip(model.weights, moved) if not m]
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    loaded = tf.compat.v1.saved_model.load(session, ["serve"], exported)
    signature = loaded.signature_def["serving_default"]
    (given,), (made,) = signature.inputs.values(), signature.outputs.values()
    have = session.run(made.name, {given.name: x})
np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)
"""


def test_keras_stands_alone(carried, tmp_path):
    """Without torch: loaded, called, trained, and exported as a SavedModel that TensorFlow 1's way of serving runs."""
    _, path, x, want = carried
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", want)
    arguments = [path, tmp_path / "x.npy", tmp_path / "y.npy", tmp_path / "exported"]
    result = subprocess.run(
        [sys.executable, "-c", ALONE, *map(str, arguments)], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-3000:]


def test_keras_layers_are_its_own(carried):
    """No class of ours, and the names of the modules."""
    model = carried[0]
    assert all(type(x).__module__.startswith("keras.") for x in model.layers)
    names = {x.name for x in model.layers}
    assert {"stem.1", "stem.2", "body.0", "body.1", "up", "fc"} <= names
    assert keras.Model.from_config(model.get_config()).count_params() == model.count_params()
    again = keras.models.clone_model(model)
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again(carried[2]), model(carried[2]))
