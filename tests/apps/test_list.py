import tfzoo
from apps import recipes
from apps.list import overview
from apps.recipes import find


def test_the_families_and_their_sizes(invoke):
    result = invoke("list")
    assert result.exit_code == 0
    for name in tfzoo.names():
        line = next(line for line in result.stdout.splitlines() if line.split()[:1] == [name])
        assert tfzoo.sizes(name)[0] in line


def test_the_overview_builds_no_network(invoke, monkeypatch):
    monkeypatch.delattr(tfzoo, "build")
    result = invoke("list")
    assert result.exit_code == 0
    line = next(line for line in result.stdout.splitlines() if line.split()[:1] == ["unet"])
    assert line.split()[1:7] == ["default", "tiny", "paper", "1,941,105", "14", "(default)"]
    assert "handwritten digits" in line and "(Ronneberger" in line


def test_the_minutes_are_of_the_size_that_is_named():
    assert overview("googlenet")[1:4] == ("paper torchvision tiny", "6,998,552", "2 (tiny)")


def test_what_a_family_does_not_state_is_a_dash(monkeypatch):
    monkeypatch.delattr(tfzoo.family("unet"), "PARAMETERS")
    for name in ("MINUTES", "DATA"):
        monkeypatch.delattr(find("unet"), name)
    assert overview("unet")[2:5] == ("-", "-", "-")
    monkeypatch.setattr(recipes, "find", lambda name: find("none"))  # a family without a recipe
    assert overview("unet")[2:5] == ("-", "-", "-")


def test_the_sizes_of_one_family(invoke):
    result = invoke("list", "unet")
    assert result.exit_code == 0
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    assert "1,941,105" in rows["default"] and "(None, 128, 128, 3)" in rows["default"]
    assert set(tfzoo.sizes("unet")) <= set(rows)
    for size, count in tfzoo.family("unet").PARAMETERS.items():  # as they are built
        assert f"{count:,}" in rows[size]


def test_an_unknown_family(invoke):
    result = invoke("list", "nope")
    assert result.exit_code == 2
    assert "there is no model 'nope'; the models are" in result.stderr
