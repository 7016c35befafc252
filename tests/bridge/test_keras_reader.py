"""Reading Keras models: nesting, sharing, names that collide, everything wrong at once."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bridge
from bridge import keras_reader, walk

layers = keras.layers


def conv(name, **options):
    return layers.Conv2D(3, 3, padding="same", name=name, **options)


def image(name="image"):
    return keras.Input((6, 5, 3), name=name)


def nested(name, *stack):
    y = x = image(f"{name}_in")
    for layer in stack:
        y = layer(y)
    return keras.Model(x, y, name=name)


def operators(graph):
    return [n.operator for n in graph.nodes]


def test_nested_models_are_entered():
    x = image()
    inner = nested("inner", conv("c"))
    outer = nested("outer", inner, layers.ReLU(name="r"), conv("c"))
    graph = keras_reader.read(keras.Model(x, outer(x)))
    assert [n.name for n in graph.nodes] == ["outer.inner.c", "outer.r", "outer.c"]
    assert set(graph.parameters) == {f"{p}.{w}" for p in ("outer.inner.c", "outer.c") for w in ("kernel", "bias")}


@pytest.mark.parametrize("make", [lambda: conv("c"), lambda: nested("m", conv("c"))])
def test_what_is_called_twice_has_one_set_of_weights(make):
    x, shared = image(), make()
    graph = keras_reader.read(keras.Model(x, shared(shared(x))))
    assert len(graph.nodes) == 2 and len(graph.parameters) == 2
    assert graph.nodes[0].parameters == graph.nodes[1].parameters
    assert graph.nodes[0].outputs[0].name != graph.nodes[1].outputs[0].name


def test_values_have_the_names_that_run_gives():
    a, b = image("a"), image("b")
    shared = nested("m", conv("c"), layers.BatchNormalization(name="n"))
    model = keras.Model([a, b], [shared(a) + shared(b), layers.Flatten()(a)])
    graph = keras_reader.read(model)
    rng = np.random.default_rng(0)
    _, seen = walk.run(model, [rng.normal(size=(2, 6, 5, 3)).astype("float32") for _ in range(2)])
    for node in graph.nodes:
        for value in node.outputs:
            assert seen[value.name].shape == (2, *value.shape[1:])
    assert [v.name for v in graph.inputs] == ["a", "b"] and seen.keys() >= {"a", "b"}


def test_inputs_without_a_name_have_the_same_in_every_process():
    x = keras.Input((3,))
    model = keras.Model(x, layers.Dense(2)(x))
    again = keras.Model.from_config(model.get_config())
    assert keras_reader.read(model).inputs == keras_reader.read(again).inputs


@pytest.mark.parametrize(
    "names", [("m.c", "s"), ("c", "s#2"), ("c", "c_0"), ("c:0", "c"), ("image@0312", "s"), ("c.kernel", "m.c.kernel")]
)
def test_names_that_could_be_taken_for_others(check, names):
    """No layer's name, however chosen, makes two tensors or two weights one."""
    x = image()
    first, second = conv(names[0], activation="relu"), conv(names[1])
    again = conv("again")
    y = again(again(second(first(nested("m", conv("c"))(x)))))
    model = check.randomise(keras.Model(x, y))
    graph = keras_reader.read(model)
    produced = [v.name for n in graph.nodes for v in n.outputs]
    assert len(set(produced)) == len(produced) and len(graph.parameters) == len(model.weights)
    check.both_ways(model, same_layers=False)


def test_structures_are_kept():
    a, b = keras.Input((3,), name="a"), keras.Input((4,), name="b")
    y = layers.Dense(2, name="d")(b)
    graph = keras_reader.read(keras.Model({"b": b, "a": a}, {"y": [y, (a,)], "x": y}))
    assert [v.name for v in graph.inputs] == [t.name for t in keras.tree.flatten({"b": b, "a": a})]
    assert graph.outputs.keys() == {"x", "y"} and graph.outputs["x"] == graph.outputs["y"][0]
    assert graph.outputs["y"][1][0].name == "a"


def test_only_what_the_outputs_need_is_read():
    x = image()
    y = conv("a")(x)
    conv("b")(y)
    assert len(keras_reader.read(keras.Model(x, y)).nodes) == 1


def test_values_may_be_replaced():
    x = image()
    graph = keras_reader.read(keras.Model(x, conv("c")(x)), lambda v: np.zeros(v.shape))
    assert not any(p.value.any() for p in graph.parameters.values())


def test_trainable_flags():
    x = image()
    inner = nested("m", conv("a"), layers.BatchNormalization(name="n"))
    inner.trainable = False
    graph = keras_reader.read(keras.Model(x, conv("b")(inner(x))))
    assert {k for k, p in graph.parameters.items() if p.trainable} == {"b.kernel", "b.bias"}
    assert graph.nodes[1]["frozen"]


class Own(layers.Layer):
    def call(self, x):
        return tf.abs(x)


def test_everything_wrong_is_said_at_once():
    x = image()
    y = layers.Lambda(tf.abs, name="first_lambda", output_shape=(6, 5, 3))(x)
    y = layers.BatchNormalization(name="norm")(conv("fine")(y), training=True)
    y = nested("inner", Own(name="own"))(y)
    y = layers.Lambda(lambda t: t if t[0, 0, 0, 0] > 0 else -t, name="second", output_shape=(6, 5, 3))(y)
    with pytest.raises(bridge.BridgeError) as e:
        keras_reader.read(keras.Model(x, y, name="net"))
    lines = str(e.value).splitlines()
    assert lines[0].startswith("net has 4 layer(s) that cannot be carried")
    assert [o.path for o in e.value.obstacles] == ["first_lambda", "norm", "inner.own", "second"]
    assert "compute with keras.ops" in lines[1] and "its call cannot be followed" in lines[3]
    assert "fine" not in str(e.value)


def test_arguments_that_a_rule_could_overlook_are_refused():
    x, mask = keras.Input((6, 3), name="x"), keras.Input((6,), dtype="float32", name="mask")
    y = layers.BatchNormalization(name="n")(x, mask=mask)
    with pytest.raises(bridge.BridgeError, match=r"n .BatchNormalization.: its mask is float32; give booleans"):
        keras_reader.read(keras.Model([x, mask], y))


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: keras.Sequential([layers.Dense(3)]), "Build a Sequential model with"),
        (lambda: type("Sub", (keras.Model,), {"call": lambda self, x: x})(), "put a subclassed model into one"),
        (lambda: 3, "3|int"),
        (lambda: layers.Dense(3), "Received: Dense"),
    ],
)
def test_what_is_no_functional_model(make, text):
    with pytest.raises(bridge.BridgeError, match=text):
        keras_reader.read(make())


def test_the_model_is_left_as_it_was():
    x = image()
    model = keras.Model(x, conv("c")(x))
    model.get_layer("c").trainable = False
    before = model.to_json(), [np.array(w) for w in model.weights]
    bridge.to_torch(model)
    assert model.to_json() == before[0] and not model.get_layer("c").trainable
    for a, b in zip(model.weights, before[1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_nested_model_goes_by_the_names_of_its_inputs(check):
    z, a = keras.Input((4,), name="z"), keras.Input((4,), name="a")
    inner = keras.Model([z, a], layers.Subtract()([z, a]))
    p, q = keras.Input((4,), name="p"), keras.Input((4,), name="q")
    for given in ({"z": p, "a": q}, {"z": p, "a": q, "further": q}):
        model = keras.Model([p, q], layers.Dense(2)(inner(given)))
        assert bridge.verify(check.randomise(model), bridge.to_torch(model)).passed


def test_a_nested_model_that_changes_what_it_is_given_is_refused():
    i = keras.Input((4, 1), name="i")
    squeezed = keras.Input((4,))
    numbers, real = keras.Input((4,), dtype="int32"), keras.Input((4,))
    for x, inner in ((i, squeezed), (numbers, real)):
        nested = keras.Model(inner, layers.Dense(3)(inner), name="nested")
        with pytest.raises(bridge.BridgeError, match="nested .Functional.*number, rank and dtype"):
            bridge.to_torch(keras.Model(x, nested(x)))


def test_sizes_that_are_known_where_a_nested_model_is_called(check):
    """A backbone of open sizes inside a model of fixed ones: its padding is a constant there."""
    x = keras.Input((None, None, 3))
    y = layers.Conv2D(5, 3, 2, "same", name="b")(layers.Conv2D(4, 3, 2, "same")(x))
    o = keras.Input((17, 22, 3))
    model = check.randomise(keras.Model(o, keras.Model(x, y, name="inner")(o)))
    assert keras_reader.read(model).nodes[1]["pads"] == ((1, 1), (1, 1))
    assert bridge.verify(model, bridge.to_torch(model)).passed


def test_a_sequential_model_built_on_data_takes_any_batch():
    model = keras.Sequential([layers.Dense(2)])
    model(np.zeros((8, 3)))
    assert keras_reader.read(model).inputs[0].shape == (None, 3)


def test_integers_into_a_layer_of_floats_are_refused():
    x = keras.Input((7,), dtype="int32")
    with pytest.raises(bridge.BridgeError, match="d .Dense.: it makes float32 of int32; give the model an Input"):
        bridge.to_torch(keras.Model(x, layers.Dense(3, name="d")(x)))
