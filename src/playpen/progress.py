"""How far long work is: a bar on a terminal, elsewhere a line a minute, so that a log tells it too."""

import os
import sys
from typing import Any

from tqdm import std

from playpen import processes

LINE_SECONDS = 60
"""Seconds between two lines, and before the first: what takes less needs none."""


class tqdm(std.tqdm):  # it stands for tqdm's own
    """tqdm's bar; with `disable=None`, where the output is no terminal, lines instead of a bar that redraws itself."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        stream = settings.get("file") or sys.stderr
        if processes.by_torchrun() and os.environ["RANK"] != "0":  # one bar is enough for all
            settings["disable"] = True
        self.lines = settings.get("disable", False) is None and not stream.isatty()
        if self.lines:
            settings |= {"disable": False, "mininterval": LINE_SECONDS, "maxinterval": LINE_SECONDS, "delay": LINE_SECONDS}
            settings |= {
                "bar_format": "{desc}: {percentage:.0f}%, {n_fmt} of {total_fmt} {unit}s, {elapsed} so far, {remaining} to go{postfix}",
                "leave": False,
            }
        super().__init__(*args, **settings)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw the bar, or write a line."""
        if not self.lines:
            super().display(msg, pos)
        elif line := str(self) if msg is None else msg:
            self.fp.write(f"  {line}\n")

    def close(self) -> None:
        """Take the bar away; a line stays where it is."""
        if self.lines:
            self.disable = True
        super().close()
