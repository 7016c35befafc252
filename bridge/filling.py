"""What `bridge weights` does: from the names on the command line to a filled model in a file."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from bridge import sources, tensorflow_weights, untrusted
from bridge import weights as planning
from bridge.files import writing
from bridge.graph import BridgeError

KERAS, TORCH = (".keras", ".weights.h5"), (".safetensors", ".pt")  # files of a Keras model, and of a state dict
TABLE = "Accepted: a .json file of an object from patterns to names, or module:TABLE, or module:TABLE.key"
LIMIT = 2**24  # bytes of a table


def check(output: Path) -> None:
    """Refuse what is no new file of weights."""
    if not output.name.endswith((*KERAS, *TORCH)):
        raise BridgeError(f"{output}: the output is a {', '.join((*KERAS, *TORCH))} file")
    if output.exists():
        raise BridgeError(f"{output} exists already: name a new file, or remove that one")


def plan(source: str, into: str, names: str | None, trust: bool, given: Callable | None = None) -> tuple:
    """Load the model to be filled, and find out what goes where.

    Args:
        source: A checkpoint, or whatever `sources.load` takes.
        into: What `sources.load` takes, but that it needs no weights.
        names: What `table` takes.
        trust: A folder's model.py may be run.
        given: `given(use, module)` calls `use(module, example_inputs, dynamic)` where these are needed and known.

    Returns:
        The model, and the `weights.Plan`.
    """
    target = sources.load(into, trust, bare=True)
    of_weights = source.endswith((*sources.KERAS, *sources.TORCH)) and not sources.is_function(source)
    if tensorflow_weights.is_checkpoint(source):
        of_weights = True
    elif of_weights:
        untrusted.check_file(source, sources.ACCEPTED)
    content, known = source if of_weights else sources.load(source, trust), table(names) if names else None
    if given is None:
        return target, planning.plan(target, content, known)
    return target, given(lambda module, *inputs: planning.plan(module, content, known, *inputs), target)


def table(text: str) -> dict:
    """Read a table of names: from a file, or from a module of the user's."""
    if text.endswith(".json"):
        if untrusted.check_file(text, TABLE) > LIMIT:
            raise BridgeError(f"--names {text}: it has more than {LIMIT:,} bytes. {TABLE}")
        try:
            found = json.loads(Path(text).read_text(encoding="utf-8"))
        except ValueError as e:
            raise BridgeError(f"--names {text} cannot be read: {untrusted.why(e)}. {TABLE}") from e
    else:
        module, _, path = text.partition(":")
        name, _, key = path.partition(".")
        sources.import_modules([module])
        found = getattr(sys.modules[module], name, None)
        found = found.get(key) if key and isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(v, (str, dict)) for v in found.values()):
        raise BridgeError(f"--names {text}: there is no such table. {TABLE}")
    return found


def write(model, output: Path) -> None:
    """Write a model, or the state dict of a module, whole or not at all."""
    import keras

    endings = KERAS if isinstance(model, keras.Model) else TORCH
    if not output.name.endswith(endings):
        raise BridgeError(f"{output}: a {type(model).__name__} is written as {' or '.join(endings)}")
    with writing(output) as side:
        if output.name.endswith(".weights.h5"):
            model.save_weights(side)
        elif output.suffix == ".keras":
            model.save(side)
        elif output.suffix == ".pt":
            import torch

            torch.save(model.state_dict(), side)
        else:
            from safetensors.torch import save_file

            save_file({name: value.detach().clone().contiguous() for name, value in model.state_dict().items()}, side)
