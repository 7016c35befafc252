"""The `bridge` command; `python -m bridge` is the same. To print help, no framework is imported."""

import math
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from bridge.files import FULL, writing
from bridge.graph import BridgeError

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
Import = Annotated[list[str], typer.Option("--import", help="Module to import first, for classes of your own.")]
Trust = Annotated[bool, typer.Option("--trust", help="A folder's model.py may be run.")]
NoVerify = Annotated[bool, typer.Option("--no-verify", help="Do not compare the two sides.")]


@app.command()
def to_torch(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A .keras or .h5 file, or module:function.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="New folder; by default the name of SRC with _torch.")
    ] = None,
    exact_training: Annotated[
        bool, typer.Option("--exact-training", help="Train as Keras does where torch's own modules do not.")
    ] = False,
    no_verify: NoVerify = False,
    imports: Import = [],  # noqa: B006 - typer copies it
):
    """Write a Keras model as a folder of PyTorch source, weights and a report."""
    _begin(imports)
    from bridge.folder import save_torch

    output = output or Path(f"{_stem(source)}_torch")
    report = save_torch(_keras(source), output, verify=not no_verify, exact_training=exact_training)
    _finish(report, output)


@app.command()
def to_keras(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A folder of `bridge to-torch`, or module:function.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="New .keras file; by default the name of SRC.")
    ] = None,
    shape: Annotated[
        list[str], typer.Option("--input", help="For module:function: shape of an input, such as 2,3,224,224.")
    ] = [],  # noqa: B006
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
    if Path(source).is_dir():
        _refuse(source, {"--input": shape, "--weights": weights})
        from bridge.folder import load_keras_from

        model, module = load_keras_from(source, trust)
    else:
        from bridge import sources
        from bridge.convert import to_keras as convert

        module = sources.load(source, trust)
        _expect(module, "torch", source)
        if weights:
            sources.load_state(module, weights)
        if not shape:
            raise BridgeError(f"{source}: give the shape of each input, such as --input 2,3,224,224")
        model = convert(module, tuple(map(_example, shape)))
    report = None
    if not no_verify:
        from bridge.verification import verify as compare

        report = compare(model, module)
    _save_keras(model, output)
    _finish(report, output)


@app.command()
def verify(
    first: Annotated[str, typer.Argument(metavar="A", help="A .keras or .h5 file, or module:function.")],
    second: Annotated[str, typer.Argument(metavar="B", help="A folder of `bridge to-torch`, or module:function.")],
    html: Annotated[Path | None, typer.Option(help="Write the report as a page.")] = None,
    trust: Trust = False,
    imports: Import = [],  # noqa: B006
):
    """Compare a Keras model and a PyTorch module in everything that can be compared."""
    _begin(imports)
    from bridge import sources
    from bridge.verification import verify as compare

    if html:
        _check_page(html)
    a, b = (sources.load(s, trust) for s in (first, second))
    if not _is_keras(a):
        a, b, first, second = b, a, second, first
    _expect(a, "keras", first)
    _expect(b, "torch", second)
    report = compare(a, b)
    if html:
        with writing(html) as side:
            side.write_text(report.to_html(), encoding="utf-8")
    _finish(report, html)


@app.command()
def inspect(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A model of either framework.")],
    shape: Annotated[list[str], typer.Option("--input", help="For a PyTorch module: shape of an input.")] = [],  # noqa: B006
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
def rules():
    """List what is supported, read from the folder of rules."""
    from bridge.inspect import supported

    _table(["rule", "what it is", "Keras", "PyTorch"], supported())


def _table(columns: list[str], rows) -> None:
    from rich.table import Table
    from rich.text import Text

    from bridge.inspect import show_table

    table = Table(*columns)
    for row in rows:
        table.add_row(*map(Text, row))  # Text: names are shown as they are, never read as markup
    show_table(table)


def _begin(imports: list[str]) -> None:
    """Import TensorFlow without its start-up lines, then the user's own modules."""
    from bridge import _quiet, sources

    _quiet.import_tensorflow()
    sources.import_modules(imports)


def _refuse(source: str, options: dict) -> None:
    """Refuse, of these options, those that were given with a folder."""
    if given := [option for option, value in options.items() if value]:
        raise BridgeError(
            f"{source} is a folder, which holds its own shapes and weights: leave out {' and '.join(given)}"
        )


def _read(source: str, shape: list[str], trust: bool):
    """Read a model of either framework into a graph, with what stands in its way."""
    from bridge import keras_reader, sources, torch_reader

    obstacles = []
    if Path(source).is_dir():
        _refuse(source, {"--input": shape})
        from bridge.folder import with_examples

        def read(module, example_inputs, dynamic):
            obstacles.clear()  # of a size that did not fit
            return torch_reader.read(module, example_inputs, dynamic, obstacles=obstacles)

        return with_examples(read, source, trust)[0], obstacles
    model = sources.load(source, trust)
    if _is_keras(model):
        if shape:
            raise BridgeError(f"{source} is a Keras model, which holds its own shapes: leave out --input")
        return keras_reader.read(model, obstacles=obstacles), obstacles
    if not shape:
        raise BridgeError(f"{source}: give the shape of each input of the module, such as --input 2,3,224,224")
    return torch_reader.read(model, tuple(map(_example, shape)), obstacles=obstacles), obstacles


def _stem(source: str) -> str:
    return Path(source.replace(":", "_")).stem or "model"


def _is_keras(model) -> bool:
    import keras

    return isinstance(model, keras.Model)


def _expect(model, framework: str, source: str) -> None:
    import keras
    import torch

    wanted = keras.Model if framework == "keras" else torch.nn.Module
    accepted = "a .keras or .h5 file" if framework == "keras" else "a folder of `bridge to-torch`"
    accepted += f", or module:function that returns a {'keras.Model' if framework == 'keras' else 'torch.nn.Module'}"
    if not isinstance(model, wanted):
        raise BridgeError(
            f"{source} must be a {framework} model. Received: {type(model).__name__}. Accepted: {accepted}"
        )


def _keras(source: str):
    from bridge import sources

    model = sources.load(source)
    _expect(model, "keras", source)
    return model


def _example(text: str):
    import torch

    try:
        shape = [int(n) for n in text.split(",")]
        if not shape or min(shape) < 1 or len(shape) > 8:
            raise ValueError
    except ValueError:
        raise BridgeError(f"--input {text}: accepted are sizes such as 2,3,224,224") from None
    if math.prod(shape) > LIMIT:
        raise BridgeError(
            f"--input {text}: {math.prod(shape):,} values. Accepted: up to {LIMIT:,}, such as 2,3,224,224"
        )
    return torch.randn(*shape)


def _save_keras(model, output: Path) -> None:
    with writing(output) as side:
        model.save(side)


def _check_page(path: Path) -> None:
    """Refuse before the comparison, which may take minutes, what could not be written after it."""
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        why = "it is a folder" if path.is_dir() else f"{folder} is no folder that can be written to"
        raise BridgeError(f"--html {path}: {why}. Accepted: a file, new or old, in a folder that is there")


def _finish(report, output) -> None:
    if report is not None:
        print(report)
    if output is not None:
        print(f"wrote {output}")
    raise typer.Exit(1 if report is not None and not report.passed else 0)


def main() -> None:
    """Run the command line."""
    os.environ["KERAS_BACKEND"] = "tensorflow"  # the oracle; whatever Keras is set to elsewhere
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        app(prog_name="bridge")
    except SystemExit as e:
        if e.code == 128 + signal.SIGINT:  # typer's own code, without a word
            print("interrupted", file=sys.stderr)
        raise
    except (BridgeError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
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
