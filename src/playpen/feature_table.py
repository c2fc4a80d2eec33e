"""Fingerprints as arrays: the K strongest features of n rows, padded to one rectangle."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from playpen.config import PlaypenError
from playpen.tables import iter_table

COLUMNS = ["row_id", "ids", "mean", "stats"]
"""The columns of a features table that classifiers read."""


@dataclass(frozen=True)
class Features:
    """What a classifier sees of n rows."""

    ids: np.ndarray
    """int64 [n, K]: features, strongest first; `num_features` pads a row that has fewer."""
    strength: np.ndarray
    """float32 [n, K]: mean strength over the pooled tokens, in the SAE's own unit; 0 where padded."""
    stats: np.ndarray
    """float32 [n, s]: dense columns; the ten global statistics of a fingerprint."""
    num_features: int
    """Size of the id space."""

    def __len__(self) -> int:
        return len(self.stats)

    def rows(self, index: np.ndarray) -> "Features":
        """Return some rows, in the order of `index`."""
        return replace(self, ids=self.ids[index], strength=self.strength[index], stats=self.stats[index])

    def strongest(self, k: int) -> "Features":
        """Keep the k strongest features of each row."""
        return replace(self, ids=self.ids[:, :k], strength=self.strength[:, :k])

    def without_columns(self) -> "Features":
        """Leave the dense columns out."""
        return replace(self, stats=self.stats[:, :0])

    def with_columns(self, columns: np.ndarray) -> "Features":
        """Put other dense columns `[n, s]` in place of the statistics."""
        return replace(self, stats=columns.astype(np.float32))


def dense(columns: np.ndarray) -> Features:
    """Return rows that have dense columns `[n, s]` and no features: what a control sees."""
    none = np.zeros((len(columns), 0))
    return Features(none.astype(np.int64), none.astype(np.float32), columns.astype(np.float32), 0)


def side_by_side(parts: Sequence[Features]) -> Features:
    """Return several fingerprints of the same rows as one, ids offset by the spaces before, strongest first.

    Strengths are in units of each part's own median, for the activations of layers, and so their SAEs, differ in scale.
    """
    total = sum(part.num_features for part in parts)
    offsets = np.cumsum([0, *(part.num_features for part in parts)])
    ids, strengths = [], []
    for part, offset in zip(parts, offsets, strict=False):
        there = part.ids < part.num_features
        ids.append(np.where(there, part.ids + offset, total))
        strengths.append(part.strength / (np.median(part.strength[there]) if there.any() else 1.0))
    strength = np.concatenate(strengths, axis=1).astype(np.float32)
    order = np.argsort(-strength, axis=1, kind="stable")
    found, strength = (np.take_along_axis(values, order, 1) for values in (np.concatenate(ids, axis=1), strength))
    return Features(found, strength, np.concatenate([part.stats for part in parts], axis=1), total)


def from_table(table: pa.Table, num_features: int, width: int) -> Features:
    """Turn a features table into arrays of `width` features a row. Raises on non-finite strengths and on ids past the space."""
    ids, strength = _padded(table["ids"], width, num_features), _padded(table["mean"], width, 0.0)
    stats = np.stack(table["stats"].combine_chunks().to_numpy(zero_copy_only=False)) if len(table) else np.zeros((0, 10))
    bad = ~(np.isfinite(strength).all(1) & np.isfinite(stats).all(1))
    if bad.any():
        raise PlaypenError(
            f"features of row_id {table['row_id'][int(bad.argmax())]} are not finite: was the model run in float16?"
        )
    if ids.size and (ids.max() > num_features or ids.min() < 0):
        raise PlaypenError(
            f"the features hold id {ids.max()}, but their id space has {num_features}: fingerprint.json is another's"
        )
    return Features(ids.astype(np.int64), strength.astype(np.float32), stats.astype(np.float32), num_features)


def _padded(column: pa.ChunkedArray, width: int, fill: float) -> np.ndarray:
    """Return a list column as a rectangle [n, width]: longer lists are cut, shorter ones filled."""
    lists = column.combine_chunks()
    values, lengths = np.append(lists.flatten().to_numpy(), 0), lists.value_lengths().to_numpy()
    starts, place = np.cumsum(lengths) - lengths, np.arange(width)
    there = place < lengths[:, None]
    return np.where(there, values[np.where(there, starts[:, None] + place, len(values) - 1)], fill)


def read_features(artifact: Path, num_features: int, width: int) -> tuple[np.ndarray, Features]:
    """Read a features artifact whole: (row_ids, arrays)."""
    ids: list[str] = []
    parts: list[Features] = []
    for table in iter_table(artifact, "features", 4096, COLUMNS):
        ids += table["row_id"].to_pylist()
        parts.append(from_table(table, num_features, width))
    feature_ids, strength, stats = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "strength", "stats")
    )
    return np.array(ids), Features(feature_ids, strength, stats, num_features)
