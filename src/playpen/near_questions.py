"""Near-duplicate questions: rows whose unit vectors have a cosine above a limit with that of an earlier row that was kept.

Exact and defined by the order: the first of a pair stays, and a row is compared with kept rows alone. Products are made block by
block in float32; what comes near the limit is decided in float64, so that no block size can change the result.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from playpen.progress import tqdm

BLOCK = 512
KEPT = 1 << 16
"""Kept rows compared at once: with BLOCK rows, 128 MB of cosines."""
SLACK = 1e-4
"""More than float32 can be wrong in the product of two unit vectors."""

Near = tuple[int, float]


def near_duplicates(vectors: np.ndarray, groups: Sequence[Hashable], max_cosine: float) -> dict[int, Near]:
    """Return, for each row to refuse, the number of the nearest kept row of its group and their cosine.

    Args:
        vectors: float32 [rows, width], of length 1.
        groups: what each row belongs to; rows of two groups are never compared.
        max_cosine: the greatest cosine that two kept rows of a group may have, in (0, 1].
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)
    found: dict[int, Near] = {}
    with tqdm(total=len(groups), desc="near-duplicates", unit="row", disable=None, mininterval=1) as progress:
        for rows in members.values():
            _refuse(vectors, np.array(rows), max_cosine, found, progress)
    return found


def _refuse(vectors: np.ndarray, rows: np.ndarray, max_cosine: float, found: dict[int, Near], progress: tqdm) -> None:
    """Add to `found` the rows of one group that an earlier one rules out."""
    kept = np.empty(len(rows), np.int64)
    size = 0
    for start in range(0, len(rows), BLOCK):
        block, before = rows[start : start + BLOCK], size
        earlier = _candidates(vectors, block, kept[:before], max_cosine - SLACK)
        inside = vectors[block] @ vectors[block].T > max_cosine - SLACK
        place = {int(row): i for i, row in enumerate(block)}
        for i, row in enumerate(block.tolist()):
            mine = [other for other in kept[before:size].tolist() if inside[i, place[other]]]
            near = _nearest(vectors, row, earlier.get(i, []) + mine)
            if near is not None and near[1] > max_cosine:
                found[row] = near
            else:
                kept[size], size = row, size + 1
        progress.update(len(block))


def _candidates(vectors: np.ndarray, block: np.ndarray, kept: np.ndarray, limit: float) -> dict[int, list[int]]:
    """Return, by place in the block, the kept rows whose cosine in float32 is above the limit."""
    found: dict[int, list[int]] = defaultdict(list)
    for start in range(0, len(kept), KEPT):
        part = kept[start : start + KEPT]
        for i, j in np.argwhere(vectors[block] @ vectors[part].T > limit).tolist():
            found[i].append(int(part[j]))
    return found


def _nearest(vectors: np.ndarray, row: int, others: list[int]) -> Near | None:
    """Return the first of the rows of greatest cosine with `row`, and that cosine, in float64 and at most 1."""
    if not others:
        return None
    cosines = np.minimum(vectors[others].astype(np.float64) @ vectors[row].astype(np.float64), 1.0)
    best = int(cosines.argmax())
    return others[best], float(cosines[best])
