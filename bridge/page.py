"""The report as one self-contained HTML page: verdict, picture of the error along the depth, tables."""

import math

# Of every page of this project.
STYLE = """\
 body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
 h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
 table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .2rem .6rem; border-bottom: 1px solid #ddd }
 td.n { text-align: right; font-variant-numeric: tabular-nums } tr.bad { background: #fadcd9 } code { word-break: break-all }
"""
TEMPLATE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{ r.model }}: {{ "equal" if r.passed else "NOT equal" }}</title>
<style>
{{ style | safe }} .verdict { padding: .6rem 1rem; border-radius: .4rem; font-weight: 600; background: {{ "#d9f2dd" if r.passed else "#fadcd9" }} }
</style>
<h1>{{ r.model }} (Keras) and {{ r.module }} (PyTorch)</h1>
<p class="verdict">{{ "Equal: nothing differs." if r.passed else "NOT equal: %d difference(s)." % r.failures|length }}</p>
{% if r.failures %}<ul>{% for kind, sentence in r.failures %}<li><b>{{ kind }}</b>: {{ sentence }}</li>{% endfor %}</ul>{% endif %}
<h2>Largest relative differences</h2>
<table>{% for name, value in r.figures().items() %}<tr><td>{{ name }}</td><td class="n">{{ value | e1 }}</td></tr>{% endfor %}</table>
<h2>Along the depth</h2>
<svg viewBox="0 0 {{ width }} {{ height }}" role="img" aria-label="relative difference of every tensor, on a logarithmic scale">
 {% for exponent, y in grid %}<line x1="40" x2="{{ width }}" y1="{{ y }}" y2="{{ y }}" stroke="#ddd"/>
 <text x="0" y="{{ y + 4 }}" font-size="11">1e{{ exponent }}</text>{% endfor %}
 {% for line in lines %}<polyline fill="none" stroke="{{ line.colour }}" stroke-width="1.5" points="{{ line.points }}"/>{% endfor %}
</svg>
<p>{% for line in lines %}<span style="color:{{ line.colour }}">&#9632;</span> {{ line.name }} &nbsp; {% endfor %}</p>
<h2>Layers</h2>
<table><tr><th>layer<th>operator<th>float64<th>limit<th>float32<th>Keras float32 to float64</tr>
{% for x in r.layers %}<tr{% if not x.agrees %} class="bad"{% endif %}><td>{{ x.name }}</td><td>{{ x.operator }}</td>
<td class="n">{{ x.float64 | e1 }}</td><td class="n">{{ x.limit | e1 }}</td><td class="n">{{ x.float32 | e1 }}</td><td class="n">{{ x.own | e1 }}</td></tr>
{% endfor %}</table>
<h2>Gradients of one training step, {{ r.dtype }}</h2>
<table>{% for name, value in r.gradients.items() %}<tr><td>{{ name }}</td><td class="n">{{ value | e1 }}</td></tr>{% endfor %}
{% for name in r.zero_gradients %}<tr><td>{{ name }}</td><td class="n">zero on both sides</td></tr>{% endfor %}</table>
{% if r.losses %}<h2>Losses of {{ r.losses.keras | length }} steps of SGD, rate {{ r.rate }}, {{ r.dtype }}</h2>
<table><tr><th>step{% for name in r.losses %}<th>{{ name }}{% endfor %}</tr>
{% for row in rows %}<tr><td>{{ loop.index }}</td>{% for loss in row %}<td class="n">{{ "%.12g" | format(loss) }}</td>{% endfor %}</tr>
{% endfor %}</table>{% endif %}
<h2>Notes</h2>
<ul>{% for note in r.notes %}<li>{{ note }}</li>{% else %}<li>none</li>{% endfor %}</ul>
<h2>What was compared</h2>
<table>{% for name, digest in r.hashes.items() %}<tr><td>SHA-256 of the weights, {{ name }}</td><td><code>{{ digest }}</code></td></tr>{% endfor %}
{% for name, version in r.versions.items() %}<tr><td>{{ name }}</td><td>{{ version }}</td></tr>{% endfor %}</table>
</html>
"""
WIDTH, HEIGHT, EXPONENTS = 900, 260, (-17, 1)


def render(report) -> str:
    """Return the page of a report; every name in it is escaped."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["e1"] = lambda value: "-" if value is None else f"{value:.1e}"
    low, high = EXPONENTS

    def y(value: float) -> float:
        exponent = min(high, max(low, math.log10(value))) if value > 0 else low
        return round(10 + (high - exponent) / (high - low) * (HEIGHT - 20), 1)

    step = (WIDTH - 60) / max(1, len(report.layers) - 1)
    colours = {"float64": "#1b6ca8", "float32": "#c4622d", "own": "#888888"}
    names = {
        "float64": "between the frameworks, float64",
        "float32": "between the frameworks, float32",
        "own": "Keras, float32 to float64",
    }
    lines = [
        {
            "name": names[k],
            "colour": c,
            "points": " ".join(
                f"{45 + i * step:.1f},{y(getattr(x, k))}"
                for i, x in enumerate(report.layers)
                if getattr(x, k) is not None
            ),
        }
        for k, c in colours.items()
    ]
    grid = [(e, y(10.0**e)) for e in range(low + 1, high + 1, 4)]
    return environment.from_string(TEMPLATE).render(
        r=report,
        style=STYLE,
        lines=lines,
        grid=grid,
        width=WIDTH,
        height=HEIGHT,
        rows=list(zip(*report.losses.values(), strict=False)),
    )
