"""The bridge and other converters on the same torch modules: what comes out in Keras, and what it can still do.

    .venv/bin/python benchmarks/peers_to_keras.py [MODULE ...] [--tools TOOL ...] [--environments FOLDER]
                                                  [--output FILE]

About half an hour on two cores. Every other tool has a virtual environment of its own, which is made where it is not
there yet: 3 GB in build/peers, most of it the old TensorFlow that nobuco asks for. What an environment does not hold
is found behind it, in the one that runs this script; pip installs exactly what PEERS lists, so that no tool brings a
torch along. The same for one tool by hand:

    .venv/bin/python -m venv --without-pip build/peers/onnx2keras
    echo $PWD/.venv/lib/python3.11/site-packages > build/peers/onnx2keras/lib/python3.11/site-packages/behind.pth
    .venv/bin/python -m pip --python build/peers/onnx2keras/bin/python install --no-deps onnx2keras==0.0.25 \\
        onnx_ir==1.1.0 onnxscript==0.6.2

The exit status is 1 where the bridge falls short: it refuses a module, `bridge.verify` does not pass, a parameter does
not train, or what it saved does not load.
"""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import venv
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from _measure import options  # noqa: E402  first: it quietens TensorFlow

# isort: split
import keras  # noqa: E402
import numpy as np  # noqa: E402
from _modules import MODULES  # noqa: E402
from _peer import MEMORY, RIGHT, distance, last_line  # noqa: E402

KERAS2 = (  # what nobuco 0.17's README names, and what that TensorFlow needs
    "tensorflow==2.15.1",
    "keras==2.15.0",
    "ml_dtypes==0.3.2",
    "numpy==1.26.4",
    "protobuf==4.25.8",
    "tensorflow-estimator==2.15.0",
    "wrapt==1.14.1",
)
NOBUCO = ("nobuco==0.17.0", "sty==1.0.6", "tqdm==4.70.1")
# name in the table -> (the function of _peer.py, what pip installs)
PEERS = {
    "bridge": ("bridge", ()),
    "nobuco": ("nobuco", NOBUCO),
    "nobuco, Keras 2": ("nobuco", (*NOBUCO, *KERAS2)),
    "onnx2tf": (  # by its own pins; 2.x asks for Python 3.12 and works with 3.11
        "onnx2tf",
        (
            "onnx2tf==2.6.9",
            "ai-edge-litert==2.1.2",
            "onnx==1.20.1",
            "onnx_ir==1.1.0",
            "onnxoptimizer==0.4.2",
            "onnxscript==0.6.2",
            "onnxsim==0.6.5",
            "opencv-python-headless==4.13.0.92",
            "psutil==5.9.5",
            "sne4onnx==2.0.1",
            "sng4onnx==2.0.1",
            "tqdm==4.67.1",
        ),
    ),
    "onnx2keras": ("onnx2keras", ("onnx2keras==0.0.25", "onnx_ir==1.1.0", "onnxscript==0.6.2")),
    "pytorch2keras": ("pytorch2keras", ("pytorch2keras==0.2.4", "onnx2keras==0.0.25")),
}
LIMIT = 600  # seconds for one module and for saving it


def environment(name: str, folder: Path) -> Path:
    """The interpreter of a tool; its environment is made if it is not there.

    Raises:
        RuntimeError: pip could not install it.
    """
    requirements = PEERS[name][1]
    if not requirements:
        return Path(sys.executable)
    home = folder / name.replace(", ", "-").replace(" ", "-")
    python, stamp = home / "bin" / "python", home / "installed.txt"
    if stamp.exists() and stamp.read_text().split() == list(requirements):
        return python
    print(f"installing {name} into {home}", flush=True)
    venv.create(home, clear=True, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    (site / "behind.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "install"]
    flags = ["--quiet", "--no-deps", "--ignore-requires-python"]
    result = subprocess.run([*command, *flags, *requirements], capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(ending(result.stderr))
    stamp.write_text("\n".join(requirements))
    return python


def importable(name: str, python: Path) -> None:
    """See that a tool can be imported beside what it has.

    Raises:
        RuntimeError: It cannot.
    """
    # nobuco imports torchvision, which here needs a hand
    code = f"from bridge.onnx import import_torchvision; import_torchvision(); import {PEERS[name][0]}"
    result = subprocess.run([str(python), "-c", code], cwd=HERE.parent, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(ending(result.stderr))


def ending(text: str) -> str:
    """The last line of a text that is not empty, without the folder that an ImportError adds."""
    line = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
    return re.sub(r" [(]/.*[)]$", "", line)[:300]


def convert(name: str, python: Path, module: str) -> dict:
    """One module by one tool, in a process of its own, and whether Keras 3 loads what was saved."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(python), str(HERE / "_peer.py"), PEERS[name][0], module, folder]
        try:
            process = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT, check=False)
            said = ending(process.stderr) or f"exit status {process.returncode}"
        except subprocess.TimeoutExpired:
            said = f"no result within {LIMIT} s"
        file = Path(folder) / "result.json"
        if not file.exists():
            return {"error": said}
        result = json.loads(file.read_text())
        return result if "error" in result else result | {"loads": loads(Path(folder))}


def loads(folder: Path) -> dict:
    """Whether this Keras 3 loads the saved model, in safe mode and without the tool, with torch's values."""
    arrays = np.load(folder / "arrays.npz")
    files = sorted(folder.glob("model.*"), reverse=True)  # .keras before .h5
    reasons = [] if files else [f"it could not be saved within {LIMIT} s and {MEMORY} GiB"]
    for file in files:
        try:
            model = keras.saving.load_model(file, compile=False)
            difference = distance(model(arrays["x"], training=False), arrays["y"])
            if not difference < RIGHT:
                raise ValueError(f"it differs by {difference:.0e} then")
            return {"format": file.suffix, "reasons": reasons}
        except Exception as e:
            reasons.append(f"{file.suffix}: {last_line(e)}")
    return {"format": None, "reasons": reasons}


def shortfalls(result: dict) -> list[str]:
    """What the bridge's result falls short of."""
    if "error" in result:
        return [result["error"]]
    found = [f"verify: {sentence}" for sentence in result["verify"].get("failures", [])[:3]]
    found += ["verify does not pass"] if not result["verify"]["passed"] and not found else []
    parameters = result["parameters"]
    if result["trainable"] != parameters or result["trained"] != parameters:
        found.append(f"of {parameters} parameters {result['trainable']} are trainable, {result['trained']} train")
    return found + ([] if result["loads"]["format"] else result["loads"]["reasons"])


def line(module: str, name: str, result: dict, ours: dict) -> str:
    """A row of the table on the terminal."""
    start = f"{module:21} {name:15} "
    if "error" in result:
        return start + result["error"]
    ratio = f"{result['seconds'] / ours['seconds']:6.1f}" if "seconds" in ours else " " * 6
    share = result["trained"] / result["parameters"]
    norms, dropouts = ("{}/{}".format(*result[k]) for k in ("norms", "dropouts"))
    verdict = {None: "-", True: "equal", False: "NOT equal"}[result["verify"]["passed"]]
    return (
        f"{start}{result['seconds']:7.2f} s {ratio} {result['float32']:8.0e} {share:8.2%} {norms:>9} {dropouts:>8} "
        f"{result['transposes']:10} {result['loads']['format'] or 'no':>6} {verdict:>9}"
    )


def main() -> int:
    parser = options()
    parser.formatter_class, parser.description = argparse.RawDescriptionHelpFormatter, __doc__
    parser.add_argument("modules", nargs="*", help="modules to convert; all by default")
    parser.add_argument("--tools", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--environments", type=Path, default=HERE.parent / "build" / "peers")
    arguments = parser.parse_args()
    tools, results, pythons = {}, {}, {}
    for name in arguments.tools:
        tools[name] = {"packages": list(PEERS[name][1])}
        try:
            python = environment(name, arguments.environments)
            importable(name, python)
            pythons[name] = python
        except RuntimeError as e:  # a row of its own says so
            tools[name]["error"] = str(e)
            print(f"{name}: {e}", flush=True)
    print(f"{'module':21} {'tool':15}   convert  ratio  float32   trains BatchNorm Dropout transposes  loads    verify")
    for module in arguments.modules or MODULES:
        results[module] = {}
        for name, python in pythons.items():
            result = results[module][name] = convert(name, python, module)
            tools[name].setdefault("versions", result.pop("versions", {}))
            print(line(module, name, result, results[module].get("bridge", {})), flush=True)
    if arguments.output:
        record = {
            "date": datetime.date.today().isoformat(),
            "machine": f"{os.cpu_count()} cores",
            "versions": {p: metadata.version(p) for p in ("tensorflow", "keras", "torch")},
            "tools": tools,
            "results": results,
        }
        arguments.output.write_text(json.dumps(record, indent=2) + "\n")
    missed = {module: shortfalls(r["bridge"]) for module, r in results.items() if "bridge" in r}
    for module, sentences in missed.items():
        for sentence in sentences:
            print(f"{module} falls short: {sentence}")
    return int(any(missed.values()))


if __name__ == "__main__":
    sys.exit(main())
