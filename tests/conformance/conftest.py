"""Which families the matrix is about in this run, and what its tests share.

It is all of it in `make acceptance` (`--every-case`), and where it is asked for by its folder. Else it is the families
that have changed since yesterday, and one of the others, every day the next: what all families share, such as how they
are trained, has tests of its own and is seen in that one.
"""

import ast
import datetime
import pathlib
import warnings

import pytest

import tfzoo
from apps import recipes
from tests import _selection

ROOT = pathlib.Path(__file__).parents[2]
LEGIBLE = {"cluttered_digits": "digits"}  # in 16x16 pixels nobody can read a digit that is turned and among pieces


def files(name: str) -> set[str]:
    """Give the files that make a family: its own, its recipe, and what of layers, recipes and data these are made of.

    What the recipes themselves import of the data, all of them do.
    """
    own = {f"tfzoo/{name}.py", f"apps/recipes/{name}.py"}
    source = f"tfzoo/data/sources/{recipes.find(name).DEFAULTS['data']}.py"
    return reached(own, ("tfzoo.layers", "apps.recipes")) | reached({source}, ("tfzoo.data",))


def reached(left: set[str], packages: tuple[str, ...]) -> set[str]:
    """Give files and what they import of some packages, and these, and so on."""
    found: set[str] = set()
    while left:
        path = left.pop()
        found.add(path)
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(packages):
                modules = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
                left |= {p for m in modules if (ROOT / (p := f"{m.replace('.', '/')}.py")).is_file()} - found
    return found


def chosen(there: set[str] | None) -> list[str]:
    """Give the families that a run is about, by the files that have changed: None if these are not known."""
    if there is None:
        return tfzoo.names()
    others = [name for name in tfzoo.names() if not files(name) & there]
    turn = others[datetime.date.today().toordinal() % len(others)] if others else None
    return [name for name in tfzoo.names() if name == turn or name not in others]


def pytest_generate_tests(metafunc):
    """Test the chosen families for what applies to them; the reasons of what does not are among pytest's warnings."""
    if "family" not in metafunc.fixturenames:
        return
    config, tested = metafunc.config, metafunc.function.__name__.removeprefix("test_")
    cases = []
    for name in tfzoo.names() if _selection.everything(config) else chosen(_selection.changed()):
        reason = getattr(tfzoo.family(name), "DOES_NOT_APPLY", {}).get(tested)
        if reason:
            warnings.warn(pytest.PytestWarning(f"{name}: {tested} does not apply: {reason}"), stacklevel=1)
            continue
        for seed in range(config.getoption("--seeds")):
            cases.append(pytest.param(name, seed, id=f"{name}-{seed}" if seed else name))
    metafunc.parametrize("name, seed", cases, scope="module")


class Family:
    """A family's tiny model, trained by its recipe."""

    def __init__(self, name: str, seed: int):
        self.name, self.seed = name, seed
        self.module, self.recipe = tfzoo.family(name), recipes.find(name)

    def build(self, policy: str = "float32"):
        """Build the tiny model; the seed decides its weights and every draw that follows."""
        import keras

        before = keras.config.dtype_policy()
        keras.utils.set_random_seed(self.seed)
        keras.config.set_dtype_policy(policy)
        try:
            return tfzoo.build(self.name, size="tiny")
        finally:
            keras.config.set_dtype_policy(before)

    def data(self, model, batch_size: int = 4):
        """Open the data that nobody has to download."""
        data = self.recipe.DEFAULTS["data"]
        return self.recipe.datasets(
            LEGIBLE.get(data, data),
            model.input_shape[1:],
            batch_size=batch_size,
            seed=self.seed,
            **recipes.follows(self.recipe, model),
        )

    def compile(self, model, kind: str = "Adam", rate: float = 2e-3, jit_compile: bool = False):
        """Compile by the recipe, with an optimizer of this kind in the place of its own."""
        import keras

        def optimizer(_, *, rate=1.0, steps_in_a_batch=1, _rate=rate, **arguments):
            return getattr(keras.optimizers, kind)(rate * _rate)

        self.recipe.compile(model, optimizer=optimizer, jit_compile=jit_compile)
        return model

    def fit(self, model, data, steps: int):
        """Train for some steps, as `tfzoo train` does."""
        from tfzoo.training.distributed_fit import repaired

        with repaired(model):
            return model.fit(data, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0)

    def loss(self, model, data) -> float:
        """Judge a model on the whole of a data set."""
        found = model.evaluate(data, verbose=0, return_dict=True)
        return found["loss"]


@pytest.fixture(scope="module")
def family(name, seed) -> Family:
    return Family(name, seed)
