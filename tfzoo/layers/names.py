"""Names that do not hang on what else was built before."""

import collections
import contextlib
from collections.abc import Iterator

from keras.src.backend.common import global_state

COUNTS = "object_name_uids"  # of Keras: how many layers and functions without a name of their own there are of a kind


@contextlib.contextmanager
def counted_anew() -> Iterator[None]:
    """Number the functions of a model, as `multiply_3`, from the model's own first one.

    Keras counts all that a process makes, so that the constants in a state dict of PyTorch would be called otherwise
    in every build. Afterwards it goes on behind both: what is put on top of the model has names that are new.
    """
    before = global_state.get_global_attribute(COUNTS, collections.defaultdict(int))
    global_state.set_global_attribute(COUNTS, collections.defaultdict(int))
    try:
        yield
    finally:
        made = global_state.get_global_attribute(COUNTS)
        counts = {name: max(before.get(name, 0), made.get(name, 0)) for name in before.keys() | made.keys()}
        global_state.set_global_attribute(COUNTS, collections.defaultdict(int, counts))
