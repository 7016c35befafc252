"""What a comparison found: as data, as a table for the terminal, as JSON and as one HTML page."""

import json
import math
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import metadata

from bridge.graph import map_structure

FLOAT32 = 3  # times Keras' own distance between float32 and float64 ...
STEPS = 10  # of SGD, in the comparison of training
FLOOR = 1e-6  # ... which by luck may be near zero


@dataclass
class Layer:
    """One aligned operator: relative differences of its output between the frameworks.

    `own` is Keras' own distance between float32 and float64, `rounding` the largest of those on the way to here;
    `limit` is what float64 must reach up to here.
    """

    name: str
    operator: str
    float32: float
    float64: float | None = None
    own: float | None = None
    limit: float = 0.0
    rounding: float = 0.0

    @property
    def agrees(self) -> bool:
        """Whether both precisions are within their limits."""
        single = (
            self.float32 <= FLOAT32 * max(self.own, self.rounding, FLOOR) + self.limit
            if self.own is not None
            else self.float32 <= 1e-4
        )
        finite = math.isfinite(self.float32)
        return bool(finite and single and (self.float64 is None or self.float64 <= self.limit))


@dataclass
class Report:
    """The result of `bridge.verify`."""

    model: str
    module: str
    failures: list[tuple[str, str]] = field(default_factory=list)  # (what was compared, sentence)
    layers: list[Layer] = field(default_factory=list)
    dtype: str = "float64"  # of the training step; float32 where the model cannot be run in float64
    training: dict[str, float] = field(default_factory=dict)  # output in training mode -> difference
    gradients: dict[str, float] = field(default_factory=dict)  # parameter -> difference
    losses: dict[str, list[float]] = field(default_factory=dict)  # framework -> the loss before each of ten steps
    steps: dict[str, float] = field(default_factory=dict)  # "losses" and "weights" -> difference after these
    rate: float | None = None  # of their SGD
    zero_gradients: list[str] = field(default_factory=list)  # zero but for rounding, as a bias before BatchNorm
    notes: list[str] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # of a weight in Keras -> in torch's state dict
    permutations: dict[str, int] = field(default_factory=dict)  # framework -> how often axes are permuted
    versions: dict[str, str] = field(
        default_factory=lambda: {
            "python": platform.python_version(),
            **{p: metadata.version(p) for p in ("tensorflow", "keras", "torch", "numpy")},
        }
    )

    @property
    def passed(self) -> bool:
        """Whether nothing differs."""
        return not self.failures

    @property
    def first_divergence(self) -> Layer | None:
        """The first layer whose output differs."""
        return next((x for x in self.layers if not x.agrees), None)

    def fail(self, compared: str, sentence: str) -> None:
        """Record a difference."""
        self.failures.append((compared, sentence))

    def note_once(self, sentence: str) -> None:
        """Record what the reader should know, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def judge_layers(self, why: Callable[[str], str] = lambda name: "") -> None:
        """Fail where outputs differ, naming the first: what follows it differs because of it.

        Args:
            why: Function from its name to what explains it, if anything does.
        """
        if layer := self.first_divergence:
            double = f"{layer.float64:.1e} in float64 (limit {layer.limit:.1e}), " if layer.float64 is not None else ""
            reason = why(layer.name)
            own = f" (Keras' own distance from float64: {layer.own:.1e})" if layer.own is not None else ""
            self.fail(
                "forward",
                f"the first layer that differs is {layer.name} ({layer.operator}): {double}"
                f"{layer.float32:.1e} in float32{own}" + (f". This explains it: {reason}" if reason else ""),
            )

    def figures(self) -> dict[str, float | None]:
        """The worst relative difference of each comparison."""
        worst = lambda values: max(values, default=None)  # noqa: E731
        return {
            "forward float64": worst([x.float64 for x in self.layers if x.float64 is not None]),
            "forward float32": worst([x.float32 for x in self.layers]),
            "Keras float32 to float64": worst([x.own for x in self.layers if x.own is not None]),
            f"training-mode output {self.dtype}": worst(self.training.values()),
            f"gradients {self.dtype}": worst(self.gradients.values()),
            f"losses of {STEPS} steps {self.dtype}": self.steps.get("losses"),
            f"weights after {STEPS} steps {self.dtype}": self.steps.get("weights"),
        }

    def to_dict(self) -> dict:
        """Everything as plain data."""
        return {"passed": self.passed, "figures": self.figures(), **asdict(self)}

    def to_json(self) -> str:
        """Everything as JSON, which has no number for what is not finite: "inf" and "nan" are texts."""

        def plain(x):
            return str(x) if isinstance(x, float) and not math.isfinite(x) else x

        return json.dumps(map_structure(plain, self.to_dict()), indent=2, allow_nan=False)

    def to_html(self) -> str:
        """Everything as one self-contained page."""
        from bridge.page import render

        return render(self).encode("utf-8", "backslashreplace").decode("utf-8")  # a name may be no text

    def __str__(self):
        lines = [f"{self.model} (Keras) and {self.module} (torch): {'equal' if self.passed else 'NOT equal'}"]
        lines += [f"  {name:<30} {'-' if value is None else f'{value:.1e}'}" for name, value in self.figures().items()]
        lines += [
            f"  {len(self.layers)} tensors, {len(self.gradients)} gradients compared, "
            f"{len(self.zero_gradients)} gradients are zero"
        ]
        permuted = [f"{n} in {side.title()}" for side, n in self.permutations.items() if n]
        lines += [f"  permutations of axes: {', '.join(permuted)}"] if permuted else []
        lines += [f"  differs ({kind}): {sentence}" for kind, sentence in self.failures[:20]]
        lines += [f"  ... and {len(self.failures) - 20} more"] if len(self.failures) > 20 else []
        lines += [f"  note: {n}" for n in self.notes]
        return "\n".join(lines)
