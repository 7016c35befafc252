"""Which families the matrix is about in this run, and what its tests share.

It is all of it in `make acceptance` (`--every-case`), and where it is asked for by its folder. Else it is the families
that have changed since yesterday, and one of the others, every day the next: what all families share, such as how they
are trained, has tests of its own and is seen in that one.
"""

import warnings

import pytest

import tfzoo
from apps import recipes
from tests import _selection

LEGIBLE = {"cluttered_digits": "digits"}  # in 16x16 pixels nobody can read a digit that is turned and among pieces


def pytest_generate_tests(metafunc):
    """Test the chosen families for what applies to them; the reasons of what does not are among pytest's warnings."""
    if "family" not in metafunc.fixturenames:
        return
    config, tested = metafunc.config, metafunc.function.__name__.removeprefix("test_")
    cases = []
    for name in (
        tfzoo.names() if _selection.everything(config) else _selection.chosen(_selection.changed(), tfzoo.names())
    ):
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
