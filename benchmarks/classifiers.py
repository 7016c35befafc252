"""ResNet-50 and ViT-S/16, training step and inference, against the same networks in torch, with the same weights.

    .venv/bin/python benchmarks/classifiers.py [--output FILE]        about ten minutes on two cores

torch's are torchvision's, which its users take. Besides: inference and ViT's step as XLA compiles them; inference with
each BatchNorm taken into the convolution before it (`tfzoo export --fold`), against torch's `fuse_conv_bn_eval`; a step
in bfloat16. And where the time goes: the layers of ResNet's step, and each part of ViT's block in inference, as many as
the network has, beside torch's.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import torch  # noqa: E402
from _measure import compare, finish  # noqa: E402  first: it quietens TensorFlow
from torch.nn.utils.fusion import fuse_conv_bn_eval  # noqa: E402

import bridge  # noqa: E402
import bridge.onnx  # noqa: E402
import tfzoo  # noqa: E402
from tfzoo.export.weights import folded  # noqa: E402

BATCH = 8
GOAL = 1.0
SIDE = 224
WIDTH, DEPTH, HEADS, TOKENS = 384, 12, 6, 197  # of ViT-S/16
rng = np.random.default_rng(0)


def in_torchvision(family: str):
    """Build torchvision's network; of ViT-S/16 it has the class, if not the size."""
    models = bridge.onnx.import_torchvision().models
    if family == "resnet":
        return models.resnet50()
    return models.VisionTransformer(SIDE, 16, DEPTH, HEADS, WIDTH, 4 * WIDTH)


def same_weights(name: str, model, network) -> None:
    """Give both the same live weights, and see that they give the same logits."""
    for weight in model.weights:
        fan = max(np.prod(weight.shape[:-1]), 1)
        variance = weight.path.endswith("variance") or weight.path.endswith("gamma")
        scale = (2 / fan) ** 0.5 if len(weight.shape) > 1 else 0.1  # so that the signal stays alive
        weight.assign(rng.uniform(0.5, 1.5, weight.shape) if variance else rng.normal(0, scale, weight.shape))
    names = tfzoo.family(name).NAMES["torchvision"]
    network.load_state_dict(bridge.to_torch(model, names=names).state_dict(), strict=True)
    x = pictures(2)
    with torch.inference_mode():
        want = network.eval()(in_torch(x)).numpy()
    have = np.asarray(model(x, training=False))
    assert np.ptp(want, axis=0).max() > 1e-2 * np.abs(want).max()
    np.testing.assert_allclose(have, want, atol=1e-3 * np.abs(want).max())


def pictures(batch: int) -> np.ndarray:
    return rng.normal(size=(batch, SIDE, SIDE, 3)).astype("float32")


def in_torch(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def inference(model, network, batch: int, jit: bool = False):
    """A forward pass, compiled to a graph in TensorFlow, without gradients in torch."""
    x = pictures(batch)
    ours, theirs = tf.constant(x), in_torch(x)
    graph = tf.function(lambda x: model(x, training=False), jit_compile=jit)

    def torchs():
        with torch.inference_mode():
            return network(theirs)

    return lambda: graph(ours).numpy(), torchs


def training_step(model, network, batch: int, autocast: bool = False, jit: bool = False):
    """A step of SGD with momentum on the same batch, in each framework as its users write it."""
    x, y = pictures(batch), rng.integers(0, 1000, batch)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), loss, jit_compile=jit)
    data = tf.constant(x), tf.constant(y)
    images, labels = in_torch(x), torch.from_numpy(y)
    optimizer, loss = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9), torch.nn.CrossEntropyLoss()

    def torchs():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            value = loss(network(images), labels)
        value.backward()
        optimizer.step()
        return value.item()

    return lambda: model.train_on_batch(*data), torchs


def fused(network):
    """torchvision's ResNet with each BatchNorm taken into the convolution before it."""
    import copy

    network = copy.deepcopy(network).eval()
    for module in list(network.modules()):
        parts = dict(module.named_children())
        before = None
        for name, part in parts.items():
            if isinstance(before, torch.nn.Conv2d) and isinstance(part, torch.nn.BatchNorm2d):
                conv = next(k for k, v in parts.items() if v is before)
                setattr(module, conv, fuse_conv_bn_eval(before, part))
                setattr(module, name, torch.nn.Identity())
            before = part if not isinstance(part, torch.nn.ReLU) else before
    return network


def in_bfloat16(family: str, size: str):
    """Build a network whose layers compute in bfloat16."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        return tfzoo.build(family, size=size)
    finally:
        keras.config.set_dtype_policy("float32")


def parts(batch: int):
    """Yield (name, ours, theirs) of what ViT-S/16's blocks are made of, all blocks' together, as inference has them."""
    functional, ops = torch.nn.functional, keras.ops
    tokens = (batch, TOKENS, WIDTH)
    some = rng.normal(size=tokens).astype("float32")
    thrice = rng.normal(size=(batch, TOKENS, 3 * WIDTH)).astype("float32")
    apart = (batch, TOKENS, 3, HEADS, WIDTH // HEADS)
    wide, narrow = keras.layers.Dense(4 * WIDTH), keras.layers.Dense(WIDTH)
    hidden = rng.normal(size=(*tokens[:2], 4 * WIDTH)).astype("float32")
    wide.build(some.shape), narrow.build(hidden.shape)
    norm = keras.layers.LayerNormalization(epsilon=1e-6)
    norm.build(some.shape)
    weights = [torch.tensor(np.asarray(x)) for x in (*wide.get_weights(), *narrow.get_weights())]
    up, up_bias, down, down_bias = (w.T.contiguous() if w.ndim == 2 else w for w in weights)
    one = torch.ones(WIDTH)

    def attend(x):  # as `tfzoo.vit.attention` does
        query, key, value = ops.unstack(ops.transpose(ops.reshape(x, apart), (0, 2, 3, 1, 4)), 3, axis=1)
        shares = ops.softmax(ops.matmul(query * apart[-1] ** -0.5, ops.swapaxes(key, 2, 3)))
        return ops.reshape(ops.swapaxes(ops.matmul(shares, value), 1, 2), tokens)

    def attend_in_torch(x):  # as timm does
        found = functional.scaled_dot_product_attention(*x.reshape(apart).permute(2, 0, 3, 1, 4))
        return found.transpose(1, 2).reshape(tokens)

    cases = {
        "Dense to the hidden layer, GELU": (
            some,
            DEPTH,
            lambda x: keras.activations.gelu(wide(x), approximate=False),
            lambda x: functional.gelu(functional.linear(x, up, up_bias)),
        ),
        "Dense back": (hidden, DEPTH, narrow, lambda x: functional.linear(x, down, down_bias)),
        "LayerNorm": (some, 2 * DEPTH + 1, norm, lambda x: functional.layer_norm(x, (WIDTH,), one, 0 * one, 1e-6)),
        "attention without its Dense layers": (thrice, DEPTH, attend, attend_in_torch),
    }
    for name, (x, times, ours, theirs) in cases.items():
        graph, ours_x, theirs_x = tf.function(ours), tf.constant(x), torch.from_numpy(x)

        def have(graph=graph, x=ours_x, times=times):
            for _ in range(times):
                found = graph(x)
            return found.numpy()

        def want(theirs=theirs, x=theirs_x, times=times):
            with torch.inference_mode():
                for _ in range(times):
                    found = theirs(x)
            return found

        np.testing.assert_allclose(have(), want().numpy(), atol=1e-4)
        yield f"{name}, {times} of them", have, want


def layers_of_resnet(model, batch: int):
    """Yield (name, ours, theirs) of a training step's layers of a kind, each forward and back on its own."""
    functional = torch.nn.functional

    def convolution(layer):
        kernel = torch.from_numpy(np.ascontiguousarray(np.asarray(layer.kernel).transpose(3, 2, 0, 1))).requires_grad_()
        return lambda x: functional.conv2d(x, kernel, stride=layer.strides), [kernel]

    def norm(layer):
        module = torch.nn.BatchNorm2d(layer.input.shape[-1], layer.epsilon)
        return module.train(), list(module.parameters())

    for kind, title, in_pytorch in (
        (keras.layers.Conv2D, "convolutions", convolution),
        (keras.layers.BatchNormalization, "BatchNorms", norm),
        (keras.layers.ReLU, "ReLUs", lambda layer: (functional.relu, [])),
    ):
        ours, theirs = [], []
        for layer in (x for x in model.layers if isinstance(x, kind)):
            x = rng.normal(size=(batch, *layer.input.shape[1:])).astype("float32")

            @tf.function
            def back(x, layer=layer):
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    made = layer(x, training=True)
                return tape.gradient(made, [x, *layer.trainable_variables], tf.ones_like(made))

            ours.append((back, tf.constant(x)))
            theirs.append((*in_pytorch(layer), in_torch(x).requires_grad_()))

        def have(ours=ours):
            for function, x in ours:
                found = function(x)
            return found[0].numpy()

        def want(theirs=theirs):
            for module, weights, x in theirs:
                made = module(x)
                torch.autograd.grad(made, [x, *weights], torch.ones_like(made))

        yield f"{len(ours)} {title}, forward and back", have, want

    optimizer = keras.optimizers.SGD(1e-3, momentum=0.9)
    optimizer.build(model.trainable_variables)
    gradients = [tf.zeros_like(variable) for variable in model.trainable_variables]
    step = tf.function(lambda: optimizer.apply(gradients, model.trainable_variables))
    parameters = [torch.zeros(tuple(gradient.shape)) for gradient in gradients]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    yield "optimizer, SGD with momentum", step, torch.optim.SGD(parameters, 1e-3, momentum=0.9).step


def main() -> int:
    results, besides = {}, {}

    def measured(what: str, pair, rounds: int, goal: bool = True) -> None:
        (results if goal else besides)[what] = found = compare(*pair, rounds=rounds)
        print(f"{what}: {found['ratio']:.3f}", flush=True)

    for name, family, size in (("ResNet-50", "resnet", "50"), ("ViT-S/16", "vit", "s16")):
        model, network = tfzoo.build(family, size=size), in_torchvision(family)
        same_weights(family, model, network)
        measured(f"{name}: inference, batch {BATCH}", inference(model, network, BATCH), 8)
        measured(f"{name}: inference, batch 1", inference(model, network, 1), 20)
        measured(f"{name}: inference, batch {BATCH}, XLA", inference(model, network, BATCH, True), 4, goal=False)
        if family == "resnet":
            pair = inference(folded(model), fused(network), BATCH)
            measured(f"{name}: inference, batch {BATCH}, folded", pair, 8, goal=False)
        measured(f"{name}: training step, batch {BATCH}", training_step(model, network.train(), BATCH), 5)
        if family == "vit":
            pair = training_step(model, network, BATCH, jit=True)
            measured(f"{name}: training step, batch {BATCH}, XLA", pair, 5, goal=False)
        pair = training_step(in_bfloat16(family, size), network, BATCH, autocast=True)
        measured(f"{name}: training step, batch {BATCH}, bfloat16", pair, 3, goal=False)
        if family == "resnet":
            for part, *pair in layers_of_resnet(model, BATCH):
                measured(f"{name}'s {part}", pair, 5, goal=False)
    for name, *pair in parts(BATCH):
        measured(f"ViT-S/16's {name}", pair, 20, goal=False)
    return finish(results, dict.fromkeys(results, GOAL), besides=besides)


if __name__ == "__main__":
    sys.exit(main())
