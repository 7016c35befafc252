"""ResNet-50 and ViT-S/16, training step and inference, against the same networks in torch, with the same weights.

    .venv/bin/python benchmarks/classifiers.py [--output FILE]        about ten minutes on two cores

torch's are torchvision's, which its users take. Besides: inference and ViT's step as XLA compiles them; inference with
each BatchNorm taken into the convolution before it (`tfzoo export --fold`), against torch's `fuse_conv_bn_eval`; a step
in bfloat16. And where the time goes, by the frameworks' own profilers: in the steps, and in ViT's inference.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import torch  # noqa: E402
from _measure import compare, finish  # noqa: E402  first: it quietens TensorFlow
from _profile import shares  # noqa: E402
from torch.nn.utils.fusion import fuse_conv_bn_eval  # noqa: E402

import bridge  # noqa: E402
import bridge.onnx  # noqa: E402
import tfzoo  # noqa: E402
from tfzoo.export.weights import folded  # noqa: E402

BATCH = 8
GOAL = 1.0
SIDE = 224
WIDTH, DEPTH, HEADS = 384, 12, 6  # of ViT-S/16
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


def main() -> int:
    results, besides, profiles = {}, {}, {}

    def measured(what: str, pair, rounds: int, goal: bool = True, profiled: bool = False) -> None:
        (results if goal else besides)[what] = found = compare(*pair, rounds=rounds)
        print(f"{what}: {found['ratio']:.3f}", flush=True)
        if profiled:
            profiles[what] = {
                side: shares(step, side) for side, step in zip(("tensorflow", "torch"), pair, strict=True)
            }

    for name, family, size in (("ResNet-50", "resnet", "50"), ("ViT-S/16", "vit", "s16")):
        model, network = tfzoo.build(family, size=size), in_torchvision(family)
        same_weights(family, model, network)
        measured(f"{name}: inference, batch {BATCH}", inference(model, network, BATCH), 8, profiled=family == "vit")
        measured(f"{name}: inference, batch 1", inference(model, network, 1), 20, profiled=family == "vit")
        measured(f"{name}: inference, batch {BATCH}, XLA", inference(model, network, BATCH, True), 4, goal=False)
        if family == "resnet":
            pair = inference(folded(model), fused(network), BATCH)
            measured(f"{name}: inference, batch {BATCH}, folded", pair, 8, goal=False)
        measured(
            f"{name}: training step, batch {BATCH}", training_step(model, network.train(), BATCH), 5, profiled=True
        )
        if family == "vit":
            pair = training_step(model, network, BATCH, jit=True)
            measured(f"{name}: training step, batch {BATCH}, XLA", pair, 5, goal=False)
        pair = training_step(in_bfloat16(family, size), network, BATCH, autocast=True)
        measured(f"{name}: training step, batch {BATCH}, bfloat16", pair, 3, goal=False)
    return finish(results, dict.fromkeys(results, GOAL), besides=besides, profiles=profiles)


if __name__ == "__main__":
    sys.exit(main())
