"""A training that goes on in the other framework: ten steps, across, ten steps, against twenty that stayed.

    .venv/bin/python tests/acceptance/optimizers.py [--output FILE]          about two minutes

For each optimizer, on a convolutional network with BatchNorm, a block of a transformer and a recurrent network: how far
the weights are from one another at the end in float64, as a share of the largest of each tensor (goal 1e-9), and the
losses of the last ten steps in float32 (goal 1e-4); both ways. Beside them the same with torch's own class and the
nearest settings (`exact=False`), for which there is no goal.
"""

import sys
import warnings

import numpy as np
from _record import ROOT, options, write

sys.path.insert(0, str(ROOT))

STEPS = 10
WEIGHTS, LOSSES = 1e-9, 1e-4
LEFT_OUT = ("clip", "ema", "accumulation", "loss_scale")  # settings that torch's own classes have none of


REFUSED = {
    ("SGD, scaled", "transformer"),  # by Keras, which cannot divide an embedding's gradient
    ("Adam, amsgrad", "recurrent"),  # by the bridge: clipnorm is of each weight, and torch has two of a GRU's bias
}


def apart(model, module) -> float:
    """The largest difference of a tensor, as a share of its largest number."""
    import bridge

    have = module.state_dict()
    pairs = [(v, have[k]) for k, v in bridge.to_torch(model).state_dict().items() if "num_batches" not in k]
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-3)) for a, b in pairs)


def over_there(kind: str, name: str, exact: bool = True):
    """Train in Keras, go on in torch and in Keras; give the model, the module and the losses of both."""
    import bridge
    from tests.bridge import _steps as steps

    model = steps.network(kind)
    optimizer, data = steps.made(name, model), steps.batches(model, 2 * STEPS)
    steps.train_keras(model, optimizer, data[:STEPS])
    module = bridge.to_torch(model, exact_training=True)
    other = bridge.optimizer_to_torch(optimizer, model, module, exact=exact)
    scale = steps.SETTINGS[name].get("loss_scale_factor", 1.0)
    theirs = steps.train_torch(module, other, data[STEPS:], scale)
    return model, module, steps.train_keras(model, optimizer, data[STEPS:]), theirs


def back_again(kind: str, name: str):
    """Train in torch, go on in Keras and in torch."""
    import bridge
    from tests.bridge import _steps as steps

    model = steps.network(kind)
    data, scale = steps.batches(model, 2 * STEPS), steps.SETTINGS[name].get("loss_scale_factor", 1.0)
    module = bridge.to_torch(model, exact_training=True)
    optimizer = bridge.optimizer_to_torch(steps.made(name, model), model, module)
    steps.train_torch(module, optimizer, data[:STEPS], scale)
    bridge.load_weights(model, module.state_dict())
    other = bridge.optimizer_to_keras(optimizer, module, model)
    ours = steps.train_keras(model, other, data[STEPS:])
    return model, module, ours, steps.train_torch(module, optimizer, data[STEPS:], scale)


def measured(kind: str, name: str) -> dict[str, float]:
    """All figures of an optimizer and a network."""
    from tests.bridge import _steps as steps

    found = {}
    with steps.in_float64():
        found["there, weights"] = apart(*over_there(kind, name)[:2])
        found["back, weights"] = apart(*back_again(kind, name)[:2])
        more = any(part in setting for setting in steps.SETTINGS[name] for part in LEFT_OUT)
        if not more and not name.startswith("Lion"):
            found["torch's own, weights"] = apart(*over_there(kind, name, exact=False)[:2])
    for way, go in (("there", over_there), ("back", back_again)):
        ours, theirs = map(np.array, go(kind, name)[2:])
        found[f"{way}, losses"] = float(np.abs(ours - theirs).max() / np.abs(ours).max())
    return found


def main() -> int:
    import bridge  # noqa: F401
    from tests.bridge import _steps as steps

    warnings.simplefilter("ignore")
    arguments = options(__doc__).parse_args()
    results, short = {}, []
    for name in steps.SETTINGS:
        for kind in steps.NETWORKS:
            if (name, kind) in REFUSED:
                continue
            found = measured(kind, name)
            results.setdefault(name, {})[kind] = found
            print(f"{name}, {kind}: " + ", ".join(f"{key} {value:.0e}" for key, value in found.items()), flush=True)
            for key, value in found.items():
                limit = LOSSES if "losses" in key else WEIGHTS
                if not key.startswith("torch's own") and not value <= limit:
                    short.append(f"{name}, {kind}: {key} {value:.1e}, goal {limit:.0e}")
    write(arguments.output, results, steps=STEPS, goals={"weights": WEIGHTS, "losses": LOSSES})
    for line in short:
        print(f"SHORT: {line}")
    return int(bool(short))


if __name__ == "__main__":
    sys.exit(main())
