"""The page: self-contained, and names in it are text."""

import re
import xml.etree.ElementTree as ElementTree

from bridge.report import Layer, Report


def test_names_are_escaped_and_the_picture_is_there():
    r = Report("<script>alert(1)</script>", "Net")
    r.layers = [Layer("<b>a", "dense", 1e-7, 1e-15, 1e-7, 1e-9), Layer("z", "dense", 1e-7, 0.0, None, 1e-9)]
    r.gradients = {"a.kernel": 1e-12}
    r.fail("settings", "a & b differ")
    page = r.to_html()
    assert "<script>" not in page and "&lt;script&gt;" in page and "a &amp; b differ" in page
    assert "NOT equal" in page
    svg = re.search(r"<svg.*?</svg>", page, re.S).group(0)
    lines = ElementTree.fromstring(svg).findall("polyline")
    assert [len(x.get("points").split()) for x in lines] == [2, 2, 1]
    assert not re.search(r'(src|href)="', page), "the page must not need anything else"


def test_the_losses_of_the_steps():
    r = Report("a", "b")
    r.losses, r.rate = {"keras": [3.0, 2.5], "torch": [3.0, 2.25]}, 0.125
    page = r.to_html()
    assert "Losses of 2 steps of SGD, rate 0.125" in page
    assert re.search(r"<td>2</td><td class=.n.>2.5</td><td class=.n.>2.25</td>", page)


def test_a_report_of_nothing():
    assert "Equal" in Report("a", "b").to_html()
