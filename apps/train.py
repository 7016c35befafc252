"""Train a model by its family's recipe, and keep what comes of it in a run folder."""

import ast
import contextlib
import functools
import pathlib
import shlex
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from typer import Argument, Option

from apps import RunFailed, recipes, refused
from apps.values import HELP, numbers


def run(
    name: Annotated[str, Argument(metavar="NAME", help="Family, as `tfzoo list` gives them.")],
    size: Annotated[str | None, Option(help="One of the family's sizes.")] = None,
    data: Annotated[
        str | None, Option(help="A folder, an embedded set, keras:NAME or tfds:NAME; see docs/data.md.")
    ] = None,
    epochs: Annotated[int | None, Option(min=1, help="How often the model is judged and saved.")] = None,
    steps_per_epoch: Annotated[int | None, Option(min=1, help="Batches in an epoch.")] = None,
    batch_size: Annotated[int | None, Option(min=1, help="Examples in a batch, over all devices.")] = None,
    learning_rate: Annotated[float | None, Option(min=0, help="The schedule's highest.")] = None,
    schedule: Annotated[str | None, Option(help="constant, cosine or step.", show_default="cosine")] = None,
    warm_up: Annotated[float | None, Option(min=0, max=0.99, help="Share of the steps.", show_default="0.05")] = None,
    clip: Annotated[
        float | None, Option(min=0, help="Largest norm of all gradients together; 0 is none.", show_default="0")
    ] = None,
    accumulate: Annotated[
        int | None, Option(min=1, help="Batches whose gradients are averaged for a step.", show_default="1")
    ] = None,
    ema: Annotated[
        float | None,
        Option(
            min=0, max=1, help="Decay of averaged weights, which are judged and saved; 0 is none.", show_default="0"
        ),
    ] = None,
    values: Annotated[
        tuple[str, str] | None, Option(metavar="BLACK WHITE", help=HELP, show_default="the recipe's")
    ] = None,
    mix: Annotated[
        str | None, Option(help="none, mixup or cutmix: pictures of a classifier, two by two.", show_default="none")
    ] = None,
    early_stopping: Annotated[
        int | None, Option(min=0, help="Epochs without a lower validation loss; 0 is never.", show_default="0")
    ] = None,
    precision: Annotated[str | None, Option(help=", ".join(recipes.PRECISIONS) + ".", show_default="float32")] = None,
    jit: Annotated[bool | None, Option("--jit/--no-jit", help="Compile the step with XLA.", show_default="no")] = None,
    seed: Annotated[
        int | None, Option(min=0, max=2**32 - 1, help="Decides every random choice.", show_default="0")
    ] = None,
    strategy: Annotated[str, Option(help="auto, one, mirrored or multi-worker.")] = "auto",
    output: Annotated[
        pathlib.Path | None, Option(help="Run folder: new, empty or unfinished.", show_default="runs/NAME")
    ] = None,
    resume: Annotated[
        bool | None,
        Option("--resume/--no-resume", help="There must be, or not be, an unfinished run.", show_default="if there is"),
    ] = None,
    from_step: Annotated[
        int | None, Option(min=1, help="Go on from this checkpoint.", show_default="the newest")
    ] = None,
    checkpoint_steps: Annotated[
        int | None, Option(min=1, help="Steps between two checkpoints.", show_default="100")
    ] = None,
    set_: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="Option of the builder; a Python literal.")
    ] = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Check everything, say what would be done; what --data names is fetched.")
    ] = False,
) -> int:
    """Run the command; what is not given is the recipe's, or the unfinished run's."""
    asked = dict(locals())
    not_options = ("name", "strategy", "output", "resume", "from_step", "set_", "dry_run")
    given = {key: value for key, value in asked.items() if key not in not_options and value is not None}
    if set_:
        given["settings"] = parse(set_)
    if values:
        given["values"] = numbers(values)
    output = output or pathlib.Path("runs", name)
    how = {"strategy": strategy, "resume": resume, "from_step": from_step, "dry_run": dry_run}
    if train(name, output, **given, **how):
        print(f"wrote {output}. Next: tfzoo evaluate {shlex.quote(str(output))}")
    return 0


def parse(settings: list[str]) -> dict[str, Any]:
    """Read `key=value` pairs; a value is a Python literal or else a string.

    Args:
        settings: For example `["widths=(4, 8)", "batch_norm=True"]`.

    Returns:
        The values by key.

    Raises:
        ValueError: Some are not pairs, or a key is there twice.
    """
    wrong = [setting for setting in settings if not setting.partition("=")[0].isidentifier() or "=" not in setting]
    if wrong:
        raise ValueError(f"--set takes KEY=VALUE, such as batch_norm=True. Received: {', '.join(wrong)}")
    keys = [setting.partition("=")[0] for setting in settings]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise ValueError(f"--set takes every key once. Received more than once: {', '.join(twice)}. Leave one of each.")
    values = {}
    for key, _, text in (setting.partition("=") for setting in settings):
        try:
            values[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[key] = text
    return values


def train(
    name: str,
    output: pathlib.Path,
    *,
    strategy: str = "auto",
    resume: bool | None = None,
    from_step: int | None = None,
    dry_run: bool = False,
    title: str | None = None,
    **given: Any,
) -> bool:
    """Train a model into a run folder, which is made when all else has been found right, or go on with a run in one.

    Args:
        name: A family with a recipe.
        output: The run folder: new, empty or of an unfinished run.
        strategy: One of `tfzoo.training.strategy.NAMES`.
        resume: Whether there has to be an unfinished run; None goes on with one if there is.
        from_step: The checkpoint to go on from; None for the newest.
        dry_run: Check everything, say what would be done and write nothing.
        title: Printed when all has been found right and the training begins.
        given: Options as `recipes.DEFAULTS` and the recipe's `DEFAULTS` have them. What is not given is the unfinished
            run's, or the recipe's.

    Returns:
        Whether this process is the one that wrote the run folder.

    Raises:
        ValueError: Something that was asked for cannot be; no folder is left behind.
        RunFailed: The loss is no longer a number, or there is no room left to write.
    """
    recipe = recipes.find(name)
    options = recipes.DEFAULTS | recipe.DEFAULTS | given
    recipes.check(options, set(recipes.DEFAULTS) | set(recipe.DEFAULTS))

    from bridge import _quiet

    _quiet.import_tensorflow()
    import keras

    from apps import run_folder, run_page
    from apps.watching import Watching
    from tfzoo.data import absolute
    from tfzoo.training.distributed_fit import repaired
    from tfzoo.training.double import Double
    from tfzoo.training.speed import Speed
    from tfzoo.training.strategy import choose, gathered, is_chief

    options["data"] = absolute(options["data"])  # the run may be evaluated from another folder
    if "data" in given:
        given = {**given, "data": options["data"]}
    begun = run_folder.unfinished(output)
    run_folder.check(output)
    if begun:
        for place in ("checkpoints", "tensorboard", "samples"):
            run_folder.check(output / place)
        was = run_folder.same(output, {"family": name, **given}, recipes.DEFAULTS | recipe.DEFAULTS)
        options |= {k: v for k, v in was.items() if k in options}
    elif hasattr(recipe, "settings"):
        options["settings"] = settled(name, recipe, options)
    chosen = choose(strategy)
    chief = is_chief(chosen)
    say = print if chief else lambda text: None
    start = where(output, begun, resume, from_step) if chief or begun else 0
    starts = gathered(chosen, start)
    if len(set(starts)) > 1:
        time.sleep(2)  # seconds: another may still be reading this one's, and would say that a worker is lost
        raise ValueError(
            f"the workers do not see the same run: they would go on behind the steps {', '.join(map(str, starts))}. "
            f"--output must be on a file system that all of them share. Received: {output}"
        )
    if chief and not begun:
        run_folder.check_new(output)
    check_devices(options, chosen)
    keras.utils.set_random_seed(options["seed"])
    per_epoch, epochs = options["steps_per_epoch"], options["epochs"]

    with chosen.scope():
        model = build(name, options)
        data = {key: options[key] for key in ("batch_size", "seed", "mix", "values") if key in options}
        data |= recipes.follows(recipe, model)
        shape = model.input_shape[1:]
        datasets = recipe.datasets(options["data"], shape, **data, start=start)
        recipe.compile(model, optimizer=functools.partial(optimizer, options), jit_compile=options["jit"])
    if options["early_stopping"] and datasets.validation is None:
        raise ValueError(f"--early-stopping wants a validation, and the recipe of {name} has none. Leave it out.")
    if begun and was["examples"] != datasets.description:
        raise ValueError(
            f"the data is not what the run in {output} began with, so it would not go on as if nothing had happened.\n"
            f"  There: {was['examples']}\n  Now:   {datasets.description}\n"
            "Put the data back as it was, or begin anew in another --output."
        )
    say(f"{name} ({model.count_params():,} parameters) on {datasets.description}")
    if chosen.num_replicas_in_sync > 1:
        say(f"{type(chosen).__name__}: {chosen.num_replicas_in_sync} devices in step")
    if dry_run:
        say(f"would train {epochs * per_epoch - start} steps into {output}:")
        for key, value in options.items():
            say(f"  {key} = {value!r}")
        return False

    def batch_of(step):
        return next(iter(recipe.datasets(options["data"], shape, **data, start=step).training))

    drawn = {"values": options["values"]} if "values" in options else {}

    def sample(model, path):
        recipe.draw(model, datasets.validation, path, **datasets.named, **drawn)

    with run_folder.room(output):
        if chief and not begun:
            how = {"strategy": strategy, "devices": chosen.num_replicas_in_sync}  # may be others when the run goes on
            of = {"examples": datasets.description, **datasets.named}
            run_folder.create(output, {"family": name, **options, **how, **of})
            run_folder.describe(output, model, epochs * per_epoch)
        if title:
            print(title)
        if start:
            say(f"going on after step {start} of {epochs * per_epoch}")
        log = run_folder.Log(output, start // per_epoch, write=chief)
        stop = run_folder.StopEarly(options["early_stopping"], log)
        speed = Speed(options["batch_size"], steps_per_epoch=per_epoch, epochs=epochs, start=start)
        double = Double(model, functools.partial(build, name, options))
        pictures = sample if datasets.validation is not None else None
        watch = Watching(output, start // per_epoch, speed=speed, double=double, sample=pictures) if chief else None
        shown = watch.progress if watch else contextlib.nullcontext()
        with left_behind(output), repaired(model, first_step=start % per_epoch), shown:
            model.fit(
                shared(datasets.training),
                initial_epoch=epochs if stop.reached() else start // per_epoch,
                epochs=epochs,
                steps_per_epoch=per_epoch,
                validation_data=datasets.validation and shared(datasets.validation),
                callbacks=callbacks(output, options, start, log, stop, speed, watch, batch_of),
                shuffle=False,  # the recipe's pipeline does it
                verbose=0,  # `watch` says more, and of the whole run
            )
        if watch:
            run_page.write(output)
            trained = {"epochs": len(log.rows), "steps": len(log.rows) * per_epoch}
            run_folder.write_json(output / "training.json", trained | run_folder.totals(watch.speeds.rows))
    return chief


def settled(name: str, recipe, options: dict[str, Any]) -> dict[str, Any]:
    """Give the builder's options, those of the recipe and those asked for; raises a ValueError of all that is wrong."""
    problems: list[str] = []
    with refused(problems):
        return recipe.settings(options) | options["settings"]
    with refused(problems):
        if options["settings"]:  # else nothing of what is built was asked for
            build(name, options)
    raise ValueError("\n".join(problems))


@contextlib.contextmanager
def left_behind(output: pathlib.Path) -> Iterator[None]:
    """Say what is left of a run whose numbers are no longer numbers; raises RunFailed."""
    from tfzoo.training.checkpoint import kept

    try:
        yield
    except FloatingPointError as error:
        best, good = sorted(output.glob("best*.keras")), kept(output / "checkpoints")
        raise RunFailed(
            f"{error} Last good model: {', '.join(map(str, best)) or 'none, no epoch ended well'}; last good "
            f"checkpoint: {f'step {good[-1]}' if good else 'none'}. Try a lower --learning-rate, or --clip 1, in "
            "another --output."
        ) from error


def check_devices(options: dict[str, Any], strategy) -> None:
    """Refuse options that these devices cannot do; raises a ValueError."""
    devices = strategy.num_replicas_in_sync
    if options["batch_size"] % devices:
        raise ValueError(
            f"--batch-size is shared by all {devices} devices, so it must be a multiple of {devices}. "
            f"Received: {options['batch_size']}"
        )
    if options["jit"] and devices > 1 and not all("GPU" in device for device in strategy.extended.worker_devices):
        raise ValueError("--jit works on one device or on GPUs: XLA cannot add gradients up over CPUs. Leave it out.")


def callbacks(
    output: pathlib.Path, options: dict[str, Any], start: int, log, stop, speed, watch, batch_of: Callable
) -> list:
    """Give what watches, judges and keeps a training, in the order in which it has to be.

    Args:
        output: The run folder.
        options: The run's.
        start: The step that it begins behind.
        log: A `run_folder.Log` of it.
        stop: A `run_folder.StopEarly`.
        speed: A `tfzoo.training.speed.Speed` of it.
        watch: The `Watching` of the process that writes; None in the others.
        batch_of: Gives the batch of a step.
    """
    from apps import run_folder
    from tfzoo.training.checkpoint import Checkpoints
    from tfzoo.training.ema import ExponentialMovingAverage
    from tfzoo.training.learning_rates import LearningRates
    from tfzoo.training.nan_guard import StopAtNaN

    per_epoch = options["steps_per_epoch"]
    averages = [ExponentialMovingAverage(options["ema"])] if options["ema"] else []
    saved = averages[0].swapped if averages else contextlib.nullcontext
    every = options["checkpoint_steps"]
    return [
        speed,
        StopAtNaN(per_epoch, batch_of),
        LearningRates(),
        *averages,
        *([run_folder.KeepModels(output, log, saved), *watch.callbacks(saved)] if watch else []),
        log,
        stop,
        Checkpoints(output / "checkpoints", steps_per_epoch=per_epoch, every=every, begin=start, others=averages),
    ]


def where(output: pathlib.Path, begun: bool, resume: bool | None, from_step: int | None) -> int:
    """Find the step that a run begins behind; raises a ValueError if that is not what was asked for."""
    from tfzoo.training import checkpoint

    if (resume or from_step) and not begun:
        raise ValueError(
            f"--resume and --from-step go on with an unfinished run, and {output} holds none. Leave them out to begin "
            "one, or name its folder with --output."
        )
    if begun and resume is False:
        raise ValueError(f"{output} holds an unfinished run. Leave --no-resume out to go on, or name another --output.")
    there = checkpoint.kept(output / "checkpoints")
    if from_step and from_step not in there:
        raise ValueError(f"no checkpoint of step {from_step}. Accepted for --from-step: {', '.join(map(str, there))}.")
    return from_step or (there[-1] if there else 0)


def build(name: str, options: dict[str, Any]):
    """Build the model in the asked precision; Keras' own setting is left as it was."""
    import keras

    import tfzoo

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(options["precision"])
    try:
        return tfzoo.build(name, size=options["size"], **options["settings"])
    except TypeError as error:  # such as a text where the builder counts
        raise ValueError(f"{name} cannot be built with {options['settings']}: {error}. Look at --set.") from error
    finally:
        keras.config.set_dtype_policy(before)


def optimizer(options: dict[str, Any], kind: type, *, rate: float = 1.0, steps_in_a_batch: int = 1, **arguments: Any):
    """Make an optimizer with the run's schedule, clipping and accumulation.

    Args:
        options: The run's.
        kind: A class of `keras.optimizers`.
        rate: Its learning rate, as a factor of the run's.
        steps_in_a_batch: How often it steps on every batch, such as the critic's of `two_optimizers`.
        arguments: More for its constructor.
    """
    from tfzoo.training.schedules import schedule

    steps = options["epochs"] * options["steps_per_epoch"] * steps_in_a_batch
    return kind(
        schedule(options["schedule"], rate * options["learning_rate"], steps, options["warm_up"]),
        global_clipnorm=options["clip"] or None,
        gradient_accumulation_steps=options["accumulate"] if options["accumulate"] > 1 else None,
        **arguments,
    )


def shared(dataset):
    """Let each worker take its own part of every batch, unless the data set is its own part."""
    import tensorflow as tf

    kinds = tf.data.experimental.AutoShardPolicy
    if dataset.options().experimental_distribute.auto_shard_policy == kinds.OFF:  # of tfzoo.data.numbers
        return dataset
    how = tf.data.Options()
    how.experimental_distribute.auto_shard_policy = kinds.DATA
    return dataset.with_options(how)
