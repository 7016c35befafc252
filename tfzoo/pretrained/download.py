"""Files from the network, only where an address is given, and only with a checksum that they are known by.

Many projects put the first digits of a file's SHA-256 into its name: `resnet50-0676ba61.pth`. Where there are none,
they are written behind the address: `https://example.org/weights.safetensors#sha256=...`.
"""

import hashlib
import http.client
import os
import re
import sys
import urllib.parse
import urllib.request
from pathlib import Path

FOLDER = "tfzoo"  # below the cache folder of the user's
IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")  # as torch.hub has it
BEHIND = re.compile(r"sha256=([0-9a-f]{8,64})", re.IGNORECASE)
LIMIT = 16 * 2**30  # bytes
BLOCK = 2**20


def is_address(text: str | os.PathLike) -> bool:
    """Tell whether weights are to be fetched."""
    return str(text).startswith(("https://", "file://"))


def fetch(address: str) -> Path:
    """Give the file of an address, from the cache if it is there.

    Args:
        address: `https://...`, with the first eight digits or more of the file's SHA-256 in its name or behind it.

    Returns:
        Its path below `~/.cache/tfzoo` (or `XDG_CACHE_HOME`).

    Raises:
        ValueError: There is no checksum, the file is not what it says, or it cannot be fetched; nothing is left then.
    """
    from bridge.files import aside

    parts = urllib.parse.urlsplit(address)
    name = Path(urllib.parse.unquote(parts.path)).name
    found = BEHIND.fullmatch(parts.fragment) or IN_NAME.search(name)
    if found is None or not name:
        raise ValueError(
            f"{address} has no checksum. Write the first digits (8 or more) of the file's SHA-256 behind it: "
            f"{address.partition('#')[0]}#sha256=..."
        )
    digits = found[1].lower()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / FOLDER
    safe = re.sub(r"[^\w.-]", "_", name)[-100:]
    path = cache / f"{digits[:8]}-{safe}" if digits[:8] not in safe else cache / safe
    if path.exists() and checksum(path).startswith(digits):
        return path
    print(f"fetching {name}", file=sys.stderr)
    with aside(path) as side:
        try:
            with urllib.request.urlopen(address.partition("#")[0], timeout=60) as answer, open(side, "wb") as file:
                copy(answer, file)
        except (OSError, http.client.HTTPException, ValueError) as error:  # such as no network, or a space in it
            raise ValueError(
                f"{address} cannot be fetched: {error}. Fetch it where there is a network, and give the file as weights"
            ) from error
        if not (there := checksum(side)).startswith(digits):
            raise ValueError(f"{address} is not what its checksum says: it has the SHA-256 {there}, not {digits}...")
    return path


def copy(source, target) -> None:
    """Copy a stream, not more than `LIMIT` of it."""
    left = LIMIT
    while block := source.read(BLOCK):
        left -= len(block)
        if left < 0:
            raise OSError(f"it is larger than {LIMIT:,} bytes")
        target.write(block)


def checksum(path: Path) -> str:
    """Give a file's SHA-256 in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
