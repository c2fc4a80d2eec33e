"""Training by transformers' Trainer: checkpoints by the clock, exact resume, and a history that is ours."""

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from playpen import processes
from playpen.config import PlaypenError
from playpen.machine import Machine
from playpen.models import be_quiet
from playpen.progress import tqdm
from playpen.tables import write_table
from playpen.trackers import Tracker, open_tracker

NUMBERS = ("epoch", "loss", "learning_rate", "grad_norm")
"""What the history keeps of a step."""


class SaveByClock(TrainerCallback):
    """Ask for a checkpoint whenever `seconds` have gone by since the last one."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self.last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        if processes.from_first(lambda: time.monotonic() - self.last >= self.seconds):  # all must save together
            control.should_save, self.last = True, time.monotonic()
        return control


class ShowProgress(TrainerCallback):
    """Show steps, the time that is left and the last loss in one line, in place of the Trainer's own printing."""

    def __init__(self, name: str) -> None:
        self.name = name

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        shown = state.is_world_process_zero
        self.bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc=self.name, unit="step", disable=None if shown else True
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{float(logs['loss']):.3f}", refresh=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.close()


class CopyHistory(TrainerCallback):
    """Copy the history to a tracker while it is made; that of a killed attempt first."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.copied = 0

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for row in state.log_history[self.copied :] if state.is_world_process_zero else []:
            if "loss" in row:
                self.tracker.log(row["step"], {name: row[name] for name in NUMBERS if name in row})
        self.copied = len(state.log_history)


def trainer_arguments(out: Path, machine: Machine, batch_rows: int, seed: int, steps: int, run_name: str) -> dict[str, Any]:
    """Return what Trainer needs to know of the machine; `batch_rows` examples make one optimiser step whatever the micro-batch."""
    be_quiet()
    if batch_rows % processes.count():
        raise PlaypenError(
            f"a batch of {batch_rows} rows cannot be shared evenly by {processes.count()} processes; change one of them"
        )
    share = batch_rows // processes.count()
    micro = max(n for n in range(1, min(machine.train_rows, share) + 1) if share % n == 0)
    device = machine.torch_device()
    return {
        "output_dir": str(out / "checkpoints"),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": share // micro,
        "gradient_checkpointing": machine.gradient_checkpointing,
        "bf16": machine.torch_dtype() == torch.bfloat16,
        "use_cpu": device.type == "cpu",
        "seed": seed,
        "data_seed": seed,
        "save_strategy": "no",
        "save_total_limit": 1,
        "logging_strategy": "steps",
        "logging_steps": max(1, steps // 200),
        "logging_first_step": True,
        "report_to": "none",  # its TensorBoard files would lie in the checkpoints, and go with them: see CopyHistory
        "run_name": run_name,
        "ddp_find_unused_parameters": False,  # every adapted matrix takes part in every pass
        "dataloader_pin_memory": device.type == "cuda",
        "disable_tqdm": True,
        # Rows of like length share a batch: less padding, a third less time on short chats.
        "train_sampling_strategy": "group_by_length",
    }


def train(trainer: Trainer, config: Any, out: Path, machine: Machine) -> dict[str, float]:
    """Train to the end, from the last checkpoint if there is one; write `history.parquet` and return its closing numbers.

    The history goes to the tracker of `machine` too, with `config` beside it.
    """
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(ShowProgress(trainer.args.run_name or "training"))
    trainer.add_callback(SaveByClock(machine.checkpoint_seconds))
    last = processes.from_first(lambda: last_checkpoint(out / "checkpoints"))
    if processes.rank():  # with the seed of the first, dropout would drop the same of every process's rows
        torch.manual_seed(trainer.args.seed + processes.rank())
    started = time.monotonic()
    follower = machine if trainer.is_world_process_zero() else replace(machine, tracker="none")
    with open_tracker(follower, out.name.removesuffix(".part"), config, out) as tracker:
        trainer.add_callback(CopyHistory(tracker))
        trainer.train(resume_from_checkpoint=last)
    seconds = time.monotonic() - started
    rows = [r for r in trainer.state.log_history if "loss" in r]
    history = pd.DataFrame({key: [float(r.get(key, float("nan"))) for r in rows] for key in ("step", *NUMBERS)})
    if trainer.is_world_process_zero():
        write_table(out / "history.parquet", history.astype({"step": "int64"}))
    tail = history["loss"].iloc[-max(1, len(history) // 10) :]
    return {
        "steps": trainer.state.global_step,
        "first_loss": history["loss"].iloc[0],
        "last_loss": float(tail.mean()),
        "train_seconds": round(seconds, 2),
    }


def last_checkpoint(folder: Path) -> str | None:
    """Return the last whole checkpoint; one whose writing was cut off has no state, which comes last, and is deleted."""
    for part in folder.glob("checkpoint-*"):
        if not (part / "trainer_state.json").exists():
            shutil.rmtree(part)
    return get_last_checkpoint(str(folder)) if folder.is_dir() else None


def remove_checkpoints(out: Path) -> None:
    """Delete the checkpoints of a training that has ended."""
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
