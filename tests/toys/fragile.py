"""Break half-way, as the file `trouble` beside the artifacts says."""

import errno
import os
import signal
from pathlib import Path

from playpen.config import PlaypenError, config
from playpen.machine import Machine
from playpen.tables import unfinished, write_json

VERSION = 1


@config
class Config:
    """What to write."""

    number: float = 1.0
    """The number."""


def run(config: Config, out: Path, machine: Machine) -> None:
    """Write half of the work, meet the trouble, write the rest and what was there at the start."""
    found = sorted(file.name for file in out.iterdir())
    (out / "half.txt").write_text("half")
    unfinished(out / "table.parquet").write_text("torn")
    trouble = out.parent / "trouble"
    meet(trouble.read_text() if trouble.exists() else "")
    unfinished(out / "table.parquet").unlink()
    write_json(out / "metrics.json", {"found": found, "number": config.number})


def meet(trouble: str) -> None:
    """Fail in one of the ways in which stages do."""
    if trouble == "bug":
        raise ZeroDivisionError("a bug")
    if trouble == "mistake":
        raise PlaypenError("the user's mistake")
    if trouble == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if trouble == "full, told by a library":
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    if trouble == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
