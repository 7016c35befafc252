"""Clients of an exported model: its folder on this machine, or TensorFlow Serving by REST or by gRPC.

    models/unet, models/unet/3                           a SavedModel, run here
    http://localhost:8501/v1/models/unet                 and https; /versions/3 for that one
    grpc://localhost:8500/unet                           and grpcs; /unet/3 for version 3

Each gives the model's signatures, and answers from arrays to arrays. REST sends texts in base64 and numbers in decimal:
gRPC is the faster one for arrays.
"""

import base64
import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import requests
import tensorflow as tf
from google.protobuf import json_format
from requests.adapters import HTTPAdapter, LocationValueError, Retry
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.model_pb2 import ModelSpec

from tfzoo.export import session, versions, warm_up

LARGEST = 2**28  # bytes of an answer
REST = re.compile(r"(?P<base>https?://[^/?#]+(/[^?#]*)?/v1/models/[^/:?#]+(/(versions|labels)/[^/:?#]+)?)(:predict)?/?")
GRPC = re.compile(r"(?P<kind>grpcs?)://(?P<host>[^/?#]+)/(?P<name>[^/?#]+)(/(?P<version>\d+))?/?")
BUSY = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")  # of gRPC; of HTTP the numbers below
WHERE = ("Graph execution error", "Detected at node", "<stack traces", " ", "\t")  # not what an error was
BUSY_HTTP = (429, 502, 503, 504)
MOST_RETRIES = 4  # gRPC makes five attempts at most


class NoAnswer(OSError):
    """A server that cannot be reached, or gave no answer in time."""

    exit_code = 3


@dataclass(frozen=True)
class Client:
    """A model that can be asked.

    Attributes:
        signatures: By name.
        ask: From a signature's name and arrays by name to arrays by name; raises a ValueError with the model's own
            words for what it does not take, and `NoAnswer`.
    """

    signatures: dict[str, SignatureDef]
    ask: Callable[[str, dict[str, np.ndarray]], dict[str, np.ndarray]]


@contextlib.contextmanager
def connect(target: str, *, timeout: float = 60.0, retries: int = 3) -> Iterator[Client]:
    """Open a model for as long as a block lasts.

    Args:
        target: A folder or an address, as above.
        timeout: Seconds that an answer may take.
        retries: Further attempts, ever more slowly, where a server is busy or cannot be reached; at most 4.

    Yields:
        The client.

    Raises:
        ValueError: The target is neither, or the server has no such model.
        NoAnswer: The server cannot be reached.
    """
    if match := REST.fullmatch(target):
        opened = rest(match["base"], timeout, retries)
    elif match := GRPC.fullmatch(target):
        opened = grpc(match, timeout, retries)
    elif "://" in target:
        raise ValueError(
            f"not the address of a model: {target}. Accepted: http://HOST:PORT/v1/models/NAME, grpc://HOST:PORT/NAME, "
            "or an exported folder."
        )
    else:
        opened = local(versions.highest(Path(target)))
    with opened as client:
        yield client


@contextlib.contextmanager
def local(path: Path) -> Iterator[Client]:
    """Run a SavedModel here, as the server would."""
    with session.load(path) as (signatures, run):

        def ask(signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            try:
                return run(signature, inputs)
            except tf.errors.InvalidArgumentError as error:
                raise ValueError(said(error.message)) from error

        yield Client(signatures, ask)


@contextlib.contextmanager
def rest(base: str, timeout: float, retries: int) -> Iterator[Client]:
    """Ask TensorFlow Serving's REST API (https://www.tensorflow.org/tfx/serving/api_rest)."""
    policy = Retry(
        total=retries, backoff_factor=0.2, status_forcelist=BUSY_HTTP, allowed_methods=None, raise_on_status=False
    )
    with requests.Session() as http:
        for scheme in ("http://", "https://"):
            http.mount(scheme, HTTPAdapter(max_retries=policy))

        def send(method: str, address: str, body: dict | None = None) -> dict:
            parts, size = [], 0
            text = None if body is None else json.dumps(body)  # requests would refuse NaN, which the server reads
            try:
                with http.request(method, address, data=text, timeout=timeout, stream=True) as answer:
                    for part in answer.iter_content(2**20):
                        parts.append(part)
                        size += len(part)
                        if size > LARGEST:
                            raise ValueError(f"{address} answers with over {LARGEST >> 20} MiB: send fewer at once")
            except (requests.exceptions.InvalidURL, LocationValueError, UnicodeError) as error:
                raise ValueError(f"not the address of a model: {address}: {cause(error)}") from error
            except requests.RequestException as error:
                raise NoAnswer(f"no answer from {address}: {cause(error)}. Is the server running?") from error
            received = b"".join(parts)
            if answer.status_code in BUSY_HTTP:  # also of what stands before the server, in its own words
                words = " ".join(received[:300].decode(errors="replace").split())
                raise NoAnswer(f"{address} is busy or away (HTTP {answer.status_code}): {words}")
            try:
                values = json.loads(received)
            except ValueError as error:
                raise ValueError(f"{address} is not TensorFlow Serving: HTTP {answer.status_code}, not JSON") from error
            if not answer.ok or not isinstance(values, dict):
                words = values.get("error", values) if isinstance(values, dict) else values
                raise ValueError(f"{address} refused the request (HTTP {answer.status_code}): {said(str(words))}")
            return values

        try:
            found = send("GET", f"{base}/metadata")["metadata"]["signature_def"]
            signatures = json_format.ParseDict(found, SignatureDefMap(), ignore_unknown_fields=True).signature_def
        except (json_format.ParseError, KeyError, TypeError) as error:
            raise ValueError(f"{base}/metadata is not TensorFlow Serving's: {error!r}") from error

        def ask(signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            check(signatures, signature)
            body = {"signature_name": signature, "inputs": {name: plain(value) for name, value in inputs.items()}}
            outputs = send("POST", f"{base}:predict", body).get("outputs")
            kinds = signatures[signature].outputs
            if len(kinds) == 1:  # then the server leaves out the name
                outputs = {next(iter(kinds)): outputs}
            if not isinstance(outputs, dict) or outputs.keys() != kinds.keys() or None in outputs.values():
                raise ValueError(f"{base} does not answer with the outputs {', '.join(sorted(kinds))}")
            return {name: array(name, outputs[name], tf.as_dtype(info.dtype)) for name, info in kinds.items()}

        yield Client(session.served(signatures), ask)


@contextlib.contextmanager
def grpc(match: re.Match, timeout: float, retries: int) -> Iterator[Client]:
    """Ask TensorFlow Serving's PredictionService."""
    import grpc
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

    policy = {
        "maxAttempts": retries + 1,
        "initialBackoff": "0.2s",
        "maxBackoff": "5s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": list(BUSY),
    }
    config = {"methodConfig": [{"name": [{}], "retryPolicy": policy}]} if retries else {}
    options = [
        ("grpc.service_config", json.dumps(config)),
        ("grpc.max_receive_message_length", LARGEST),
        ("grpc.max_send_message_length", LARGEST),
        ("grpc.per_rpc_retry_buffer_size", LARGEST),  # else what is larger than 256 KiB is not sent again
    ]
    name, version, host = match["name"], match["version"], match["host"]
    channel = (
        grpc.secure_channel(host, grpc.ssl_channel_credentials(), options)
        if match["kind"] == "grpcs"
        else grpc.insecure_channel(host, options)
    )
    with channel:
        service = PredictionServiceStub(channel)

        def send(method: Callable, request):
            spec = request.model_spec
            spec.CopyFrom(ModelSpec(name=name, signature_name=spec.signature_name))
            if version:
                spec.version.value = int(version)
            try:
                return method(request, timeout=timeout)
            except grpc.RpcError as error:
                words = f"{error.code().name}: {said(error.details() or '')}"
                if "larger than max" in words:  # gRPC's own, of an answer above LARGEST
                    raise ValueError(f"{match[0]}: {words}: send fewer at once") from error
                if error.code().name in (*BUSY, "DEADLINE_EXCEEDED"):
                    raise NoAnswer(f"no answer from {match[0]}: {words}. Is the server running?") from error
                raise ValueError(f"{match[0]} refused the request: {words}") from error

        asked = send(service.GetModelMetadata, GetModelMetadataRequest(metadata_field=["signature_def"]))
        signatures = SignatureDefMap()
        asked.metadata["signature_def"].Unpack(signatures)

        def ask(signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            check(signatures.signature_def, signature)
            answer = send(service.Predict, warm_up.request(name, signature, inputs))
            return {key: tf.make_ndarray(value) for key, value in answer.outputs.items()}

        yield Client(session.served(signatures.signature_def), ask)


def check(signatures, name: str) -> None:
    """Refuse a signature that the model does not have."""
    if name not in signatures:
        raise ValueError(f"there is no signature {name!r}. Accepted: {', '.join(sorted(signatures))}.")


def plain(value: np.ndarray):
    """Give an array as JSON has it, texts in base64."""
    if value.dtype.kind in "OSU":

        def coded(text: str | bytes) -> dict[str, str]:
            return {"b64": base64.b64encode(text if isinstance(text, bytes) else str(text).encode()).decode()}

        return np.vectorize(coded, otypes=[object])(value).tolist()
    return value.tolist()


def array(name: str, value, dtype: tf.DType) -> np.ndarray:
    """Give what JSON had as an array; the server writes outputs that are called ..._bytes in base64."""

    def text(x) -> bytes:
        return base64.b64decode(x["b64"]) if isinstance(x, dict) else str(x).encode()

    if dtype == tf.string:
        return np.vectorize(text, otypes=[object])(value)
    try:
        return np.asarray(value, dtype.as_numpy_dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the server's output {name} is no array of {dtype.name}: {error}") from error


def cause(error: Exception) -> str:
    """Give what lies at the bottom of an error of the connection."""
    while below := next((x for x in (getattr(error, "reason", None), *error.args) if isinstance(x, Exception)), None):
        error = below
    return " ".join(str(error).split())[:300]


def said(message: str) -> str:
    """Give the sentence of a signature's own error, without the graph's nodes around it."""
    found = re.search(r"assertion failed: \[(.*?)\]", message, re.DOTALL)
    lines = (line for line in message.splitlines() if line and not line.startswith(WHERE))
    return " ".join((found[1] if found else next(lines, message)).split())[:500]
