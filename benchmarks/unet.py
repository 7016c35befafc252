"""The U-Net: its training step and its bridged module against the same network written by hand in torch, and the time
of the conversion against tf2onnx + onnx2torch.

    .venv/bin/python benchmarks/unet.py [--output FILE]        about three minutes on two cores
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
import keras  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from _measure import compare, finish  # noqa: E402  first: it quietens TensorFlow
from _unet_by_hand import UNet  # noqa: E402

import bridge  # noqa: E402
import bridge.onnx  # noqa: E402
import tfzoo  # noqa: E402

GOALS = {
    "training step, batch 8: tfzoo / torch": 1.0,
    "inference, batch 8: bridged / by hand": 1.02,
    "inference, batch 1: bridged / by hand": 1.02,
    "conversion: bridge / tf2onnx + onnx2torch": 0.1,
}


def by_hand(model) -> torch.nn.Module:
    """The hand-written network with the weights of a Keras U-Net: the same shapes in the same order."""
    network = UNet().eval()
    bridged = bridge.to_torch(model).state_dict()
    ours = {k: v for k, v in bridged.items()}
    order = [
        f"{kind}{i}"
        for kind, levels in (("down", range(4)), ("bottom", [""]), ("up", reversed(range(4))))
        for i in levels
    ]
    names = {
        "down": [f"{o}_conv{j}" for o in order[:5] for j in (0, 1)],
        "upsample": [f"{o}_upsample" for o in order[5:]],
        "up": [f"{o}_conv{j}" for o in order[5:] for j in (0, 1)],
        "logits": ["logits"],
    }
    theirs = list(network.state_dict())
    flat = [n for key in ("down", "upsample", "up", "logits") for n in names[key]]
    network.load_state_dict({k: ours[f"{flat[i // 2]}.{k.rsplit('.')[-1]}"] for i, k in enumerate(theirs)})
    return network


def training_step(model, network, batch: int = 8):
    """One step of Adam on the same batch, in each framework as its users write it."""
    rng = np.random.default_rng(0)
    x, y = rng.random((batch, 128, 128, 3), "float32"), rng.integers(0, 2, (batch, 128, 128, 1)).astype("float32")
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    model.make_train_function()
    data = tuple(keras.ops.convert_to_tensor(a) for a in (x, y))
    images, masks = (torch.from_numpy(np.ascontiguousarray(np.moveaxis(a, -1, 1))) for a in (x, y))
    optimizer, loss = torch.optim.Adam(network.parameters()), torch.nn.BCEWithLogitsLoss()

    def ours():
        return model.train_on_batch(*data)

    def theirs():
        optimizer.zero_grad()
        value = loss(network(images), masks)
        value.backward()
        optimizer.step()
        return value.item()

    return ours, theirs


def inference(bridged, network, batch: int):
    """A forward pass without gradients on the same batch; the results must be the same."""
    x = torch.from_numpy(np.random.default_rng(0).random((batch, 3, 128, 128), "float32"))
    with torch.inference_mode():
        torch.testing.assert_close(bridged(x), network(x))

    def call(module):
        def run():
            with torch.inference_mode():
                return module(x)

        return run

    return call(bridged), call(network)


def main() -> int:
    model = tfzoo.build("unet")
    bridged, network = bridge.to_torch(model), by_hand(model)
    names = list(GOALS)
    results = {
        names[1]: compare(*inference(bridged, network, 8), rounds=40),
        names[2]: compare(*inference(bridged, network, 1), rounds=100),
        names[3]: compare(lambda: bridge.to_torch(model), lambda: bridge.onnx.to_torch(model), rounds=4, warm_up=1),
        names[0]: compare(*training_step(model, network.train()), rounds=15),
    }
    return finish({n: results[n] for n in names}, GOALS)


if __name__ == "__main__":
    sys.exit(main())
