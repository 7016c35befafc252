"""Which devices train together: one, the several of a machine, or those of several machines.

Several machines find one another by `TF_CONFIG` (Kubernetes' TFJob and `tfzoo launch` set it) or by Slurm's variables.
"""

import json
import os

import tensorflow as tf
from tensorflow.compiler.xla.tsl.protobuf.coordination_config_pb2 import CoordinatedJob
from tensorflow.python.distribute.cluster_resolver.slurm_cluster_resolver import get_num_gpus
from tensorflow.python.distribute.multi_worker_util import coordination_leader
from tensorflow.python.eager import context

NAMES = ("auto", "one", "mirrored", "multi-worker")
SILENCE = 60.0  # seconds after which a worker counts as lost; TensorFlow's 10 take a busy or paused machine for dead


def choose(name: str = "auto") -> tf.distribute.Strategy:
    """Make the strategy; before anything else of TensorFlow is used, as workers must find one another first.

    Args:
        name: "one": a single device. "mirrored": all GPUs of this machine, or its logical CPU devices. "multi-worker":
            this process is one of the workers that `TF_CONFIG` or Slurm name. "auto": "multi-worker" if they name
            several, else "mirrored" if there are several GPUs, else "one".

    Returns:
        The strategy, in whose scope the model is made.

    Raises:
        ValueError: There is no such strategy, or the cluster cannot be made of what the environment says.
    """
    if name not in NAMES:
        raise ValueError(f"no strategy {name!r}. Accepted for --strategy: {', '.join(NAMES)}.")
    resolver = None if name in ("one", "mirrored") else cluster()
    if resolver is None and name == "multi-worker":
        raise ValueError(
            "--strategy multi-worker: neither TF_CONFIG nor Slurm's variables name several workers. Start the workers "
            "with `tfzoo launch --workers N -- train ...`, `srun`, or a TFJob (docs/distributed.md)."
        )
    if resolver is not None:
        _wait_for_the_silent(resolver.cluster_spec())
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    if name == "mirrored" or (name == "auto" and kind == "GPU" and len(devices) > 1):
        return tf.distribute.MirroredStrategy(devices)
    return tf.distribute.get_strategy()  # TensorFlow's default: one device


def _wait_for_the_silent(spec: tf.train.ClusterSpec) -> None:
    """Set `SILENCE`, with all else as the strategy itself would set it if nobody had."""
    context.context().configure_coordination_service(
        "standalone",
        service_leader=coordination_leader(spec),
        heartbeat_timeout_in_ms=int(SILENCE * 1000),
        coordinated_jobs=[CoordinatedJob(name=job, num_tasks=spec.num_tasks(job)) for job in sorted(spec.jobs)],
    )


def cluster() -> tf.distribute.cluster_resolver.ClusterResolver | None:
    """Read the cluster of `TF_CONFIG`, or else of Slurm; None where neither names several workers."""
    if os.environ.get("TF_CONFIG"):
        return from_tf_config(os.environ["TF_CONFIG"])
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        try:
            gpus = 0 if os.environ.get("CUDA_VISIBLE_DEVICES") == "-1" else get_num_gpus()
        except (OSError, RuntimeError):  # a node without nvidia-smi
            gpus = 0
        if gpus:
            return tf.distribute.cluster_resolver.SlurmClusterResolver(gpus_per_node=gpus)
        # TensorFlow's resolver counts a node's workers by its GPUs.
        tasks = int(os.environ["SLURM_STEP_NUM_TASKS"])
        return tf.distribute.cluster_resolver.SlurmClusterResolver(
            gpus_per_node=tasks, gpus_per_task=1, auto_set_gpu=False
        )
    return None


def from_tf_config(text: str) -> tf.distribute.cluster_resolver.ClusterResolver | None:
    """Check `TF_CONFIG`, of which TensorFlow's own errors say little; None for a cluster of one."""
    accepted = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
    try:
        config = json.loads(text)
        tasks, task = config.get("cluster", {}), config.get("task", {})
        hosts = {kind: list(tasks[kind]) for kind in tasks}
        wrong = [] if not hosts or task["index"] in range(len(hosts[task["type"]])) else ["no such task"]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"TF_CONFIG cannot be read ({type(error).__name__}: {error}). Received: {text}. Accepted: {accepted}."
        ) from error
    wrong += [f"tasks of type {kind!r}" for kind in sorted(set(hosts) - {"chief", "worker"})]
    if wrong:
        raise ValueError(f"TF_CONFIG has {' and '.join(wrong)}. Received: {text}. Accepted: {accepted}, and a chief.")
    if sum(map(len, hosts.values())) < 2:
        return None
    return tf.distribute.cluster_resolver.TFConfigClusterResolver()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Tell whether this process is the one that writes; true where there is no other."""
    return strategy.extended.should_checkpoint


def place(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """Tell which of the workers this process is, from 0 on, and how many there are."""
    resolver = strategy.cluster_resolver
    if resolver is None:
        return 0, 1
    tasks = resolver.cluster_spec().as_dict()  # a chief comes first, as the replicas are numbered
    before = len(tasks.get("chief", [])) if resolver.task_type == "worker" else 0
    return before + resolver.task_id, sum(map(len, tasks.values()))


def gathered(strategy: tf.distribute.Strategy, number: int) -> list[int]:
    """Give the number that each replica's process has; a collective call, which every worker makes."""

    def gather():
        return tf.distribute.get_replica_context().all_gather(tf.constant([number]), axis=0)

    if strategy.num_replicas_in_sync == 1:
        return [number]
    return strategy.experimental_local_results(tf.function(lambda: strategy.run(gather))())[0].numpy().tolist()
