"""Put measured figures into the pages: what stands between `<!-- NAME -->` and `<!-- / -->` is made here.

    .venv/bin/python docs/figures.py

The figures come from the newest dated JSON of `make benchmarks` and `make acceptance` in benchmarks/results/, the
table of operators from bridge/rules/, and counts, `<!-- count FAMILY SIZE KEY=VALUE -->`, from the models.
"""

import json
import math
import re
import sys
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


FRAMEWORKS = {"tensorflow": "TensorFlow", "keras": "Keras", "torch": "torch"}


def newest(name: str) -> dict:
    """Read the newest result of a script."""
    return json.loads(max((ROOT / "benchmarks" / "results").glob(f"*-{name}.json")).read_text())


def table(head: list[str], rows: list[list[str]]) -> str:
    """Write a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def operators() -> str:
    """What `bridge rules` lists."""
    from bridge.inspect import supported

    return table(["rule", "what it is", "Keras", "PyTorch"], [[f"`{r[0]}`", *r[1:]] for r in supported()])


def benchmark() -> str:
    """The ratios of benchmarks/unet.py."""
    return ratios(newest("benchmarks-unet"))


def bridge() -> str:
    """The ratios, times and memory of benchmarks/bridge.py."""
    record = newest("benchmarks-bridge")
    ways = {"to_torch": "Keras to torch", "to_keras": "torch to Keras"}
    rows = [
        [f"{ways[d]}: a ResNet-50", f"**{r['seconds']:.2f} s**", f"{r['goal']:g} s"]
        for d, r in record["seconds"].items()
    ]
    rows += [
        [
            f"{ways[d]}: growth of the memory with {r['network']}, {r['weights'] / 1e6:,.0f} MB",
            f"**{r['ratio']:.3f}** of its weights",
            f"{r['goal']:g}",
        ]
        for d, r in record["memory"].items()
    ]
    limits = table(["conversion", "measured", "goal: at most"], rows)
    return f"{ratios(record)}\n\n{limits}"


def networks() -> str:
    """What tests/acceptance/bridge.py found of each network."""
    record = newest("acceptance-bridge")
    rows = [
        [
            name,
            *(f"{r[k]:.0e}" if k in r else "" for k in ("float64", "float32", "own", "onnx")),
            r["permutes"],
            {None: "", True: "equal", False: "NOT equal"}[r.get("verify", {}).get("passed")],
        ]
        for name, r in record["results"].items()
    ]
    head = ["network", "float64", "float32", "float32 itself", "onnxruntime", "permutations", "`verify`"]
    return (
        f"{table(head, rows)}\n\nMeasured {record['date']} by `tests/acceptance/bridge.py` on pictures of "
        f"{record['size']} x {record['size']}, with random weights and statistics under which the output depends on "
        "the picture."
    )


def fit() -> str:
    """The ratio of benchmarks/training.py."""
    return ratios(newest("benchmarks-training"))


def ratios(record: dict, theirs: str = "theirs", ours: str = "ours") -> str:
    """What a script measured side by side."""
    rows = [
        [
            name,
            f"{r['ours'] * 1e3:.1f} ms",
            f"{r['theirs'] * 1e3:.1f} ms",
            f"**{r['ratio']:.3f}**",
            f"{r['goal']:g}",
            f"{r['control_ours']:.3f}, {r['control_theirs']:.3f}",
        ]
        for name, r in record["results"].items()
    ]
    head = ["what", ours, theirs, "ratio", "goal: at most", "each against itself"]
    days = sorted({r.get("date", record["date"]) for r in record["results"].values()})
    return (
        f"{table(head, rows)}\n\nMeasured {' and '.join(days)} on {record['machine']}: medians, alternating, each line "
        "in one run."
    )


def conformance() -> str:
    """What tests/acceptance/conformance.py found of every family."""
    record = newest("acceptance-conformance")
    families, reasons = record["results"], []

    def cell(family: str, property: str) -> str:
        found = families[family].get(property, {"held": 0, "of": 0})
        if "reason" in found:
            reasons.append(found["reason"])
            return f"[{len(reasons)}]"
        return "holds" if found["held"] == found["of"] > 0 else f"FAILS ({found['held']} of {found['of']})"

    properties = list(dict.fromkeys(p for found in families.values() for p in sorted(found)))
    rows = [[p.replace("_", " "), *(cell(family, p) for family in families)] for p in properties]
    notes = "".join(f"\n{i}. {reason}" for i, reason in enumerate(reasons, 1))
    return (
        f"{table(['property', *families], rows)}\n{notes and chr(10)}{notes.lstrip()}{notes and chr(10)}\n"
        f"Measured {record['date']} by `tests/acceptance/conformance.py` with {record['seeds']} seeds, at the size "
        f"`tiny`, on {record['machine']}."
    )


def recipes(family: str) -> dict[str, dict]:
    """What the script of a family found last of each recipe, with the day and the machine."""
    found = {}
    for path in sorted((ROOT / "benchmarks" / "results").glob(f"*-acceptance-{family}.json")):
        record = json.loads(path.read_text())
        found |= {k: {**r, "date": record["date"], "machine": record["machine"]} for k, r in record["results"].items()}
    return found


def unet() -> str:
    """The held-out figures of tests/acceptance/unet.py."""
    rows, found = [], recipes("unet")
    for r in (found["demo"], found["full"]):
        shown = [several(r["runs"], "minutes", 0), f"**{several(r['runs'], 'iou')}**"]
        first = [f"{r['runs'][0][name]:.3f}" for name in ("otsu_iou", "all_foreground_iou")]
        rows.append([f"`{r['command']}`", f"{r['steps']:,}", *shown, f"{r['goal']:.2f}", *first, r["date"]])
    head = ["command", "steps", "minutes", "IoU", "goal: at least", "Otsu's IoU", "all foreground's", "measured"]
    return (
        f"{table(head, rows)}\n\nBy `tests/acceptance/unet.py` on {r['machine']}; several figures are of several seeds."
    )


def classifier(family: str) -> str:
    """The held-out figures of a classifier's runs."""
    found = recipes(family)
    if not found:
        return "Not measured with several seeds yet."
    rows = [
        [f"`{r['command']}`", f"{r['steps']:,}", f"**{several(r['runs'], 'top1')}**", f"{r['goal']:.2f}", r["date"]]
        for r in found.values()
    ]
    least = {r["baseline"] for r in found.values()}
    return (
        table(["command", "steps", "top-1, by seed", "goal: at least", "measured"], rows)
        + f"\n\nLogistic regression reaches {max(least):.3f} on the same held-out digits. By "
        f"`tests/acceptance/{family}.py`."
    )


def classifiers() -> str:
    """The ratios of benchmarks/classifiers.py, and the times that have no goal."""
    record = newest("benchmarks-classifiers")
    rows = [
        [name, *(f"{r[k] * 1e3:,.1f} ms" for k in ("ours", "theirs")), f"{r['ratio']:.3f}"]
        for name, r in record["besides"].items()
    ]
    parts = []
    for name, sides in record["profiles"].items():
        times = record["results"][name]
        spent = [
            {k: v * times[s] * 1e3 for k, v in sides[f].items()}
            for f, s in (("tensorflow", "ours"), ("torch", "theirs"))
        ]
        for kind in dict.fromkeys((*spent[0], *spent[1])):
            ours, theirs = (side.get(kind, 0.0) for side in spent)
            if max(ours, theirs) >= 0.01 * times["ours"] * 1e3:
                parts.append([f"{name}: {kind}", f"{ours:,.1f} ms", f"{theirs:,.1f} ms", f"{ours - theirs:+,.1f} ms"])
    return (
        f"{ratios(record, 'torch', 'tfzoo')}\n\n{table(['besides', 'tfzoo', 'torch', 'ratio'], rows)}\n\n"
        f"{table(['where the time goes', 'tfzoo', 'torch', 'apart'], parts)}"
    )


def spatial_transformer() -> str:
    """What the network reaches with the transformer and without it, and what is left of the digits' angles."""
    found = recipes("spatial_transformer")
    if not found:
        return "Not measured with several seeds yet."
    rows = []
    for r in found.values():
        turned = [several(r["runs"], k, 1) if k in r["runs"][0] else "" for k in ("angle_left", "angle_scatter")]
        counted = [f"{r['steps']:,}", f"{r['runs'][0]['parameters']:,}", f"**{several(r['runs'], 'top1')}**"]
        rows.append([f"`{r['command']}`", *counted, *turned, r["date"]])
    before = several(found["affine"]["runs"][:1], "angle", 1)
    return (
        f"{table(['command', 'steps', 'parameters', 'top-1, by seed', 'angle', 'scatter', 'measured'], rows)}\n\n"
        f"Angle and scatter are means over the held-out digits, in degrees, regardless of sign: of the rectified digit "
        f"from upright, and from the mean direction of all. In the pictures they are {before}. By "
        "`tests/acceptance/spatial_transformer.py`."
    )


def variational(family: str) -> str:
    """The held-out bounds of a variational family's runs."""
    rows, found = [], recipes(family)
    for r in (r for r in found.values() if "elbo" in r["runs"][0]):
        shown = [several(r["runs"], k, 2) for k in ("elbo", "importance_weighted")]
        own = [several(r["runs"], r["figure"], 3), f"{r['goal']:g}", r["best"]]
        rows.append(
            [f"`{r['command']}`", f"{r['steps']:,}", *shown, f"{r['figure']}: **{own[0]}**", *own[1:], r["date"]]
        )
    head = ["command", "steps", "ELBO", "importance-weighted", "what the goal is of", "goal: at least", "best known"]
    return (
        f"{table([*head, 'measured'], rows)}\n\nIn nats, by seed; held out, where the goal does not say otherwise. "
        f"Independent pixels have {next(iter(found.values()))['baseline']:.2f}. By `tests/acceptance/{family}.py`."
    )


def amortisation(family: str) -> str:
    """What one encoder for all pictures costs a variational family's runs."""
    rows, found = [], recipes(family)
    names = ("elbo", "per_example_elbo", "amortisation_gap", "approximation_gap")
    for r in found.values():
        elbo, best, gap, rest = (several(r["runs"], name) for name in names)
        rows.append([f"`{r['command']}`", elbo, best, f"**{gap}**", rest, r["date"]])
    head = ["command", "ELBO", "by the best posterior of each", "amortisation gap", "approximation gap", "measured"]
    return (
        f"{table(head, rows)}\n\nHeld out, in nats, of every seed, the lowest first. By `tests/acceptance/{family}.py`."
    )


def planes() -> str:
    """The divergences of tests/acceptance/iaf_vae.py from densities of the plane."""
    r = recipes("iaf_vae")["plane"]
    rows = [
        [
            name,
            *(f"**{round(run[key], 4) + 0.0:.4f}**" for run in sorted(r["runs"], key=lambda run: run["seed"])),
            "0.01",
        ]
        for name, key in {"a Gaussian of correlation .9": "gaussian", "the banana": "banana"}.items()
    ]
    seeds = [f"seed {run['seed']}" for run in sorted(r["runs"], key=lambda run: run["seed"])]
    return (
        f"{table(['density', *seeds, 'goal: at most'], rows)}\n\nMeasured {r['date']} by `tests/acceptance/iaf_vae.py`."
    )


def flows() -> str:
    """What tests/acceptance/normalizing_flow.py found: held-out log-likelihoods, and what two moons come back to."""
    found = recipes("normalizing_flow")
    rows = []
    for name, beside in {"digits": [], "two_moons": ["mixture", "exact"]}.items():
        r = found[name]
        runs = sorted(r["runs"], key=lambda run: run["seed"])
        columns = [" ".join(f"{run[k]:.3f}" for run in runs) for k in ("log_likelihood", *beside)]
        goal = f"{r['goal']:g}" if r["goal"] else "above the mixture"
        shown = [f"**{columns[0]}**", goal, *(columns[1:] or [r["best"], ""])]
        error = max(run["inverse_error"] for run in runs)
        rows.append([f"{r['what']}, `{r['command']}`", *shown, f"{error:.0e}", r["date"]])
    head = ["what", "held out, by seed", "goal: at least", "mixture of 10 normal distributions, or best known", "exact"]
    bits = several(found["digits"]["runs"], "bits_per_dimension", 2)
    total = several(found["two_moons"]["runs"], "integral", 4)
    return (
        f"{table([*head, 'comes back to', 'measured'], rows)}\n\nOn the digits that is {bits} bits per dimension. The "
        f"densities of two moons sum to {total} over the plane."
    )


def flow_directions() -> str:
    """What benchmarks/flows.py found: a density beside samples."""
    record = newest("benchmarks-flows")
    maf, realnvp = record["results"]["maf: density / samples"], record["results"]["realnvp: samples / density"]
    rows = [
        ["`digits`, MAF", maf["ours"], maf["theirs"], "**sequential**: 64 passes of each block"],
        ["`realnvp`", realnvp["theirs"], realnvp["ours"], "**parallel**: one pass"],
    ]
    rows = [[n, f"{d * 1e3:.1f} ms", f"{s * 1e3:.1f} ms, {how}", f"{s / d:.1f}"] for n, d, s, how in rows]
    iaf = record["results"]["iaf: samples / maf: density"]
    rows.append(
        ["IAF, as many numbers and blocks as MAF", "", f"{iaf['ours'] * 1e3:.1f} ms, **parallel**: one pass", ""]
    )
    head = ["size", "density: one pass", "samples", "samples / density"]
    by = f"Measured {record['date']} by `benchmarks/flows.py`: medians, 256 pictures of 64 numbers."
    return f"{table(head, rows)}\n\n{by}"


def variational_speed(*families: str) -> str:
    """The ratios of benchmarks/variational.py, of the named families alone, and where the time of their steps goes."""
    record = newest("benchmarks-variational")
    kept = [
        name for name in record["results"] if name.startswith(tuple(x.replace("_", " ") for x in families or ("",)))
    ]
    parts = []
    for name in kept:
        before = (0.0, 0.0)
        for part, r in record.get("stages", {}).get(name, {}).items():
            spent = [r[side] - b for side, b in zip(("ours", "theirs"), before, strict=True)]
            before = (r["ours"], r["theirs"])
            shown = [f"{value * 1e3:,.1f} ms" for value in spent]
            parts.append([f"{name}: {part}", *shown, f"{(spent[0] - spent[1]) * 1e3:+,.1f} ms"])
    shown = ratios(record | {"results": {name: record["results"][name] for name in kept}}, "torch", "tfzoo")
    return f"{shown}\n\n{table(['where the time goes', 'tfzoo', 'torch', 'apart'], parts)}" if parts else shown


def vq_vae() -> str:
    """What tests/acceptance/vq_vae.py found, by seed."""
    found = recipes("vq_vae")["digits"]
    runs = found["runs"]

    def each(name: str, digits: int) -> str:
        return " ".join(f"{run[name]:.{digits}f}" for run in runs)

    patches = 10 ** (-found["baseline"] / 10)
    rows = [
        [
            f"PSNR in dB, goal {found['goal']:g}",
            f"**{each('psnr', 2)}**",
            f"{found['baseline']:.2f}, k-means of 2x2 patches",
        ],
        ["squared error of a pixel", each("squared_error", 5), f"{patches:.5f}, the same"],
        [
            "the prior's nats of a picture's 16 codes",
            each("prior_nats", 1),
            f"{each('independent_nats', 1)}, independent positions of the same codes",
        ],
        ["perplexity, of 64 codes at the most", each("perplexity", 1), ""],
        ["codes in use", each("codes_in_use", 0), ""],
        ["minutes on two cores that others used, too", each("minutes", 1), ""],
    ]
    seeds = " ".join(str(run["seed"]) for run in runs)
    shown = table([f"figure, of seeds {seeds}", "measured", "best known besides"], rows)
    return f"{shown}\n\nk-means besides, PSNR in dB: {found['best']}. Measured {found['date']}."


def mean_field() -> str:
    """What tests/acceptance/mean_field.py found, by seed."""
    record = newest("acceptance-mean_field")
    found, rows = record["results"], []
    named = {"gaussian": "a Gaussian of correlation .9", "banana": "the banana"}
    for what in dict.fromkeys(run["what"] for run in found["gradients"]):
        target, family = what.split(", ")
        runs = [run for run in found["gradients"] if run["what"] == what]
        name = f"ADVI, KL of a {family} to {named[target]}, nats"
        rows.append([name, f"{runs[0]['exact']:.4f}", " ".join(f"{r['measured']:.4f}" for r in runs), "within 0.01"])
    for what in dict.fromkeys(run["what"] for run in found["coordinates"]):
        lost = " ".join(f"{r['exact'] - r['measured']:.4f}" for r in found["coordinates"] if r["what"] == what)
        best = f"ln 2 = {math.log(2):.4f} for two far apart" if "mixture" in what else "above 0"
        rows.append([f"{what}: evidence less ELBO, nats", best, lost, "above 0"])
    one = found["diabetes"]
    shares = f"{one['least_ratio']:.3f} to {one['greatest_ratio']:.3f}"
    rows += [
        ["diabetes: evidence less ELBO, nats", "above 0", f"{one['exact'] - one['measured']:.4f}", "above 0"],
        ["diabetes: means off, in exact deviations", "0", f"{one['mean_off']:.3f}", "at most 0.15"],
        ["diabetes: deviations, as shares of the exact", "1", shares, "at most 1"],
    ]
    for key, name in (("advi", "ADVI"), ("jaakkola_jordan", "Jaakkola and Jordan")):
        for figure, what, best, digits, goal in (
            ("mean_off", "means off, in the chains' deviations", "0", 3, "at most 0.35"),
            ("greatest_ratio", "largest share of the chains' deviations", "1", 3, "at most 1"),
            ("elbo", "ELBO, nats", "", 2, ""),
        ):
            each = " ".join(f"{run[key][figure]:.{digits}f}" for run in found["breast_cancer"])
            rows.append([f"breast cancer, {name}: {what}", best, each, goal])
    worst = max(run["r_hat"] for run in found["breast_cancer"])
    return (
        f"{table(['figure', 'exact or best', 'measured, by seed', 'goal'], rows)}\n\nMeasured {record['date']}. The "
        f"chains of the breast-cancer data, 8 of 2,000 samples, had an r_hat of at most {worst:.4f}."
    )


def several(runs: list[dict], name: str, digits: int = 3) -> str:
    """A figure of each seed, from the lowest to the highest."""
    return " ".join(f"{value:.{digits}f}" for value in sorted(run[name] for run in runs))


def results() -> str:
    """Published, best known and measured: what the recipes of all families reached."""
    import tfzoo

    rows = []
    for family in tfzoo.names():
        for r in recipes(family).values():
            measured = [several(r["runs"], r["figure"]), f"{r['goal']:g}" if r["goal"] else "none", r["date"]]
            rows.append([family, f"{r['what']}, `{r['command']}`", r["published"], r["best"], *measured])
    head = ["family", "what", "published", "exact or best known", "measured, by seed", "goal", "measured on"]
    return table(head, rows)


def parameters() -> str:
    """The sizes of the U-Net; tests/conformance compares them with what is built."""
    import tfzoo
    from tfzoo.unet import PARAMETERS, SIZES

    rows = [[f'`size="{s}"`', ", ".join(f"{k} {v}" for k, v in SIZES[s].items()), f"{PARAMETERS[s]:,}"] for s in SIZES]
    normed = tfzoo.build("unet", batch_norm=True).count_params()
    rows.insert(1, ["`batch_norm=True`", "the same, its statistics included", f"{normed:,}"])
    return table(["build", "with", "parameters"], rows)


def count(family: str, size: str, *settings: str) -> str:
    """The trainable parameters of a model; tests/conformance compares those of every size with what is built."""
    import tfzoo
    from apps.train import parse

    if not settings:
        return f"{tfzoo.family(family).PARAMETERS[size]:,}"
    model = tfzoo.build(family, size=size, **parse(settings))
    return f"{sum(math.prod(v.shape) for v in model.trainable_variables):,}"


def checkpoints() -> str:
    """What benchmarks/checkpoints.py measured."""
    record = newest("benchmarks-checkpoints")
    rows = [
        [
            f"`{name}`",
            f"{r['gigabytes']:.1f} GB",
            f"**{r['megabytes']:.0f} MB**",
            f"{r['goal']} MB",
            f"{r['seconds']:.0f} s",
        ]
        for name, r in record["results"].items()
    ]
    head = ["conversion", "file", "most memory", "goal: at most", "time"]
    return (
        f"{table(head, rows)}\n\nMeasured {record['date']} on {record['machine']} by `benchmarks/checkpoints.py`: the "
        f"most that the process had resident, all libraries included; the largest tensor has {record['largest']} MB."
    )


def optimizers() -> str:
    """What tests/acceptance/optimizers.py found."""
    record = newest("acceptance-optimizers")

    def worst(found: dict, key: str) -> str:
        values = [figures[key] for figures in found.values() if key in figures]
        return f"{max(values):.0e}" if values else ""

    keys = ["there, weights", "back, weights", "there, losses", "back, losses", "torch's own, weights"]
    rows = [[name, *(worst(found, key) for key in keys)] for name, found in record["results"].items()]
    goals = ["goal: at most", *[f"{record['goals']['weights']:.0e}"] * 2, *[f"{record['goals']['losses']:.0e}"] * 2, ""]
    head = ["optimizer", "to torch: weights", "to Keras: weights", "losses", "losses", "torch's own class: weights"]
    steps = record["steps"]
    return (
        f"{table(head, [*rows, goals])}\n\nMeasured {record['date']} by `tests/acceptance/optimizers.py`: {steps} "
        f"steps, across, {steps} steps, against {2 * steps} that stayed; the worst of a convolutional network with "
        "BatchNorm, a block of a transformer and a recurrent network. Weights in float64, as a share of the largest of "
        "their tensor; losses in float32."
    )


def sampling() -> str:
    """What tests/acceptance/sampling.py found of the identity in float32."""
    record = newest("acceptance-sampling")
    rows = [
        [f"{side} x {side}", *(f"{r['tfzoo']:.0e}, {r['torch']:.0e}" for r in found.values())]
        for side, found in record["results"].items()
    ]
    head = ["pixels", *(f"{name}: here, in torch" for name in next(iter(record["results"].values())))]
    return f"{table(head, rows)}\n\nMeasured {record['date']} by `tests/acceptance/sampling.py`."


def data() -> str:
    """The ratios of benchmarks/data.py, each line as it was measured last."""
    found, spared = {}, {}
    for path in sorted((ROOT / "benchmarks" / "results").glob("*-benchmarks-data.json")):
        record = json.loads(path.read_text())
        found |= {name: r | {"date": record["date"]} for name, r in record["results"].items()}
        spared |= {
            f"{name}, a core to spare": r | {"date": record["date"]} for name, r in record.get("besides", {}).items()
        }
    return ratios(record | {"results": found | spared}, "one batch again", "new batches")


def allreduce(parameters: int = 1_941_105) -> str:
    """The time of a ring all-reduce of the U-Net's gradients, by the formula of docs/distributed.md."""
    rows = []
    for workers in (2, 4, 8, 16, 64):
        sent = 2 * (workers - 1) / workers * 4 * parameters  # bytes
        rows.append(
            [workers, f"{sent / 1e6:.1f} MB", *(f"{8 * sent / gigabits / 1e6:.2f} ms" for gigabits in (10, 100))]
        )
    return table(["workers", "sent by each", "10 Gbit/s", "100 Gbit/s"], rows)


def workers() -> str:
    """The processes of benchmarks/training.py."""
    record = newest("benchmarks-training")
    w = record["workers"]
    rows = [
        ["one process, on a core of its own", f"{w['alone'] * 1e3:.0f} ms"],
        ["two that do not know of one another, each on a core", f"{w['side_by_side'] * 1e3:.0f} ms"],
        ["two workers, each on a core", f"**{w['workers'] * 1e3:.0f} ms**"],
        ["the sum of the gradients on its own", f"{w['sum'] * 1e3:.0f} ms"],
    ]
    share, alone = (w["workers"] - w["side_by_side"]) / w["workers"], w["sum"] / w["workers"]
    sent, formula = w["sent_by_each"] / 1e6, 4 * w["parameters"] / 1e6  # MB
    return (
        f"{table(['8 pictures in each process', 'a step'], rows)}\n\n"
        f"The all-reduce's share of a step is {share:.1%}; the sum on its own would be {alone:.1%}. Each worker sent "
        f"{sent:.2f} MB in a step; the formula gives {formula:.2f} MB.\n"
        f"Measured {record['date']} by `benchmarks/training.py` on {record['machine']}, over the loopback interface."
    )


def peers() -> str:
    """What benchmarks/peers_to_keras.py found of each tool and each module."""
    record = newest("benchmarks-peers_to_keras")
    tools = []
    for name, tool in record["tools"].items():
        versions = tool.get("versions", record["versions"])
        pins = dict(line.split("==") for line in tool["packages"])
        beside = ", ".join(f"{title} {pins.get(p, versions.get(p, ''))}" for p, title in FRAMEWORKS.items())
        tools.append([name, pins.get(name.partition(",")[0], ""), beside, tool.get("error", "runs")])
    rows = []
    for module, results in record["results"].items():
        ours = results["bridge"].get("seconds")
        for name, r in results.items():
            if "error" in r:
                rows.append([module, name, f"`{r['error']}`", *[""] * 8])
                continue
            rows.append(
                [
                    module,
                    name,
                    f"{r['seconds']:.2f} s",
                    f"{r['seconds'] / ours:.1f}" if ours else "",
                    f"{r['float32']:.0e}",
                    f"{r['trained']:,} of {r['parameters']:,}",
                    *("{} of {}".format(*r[k]) for k in ("norms", "dropouts")),
                    r["transposes"],
                    f"`{r['loads']['format']}`" if r["loads"]["format"] else "no",
                    {None: "", True: "equal", False: "NOT equal"}[r["verify"]["passed"]],
                ]
            )
    head = ["module", "tool", "conversion", "of ours", "float32", "parameters that train", "BatchNorm", "Dropout"]
    head += ["Transpose", "Keras 3 loads", "`verify`"]
    return (
        f"{table(['tool', 'version', 'beside', 'import'], tools)}\n\n{table(head, rows)}\n\n"
        f"Measured {record['date']} by `benchmarks/peers_to_keras.py` on {record['machine']}, one conversion each."
    )


def resume() -> str:
    """The kills of benchmarks/resume.py."""
    record = newest("benchmarks-resume")
    model, best = (f"{difference:g}" for difference in record["differences"].values())
    return (
        f"Killed {record['kills']} times in {record['steps']} steps, at random: `model.keras` differs by {model} from "
        f"that of the undisturbed run, `best.keras` by {best}, `log.csv` is "
        f"{'the same' if record['same_log'] else 'not the same'}.\nMeasured {record['date']} by `benchmarks/resume.py`."
    )


PARTS = {
    "allreduce": allreduce,
    "benchmark": benchmark,
    "bridge": bridge,
    "classifiers": classifiers,
    "conformance": conformance,
    "count": count,
    "data": data,
    "fit": fit,
    "mean_field": mean_field,
    "networks": networks,
    "operators": operators,
    "parameters": parameters,
    "peers": peers,
    "results": results,
    "resume": resume,
    "sampling": sampling,
    "checkpoints": checkpoints,
    "optimizers": optimizers,
    "spatial_transformer": spatial_transformer,
    "unet": unet,
    "amortisation": amortisation,
    "variational": variational,
    "planes": planes,
    "flows": flows,
    "flow_directions": flow_directions,
    "variational_speed": variational_speed,
    "vq_vae": vq_vae,
    "workers": workers,
    **{name: partial(classifier, name) for name in ("googlenet", "resnet", "vit")},
}


def fill(text: str) -> str:
    """Make the marked parts of a page anew, lines of their own or within one."""

    def make(match: re.Match) -> str:
        part, *arguments = match[1].split()
        return f"<!-- {match[1]} -->{match[2]}{PARTS[part](*arguments)}{match[2]}<!-- / -->"

    return re.sub(r"<!-- (\w.*?) -->(\n?).*?<!-- / -->", make, text, flags=re.DOTALL)


def pages() -> list[Path]:
    """The pages that may have marked parts."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


if __name__ == "__main__":
    for page in pages():
        page.write_text(fill(page.read_text()))
