"""Two builds of a model have the same names, and what is built around it has others."""

import keras
import pytest

import bridge
import tfzoo
from tfzoo.layers import names


def product():
    x = keras.Input((3,), name="x")
    return keras.Model(x, keras.ops.multiply(keras.ops.multiply(x, 2.0), 3.0))


def operations(model):
    return [operation.name for operation in model.operations]


def test_a_build_counts_from_its_first():
    product()
    made = []
    for _ in range(2):
        with names.counted_anew():
            made.append(operations(product()))
    assert made[0] == made[1] == ["x", "multiply", "multiply_1"]


def test_what_is_put_on_top_has_names_that_are_new():
    before = {operations(product())[-1] for _ in range(3)}
    with names.counted_anew():
        model = product()
    on_top = keras.Model(model.input, keras.ops.multiply(model.output, 4.0))
    assert len(set(operations(on_top))) == 4 and operations(on_top)[-1] not in before


def test_counts_go_on_where_a_build_fails():
    last = operations(product())[-1]
    with pytest.raises(ValueError, match="no"), names.counted_anew():
        raise ValueError("no")
    assert operations(product())[-1] not in (last, "multiply", "multiply_1")


@pytest.mark.parametrize("transform", ["affine", "translation", "projective", "thin_plate"])
def test_state_dicts_of_two_builds_fit_each_other(transform):
    one, other = (
        bridge.to_torch(tfzoo.build("spatial_transformer", size="tiny", transform=transform)) for _ in range(2)
    )
    one.load_state_dict(other.state_dict(), strict=True)
