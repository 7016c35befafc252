"""`keras:NAME`: the picture sets of `keras.datasets`, downloaded into `~/.keras/datasets` when first asked for.

Keras checks the files' SHA-256, but for Fashion-MNIST, which comes without one and is read as plain numbers. CIFAR's
files are pickles: Keras unpickles them after the check, and nothing but NumPy arrays.
"""

import os
import re
from pathlib import Path

import numpy as np

from tfzoo.data import Source, Wanted
from tfzoo.data.examples import Arrays
from tfzoo.data.lock import alone
from tfzoo.data.split import cut

SHARE = 0.1  # of the training part, for validation
GOOGLE = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
TORONTO = "https://www.cs.toronto.edu/~kriz/"
# Where a file comes from -> where Keras looks for it, below ~/.keras/datasets.
FILES = {
    "mnist": {f"{GOOGLE}mnist.npz": "mnist.npz"},
    "fashion_mnist": {
        f"{GOOGLE}{part}-ubyte.gz": f"fashion-mnist/{part}-ubyte.gz"
        for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    },
    "cifar10": {f"{TORONTO}cifar-10-python.tar.gz": "cifar-10-batches-py-target_archive"},
    "cifar100": {f"{TORONTO}cifar-100-python.tar.gz": "cifar-100-python-target_archive"},
}
CLASSES = {
    "mnist": "0 1 2 3 4 5 6 7 8 9",
    "fashion_mnist": "t_shirt trouser pullover dress coat sandal shirt sneaker bag ankle_boot",
    "cifar10": "airplane automobile bird cat deer dog frog horse ship truck",
    "cifar100": "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly "
    "camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur "
    "dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion "
    "lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree "
    "pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea "
    "seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank "
    "telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm",
}
PATTERN = "keras:.*"
KINDS = {kind: f"keras:{'|'.join(FILES)} (downloaded)" for kind in ("classes", "images")}


def open(text: str, wanted: Wanted) -> Source:
    """Open the set as a `Source` of pictures uint8, `(28, 28, 1)` or `(32, 32, 3)`, and class numbers int64.

    The set's own test part is held out; the validation is cut off its training part by the seed.
    """
    name = text.removeprefix("keras:")
    if name not in FILES:
        known = ", ".join(f"keras:{known}" for known in FILES)
        raise ValueError(f"there is no data {text}. Accepted for --data: {known}.")
    training, held_out = (arrays(part) for part in load(name))
    rows = cut(len(training), SHARE, wanted.seed, training.arrays[1])
    parts = [training.choose(rows[0]), training.choose(rows[1]), held_out]
    if wanted.kind == "images":
        parts = [Arrays(part.arrays[:1]) for part in parts]
    counts = [len(part) for part in parts]
    return Source(
        *parts,
        f"{text}: {counts[0]} pictures to train on, {counts[1]} for validation, {counts[2]} held out",
        tuple(CLASSES[name].split()) if wanted.kind == "classes" else None,
    )


def load(name: str):
    """Let Keras read the files, and before that download them if they are not there, one worker after the other."""
    import keras

    folder = home()
    try:
        with alone(folder):
            return getattr(keras.datasets, name).load_data()
    except Exception as error:  # of the network, of a disk, of a file that is not what it should be: Keras raises any
        copies = "\n".join(f"  {url}\n    as {folder / path}" for url, path in FILES[name].items())
        reason = re.sub(r"\s+", " ", str(error)) or type(error).__name__
        raise ValueError(
            f"keras:{name} is not on this machine, or not whole, and cannot be downloaded: {reason}\nWhere there is a "
            f"network, get\n{copies}\nand copy it here, or give another --data."
        ) from error


def home() -> Path:
    """Find the folder that Keras uses, as `keras.utils.get_file` does: where its own cannot be written to, another."""
    from keras.src.backend.config import keras_home  # $KERAS_HOME or ~/.keras, when Keras was imported

    base = Path(keras_home()).expanduser()
    return (base if os.access(base, os.W_OK) else Path("/tmp/.keras")) / "datasets"


def arrays(part: tuple[np.ndarray, np.ndarray]) -> Arrays:
    """Give every picture a channel axis and every label no axis."""
    pictures, labels = part
    return Arrays((pictures.reshape(*pictures.shape[:3], -1), labels.reshape(-1).astype(np.int64)))
