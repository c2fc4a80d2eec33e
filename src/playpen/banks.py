"""A bank of retrainings: which rows each training saw, and what the target rows cost it afterwards.

One bank serves all scorers, for no score enters it (but those whose top rows it was asked to leave out). Three tables:
`subsets` (subset, row_id: the rows trained on), `designs` (subset, kind, scores, share, rows) and `losses` (subset, seed,
row_id of the target, loss in nats a label).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa

from playpen.config import PlaypenError
from playpen.tables import read_metrics, read_table, write_table

Kind = Literal["drawn", "all", "top", "random"]
Form = Literal["keep_half", "leave_out", "drop"]


@dataclass(frozen=True, eq=False)
class Design:
    """Which rows one subset keeps, and why."""

    kind: Kind
    """`drawn` at random, for LDS; `all` rows; without the `top` rows of some scores; without as many `random` rows."""
    scores: str
    """Whose top rows are left out; empty for the other kinds."""
    share: float
    """Share of the rows that is left out, 0 to 1, before rounding to whole rows."""
    kept: np.ndarray
    """bool [rows]."""


@dataclass(frozen=True, eq=False)
class Bank:
    """A bank as arrays."""

    path: Path
    form: Form
    row_ids: np.ndarray
    """Every row that some subset keeps, in ascending order [n]."""
    designs: tuple[Design, ...]
    """One a subset; `kept` is in the order of `row_ids`."""
    targets: np.ndarray
    """row_id of each target [T]."""
    losses: np.ndarray
    """float64 [subsets, seeds, T], nats a label."""

    def places(self, *kinds: Kind) -> np.ndarray:
        """Return the numbers of the subsets of these kinds."""
        return np.array([i for i, design in enumerate(self.designs) if design.kind in kinds], np.int64)


def top_rows(row_ids: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    """Return which rows are the `count` highest, bool [n]; ties go to the lower row_id."""
    found = np.zeros(len(scores), bool)
    found[np.lexsort((row_ids, -scores))[:count]] = True
    return found


def write_bank(
    out: Path, row_ids: np.ndarray, designs: Sequence[Design], seeds: Sequence[int], targets: np.ndarray, losses: np.ndarray
) -> None:
    """Write the three tables; `losses` is [subsets, seeds, targets]."""
    numbers = np.arange(len(designs), dtype=np.int32)
    sizes = np.array([design.kept.sum() for design in designs])
    subsets = {"subset": np.repeat(numbers, sizes), "row_id": np.concatenate([row_ids[design.kept] for design in designs])}
    told = {name: [getattr(design, name) for design in designs] for name in ("kind", "scores", "share")}
    measured = {
        "subset": np.repeat(numbers, len(seeds) * len(targets)),
        "seed": np.tile(np.repeat(np.array(seeds, np.int32), len(targets)), len(designs)),
        "row_id": np.tile(targets, len(designs) * len(seeds)),
        "loss": losses.ravel().astype(np.float32),
    }
    write_table(out / "subsets.parquet", pa.table(subsets))
    write_table(out / "designs.parquet", pa.table({"subset": numbers, **told, "rows": sizes.astype(np.int32)}))
    write_table(out / "losses.parquet", pa.table(measured))


def read_bank(path: str) -> Bank:
    """Open a bank; raises when its tables do not fit together."""
    form: Any = read_metrics(path).get("form")
    if form not in get_args(Form):
        raise PlaypenError(f"{path} is no bank of retrainings: expected an artifact of retrain")
    subsets, designs, losses = (read_table(path, name) for name in ("subsets", "designs", "losses"))
    row_ids, place = np.unique(subsets["row_id"].to_numpy(str), return_inverse=True)
    kept = np.zeros((len(designs), len(row_ids)), bool)
    kept[subsets["subset"].to_numpy(), place] = True
    table: Any = designs.itertuples(index=False)
    made = tuple(Design(row.kind, row.scores, row.share, kept[row.subset]) for row in table)
    targets, cube = _cube(losses, len(designs), path)
    return Bank(Path(path), form, row_ids, made, targets, cube)


def _cube(losses: pd.DataFrame, subsets: int, path: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the targets, in the order in which they were written, and the losses [subsets, seeds, targets]."""
    target, targets = pd.factorize(losses["row_id"].to_numpy(str))
    seeds, seed = np.unique(losses["seed"], return_inverse=True)
    cube = np.full((subsets, len(seeds), len(targets)), np.nan)
    cube[losses["subset"].to_numpy(), seed, target] = losses["loss"]
    if len(losses) != cube.size or not np.isfinite(cube).all():
        raise PlaypenError(
            f"{path}: losses has {len(losses)} rows, {int(np.isfinite(cube).sum())} of them usable, but {cube.size} are needed, "
            "one for each subset, seed and target; delete the artifact and run again"
        )
    return np.asarray(targets), cube
