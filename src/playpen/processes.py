"""The processes that share one stage's work: started by torchrun, one a GPU, and what they tell each other.

A stage that says `DISTRIBUTED = True` runs in each of them. Where nobody started more, there is one process, and everything here
returns at once what it was given.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from playpen.config import PlaypenError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from playpen.machine import Machine

T = TypeVar("T")
PATIENCE = timedelta(days=7)
"""How long one process waits for the others, as while the first measures alone; when one dies, torchrun ends all."""


def by_torchrun() -> bool:
    """Say whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def count() -> int:
    """Return how many processes share the work."""
    from torch import distributed

    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Return which of the processes this is, from 0."""
    from torch import distributed

    return distributed.get_rank() if count() > 1 else 0


def is_first() -> bool:
    """Say whether this process is the one that writes."""
    return rank() == 0


def from_first(make: Callable[[], T]) -> T:
    """Return in every process what `make` gives in the first, which alone calls it: anything that can be pickled."""
    from torch import distributed

    if count() == 1:
        return make()
    held: list[Any] = [make() if is_first() else None]
    distributed.broadcast_object_list(held, src=0)
    return held[0]


def total(value: "Tensor") -> "Tensor":
    """Return the sum of a tensor over all processes, the same bytes in each; of one process, the tensor itself."""
    from torch import distributed

    if count() == 1:
        return value
    summed = value.detach().clone()
    distributed.all_reduce(summed)
    return summed


def mean(value: "Tensor") -> "Tensor":
    """Return the mean of a tensor over all processes; of one process, the tensor itself."""
    return value if count() == 1 else total(value) / count()


def least(values: "Tensor") -> "Tensor":
    """Return the smallest of the values [n] of all processes as [1], or as [0] when none has any."""
    import torch
    from torch import distributed

    found = torch.cat([values, values.new_full((1,), torch.inf)]).min()
    distributed.all_reduce(found, distributed.ReduceOp.MIN)
    return found[None][found[None].isfinite()]


def joined_rows(value: "Tensor", sizes: list[int]) -> "list[Tensor]":
    """Return every process's tensor [sizes[its rank], ...], in the order of ranks."""
    from torch import distributed

    parts = [value if r == rank() else value.new_empty((size, *value.shape[1:])) for r, size in enumerate(sizes)]
    for r, part in enumerate(parts):
        distributed.broadcast(part.contiguous() if r == rank() else part, src=r)
    return parts


def set_as_first(value: "Tensor") -> None:
    """Give a tensor, in place, the value that it has in the first process."""
    from torch import distributed

    if count() > 1:
        distributed.broadcast(value, src=0)


def dealt(rows: int, work: "Callable[[list[int]], np.ndarray]") -> "np.ndarray":
    """Return the numbers [..., rows] that `work` finds for lists of rows, each row worked on by one process; every process gets all."""
    import numpy as np
    from torch import distributed

    if count() == 1:
        return work(list(range(rows)))
    part = work(list(range(rank(), rows, count())))
    parts: list[Any] = [None] * count()
    distributed.all_gather_object(parts, part)
    found = np.empty((*part.shape[:-1], rows), part.dtype)
    for r, each in enumerate(parts):
        found[..., r :: count()] = each
    return found


def wait_for_all() -> None:
    """Go on only when every process has come here."""
    from torch import distributed

    if count() > 1:
        distributed.barrier()


def first_before_others(work: Callable[[], None]) -> None:
    """Let the first process do something, and the others wait until it has."""
    if is_first():
        work()
    wait_for_all()


@contextmanager
def apart() -> Iterator[None]:
    """Hide the other processes from a library that would reduce over all of them what each does by itself."""
    from torch import distributed

    real = distributed.is_initialized
    distributed.is_initialized = lambda: False
    try:
        yield
    finally:
        distributed.is_initialized = real


@contextmanager
def group(machine: "Machine") -> Iterator[None]:
    """Join the processes that torchrun has started, if it has: over gloo, and over NCCL where the device is CUDA, one GPU each.

    Raises PlaypenError when there are fewer GPUs than processes.
    """
    if not by_torchrun():
        yield
        return
    import torch
    from torch import distributed

    cuda = machine.torch_device().type == "cuda"
    if cuda:
        if machine.processes > (there := torch.cuda.device_count()):
            raise PlaypenError(
                f"machine.processes is {machine.processes}, but this machine has {there} GPUs, one for each; lower it"
            )
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    yield
    distributed.destroy_process_group()


def mistake_file(call: Path) -> Path:
    """Return the file in which a process of a call leaves a mistake of the user's, to be told once."""
    return call.with_name(call.name + ".mistake")


@contextmanager
def telling_once(call: Path) -> Iterator[None]:
    """Leave a mistake of the user's to whoever called torchrun, and end in silence when another process has left one."""
    if not by_torchrun():
        yield
        return
    end_with(os.getppid())
    file = mistake_file(call)
    try:
        yield
    except PlaypenError as error:
        file.write_text(str(error))
        raise SystemExit(2) from None
    except RuntimeError:
        if file.exists():  # the connection to the process that made it is gone
            raise SystemExit(2) from None
        raise


def torchrun(kind: str, call: Path, number: int) -> None:
    """Run the call in a file on so many processes of this host; raises PlaypenError with the mistake that one of them met."""
    mistake, cores = mistake_file(call), os.cpu_count() or 1
    mistake.unlink(missing_ok=True)
    print(f"  torchrun --standalone --nproc-per-node={number} -m playpen exec {call}", flush=True)
    command = [sys.executable, "-m", "playpen.processes", str(os.getpid()), str(number), str(call)]
    shared = {"OMP_NUM_THREADS": str(max(1, cores // number)), **os.environ}
    # In a session of its own, so that Ctrl-C reaches this process alone, which ends the others.
    agent = subprocess.Popen(command, env=shared, start_new_session=True)
    try:
        status = agent.wait()
    except BaseException:
        agent.terminate()
        agent.wait()
        raise
    told = mistake.read_text() if mistake.exists() else ""
    mistake.unlink(missing_ok=True)
    if status:
        raise PlaypenError(told or f"{kind} failed under torchrun (exit status {status}); its own message is above")


def end_with(parent: int) -> None:
    """End this process within a second of its parent: what a killed run leaves behind would write on beside the next one."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


def main(parent: int, number: int, call: str) -> None:
    """Be torchrun without its tracebacks and its log of what its processes have told already."""
    import logging

    end_with(parent)
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as run

    logging.disable(logging.ERROR)
    try:
        run(["--standalone", f"--nproc-per-node={number}", "-m", "playpen", "exec", call])
    except (ChildFailedError, SignalException):
        raise SystemExit(1) from None


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
