"""The report as data and as text."""

import json

from bridge.report import Layer, Report


def report() -> Report:
    r = Report("net", "Net")
    r.layers = [
        Layer("a", "convolution", 2e-7, 1e-15, 1e-7, 1e-9),
        Layer("b", "dense", 1e-3, 1e-3, 1e-7, 1e-9),
        Layer("c", "dense", 1, 1, 1e-7, 1e-9),
    ]
    return r


def test_the_verdict():
    r = report()
    assert r.passed and r.first_divergence.name == "b"
    r.judge_layers()
    assert not r.passed
    assert "the first layer that differs is b (dense): 1.0e-03 in float64 (limit 1.0e-09)" in str(r)
    assert json.loads(r.to_json())["failures"][0][0] == "forward"


def test_float32_is_judged_by_keras_own_distance():
    assert Layer("a", "dense", 2.9e-5, 1e-12, 1e-5, 1e-9).agrees
    assert not Layer("a", "dense", 3.1e-5, 1e-12, 1e-5, 1e-9).agrees
    assert Layer("a", "dense", 2.9e-6, 1e-12, 1e-9, 1e-9).agrees  # the floor
    assert not Layer("a", "dense", 1e-7, 2e-9, 1e-5, 1e-9).agrees
    assert not Layer("a", "dense", float("nan"), 1e-12, 1e-5, 1e-9).agrees
    assert not Layer("a", "dense", 1e-7, float("inf"), 1e-5, 1e-9).agrees
    assert Layer("a", "dense", 2.9e-5, 1e-12, 1e-9, 1e-9, rounding=1e-5).agrees  # of a layer before it
    assert not Layer("a", "dense", float("inf"), 1e-12, float("inf"), 1e-9).agrees


def test_json_of_numbers_that_are_not_finite():
    r = report()
    r.gradients = {"g": float("nan")}
    r.layers[0].float32 = float("inf")
    data = json.loads(r.to_json(), parse_constant=lambda x: 1 / 0)
    assert data["gradients"]["g"] == "nan" and data["layers"][0]["float32"] == "inf"


def test_many_failures_are_cut_short_in_the_text_alone():
    r = report()
    for i in range(30):
        r.fail("settings", f"number {i}")
    assert "number 19" in str(r) and "number 20" not in str(r) and "and 10 more" in str(r)
    assert "number 29" in r.to_json()
