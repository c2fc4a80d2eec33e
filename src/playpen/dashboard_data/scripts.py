"""The data files of a dashboard: scripts that hand one value to the page. Same values, same bytes.

Large values are gzip of JSON in base64, so nothing that the data hold can end a script or a string.
"""

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

from playpen.tables import unfinished

LEVEL = 6
"""Effort of gzip."""


def to_json(value: Any) -> bytes:
    """Return compact JSON in ASCII; what is not finite is an error."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def write_plain(path: Path, name: str, value: Any) -> None:
    """Write a script that calls `playpen.NAME` with a value as it stands."""
    write_whole(path, b"playpen.%s(%s);\n" % (name.encode(), to_json(value)))


def write_packed(path: Path, name: str, value: bytes, *first: int) -> None:
    """Write a script that calls `playpen.NAME` with some numbers and packed JSON."""
    packed = base64.b64encode(gzip.compress(value, LEVEL, mtime=0))
    numbers = b"".join(b"%d, " % number for number in first)
    write_whole(path, b'playpen.%s(%s"%s");\n' % (name.encode(), numbers, packed))


def read_packed(path: Path) -> Any:
    """Return the value that a packed script holds."""
    found = re.search(rb'"([^"]*)"', path.read_bytes())
    if not found:
        raise ValueError(f"{path} is no data file of a dashboard")
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = unfinished(path)
    part.write_bytes(content)
    part.replace(path)
