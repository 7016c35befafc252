"""A model with live weights, its export, and servers that speak TensorFlow Serving's protocols around it."""

import contextlib
import io
import json
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import json_format
from PIL import Image
from skimage import data

import tfzoo
from tfzoo.export import client, save, session


@pytest.fixture(scope="package")
def live():
    """Give every weight of a model a random value, statistics too, and give back the model."""

    def change(model: keras.Model) -> keras.Model:
        rng = np.random.default_rng(0)
        for w in model.weights:
            scale = 0.3 if len(w.shape) < 2 else (2 / np.prod(w.shape[:-1])) ** 0.5
            w.assign(rng.uniform(0.5, 1.5, w.shape) if "variance" in w.path else rng.normal(0, scale, w.shape))
        return model

    return change


@pytest.fixture(scope="package")
def unet(live):
    """A tiny U-Net with BatchNormalization."""
    return live(tfzoo.build("unet", size="tiny", batch_norm=True))


@pytest.fixture(scope="package")
def version(unet, tmp_path_factory):
    """An exported version of it; not to be changed."""
    return save(unet, tmp_path_factory.mktemp("models") / "unet", signatures=tfzoo.unet.signatures).path


@pytest.fixture(scope="package")
def astronaut() -> Image.Image:
    """A photograph, of odd sizes."""
    return Image.fromarray(data.astronaut()[:151, :201])


@pytest.fixture(scope="package")
def encode():
    """Give a picture's file: `encode(picture, "PNG")`."""

    def file(picture: Image.Image, kind: str, **options) -> bytes:
        opened = io.BytesIO()
        picture.save(opened, kind, **options)
        return opened.getvalue()

    return file


def value_of(x):
    """JSON's value as TensorFlow Serving takes it: {"b64": ...} is bytes."""
    import base64

    if isinstance(x, dict):
        return base64.b64decode(x["b64"])
    return [value_of(y) for y in x] if isinstance(x, list) else x


@pytest.fixture
def rest_server():
    """Serve a SavedModel as TensorFlow Serving's REST API does; `refusals` are HTTP numbers that it answers with first.

    https://www.tensorflow.org/tfx/serving/api_rest
    """
    with contextlib.ExitStack() as stack:

        def start(path, refusals=(), predict_refusals=()):
            signatures, run = stack.enter_context(session.load(path))
            waiting, later, lock = list(refusals), list(predict_refusals), threading.Lock()

            class Handler(BaseHTTPRequestHandler):
                def answer(self, code, values):
                    body = values if isinstance(values, bytes) else json.dumps(values).encode()
                    self.send_response(code)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

                def do_GET(self):
                    if waiting:
                        return self.answer(waiting.pop(0), {"error": "overloaded"})
                    if self.path not in ("/v1/models/unet/metadata", "/v1/models/unet/versions/1/metadata"):
                        return self.answer(404, {"error": "Could not find any versions of model"})
                    found = {name: json_format.MessageToDict(s, True, True) for name, s in signatures.items()}
                    return self.answer(200, {"metadata": {"signature_def": {"signature_def": found}}})

                def do_POST(self):
                    asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                    if later:
                        return self.answer(later.pop(0), {"error": "overloaded"})
                    signature = signatures[asked["signature_name"]]
                    inputs = {
                        k: np.array(value_of(v), object if signature.inputs[k].dtype == 7 else np.float32)
                        for k, v in asked["inputs"].items()
                    }
                    try:
                        with lock:
                            made = run(asked["signature_name"], inputs)
                    except tf.errors.InvalidArgumentError as error:
                        return self.answer(400, {"error": error.message})
                    outputs = {k: v.tolist() for k, v in made.items()}
                    return self.answer(200, {"outputs": outputs if len(outputs) > 1 else next(iter(outputs.values()))})

                def log_message(self, *_):
                    pass

            server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}/v1/models/unet"

        yield start


@pytest.fixture
def grpc_server():
    """Serve a SavedModel by TensorFlow Serving's PredictionService; `refusals` are codes that it answers with first."""
    import grpc
    from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

    with contextlib.ExitStack() as stack:

        def start(path, refusals=(), predict_refusals=()):
            signatures, run = stack.enter_context(session.load(path))
            waiting, later = ([getattr(grpc.StatusCode, x) for x in some] for some in (refusals, predict_refusals))

            class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
                def GetModelMetadata(self, request, context):
                    if waiting:
                        context.abort(waiting.pop(0), "overloaded")
                    if request.model_spec.name != "unet" or request.model_spec.version.value not in (0, 1):
                        context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found for request")
                    found = get_model_metadata_pb2.SignatureDefMap()
                    for name, signature in signatures.items():
                        found.signature_def[name].CopyFrom(signature)
                    answer = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=request.model_spec)
                    answer.metadata["signature_def"].Pack(found)
                    return answer

                def Predict(self, request, context):
                    if later:
                        context.abort(later.pop(0), "overloaded")
                    inputs = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
                    try:
                        made = run(request.model_spec.signature_name, inputs)
                    except tf.errors.InvalidArgumentError as error:
                        context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
                    answer = predict_pb2.PredictResponse(model_spec=request.model_spec)
                    for key, value in made.items():
                        answer.outputs[key].CopyFrom(tf.make_tensor_proto(value))
                    return answer

            server = grpc.server(futures.ThreadPoolExecutor(2))
            prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            stack.callback(lambda: server.stop(None).wait())
            return f"grpc://127.0.0.1:{port}/unet"

        yield start


@pytest.fixture(params=["folder", "REST", "gRPC"])
def connect(request, version, rest_server, grpc_server):
    """Open the exported version in each way: a context of a client."""
    starts = {"folder": lambda path: str(path), "REST": rest_server, "gRPC": grpc_server}
    return lambda **options: client.connect(starts[request.param](version), **options)
