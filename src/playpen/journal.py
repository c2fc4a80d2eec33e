"""A journal: results appended to a file line by line as they come, so that a killed run goes on after the last whole line."""

import json
from pathlib import Path
from typing import Any

from playpen.config import PlaypenError


class Journal:
    """Results by key in a JSON Lines file; a last line without its end was being written when the run was killed, and is dropped."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.read_bytes() if path.exists() else b""
        whole = whole[: whole.rfind(b"\n") + 1]
        self.path, self.found = path, _parse(path, whole)
        self._file = path.open("r+b" if path.exists() else "wb")
        self._file.truncate(len(whole))
        self._file.seek(len(whole))

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, key: str, value: dict[str, Any]) -> None:
        """Append a result; it is in the hands of the operating system when this returns."""
        self._file.write(json.dumps({"key": key, **value}, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        self.found[key] = value


def _parse(path: Path, whole: bytes) -> dict[str, dict[str, Any]]:
    found = {}
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            value = json.loads(line)
            found[value.pop("key")] = value
        except (ValueError, KeyError, TypeError, AttributeError):
            raise PlaypenError(f"{path}, line {number} is damaged; delete that line, or the directory, and run again") from None
    return found
