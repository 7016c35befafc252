"""What `tensorflow_model_server` is started with: which model, how requests are put together, where the figures are.

    models.config       --model_config_file
    batching.config     --batching_parameters_file, with --enable_batching
    monitoring.config   --monitoring_config_file

They lie beside the versions, where a server takes only folders of digits for a version. In the container the folder is
mounted as /models/NAME.
"""

from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from bridge.files import aside

NAMES = ("models.config", "batching.config", "monitoring.config")
MONITORING = """\
prometheus_config {
  enable: true
  path: "/monitoring/prometheus/metrics"
}
"""


def models(name: str) -> str:
    """Write which model is served, from the folder where the container has it."""
    config = ModelServerConfig()
    config.model_config_list.config.add(name=name, base_path=f"/models/{name}", model_platform="tensorflow")
    return text_format.MessageToString(config)


def batching(batch: int | None) -> str:
    """Write how requests of several clients are put together.

    Args:
        batch: The model's, if it is fixed: fewer examples are then padded to it by the server; None for up to 32.
    """
    lines = [
        f"max_batch_size {{ value: {batch or 32} }}",
        "batch_timeout_micros { value: 2000 }",  # how long a request waits for others
        "max_enqueued_batches { value: 100 }",  # more are refused at once, which a client can see and retry
        "num_batch_threads { value: 4 }",
    ]
    return "\n".join(lines + [f"allowed_batch_sizes: {batch}"] * bool(batch)) + "\n"


def write(folder: Path, name: str, batch: int | None) -> None:
    """Write those of the three files that are not there: what was changed by hand stays, but for another fixed batch.

    Args:
        folder: The folder of the versions.
        name: The model's.
        batch: As for `batching`.
    """
    for file, text in zip(NAMES, (models(name), batching(batch), MONITORING), strict=True):
        there = (folder / file).read_text(encoding="utf-8") if (folder / file).exists() else ""
        if not there or (file == NAMES[1] and batch and f"allowed_batch_sizes: {batch}\n" not in there):
            with aside(folder / file) as side:
                side.write_text(text, encoding="utf-8")
