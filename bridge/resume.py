"""What is beside a model in its folder, so that its training goes on in torch, and comes back.

optimizer.safetensors   the optimizer: slots by weight, settings and place in the schedule as metadata
optimizers.py           its rule: `bridge/optimizers.py` as it is, which needs torch alone
resume.py               a short program that goes on
"""

import re
import shutil
from pathlib import Path

STATE, RULES, PROGRAM = "optimizer.safetensors", "optimizers.py", "resume.py"
TEXT = '''"""Go on with the training of {name}, which has taken {steps:,} steps with {rule}.

    python resume.py DATA.npz --loss cross_entropy --steps 1000 -o NEW_FOLDER

DATA.npz has {arrays} with their channels first, and y, an example in each row. Written by bridge: change what you will.
The weights, the optimizer and its place in the schedule are those of Keras. The order of the examples and the random
numbers of Dropout are this program's own{notes}.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import model
import optimizers

HERE = Path(__file__).parent
LOSSES = {{  # those of probabilities are for a network that ends with softmax or sigmoid
    "cross_entropy": F.cross_entropy,
    "cross_entropy_of_probabilities": lambda p, y: F.nll_loss(p.clamp_min(1e-7).log(), y),
    "binary": lambda z, y: F.binary_cross_entropy_with_logits(z, y.to(z.dtype).reshape(z.shape)),
    "binary_of_probabilities": lambda p, y: F.binary_cross_entropy(p, y.to(p.dtype).reshape(p.shape)),
    "mse": lambda z, y: F.mse_loss(z, y.to(z.dtype).reshape(z.shape)),
}}
ARRAYS = ["x"] if len(model.INPUTS) == 1 else list(model.INPUTS)


def load():
    """Return the network and its optimizer."""
    network = model.load()
    return network, optimizers.load(HERE / "optimizer.safetensors", network)


def train(network, optimizer, batches, loss):
    """Take a step for each of the batches (inputs, y), and yield the losses."""
    network.train()
    for inputs, y in batches:
        optimizer.zero_grad()
        value = loss(network(*inputs), y)
        value.backward()
        optimizer.step()
        yield value.item()
    network.eval()


def save(network, optimizer, folder):
    """Write a folder like this one, which `bridge to-keras` takes back."""
    from safetensors.torch import save_file

    folder.mkdir()
    save_file({{k: v.contiguous() for k, v in network.state_dict().items()}}, folder / "model.safetensors")
    optimizers.save(optimizer, network, folder / "optimizer.safetensors")
    for name in ("model.py", "optimizers.py", "resume.py"):
        shutil.copy(HERE / name, folder)


def draw(inputs, y, size, steps, seed):
    """Yield batches in a random order, every example once before any comes again."""
    rng, order = np.random.default_rng(seed), []
    for _ in range(steps):
        while len(order) < size:
            order += rng.permutation(len(y)).tolist()
        taken, order = order[:size], order[size:]
        yield [x[taken] for x in inputs], y[taken]


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\\n")[0])
    parser.add_argument("data", help=f"an .npz with {{', '.join(ARRAYS)}} and y")
    parser.add_argument("--loss", choices=LOSSES, required=True)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True, help="new folder")
    options = parser.parse_args()
    if options.output.exists():
        parser.error(f"{{options.output}} exists already")
    with np.load(options.data, allow_pickle=False) as data:
        if missing := [name for name in (*ARRAYS, "y") if name not in data]:
            parser.error(f"{{options.data}} has no {{', '.join(missing)}}, but {{', '.join(data)}}")
        dtypes = [getattr(torch, dtype) for _, dtype in model.INPUTS.values()]
        inputs = [torch.from_numpy(data[name]).to(dtype) for name, dtype in zip(ARRAYS, dtypes)]
        for name, x, (shape, _) in zip(ARRAYS, inputs, model.INPUTS.values()):
            if x.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape[1:], x.shape[1:])):
                parser.error(f"{{name}} is of the shape {{tuple(x.shape)}}, channels come first: {{tuple(shape)}}")
        y = torch.from_numpy(data["y"])
        if counts := {{len(x) for x in inputs}} - {{len(y)}}:
            parser.error(f"y has {{len(y)}} rows, and {{', '.join(ARRAYS)}} {{', '.join(map(str, counts))}}")
    y = y if y.is_floating_point() else y.long()
    network, optimizer = load()
    batches = draw(inputs, y, min(options.batch_size, len(y)), options.steps, options.seed)
    for i, value in enumerate(train(network, optimizer, batches, LOSSES[options.loss]), 1):
        if i % 100 == 0 or i == options.steps:
            print(f"step {{optimizer.param_groups[0]['iterations']}}: loss {{value:.4g}}")
    optimizer.finalize()  # as Keras' fit ends
    save(network, optimizer, options.output)
    print(f"wrote {{options.output}}")


if __name__ == "__main__":
    main()
'''


def write(folder: Path, optimizer, module, model) -> None:
    """Write the three files.

    Args:
        folder: Of model.py.
        optimizer: One of `bridge.optimizers`, over parameters of `module`.
        module: What model.py makes.
        model: The Keras model.
    """
    import keras

    from bridge import optimizers
    from bridge.models import functional, input_names

    optimizers.save(optimizer, module, folder / STATE)
    shutil.copy(optimizers.__file__, folder / RULES)
    notes = ""
    if any(getattr(v, "regularizer", None) is not None for v in model.trainable_variables):
        notes += ".\nKeras added penalties of weights to the loss (regularizers): add them in `train`"
    if any(ending(x) in ("softmax", "sigmoid") for x in keras.tree.flatten(functional(model).outputs)):
        notes += ".\nThe network returns probabilities: of the losses, those of probabilities are for it"
    names = input_names(model)
    arrays = "x, the input" if len(names) == 1 else f"the inputs {', '.join(map(plain, names))}"
    text = TEXT.format(
        name=plain(model.name),
        arrays=arrays,
        steps=optimizer.param_groups[0]["iterations"],
        rule=type(optimizer).__name__,
        notes=notes,
    )
    (folder / PROGRAM).write_text(text, encoding="utf-8")


def ending(output) -> str:
    """The name of the function that a tensor of Keras comes out of."""
    layer = output._keras_history.operation
    return getattr(getattr(layer, "activation", None), "__name__", type(layer).__name__.lower())


def plain(name: str) -> str:
    """A name as it may stand in a docstring."""
    return re.sub(r"[^0-9A-Za-z_. -]", "_", name)[:100]
