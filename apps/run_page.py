"""`run.html`: a run as one self-contained page: curves, samples, figures, options, versions, the command to repeat it.

It is made of what is in the run folder. A file that is missing, damaged or too large is named on the page, and the rest
is shown. Every text on it is escaped: options, names and files may come from strangers.
"""

import base64
import csv
import json
import pathlib
import shlex
from collections.abc import Callable
from typing import Any

from apps.run_folder import totals
from bridge.files import aside
from bridge.page import STYLE
from tfzoo.training.progress import duration

TEXT, PICTURE = 4_000_000, 8_000_000  # the largest files that are shown, in bytes
PICTURES, CHARTS = 24, 40  # the most of them
PNG = b"\x89PNG\r\n\x1a\n"
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 440, 220, 62, 24, 10  # of a chart and its margins
SMOOTH = 15  # epochs from which a curve is smoothed
COLOURS = {"training": "#1b6ca8", "validation": "#c4622d"}
NOT_OPTIONS = {"family", "examples", "classes", "devices", "command", "versions", "settings"}  # of options.json
TEMPLATE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{ title }}</title>
<style>
{{ style | safe }} .charts { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0; width: {{ width }}px; max-width: 100% }
 img { max-width: 100% } pre { white-space: pre-wrap; word-break: break-all; background: #f4f4f4; padding: .6rem 1rem }
 .notes { background: #fadcd9; padding: .6rem 2rem; border-radius: .4rem }
</style>
<h1>{{ title }}</h1>
{% if notes %}<ul class="notes">{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>{% endif %}
{% for heading, rows in results.items() if rows %}<h2>{{ heading }}</h2>
<table>{% for name, value in rows.items() %}<tr><td>{{ name }}</td><td class="n">{{ value }}</td></tr>{% endfor %}</table>
{% endfor %}
<h2>Curves</h2>
<p>{% for name, colour in colours.items() %}<span style="color:{{ colour }}">&#9632;</span> {{ name }} &nbsp; {% endfor %}
by epoch</p>
<div class="charts">{% for chart in charts %}<figure><figcaption>{{ chart.name }}</figcaption>
<svg viewBox="0 0 {{ width }} {{ height }}" role="img" aria-label="{{ chart.name }} by epoch">
 {% for text, y in chart.ticks %}<line x1="{{ left }}" x2="{{ width }}" y1="{{ y }}" y2="{{ y }}" stroke="#ddd"/>
 <text x="{{ left - 6 }}" y="{{ y + 4 }}" font-size="11" text-anchor="end">{{ text }}</text>{% endfor %}
 {% for text, x in chart.epochs %}<text x="{{ x }}" y="{{ height - 6 }}" font-size="11" text-anchor="middle">{{ text }}</text>{% endfor %}
 {% for line in chart.lines %}<polyline fill="none" stroke="{{ line.colour }}" stroke-width="1.5"{% if line.smooth %} opacity="0.35"{% endif %} points="{{ line.points }}"/>
 {% if line.smooth %}<polyline fill="none" stroke="{{ line.colour }}" stroke-width="2" points="{{ line.smooth }}"/>{% endif %}
 {% for x, y in line.dots %}<circle cx="{{ x }}" cy="{{ y }}" r="2" fill="{{ line.colour }}"/>{% endfor %}{% endfor %}
</svg></figure>{% endfor %}</div>
<h2>Samples</h2>
{% for name, data in pictures %}<p>{{ name }}</p><img alt="{{ name }}" src="data:image/png;base64,{{ data }}">{% else %}<p>none</p>{% endfor %}
<h2>To repeat it</h2>
<pre>{{ repeat }}</pre>
<p>It was begun by:</p>
<pre>{{ begun }}</pre>
{% for heading, rows in settings.items() if rows %}<h2>{{ heading }}</h2>
<table>{% for name, value in rows.items() %}<tr><td>{{ name }}</td><td><code>{{ value }}</code></td></tr>{% endfor %}</table>
{% endfor %}</html>
"""


def write(folder: pathlib.Path) -> None:
    """Write a run's `run.html`, whole or not at all.

    Args:
        folder: The run folder; it need not be finished.
    """
    content = render(folder).encode("utf-8", "backslashreplace")  # a name may be no text
    with aside(folder / "run.html") as side:
        side.write_bytes(content)


def render(folder: pathlib.Path) -> str:
    """Return the page of a run folder, in which every text is escaped."""
    import jinja2

    notes: list[str] = []
    options = read(folder / "options.json", table, notes) or {}
    rows, speeds = (read(folder / name, lines, notes) or [] for name in ("log.csv", "speed.csv"))
    held_out = (read(folder / "evaluate.json", table, notes) if (folder / "evaluate.json").exists() else None) or {}
    versions = options.get("versions") if isinstance(options.get("versions"), dict) else {}
    asked = {name: value for name, value in options.items() if name not in {"command", "versions", "classes"}}
    return (
        jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
        .from_string(TEMPLATE)
        .render(
            title=f"{options.get('family', 'a run')}: {folder.absolute().name}",
            notes=notes,
            results={
                "Held-out figures": {name: shown(value) for name, value in held_out.items()},
                "Training": summary(rows, speeds),
            },
            charts=charts(rows, speeds),
            pictures=samples(folder / "samples", notes),
            repeat=command(options, f"{folder.absolute().name}-again"),
            begun=shown(options.get("command", "unknown")),
            settings={
                "Options": {name: shown(value) for name, value in asked.items()},
                "Versions": {name: shown(value) for name, value in versions.items()},
            },
            style=STYLE,
            colours=COLOURS,
            width=WIDTH,
            height=HEIGHT,
            left=LEFT,
        )
    )


def read(path: pathlib.Path, parse: Callable[[str], Any], notes: list[str]) -> Any:
    """Read a text file of a run.

    Args:
        path: The file.
        parse: Makes of its text what is given; raises where it cannot.
        notes: Takes a sentence if the file is not what it should be; what is given then, is None.
    """
    try:
        return parse(contents(path, TEXT).decode("utf-8"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, csv.Error) as error:
        notes.append(f"{path.name} cannot be shown: {type(error).__name__}: {str(error)[:200]}")
        return None


def contents(path: pathlib.Path, largest: int) -> bytes:
    """Read a file, if it is one and not too large; raises an OSError or a ValueError."""
    if path.exists() and not path.is_file():  # a pipe, say, would be waited for
        raise ValueError("it is no file")
    if path.stat().st_size > largest:
        raise ValueError(f"it has more than {largest:,} bytes")
    return path.read_bytes()


def table(text: str) -> dict[str, Any]:
    """Read a JSON object."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def lines(text: str) -> list[dict[str, float]]:
    """Read the numbers of a CSV file; what is none, or not finite, is left out."""
    rows = [{name: number(value) for name, value in row.items()} for row in csv.DictReader(text.splitlines())]
    found = [{name: value for name, value in row.items() if value is not None} for row in rows]
    if any("epoch" not in row for row in found):
        raise ValueError("a line has no epoch")
    return found


def number(value: Any) -> float | None:
    """Give a text as a number that can be drawn; None of any other."""
    try:
        found = float(value)
    except (ValueError, TypeError):
        return None
    return found if abs(found) < 1e300 else None


def shown(value: Any) -> str:
    """Write a value for people."""
    text = f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else repr(value)
    return text if len(text) <= 2000 else text[:2000] + " ..."


def summary(rows: list[dict[str, float]], speeds: list[dict[str, float]]) -> dict[str, str]:
    """Give what came of the training: epochs, time, speed, the lowest validation loss."""
    found = {"epochs": str(len(rows))}
    took = totals(speeds)
    try:
        found["time"] = duration(took["seconds"])
    except (KeyError, OverflowError):
        found["time"] = "unknown"
    if "examples_per_second" in took:
        found["examples per second"] = f"{took['examples_per_second']:.4g}"
    losses = {row["epoch"]: row["val_loss"] for row in rows if "val_loss" in row}
    if losses:
        best = min(losses, key=losses.get)
        found["lowest validation loss"] = f"{losses[best]:.4g}, epoch {best + 1:.0f}"
    return found


def charts(rows: list[dict[str, float]], speeds: list[dict[str, float]]) -> list[dict[str, Any]]:
    """Lay out a chart for each quantity, training and validation in one."""
    names = dict.fromkeys(name.removeprefix("val_") for row in rows for name in row if name != "epoch")
    order = sorted(names, key=lambda name: (name != "loss", name.endswith("learning_rate"), name))
    found = [chart(name, {"training": curve(rows, name), "validation": curve(rows, f"val_{name}")}) for name in order]
    found.append(chart("examples per second", {"training": curve(speeds, "examples_per_second")}))
    return [each for each in found if each["lines"]][:CHARTS]


def curve(rows: list[dict[str, float]], name: str) -> list[tuple[float, float]]:
    """Give epoch, from 1, and value of each line that has the value."""
    return [(row["epoch"] + 1, row[name]) for row in rows if name in row]


def chart(name: str, curves: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """Lay out one chart.

    Args:
        name: What it shows.
        curves: Points by a name of `COLOURS`; empty ones are left out.

    Returns:
        `name`, `lines` (colour, points of the polyline, the same smoothed where it is long, dots where it is short),
        `ticks` and `epochs` (text, place).
    """
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return {"name": name, "lines": []}
    (first, last), (low, high) = ((min(values), max(values)) for values in zip(*points, strict=True))

    def x(epoch: float) -> float:
        share = (epoch - first) / (last - first) if last > first else 0.5
        return round(LEFT + 10 + share * (WIDTH - LEFT - 20), 1)

    def y(value: float) -> float:
        share = (value - low) / (high - low) if high > low else 0.5
        return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 1)

    return {
        "name": name,
        "lines": [
            {
                "colour": COLOURS[kind],
                "points": " ".join(f"{x(epoch)},{y(value)}" for epoch, value in curve),
                "smooth": " ".join(f"{x(epoch)},{y(value)}" for epoch, value in smooth(curve)),
                "dots": [(x(epoch), y(value)) for epoch, value in curve] if len(curve) < 30 else [],
            }
            for kind, curve in curves.items()
            if curve
        ],
        "ticks": [(f"{value:.3g}", y(value)) for value in dict.fromkeys(low + k * (high - low) / 4 for k in range(5))],
        "epochs": [(f"{epoch:.0f}", x(epoch)) for epoch in dict.fromkeys((first, last))],
    }


def smooth(curve: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Smooth a curve of `SMOOTH` epochs or more, by Savitzky and Golay's parabolas of 7; nothing of a shorter one."""
    if len(curve) < SMOOTH:
        return []
    from tfzoo.analysis.smoothing import smoothed

    epochs, values = zip(*curve, strict=True)
    low, high = min(values), max(values)  # the chart's, which a parabola may leave
    return [(epoch, min(max(float(value), low), high)) for epoch, value in zip(epochs, smoothed(values), strict=True)]


def samples(folder: pathlib.Path, notes: list[str]) -> list[tuple[str, str]]:
    """Give the pictures of a folder by name, in base64; what is no PNG goes into `notes`."""
    found = []
    there = sorted(folder.glob("*.png"))
    for path in there[:PICTURES]:
        try:
            content = contents(path, PICTURE)
            if not content.startswith(PNG):
                raise ValueError("it is no PNG")
            found.append((path.name, base64.b64encode(content).decode()))
        except (OSError, ValueError) as error:
            notes.append(f"{path.name} cannot be shown: {str(error)[:200]}")
    if len(there) > PICTURES:
        notes.append(f"{len(there) - PICTURES} more pictures are in {folder.name}/")
    return found


def command(options: dict[str, Any], output: str) -> str:
    """Give the command that makes the same run again: every option is in it, so no default counts.

    Args:
        options: What `options.json` holds.
        output: The run folder of the new run.
    """
    words = ["tfzoo", "train", str(options.get("family"))]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if name in NOT_OPTIONS or value is None:
            continue
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{name}")
        elif isinstance(value, list):  # such as black and white, each for every channel
            words += [flag, *(",".join(map(str, one)) if isinstance(one, list) else str(one) for one in value)]
        else:
            words += [flag, str(value)]
    settings = options.get("settings") if isinstance(options.get("settings"), dict) else {}
    for name, value in settings.items():
        words += ["--set", f"{name}={value!r}"]
    return shlex.join([*words, "--output", output])
