"""Work on shards that is cheap, for the tests of them; run as a script it maps a table, so that it can be killed.

python tests/sharded.py SOURCE OUT WORKERS SECONDS
"""

import os
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from playpen.config import PlaypenError
from playpen.machine import Machine
from playpen.shards import Job, cut, map_shards

ROWS = 10
"""Rows of a shard."""


@dataclass(frozen=True)
class Double:
    """Doubles a number, slowly if wished, and notes which process opened it."""

    seconds: float

    def __call__(self, rows: pa.Table) -> dict[str, pa.Table]:
        time.sleep(self.seconds)
        if pc.any(pc.less(rows["number"], 0)).as_py():  # pyright: ignore[reportAttributeAccessIssue]
            raise PlaypenError("a number is below 0; take it out")
        twice = pc.multiply(rows["number"], 2)  # pyright: ignore[reportAttributeAccessIssue]
        return {"half": rows.select(["row_id"]), "double": pa.table({"row_id": rows["row_id"], "twice": twice})}

    def count(self, rows: pa.Table, fresh: bool) -> dict[str, int]:
        return {"rows": rows.num_rows, "fresh": rows.num_rows if fresh else 0}


def open_double(opened: Path, seconds: float) -> Double:
    (opened / str(os.getpid())).touch(exist_ok=False)
    return Double(seconds)


def double(source: Path, out: Path, workers: int = 0, seconds: float = 0.0) -> dict[str, int]:
    """Map the table `numbers` of an artifact; the processes that opened the work leave files in `out/opened`."""
    opened = out / "opened"
    opened.mkdir(parents=True, exist_ok=True)
    job = Job(partial(open_double, opened, seconds), ["row_id", "number"], out, ("half", "double"))
    return dict(map_shards(job, cut(source, ("numbers",), ROWS), Machine(device="cpu", ray_workers=workers), "doubling"))


if __name__ == "__main__":
    double(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
