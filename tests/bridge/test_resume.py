"""What `resume.py` says of itself; that it goes on is in test_trainings.py."""

import ast

import keras
import pytest

import bridge
from bridge import resume


@pytest.mark.parametrize("penalty", [None, "l2"])
def test_the_program_is_whole_and_tells_of_penalties(tmp_path, penalty):
    x = keras.Input((3,))
    dense = keras.layers.Dense(2, kernel_regularizer=penalty, activation="softmax" if penalty else None)
    model = keras.Model(x, dense(x), name='a"""b\n{c}')
    module = bridge.to_torch(model)
    optimizer = bridge.optimizer_to_torch(keras.optimizers.Lion(), model, module)
    resume.write(tmp_path, optimizer, module, model)
    text = (tmp_path / resume.PROGRAM).read_text()
    told = ast.get_docstring(ast.parse(text))
    assert told.startswith("Go on with the training of a___b__c_, which has taken 0 steps with Lion.")
    assert ("add them in `train`" in told) == bool(penalty)
    assert ("The network returns probabilities" in told) == bool(penalty)
    assert {p.name for p in tmp_path.iterdir()} == {resume.PROGRAM, resume.RULES, resume.STATE}
