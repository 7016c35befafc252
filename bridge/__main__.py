"""The `bridge` command; `python -m bridge` is the same. To print help, no framework is imported."""

import math
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from bridge import progress
from bridge.files import FULL, writing
from bridge.graph import BridgeError
from bridge.progress import printable

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=(
        "Carry models between Keras and PyTorch, with a proof that both sides are the same. "
        "Exit codes: 0 done and verified, 1 done but verification failed, 2 bad input or refused, "
        "3 the run failed (as on a full disk), 130 stopped by Ctrl-C."
    ),
)
LIMIT = 2**28  # values of an example input, 1 GiB; far above what a network is tried with
DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
Import = Annotated[
    list[str], typer.Option("--import", help="Module to import first, for classes and rules of your own.")
]
Trust = Annotated[
    bool, typer.Option("--trust", help="A folder's model.py, a SavedModel, or what is in a .pt2, may be run.")
]
Shape = Annotated[
    list[str],
    typer.Option(
        "--input", help="For module:function: shape of an input: 2,3,224,224, '2,3,?,?' with open sizes, 2,16:int64."
    ),
]
KERAS = "A .keras, .h5 or .json file, or module:function."
TRAINED = "A .keras, .h5 or .json file, module:function, a run folder of `tfzoo train`, or a SavedModel (by ONNX)."
TORCH = "A folder of `bridge to-torch`, a .pt2 file, or module:function."
CHECKPOINT = (
    "A .keras, .weights.h5, .h5, .safetensors or .pt file, or what tf.train.Checkpoint has written: prefix or folder."
)
NoVerify = Annotated[bool, typer.Option("--no-verify", help="Do not compare the two sides.")]


@app.command()
def to_torch(
    source: Annotated[str, typer.Argument(metavar="SRC", help=TRAINED)],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="New folder; by default the name of SRC with _torch.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="For a .json or module:function: .weights.h5; by default the one beside a .json.")
    ] = None,
    exact_training: Annotated[
        bool, typer.Option("--exact-training", help="Train as Keras does where torch's own modules do not.")
    ] = False,
    training: Annotated[
        bool, typer.Option("--training", help="Of a compiled .keras the optimizer, too; of a run folder it always is.")
    ] = False,
    no_verify: NoVerify = False,
    trust: Trust = False,
    imports: Import = [],  # noqa: B006 - typer copies it
):
    """Write a Keras model as a folder of PyTorch source, weights and a report; with its optimizer, if it has one."""
    _begin(imports)
    from bridge import by_onnx, resume, trainings
    from bridge.folder import save_torch

    output = output or Path(f"{_stem(source)}_torch")
    if by_onnx.is_saved_model(source):
        _refuse(source, {"--weights": weights, "--training": training, "--exact-training": exact_training})
        by_onnx.trusted(source, trust)
        share = by_onnx.to_torch(source, output)
        print(by_onnx.SAID)
        _close(share, "torch", output)
    optimizer = None
    if training or trainings.is_run(source):
        _refuse(source, {"--weights": weights})
        model, optimizer = trainings.load(source)
    else:
        model = _keras(source, weights)
    options = {"verify": not no_verify, "exact_training": exact_training, "optimizer": optimizer}
    report = save_torch(model, output, **options)
    if optimizer is not None:
        rule = f"{type(optimizer).__name__} by Keras' rule, after {int(optimizer._iterations):,} steps"
        print(printable(f"the training goes on with {output / resume.PROGRAM}: {rule}"))
    _finish(report, output)


@app.command()
def to_keras(
    source: Annotated[str, typer.Argument(metavar="SRC", help=TORCH)],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="New .keras file; by default the name of SRC.")
    ] = None,
    shape: Shape = [],  # noqa: B006
    weights: Annotated[str | None, typer.Option(help="For module:function: state dict, .safetensors or .pt.")] = None,
    no_verify: NoVerify = False,
    trust: Trust = False,
    imports: Import = [],  # noqa: B006
):
    """Write a PyTorch module as a .keras file."""
    _begin(imports)
    output = output or Path(f"{_stem(source)}.keras")
    if output.suffix != ".keras":
        raise BridgeError(f"{output}: the output is a .keras file")
    if output.exists():
        raise BridgeError(f"{output} exists already: name a new file, or remove that one")
    from bridge import trainings
    from bridge.convert import to_keras as convert

    model, module = _with_examples(convert, source, shape, weights, trust)
    trainings.compile_as(model, module, source)
    report = None
    if not no_verify:
        from bridge.verification import verify as compare

        report = compare(model, module)
    _save_keras(model, output)
    _finish(report, output)


@app.command()
def to_onnx(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A model of either framework, or a SavedModel.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="New .onnx file; by default the name of SRC.")
    ] = None,
    shape: Shape = [],  # noqa: B006
    weights: Annotated[
        str | None, typer.Option(help="For a .json or module:function: .weights.h5, .safetensors or .pt.")
    ] = None,
    trust: Trust = False,
    imports: Import = [],  # noqa: B006
):
    """Write a model as ONNX, by tf2onnx or torch.onnx, and run it by onnxruntime; needs the extra `onnx`."""
    _begin(imports)
    from bridge import by_onnx

    output = output or Path(f"{_stem(source)}.onnx")
    by_onnx.check(output)
    if by_onnx.is_saved_model(source):
        _refuse(source, {"--weights": weights, "--input": shape})
        by_onnx.trusted(source, trust)
        proto, share = by_onnx.of_saved_model(source)[:2]
    elif Path(source).is_dir() or source.endswith(".pt2"):
        proto, share = _with_examples(by_onnx.of_torch, source, shape, weights, trust)[0]
    else:
        (model,) = _load([source], trust, [weights] if weights else [])
        if _is_keras(model):
            proto, share = by_onnx.of_keras(model)
        else:
            proto, share = _at_shapes(by_onnx.of_torch, model, source, shape)
    by_onnx.write(proto, output)
    _close(share, "onnxruntime", output)


@app.command()
def verify(
    first: Annotated[str, typer.Argument(metavar="A", help=KERAS)],
    second: Annotated[str, typer.Argument(metavar="B", help=TORCH)],
    weights: Annotated[
        list[str], typer.Option(help="For a .json or module:function: .weights.h5, .safetensors or .pt.")
    ] = [],  # noqa: B006
    html: Annotated[Path | None, typer.Option(help="Write the report as a page.")] = None,
    via: Annotated[
        str | None, typer.Option(help="onnx: run the Keras model by onnxruntime, too, and compare all three.")
    ] = None,
    trust: Trust = False,
    imports: Import = [],  # noqa: B006
):
    """Compare a Keras model and a PyTorch module in everything that can be compared."""
    _begin(imports)
    from bridge import onnx
    from bridge.verification import verify as compare

    if via not in (None, "onnx"):
        raise BridgeError(f"--via {via}: accepted is onnx")
    if via:
        onnx.check()

    if html:
        _check_page(html)
    a, b = _load([first, second], trust, weights)
    if not _is_keras(a):
        a, b, first, second = b, a, second, first
    _expect(a, "keras", first)
    _expect(b, "torch", second)
    report = compare(a, b)
    for pair, share in (onnx.three_ways(a, b) if via else {}).items():
        said = f"{pair} differ by {share:.1e} of the largest output (float32)"
        report.note_once(said) if share <= onnx.LIMIT else report.fail("onnx", f"{said}, limit {onnx.LIMIT:.0e}")
    if html:
        with writing(html) as side:
            side.write_text(report.to_html(), encoding="utf-8")
    _finish(report, html)


@app.command()
def inspect(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A model of either framework.")],
    shape: Shape = [],  # noqa: B006
    trust: Trust = False,
    imports: Import = [],  # noqa: B006
):
    """List every layer: its rule, weights and shapes, and what would be refused."""
    _begin(imports)
    from bridge.inspect import layers

    graph, obstacles = _read(source, shape, trust)
    _table(["layer", "operator", "rule", "output", "weights"], layers(graph, obstacles))
    print(
        f"{len(graph.nodes)} operators, {sum(p.value.size for p in graph.parameters.values()):,} parameters, "
        f"{len(obstacles)} refused"
    )
    raise typer.Exit(2 if obstacles else 0)


@app.command()
def rules(imports: Import = []):  # noqa: B006
    """List what is supported, read from the folder of rules."""
    from bridge.inspect import supported

    if imports:
        _begin(imports)

    _table(["rule", "what it is", "Keras", "PyTorch"], supported())


@app.command()
def weights(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help=f"{CHECKPOINT[:-1]}; or a model of the other framework.")
    ],
    into: Annotated[str, typer.Option("--into", metavar="MODEL", help="A model of either framework.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="New .keras or .weights.h5 of a Keras model, .safetensors or .pt of torch's."
        ),
    ] = None,
    names: Annotated[
        str | None,
        typer.Option(help="Table of a state dict's names: a .json, or module:TABLE as tfzoo.resnet:NAMES.torchvision."),
    ] = None,
    shape: Shape = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would go where, and write nothing.")] = False,
    trust: Trust = False,
    imports: Import = [],  # noqa: B006
):
    """Put the weights of a checkpoint or a model into a model of your own, whatever its layers are called."""
    from bridge import filling

    if not dry_run and output is None:
        raise BridgeError("give -o with a new file for the filled model, or --dry-run to see what would be filled")
    if output is not None and not dry_run:
        filling.check(output)
    _begin(imports)
    given = (lambda use, module: _at_shapes(use, module, into, shape)) if shape else None
    target, plan = filling.plan(source, into, names, trust, given)
    if dry_run:
        lines = [
            [r.source, r.target, r.transform, *(str(list(s)) for s in (r.source_shape, r.target_shape)), r.how]
            for r in plan.rows()
        ]
        _table(["source", "target", "transform", "its shape", "becomes", "known"], lines)
        print(f"{len(lines):,} tensors")
    else:
        plan.fill()
        filling.write(target, output)
        progress.hide()
        print(f"wrote {output}")
    for note in plan.notes:
        print(printable(f"note: {note}"))


@app.command()
def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help=CHECKPOINT)],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="New .safetensors, .h5 or .pt file.")],
):
    """Write a checkpoint as another kind of file, tensor by tensor; names and numbers stay."""
    from bridge.checkpoints import conversion

    count, size, left_out = conversion.convert(source, output)
    if left_out:
        print(printable(f"left out, as no tensors of numbers: {', '.join(left_out)}"))
    print(printable(f"wrote {output}: {count:,} tensors, {size:,} bytes"))


@app.command()
def diff(
    first: Annotated[str, typer.Argument(metavar="A", help=CHECKPOINT)],
    second: Annotated[str, typer.Argument(metavar="B", help="The same.")],
):
    """Compare two checkpoints of any kinds: what is missing, extra, of another shape, and the largest difference."""
    from bridge.checkpoints import difference

    found = difference.compare(first, second)
    if lines := difference.rows(found):
        _table(["tensor", "A", "B", "largest difference", "of the largest number"], lines)
    print(
        f"{found.equal:,} the same, {len(found.far):,} of other numbers, {len(found.shapes):,} of another shape, "
        f"{len(found.dtypes):,} of another dtype, {len(found.missing):,} only in A, {len(found.extra):,} only in B"
    )
    raise typer.Exit(1 if found else 0)


def _table(columns: list[str], rows) -> None:
    from rich.table import Table
    from rich.text import Text

    from bridge.inspect import show_table

    progress.hide()
    table = Table(*columns)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))  # Text: names are never read as markup
    show_table(table)


def _begin(imports: list[str]) -> None:
    """Import TensorFlow without its start-up lines, then the user's own modules."""
    from bridge import _quiet, sources

    progress.show()
    progress.log.info("importing the frameworks")
    _quiet.import_tensorflow()
    sources.import_modules(imports)


def _read(source: str, shape: list[str], trust: bool):
    """Read a model of either framework into a graph, with what stands in its way."""
    from bridge import keras_reader, torch_reader, training_mode

    obstacles = []

    def read(module, example_inputs, dynamic):
        obstacles.clear()  # of a size that did not fit
        training = training_mode.look(module, example_inputs, dynamic)
        return torch_reader.read(module, example_inputs, dynamic, obstacles=obstacles, training=training)

    if Path(source).is_dir() or source.endswith(".pt2"):
        return _with_examples(read, source, shape, None, trust)[0], obstacles
    (model,) = _load([source], trust, bare=True)
    if not _is_keras(model):
        return _at_shapes(read, model, source, shape), obstacles
    if shape:
        raise BridgeError(f"{source} is a Keras model, which holds its own shapes: leave out --input")
    return keras_reader.read(model, obstacles=obstacles), obstacles


def _refuse(source: str, options: dict) -> None:
    """Refuse, of these options, those that were given with a folder or file that holds all of it."""
    if given := [option for option, value in options.items() if value]:
        kind = "a folder, which" if Path(source).is_dir() else "a file that"
        raise BridgeError(f"{source} is {kind} holds its own shapes and weights: leave out {' and '.join(given)}")


def _load(names: list[str], trust: bool = False, weights: list[str] = [], bare: bool = False) -> list:  # noqa: B006
    """Load models, each with those of the files of weights that are for it; all must be for one of them."""
    from bridge import sources

    left = list(weights)
    models = [sources.load(name, trust, left, bare) for name in names]
    if left:
        raise BridgeError(
            f"--weights {left[0]}: {' and '.join(names)} cannot take it. Accepted: .weights.h5, .h5 or .keras for a "
            ".json file or the Keras model of module:function, .safetensors or .pt for its torch module"
        )
    return models


def _with_examples(use: Callable, source: str, shape: list[str], weights: str | None, trust: bool):
    """Call `use(module, example_inputs, dynamic)` for a source of torch, and give the result and the module."""
    from bridge import folder, sources

    if Path(source).is_dir() or source.endswith(".pt2"):
        _refuse(source, {"--input": shape, "--weights": weights})
        if Path(source).is_dir():
            return folder.with_examples(use, source, trust)
        module, examples, dynamic = sources.load_program(source, trust)
        return use(module, examples, dynamic), module
    (module,) = _load([source], trust, [weights] if weights else [])
    _expect(module, "torch", source)
    return _at_shapes(use, module, source, shape), module


def _at_shapes(use: Callable, module, source: str, shape: list[str]):
    """Call `use(module, example_inputs, dynamic)` with tensors of the shapes of --input."""
    from bridge.folder import examples

    if not shape:
        raise BridgeError(f"{source}: give the shape of each input of the module, such as --input 2,3,224,224")
    dtypes = [_dtype(text) for text in shape]
    shapes = [_shape(text.partition(":")[0]) for text in shape]
    if not any(None in s for s in shapes):
        import torch

        tensors = [torch.randn(*s) if "float" in d else torch.ones(*s) for s, d in zip(shapes, dtypes, strict=True)]
        return use(module, tuple(x.to(getattr(torch, d)) for x, d in zip(tensors, dtypes, strict=True)), None)
    shapes = [(None, *s[1:]) for s in shapes]  # the batch is open, too
    inputs = {f"input{i}": x for i, x in enumerate(zip(shapes, dtypes, strict=True))}
    return examples(lambda *given: use(module, *given), inputs)


def _stem(source: str) -> str:
    return Path(source.replace(":", "_")).stem or "model"


def _is_keras(model) -> bool:
    import keras

    return isinstance(model, keras.Model)


def _expect(model, framework: str, source: str) -> None:
    import keras
    import torch

    wanted = keras.Model if framework == "keras" else torch.nn.Module
    accepted = "a .keras, .h5 or .json file" if framework == "keras" else "a folder of `bridge to-torch`, a .pt2 file"
    accepted += f", or module:function that returns a {'keras.Model' if framework == 'keras' else 'torch.nn.Module'}"
    if not isinstance(model, wanted):
        raise BridgeError(
            f"{source} must be a {framework} model. Received: {type(model).__name__}. Accepted: {accepted}"
        )


def _keras(source: str, weights: str | None):
    (model,) = _load([source], weights=[weights] if weights else [])
    _expect(model, "keras", source)
    return model


def _shape(text: str) -> tuple[int | None, ...]:
    """The sizes of --input; None for those that stay open, by a question mark."""
    try:
        shape = tuple(None if n.strip() == "?" else int(n) for n in text.split(","))
        if min(n for n in (1, *shape) if n is not None) < 1 or len(shape) > 8:
            raise ValueError
    except ValueError:
        raise BridgeError(f"--input {text}: accepted are sizes such as 2,3,224,224, or '2,3,?,?'") from None
    values = math.prod(n or 1 for n in shape)
    if values > LIMIT:
        raise BridgeError(f"--input {text}: {values:,} values. Accepted: up to {LIMIT:,}, such as 2,3,224,224")
    return shape


def _dtype(text: str) -> str:
    """The dtype of --input, behind a colon."""
    dtype = text.partition(":")[2] or "float32"
    if dtype not in DTYPES:
        raise BridgeError(f"--input {text}: accepted dtypes are {', '.join(DTYPES)}")
    return dtype


def _save_keras(model, output: Path) -> None:
    with writing(output) as side:
        model.save(side)


def _check_page(path: Path) -> None:
    """Refuse before the comparison, which may take minutes, what could not be written after it."""
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        why = "it is a folder" if path.is_dir() else f"{folder} is no folder that can be written to"
        raise BridgeError(f"--html {path}: {why}. Accepted: a file, new or old, in a folder that is there")


def _close(share: float, other: str, output: Path) -> None:
    """End with how far a second opinion is from the model."""
    from bridge import onnx

    progress.hide()
    print(f"{other}'s outputs differ by {share:.1e} of the largest (limit {onnx.LIMIT:.0e})")
    print(f"wrote {output}")
    raise typer.Exit(0 if share <= onnx.LIMIT else 1)


def _finish(report, output) -> None:
    progress.hide()
    if report is not None:
        print(printable(report))
    if output is not None:
        print(f"wrote {output}")
    raise typer.Exit(1 if report is not None and not report.passed else 0)


def main() -> None:
    """Run the command line."""
    os.environ["KERAS_BACKEND"] = "tensorflow"  # the oracle; whatever Keras is set to elsewhere
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        try:
            app(prog_name="bridge")
        finally:
            progress.hide()
    except SystemExit as e:
        if e.code == 128 + signal.SIGINT:  # typer's own code, without a word
            print("interrupted", file=sys.stderr)
        raise
    except (BridgeError, OSError) as e:
        print(f"error: {printable(e)}", file=sys.stderr)
        full = isinstance(e, OSError) and e.errno in FULL
        raise SystemExit(3 if full else getattr(e, "exit_code", 2)) from None
    except MemoryError:
        print("error: there is not enough memory", file=sys.stderr)
        raise SystemExit(3) from None
    except Exception as e:  # Python's own exit code would be 1: verification failed
        traceback.print_exc()
        print(
            f"error: a fault of bridge itself ({type(e).__name__}): please report it with the lines above",
            file=sys.stderr,
        )
        raise SystemExit(3) from None


if __name__ == "__main__":
    main()
