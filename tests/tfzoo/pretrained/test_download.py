"""Nothing is fetched without a checksum, nothing is kept that does not have it."""

import hashlib
import http.client

import pytest

from tfzoo.pretrained import download

CONTENT = b"weights" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tfzoo"


def address(tmp_path, name="w.pth", content=CONTENT):
    (tmp_path / name).write_bytes(content)
    return (tmp_path / name).as_uri()


def test_a_checksum_in_the_name_or_behind_the_address(tmp_path, cache):
    for text in (address(tmp_path, f"w-{SHA[:8]}.pth"), f"{address(tmp_path)}#sha256={SHA}"):
        path = download.fetch(text)
        assert path.read_bytes() == CONTENT and path.parent == cache and SHA[:8] in path.name and path.suffix == ".pth"
    assert not list(cache.glob(".*"))


def test_a_checksum_in_capitals(tmp_path, cache, monkeypatch):
    text = f"{address(tmp_path)}#sha256={SHA.upper()}"
    path = download.fetch(text)
    assert path.read_bytes() == CONTENT and SHA[:8] in path.name
    monkeypatch.setattr(download.urllib.request, "urlopen", lambda *_, **__: pytest.fail("fetched"))
    assert download.fetch(text) == path == download.fetch(text.replace(SHA.upper(), SHA))


def test_what_is_there_is_not_fetched_again(tmp_path, cache, monkeypatch):
    text = f"{address(tmp_path)}#sha256={SHA[:12]}"
    path = download.fetch(text)
    monkeypatch.setattr(download.urllib.request, "urlopen", lambda *_, **__: pytest.fail("fetched"))
    assert download.fetch(text) == path


def test_what_is_there_and_damaged_is_fetched_again(tmp_path, cache):
    text = f"{address(tmp_path)}#sha256={SHA[:12]}"
    download.fetch(text).write_bytes(b"damaged")
    assert download.fetch(text).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "behind", "message"),
    [
        (
            "w.pth",
            "",
            "has no checksum. Write the first digits .8 or more. of the file's SHA-256 behind it: .*#sha",
        ),
        ("w.pth", "#sha256=123", "has no checksum"),
        ("w.pth", "#md5=0123456789abcdef", "has no checksum"),
        ("w.pth", f"#sha256={'0' * 64}", f"it has the SHA-256 {SHA}, not 0{{64}}"),
        ("w-00000000.pth", "", f"it has the SHA-256 {SHA}, not 00000000"),
    ],
)
def test_refused(tmp_path, cache, name, behind, message):
    with pytest.raises(ValueError, match=message):
        download.fetch(address(tmp_path, name) + behind)
    assert not cache.exists() or not list(cache.iterdir())


def test_no_network(tmp_path, cache):
    with pytest.raises(ValueError, match="cannot be fetched: .*Fetch it where there is a network, and give the file"):
        download.fetch(f"{(tmp_path / 'gone.pth').as_uri()}#sha256={SHA}")
    assert not cache.exists() or not list(cache.iterdir())


@pytest.mark.parametrize("name", ["a b.pth", "ü.pth"])
def test_an_address_that_is_none(cache, name):
    with pytest.raises(ValueError, match="https://localhost:9/.* cannot be fetched: .*give the file as weights"):
        download.fetch(f"https://localhost:9/{name}#sha256={SHA}")
    assert not cache.exists() or not list(cache.iterdir())


def test_a_connection_that_breaks_off(tmp_path, cache, monkeypatch):
    def broken(source, target):
        target.write(b"half")
        raise http.client.IncompleteRead(b"half", 10)

    monkeypatch.setattr(download, "copy", broken)
    with pytest.raises(ValueError, match="cannot be fetched: IncompleteRead.*give the file as weights"):
        download.fetch(f"{address(tmp_path)}#sha256={SHA}")
    assert not cache.exists() or not list(cache.iterdir())


def test_a_stream_without_end_is_cut_off(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(download, "LIMIT", 1000)
    with pytest.raises(ValueError, match="it is larger than 1,000 bytes"):
        download.fetch(f"{address(tmp_path)}#sha256={SHA}")


@pytest.mark.parametrize("name", ["../../evil-{}.pth", "%2e%2e%2fevil-{}.pth", "ü$(x)-{}.pth"])
def test_no_name_leaves_the_cache(tmp_path, cache, name, monkeypatch):
    import io

    monkeypatch.setattr(download.urllib.request, "urlopen", lambda *_, **__: io.BytesIO(CONTENT))
    path = download.fetch(f"https://example.org/{name.format(SHA[:8])}")
    assert path.parent == cache and path.read_bytes() == CONTENT


@pytest.mark.parametrize("text", ["http://example.org/w.pth", "ftp://x/w.pth", "w.pth", "/w.pth"])
def test_only_these_are_addresses(text):
    assert not download.is_address(text)
