"""Measure how much memory fine-tuning takes, and how fast it is, by row length, micro-batch and checkpointing.

Question: which micro-batch fits this machine, and which of those that fit is the fastest?

    playpen profile-memory --model runs/demo/base --sequence-lengths 128 256 --batch 4 --root runs/mine

Each place of the table is a few steps of `finetune`'s own training in a process of its own: one that runs out of memory ends
that process and nothing else. The largest micro-batch that fits is found by doubling from 1, then by halving what is left
between the last that fits and the first that does not. On CUDA memory is the allocator's peak, on a CPU the process's resident
memory. Writes `memory` (sequence_length, rows, checkpointing, peak_bytes, reserved_bytes, tokens_per_second, fits, ended),
`memory.md` and `metrics.json` with the micro-batch and accumulation to use.
"""

import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pandas as pd
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from playpen.config import Input, PlaypenError, config
from playpen.journal import Journal
from playpen.lora_settings import LoraSettings
from playpen.progress import tqdm
from playpen.tables import write_json, write_table

if TYPE_CHECKING:
    from playpen.machine import Machine
    from playpen.training_memory import Cell

VERSION = 1
RESUMABLE = True
GB = 10**9
CPU_SHARE = 0.9
"""Share of the free memory that a CPU's measurement may take; the rest is for the machine itself."""
NEAR = 0.95
"""Share of the best speed from which on two speeds count as the same, and less memory decides."""
PLACE = "machine"
"""Key of the journal under which the machine of its cells stands."""
WITH = {"both": (False, True), "never": (False,), "always": (True,)}
"""Whether to checkpoint, in the order of measuring."""


@config
class Config:
    """Measure the memory and the speed of fine-tuning."""

    model: Input
    """Base model: an artifact of load-model or pretrain."""
    sequence_lengths: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)] = (512, 1024, 2048)
    """Tokens of a row; no more than the model's context."""
    checkpointing: Literal["both", "never", "always"] = "both"
    """Measure with gradient checkpointing, without it, or both."""
    batch: PositiveInt = 16
    """Rows in one optimiser step of the training to come, and so the largest micro-batch that is tried."""
    limit_gb: PositiveFloat | None = None
    """Memory to fit into, in GB (10^9 bytes), as that of a smaller card; what is free when left out (of a CPU's, nine tenths)."""
    headroom: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of that memory which the recommended micro-batch must leave free."""
    rank: PositiveInt = LoraSettings.rank
    """Rank of the adapter, as finetune's."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = LoraSettings.dropout
    """Dropout on the adapter's input, as finetune's; above 0 it holds a mask and a copy of each input."""
    target_modules: tuple[str, ...] = LoraSettings.target_modules
    """Linear layers that get an adapter, as finetune's."""
    labels: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of a row's tokens that carry loss; all of them take the most memory."""
    steps: PositiveInt = 3
    """Optimiser steps that are timed, after one to warm up; the median counts."""

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if len(set(self.sequence_lengths)) < len(self.sequence_lengths):
            raise ValueError("sequence_lengths holds something twice")
        return self


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Measure what is not measured yet, then write `memory.parquet`, `memory.md` and `metrics.json`."""
    check(config, machine)
    with Journal(out / "cells.jsonl") as cells:
        place, room = surroundings(config, cells, machine)
        table = search(config, partial(_cell, config, out, machine, cells, place["limit_bytes"], room))
    write_table(out / "memory.parquet", table)
    numbers = {**place, "batch": config.batch, **summary(config, table, place["limit_bytes"])}
    write_json(out / "metrics.json", numbers)
    (out / "memory.md").write_text(page(config, table, numbers))
    shutil.rmtree(out / "work", ignore_errors=True)
    (out / "cells.jsonl").unlink()


def check(config: Config, machine: "Machine") -> None:
    """Raise before anything is measured when the device is none that tells its memory, or a row is longer than the context."""
    from transformers import AutoConfig

    from playpen.models import model_files

    if (device := machine.torch_device().type) not in ("cuda", "cpu"):
        raise PlaypenError(f"profile-memory knows the memory of cuda and cpu, but the device is {device}; set machine.device")
    context = AutoConfig.from_pretrained(model_files(config.model).base).get_text_config().max_position_embeddings
    if (longest := max(config.sequence_lengths)) > context:
        raise PlaypenError(f"sequence_lengths holds {longest}, but the context of {config.model} is {context} tokens; lower it")


def surroundings(config: Config, cells: Journal, machine: "Machine") -> tuple[dict[str, Any], int]:
    """Return `device`, `dtype` and `limit_bytes`, and how many of those bytes are free now.

    When cells are finished already, these are what they were measured under; raises PlaypenError when this is another machine.
    """
    name, free = _device(machine)
    here = {"device": name, "dtype": str(machine.torch_dtype()).removeprefix("torch.")}
    if (before := cells.found.get(PLACE)) is None:
        cells.add(PLACE, here | {"limit_bytes": limit_bytes(config, free, machine)})
        return cells.found[PLACE], free
    if here != {key: before[key] for key in here}:
        raise PlaypenError(
            f"{cells.path} was begun on {before['device']} in {before['dtype']}, and this is {name} in {here['dtype']}; "
            "go on there, or delete its directory"
        )
    return before, free


def limit_bytes(config: Config, free: int, machine: "Machine") -> int:
    """Return how much memory a measurement may take, in bytes; raises PlaypenError when that is more than is free."""
    if config.limit_gb is None:
        return free if machine.torch_device().type == "cuda" else int(CPU_SHARE * free)
    if (limit := round(config.limit_gb * GB)) > free:
        raise PlaypenError(f"limit_gb is {config.limit_gb:g}, but only {_gb(free)} are free here; lower it, or free memory")
    return limit


def _device(machine: "Machine") -> tuple[str, int]:
    """Return the device's name and its free bytes; a CUDA device is asked by another process, so that none of it is held here."""
    import torch

    from playpen.apart import run_apart
    from playpen.free_memory import free_memory
    from playpen.training_memory import look

    if machine.torch_device().type == "cuda":
        return run_apart(look, machine).value
    return f"{_processor()}, {torch.get_num_threads()} threads", free_memory()


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")


def search(config: Config, measured: Callable[["Cell"], dict[str, Any]]) -> pd.DataFrame:
    """Return the table `memory`: all cells that finding the largest micro-batches took, in the order of its first three columns."""
    from playpen.training_memory import Cell

    found: dict[Cell, dict[str, Any]] = {}
    lines = list(product(sorted(config.sequence_lengths), WITH[config.checkpointing]))
    with tqdm(lines, desc="memory", unit="setting", disable=None) as bar:
        for length, checkpointing in bar:

            def fits(rows: int, length: int = length, checkpointing: bool = checkpointing) -> bool:
                cell = Cell(length, rows, checkpointing)
                bar.set_postfix_str(f"{rows} x {length} tokens" + ", checkpointing" * checkpointing)
                found[cell] = measured(cell)
                return found[cell]["fits"]

            largest_that_fits(config.batch, fits)
    rows = sorted(({**asdict(cell), **values} for cell, values in found.items()), key=_order)
    types = {"sequence_length": "int32", "rows": "int32", "reserved_bytes": "Int64", "tokens_per_second": "float64"}
    return pd.DataFrame(rows).astype(types)


def _order(row: dict[str, Any]) -> tuple[int, bool, int]:
    return row["sequence_length"], row["checkpointing"], row["rows"]


def largest_that_fits(most: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number of 1 to `most` that fits, 0 when 1 does not; whatever is larger than one that does not, does not either.

    Doubles from 1 until one does not fit, then halves the gap: at most about twice log2(most) calls, none of them twice.
    """
    good, bad, trial = 0, most + 1, 1
    while bad - good > 1:
        if fits(trial):
            good = trial
        else:
            bad = trial
        trial = min(2 * good, most) if bad > most else (good + bad) // 2
    return good


def _cell(config: Config, out: Path, machine: "Machine", cells: Journal, limit: int, room: int, cell: "Cell") -> dict[str, Any]:
    """Return a cell's numbers, from the journal when they are there."""
    key = f"{cell.sequence_length}-{cell.rows}-{cell.checkpointing}"
    if key not in cells.found:
        cells.add(key, measure_apart(config, out, machine, limit, room, cell))
    return cells.found[key]


def measure_apart(config: Config, out: Path, machine: "Machine", limit: int, room: int, cell: "Cell") -> dict[str, Any]:
    """Return `peak_bytes`, `reserved_bytes`, `tokens_per_second`, `fits` and `ended` of a cell, measured in a process of its own.

    Raises PlaypenError when it does not fit into `room`, the bytes free now, while `limit` is more: that tells nothing.
    """
    from playpen.apart import run_apart
    from playpen.training_memory import Asked, measure

    cuda = machine.torch_device().type == "cuda"
    ended = run_apart(measure, Asked(config, cell, limit, out / "work", machine), None if cuda else min(limit, room))
    if cuda and ended.how == "killed":
        raise PlaypenError(
            f"profile-memory: the process that measured {cell.rows} rows of {cell.sequence_length} tokens was killed, most likely for "
            f"want of the host's memory ({_gb(ended.peak)} of it held); what is measured is kept, run again"
        )
    found = ended.value or {}
    done = ended.how == "done" and found["fits"]
    if not done and room < limit:
        raise PlaypenError(
            f"profile-memory: {cell.rows} rows of {cell.sequence_length} tokens do not fit into the {_gb(room)} that are free now, but the "
            f"limit was {_gb(limit)} when this run began; what is measured is kept, free memory and run again"
        )
    return {
        "peak_bytes": found.get("peak_bytes", ended.peak),
        "reserved_bytes": found.get("reserved_bytes"),
        "tokens_per_second": found["tokens_per_second"] if done else None,
        "fits": done,
        "ended": ended.how if ended.how != "done" or done else "out of memory",
    }


def summary(config: Config, table: pd.DataFrame, limit: int) -> dict[str, Any]:
    """Return the `largest` micro-batch that fits of each length and setting, 0 for none, and what is `recommended` for each length."""
    kept = table.assign(fitting=table["rows"].where(table["fits"], 0))
    largest = kept.groupby(["sequence_length", "checkpointing"])["fitting"].max().rename("rows").reset_index()
    lengths = {int(length): cells for length, cells in table.groupby("sequence_length")}  # type: ignore[call-overload]
    return {
        "largest": largest.to_dict("records"),
        "recommended": {str(length): recommend(cells, config, limit) for length, cells in lengths.items()},
    }


def recommend(cells: pd.DataFrame, config: Config, limit: int) -> dict[str, Any] | None:
    """Return the micro-batch to use at one length, with its accumulation; None when none leaves the headroom free.

    Of those that divide the batch, the fastest; of those that are nearly as fast as it (NEAR), the one of least memory.
    """
    room = cells["fits"] & (cells["peak_bytes"] <= (1 - config.headroom) * limit)
    able = cells[room & (config.batch % cells["rows"] == 0)]
    near = able[able["tokens_per_second"] >= NEAR * able["tokens_per_second"].max()]
    if not len(near):
        return None
    best = near.sort_values(["peak_bytes", "rows", "checkpointing"]).iloc[0]
    return {
        "rows": int(best["rows"]),
        "accumulation": config.batch // int(best["rows"]),
        "checkpointing": bool(best["checkpointing"]),
        "peak_bytes": int(best["peak_bytes"]),
        "tokens_per_second": float(best["tokens_per_second"]),
    }


def page(config: Config, table: pd.DataFrame, numbers: dict[str, Any]) -> str:
    """Return the table in Markdown, a line a cell, and what is recommended."""
    from playpen.models import model_name

    name = model_name(config.model)
    head = f"# {name} on {numbers['device']}, {numbers['dtype']}, {_gb(numbers['limit_bytes'])} to fit into\n"
    kind = "RAM" if table["reserved_bytes"].isna().all() else "VRAM"
    lines = [head, f"| Config | {kind} | tokens a second |", "|---|---|---|"]
    lines += [_line(name, row) for row in table.to_dict("records")]
    advice = numbers["recommended"]
    lines += ["", f"| seq | for a batch of {config.batch} | flags of finetune |", "|---|---|---|"]
    return "\n".join(lines + [f"| {length} | {_advice(advice[length], config.batch)} |" for length in advice]) + "\n"


def _line(name: str, row: dict[Any, Any]) -> str:
    what = f"{name} LoRA @ seq={row['sequence_length']}, bs={row['rows']}" + ", grad ckpt" * row["checkpointing"]
    if not row["fits"]:
        return f"| {what} | OOM | |"
    return f"| {what} | {_gb(row['peak_bytes'])} | {row['tokens_per_second']:,.0f} |"


def _advice(best: dict[str, Any] | None, batch: int) -> str:
    if best is None:
        return "no micro-batch fits with the headroom | "
    flags = f"`--batch {batch} --machine.train-rows {best['rows']}{' --machine.gradient-checkpointing' * best['checkpointing']}`"
    return f"{best['rows']} x {best['accumulation']} | {flags}"


def _gb(size: float) -> str:
    return f"{size / GB:.2f} GB"
