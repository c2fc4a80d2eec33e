"""Memory and speed of `finetune`'s own training, measured over a few steps on rows of one length.

The trainer is `finetune`'s (`make_trainer`): its model, adapter, loss and optimiser. Rows are random tokens, all of the length
asked for, which is the most that rows of up to that length can take. Two micro-batches make a step where the batch has room for
them, so that a backward pass meets gradients that are there already.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from transformers import PrinterCallback, TrainerCallback, set_seed

from playpen.chat import IGNORE
from playpen.machine import Machine

if TYPE_CHECKING:
    from playpen.stages.profile_memory import Config

NO_ROOM = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What errors of torch say that have no class of their own: CUDA's outside its allocator, the CPU's, and cuBLAS's."""


@dataclass(frozen=True)
class Cell:
    """One place of the table."""

    sequence_length: int
    """Tokens of a row."""
    rows: int
    """Rows of a micro-batch."""
    checkpointing: bool
    """Whether activations are computed again in the backward pass."""


@dataclass(frozen=True)
class Asked:
    """One measurement."""

    config: "Config"
    cell: Cell
    limit: int
    """Bytes that a CUDA device's allocator may take; a CPU's limit is watched from outside."""
    work: Path
    """A directory for what the trainer writes."""
    machine: Machine


class Clock(TrainerCallback):
    """Note when each optimiser step has ended on the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.ends.append(perf_counter())


def look(machine: Machine) -> tuple[str, int]:
    """Return a CUDA device's name and the bytes that its allocator can get, next to what others hold now."""
    device = machine.torch_device()
    return torch.cuda.get_device_name(device), torch.cuda.mem_get_info(device)[0]


def measure(asked: Asked) -> dict[str, Any]:
    """Return `fits`, `tokens_per_second` (padding there is none; None when it does not fit) and, on CUDA, `peak_bytes` and `reserved_bytes`.

    Running out of memory is an answer; peaks are then those until it ran out.
    """
    device = asked.machine.torch_device()
    if device.type == "cuda":
        total = torch.cuda.mem_get_info(device)[1]
        torch.cuda.set_per_process_memory_fraction(min(1.0, asked.limit / total), torch.cuda.current_device())
    speed = None
    try:
        speed = _tokens_per_second(asked)
    except Exception as error:
        if not out_of_memory(error):
            raise
    found = {"fits": speed is not None, "tokens_per_second": speed}
    if device.type == "cuda":
        found |= {"peak_bytes": torch.cuda.max_memory_allocated(), "reserved_bytes": torch.cuda.max_memory_reserved()}
    return found


def out_of_memory(error: BaseException) -> bool:
    """Say whether an error is a want of memory, of the device or of the system."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in NO_ROOM)


def _tokens_per_second(asked: Asked) -> float:
    """Train one optimiser step to warm up, in which Adam's moments are made, then time the others; the median counts."""
    from playpen.models import load_tokenizer
    from playpen.stages import finetune

    config, cell = asked.config, asked.cell
    micro_batches = min(2, config.batch // cell.rows)
    settings = finetune.Config(
        model=config.model,
        data=config.model,  # nothing reads it: the trainer gets its rows
        epochs=1,
        batch=micro_batches * cell.rows,
        rank=config.rank,
        dropout=config.dropout,
        target_modules=config.target_modules,
    )
    machine = replace(asked.machine, train_rows=cell.rows, gradient_checkpointing=cell.checkpointing, processes=1, tracker="none")
    set_seed(settings.seed)
    table = random_rows(config, cell, settings.batch * (1 + config.steps))
    trainer = finetune.make_trainer(settings, table, load_tokenizer(config.model), asked.work, machine)
    clock = Clock(machine.torch_device())
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(clock)
    trainer.train()
    return settings.batch * cell.sequence_length / float(np.median(np.diff(clock.ends)))


def random_rows(config: "Config", cell: Cell, count: int) -> pd.DataFrame:
    """Return `input_ids` and `labels` of so many rows, the last `config.labels` of each row's tokens with a label."""
    from transformers import AutoConfig

    from playpen.models import model_files

    vocabulary = AutoConfig.from_pretrained(model_files(config.model).base).get_text_config().vocab_size
    ids = np.random.default_rng(0).integers(0, vocabulary, (count, cell.sequence_length))
    silent = cell.sequence_length - max(1, round(config.labels * cell.sequence_length))
    labels = np.where(np.arange(cell.sequence_length) < silent, IGNORE, ids)
    return pd.DataFrame({"input_ids": list(ids), "labels": list(labels)})
