"""SAEs that learn side by side from one stream of activations: their steps, measures, files and checkpoints."""

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from playpen import sae_training
from playpen.activation_stream import Mixer
from playpen.activations import Hook
from playpen.heldout import Heldout
from playpen.machine import Machine
from playpen.models import model_files, model_name
from playpen.sae_card import write_card
from playpen.saes import SaeInfo, open_sae, write_sae
from playpen.tables import read_table, write_json, write_table
from playpen.trackers import Tracker

if TYPE_CHECKING:
    from playpen.stages.train_sae import Config

EVALUATED = ("explained_variance", "l0", "dead_fraction", "ce_score_zero", "ce_score_mean")
"""The measures of the table `evaluation`, beside `tokens`."""


@dataclass
class Learner:
    """One SAE under way."""

    config: "Config"
    hook: Hook
    columns: slice
    """Its part of the activations, which stand side by side when there are several hooks."""
    trainer: sae_training.Trainer
    folder: Path
    history: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """Steps taken so far."""
        return self.trainer.n_training_steps


def take_step(learner: Learner, batch: Tensor, noted: bool) -> None:
    """Let one SAE learn from its part of a batch, and note how that went."""
    output = learner.trainer.step(batch[:, learner.columns])
    if noted:
        learner.history.append(sae_training.record(learner.trainer, output))
    learner.trainer.n_training_steps += 1


def start(learners: list[Learner], mixer: Mixer) -> None:
    """Fill the buffer and let every SAE start from what it holds."""
    mixer.fill()
    sample = mixer.sample(100_000)
    for learner in learners:
        sae_training.start(learner.trainer, sample[:, learner.columns])
        sae_training.start_as_first(learner.trainer)


def finished(learner: Learner, mixer: Mixer) -> Any:
    """Return a SAE as it would be saved now."""
    return sae_training.finished(learner.trainer, mixer.sample(8 * learner.config.batch_tokens)[:, learner.columns])


def save(learner: Learner, mixer: Mixer, folder: Path) -> SaeInfo:
    """Write a SAE as it is now into a directory: `sae/` and `sae.json`."""
    sae, base = finished(learner, mixer), model_files(learner.config.model).base_id
    sae.cfg.metadata.hf_hook_name = sae.cfg.metadata.hook_name = learner.hook.name
    return write_sae(folder, sae, learner.hook.name, base, sae_training.scale_of(learner.trainer))


def evaluate(learner: Learner, mixer: Mixer, heldout: Heldout) -> dict[str, float]:
    """Return the quality of a SAE as it would be opened, were it saved now, on the held-out rows: one row of the table `evaluation`.

    It is saved and opened, because a BatchTopK or Matryoshka SAE is then another function, with a threshold in place of the batch.
    """
    with TemporaryDirectory() as folder:
        save(learner, mixer, Path(folder))
        found, _ = heldout.measure(open_sae(folder, heldout.machine), learner.hook)
    return {"tokens": learner.trainer.n_training_samples, **{name: found[name] for name in EVALUATED}}


def write(learner: Learner, mixer: Mixer, heldout: Heldout, trained: dict[str, Any], machine: Machine) -> None:
    """Write a SAE that has been trained, its card, its histories and its numbers."""
    folder = learner.folder
    folder.mkdir(parents=True, exist_ok=True)
    info, saved = save(learner, mixer, folder), open_sae(folder, machine)
    found, density = heldout.measure(saved, learner.hook)
    metrics = {**trained, **found, **heldout.probe(saved, learner.hook), "scale": sae_training.scale_of(learner.trainer)}
    last = {"tokens": trained["tokens"], **{name: found[name] for name in EVALUATED}}
    write_table(folder / "history.parquet", pd.DataFrame(learner.history))
    write_table(folder / "evaluation.parquet", pd.DataFrame([*learner.evaluations, last]))
    write_table(
        folder / "density.parquet",
        pd.DataFrame({"feature": range(len(density)), "density": density.numpy()}).astype({"feature": "int32"}),
    )
    write_card(folder / "sae", info, model_name(learner.config.model), metrics)
    write_json(folder / "metrics.json", metrics)


def copy_history(learner: Learner, tracker: Any, since: int) -> None:
    """Copy what was noted from step `since` on to the tracker."""
    batch = learner.config.batch_tokens
    rows = [(int(row["step"]), row, "") for row in learner.history] + [
        (int(row["tokens"]) // batch, row, "evaluation") for row in learner.evaluations
    ]
    for step, row, group in sorted((row for row in rows if row[0] >= since), key=lambda row: (row[0], row[2])):
        tracker.log(step, row, group)


def log_end(learner: Learner, tracker: Tracker) -> None:
    """Copy the closing evaluation and the densities to the tracker."""
    last, density = (read_table(learner.folder, name) for name in ("evaluation", "density"))
    alive = density["density"].to_numpy()
    tracker.log(learner.steps, {name: float(last[name].iloc[-1]) for name in ("tokens", *EVALUATED)}, "evaluation")
    tracker.log(learner.steps, {"log10_density": np.log10(alive[alive > 0])})


def save_checkpoint(out: Path, learners: list[Learner], mixer: Mixer) -> None:
    """Write everything that the rest of the training depends on, whole or not at all."""
    saved = [
        {"trainer": sae_training.state(one.trainer), "history": one.history, "evaluations": one.evaluations} for one in learners
    ]
    part = out / ".checkpoint.pt"
    torch.save({"learners": saved, "mixer": mixer.state()}, part)
    part.replace(out / "checkpoint.pt")


def load_checkpoint(out: Path, learners: list[Learner], mixer: Mixer, machine: Machine) -> bool:
    """Put everything where a killed training was; False when there is no checkpoint."""
    (out / ".checkpoint.pt").unlink(missing_ok=True)
    if not (out / "checkpoint.pt").exists():
        return False
    found = torch.load(out / "checkpoint.pt", map_location=machine.torch_device(), weights_only=True)
    for learner, saved in zip(learners, found["learners"], strict=True):
        sae_training.load(learner.trainer, saved["trainer"])
        learner.history, learner.evaluations = saved["history"], saved["evaluations"]
    mixer.load(found["mixer"])
    return True
