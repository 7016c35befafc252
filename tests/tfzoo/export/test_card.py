import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from tfzoo.export import card, save


@pytest.mark.parametrize(
    "value, text",
    [("a|b`c\n# d", r"a\|b\`c \# d"), ("<b>*x*</b>", r"\<b\>\*x\*\</b\>"), (0.123456789, "0.1235"), (3, "3")],
)
def test_a_text_stays_in_its_cell(value, text):
    assert card.plain(value) == text


def test_what_a_run_knows_is_told(tmp_path):
    x = keras.Input((4,), name="x")
    model = keras.Model(x, keras.layers.Dense(3, name="d")(x))
    made = save(model, tmp_path / "m", facts={"Held-out data": {"iou": 0.91234567}, "Training": {"data": "a|b"}})
    text = (made.path / card.NAME).read_text()
    assert "## Held-out data\n\n| | |\n|---|---|\n| iou | 0.9123 |" in text and "| data | a\\|b |" in text
    assert "There is no signature serving\\_bytes" in text or "There is no signature serving_bytes" in text
    assert '"x": np.full((1, 4), 0, "float32")' in text


def test_the_request_can_be_pasted(version, rest_server, tmp_path, astronaut):
    """Both requests, as the card has them, at the address of a server."""
    address = rest_server(version)
    text = (version / card.NAME).read_text().replace("http://localhost:8501/v1/models/unet", address)
    astronaut.save(tmp_path / "picture.png")
    shell = text.split("```sh\n")[1].split("```")[0]
    python = (
        text.split("```python\n")[1].split("```")[0].replace('print(answer.json()["outputs"])', "print(answer.text)")
    )
    answers = []
    for command in (["bash", "-c", shell], [sys.executable, "-c", python]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        answers.append(np.array(json.loads(done.stdout)["outputs"]))
        assert answers[-1].shape == (1, 32, 32, 1), done.stderr
    np.testing.assert_array_equal(*answers)
