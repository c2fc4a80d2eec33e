"""How do time and memory grow with the size of a pool, and with the length of its rows?

    .venv/bin/python benchmarks/growth.py --classifier runs/demo/classifier --sae runs/demo/sae --model runs/demo/base \\
        --data runs/demo/data [--sizes 1000 10000 100000] [--steps fingerprint predict select classify] \\
        [--lengths 32 64 128 256] [--at-length 1000]

A pool of n rows is the rows of the data's `pool`, again and again under new names, in shards as build-pool writes them. `select` and
`classify` read scores that are drawn at random, and classify the fingerprints that are made here. Each step runs in a process of its
own, as the stage itself, after a pool of 200 that does not count: seconds by the clock and, in brackets, by the processor, and the most
memory held above what was held then, libraries and model among it. With --lengths there is a second table: rows cut or repeated to exactly so many
tokens, --at-length of them, through predict; attention alone grows faster than the rows do.

The last line is the time a row of `predict` (else of the first step) at the largest size over that at the smallest; 1 is linear.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from playpen import artifact, resident_memory
from playpen.config import make_config
from playpen.examples import SCHEMA
from playpen.machine import Machine
from playpen.stage import load_stage, run_stage
from playpen.tables import iter_table, read_metrics, write_json, write_table

STEPS = ("fingerprint", "predict", "select", "classify")
SHARD = 2000
WARM = 200
"""Rows of the pool that each process begins with."""
CLASSIFY_MOST = 20_000
"""Rows above which classify is left out: it learns from an attributed pool, which is never large."""


def copies(data: Path, length: int | None) -> Iterator[dict[str, Any]]:
    """Yield the pool's rows again and again, each under a name of its own, with exactly `length` tokens if given."""
    rows = [row for part in iter_table(data, "pool", SHARD) for row in part.to_pylist()]
    for number in count():
        row = rows[number % len(rows)]
        name = f"{number:016x}"
        if length is not None:
            times = -(-length // len(row["input_ids"]))
            row = row | {column: (row[column] * times)[:length] for column in ("input_ids", "labels")} | {"num_tokens": length}
        yield row | {"row_id": name, "group": name, "raw": ""}


def write_pool(data: Path, out: Path, size: int, length: int | None = None) -> None:
    """Write a data artifact whose pool and large_pool are `size` rows, and random scores for them."""
    rows, draw = copies(data, length), np.random.default_rng(0)
    for number, start in enumerate(range(0, size, SHARD)):
        table = pa.Table.from_pylist(list(islice(rows, min(SHARD, size - start))), schema=SCHEMA)
        scores = pa.array(draw.random(table.num_rows), pa.float32())
        write_table(out / "data" / "pool" / f"shard-{number:05d}.parquet", table)
        write_table(
            out / "scores" / "scores" / f"shard-{number:05d}.parquet", pa.table({"row_id": table["row_id"], "score": scores})
        )
    (out / "data" / "large_pool").symlink_to("pool")
    write_json(out / "data" / "metrics.json", {"tokenizer": read_metrics(data)["tokenizer"]})
    for name in ("data", "scores"):
        write_json(out / name / artifact.MANIFEST, {"format": artifact.FORMAT, "fingerprint": name, "name": name, "kind": name})


def config_of(step: str, call: argparse.Namespace, home: Path) -> Any:
    """Return the stage's config for the pool below `home`."""
    model = {name: str(artifact.find_artifact(getattr(call, name))) for name in ("sae", "model")}
    data, scores = str(home / "data"), str(home / "scores")
    values: dict[str, Any] = {
        "fingerprint": {**model, "data": data},
        "predict": {**model, "data": data, "classifier": str(artifact.find_artifact(call.classifier))},
        "select": {"data": data, "scores": scores, "method": {"kind": "top_k", "k": WARM // 2}},
        "classify": {"data": data, "scores": scores, "features": (str(home / "fingerprint"),)},
    }[step]
    return make_config(load_stage(step).Config, values, step)


def work(step: str, call: argparse.Namespace, home: Path) -> None:
    """Run one stage here, after a small pool that does not count; print its seconds, the processor's, and the bytes held above those before."""
    for pool, out in (("warm", home.parent / "warm" / step), (home.name, home / step)):
        config = config_of(step, call, home.parent / pool)
        out.mkdir(exist_ok=True)
        counted, held = resident_memory.start_peak(), resident_memory.peak() or 0
        clock, processor = time.perf_counter(), time.process_time()
        run_stage(step, config, out, Machine())
        seconds = time.perf_counter() - clock, time.process_time() - processor
    print(*seconds, (resident_memory.peak() or 0) - held if counted else "nan")


def measured(step: str, home: Path) -> tuple[float, float, float]:
    """Run one stage in a process of its own; return seconds by the clock, by the processor, and bytes."""
    command = [sys.executable, __file__, *sys.argv[1:], "--work", step, str(home)]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]
    clock, processor, held = map(float, told.split())
    return clock, processor, held


def print_row(step: str, size: int, length: float, found: tuple[float, float, float]) -> None:
    """Print one line of the table, also where the output is a file."""
    clock, processor, held = found
    each = f"{1e3 * clock / size:9.3f} [{1e3 * processor / size:.3f}]"
    print(f"{step:12}{size:>10,}{length:>9.0f}{clock:10.1f} [{processor:.1f}]{each:>20}{held / 1e6:10.0f}", flush=True)


def mean_length(home: Path) -> float:
    """Return the mean tokens of a pool's rows."""
    columns = [part["num_tokens"].to_numpy() for part in iter_table(home / "data", "pool", SHARD, ["num_tokens"])]
    return float(np.concatenate(columns).mean())


def main() -> None:
    """Write the pools, run the steps and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classifier", required=True, help="an artifact of classify")
    parser.add_argument("--sae", required=True, help="the SAE that it learnt from")
    parser.add_argument("--model", required=True, help="the base of it")
    parser.add_argument("--data", required=True, help="an artifact of build-data in its tokens, with a pool")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000], help="rows")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--lengths", type=int, nargs="*", default=[], help="tokens a row, for a second table")
    parser.add_argument("--at-length", type=int, default=1000, help="rows of each length")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    call = parser.parse_args()
    if call.work:
        work(call.work[0], call, Path(call.work[1]))
        return
    if "classify" in call.steps and "fingerprint" not in call.steps:
        raise SystemExit("classify needs the fingerprints of this run: add fingerprint to --steps")
    steps = [step for step in STEPS if step in call.steps]
    with tempfile.TemporaryDirectory() as folder:
        print(f"ratio {run_all(call, steps, Path(folder)):.2f}")


def run_all(call: argparse.Namespace, steps: list[str], home: Path) -> float:
    """Measure all and print the tables; return the time a row of predict at the largest size over that at the smallest."""
    data, subject = artifact.find_artifact(call.data), "predict" if "predict" in steps else steps[0]
    write_pool(data, home / "warm", WARM)
    print(f"{'step':12}{'rows':>10}{'tokens':>9}{'seconds':>16}{'ms a row':>20}{'MB above':>10}", flush=True)
    each: dict[int, float] = {}
    for size in sorted(call.sizes):
        write_pool(data, home / str(size), size)
        for step in steps if size <= CLASSIFY_MOST else [step for step in steps if step != "classify"]:
            found = measured(step, home / str(size))
            print_row(step, size, mean_length(home / str(size)), found)
            each |= {size: found[0] / size} if step == subject else {}
        shutil.rmtree(home / str(size))
    for length in call.lengths:
        write_pool(data, home / f"length-{length}", call.at_length, length)
        print_row("predict", call.at_length, length, measured("predict", home / f"length-{length}"))
    return each[max(each)] / each[min(each)]


if __name__ == "__main__":
    main()
