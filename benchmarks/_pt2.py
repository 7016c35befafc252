"""Export a ResNet50 of keras.applications as `.pt2` in the way of Keras itself, which works with its torch backend.

    KERAS_BACKEND=torch .venv/bin/python benchmarks/_pt2.py WEIGHTS FOLDER BATCH ...

Each size of the batch gets an export of its own, FOLDER/BATCH.pt2: Keras' default is a fixed one.
"""

import sys
from pathlib import Path

import keras


def main(weights: str, folder: str, *batches: str) -> None:
    model = keras.applications.ResNet50(weights=None)
    model.load_weights(weights)
    for batch in batches:
        signature = [keras.InputSpec(shape=(int(batch), 224, 224, 3), dtype="float32")]
        model.export(str(Path(folder) / f"{batch}.pt2"), format="torch", input_signature=signature, verbose=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
