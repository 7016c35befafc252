"""Warm-up requests: what TensorFlow Serving asks of a version before it serves it to anyone.

`assets.extra/tf_serving_warmup_requests` is a TFRecord file of `PredictionLog`s, at most 1,000
(https://www.tensorflow.org/tfx/serving/saved_model_warmup). Without it the first users wait while kernels are chosen
and memory is allotted.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog

PLACE = Path("assets.extra") / "tf_serving_warmup_requests"


def request(model: str, signature: str, inputs: dict[str, np.ndarray]) -> PredictRequest:
    """Make a request.

    Args:
        model: The name under which the model is served.
        signature: A signature of it.
        inputs: Arrays by name; texts as bytes.
    """
    made = PredictRequest()
    made.model_spec.name = model
    made.model_spec.signature_name = signature
    for name, value in inputs.items():
        made.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return made


def write(saved_model: Path, requests: list[PredictRequest]) -> None:
    """Write the requests into a SavedModel's folder."""
    path = saved_model / PLACE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as file:
        for one in requests:
            file.write(PredictionLog(predict_log=PredictLog(request=one)).SerializeToString())


def read(saved_model: Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Read the requests of a SavedModel's folder: a signature's name and arrays by name, one after the other."""
    for record in tf.data.TFRecordDataset(str(saved_model / PLACE)).as_numpy_iterator():
        asked = PredictionLog.FromString(record).predict_log.request
        yield asked.model_spec.signature_name, {name: tf.make_ndarray(value) for name, value in asked.inputs.items()}
