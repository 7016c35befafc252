"""A half-trained Keras model with its optimizer: from a file that Keras saved, or from a run folder of tfzoo.

A `.keras` file of a compiled model has both. In a run folder the model is `model.keras`, what `describe` gives of the
optimizer is `optimizer.json`, and the numbers are those of the newest of its `checkpoints/`.
"""

import json
import re
import warnings
from pathlib import Path

from bridge import checkpoints, resume, sources, untrusted
from bridge.graph import BridgeError

OPTIMIZER, MODEL, CHECKPOINTS = "optimizer.json", "model.keras", "checkpoints"
LIMIT = 2**28  # bytes of an optimizer.json, which has the rates of a schedule of one's own
LOST = (
    "a .keras file does not say which weights are left out of the weight decay: all are decayed, unless "
    "optimizer.exclude_from_weight_decay is called again"
)
PLACE = re.compile(r"variables/(\d+)")


def describe(model, steps: int) -> dict:
    """Say what is needed to go on with a training elsewhere.

    Args:
        model: Compiled.
        steps: Of the whole training, for which a schedule that is a program is written down.

    Returns:
        The optimizer's configuration, and how many variables the model has, which are a checkpoint's first.
    """
    import keras

    from bridge.torch_rules import is_known, written_down

    schedule = model.optimizer._learning_rate
    told = keras.saving.serialize_keras_object(model.optimizer)
    if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule) and not is_known(schedule):
        told["config"]["learning_rate"] = keras.saving.serialize_keras_object(written_down(schedule, steps))
    bare = [i for i, v in enumerate(model.trainable_variables) if not model.optimizer._use_weight_decay(v.value)]
    return {"optimizer": told, "variables": len({id(v) for v in model.variables}), "not_decayed": bare}


def is_run(source: str) -> bool:
    """Tell whether a source is a run folder with a training to go on with."""
    return all((Path(source) / name).is_file() for name in (OPTIMIZER, MODEL))


def load(source: str) -> tuple:
    """Load a model with its optimizer.

    Args:
        source: A run folder, or a `.keras` file.

    Returns:
        The `keras.Model` and the optimizer.

    Raises:
        BridgeError: They cannot be read.
    """
    if is_run(source):
        return _run(Path(source))
    if not source.endswith(".keras"):
        raise BridgeError(f"{source}: accepted are a run folder of `tfzoo train`, or a .keras file of a compiled model")
    model = sources.load_keras(source)
    told = (sources._configuration(source).get("compile_config") or {}).get("optimizer")
    with checkpoints.open(source) as state:
        names = [f"optimizer/{i}" for i in range(len(state))]
        values = [state[name] for name in names if name in state]
    if not isinstance(told, dict) or not values:
        raise BridgeError(f"{source} was saved without an optimizer that has taken a step: leave out --training")
    optimizer = _made(told, source)
    if optimizer.weight_decay:
        warnings.warn(LOST, stacklevel=2)
    _fill(model, optimizer, values, source)
    return model, optimizer


def _run(folder: Path) -> tuple:
    path = folder / OPTIMIZER
    try:
        if path.stat().st_size > LIMIT:
            raise ValueError(f"it has more than {LIMIT:,} bytes")
        told = json.loads(path.read_bytes())
        sources._check_configuration(told)
        optimizer, count = _made(told["optimizer"], str(path)), int(told["variables"])
        bare = [int(i) for i in told["not_decayed"]]
    except BridgeError:
        raise
    except Exception as e:  # hostile ones fail anywhere
        raise BridgeError(f"{path} cannot be read: {untrusted.why(e)}. {untrusted.DAMAGED_OR_OTHER}") from e
    model = sources.load_keras(str(folder / MODEL))
    own = list({id(v): v for v in model.variables}.values())
    if bare:
        trained = model.trainable_variables
        optimizer.exclude_from_weight_decay(var_list=[trained[i] for i in bare if 0 <= i < len(trained)])
    optimizer.build(model.trainable_variables)
    more = len(optimizer.variables)
    with checkpoints.open(folder / CHECKPOINTS) as state:
        places = {int(match[1]): name for name in state if (match := PLACE.fullmatch(name))}
        if count != len(own) or not set(range(count + more)) <= places.keys():
            raise BridgeError(
                f"{folder}: its checkpoint has {len(places)} variables, and {OPTIMIZER} tells of {count} of the model "
                f"and {more} of its optimizer, while {MODEL} has {len(own)}: they are not of one run"
            )
        values = [state[places[i]] for i in range(count + more)]
    wrong = [v.path for v, value in zip(own, values, strict=False) if tuple(v.shape) != value.shape]
    if wrong:
        raise BridgeError(f"{folder}: its checkpoint has other shapes than {MODEL}: {', '.join(wrong)}")
    for variable, value in zip(own, values[:count], strict=True):
        variable.assign(value)
    _fill(model, optimizer, values[count:], str(folder))
    return model, optimizer


def compile_as(model, module, source: str) -> None:
    """Compile a Keras model that was made of a folder with the optimizer in it, if there is one, so that it is saved.

    Args:
        model: What `bridge.to_keras` made of `module`.
        module: The folder's.
        source: The folder, or anything else.
    """
    path = Path(source) / resume.STATE
    if not path.is_file():
        return
    from bridge import optimizers
    from bridge.optimizer_state import optimizer_to_keras

    untrusted.check_file(str(path), "")
    try:
        held = optimizers.load(path, module)
    except Exception as e:  # damaged files fail anywhere
        raise BridgeError(f"{path} cannot be read: {untrusted.why(e)}. {untrusted.DAMAGED_OR_OTHER}") from e
    made = optimizer_to_keras(held, module, model)
    if made.weight_decay and not all(made._use_weight_decay(v.value) for v in model.trainable_variables):
        warnings.warn(LOST, stacklevel=2)
    model.compile(optimizer=made)


def _made(told: dict, source: str):
    """The optimizer of a configuration, in safe mode."""
    import keras

    from bridge import torch_rules  # noqa: F401 - registers what it may name

    try:
        made = keras.saving.deserialize_keras_object(told, safe_mode=True)
        if not isinstance(made, keras.optimizers.Optimizer):
            raise TypeError(f"it is a {type(made).__name__}")
        if isinstance(made, keras.optimizers.LossScaleOptimizer):
            raise BridgeError(
                f"{source}: its optimizer scales the loss (mixed_float16), which torch.amp.GradScaler does. Leave out "
                "--training, or go by bridge.optimizer_to_torch(optimizer.inner_optimizer, model, module)"
            )
        return made
    except BridgeError:
        raise
    except Exception as e:  # hostile ones fail anywhere
        raise BridgeError(
            f"{source}: its optimizer cannot be read: {untrusted.why(e)}. Import the module of a class of your own "
            "first (bridge: --import MODULE)"
        ) from e


def _fill(model, optimizer, values: list, source: str) -> None:
    """Put what was saved of an optimizer into a new one."""
    optimizer.build(model.trainable_variables)
    wrong = [v.path for v, value in zip(optimizer.variables, values, strict=False) if tuple(v.shape) != value.shape]
    if wrong or len(values) != len(optimizer.variables):
        raise BridgeError(
            f"{source}: its optimizer has {len(values)} variables, and {type(optimizer).__name__} on this model "
            f"{len(optimizer.variables)}{f', of other shapes: {wrong[0]}' if wrong else ''}"
        )
    for variable, value in zip(optimizer.variables, values, strict=True):
        variable.assign(value)
