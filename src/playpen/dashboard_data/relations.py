"""Relations between features: nearest decoder directions, and exact correlations of strengths over the whole dictionary.

Pearson's correlation over all n counted tokens, zeros included, is (S_ij / n - m_i m_j) / (s_i s_j), with S the sum of products
over tokens: A'A of the sparse entries A [n, D], summed chunk by chunk. `TABLE_BYTES` bounds the rows of S that are held at once;
for more, the chunks are read again.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from playpen.dashboard_data.entries import Chunk

TABLE_BYTES = 2**27
"""Bytes of the table of products held at once: 8,192 rows of 2,048 features, 1,024 rows of 16,384."""
ROWS = 64
"""Rows of that table whose correlations are ranked at once."""


@dataclass(frozen=True)
class Partners:
    """The partners of f features, best first; where there are fewer than k, -1."""

    id: np.ndarray
    """int64 [f, k]"""
    value: np.ndarray
    """float32 [f, k]: cosine or Pearson's correlation."""
    cosine: np.ndarray
    """float32 [f, k]: cosine of the directions, or of the strengths over all tokens."""

    def pairs(self, place: int) -> list[list[float]]:
        """Return `[[id, value]]` of the feature at a place."""
        there = self.id[place] >= 0
        values = np.round(self.value[place][there].astype(np.float64), 4).tolist()
        return [[i, v] for i, v in zip(self.id[place][there].tolist(), values, strict=True)]


def neighbours(directions: Tensor, features: np.ndarray, k: int) -> Partners:
    """Return the features whose decoder directions [D, d] have the highest cosine with each of some features'."""
    unit = torch.nn.functional.normalize(directions.float(), dim=1)
    parts = []
    for some in _pieces(features, 4 * len(unit)):
        cosine = (unit[torch.from_numpy(some)] @ unit.T).cpu().numpy()
        parts.append(_best(cosine, cosine, some, k))
    return _joined(parts)


@dataclass(frozen=True)
class _Sums:
    """Sums of the strengths x of every feature over all tokens: float64 [D] each."""

    mean: np.ndarray
    deviation: np.ndarray
    square: np.ndarray
    """Sum of x squared."""


def correlated(found: list[Chunk], features: np.ndarray, tokens: int, k: int) -> Partners:
    """Return the features whose strengths correlate highest, above 0, with each of some features' over `tokens` tokens."""
    from playpen.progress import tqdm

    sums, parts, pieces = _sum(found, tokens), [], _pieces(features, 8 * found[0].d_sae)
    with tqdm(total=len(pieces) * len(found), desc="features: relate", unit="chunk", disable=None, mininterval=1) as bar:
        for some in pieces:
            products = np.zeros((len(some), found[0].d_sae))
            for chunk in found:
                _add_products(products, chunk, some)
                bar.update()
            for start in range(0, len(some), ROWS):
                few = slice(start, start + ROWS)
                parts.append(_rank_products(products[few], some[few], sums, tokens, k))
    return _joined(parts)


def _rank_products(products: np.ndarray, features: np.ndarray, sums: _Sums, tokens: int, k: int) -> Partners:
    with np.errstate(divide="ignore", invalid="ignore"):
        pearson = products / tokens - np.outer(sums.mean[features], sums.mean)
        pearson /= np.outer(sums.deviation[features], sums.deviation)
        cosine = products / np.sqrt(np.outer(sums.square[features], sums.square))
    return _best(np.where(pearson > 0, pearson, -np.inf), cosine, features, k)


def _pieces(features: np.ndarray, row_bytes: int) -> list[np.ndarray]:
    """Cut features so that a table with a row for each in a piece is held at once."""
    return np.split(features, range(0, len(features), max(1, TABLE_BYTES // row_bytes))[1:])


def _sum(found: list[Chunk], tokens: int) -> _Sums:
    total, square = np.zeros(found[0].d_sae), np.zeros(found[0].d_sae)
    for chunk in found:
        _, strength, offsets = chunk.read(0, chunk.d_sae)
        feature, strength = np.repeat(np.arange(chunk.d_sae), np.diff(offsets)), strength.astype(np.float64)
        total += np.bincount(feature, weights=strength, minlength=chunk.d_sae)
        square += np.bincount(feature, weights=strength * strength, minlength=chunk.d_sae)
    mean = total / tokens
    return _Sums(mean, np.sqrt(np.maximum(square / tokens - mean**2, 0)), square)


def _add_products(products: np.ndarray, chunk: Chunk, features: np.ndarray) -> None:
    """Add the products of a chunk's strengths, of some features with all: [f, D] in place."""
    from scipy.sparse import csc_array

    token, strength, offsets = chunk.read(0, chunk.d_sae)
    if not len(token):
        return
    shape = (int((token - chunk.first).max()) + 1, chunk.d_sae)
    entries = csc_array((strength.astype(np.float64), token - chunk.first, offsets), shape=shape)
    some = entries if len(features) == chunk.d_sae else entries[:, features]
    found = (some.T @ entries.tocsr()).tocoo()
    products[found.row, found.col] += found.data


def _best(value: np.ndarray, cosine: np.ndarray, features: np.ndarray, k: int) -> Partners:
    """Return the k highest finite values [f, D] of each row but its own feature."""
    value = np.where(np.isfinite(value), value, -np.inf)
    value[np.arange(len(features)), features] = -np.inf
    k = min(k, value.shape[1] - 1)
    few = np.argpartition(-value, k - 1, axis=1)[:, :k] if k else np.empty((len(features), 0), np.int64)
    chosen = np.take_along_axis(value, few, 1)
    order = np.lexsort((few, -chosen), axis=1)
    few, chosen = np.take_along_axis(few, order, 1), np.take_along_axis(chosen, order, 1)
    near = np.take_along_axis(cosine, few, 1)
    return Partners(np.where(np.isfinite(chosen), few, -1), chosen.astype(np.float32), near.astype(np.float32))


def _joined(parts: list[Partners]) -> Partners:
    return Partners(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("id", "value", "cosine")))
