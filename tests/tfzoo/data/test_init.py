"""What `--data` may say, and what is said about what it may not."""

import ast
import itertools
import pathlib

import pytest
from typer.testing import CliRunner

import tfzoo.data
from apps.__main__ import application


@pytest.mark.parametrize("kind", tfzoo.data.KINDS)
def test_a_folder_can_be_of_every_kind(kind):
    assert any("folder" in text for text in tfzoo.data.accepted(kind))
    assert "folder" in tfzoo.data.accepted(kind)[-1]


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("nowhere", "masks", "there is no folder nowhere. Accepted for --data: pasted_digits (digits on photographs"),
        ("nowhere", "masks", "; a folder with images/ and masks/, in train/ val/ test/ or not."),
        ("nowhere", "audio", "there is no folder nowhere. Accepted for --data: a folder with WAV or FLAC files"),
        ("digits", "masks", "digits does not give float32 pictures"),
        ("pasted_digits", "classes", "; digits (handwritten, embedded); keras:mnist|fashion_mnist|"),
        ("keras:mnist", "audio", "keras:mnist does not give float32 waveforms"),
        ("keras:imagenet", "classes", "there is no data keras:imagenet. Accepted for --data: keras:mnist, keras:"),
    ],
)
def test_refusals(text, kind, message):
    with pytest.raises(ValueError) as error:
        tfzoo.data.open(text, kind, seed=0, image_shape=(32, 32, 3))
    assert message in str(error.value)


EMBEDDED = [
    (source.PATTERN, kind) for source in tfzoo.data.every() for kind, said in source.KINDS.items() if "embedded" in said
]


@pytest.mark.parametrize("part", ["training", "validation", "held_out"])
@pytest.mark.parametrize(("text", "kind"), EMBEDDED)
def test_every_part_of_embedded_data_has_an_end(text, kind, part):
    pictures = {"validation": 5, "held_out": 3}
    shape = (32, 32, 3) if kind == "masks" else (32, 32, 1)
    examples = getattr(tfzoo.data.open(text, kind, seed=0, image_shape=shape, pictures=pictures), part)
    assert len(list(itertools.islice(examples, len(examples) + 1))) == len(examples) > 0  # not for ever, if it fails


def test_embedded_data_was_found():
    assert {text for text, _ in EMBEDDED} == {"digits", "cluttered_digits", "pasted_digits"}


def test_a_name_is_not_taken_for_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert tfzoo.data.absolute("digits") == "digits"
    assert tfzoo.data.absolute("./digits") == str(tmp_path / "digits")
    assert tfzoo.data.absolute("nowhere") == "nowhere"
    assert tfzoo.data.open("digits", "classes", seed=0).classes == tuple("0123456789")
    with pytest.raises(ValueError, match="cannot be used: it must hold one folder of pictures"):
        tfzoo.data.open("./digits", "classes", seed=0)


def test_the_command_ends_with_2():
    result = CliRunner().invoke(application(), ["train", "unet", "--data", "digits", "--output", "never"])
    assert result.exit_code == 2 and not pathlib.Path("never").exists()
    assert result.stderr.startswith("error: digits does not give float32 pictures")


def test_no_source_imports_a_framework():
    for source in tfzoo.data.every():
        nodes = ast.parse(pathlib.Path(source.__file__).read_text()).body
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        assert not {name.partition(".")[0] for name in names} & {"keras", "tensorflow", "tensorflow_datasets"}
