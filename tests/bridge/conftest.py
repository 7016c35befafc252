"""What the bridge's tests share: live random weights, and one check of a model in both directions."""

import contextlib
import linecache
import logging
import random
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

# else pytest listens to what torch.export tells of every step, with its place in the source, which takes a while
logging.getLogger("torch.__trace").propagate = True


class Function(nn.Module):
    """A function of torch as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *x):
        return self.function(*x)


TEN_STEPS = (
    "test_verification",
    "test_lockstep",
    "test_training_step",
    "test_explain",
    "test_traps",
    "test_main",
    "test_progress",
)


@pytest.fixture(autouse=True, scope="module")
def three_steps(request):
    """Let `bridge.verify` train for three steps: the second shows the momentum, and the other seven nothing of a rule.

    All ten are trained in the tests of `verify` itself.
    """
    from bridge import lockstep

    with pytest.MonkeyPatch.context() as patch:
        if not request.module.__name__.endswith(TEN_STEPS):
            patch.setattr(lockstep, "STEPS", 3)
        yield


def module_of(function, **children):
    """A module that is a function of itself and its inputs; its children, weights and buffers go by their names."""

    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            for name, child in children.items():
                setattr(self, name, child)

        def forward(self, *x):
            return function(self, *x)

    return Module()


def conv():
    """A convolution that keeps the shape of a picture of three channels."""
    return nn.Conv2d(3, 3, 3, padding=1)


def randomise(model, seed=0):
    """Give every weight a live random value, statistics too, so that no default hides a fault."""
    rng = np.random.default_rng(seed)
    for w in model.weights:
        shape = tuple(w.shape)
        if "variance" in w.name:
            value = rng.uniform(0.5, 1.5, shape)
        elif "gamma" in w.name:
            value = rng.uniform(0.7, 1.3, shape)
        elif len(shape) <= 1:
            value = rng.normal(0, 0.3, shape)
        else:
            fan_in = np.prod(shape[:-2] if "depthwise" in w.path else shape[:-1])
            value = rng.normal(0, 1, shape) / max(1, fan_in) ** 0.5
        w.assign(value)
    return model


def pictures(model, batch, seed=0, size=16):
    """Random pictures for a Keras model, open sizes being `size`; large numbers where the model rescales them."""
    import keras

    scale = 100.0 if any(type(x).__name__ == "Rescaling" for x in model.layers) else 1.0
    shapes = [(batch, *[size if d is None else d for d in t.shape[1:]]) for t in model.inputs]
    rng = np.random.default_rng(seed)
    arrays = [(scale * rng.normal(size=s)).astype("float32") for s in shapes]
    return arrays[0] if len(arrays) == 1 else keras.tree.pack_sequence_as(model.input, arrays)


def live(model, seed=0):
    """Give a deep Keras model random weights with which its output depends on its input.

    Statistics are those of random pictures, jittered: drawn like the weights they would let the signal die or explode.
    """
    import keras

    rng = np.random.default_rng(seed)
    norms = [x for x in model._flatten_layers() if isinstance(x, keras.layers.BatchNormalization)]
    kept = {id(w) for x in norms for w in (x.moving_mean, x.moving_variance)}
    for w in model.weights:
        name, shape = w.path.split("/")[-1], tuple(w.shape)
        data = "normalization" in w.path and name in ("mean", "variance", "count")  # `Normalization` has constants
        if id(w) in kept or data or "int" in str(w.dtype):
            continue
        if "gamma" in name or name == "scale":
            value = rng.uniform(0.7, 1.3, shape)
        elif len(shape) <= 1:
            value = rng.normal(0, 0.1, shape)
        else:
            fan_in = np.prod(shape[:-2] if "depthwise" in w.path else shape[:-1])
            value = rng.normal(0, 1, shape) * (1.7 / max(1, fan_in)) ** 0.5
        w.assign(value)
    momenta = [x.momentum for x in norms]
    for x in norms:
        x.momentum = 0.0
    if norms:
        model(pictures(model, 4, seed + 7), training=True)
    for x, momentum in zip(norms, momenta, strict=True):
        x.momentum = momentum
        x.moving_variance.assign(np.asarray(x.moving_variance) * rng.uniform(0.8, 1.25, x.moving_variance.shape) + 1e-3)
        x.moving_mean.assign(np.asarray(x.moving_mean) + rng.normal(0, 0.05, x.moving_mean.shape))
    return model


def live_torch(module, *tensors, seed=0):
    """The same for a torch module, its statistics from these tensors; the module is then in eval mode."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    norms = [m for m in module.eval().modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    scales = {id(m.weight) for m in module.modules() if "Norm" in type(m).__name__ and hasattr(m, "weight")}
    with torch.no_grad():
        for p in module.parameters():
            if id(p) in scales:
                p.copy_(torch.rand(p.shape, generator=generator) * 0.6 + 0.7)
            elif p.ndim <= 1:
                p.copy_(torch.randn(p.shape, generator=generator) * 0.1)
            else:
                p.copy_(torch.randn(p.shape, generator=generator) * (1.7 / max(1, p[0].numel())) ** 0.5)
        momenta = [m.momentum for m in norms]
        for m in norms:
            m.momentum = 1.0
            m.train()
        if norms:
            module(*tensors)
        for m, momentum in zip(norms, momenta, strict=True):
            m.momentum = momentum
            m.running_var.mul_(torch.rand(m.running_var.shape, generator=generator) * 0.45 + 0.8).add_(1e-3)
            m.running_mean.add_(torch.randn(m.running_mean.shape, generator=generator) * 0.05)
    return module.eval()


def to_first(x):
    """A NumPy array as torch has it: ranks 4 and 5 channels-first."""
    return np.ascontiguousarray(np.moveaxis(x, -1, 1)) if x.ndim in (4, 5) else x


def to_last(x):
    """A NumPy array as Keras has it: ranks 4 and 5 channels-last."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if x.ndim in (4, 5) else x


def relative(have, want):
    """Largest difference as a share of the largest value."""
    have, want = np.asarray(have, "float64"), np.asarray(want, "float64")
    assert have.shape == want.shape, f"shapes {have.shape} and {want.shape}"
    assert np.isfinite(have).all() and np.isfinite(want).all()
    return np.abs(have - want).max() / np.abs(want).max()


def in_dtype(model, dtype="float64"):
    """A functional or Sequential model of another dtype, with the same weights."""
    import keras

    def replaced(config):
        if isinstance(config, dict):
            found = {k: replaced(v) for k, v in config.items()}
            has_dtype = isinstance(config.get("dtype"), dict) or str(config.get("dtype")).startswith("float")
            return found | ({"dtype": dtype} if has_dtype else {})
        return list(map(replaced, config)) if isinstance(config, (list, tuple)) else config

    def copy(mine, theirs):
        """By the names of the layers: a configuration may bring them in another order."""
        theirs.trainable = mine.trainable
        if isinstance(mine, keras.Model):
            for layer in mine.layers:
                copy(layer, theirs.get_layer(layer.name))
        else:
            for a, b in zip(mine.weights, theirs.weights, strict=True):
                b.assign(a)

    other = type(model).from_config(replaced(model.get_config()))
    if not other.built:
        other.build(model.input_shape)
    copy(model, other)
    return other


@dataclass(frozen=True)
class Both:
    """What a Keras model was carried to: the torch module, in float32, and the Keras model that came back."""

    module: object
    again: object

    def __iter__(self):
        return iter((self.module, self.again))


def both_ways(model, limit=1e-9, size=7, seed=1, randomised=True, same_layers=True, single=2e-5, back="float64"):
    """Carry a Keras model to torch and back, and compare values and weights at each step.

    It is carried back in one of them: what reads a module takes as long as all else.

    Args:
        model: A functional Keras model, of any dtype; the comparison is made with its float64 twin and in float32.
        limit: Largest relative difference in float64.
        size: What stands for an open size, the batch excepted, which is 2.
        same_layers: Whether the layers that have weights keep their names and their order.
        single: Largest relative difference in float32.
        back: The dtype in which it is carried back: float32 where a test compares what came back with the module.

    Returns:
        `Both`: the torch module (float32) and the Keras model that came back.
    """
    import keras
    import torch

    import bridge

    if randomised:
        randomise(model)
    rng = np.random.default_rng(seed)
    shapes = [(2, *[size if d is None else d for d in t.shape[1:]]) for t in model.inputs]
    arrays = [rng.normal(size=s) for s in shapes]
    dynamic = [
        {i for i, d in enumerate(to_first(np.empty([1 if d is None else 2 for d in t.shape])).shape) if d == 1}
        for t in model.inputs
    ]

    def there(dtype, tolerance):
        other = in_dtype(model, dtype)
        x = [a.astype(dtype) for a in arrays]
        want = [np.asarray(t) for t in keras.tree.flatten(other(x[0] if len(x) == 1 else x, training=False))]
        assert all(np.abs(w[0] - w[1]).max() > 1e-3 * np.abs(w).max() for w in want), "an output that ignores its input"
        module = bridge.to_torch(other)
        tensors = tuple(torch.from_numpy(to_first(a)) for a in x)
        with torch.no_grad():
            have = [to_last(t.numpy()) for t in keras.tree.flatten(module(*tensors))]
        for h, w in zip(have, want, strict=True):
            assert relative(h, w) < tolerance, f"{dtype}, to torch: {relative(h, w):.1e}"
        assert sum(p.numel() for p in module.parameters() if p.requires_grad) == sum(
            int(np.prod(w.shape)) for w in other.trainable_weights
        )

        def returned():
            again = bridge.to_keras(module, tensors, dynamic)
            have = [np.asarray(t) for t in keras.tree.flatten(again(x[0] if len(x) == 1 else x, training=False))]
            for h, w in zip(have, want, strict=True):
                assert relative(h, w) < tolerance, f"{dtype}, back to Keras: {relative(h, w):.1e}"
            for a, b in zip(*(_weights(m, same_layers) for m in (other, again)), strict=True):
                # groups of one channel come back as a depthwise kernel: the same numbers with one more axis
                np.testing.assert_array_equal(a.reshape(b.shape) if a.size == b.size and a.ndim == b.ndim else a, b)
            if same_layers:
                assert [x.name for x in other.layers if x.weights] == [x.name for x in again.layers if x.weights]
            return again

        return module, returned() if back == dtype else None

    _, again = there("float64", limit)
    module, also = there("float32", single)
    return Both(module, again or also)


def from_torch(module, *tensors):
    """Carry a torch module to Keras and back, with live random weights in float64, and compare values and graphs.

    Returns:
        The Keras model, in float64, as the module then is.
    """
    import keras
    import torch

    import bridge

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            fan = p[0].numel() if p.ndim else 1
            p.copy_(torch.randn(p.shape, generator=generator) / max(1, fan) ** 0.5)
    module, tensors = module.eval().double(), tuple(t.double() for t in tensors)
    model = to_keras(module, tensors)
    results = keras.tree.flatten(module(*(t.clone() for t in tensors)))
    arrays = [to_last(t.numpy()) for t in tensors]
    there = keras.tree.flatten(model(arrays if len(arrays) > 1 else arrays[0]))
    again = keras.tree.flatten(bridge.to_torch(model)(*(t.clone() for t in tensors)))
    for want, have, back in zip(results, there, again, strict=True):
        assert relative(to_first(np.asarray(have)), want.detach()) < 1e-9
        assert relative(back.detach(), want.detach()) < 1e-9
    return model


@contextlib.contextmanager
def exported_once():
    """Export a module once, however often it is asked for: that takes as long as all else.

    It is another module when it looks otherwise, or when something has been written to its weights.
    """
    from bridge import torch_export

    programs, export = {}, torch_export.export

    def once(module, tensors, dynamic=None):
        if not isinstance(tensors, tuple) or not all(isinstance(x, torch.Tensor) for x in tensors):
            return export(module, tensors, dynamic)  # which refuses them
        held = [*module.named_parameters(), *module.named_buffers()]
        weights = [(n, x.dtype, x.requires_grad, x.data_ptr(), x._version) for n, x in held]
        given = [(x.shape, x.dtype) for x in tensors]
        attributes = [str({k: v for k, v in vars(m).items() if k[0] != "_"}) for m in module.modules()]
        key = id(module), *attributes, str(weights), str(given), str(dynamic or torch_export.every_batch(tensors))
        if key not in programs:
            programs[key] = module, export(module, tensors, dynamic)
        return programs[key][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_export, "export", once)
        patch.setattr("bridge.torch_reader.export", once)
        yield


def to_keras(module, tensors, dynamic=None):
    """Carry a torch module to Keras, and see that both read as the same graph."""
    import bridge

    with exported_once():
        model = bridge.to_keras(module, tensors, dynamic)
        same_graph(model, module, tensors, dynamic)
    return model


def tied(module, x):
    """Carry a torch module whose weights layers of Keras cannot hold, and see that they are trained as one."""
    import torch

    import bridge

    generator = torch.Generator().manual_seed(0)
    for p in module.parameters():
        p.data.normal_(generator=generator)
    module.eval()
    model = bridge.to_keras(module, (x,))
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == sum(
        p.numel() for p in module.parameters() if p.requires_grad
    )
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert bridge.verify(model, bridge.to_torch(model)).passed
    return model


def small(*more, **options):
    """A Keras model of a convolution named "c" and more layers."""
    import keras

    x = image = keras.Input((6, 6, 3), name="image")
    for layer in (keras.layers.Conv2D(3, 3, name="c", **options), *more):
        x = layer(x)
    return randomise(keras.Model(image, x))


def single(*more):
    """A model that TensorFlow cannot run in float64: its dilated transposed convolution is for float32 alone."""
    from keras import Input, Model, layers

    x = y = Input((6, 5, 2))
    for layer in (layers.Conv2DTranspose(3, 2, dilation_rate=2, name="c"), *more, layers.Conv2D(2, 1, name="d")):
        y = layer(y)
    return randomise(Model(x, y))


def around(inner, function):
    """A module whose output a function of itself has changed."""
    return module_of(lambda m, x: function(m, m.inner(x)), inner=inner)


def _weights(model, ordered):
    """Every weight of a model; in an order of their own where layers may have moved."""
    arrays = [np.asarray(w) for w in model.weights]
    return arrays if ordered else sorted(arrays, key=lambda a: (a.shape, a.tobytes()))


def same_graph(model, module, tensors, dynamic=None):
    """Assert the normal form: a Keras model and a torch module read as the same graph, weights included."""
    from bridge import align, keras_reader, layout, torch_reader

    graphs = [keras_reader.read(model), torch_reader.read(module, tensors, dynamic)]
    graphs = [layout.convert(g, "first") for g in graphs]
    pairs, unmatched = align.align(*graphs)
    assert not unmatched
    assert not align.differences(pairs, *graphs)


def whole(model, module, x):
    """Assert that a Keras model and a torch module make the very same of whole numbers, and are proven to."""
    import bridge

    have, want = np.asarray(model(x.numpy())), module(x.clone()).numpy()
    assert have.dtype == want.dtype
    np.testing.assert_array_equal(have, want)
    assert bridge.verify(model, module).passed


@pytest.fixture(autouse=True)
def exports():
    """A module is exported once in a test, to be read and to be compared."""
    with exported_once():
        yield


@pytest.fixture(autouse=True)
def forgotten():
    """Forget what a test has generated: torch.export sets attributes of nn.Module, which asks all its subclasses.

    What torch remembers of operators on symbols keeps every export's symbols: it is of no use to the next.
    """
    from bridge.torch_writer import GENERATED

    before = set(sys.modules)
    yield
    FakeTensorMode.cache_clear()
    for name in [name for name in sys.modules if name.startswith(GENERATED) and name not in before]:
        linecache.cache.pop(sys.modules.pop(name).__file__, None)


@pytest.fixture(autouse=True)
def seeded():
    """The same numbers in every run, whichever tests have run before: limits are close to what most numbers give."""
    torch.manual_seed(0)
    random.seed(0)  # of which Keras draws its seeds
    np.random.seed(0)


@pytest.fixture(scope="session")
def check():
    """The functions of this file, as attributes, as test files cannot import one another."""
    import types

    return types.SimpleNamespace(
        Function=Function,
        around=around,
        both_ways=both_ways,
        conv=conv,
        exported_once=exported_once,
        from_torch=from_torch,
        in_dtype=in_dtype,
        live=live,
        live_torch=live_torch,
        module_of=module_of,
        pictures=pictures,
        same_graph=same_graph,
        single=single,
        small=small,
        tied=tied,
        whole=whole,
        randomise=randomise,
        relative=relative,
        to_first=to_first,
        to_keras=to_keras,
        to_last=to_last,
    )


@pytest.fixture
def example():
    """A network of the layers that most have, with two outputs."""
    import keras
    from keras import layers

    x = image = keras.Input((12, 11, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="a")(x)
    x = layers.BatchNormalization(name="n")(x)
    x = layers.ReLU(name="r")(x)
    x = layers.Conv2D(4, 3, strides=2, padding="same", activation="tanh", name="b")(x)
    x = layers.Dropout(0.4, name="o")(x)
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="c")(x)
    y = layers.Dense(5, name="d")(layers.Flatten(name="f")(x))
    return randomise(keras.Model(image, [x, y], name="example"))
