"""Shards: work on tables of any size, some rows at a time, in this process or in workers of Ray, with the same files either way.

What becomes of a shard is written under its number, one file a table, by whoever made it. A shard whose file is there is whole
and is not made again, so a killed run goes on after the last. With workers, Ray Data hands the numbers of shards to actors, each of
which opens the work (a model, a tokenizer) once and reads and writes by itself: no row travels between processes, and all
must see the same files.
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from playpen.config import PlaypenError
from playpen.tables import iter_pieces, read_rows, table_files, write_table

if TYPE_CHECKING:
    import pyarrow as pa

    from playpen.machine import Machine

TRIES = 3
"""How often Ray is started before it is given up: on a busy machine its own time limits are too short for it."""


class Work(Protocol):
    """What is done with the rows of a shard."""

    def __call__(self, rows: "pa.Table") -> "dict[str, pa.Table]":
        """Return the tables that become of the rows, by name."""
        ...

    def count(self, rows: "pa.Table", fresh: bool) -> dict[str, int]:
        """Return numbers to be summed over all shards, also over those that are not `fresh` but were made by an earlier run."""
        ...


@dataclass(frozen=True)
class Shard:
    """Some rows of one file."""

    number: int
    file: Path
    start: int
    rows: int

    @property
    def name(self) -> str:
        """The name of the files that become of it."""
        return f"shard-{self.number:05d}.parquet"


@dataclass(frozen=True)
class Job:
    """Work, and where its tables go. It is sent to workers, so that `open` must be something that can be pickled."""

    open: Callable[[], Work]
    columns: list[str]
    """Columns of the rows that the work reads; none stands for all."""
    out: Path
    tables: tuple[str, ...]
    """Names of the tables that it gives; the file of the last tells that a shard is whole."""
    on_device: bool = True
    """Whether the work is done on the machine's device, so that a worker needs a GPU where that is one."""

    def read(self, shard: Shard) -> "pa.Table":
        """Return the rows of a shard."""
        return read_rows(shard.file, shard.start, shard.rows, self.columns or None)

    def is_whole(self, shard: Shard) -> bool:
        """Say whether a shard need not be made again."""
        return (self.out / self.tables[-1] / shard.name).exists()

    def write(self, shard: Shard, made: "dict[str, pa.Table]") -> None:
        """Write what became of a shard."""
        for name in self.tables:
            write_table(self.out / name / shard.name, made[name])


def cut(artifact: Path | str, names: Sequence[str], rows: int) -> list[Shard]:
    """Cut tables, one after the other, into shards of at most `rows` rows, none of which lies in two files."""
    import pyarrow.parquet as pq

    files = [file for name in names for file in table_files(Path(artifact), name)]
    sizes = [pq.read_metadata(file).num_rows for file in files]
    spans = [(file, start, size) for file, size in zip(files, sizes, strict=True) for start in range(0, size, rows)]
    return [Shard(i, file, start, min(rows, size - start)) for i, (file, start, size) in enumerate(spans)]


def map_shards(job: Job, shards: list[Shard], machine: "Machine", what: str) -> Counter[str]:
    """Make the shards that are not whole; return the sums of what the work counts.

    Raises PlaypenError when workers are asked for and Ray is not installed, does not start, or one of them meets a mistake.
    """
    from playpen.progress import tqdm

    counts: Counter[str] = Counter()
    whole = {shard.number: shard.rows for shard in shards if job.is_whole(shard)}
    made = _in_workers(job, shards, machine) if machine.ray_workers else _in_turn(job, shards)
    total, there = sum(shard.rows for shard in shards), sum(whole.values())
    if there:
        print(f"  {what}: {there:,} of {total:,} rows are there from an earlier run", flush=True)
    with tqdm(total=total, initial=there, desc=what, unit="row", disable=None, mininterval=1) as progress:
        for shard, found in made:
            counts.update(found)
            progress.update(0 if shard.number in whole else shard.rows)
    return counts


def _in_turn(job: Job, shards: list[Shard]) -> Iterator[tuple[Shard, dict[str, int]]]:
    """Make the shards here, one after the other; a thread writes each while the next one is made."""
    work, writing = job.open(), None
    with ThreadPoolExecutor(max_workers=1) as writer:
        for shard, rows in zip(shards, _read_in_turn(job, shards), strict=True):
            fresh = not job.is_whole(shard)
            if fresh:
                made = work(rows)
                _finish(writing)  # one shard waits at most, and a full disk ends the work
                writing = writer.submit(job.write, shard, made)
            yield shard, work.count(rows, fresh)
        _finish(writing)


def _read_in_turn(job: Job, shards: list[Shard]) -> "Iterator[pa.Table]":
    """Yield the rows of all shards of a table: a file is read once, however many lie in it."""
    for file, here in groupby(shards, attrgetter("file")):
        yield from iter_pieces(file, [shard.rows for shard in here], job.columns or None)


def _finish(writing: "Future[None] | None") -> None:
    if writing is not None:
        writing.result()


class _Worker:
    """An actor of Ray: makes one shard a call. A mistake of the user's travels back as text, without a traceback."""

    def __init__(self, job: Job, shards: list[Shard], threads: int) -> None:
        self.job, self.shards, self.threads = job, shards, threads
        self.work: Work | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        shard = self.shards[int(batch["number"][0])]
        try:
            told = {"counts": self.make(shard)}
        except PlaypenError as error:
            told = {"mistake": str(error)}
        return {"number": [shard.number], "told": [json.dumps(told)]}

    def make(self, shard: Shard) -> dict[str, int]:
        """Make a shard, unless it is whole; return what the work counts in it."""
        if self.work is None:
            import torch

            torch.set_num_threads(self.threads)
            self.work = self.job.open()
        rows, fresh = self.job.read(shard), not self.job.is_whole(shard)
        if fresh:
            self.job.write(shard, self.work(rows))
        return self.work.count(rows, fresh)


def _in_workers(job: Job, shards: list[Shard], machine: "Machine") -> Iterator[tuple[Shard, dict[str, int]]]:
    """Let actors of Ray make the shards, each on one core or one GPU; yield them as they end."""
    ray, gpu = import_ray(machine), job.on_device and _on_gpus(machine)
    started = _start(ray, machine)
    numbers = ray.data.from_items([{"number": shard.number} for shard in shards], override_num_blocks=len(shards))
    told = numbers.map_batches(
        _Worker,
        fn_constructor_args=(job, shards, _threads(machine)),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(machine.ray_workers, len(shards))),
        num_cpus=1,
        num_gpus=1 if gpu else None,
    )
    try:
        for batch in told.iter_batches(batch_size=1, prefetch_batches=0):
            found = json.loads(str(batch["told"][0]))
            if "mistake" in found:
                raise PlaypenError(found["mistake"])
            yield shards[int(batch["number"][0])], found["counts"]
    finally:
        if started:
            ray.shutdown()


def import_ray(machine: "Machine") -> Any:
    """Return Ray with its data module, or say how to install it."""
    try:
        import ray
        import ray.data
    except ImportError:
        raise PlaypenError(
            f"machine.ray_workers is {machine.ray_workers}, which needs Ray: install the extra 'ray', or leave it at 0 for a plain loop"
        ) from None
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray


def _on_gpus(machine: "Machine") -> bool:
    """Say whether the workers need a GPU each; raises when this host has fewer."""
    import torch

    if machine.torch_device().type != "cuda":
        return False
    if "RAY_ADDRESS" not in os.environ and machine.ray_workers > (there := torch.cuda.device_count()):
        raise PlaypenError(
            f"machine.ray_workers is {machine.ray_workers}, but this machine has {there} GPUs, one for each; lower it"
        )
    return True


def _threads(machine: "Machine") -> int:
    """Return how many cores each worker may use, so that together they use those that this process would."""
    import torch

    return max(1, torch.get_num_threads() // machine.ray_workers)


def _start(ray: Any, machine: "Machine") -> bool:
    """Join the cluster of RAY_ADDRESS, or start Ray on this host for as long as the work takes; return whether it is ours to end."""
    if ray.is_initialized():
        return False
    shared = {"log_to_driver": False, "logging_level": "ERROR"}
    if "RAY_ADDRESS" in os.environ:
        ray.init(**shared)
        return True
    for left in reversed(range(TRIES)):
        try:
            # One core more than the workers' is for Ray Data itself. It counts, and binds nothing.
            ray.init(address="local", num_cpus=machine.ray_workers + 1, include_dashboard=False, **shared)
            return True
        except Exception as error:  # Ray raises nothing more exact
            ray.shutdown()
            if not left:
                why = " ".join(str(error).split())[:200]
                raise PlaypenError(
                    f"Ray did not start in {TRIES} tries ({why}); is the machine too busy? Run again, or with ray_workers 0"
                ) from None
    return False
