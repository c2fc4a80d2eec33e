"""Work in a process of its own, under a limit of memory: running out of it ends that process and nothing else."""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any, Literal

from playpen import resident_memory
from playpen.config import PlaypenError

LOOK_SECONDS = 0.02
"""Between two looks at how much the process holds. What it takes in between is not stopped, but its peak is counted all the same."""
FIRST_TO_GO = "1000"
"""What makes Linux end this process before any other when memory runs out (proc_pid_oom_score_adj(5))."""


@dataclass(frozen=True)
class Ended:
    """How work in a process of its own came to an end."""

    how: Literal["done", "limit", "killed"]
    """`done`; `limit`: stopped here, for it held more than it may; `killed`: by the system (SIGKILL), for want of memory as a rule."""
    value: Any
    """What the work returned; None unless done."""
    peak: int
    """Most bytes resident at once, libraries included; where it is not done, as of the last look."""


def run_apart(work: Callable[[Any], Any], argument: Any, limit: int | None = None) -> Ended:
    """Return how `work(argument)` ends in a fresh process that may hold `limit` bytes.

    `work` is a function of a module. A PlaypenError of its own is raised here; any other error prints its traceback there and is
    a RuntimeError here. The process ends with this one, however this one ends.
    """
    context = get_context("spawn")  # a fork would share pages with this process, and cannot use CUDA
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, work, argument), daemon=True)
    process.start()
    theirs.close()
    peak = 0
    try:
        while not mine.poll(LOOK_SECONDS):
            peak = max(peak, resident_memory.peak(process.pid or 0) or 0)
            if limit is not None and peak > limit:
                return Ended("limit", None, peak)
        value, error, peak = mine.recv()
    except EOFError:
        return _ended_early(process, peak)
    finally:
        process.kill()
        process.join()
        mine.close()
    if error is not None:
        raise PlaypenError(error)
    return Ended("done" if limit is None or peak <= limit else "limit", value, peak)


def _ended_early(process: Any, peak: int) -> Ended:
    process.join()
    if process.exitcode == -signal.SIGKILL:
        return Ended("killed", None, peak)
    raise RuntimeError(f"a process for one piece of work ended with exit status {process.exitcode}; its own message is above")


def _work(answer: connection.Connection, work: Callable[[Any], Any], argument: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=end_with_parent, daemon=True).start()
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_GO)
    value, error = None, None
    try:
        value = work(argument)
    except PlaypenError as mistake:
        error = str(mistake)
    answer.send((value, error, resident_memory.peak() or 0))


def end_with_parent() -> None:
    """End this process when its parent is killed: nothing else would tell it."""
    if (parent := parent_process()) is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
