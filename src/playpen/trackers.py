"""Trackers: a live copy of a training's history in W&B, TensorBoard or Trackio. The record is `history.parquet`, in any case.

`machine.tracker` names one. A tracker's own files never lie in an artifact:

- wandb: project `WANDB_PROJECT` or `playpen`; files in `WANDB_DIR` or `./wandb`. `WANDB_MODE=offline` needs no account.
- tensorboard: `TENSORBOARD_LOGGING_DIR`, or `tensorboard/` beside the artifact; in it one directory a run.
- trackio: project `TRACKIO_PROJECT` or `playpen`; files in `TRACKIO_DIR` or Trackio's cache, or a Space or server of its settings.

The artifact holds `tracker.json`: which tracker and which run in it. By that a killed training finds its run again. It logs its
history from the start again, and each step is there once: W&B online drops the steps that it has; the others (W&B offline too)
take back what the killed attempt wrote, and write it anew.
"""

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from playpen.config import PlaypenError, to_plain
from playpen.machine import Machine
from playpen.progress import tqdm
from playpen.tables import write_json

RUN_FILE = "tracker.json"
Values = Mapping[str, float | np.ndarray]


@dataclass
class Tracker:
    """Where numbers are copied to."""

    write: Callable[[int, dict[str, Any]], Any]
    """Takes a step and its numbers."""
    close: Callable[[bool], Any]
    """Ends the run; takes whether the training failed."""
    known: int = -1
    """The last step that the tracker has from an earlier attempt; it and those before are not written again."""

    def log(self, step: int, values: Values, group: str = "") -> None:
        """Copy the numbers of one step; steps may not fall. An array becomes a histogram.

        Names are those of our tables: a row of `history` as it stands, one of `evaluation` with the group `evaluation`, which
        stands before each name but `tokens`. A tracker that fails says so once and is left; the training goes on.
        """
        if step > self.known:
            named = {name if not group or name == "tokens" else f"{group}/{name}": value for name, value in values.items()}
            self._try(f"step {step}", self.write, step, {name: value for name, value in named.items() if name != "step"})

    def end(self, failed: bool) -> None:
        """End the run."""
        self._try("the end", self.close, failed)

    def _try(self, where: str, work: Callable[..., Any], *values: Any) -> None:
        try:
            work(*values)
        except Exception as error:  # a copy may not cost the training
            tqdm.write(f"the tracker failed at {where} and is left: {error}; the history is kept in the artifact", sys.stderr)
            self.write = self.close = lambda *values: None


@contextmanager
def open_tracker(machine: Machine, run_name: str, config: Any, out: Path) -> Iterator[Tracker]:
    """Open the tracker that `machine.tracker` names for the artifact under way at `out`; it is ended when the block is left.

    `config` is shown beside the run. After a kill, log everything from the first step again. Raises PlaypenError when the
    tracker's package is missing or it cannot start: open it before the work begins.
    """
    tracker, failed = _open(machine.tracker, run_name, to_plain(config), out), True
    try:
        yield tracker
        failed = False
    finally:
        tracker.end(failed)


def _open(name: str, run_name: str, config: dict[str, Any], out: Path) -> Tracker:
    if name == "none":
        (out / RUN_FILE).unlink(missing_ok=True)
        return Tracker(lambda step, values: None, lambda failed: None)
    if importlib.util.find_spec(name) is None:
        raise PlaypenError(
            f"machine.tracker is {name}, but the package {name} is not installed; install playpen[{name}], or leave tracker out"
        )
    opened = {"wandb": _open_wandb, "tensorboard": _open_tensorboard, "trackio": _open_trackio}[name]
    run, tracker = opened(run_name, config, out, _earlier_run(name, out))
    write_json(out / RUN_FILE, {"tracker": name, "run": run})
    return tracker


def _earlier_run(name: str, out: Path) -> str | None:
    """Return the run of the same tracker that a killed attempt wrote to."""
    found = json.loads((out / RUN_FILE).read_text()) if (out / RUN_FILE).exists() else {}
    return found["run"] if found.get("tracker") == name else None


def _histograms(values: dict[str, Any], make: Callable[[Any], Any]) -> dict[str, Any]:
    return {name: make(value) if isinstance(value, np.ndarray) else float(value) for name, value in values.items()}


def _open_wandb(run_name: str, config: dict[str, Any], out: Path, earlier: str | None) -> tuple[str, Tracker]:
    import wandb

    try:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "playpen"),
            name=run_name,
            id=earlier,
            resume="allow" if earlier else None,
            config=config,
            settings=wandb.Settings(console="off"),
        )
    except Exception as error:  # not all that it raises are its own Error
        reason = " ".join(str(error).split()).rstrip(".")
        raise PlaypenError(
            f"machine.tracker is wandb, which cannot start: {reason}; set WANDB_API_KEY, or WANDB_MODE=offline to write to disk"
        ) from None
    if earlier:
        _supersede(Path(run.settings.sync_dir), run.id)
    tracker = Tracker(
        write=lambda step, values: run.log(_histograms(values, wandb.Histogram), step=step),
        close=lambda failed: run.finish(exit_code=int(failed)),
        known=run.starting_step - 1,
    )
    return run.id, tracker


def _supersede(run_directory: Path, run: str) -> None:
    """Mark what killed attempts left offline of a run, as `wandb sync` marks what it need not send: it is written again."""
    for other in run_directory.parent.glob(f"offline-run-*-{run}"):
        if other.name != run_directory.name:
            (other / f"run-{run}.wandb.synced").touch()


def _open_tensorboard(run_name: str, config: dict[str, Any], out: Path, earlier: str | None) -> tuple[str, Tracker]:
    from torch.utils.tensorboard import SummaryWriter

    folder = Path(os.environ.get("TENSORBOARD_LOGGING_DIR") or out.parent / "tensorboard").expanduser() / run_name
    for file in folder.glob("events.out.tfevents.*"):
        file.unlink()
    writer = SummaryWriter(str(folder))
    writer.add_text("config", f"```json\n{json.dumps(config, indent=2)}\n```")

    def write(step: int, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                writer.add_histogram(name, value, step)
            else:
                writer.add_scalar(name, float(value), step)
        writer.flush()

    return run_name, Tracker(write, lambda failed: writer.close())


def _open_trackio(run_name: str, config: dict[str, Any], out: Path, earlier: str | None) -> tuple[str, Tracker]:
    import trackio  # pyright: ignore[reportMissingImports]

    project = os.environ.get("TRACKIO_PROJECT", "playpen")
    with suppress(ValueError):  # the project is gone, and the earlier run with it
        for old in [run for run in trackio.Api().runs(project) if run.id == earlier]:
            old.delete()
    try:
        run = trackio.init(project=project, name=run_name, config=config, resume="never", embed=False)
    except Exception as error:  # it has no error class of its own
        raise PlaypenError(f"machine.tracker is trackio, which cannot start: {' '.join(str(error).split())}") from None
    tracker = Tracker(
        write=lambda step, values: run.log(_histograms(values, trackio.Histogram), step=step), close=lambda failed: run.finish()
    )
    return run.id, tracker
