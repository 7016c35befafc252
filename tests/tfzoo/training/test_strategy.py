import json
from types import SimpleNamespace

import pytest
import tensorflow as tf

from tfzoo.training import strategy

SLURM = {
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_STEP_TASKS_PER_NODE": "2,1",
    "SLURM_PROCID": "2",
}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in ("TF_CONFIG", *SLURM):
        monkeypatch.delenv(name, raising=False)


def test_auto_is_one_device_here():
    chosen = strategy.choose()
    assert chosen.num_replicas_in_sync == 1 and strategy.is_chief(chosen)
    assert not isinstance(chosen, tf.distribute.MirroredStrategy)


def test_mirrored():
    assert isinstance(strategy.choose("mirrored"), tf.distribute.MirroredStrategy)


@pytest.mark.parametrize(
    ("name", "said"),
    [("two", r"no strategy 'two'\. Accepted .*auto, one, mirrored, multi-worker"), ("multi-worker", "tfzoo launch")],
)
def test_what_cannot_be_is_refused(name, said):
    with pytest.raises(ValueError, match=said):
        strategy.choose(name)


def config(cluster, kind="worker", index=0):
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


def test_tf_config_names_the_workers(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, index=1))
    found = strategy.cluster()
    assert found.cluster_spec().as_dict() == {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    assert (found.task_type, found.task_id) == ("worker", 1)


@pytest.mark.parametrize("text", ["", "{}", config({"worker": ["a:1"]})])
def test_a_cluster_of_one_is_none(text, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    assert strategy.cluster() is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read .JSONDecodeError"),
        ("[]", "cannot be read"),
        (config({"worker": ["a:1", "b:1"]}, index=2), "no such task"),
        (config({"worker": ["a:1", "b:1"]}, "chief"), "cannot be read"),
        (config({"worker": ["a:1"], "ps": ["b:1"]}), "tasks of type 'ps'"),
    ],
)
def test_a_wrong_tf_config_is_shown_beside_a_right_one(text, said, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match=said) as error:
        strategy.choose()
    assert text in str(error.value) and '"task": {"type": "worker", "index": 0}' in str(error.value)


def test_slurm_names_the_workers(monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    found = strategy.cluster()
    assert found.cluster_spec().as_dict() == {"worker": ["node1:8888", "node1:8889", "node2:8888"]}
    assert (found.task_type, found.task_id) == ("worker", 2)


def test_slurm_with_one_task_is_one_device(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert strategy.cluster() is None


@pytest.mark.parametrize(
    ("kind", "index", "expected"), [("chief", 0, (0, 3)), ("worker", 0, (1, 3)), ("worker", 1, (2, 3))]
)
def test_the_place_of_a_worker(kind, index, expected, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, kind, index))
    assert strategy.place(SimpleNamespace(cluster_resolver=strategy.cluster())) == expected


def test_one_process_has_the_only_place():
    assert strategy.place(strategy.choose("one")) == strategy.place(strategy.choose("mirrored")) == (0, 1)
