"""Runs of W&B as histories: of SAELens or with our own names, from the server or from the files of an offline run."""

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from playpen.config import PlaypenError, leaves
from playpen.run_history import Density, RunHistory

TOKENS = ("tokens", "details/n_training_samples", "details/n_training_tokens")
TRAINING_KEYS = {
    "loss": ("loss", "losses/overall_loss"),
    "l0": ("l0", "metrics/l0"),
    "explained_variance": ("explained_variance", "metrics/explained_variance"),
    "dead_fraction": ("dead_fraction",),
    "dead_features": ("sparsity/dead_features",),
    "lr": ("lr", "details/current_learning_rate"),
}
"""Our measure -> the keys that hold it: ours (`trackers.py`), then SAELens' (`SAETrainer.build_train_step_log_dict`)."""
EVALUATION_KEYS = {
    "explained_variance": ("evaluation/explained_variance",),
    "l0": ("evaluation/l0", "sparsity/l0"),
    "dead_fraction": ("evaluation/dead_fraction",),
    "ce_score_zero": (
        "evaluation/ce_score_zero",
        "model_performance_preservation/ce_loss_score",
        "metrics/ce_loss_score",
        "metrics/CE_loss_score",
    ),
    "ce_score_mean": ("evaluation/ce_score_mean",),
}
"""The same of evaluations: SAELens' are of `run_evals`, and `metrics/...` of its first versions. Its `explained_variance` there
is left out: until 6.45.1 it was measured about zero."""
DENSITY_KEYS = ("log10_density", "plots/feature_density_line_chart")
WIDTH_KEYS = ("d_sae", "sae.d_sae")
FLOOR = 1e-10
"""SAELens adds this to a density before the logarithm, so features that never fired stand at -10."""
WANTED = {
    "_step",
    *TOKENS,
    *(key for keys in (TRAINING_KEYS, EVALUATION_KEYS) for known in keys.values() for key in known),
    *(f"{key}/{part}" for key in DENSITY_KEYS for part in ("bins", "values")),
}
CUT_OFF = "reached the end of an incomplete .wandb file"
"""What `wandb leet inspect` says of the file of a killed run; its records up to there are whole."""


def read_offline(place: str) -> RunHistory:
    """Read an offline run: a `.wandb` file, or the run directory that holds it."""
    file = _find_file(Path(place))
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        ended = _python(["-m", "wandb", "leet", "inspect", "--json", str(file)], stdout=out, stderr=err)
        out.seek(0)
        err.seek(0)
        said = [line for line in err.read().splitlines() if line.strip() and CUT_OFF not in line]
        if ended or said:
            raise PlaypenError(f"{file} is damaged ({' '.join(said[-1:])}); copy it again from where the run was made")
        return parse_run(out, str(file))


def _find_file(place: Path) -> Path:
    files = [place] if place.is_file() else sorted(place.glob("*.wandb"))
    if len(files) == 1 and files[0].suffix == ".wandb":
        return files[0]
    runs = sorted({str(file.parent) for file in place.glob("**/*.wandb") if not file.parent.is_symlink()})
    found = f"holds {len(files)} .wandb files" if place.is_dir() else "is no .wandb file"
    known = f"; there are {', '.join(runs)}" if runs else ""
    raise PlaypenError(f"{place} {found}; name the directory of one offline run, as wandb/offline-run-...{known}")


def read_online(path: str) -> RunHistory:
    """Read a run from the W&B server; `path` is entity/project/run."""
    if len([part for part in path.split("/") if part]) != 3 or ":" in path:
        raise PlaypenError(f"a W&B run is named by entity/project/run, found '{path}'")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.jsonl"
        status = _python(["-m", "playpen.wandb_download", path, str(file)])
        if status not in (0, 1):  # 1 is told in the file
            raise PlaypenError(f"W&B run {path} cannot be read: the process that reads it ended with status {status}")
        with file.open() as lines:
            return parse_run(lines, f"W&B run {path}")


def _python(arguments: list[str], **files: Any) -> int:
    """Run Python in a process of its own, without a terminal to ask questions on; return its exit status."""
    if importlib.util.find_spec("wandb") is None:
        raise PlaypenError("runs of W&B need the package wandb, which is not installed; install playpen[wandb]")
    return subprocess.run([sys.executable, *arguments], stdin=subprocess.DEVNULL, **files).returncode


def parse_run(lines: Iterable[str], origin: str) -> RunHistory:
    """Return the history in the records of a run, one JSON object a line; raises when no key in it is known."""
    label, config, rows, seen = "", {}, [], set()
    for line in lines:
        record = json.loads(line)
        body = record.get(record["type"], {})
        if record["type"] == "error":
            raise PlaypenError(
                f"{origin} cannot be read: {body.rstrip('.')}; is the path right, the network up, and WANDB_API_KEY set?"
            )
        if record["type"] in ("run", "config"):
            config |= body.get("config", body).get("update", {})
            label = body.get("display_name") or body.get("run_id") or label
        if record["type"] == "history":
            row = _flat(body["item"])
            seen |= set(row)
            rows.append({name: value for name, value in row.items() if name in WANTED})
    if not rows:
        raise PlaypenError(f"{origin} holds no history; it is no run of W&B, was cut off at its start, or logged nothing")
    return make_history(label, origin, pd.DataFrame(rows), config, seen)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a row with its groups joined to keys by slashes: the server nests them, an offline file joins them by dots."""
    found = {}
    for name, value in values.items():
        key = prefix + name.replace(".", "/")
        found |= _flat(value, f"{key}/") if isinstance(value, dict) else {key: value}
    return found


def make_history(label: str, origin: str, rows: pd.DataFrame, config: dict[str, Any], seen: set[str]) -> RunHistory:
    """Turn the rows of a run, one column a known key, into a history."""
    settings = {name: value for name, value in leaves(config) if not name.startswith("_")}
    width = next((settings[name] for name in WIDTH_KEYS if isinstance(settings.get(name), int)), None)
    found = _measures(rows, TRAINING_KEYS)
    if width and "dead_features" in found:
        found["dead_fraction"] = found["dead_features"] / width
    evaluated, tokens = _measures(rows, EVALUATION_KEYS), _tokens(rows)
    if tokens is None or (found.empty and evaluated.empty):
        keys = ", ".join(sorted(name for name in seen if not name.startswith("_"))[:12])
        raise PlaypenError(
            f"{origin} holds no history of a SAE: expected {TOKENS[0]} or {TOKENS[1]} and keys such as loss or losses/overall_loss, "
            f"found {keys}; only runs of train-sae and of SAELens can be drawn"
        )
    return RunHistory(
        label=label,
        origin=origin,
        training=_curves(tokens, found.drop(columns="dead_features", errors="ignore")),
        evaluation=_curves(tokens, evaluated),
        density=_density(rows, width),
        settings=settings,
    )


def _measures(rows: pd.DataFrame, keys: dict[str, tuple[str, ...]]) -> pd.DataFrame:
    """Return one column a measure: of its keys the first that the run has."""
    chosen = {name: next((key for key in known if key in rows), None) for name, known in keys.items()}
    found = {name: pd.to_numeric(rows[key], errors="coerce") for name, key in chosen.items() if key is not None}
    return pd.DataFrame(found, index=rows.index)


def _tokens(rows: pd.DataFrame) -> pd.Series | None:
    """Return the training tokens at each row; where a row does not tell, they follow from the steps around it."""
    told = pd.to_numeric(rows[key], errors="coerce") if (key := next((key for key in TOKENS if key in rows), None)) else None
    if told is None or told.isna().all():
        return None
    there = told.notna()
    return pd.Series(np.interp(rows["_step"], rows.loc[there, "_step"], told[there]), name="tokens")


def _curves(tokens: pd.Series, measures: pd.DataFrame) -> pd.DataFrame:
    """Return the measures by tokens, without the rows that hold none."""
    there = measures.notna().any(axis=1)
    return pd.concat([tokens, measures], axis=1)[there].sort_values("tokens", kind="stable", ignore_index=True)


def _density(rows: pd.DataFrame, width: int | None) -> Density | None:
    """Return the last histogram of log10 densities that was logged."""
    key = next((key for key in DENSITY_KEYS if f"{key}/bins" in rows), None)
    if key is None:
        return None
    last = rows.dropna(subset=[f"{key}/bins"]).iloc[-1]
    edges, counts = np.array(last[f"{key}/bins"], float), np.array(last[f"{key}/values"], float)
    features = width or int(counts.sum())
    if edges[0] <= np.log10(FLOOR) + 1e-3:
        edges, counts = edges[1:], counts[1:]
    return Density(edges, counts, features)
