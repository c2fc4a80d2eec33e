"""What is known of a SAE's training: its curves by training tokens and its final numbers, wherever they were written down."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from playpen.artifact import read_manifest
from playpen.config import PlaypenError, leaves
from playpen.tables import read_metrics, read_table

TRAINING = ("loss", "l0", "explained_variance", "dead_fraction", "lr")
"""Measured on training batches."""
EVALUATION = ("explained_variance", "l0", "dead_fraction", "ce_score_zero", "ce_score_mean")
"""Measured on tokens that are set aside for it, a few times during training and at the end."""
BINS_A_DECADE = 8
NONE = pd.DataFrame({"tokens": []}, dtype=float)


@dataclass(frozen=True, eq=False)
class Density:
    """Shares of tokens on which features are active, as a histogram over log10 of the share."""

    edges: np.ndarray
    """Edges of the bins, [bins + 1], rising; 0 is every token."""
    counts: np.ndarray
    """Features in each bin, [bins]."""
    features: int
    """All features, with those that were never active and so stand in no bin."""

    @property
    def never(self) -> float:
        """Share of the features that were never active, 0 to 1."""
        return 1 - float(self.counts.sum()) / self.features

    @property
    def per_decade(self) -> np.ndarray:
        """Share of the features by decade of density, [bins]: comparable whatever the bins are; its integral is 1 - never."""
        return self.counts / self.features / np.diff(self.edges)


@dataclass(frozen=True, eq=False)
class RunHistory:
    """One run."""

    label: str
    origin: str
    """Where it was read from, in words."""
    training: pd.DataFrame
    """`tokens`, rising, and those of `TRAINING` that were noted; NaN where one was not."""
    evaluation: pd.DataFrame
    """`tokens`, rising, and those of `EVALUATION` that were measured."""
    density: Density | None = None
    final: dict[str, float] = field(default_factory=dict)
    """Measures of `EVALUATION` of the SAE as it was saved, where they were written down."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Dotted path -> value of the config."""

    def curve(self, name: str, evaluated: bool = False) -> pd.DataFrame:
        """Return `tokens` and `value` of one measure, without gaps; empty when the run has none of it."""
        table = self.evaluation if evaluated else self.training
        if name not in table:
            return pd.DataFrame({"tokens": [], "value": []}, dtype=float)
        found = pd.DataFrame({"tokens": table["tokens"], "value": table[name]}).astype(float)
        return found[np.isfinite(found["value"])].reset_index(drop=True)

    def last(self, name: str) -> tuple[float | None, bool]:
        """Return (final value, whether it was measured on tokens set aside); None when there is none at all."""
        if name in self.final:
            return self.final[name], True
        for evaluated in (True, False):
            curve = self.curve(name, evaluated)
            if len(curve):
                return float(curve["value"].iloc[-1]), evaluated
        return None, False

    @property
    def tokens(self) -> int:
        """Training tokens at the last number that was noted."""
        return int(pd.concat([self.training["tokens"], self.evaluation["tokens"]]).max())


def density_of(shares: np.ndarray) -> Density:
    """Return the histogram of shares of tokens, [features], each 0 to 1."""
    active = np.log10(shares[shares > 0])
    decades = max(1, int(np.ceil(-active.min()))) if len(active) else 1
    counts, edges = np.histogram(active, bins=decades * BINS_A_DECADE, range=(-decades, 0))
    return Density(edges, counts, len(shares))


def read_trained(artifact: str) -> list[RunHistory]:
    """Read an artifact of train-sae: the SAE, and each variant that was trained beside it."""
    where = Path(artifact)
    manifest = read_manifest(where)
    if manifest["kind"] != "train-sae":
        more = ": a SAE that was brought in has no history" if manifest["kind"] == "load-sae" else ""
        raise PlaypenError(f"{artifact} is an artifact of {manifest['kind']}, expected one of train-sae{more}")
    settings = {name: value for name, value in leaves(manifest["config"]) if name != "variants"}
    found = [_read_folder(where, manifest["name"], settings)]
    for variant in manifest["config"].get("variants") or ():
        changed = {name: value for name, value in variant.items() if name != "name" and value is not None}
        folder = where / "variants" / variant["name"]
        found.append(_read_folder(folder, f"{manifest['name']} {variant['name']}", settings | changed))
    return found


def _read_folder(folder: Path, label: str, settings: dict[str, Any]) -> RunHistory:
    metrics, there = read_metrics(folder), {file.stem for file in folder.glob("*.parquet")}
    density = read_table(folder, "density", ["density"])["density"].to_numpy(float) if "density" in there else None
    return RunHistory(
        label=label,
        origin=str(folder),
        training=_read_curves(folder, "history", TRAINING),
        evaluation=_read_curves(folder, "evaluation", EVALUATION) if "evaluation" in there else NONE,
        density=None if density is None else density_of(density),
        final={name: float(metrics[name]) for name in EVALUATION if isinstance(metrics.get(name), int | float)},
        settings=settings,
    )


def _read_curves(folder: Path, table: str, known: tuple[str, ...]) -> pd.DataFrame:
    found = read_table(folder, table)
    if "tokens" not in found:
        raise PlaypenError(f"{folder}: the table {table} has no column 'tokens'; it has {', '.join(found.columns)}")
    return found[["tokens", *(name for name in known if name in found)]].sort_values("tokens", ignore_index=True)


def settings_that_differ(runs: list[RunHistory]) -> Iterator[tuple[str, list[Any]]]:
    """Yield (dotted path, value in each run) of what all runs set and not all alike."""
    shared = [name for name in runs[0].settings if all(name in run.settings for run in runs)]
    for name in shared:
        values = [run.settings[name] for run in runs]
        if any(value != values[0] for value in values):
            yield name, values
