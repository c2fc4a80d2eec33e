"""Who goes into which split: near-duplicates together, nothing that resembles a target, sizes exactly as asked."""

from collections import defaultdict

import numpy as np

from playpen.examples import Examples
from playpen.near_duplicates import NUM_HASHES, clusters, join_families, name_clusters


def group(threshold: float | None, targets: Examples, pool: Examples) -> list[int]:
    """Name the near-duplicate cluster of every row, in place; return the places of the pool that resemble no target."""
    count = len(targets.encoded)
    near = clusters(np.array([*targets.signatures, *pool.signatures]).reshape(-1, NUM_HASHES), threshold)
    names = [each.name(place) for each in (targets, pool) for place in range(len(each.encoded))]
    families = [each.family(place) for each in (targets, pool) for place in range(len(each.encoded))]
    groups = name_clusters(join_families(near, families), names)
    targets.groups, pool.groups = groups[:count], groups[count:]
    aimed, exact = set(near[:count].tolist()), set(names[:count])
    return [i for i, cluster in enumerate(near[count:].tolist()) if cluster not in aimed and names[count + i] not in exact]


def assign(groups: list[str], sizes: dict[str, int]) -> tuple[dict[str, list[int]], list[int]]:
    """Fill the splits, one after the other, with rows in their order, so that no group lies in two.

    Args:
        groups: the group of each row.
        sizes: rows of each split; -1, which must come last, takes the rest.

    Returns:
        The rows of each split, and those that fit nowhere because the rest of their group filled its split.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(groups):
        members[name].append(row)
    filled: dict[str, list[int]] = {name: [] for name in sizes}
    parted: list[int] = []
    for rows in members.values():
        split = next((name for name, size in sizes.items() if size == -1 or len(filled[name]) < size), None)
        if split is None:
            break
        room = len(rows) if sizes[split] == -1 else sizes[split] - len(filled[split])
        filled[split] += rows[:room]
        parted += rows[room:]
    return {name: sorted(rows) for name, rows in filled.items()}, parted
