import http.server
import socket
import threading

import numpy as np
import pytest
import tensorflow as tf

from tfzoo.export import client
from tfzoo.export.signatures import BYTES, DEFAULT


def test_the_same_answers_in_every_way(connect, unet, astronaut, encode):
    image = np.random.default_rng(1).random((3, 32, 32, 3), np.float32)
    want = 1 / (1 + np.exp(-np.asarray(unet(image))))
    assert np.ptp(want) > 0.02
    with connect() as opened:
        assert set(opened.signatures) == {DEFAULT, BYTES}
        mask = opened.ask(DEFAULT, {"image": image})["mask"]
        np.testing.assert_allclose(mask, want, rtol=1e-5)
        files = np.array([encode(astronaut, "PNG"), encode(astronaut, "JPEG")], object)
        of_files = opened.ask(BYTES, {"image_bytes": files})["mask"]
    assert of_files.shape == (2, 32, 32, 1) and np.abs(of_files[0] - of_files[1]).max() > 0


def test_the_models_own_words_reach_the_client(connect):
    files = np.array([b"GIF89a and so on"], object)
    with connect() as opened, pytest.raises(ValueError, match="the file at place 0 is neither PNG nor JPEG"):
        opened.ask(BYTES, {"image_bytes": files})


def test_no_such_signature(connect):
    with (
        connect() as opened,
        pytest.raises(ValueError, match="no signature 'encode'. Accepted: serving_bytes, serving"),
    ):
        opened.ask("encode", {"image": np.zeros((1, 32, 32, 3), np.float32)})


@pytest.mark.parametrize("kind, busy", [("REST", [503, 429]), ("gRPC", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])])
def test_a_busy_server_is_asked_again(kind, busy, version, rest_server, grpc_server):
    start = rest_server if kind == "REST" else grpc_server
    with client.connect(start(version, busy), retries=3) as opened:
        assert DEFAULT in opened.signatures
    with pytest.raises(client.NoAnswer, match=r"busy or away .*overloaded|UNAVAILABLE: overloaded"):
        client.connect(start(version, busy), retries=0).__enter__()


@pytest.mark.parametrize("kind", ["REST", "gRPC"])
def test_another_model_is_refused_in_the_servers_words(kind, version, rest_server, grpc_server):
    address = rest_server(version) if kind == "REST" else grpc_server(version)
    words = r"refused the request.*(Could not find any versions|Servable not found)"
    with pytest.raises(ValueError, match=words):
        client.connect(address.replace("unet", "other")).__enter__()
    one, two = ("/versions/1", "/versions/2") if kind == "REST" else ("/1", "/2")
    with client.connect(address + one) as opened:
        assert DEFAULT in opened.signatures
    with pytest.raises(ValueError, match=words):
        client.connect(address + two).__enter__()


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/v1/models/unet", "grpc://127.0.0.1:1/unet"])
def test_nobody_is_there(address):
    with pytest.raises(client.NoAnswer, match="no answer from .*Is the server running") as caught:
        client.connect(address, retries=0, timeout=2).__enter__()
    assert caught.value.exit_code == 3 and "onnect" in str(caught.value)


def test_an_answer_that_does_not_come():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for address in (f"http://127.0.0.1:{port}/v1/models/unet", f"grpc://127.0.0.1:{port}/unet"):
            with pytest.raises(client.NoAnswer, match=r"timed out|DEADLINE_EXCEEDED|UNAVAILABLE"):
                client.connect(address, retries=0, timeout=0.3).__enter__()


@pytest.mark.parametrize(
    "address", ["http://host/unet", "grpc://host:1/", "ftp://host/v1/models/unet", "grpc://host:1/unet/latest"]
)
def test_no_address_of_a_model(address):
    with pytest.raises(ValueError, match="not the address of a model: .*Accepted: http://HOST:PORT/v1/models/NAME"):
        client.connect(address).__enter__()


@pytest.mark.parametrize(
    "body, words",
    [
        (b"<html>", "is not TensorFlow Serving: HTTP 200, not JSON"),
        (b"[1]", "refused the request"),
        (b'{"metadata": {"signature_def": {"signature_def": 3}}}', "is not TensorFlow Serving's"),
        (b'"' + b"x" * 3000, "answers with over 0 MiB: send fewer at once"),
    ],
)
def test_another_server(body, words, monkeypatch):
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    monkeypatch.setattr(client, "LARGEST", 2000)
    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(ValueError, match=words):
            client.connect(f"http://127.0.0.1:{server.server_port}/v1/models/unet").__enter__()


def test_a_large_request_is_sent_again(version, grpc_server, rest_server):
    """Of more than 256 KiB, which gRPC by itself would not keep."""
    image = np.random.default_rng(0).random((40, 32, 32, 3), np.float32)
    for start, busy in ((grpc_server, ["UNAVAILABLE"]), (rest_server, [503])):
        with client.connect(start(version, predict_refusals=busy), retries=2) as opened:
            assert opened.ask(DEFAULT, {"image": image})["mask"].shape == (40, 32, 32, 1)


@pytest.mark.parametrize(
    "kind, words", [("REST", "with over 0 MiB: send fewer"), ("gRPC", "larger than max.*send fewer")]
)
def test_an_answer_that_is_too_large(kind, words, version, grpc_server, rest_server, monkeypatch):
    image = np.random.default_rng(0).random((20, 32, 32, 3), np.float32)
    monkeypatch.setattr(client, "LARGEST", 50_000)  # of the request, too, where gRPC counts
    address = (rest_server if kind == "REST" else grpc_server)(version)
    with client.connect(address) as opened, pytest.raises(ValueError, match=words):
        opened.ask(DEFAULT, {"image": image})


def test_a_truncated_picture(connect, astronaut, encode):
    for kind, words in (("PNG", "PNG"), ("JPEG", "JPEG|jpeg")):
        file = encode(astronaut, kind)[:900]
        with connect() as opened, pytest.raises(ValueError, match=words):
            opened.ask(BYTES, {"image_bytes": np.array([file], object)})


def test_tls_where_there_is_none(version, rest_server):
    address = rest_server(version).replace("http://", "https://")
    with pytest.raises(client.NoAnswer, match="no answer from https://.*SSL"):
        client.connect(address, retries=0, timeout=5).__enter__()


def test_a_proxy_without_a_server():
    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(503)
            self.end_headers()
            self.wfile.write(b"<html>no healthy upstream")

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(client.NoAnswer, match="busy or away .HTTP 503.: <html>no healthy upstream"):
            client.connect(f"http://127.0.0.1:{server.server_port}/v1/models/unet", retries=0).__enter__()


def test_texts_and_numbers_as_json_has_them():
    assert client.plain(np.array(["a", "é"])) == [{"b64": "YQ=="}, {"b64": "w6k="}]
    assert client.plain(np.array([[True, False]])) == [[True, False]]
    texts = client.array("label", ["a", {"b64": "YQ=="}], tf.string)
    assert texts.tolist() == [b"a", b"a"]
    assert np.isnan(client.array("x", [float("nan"), 1], tf.float32)).tolist() == [True, False]
    with pytest.raises(ValueError, match="the server's output x is no array of float32"):
        client.array("x", [[1], [2, 3]], tf.float32)
