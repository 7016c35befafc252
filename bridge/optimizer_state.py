"""A half-trained run goes on in the other framework: what an optimizer keeps, its settings and its place in a schedule.

Between Keras and `bridge.optimizers`, which go by the same rules, nothing is lost. torch's own classes go by others:
`bridge.torch_optimizers` has what is nearest, and says what differs.
"""

import warnings
from dataclasses import dataclass

import numpy as np

from bridge import correspondence, optimizers, state_dict
from bridge.graph import BridgeError, flatten

# The slots of each class, and where Keras' optimizer has them.
ATTRIBUTES = {
    "SGD": {"momentum": "momentums"},
    "Adam": {"momentum": "_momentums", "velocity": "_velocities", "velocity_hat": "_velocity_hats"},
    "AdamW": {"momentum": "_momentums", "velocity": "_velocities", "velocity_hat": "_velocity_hats"},
    "RMSprop": {"velocity": "_velocities", "momentum": "_momentums", "average_gradient": "_average_gradients"},
    "Adagrad": {"accumulator": "_accumulators"},
    "Adamax": {"momentum": "_m", "norm": "_u"},
    "Nadam": {"momentum": "_momentums", "velocity": "_velocities"},
    "Lion": {"momentum": "_momentums"},
}
COMMON = {"average": "_model_variables_moving_average", "gradient_accumulator": "_accumulated_gradients"}
WHOLE = 1_000_000  # places in which a table is read, more than any network has
ACCEPTED = f"Accepted: Keras' own {', '.join(ATTRIBUTES)}"


@dataclass
class Weight:
    """A parameter of torch, the parts of it that are Keras variables, and whether it is decayed."""

    name: str
    parameter: object
    parts: list[correspondence.Part]
    decayed: bool = True


def optimizer_to_torch(optimizer, model, module, exact: bool = True, steps: int | None = None):
    """Make the optimizer with which a torch module goes on where a Keras model has been trained to.

    Args:
        optimizer: A `keras.optimizers` SGD, Adam, AdamW, RMSprop, Adagrad, Adamax, Nadam or Lion, which has trained
            `model`; with its moving averages, accumulated gradients, clipping, weight decay and schedule.
        model: A functional or Sequential `keras.Model`.
        module: A `torch.nn.Module` that computes the same and has its weights: what `bridge.to_torch` gives, or the
            user's own after `bridge.load_weights`.
        exact: The same rule: Keras', as `bridge.optimizers` has it, for which an `nn.Embedding` is set to
            `sparse=True`, or torch's own class for an optimizer of `bridge.torch_rules`; else torch's own class with
            the nearest settings, and a warning that says what differs. A schedule of torch's own class is in the
            attribute `scheduler`, to be stepped as usual.
        steps: How many steps the whole training has, which a schedule of one's own is to be written down for.

    Returns:
        A `torch.optim.Optimizer` over those of the module's parameters that Keras' optimizer holds.

    Raises:
        BridgeError: Lists everything that would train otherwise than in Keras.
    """
    kind = _kind(optimizer)
    if not optimizer.built:
        optimizer.build(model.trainable_variables)
    weights, problems = _weights(model, module, {id(v): v for v in optimizer._trainable_variables})
    lr, schedule, wrong = _schedule(optimizer, steps)
    problems += wrong + _mixed(weights, optimizer)
    if optimizer.weight_decay:
        problems += _halves(module, weights)
    constrained = [v.path for v in optimizer._trainable_variables if v.constraint is not None]
    said = f"torch has no constraints on weights: {', '.join(constrained)}" if constrained else ""
    if said and exact:
        problems.append(said)
    _refuse(module, model, problems)
    config = optimizer.get_config()
    cls = getattr(optimizers, kind)
    settings = {name: _plain(config[name]) for name in optimizers.COMMON | cls.SETTINGS if name in config}
    settings |= {"iterations": int(optimizer._iterations), "schedule": schedule}
    if kind == "Nadam":
        settings["momentum_product"] = float(optimizer._u_product)
    decay = settings.pop("weight_decay", None)
    groups = [[w.parameter for w in weights if w.decayed], [w.parameter for w in weights if not w.decayed]]
    groups = [{"params": p, "weight_decay": d} for p, d in zip(groups, (decay, None), strict=True) if p]
    made, problems = cls(groups, lr, **settings), []
    held = {slot: getattr(optimizer, name, None) for slot, name in (ATTRIBUTES[kind] | COMMON).items()}
    held = {slot: variables for slot, variables in held.items() if variables}
    for weight in weights:
        for slot, variables in held.items():
            made.state[weight.parameter][slot] = _gathered(weight, variables, optimizer)
            if not made.state[weight.parameter][slot].isfinite().all():
                problems.append(f"{weight.name}: its {slot} has NaN or infinite numbers")
    clips = any(settings.get(name) for name in ("clipnorm", "clipvalue", "global_clipnorm"))
    embeddings = []
    rule = optimizer if hasattr(optimizer, "coupled") else None  # of `bridge.torch_rules`: it goes back to torch's own
    if exact and not rule and (clips or cls not in (optimizers.SGD, optimizers.Lion)):
        embeddings, wrong = _in_parts(model, module, weights)
        problems += wrong
    _refuse(module, model, problems)
    for embedding in embeddings:
        embedding.sparse = True
    if exact and not rule:
        return made
    import torch

    from bridge import torch_optimizers

    embedded = any(isinstance(p, torch.nn.Embedding) and p.weight.requires_grad for p in module.modules())
    made, differences = torch_optimizers.nearest(made, rule)
    if embedded and not rule and kind not in ("SGD", "Lion"):
        differences.append("the gradient of an embedding's row is squared as a whole, not for each time it was read")
    differences += [said] if said else []
    if differences:
        warnings.warn(f"torch.optim.{type(made).__name__} is not Keras' {kind}: {'; '.join(differences)}", stacklevel=2)
    return made


def optimizer_to_keras(optimizer, module, model, exact: bool = True, scheduler=None, steps: int | None = None):
    """Make the optimizer with which a Keras model goes on where a torch module has been trained to.

    Args:
        optimizer: One of `bridge.optimizers`, or of torch's SGD, Adam, AdamW, RMSprop, Adagrad, Adamax and NAdam.
        module: The `torch.nn.Module` that it trains.
        model: A functional or Sequential `keras.Model` that computes the same and has its weights: what
            `bridge.to_keras` gives, or the user's own after `bridge.load_weights`.
        exact: One of torch's classes becomes an optimizer of Keras with torch's rule (`bridge.torch_rules`); else
            Keras' own with the nearest settings, and a warning that says what differs.
        scheduler: The `torch.optim.lr_scheduler` of the optimizer, if it has one, which is stepped after every step.
        steps: How many steps the whole training has, for a scheduler that Keras has no schedule for.

    Returns:
        A `keras.optimizers.Optimizer`, built on the model's trainable variables.

    Raises:
        BridgeError: Lists everything that would train otherwise than in torch.
    """
    import keras

    from bridge import torch_schedulers

    differences: list[str] = []
    rule, more = None, {}
    if not _is_ours(optimizer):
        from bridge import torch_optimizers, torch_rules

        theirs = optimizer.param_groups[0]
        optimizer, differences = torch_optimizers.understood(optimizer, as_it_is=exact)
        if exact and not (isinstance(optimizer, optimizers.SGD) and not theirs.get("momentum")):
            rule = torch_rules.CLASSES[type(optimizer).__name__]
            more = {"coupled": torch_optimizers.COUPLED in differences}
            more |= {"momentum_decay": theirs["momentum_decay"]} if "momentum_decay" in theirs else {}
    kind = type(optimizer).__name__
    weights, problems = _weights(model, module, {id(v): v for v in model.trainable_variables})
    group, wrong = _one_group(optimizer, weights)
    problems += wrong
    if group["weight_decay"]:
        problems += _halves(module, weights)
    group["schedule"], wrong = torch_schedulers.read(scheduler, group, steps)
    group["iterations"] = group["iterations"] or torch_schedulers.steps_of(scheduler)  # torch's SGD does not count
    problems += wrong
    if problems:
        raise BridgeError("\n  - ".join([f"{model.name} would not be trained as {module_name(module)} is:", *problems]))
    names = [name for name in optimizers.COMMON | optimizer.SETTINGS if name in group]
    left_out = ("iterations", "schedule", "momentum_product")
    settings = {name: group[name] for name in names if name not in left_out}
    lr = _to_schedule(group["schedule"]) if group["schedule"] else float(group["lr"])
    made = (rule or getattr(keras.optimizers, kind))(lr, **settings, **more)
    bare = [part.variable for weight in weights if not weight.decayed for part in weight.parts]
    if bare and settings["weight_decay"] is not None:
        made.exclude_from_weight_decay(var_list=list({id(v): v for v in bare}.values()))
    made.build(model.trainable_variables)
    made._iterations.assign(group["iterations"])
    if kind == "Nadam":
        made._u_product.assign(group["momentum_product"])
    for slot, name in (ATTRIBUTES[kind] | COMMON).items():
        if getattr(made, name, None):
            _scatter(weights, slot, getattr(made, name), made, optimizer)
    if differences and rule is None:
        warnings.warn(f"Keras' {kind} is not torch's: {'; '.join(differences)}", stacklevel=2)
    return made


def _refuse(module, model, problems: list[str]) -> None:
    """Refuse what would train otherwise."""
    if problems:
        raise BridgeError("\n  - ".join([f"{module_name(module)} would not be trained as {model.name} is:", *problems]))


def _in_parts(model, module, weights: list[Weight]) -> tuple[list, list[str]]:
    """Find the embeddings whose gradient Keras has in parts, which its rules square one by one.

    Returns:
        Those that give theirs so with `sparse=True`, and what is wrong with others: torch has the gradient of any other
        table whole, and adds up what comes of several uses.
    """
    import torch

    read = _read_in_rows(model)
    layers = [layer for layer in model._flatten_layers() if layer.compute_dtype != layer.variable_dtype]
    mixed = {id(v) for layer in layers for v in layer.weights}
    known = {id(part.weight): part for part in module.modules() if isinstance(part, torch.nn.Embedding)}
    chosen, problems = [], []
    for weight in weights:
        uses = max((read.get(id(part.variable), 0) for part in weight.parts), default=0)
        if uses == 1 and id(weight.parameter) in known and any(id(part.variable) in mixed for part in weight.parts):
            problems.append(f"{weight.name} is of mixed precision, in which torch has no gradient in parts")
        elif uses == 1 and id(weight.parameter) in known:
            chosen.append(known[id(weight.parameter)])
        elif uses == WHOLE:
            problems.append(f"{weight.name}: it depends on which outputs are trained how Keras has its gradient")
        elif uses:
            why = "make it an nn.Embedding" if uses == 1 else f"it is read in {uses} places, which torch adds up"
            problems.append(
                f"{weight.name}: Keras squares the gradient of each time that a row of it was read: {why} (exact=False "
                "takes torch's own class)"
            )
    return chosen, problems


def _read_in_rows(model) -> dict[int, int]:
    """Find the variables of which TensorFlow has the gradient in rows, and in how many places each is read.

    `WHOLE` says that it is so for the loss of one output, and not of another. One that is used otherwise, too, as an
    embedding in the network's last layer, has a gradient as other weights have.
    """
    import tensorflow as tf

    from bridge import keras_reader, samples, walk

    names: dict[int, str] = {}
    graph = keras_reader.read(model, names=names)
    variables = [v.value for v in model.trainable_variables]
    with tf.GradientTape(persistent=True) as tape:
        made = flatten(walk.run(model, samples.inputs_of(model, graph))[0])
        sums = [tf.reduce_sum(tf.cast(x, tf.float32)) for x in made if x.dtype.is_floating]
    gradients = [tape.gradient(one, variables) for one in sums]
    readers = graph.consumers()
    found = {}
    for variable, *each in zip(model.trainable_variables, *gradients, strict=True):
        if any(isinstance(gradient, tf.IndexedSlices) for gradient in each):
            whole = any(g is not None and not isinstance(g, tf.IndexedSlices) for g in each)
            mine = [n for n in graph.nodes if names.get(id(variable)) in n.parameters.values()]
            places = [len(readers.get(n.outputs[0].name, [])) if n.operator == "parameter" else 1 for n in mine]
            found[id(variable)] = WHOLE if whole else max(sum(places), 1)
    return found


def module_name(module) -> str:
    """What to call a module."""
    return type(module).__name__


def _is_ours(optimizer) -> bool:
    """Tell whether an optimizer is one of `bridge.optimizers`, or of the copy of them beside a carried model."""
    return type(optimizer).__name__ in ATTRIBUTES and any(c.__name__ == "KerasOptimizer" for c in type(optimizer).mro())


def _kind(optimizer) -> str:
    """The name of a class of Keras' optimizers."""
    import keras

    name = type(optimizer).__name__
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        scale = float(optimizer.dynamic_scale) if optimizer.built else optimizer.initial_scale
        raise BridgeError(
            "LossScaleOptimizer scales the loss, which torch.amp.GradScaler does: give its inner_optimizer, and begin "
            f"with GradScaler(init_scale={scale})"
        )
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise BridgeError(f"optimizer must be one of Keras. Received: {name}. {ACCEPTED}")
    from bridge import torch_rules

    if name not in ATTRIBUTES or type(optimizer) not in (
        getattr(keras.optimizers, name),
        torch_rules.CLASSES.get(name),
    ):
        raise BridgeError(f"the rule of {type(optimizer).__module__}.{name} is not known. {ACCEPTED}")
    return name


def _weights(model, module, known: dict[int, object]) -> tuple[list[Weight], list[str]]:
    """Pair the parameters of a module with the variables of an optimizer, and say what has no counterpart.

    Args:
        model: The Keras model.
        module: The torch module.
        known: The variables that Keras' optimizer holds, or is to hold, by their ids.
    """
    found = correspondence.parts(model, module)
    now = {id(v) for v in model.trainable_variables}
    weights, problems, taken = [], [], set()
    for name, parameter in module.named_parameters():
        held = found.get(name, [])
        if not held:
            if parameter.requires_grad:
                problems.append(
                    f"{name} is trained in torch, and is no weight of Keras: freeze it with requires_grad_(False)"
                )
            continue
        ids = {id(part.variable) for part in held}
        trained = {i in now for i in ids}
        if trained != {parameter.requires_grad}:
            where = "torch, not in Keras" if parameter.requires_grad else "Keras, not in torch"
            problems.append(f"{name} is trained in {where}")
        if sum(part.cells.size for part in held) != parameter.numel():
            problems.append(f"{name} is only in part a weight of Keras")
        taken |= ids
        if ids <= known.keys():
            weights.append(Weight(name, parameter, held))
        elif ids & now:
            problems.append(f"{name} is trained in Keras, and its optimizer, which was built before, does not know it")
    problems += [
        f"{v.path} is trained in Keras, and no parameter of torch" for i, v in known.items() if i in now - taken
    ]
    return weights, problems + _padded(model, module, weights)


def _padded(model, module, weights: list[Weight]) -> list[str]:
    """Say which embeddings leave a row untrained that Keras trains."""
    import torch

    from bridge import keras_reader

    padded = [m for m in module.modules() if isinstance(m, torch.nn.Embedding) and m.padding_idx is not None]
    if not padded:
        return []
    names: dict[int, str] = {}
    nodes = keras_reader.read(model, names=names).nodes
    same = {name: n.attributes.get("padding") for n in nodes for name in n.parameters.values()}
    problems = []
    for weight in weights:
        own = [m.padding_idx for m in padded if m.weight is weight.parameter]
        theirs = {same.get(names.get(id(part.variable))) for part in weight.parts}
        if own and theirs != set(own):
            problems.append(
                f"{weight.name} has padding_idx={own[0]}, a row that torch leaves as it is and Keras trains"
            )
    return problems


def _halves(module, weights: list[Weight]) -> list[str]:
    """Say which sums of two biases of a recurrent layer torch decays in part; Keras decays the sum."""
    tensors = dict(module.named_parameters())
    held = {weight.name for weight in weights}
    others = {w.name: w.name.replace("bias_ih", "bias_hh") for w in weights if "bias_ih" in w.name and w.decayed}
    return [
        f"{name} is decayed without {other}, which is frozen and not 0, and Keras has their sum: add it to {name} and "
        "make it 0"
        for name, other in others.items()
        if other in tensors and other not in held and bool((tensors[other] != 0).any())
    ]


def _mixed(weights: list[Weight], optimizer) -> list[str]:
    """Say which parameters are several variables for which the optimizer has different settings, or norms."""
    problems = []
    homes: dict[int, set[str]] = {}
    for weight in weights:
        decayed = {bool(optimizer._use_weight_decay(part.variable.value)) for part in weight.parts}
        weight.decayed = True in decayed
        if len(decayed) > 1 and optimizer.weight_decay is not None:
            problems.append(f"{weight.name} is several weights of Keras, of which some are decayed and some not")
        for part in weight.parts:
            homes.setdefault(id(part.variable), set()).add(weight.name)
    parted = [w.name for w in weights if len({id(p.variable) for p in w.parts}) > 1]
    parted += sorted({name for names in homes.values() if len(names) > 1 for name in names})
    if optimizer.clipnorm and parted:
        problems.append(f"clipnorm is of each weight, and these are other weights in torch: {', '.join(parted)}")
    return problems


def _gathered(weight: Weight, variables: list, optimizer):
    """The slot of a parameter, from those of the variables that it is made of."""
    import torch

    made = torch.empty_like(weight.parameter, requires_grad=False)
    for part in weight.parts:
        slot = correspondence.numbers(variables[optimizer._get_variable_index(part.variable)])
        made[part.rows] = torch.from_numpy(np.asarray(slot.reshape(-1)[part.cells])).to(made)
    return made


def _scatter(weights: list[Weight], slot: str, variables: list, made, optimizer) -> None:
    """Fill the slots of Keras' variables from those of the parameters; what torch has not made yet stays as it is."""
    arrays = [np.asarray(v).copy() for v in variables]
    for weight in weights:
        if slot not in (state := optimizer.state.get(weight.parameter, {})):
            continue
        for part in weight.parts:
            value = state_dict.array(state[slot])[part.rows]
            arrays[made._get_variable_index(part.variable)].reshape(-1)[part.cells] = value
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _schedule(optimizer, steps: int | None) -> tuple[float, dict | None, list[str]]:
    """The learning rate, its schedule if it has one, and what is wrong with that."""
    import keras

    held = optimizer._learning_rate
    if isinstance(held, keras.Variable):
        return float(held), None, []
    if not isinstance(held, keras.optimizers.schedules.LearningRateSchedule):
        return 0.0, None, ["the learning rate is a function, whose values cannot be known: set a number"]
    from bridge.torch_rules import Table, is_known, written_down

    name = type(held).__name__
    if steps and not is_known(held):
        held, name = written_down(held, steps), Table.__name__
    if is_known(held):
        config = {key: _plain(value) for key, value in held.get_config().items() if key != "name"}
    else:
        known = ", ".join(name for name in optimizers.SCHEDULES if name != "Table")
        wrong = f"the schedule {name} is a program: give steps=, those of the whole training, to have its rates written"
        return 0.0, None, [f"{wrong} down. Without that: {known}"]
    schedule = {"class_name": name, "config": config, "dtype": "float32"}  # whatever floatx is, as TensorFlow has it
    return optimizers.rate(schedule, int(optimizer._iterations)), schedule, []


def _to_schedule(schedule: dict):
    """The schedule of Keras that is meant."""
    import keras

    from bridge.torch_rules import Table

    name = schedule["class_name"]
    cls = Table if name == "Table" else getattr(keras.optimizers.schedules, name)
    return cls(**schedule["config"])


def _one_group(optimizer, weights: list[Weight]) -> tuple[dict, list[str]]:
    """The settings of an optimizer whose groups differ in weight decay alone, and what is wrong otherwise.

    Keras has one of each, and weights that are left out of the decay.
    """
    groups = optimizer.param_groups
    mine = {id(w.parameter): w for w in weights}
    problems, decays = [], set()
    for group in groups:
        differ = [k for k in group if k not in ("params", "weight_decay", "initial_lr") and group[k] != groups[0][k]]
        if differ:
            problems.append(f"the groups of parameters have their own {', '.join(differ)}, and Keras has one of each")
        for parameter in group["params"]:
            if id(parameter) in mine:
                mine[id(parameter)].decayed = bool(group["weight_decay"])
        if group["weight_decay"]:
            decays.add(group["weight_decay"])
    if len(decays) > 1:
        problems.append(f"the groups are decayed by {', '.join(map(str, sorted(decays)))}, and Keras has one number")
    held = {id(p) for group in groups for p in group["params"]}
    if left := [w.name for w in weights if id(w.parameter) not in held and w.parameter.requires_grad]:
        problems.append(f"the optimizer does not train {', '.join(left)}, which Keras would")
    return {**groups[0], "weight_decay": max(decays, default=groups[0]["weight_decay"])}, problems


def _plain(value):
    """A setting as a number of Python, or a list of them."""
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value
