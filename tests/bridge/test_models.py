import subprocess
import sys

import keras

from bridge import models


def test_what_is_a_graph_of_layers():
    x = keras.Input((4,), name="x")
    model = keras.Model(x, keras.layers.Dense(2)(x))

    class Own(keras.Model):
        def call(self, x):
            return x

    sequential = keras.Sequential([x, keras.layers.Dense(2)])
    assert models.is_functional(model) and models.is_functional(sequential)
    assert not models.is_functional(Own()) and not models.is_functional(keras.Sequential([keras.layers.Dense(2)]))
    assert models.functional(model) is model and models.functional(sequential) is sequential._functional


def test_names_of_inputs_are_those_of_their_layers():
    a, b = keras.Input((4,)), keras.Input((4,), name="b")
    names = models.input_names(keras.Model({"z": a, "y": b}, a + b))
    assert set(names) == {a._keras_history.operation.name, "b"}


def test_a_training_and_a_client_import_no_torch():
    """It would take a second of every start, and 300 MB of every worker."""
    program = "import sys, apps.run_folder, apps.recipes.unet, tfzoo.unet, tfzoo.training.strategy, tfzoo.export.client"
    program += "; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=100).returncode == 0
