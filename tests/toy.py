"""Toy stages in the place of the real ones; as a script, the command line over them: `python tests/toy.py run x.yaml`."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import playpen.stages
from playpen import stage
from playpen.cli import main

TOYS = Path(__file__).parent / "toys"


def install(setattr_: Callable[[Any, str, Any], None]) -> None:
    """Make the files of tests/toys the only verbs."""
    setattr_(stage, "STAGES", TOYS)
    setattr_(playpen.stages, "__path__", [str(TOYS)])


def wait_for_others(directory: Path, together: int) -> None:
    """Go on only when `together` processes have come here, so that none has done all the work before another starts."""
    (directory / f"{os.getpid()}.ready").touch()
    while len(list(directory.glob("*.ready"))) < together:
        time.sleep(0.02)


if __name__ == "__main__":
    install(setattr)
    wait_for_others(Path(sys.argv[2]).parent, int(os.environ.get("TOGETHER", "1")))
    main(sys.argv[1:])
