"""Write a number.

    playpen write --number 3

Stands for any stage that reads no artifact.
"""

import time
from pathlib import Path
from typing import Any

from playpen.config import File, config
from playpen.machine import Machine
from playpen.tables import write_json

VERSION = 1


@config
class Config:
    """What to write."""

    number: float = 1.0
    """The number."""
    file: File | None = None
    """A file of the user's."""
    anything: Any = None
    """What has no type of its own."""
    seconds: float = 0.0
    """How long it takes."""


def run(config: Config, out: Path, machine: Machine) -> None:
    """Write the number, and a line into the log that all toys share."""
    with (out.parent / "made.log").open("a") as log:
        log.write(out.name.removesuffix(".part") + "\n")
    time.sleep(config.seconds)
    write_json(out / "metrics.json", {"number": config.number, "file": config.file})
