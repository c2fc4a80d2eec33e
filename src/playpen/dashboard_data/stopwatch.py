"""The seconds of each phase of a long piece of work, in a way that survives being killed."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playpen.tables import write_json


class Stopwatch:
    """Adds up the seconds of each phase in a file, over all runs that it takes."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.seconds: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count the time inside; what does not end is not counted, because it will be done again."""
        started = time.monotonic()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.monotonic() - started
        write_json(self.file, self.seconds)
