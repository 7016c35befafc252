"""The Python of docs/serving.md runs as it stands, and its options are those of the command."""

import inspect
import pathlib
import re

from apps import export

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "serving.md").read_text()


def test_the_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):  # the second asks what the first exported
        exec(compile(block, "serving.md", "exec"), {})
    assert "(1, 10)" in capsys.readouterr().out


def test_every_option_of_the_export_is_told():
    options = {name.replace("_", "-") for name in inspect.signature(export.run).parameters} - {"target", "output"}
    assert options == set(re.findall(r"--([a-z][a-z-]*)", PAGE.split("## TensorFlow Serving")[0])) - {"output"}


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (pathlib.Path(__file__).parents[1] / "docs" / target).exists(), target
