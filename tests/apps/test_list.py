import tfzoo


def test_the_families_and_their_sizes(invoke):
    result = invoke("list")
    assert result.exit_code == 0
    for name in tfzoo.names():
        line = next(line for line in result.stdout.splitlines() if line.split()[:1] == [name])
        assert tfzoo.sizes(name)[0] in line


def test_the_sizes_of_one_family(invoke):
    result = invoke("list", "unet")
    assert result.exit_code == 0
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    assert "1,941,105" in rows["default"] and "(None, 128, 128, 3)" in rows["default"]
    assert set(tfzoo.sizes("unet")) <= set(rows)


def test_an_unknown_family(invoke):
    result = invoke("list", "nope")
    assert result.exit_code == 2
    assert "there is no model 'nope'; the models are" in result.stderr
