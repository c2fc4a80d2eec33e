"""Training again and again from one start: a lean loop for hundreds of short LoRA trainings.

The same training as `finetune`'s: rows of like length in a batch, loss over all labels of a batch, gradients cut at length
1, AdamW, linear warm-up, cosine decay. What one long training needs (checkpoints, trackers, a data loader, a history) is
left out; the model and the rows are opened once. Every training uses one thread, so that its result depends on nothing but
its rows and its seed, and as many run side by side as the machine has workers.
"""

import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from playpen.apart import end_with_parent
from playpen.chat import count_labels
from playpen.config import PlaypenError
from playpen.lora_settings import num_steps, warmup_steps
from playpen.losses import CLOSE, TokenLists, backward_labels, pad, passes, row_losses
from playpen.machine import Machine
from playpen.progress import tqdm
from playpen.tables import unfinished
from playpen.threads import one_thread

if TYPE_CHECKING:
    from playpen.stages.finetune import Config

LONGEST_GRADIENT = 1.0
"""Gradients longer than this are cut to it, as transformers' Trainer does by default."""


@dataclass(frozen=True)
class Rows:
    """Tokens of rows; `labels` are unshifted, -100 where a token carries no loss."""

    ids: TokenLists
    labels: TokenLists


@dataclass(frozen=True)
class Job:
    """One training, and the file of its result."""

    file: Path
    """Will hold float32 [targets + others]: mean nats a label of each target row, then of each other row."""
    rows: np.ndarray
    """Numbers of the rows to train on, int64."""
    seed: int


@dataclass(frozen=True)
class Task:
    """What all trainings of a bank share; every worker process gets it once."""

    settings: "Config"
    """How to train, in `finetune`'s words; its seed and its choice of rows are not used."""
    rows: Rows
    targets: Rows
    machine: Machine
    others: Rows = Rows([], [])
    """Rows measured after the targets, in batches of their own, so that the targets' losses do not depend on them."""

    @cached_property
    def retrainer(self) -> "Retrainer":
        """The open model, made when it is first asked for."""
        return Retrainer(self)


def spent(task: Task, jobs: Sequence[Job]) -> dict[str, dict[str, int]]:
    """Return `tokens` and `labels` of all trainings together, without padding: those `trained` on, once an epoch, and those `measured`."""
    sides: dict[str, Any] = {
        "tokens": (task.rows.ids, [*task.targets.ids, *task.others.ids], len),
        "labels": (task.rows.labels, [*task.targets.labels, *task.others.labels], count_labels),
    }
    found = {}
    for name, (rows, measured, count) in sides.items():
        sizes = np.array([count(row) for row in rows], np.int64)
        trained = task.settings.epochs * sum(int(sizes[job.rows].sum()) for job in jobs)
        found[name] = {"trained": round(trained), "measured": sum(map(count, measured)) * len(jobs)}
    return found


class Retrainer:
    """A model that is trained on some rows, measured on the targets and set back, as often as it is called."""

    def __init__(self, task: Task) -> None:
        from peft import get_peft_model

        from playpen.stages.finetune import trainable_model

        model, lora = trainable_model(task.settings, task.machine)
        self.task, self.model = task, get_peft_model(model, lora) if lora else model
        self.weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.start = None if lora else [weight.detach().clone() for weight in self.weights]
        self.num_labels = [count_labels(labels) for labels in task.rows.labels]

    def __call__(self, rows: np.ndarray, seed: int) -> np.ndarray:
        """Train on rows of these numbers; return the losses of targets and others, float32 in nats a label. The same call gives the same bytes."""
        settings = self.task.settings
        torch.manual_seed(seed)
        self._reset()
        optimiser = torch.optim.AdamW(self.weights, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
        schedule = cosine_schedule(optimiser, len(rows), settings)
        self.model.train()
        for batch in batches([len(self.task.rows.ids[row]) for row in rows], settings, seed):
            self._add_gradients([int(rows[place]) for place in batch])
            clip_grad_norm_(self.weights, LONGEST_GRADIENT)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
        return np.concatenate([self._measure(rows) for rows in (self.task.targets, self.task.others)])

    def _measure(self, rows: Rows) -> np.ndarray:
        return row_losses(self.model.eval(), rows.ids, rows.labels, self.task.machine, tqdm(disable=True))

    def _reset(self) -> None:
        """Go back to the adapter that was given, or draw a new one."""
        from peft.tuners.lora import LoraLayer

        if self.start is not None:
            with torch.no_grad():
                for weight, first in zip(self.weights, self.start, strict=True):
                    weight.copy_(first)
            return
        for module in self.model.modules():
            if isinstance(module, LoraLayer):
                module.reset_lora_parameters(self.model.active_adapter, True)

    def _add_gradients(self, batch: list[int]) -> None:
        rows, machine, device = self.task.rows, self.task.machine, self.task.machine.torch_device()
        total = sum(self.num_labels[row] for row in batch)
        close = CLOSE if device.type == "cpu" else 0.0
        for part in passes(batch, [len(rows.ids[row]) for row in batch], machine.train_rows, close):
            ids, _, labels = pad(rows.ids, rows.labels, part, device)
            backward_labels(self.model, ids, None, labels, total)


def cosine_schedule(optimiser: torch.optim.Optimizer, rows: int, settings: "Config") -> Any:
    """Return `finetune`'s schedule: linear warm-up over a share of the steps, then a cosine down to 0."""
    from transformers import get_cosine_schedule_with_warmup

    return get_cosine_schedule_with_warmup(optimiser, warmup_steps(rows, settings), num_steps(rows, settings))


def batches(lengths: list[int], settings: "Config", seed: int) -> Iterator[list[int]]:
    """Yield the places of the rows of each step, drawn by `seed`, rows of like length together."""
    return islice(_epochs(lengths, settings.batch, seed), num_steps(len(lengths), settings))


def _epochs(lengths: list[int], size: int, seed: int) -> Iterator[list[int]]:
    from transformers.trainer_pt_utils import get_length_grouped_indices

    generator = torch.Generator().manual_seed(seed)
    while True:
        order = get_length_grouped_indices(lengths, size, generator=generator)
        yield from (order[start : start + size] for start in range(0, len(order), size))


def train_all(task: Task, jobs: Sequence[Job]) -> Iterator[None]:
    """Do the jobs, `machine.workers` at a time or one by one in this process; yields after each, when its file is whole."""
    if not (workers := min(task.machine.workers, len(jobs))):
        with one_thread():
            yield from (_train(task, job) for job in jobs)
        return
    with _pool(task, workers) as pool:
        try:
            yield from pool.map(_train_here, jobs)
        except BrokenProcessPool:
            raise PlaypenError(
                f"retrain: one of {workers} worker processes ended abruptly, most likely for want of memory; "
                "run again with a lower machine.workers, what is finished is kept"
            ) from None


def _train(task: Task, job: Job) -> None:
    losses = task.retrainer(job.rows, job.seed)
    if not np.isfinite(losses).all():
        raise PlaypenError(
            f"retrain: the training {job.file.stem} (subset-seed) ended with losses that are not finite; lower lr, "
            "or run with machine.dtype float32"
        )
    part = unfinished(job.file)
    with part.open("wb") as handle:
        np.save(handle, losses)
    part.replace(job.file)


@contextmanager
def _pool(task: Task, workers: int) -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (task,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C, finish what is under way and no more


def _start_worker(task: Task) -> None:
    global _task
    _task = task
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=end_with_parent, daemon=True).start()


_task: Task | None = None
"""What this worker process was started for."""


def _train_here(job: Job) -> None:
    assert _task is not None
    _train(_task, job)
