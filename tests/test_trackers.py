"""Trackers: a live copy that costs nothing when it fails, and holds a killed run's history once."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wandb_server import NAME, wandb_server

from playpen.config import PlaypenError
from playpen.machine import Machine
from playpen.trackers import Tracker, open_tracker
from playpen.wandb_runs import read_offline

KILLED, STEPS = 12, 20
CONFIG = {"k": 3, "d_sae": 8}


def row(step: int) -> dict[str, float]:
    return {"step": step, "tokens": step * 100, "loss": 1 / step, "l0": 3.0}


def train(tracker: Tracker, steps: int) -> None:
    """Log as a training does: a row a step, an evaluation now and then, densities at the end."""
    for step in range(1, steps + 1):
        tracker.log(step, row(step))
        if step % 10 == 0:
            tracker.log(step, {"tokens": step * 100, "explained_variance": step / 100}, "evaluation")
    if steps == STEPS:
        tracker.log(steps, {"log10_density": np.array([-1.0, -2.0, -2.0, -3.0])})


def run(kind: Any, out: Path, steps: int = STEPS) -> None:
    out.mkdir(exist_ok=True)
    with open_tracker(Machine(tracker=kind), "sae-1a2b3c4d", CONFIG, out) as tracker:
        train(tracker, steps)


def kill(kind: str, out: Path) -> None:
    """Run in another process, which is killed after a few steps."""
    code = (
        "import os, signal, sys, time; from pathlib import Path; import test_trackers as t; from playpen.machine import Machine\n"
        "kind, out = sys.argv[1], Path(sys.argv[2]); out.mkdir(exist_ok=True)\n"
        "with t.open_tracker(Machine(tracker=kind), 'sae-1a2b3c4d', t.CONFIG, out) as tracker:\n"
        "    t.train(tracker, t.KILLED); time.sleep(1.5); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    home = Path(__file__).parent
    ended = subprocess.run([sys.executable, "-c", code, kind, str(out)], cwd=home, stdout=subprocess.DEVNULL)
    assert ended.returncode == -signal.SIGKILL


def again(kind: str, out: Path) -> str:
    """Run to the end in another process, because W&B and Trackio read the environment once; return the last line of errors."""
    code = "import sys; from pathlib import Path; import test_trackers as t; t.run(sys.argv[1], Path(sys.argv[2]))"
    ended = subprocess.run(
        [sys.executable, "-c", code, kind, str(out)], cwd=Path(__file__).parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert bool(ended.returncode) == (b"Error" in ended.stderr)
    return ended.stderr.decode().strip().rpartition("\n")[2]


@dataclass
class Notes:
    """Keeps what a tracker is given."""

    written: list[tuple[int, dict[str, Any]]]
    failed: list[bool]

    def tracker(self, known: int = -1) -> Tracker:
        return Tracker(lambda step, values: self.written.append((step, values)), self.failed.append, known)


def test_names_are_those_of_the_tables() -> None:
    notes = Notes([], [])
    notes.tracker().log(3, row(3))
    notes.tracker().log(3, {"tokens": 300, "l0": 2.5}, "evaluation")
    assert notes.written == [(3, {"tokens": 300, "loss": 1 / 3, "l0": 3.0}), (3, {"tokens": 300, "evaluation/l0": 2.5})]


def test_steps_that_the_tracker_has_are_not_written_again() -> None:
    notes = Notes([], [])
    train(notes.tracker(known=KILLED), STEPS)
    assert [step for step, values in notes.written if "loss" in values] == list(range(KILLED + 1, STEPS + 1))


def test_a_tracker_that_fails_is_told_of_once_and_left(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*what: Any) -> None:
        raise ConnectionError("the server is gone")

    tracker = Tracker(broken, broken)
    train(tracker, STEPS)
    tracker.end(False)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "the tracker failed at step 1 and is left: the server is gone" in said


@pytest.mark.parametrize(("stopped", "failed"), [(None, False), (KeyboardInterrupt, True), (PlaypenError, True)])
def test_the_run_is_ended_with_how_the_training_ended(stopped: Any, failed: bool, monkeypatch: Any, tmp_path: Path) -> None:
    notes = Notes([], [])
    monkeypatch.setattr("playpen.trackers._open", lambda *what: notes.tracker())
    try:
        with open_tracker(Machine(), "sae", CONFIG, tmp_path):
            if stopped:
                raise stopped
    except (KeyboardInterrupt, PlaypenError):
        pass
    assert notes.failed == [failed]


def test_without_a_tracker_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "sae.part").mkdir()
    (tmp_path / "sae.part" / "tracker.json").write_text("{}")
    run("none", tmp_path / "sae.part")
    assert list(tmp_path.rglob("*")) == [tmp_path / "sae.part"]


@pytest.mark.parametrize("kind", ["wandb", "tensorboard", "trackio"])
def test_a_missing_package_is_one_line_that_names_the_extra(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PlaypenError, match=rf"machine.tracker is {kind}, .* install playpen\[{kind}\]"):
        run(kind, tmp_path / "sae.part")


@pytest.fixture(autouse=True)
def own_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep W&B's helper of this process from the processes that are started: it lives on when they are killed."""
    monkeypatch.delenv("WANDB_SERVICE", raising=False)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path / "w"), "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "w").mkdir()
    return tmp_path


def test_a_killed_offline_run_of_wandb_is_written_anew_and_its_beginning_is_not_sent(offline: Path) -> None:
    kill("wandb", offline / "sae.part")
    again("wandb", offline / "sae.part")
    first, second = sorted((offline / "w" / "wandb").glob("offline-run-*"))
    mark = json.loads((offline / "sae.part" / "tracker.json").read_text())
    assert first.name.rsplit("-")[-1] == second.name.rsplit("-")[-1] == mark["run"]
    assert (first / f"run-{mark['run']}.wandb.synced").exists()
    assert not (second / f"run-{mark['run']}.wandb.synced").exists()
    assert [file.name for file in (offline / "sae.part").iterdir()] == ["tracker.json"]

    found = read_offline(str(second))
    assert found.label == "sae-1a2b3c4d"
    assert found.settings == CONFIG
    assert found.curve("loss")["value"].tolist() == [1 / step for step in range(1, STEPS + 1)]
    assert found.curve("explained_variance", True)["value"].tolist() == [0.1, 0.2]
    assert found.density is not None
    assert (found.density.counts.sum(), found.density.never) == (4, 0.5)


def test_a_killed_run_on_the_wandb_server_is_gone_on_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "sae.part"
    out.mkdir()
    (out / "tracker.json").write_text(json.dumps({"tracker": "wandb", "run": NAME}))
    monkeypatch.setenv("WANDB_SILENT", "true")
    with wandb_server(monkeypatch, tmp_path) as server:
        server.rows = tuple({"_step": step, **row(step)} for step in range(1, KILLED + 1))
        again("wandb", out)
    assert [line["_step"] for line in server.sent if "loss" in line] == list(range(KILLED + 1, STEPS + 1))
    assert server.sent[-1]["evaluation/explained_variance"] == 0.2
    assert json.loads((out / "tracker.json").read_text())["run"] == NAME


def test_a_wandb_without_a_key_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "WANDB_MODE": "online",
        "WANDB_API_KEY": "",
        "NETRC": str(tmp_path / "none"),
        "HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    said = again("wandb", tmp_path / "sae.part")
    assert said.startswith("playpen.config.PlaypenError: machine.tracker is wandb, which cannot start: No API key configured")
    assert said.endswith("set WANDB_API_KEY, or WANDB_MODE=offline to write to disk")
    assert not (tmp_path / "sae.part" / "tracker.json").exists()


def test_a_killed_run_of_tensorboard_is_written_anew(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # pyright: ignore[reportMissingImports]

    kill("tensorboard", tmp_path / "sae.part")
    run("tensorboard", tmp_path / "sae.part")
    events = EventAccumulator(str(tmp_path / "tensorboard" / "sae-1a2b3c4d"))
    events.Reload()
    assert [point.step for point in events.Scalars("loss")] == list(range(1, STEPS + 1))
    assert [point.value for point in events.Scalars("evaluation/explained_variance")] == pytest.approx([0.1, 0.2])
    assert events.Histograms("log10_density")[0].histogram_value.num == 4
    assert [file.name for file in (tmp_path / "sae.part").iterdir()] == ["tracker.json"]


def test_a_killed_run_of_trackio_is_written_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    import sqlite3

    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "t"))
    kill("trackio", tmp_path / "sae.part")
    again("trackio", tmp_path / "sae.part")
    with sqlite3.connect(tmp_path / "t" / "playpen.db") as database:
        found: Sequence[Any] = database.execute("select run_name, run_id, step, metrics from metrics order by step").fetchall()
    assert {name for name, *_ in found} == {"sae-1a2b3c4d"}
    assert {mark for _, mark, *_ in found} == {json.loads((tmp_path / "sae.part" / "tracker.json").read_text())["run"]}
    assert [step for *_, step, text in found if "loss" in json.loads(text)] == list(range(1, STEPS + 1))
    assert [file.name for file in (tmp_path / "sae.part").iterdir()] == ["tracker.json"]
