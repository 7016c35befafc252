"""Every family, exported at its tiny size, answers as TensorFlow Serving's loader asks it, its warm-up requests too."""

import pathlib
import subprocess
import sys

import pytest

import tfzoo
from tfzoo.export import save, session, warm_up


@pytest.mark.parametrize("name", tfzoo.names())
def test_a_model_is_served(name, tmp_path):
    made = save(tfzoo.build(name, size="tiny"), tmp_path / name, signatures=tfzoo.family(name).signatures)
    asked = dict(warm_up.read(made.path))
    command = [pathlib.Path(sys.executable).with_name("saved_model_cli"), "show", "--all", "--dir", made.path]
    said = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout
    assert all(f"signature_def['{signature}']" in said for signature in asked)
    with session.load(made.path) as (signatures, run):
        assert signatures.keys() == asked.keys() == made.differences.keys()
        for signature, inputs in asked.items():
            outputs = run(signature, inputs)
            assert outputs.keys() == set(signatures[signature].outputs)
            for key, value in outputs.items():
                shape = [d.size for d in signatures[signature].outputs[key].tensor_shape.dim]
                assert all(n in (-1, m) for n, m in zip(shape, value.shape, strict=True)), key
