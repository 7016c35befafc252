"""Files of strangers: damaged ones, and ones that are made to do harm. Each is refused, or is a model and harmless."""

import contextlib
import json
import pathlib
import random
import resource
import shutil
import sys
import tempfile
import time
import zipfile

import keras
import numpy as np
import pytest
import torch

import bridge
from bridge import BridgeError, __main__, sources, untrusted

layers = keras.layers
CHECKED = ("model.keras", "state.pt", "program.pt2")  # archives with checksums: what is read of one is right
KINDS = (*CHECKED, "model.h5", "model.json", "model.weights.h5", "state.safetensors", "old.pt", "folder")


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.c = torch.nn.Conv2d(2, 3, 3)
        self.b = torch.nn.BatchNorm2d(3)

    def forward(self, x):
        return self.b(self.c(x).relu())


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A file of every kind that is read, and what each makes of an input."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("good")
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(3, 3, name="c"), layers.BatchNormalization()])
    model.save(folder / "model.keras")
    model.save(folder / "model.h5")
    model.save_weights(folder / "model.weights.h5")
    (folder / "model.json").write_text(model.to_json())
    bridge.save_torch(model, folder / "folder", verify=False)
    network = Network().eval()
    torch.save(network.state_dict(), folder / "state.pt")
    torch.save(network.state_dict(), folder / "old.pt", _use_new_zipfile_serialization=False)
    save_file(network.state_dict(), folder / "state.safetensors")
    example = torch.ones(2, 2, 6, 6)
    torch.export.save(torch.export.export(network, (example,)), folder / "program.pt2")
    return folder


@pytest.fixture
def place(good, tmp_path, monkeypatch):
    """A folder of its own with nothing in it but `temporary`, which is where Python's temporary files go."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command in this process, as from a shell: its exit code and what it writes to stdout and stderr."""

    def bridge_command(*arguments):
        monkeypatch.setattr(sys, "argv", ["bridge", *arguments])
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        with pytest.raises(SystemExit) as caught:
            __main__.main()
        return caught.value.code, *capsys.readouterr()

    return bridge_command


def everything(folder):
    return sorted(p.relative_to(folder) for p in folder.rglob("*"))


def put(good, place, kind, change):
    """Write a changed file, with the good ones that belong to it; give the source's name."""
    source = good / kind / "model.safetensors" if kind == "folder" else good / kind
    target = place / "x" / source.name
    target.parent.mkdir(exist_ok=True)
    data = bytearray(source.read_bytes())
    target.write_bytes(change(data))
    if kind == "folder":
        (target.parent / "model.py").write_bytes((good / kind / "model.py").read_bytes())
        return str(target.parent)
    other = {"model.json": "model.weights.h5", "model.weights.h5": "model.json"}.get(kind)
    if other:
        (target.parent / other).write_bytes((good / other).read_bytes())
    return str(target.parent / "model.json" if other else target)


def read(source):
    """Read a source as the commands do, and give the arrays that its model holds and makes of ones."""
    if source.endswith((".pt", ".safetensors")):
        model = Network().eval()
        sources.load_state(model, source)
    else:
        model = sources.load(source, trust=True)
    if isinstance(model, keras.Model):
        return [np.asarray(w) for w in model.weights], lambda: np.asarray(model(np.ones((2, 6, 6, 2)), training=False))
    arrays = [t.numpy() for t in model.state_dict().values()]
    return arrays, lambda: model(torch.ones(2, 2, 6, 6)).detach().numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_truncated(good, place, kind):
    size = (good / "folder/model.safetensors" if kind == "folder" else good / kind).stat().st_size
    for length in sorted({0, 1, 7, 100, size // 3, size // 2, size - 100, size - 1}):
        source = put(good, place, kind, lambda d, n=length: d[:n])
        before = everything(place)
        with pytest.raises(BridgeError) as caught:
            read(source)
        assert "\n" not in str(caught.value), length
        assert everything(place) == before


@pytest.mark.parametrize("kind", KINDS)
def test_bit_flips(good, place, kind):
    """Where a format has no checksum, the numbers and settings of a model may be others; else nothing may."""
    numbers = random.Random(kind)
    wanted, want = read(put(good, place, kind, lambda d: d))
    want, outcomes = want(), {"refused": 0, "read": 0}
    for _ in range(24):

        def flip(data):
            bit = numbers.randrange(8 * len(data))
            data[bit // 8] ^= 1 << bit % 8
            return data

        source = put(good, place, kind, flip)
        before = everything(place)
        try:
            arrays, result = read(source)
        except BridgeError as e:
            assert "\n" not in str(e)
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
            if kind in CHECKED:
                np.testing.assert_array_equal(result(), want)
            if kind != "model.json":
                assert [a.shape for a in arrays] == [a.shape for a in wanted]
        assert everything(place) == before
    assert outcomes["refused"] > 0 or kind not in CHECKED, outcomes


@pytest.mark.parametrize("kind", CHECKED)
def test_a_flip_in_a_weight(good, place, kind):
    """Keras itself goes on with an archive whose checksum is wrong."""
    arrays, _ = read(str(good / kind))
    kernel = max(arrays, key=np.size).tobytes()

    def flip(data):
        data[data.index(kernel) + 3] ^= 1
        return data

    with pytest.raises(BridgeError, match="checksum"):
        read(put(good, place, kind, flip))


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_says_it_in_one_line(good, place, kind, run):
    source = put(good, place, kind, lambda d: d[: len(d) // 2])
    (place / "mine_for_hostile.py").write_text(
        "import torch\ndef net():\n    return torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3))\n"
    )
    arguments = ["to-torch", source, "-o", "out"]
    if kind in ("folder", "program.pt2"):
        arguments = ["to-keras", source, "-o", "out.keras", "--trust"]
    elif kind.endswith((".pt", ".safetensors")):
        arguments = ["to-keras", "mine_for_hostile:net", "--weights", source, "--input", "2,2,6,6", "-o", "out.keras"]
    before = everything(place)
    code, out, err = run(*arguments)
    assert code == 2 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err
    assert everything(place) == before


def edited(path, change):
    """Save a small network as a .keras file whose config.json has been changed as text."""
    image = keras.Input((6, 6, 2), name="PLACE_I")
    inner = keras.Input((6, 6, 3), name="inside")
    nested = keras.Model(inner, layers.Dense(4, name="PLACE_D")(inner), name="PLACE_N")
    x = layers.Conv2D(3, 3, padding="same", name="PLACE_C")(image)
    x = nested(layers.ReLU(negative_slope=0.25, name="PLACE_R")(x))
    keras.utils.set_random_seed(0)
    keras.Model({"PLACE_I": image}, {"PLACE_O": x}, name="PLACE_M").save(path)
    return repack(path, change)


def repack(path, change):
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    held["config.json"] = change(held["config.json"].decode()).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in held.items():
            archive.writestr(name, data)
    return str(path)


PLACES = "CDRNIOM"  # two layers with weights, one without, a nested model, the keys of input and output, the model


def renamed(name, places=PLACES):
    """A change of configuration that gives these places a hostile name each."""

    def change(text):
        for i, letter in enumerate(PLACES):
            new = f"fine{i}" if letter not in places else f"{name}{i}" if len(places) > 1 else name
            text = text.replace(f'"PLACE_{letter}"', json.dumps(new))
        return text

    return change


RUNS = "open('pwned', 'w')"
LONG = "n" * 10_000
NAMES = [
    'a"b',
    "it's",
    '"""',
    f'"); {RUNS}; ("',
    f'"""\n{RUNS}\n"""',
    f"x\n    {RUNS}\n",
    f"{{{RUNS}}}",
    "back\\slash\\",
    "class",
    "__init__",
    "forward",
    "training",
    "state_dict",
    "../../x",
    "/tmp/x",
    "..",
    "a.b",
    "nul\0l",
    "\x1b[2J\x07",
    "\ud800",
    "größe 層 😀 \u202e",
    "<script>alert(1)</script>",
    "",
    " ",
    LONG,
]


@pytest.mark.parametrize("name", NAMES, ids=lambda n: ascii(n)[:24])
def test_hostile_names(place, name):
    """In all places at once; where Keras refuses that, in one after the other."""
    if not carried(place, name, PLACES):
        assert any([carried(place, name, letter) for letter in PLACES]) or name == ""


def carried(place, name, places):
    """Whether a network with a hostile name goes to torch, where it must do no harm and give the same values."""
    source = edited(place / "model.keras", renamed(name, places))
    before = everything(place)
    try:
        model = sources.load(source)
        bridge.save_torch(model, "out", verify=False)
    except BridgeError:
        assert everything(place) == before
        return False
    out = place / "out"
    module = bridge.load_torch("out", trust=True)
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 2)).astype("float32")
    want = next(iter(model({model.inputs[0].name: x}).values()))
    have = next(iter(module(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).values()))
    np.testing.assert_allclose(np.moveaxis(have.detach().numpy(), 1, -1), want, atol=1e-5)
    assert {p.name for p in out.iterdir()} == {"model.py", "model.safetensors"}
    shutil.rmtree(out)
    assert everything(place) == before  # nothing ran, nothing lies elsewhere
    return True


@pytest.mark.parametrize("name", ['"><script>x', "\ud800", "\x1b[2J", f"x\n{RUNS}"], ids=ascii)
@pytest.mark.parametrize("command", ["to-torch", "inspect"])
def test_hostile_names_in_reports(place, name, command, run):
    source = edited(place / "model.keras", renamed(name, PLACES if name != "\ud800" else "OM"))
    code, out, err = run(command, source)
    assert code == 0, err
    assert not any(c in out + err for c in ("\x1b[2J", "\ud800", "Traceback"))
    if command == "to-torch":
        assert "<script>x" not in (place / "model_torch/report.html").read_text(encoding="utf-8")
        json.loads((place / "model_torch/report.json").read_text(encoding="utf-8"))
    assert not (place / "pwned").exists()


def test_two_layers_of_one_name(place):
    with pytest.raises(BridgeError, match="cannot be read as a Keras model"):
        sources.load(edited(place / "model.keras", lambda t: t.replace("PLACE_R", "PLACE_C")))


ACTIVATION = '"activation": "linear"'


def function(home, name):
    return {"module": home, "class_name": "function", "config": name, "registered_name": name}


@pytest.mark.parametrize(
    "activation",
    [
        function("keras.applications.resnet50", "decode_predictions"),  # Keras would call it, and it downloads
        function("keras.utils", "get_file"),
        function("keras", "saving.load_model"),
        function("keras.src.utils.file_utils", "get_file"),
        function("os", "system"),
        function("builtins", "exec"),
        function("evil", "run"),
        {"module": "evil", "class_name": "Run", "config": {}, "registered_name": "evil>Run"},
        {"module": "keras.layers", "class_name": "Lambda", "config": {"function": "x"}},
        {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "x"}},
        {"module": "keras.src.utils.torch_utils", "class_name": "TorchModuleWrapper", "config": {"module": ""}},
        {"class_name": "__lambda__", "config": {"value": "x"}},
        {"module": "keras.callbacks", "class_name": "CSVLogger", "config": {"filename": "pwned"}},
        "relu'); open('pwned', 'w'); ('",
        ["relu"],
        7,
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["keras", "json"])
def test_configurations_that_ask_for_programs(place, activation, kind, monkeypatch):
    (place / "evil.py").write_text("open('pwned', 'w')\ndef run(x): return x\nclass Run: pass\n")
    monkeypatch.syspath_prepend(place)
    source = edited(place / "model.keras", lambda t: t.replace(ACTIVATION, f'"activation": {json.dumps(activation)}'))
    if kind == "json":
        with zipfile.ZipFile(source) as archive:
            (place / "config.json").write_bytes(archive.read("config.json"))
            (place / "model.weights.h5").write_bytes(archive.read("model.weights.h5"))
        source = str(place / "config.json")
    before = everything(place)
    with pytest.raises(BridgeError, match="cannot be read as a Keras model") as caught:
        sources.load(source)
    assert "safe_mode" not in str(caught.value)
    assert everything(place) == before and "evil" not in sys.modules


def large(size, name="units"):
    return lambda text: text.replace(f'"{name}": 4', f'"{name}": {size}')


@pytest.mark.parametrize(
    "change",
    [
        large(10**9),
        large(10**40),
        lambda t: t.replace('"kernel_size": [3, 3]', '"kernel_size": [99999, 99999]'),
        lambda t: t.replace("[null, 6, 6, 2]", "[null, 6, 6, 1000000000]"),
    ],
)
def test_more_weights_than_there_can_be_are_not_made(place, change):
    source = edited(place / "model.keras", change)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(BridgeError, match="cannot be read as a Keras model: its configuration asks for more weights"):
        sources.load(source)
    assert time.process_time() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB
    assert keras.Layer.add_weight.__module__.startswith("keras.")


@pytest.mark.parametrize(
    "change",
    [
        large(-1),
        large(0),
        large('"4"'),
        large("NaN"),
        large("1e999"),
        lambda t: t.replace('"kernel_size": [3, 3]', '"kernel_size": [-3, 3]'),
        lambda t: t.replace("[null, 6, 6, 2]", "[null, 6, 6, -2]"),
        lambda t: t.replace(ACTIVATION, '"activation": ' + "[" * 500 + "]" * 500),
        lambda t: t.replace(ACTIVATION, '"activation": ' + "[" * 200_000 + "]" * 200_000),
        lambda t: "[" * 1000 + "]" * 1000,
        lambda t: "7",
        lambda t: "",
        lambda t: "{}",
        lambda t: t.replace('"config": {', '"config": {"config": {', 1) + "}",
    ],
)
def test_configurations_that_make_no_sense(place, change):
    source = edited(place / "model.keras", change)
    start = time.process_time()
    with pytest.raises(BridgeError, match="cannot be read as a Keras model"):
        sources.load(source)
    assert time.process_time() - start < 5


def test_absurd_tensors_are_not_computed(place):
    x = keras.Input((6, 6, 2))
    model = keras.Model(x, layers.UpSampling2D(77_777)(x), name="huge")
    with pytest.raises(BridgeError, match=r"huge has a tensor of shape \(None, 466662, 466662, 2\) .* too large"):
        bridge.save_torch(model, "out")
    assert everything(place) == [pathlib.Path("temporary")]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_settings_that_are_no_numbers(place, value):
    source = edited(place / "model.keras", lambda t: t.replace('"negative_slope": 0.25', f'"negative_slope": {value}'))
    try:
        module = bridge.to_torch(sources.load(source))
    except BridgeError:
        return
    assert not module(torch.ones(2, 2, 6, 6))["PLACE_O"].isfinite().all()


def test_archives_that_unpack_to_more(place, good, monkeypatch):
    monkeypatch.setattr(untrusted, "FREE", 2**20)
    with (
        zipfile.ZipFile(place / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive,
        zipfile.ZipFile(good / "model.keras") as honest,
    ):
        for name in honest.namelist():
            archive.writestr(name, honest.read(name))
        archive.writestr("more", bytes(2**24))
    with pytest.raises(BridgeError, match="its archive unpacks to 16,"):
        sources.load("bomb.keras")
    shutil.copy("bomb.keras", "bomb.pt")
    with pytest.raises(BridgeError, match="its archive unpacks to 16,"):
        sources.load_state(Network(), "bomb.pt")


def test_paths_in_an_archive_lead_nowhere(place, good):
    shutil.copy(good / "model.keras", "model.keras")
    with zipfile.ZipFile("model.keras", "a") as archive:
        for name in ("../../escaped", "/tmp/escaped", "assets/../../escaped"):
            archive.writestr(name, b"x")
    before = everything(place)
    with contextlib.suppress(BridgeError):
        sources.load("model.keras")
    assert everything(place) == before and not (place.parent / "escaped").exists()


def test_pickles_do_not_run(place):
    class Evil:
        def __reduce__(self):
            return open, ("pwned", "w")

    for zipped in (True, False):
        torch.save({"c.weight": Evil()}, "evil.pt", _use_new_zipfile_serialization=zipped)
        with pytest.raises(BridgeError, match="evil.pt cannot be read as a state dict"):
            sources.load_state(Network(), "evil.pt")
    assert not (place / "pwned").exists()
