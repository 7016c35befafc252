"""What the scripts of the families share: runs of `tfzoo train` with several seeds, and what they should reach.

Runs are kept in DIR. One that is there already, trained by the same options, is only measured again where nothing that
it is made of has changed since its commit, or with `--reuse`; else it is trained anew. One that was stopped goes on.
The day written is that of the first training.
"""

import datetime
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from _record import ROOT, options, write

sys.path.insert(0, str(ROOT))

from apps import recipes


@dataclass(frozen=True)
class Wanted:
    """A recipe's run and what it should reach; all but `options` and `besides` stands in docs/results.md.

    Attributes:
        what: The task and the figure, in words.
        figure: Its name in `evaluate.json`.
        goal: The least that every seed should reach.
        command: What gives it.
        published: By whom, on what.
        best: Exact, or best known.
        options: Of `tfzoo.train`, all but the seed.
        besides: From a run's folder to more figures of it.
    """

    what: str
    figure: str
    goal: float
    command: str
    published: str
    best: str
    options: dict = field(repr=False)
    besides: Callable[[Path], dict] | None = field(default=None, repr=False)

    def shown(self) -> dict:
        """Give what is written of it."""
        steps = self.options["epochs"] * self.options["steps_per_epoch"]
        return {k: v for k, v in asdict(self).items() if k not in ("options", "besides")} | {"steps": steps}


@dataclass(frozen=True)
class Own:
    """What a script trains itself, as it is no data of the commands.

    Attributes:
        shown: What stands in docs/results.md, as of `Wanted`, or from all runs to that; its goal is None.
        run: From a seed to its figures.
        short: Tells whether these fall short.
    """

    shown: dict
    run: Callable[[int], dict]
    short: Callable[[dict], bool]


def main(
    description: str,
    family: str,
    runs: dict[str, Wanted],
    own: dict[str, Own] | None = None,
    least: Callable[[], float] = lambda: 0.0,
    short: Callable[[dict[str, dict]], list[str]] = lambda results: [],
) -> int:
    """Run a script: train, measure, print and write.

    Args:
        description: The script's docstring.
        family: Its name.
        runs: What is trained by the command, by name.
        own: What the script trains itself, by name.
        least: Gives the baseline that every run must be above.
        short: From what is written of all runs, by name, to what falls short of anything else, in words; asked when
            none was left out.

    Returns:
        The exit code: 1 if a run falls short.
    """
    parser, own = options(description), own or {}
    parser.add_argument("runs", nargs="*", choices=[*runs, *own, []], metavar="RUN")
    parser.add_argument("--runs", dest="folder", type=Path, default=ROOT / "runs" / "acceptance")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--reuse", action="store_true", help="measure the runs that are there, of whatever commit")
    arguments = parser.parse_args()
    baseline, results, wrong = least(), {}, []
    for name in arguments.runs or [*runs, *own]:
        if name in own:
            found = [timed(own[name].run, seed) for seed in range(arguments.seeds)]
            shown = {k: v(found) if callable(v) else v for k, v in own[name].shown.items()}
            results[name] = {**shown, "goal": None, "runs": found}
            for run in found:
                print(f"{name}: {run}")
                wrong += [f"{name}: {run}"] if own[name].short(run) else []
            continue
        wanted = runs[name]
        found = [
            measure(family, arguments.folder.absolute() / f"{family}-{name}-{seed}", wanted, seed, arguments.reuse)
            for seed in range(arguments.seeds)
        ]
        results[name] = {**wanted.shown(), "baseline": baseline, "runs": found}
        for run in found:
            value = run[wanted.figure]
            goals = f"(goal {wanted.goal:.2f}, baseline {baseline:.3f})"
            said = f"{name}, seed {run['seed']}: {wanted.figure} {value:.3f} {goals}, {run['minutes']:.0f} minutes"
            wrong += [said] if value < wanted.goal or value <= baseline else []
            print(said)
    wrong += short(results) if runs.keys() <= results.keys() else []
    for said in wrong:
        print(f"SHORT: {said}")
    write(arguments.output, results, date=min(run["trained"] for r in results.values() for run in r["runs"]))
    return int(bool(wrong))


def timed(run: Callable[[int], dict], seed: int) -> dict:
    """Give a run's figures with its seed, commit, day and minutes."""
    start = time.perf_counter()
    found = run(seed)
    return {
        "seed": seed,
        "commit": git("rev-parse", "HEAD").stdout.strip()[:10],
        "trained": datetime.date.today().isoformat(),
        "minutes": (time.perf_counter() - start) / 60,
        **found,
    }


def measure(family: str, folder: Path, wanted: Wanted, seed: int, reuse: bool) -> dict[str, float]:
    """Train a run unless it is there, and give its held-out figures and its minutes."""
    asked, trained, commit = wanted.options | {"seed": seed}, folder / "training.json", folder / "commit.txt"
    if trained.exists() and not reuse and changed(family, commit):
        shutil.rmtree(folder)
    if not trained.exists():
        own = {k: v for k, v in asked.items() if k != "settings" and v != recipes.find(family).DEFAULTS.get(k)}
        given = [x for k, v in own.items() for x in (f"--{k.replace('_', '-')}", v)]
        given += [x for k, v in asked.get("settings", {}).items() for x in ("--set", f"{k}={v!r}")]
        tfzoo("train", family, "--output", folder, *given)
        commit.write_text(git("rev-parse", "HEAD").stdout)
    had = json.loads((folder / "options.json").read_text())
    asked = json.loads(json.dumps({"settings": {}} | asked))
    settings = asked.pop("settings")
    had = json.loads(json.dumps(recipes.find(family).DEFAULTS)) | had  # it may be older than an option
    same = all(had.get(k) == v for k, v in asked.items())
    if not same or any(had["settings"].get(k) != v for k, v in settings.items()):
        raise SystemExit(f"{folder} was trained by other options: remove it")
    tfzoo("evaluate", folder)
    return {
        "seed": seed,
        "commit": commit.read_text().strip()[:10] if commit.exists() else "",
        "trained": datetime.date.fromtimestamp(trained.stat().st_mtime).isoformat(),
        "minutes": json.loads(trained.read_text())["seconds"] / 60,
        **json.loads((folder / "evaluate.json").read_text()),
        **(wanted.besides(folder) if wanted.besides else {}),
    }


def changed(family: str, commit: Path) -> bool:
    """Tell whether something that a run is made of is not as it was at the commit that a file names."""
    made_of = ["layers", "data", "training", f"{family}.py"]
    recipes = ["train.py", "recipes/__init__.py", "recipes/_*.py", f"recipes/{family}.py"]
    paths = [*(f"tfzoo/{x}" for x in made_of), *(f"apps/{x}" for x in recipes)]
    return not commit.exists() or git("diff", "--quiet", commit.read_text().strip(), "--", *paths).returncode != 0


def git(*arguments: str) -> subprocess.CompletedProcess:
    """Ask git about the project."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def tfzoo(*arguments: object) -> None:
    """Run a command of tfzoo and stop where it fails."""
    subprocess.run([sys.executable, "-m", "apps", *map(str, arguments)], check=True, cwd=ROOT)


def logistic_regression() -> float:
    """Give what logistic regression makes of the digits."""
    from sklearn.linear_model import LogisticRegression

    return of_digits(LogisticRegression(max_iter=5000))


def support_vector_machine() -> str:
    """Say what a support vector machine makes of the digits: the best known, of what is quick."""
    from sklearn.svm import SVC

    return f"{of_digits(SVC()):.3f}, scikit-learn's support vector machine"


def of_digits(model) -> float:
    """Give the top-1 of a model of scikit-learn on the held-out digits, trained on those for training."""
    import numpy as np

    from tfzoo.data import open

    source = open("digits", "classes", seed=0)
    training, held_out = (
        [np.stack(part) for part in zip(*some, strict=True)] for some in (source.training, source.held_out)
    )
    model.fit(training[0].reshape(len(training[0]), -1) / 255, training[1])
    return float(model.score(held_out[0].reshape(len(held_out[0]), -1) / 255, held_out[1]))
