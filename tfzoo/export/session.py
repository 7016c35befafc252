"""A SavedModel as TensorFlow Serving has it: loaded by the session loader, its signatures run by names of tensors."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

INITIALISER = "__saved_model_init_op"  # a signature of the loader's own


@contextlib.contextmanager
def load(path: Path) -> Iterator[tuple[dict[str, SignatureDef], Callable[..., dict[str, np.ndarray]]]]:
    """Load a SavedModel for as long as a block lasts.

    Args:
        path: Its folder.

    Yields:
        Its signatures by name, and a function `run(signature, inputs)` from arrays by name to arrays by name, which
        raises a ValueError that names what an input lacks.
    """
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        try:
            meta = tf.compat.v1.saved_model.load(session, [tf.saved_model.SERVING], str(path))
        except (RuntimeError, OSError, tf.errors.OpError) as error:
            words = " ".join(str(error).split())[:300]
            raise ValueError(f"{path} cannot be loaded as TensorFlow Serving does it: {words}") from error
        signatures = served(meta.signature_def)

        def run(name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            if name not in signatures:
                raise ValueError(f"there is no signature {name!r}. Accepted: {', '.join(sorted(signatures))}.")
            signature = signatures[name]
            if signature.inputs.keys() != inputs.keys():
                raise ValueError(
                    f"the signature {name} takes {', '.join(sorted(signature.inputs))}. Received: "
                    f"{', '.join(sorted(inputs)) or 'nothing'}."
                )
            return session.run(
                {key: tensor.name for key, tensor in signature.outputs.items()},
                {signature.inputs[key].name: value for key, value in inputs.items()},
            )

        yield signatures, run


def served(signatures) -> dict[str, SignatureDef]:
    """Give the signatures that can be asked: not the loader's own."""
    return {name: signature for name, signature in signatures.items() if name != INITIALISER}
