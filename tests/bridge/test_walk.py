"""The walk through a model: nested models, layers without a rule, masks."""

import keras
import numpy as np

from bridge import walk
from bridge.twin import Twin

layers = keras.layers


class Scaled(layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=shape[-1:], name="scale", initializer="ones")
        self.dense = layers.Dense(3, name="dense")
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x * self.scale) + x


def made():
    x = keras.Input((4, 3), name="x")
    inner = keras.Sequential([keras.Input((4, 3)), layers.Dense(3, name="d"), Scaled(name="s")], name="inner")
    return keras.Model(x, layers.ReLU(name="r")(inner(inner(x))))


def test_names_are_the_same_with_plain_data_and_with_tensors():
    model, seen = made(), []
    variables = {}

    def visit(call):
        seen.append((call.label, call.scope))
        return [f"{call.label}.{i}" for i in range(len(call.node.outputs))]

    def variable(v, name, label, scope):
        variables[label] = name
        return label

    walk.Walk(visit, variable, masks=None).model(model, ["input"])
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    outputs, values = walk.run(model, [x])
    assert ("inner.s", ("inner",)) in [(c.partition(".dense")[0], s[:1]) for c, s in seen] or variables
    assert {label for label, _ in seen if not label.startswith("inner.s")} <= values.keys()
    assert {"inner.s.scale", "inner.s.scale#2", "inner.s.dense", "inner.s.multiply", "inner.s.add#2"} <= values.keys()
    np.testing.assert_allclose(outputs, model(x), rtol=1e-6)


def test_a_twin_has_its_own_variables():
    model = made()
    twin = Twin("float64")
    x = np.random.default_rng(0).normal(size=(2, 4, 3))
    outputs, values = walk.run(model, [x], twin)
    assert values["inner.s.scale"].dtype == values["inner.s.multiply"].dtype == outputs.dtype == "float64"
    (scale,) = (v for v in model.variables if v.name == "scale")
    assert twin.variables[id(scale)].dtype == "float64"
    np.testing.assert_allclose(outputs, model(x.astype("float32")), rtol=1e-5)


def test_the_model_is_left_as_it_was():
    model = made()
    scaled = model.get_layer("inner").get_layer("s")
    before = dict(vars(scaled)), len(scaled.dense._inbound_nodes)
    walk.run(model, [np.zeros((2, 4, 3), "float32")])
    assert before == (dict(vars(scaled)), len(scaled.dense._inbound_nodes))
