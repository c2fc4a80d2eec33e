"""Near-duplicates: texts that share most of their five-word runs, found by MinHash and locality-sensitive hashing.

The share of equal entries in two texts' signatures estimates the Jaccard similarity of their sets of five-word
shingles, with a standard error of at most 1 / (2 sqrt(128)) = 0.044. Rows whose signatures agree on a whole band are compared, so
that no pair of rows is ever tried in vain on a large table.

Source: Broder, "On the resemblance and containment of documents" (1997); Leskovec, Rajaraman and Ullman, "Mining of
Massive Datasets", sections 3.3 and 3.4, for the banding.
"""

import re
from collections.abc import Iterator, Sequence
from zlib import crc32

import numpy as np

NUM_HASHES = 128
SHINGLE = 5
"""Words in a shingle."""
CAUGHT = 0.99
"""Share of the pairs exactly at the threshold that the banding must bring together."""

_DRAW = np.random.default_rng(0x5EED)
_WORD_FACTORS = _DRAW.integers(0, 2**64, SHINGLE, dtype=np.uint64) | np.uint64(1)
_FACTORS = _DRAW.integers(0, 2**64, NUM_HASHES, dtype=np.uint64) | np.uint64(1)
_SHIFTS = _DRAW.integers(0, 2**64, NUM_HASHES, dtype=np.uint64)
_WORD = re.compile(r"\w+")


def shingles(text: str) -> np.ndarray:
    """Return the distinct 64-bit hashes of the runs of five words; a shorter text is one run. Case and marks do not count."""
    words = _WORD.findall(text.lower()) or [text]
    words += [""] * (SHINGLE - len(words))
    codes = np.fromiter((crc32(word.encode("utf-8", "surrogatepass")) for word in words), np.uint64, len(words))
    runs = len(words) - SHINGLE + 1
    return np.unique(_mix(sum(codes[i : i + runs] * _WORD_FACTORS[i] for i in range(SHINGLE))))  # type: ignore[arg-type]


def _mix(x: np.ndarray) -> np.ndarray:
    """Spread every bit over all 64 (the finaliser of splitmix64), for multiply-shift hashing wants no structure."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def signature(text: str) -> np.ndarray:
    """Return the MinHash signature of a text: 128 numbers of 32 bits."""
    found = np.full(NUM_HASHES, np.iinfo(np.uint64).max, dtype=np.uint64)
    hashes = shingles(text)
    for start in range(0, len(hashes), 1024):  # a piece fits into the processor's cache
        piece = hashes[start : start + 1024, None] * _FACTORS + _SHIFTS
        np.minimum(found, piece.min(axis=0), out=found)
    return (found >> np.uint64(32)).astype(np.uint32)


def similarity(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the estimated Jaccard similarity of one signature with each row of others."""
    return (one == others).mean(axis=-1)


def rows_per_band(threshold: float) -> int:
    """Return how many entries must agree for two rows to be compared: as many as still catch 99% of pairs at the threshold."""
    fitting = [r for r in range(1, NUM_HASHES + 1) if 1 - (1 - threshold**r) ** (NUM_HASHES // r) >= CAUGHT]
    return max(fitting, default=1)


def pairs(signatures: np.ndarray, threshold: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (rows, rows): index pairs whose estimated similarity is at least the threshold; a pair may come more than once.

    Rows with equal signatures are chained to the first of them, so many copies cost no more than one.
    """
    distinct, first, which = np.unique(signatures, axis=0, return_index=True, return_inverse=True)
    yield np.arange(len(signatures)), first[which.reshape(-1)]
    width = rows_per_band(threshold)
    for start in range(0, NUM_HASHES - width + 1, width):
        for members in _buckets(distinct[:, start : start + width]):
            for i, member in enumerate(members[:-1]):
                others = members[i + 1 :]
                near = others[similarity(distinct[member], distinct[others]) >= threshold]
                if len(near):
                    yield first[np.full(len(near), member)], first[near]


def _buckets(band: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the indices of the rows of `band` that are equal, for every value that two rows or more share."""
    keys = np.ascontiguousarray(band).view(np.dtype((np.void, band.dtype.itemsize * band.shape[1]))).reshape(-1)
    order = np.argsort(keys, kind="stable")
    borders = np.flatnonzero(keys[order][1:] != keys[order][:-1]) + 1
    yield from (bucket for bucket in np.split(order, borders) if len(bucket) > 1)


def clusters(signatures: np.ndarray, threshold: float | None) -> np.ndarray:
    """Return the cluster number of each row: rows joined by a chain of near-duplicates.

    Args:
        signatures: (rows, 128).
        threshold: smallest similarity of near-duplicates, above 0 and at most 1; None leaves every row alone.
    """
    size = len(signatures)
    if threshold is None or size == 0:
        return np.arange(size)
    return _connect(size, list(pairs(signatures, threshold)))


class Lookalikes:
    """A few texts, by their signatures, that each of any number of others is held against."""

    def __init__(self, signatures: Sequence[np.ndarray], threshold: float | None) -> None:
        """Keep the signatures in buckets of equal bands; a threshold of None lets nothing resemble them."""
        self.signatures, self.threshold = np.array(signatures).reshape(-1, NUM_HASHES), threshold
        width = NUM_HASHES if threshold is None else rows_per_band(threshold)
        self.bands = [slice(start, start + width) for start in range(0, NUM_HASHES - width + 1, width)]
        self.buckets: dict[tuple[int, bytes], list[int]] = {}
        for place, each in enumerate(self.signatures):
            for key in self._keys(each):
                self.buckets.setdefault(key, []).append(place)

    def _keys(self, signature: np.ndarray) -> list[tuple[int, bytes]]:
        return [(band.start, signature[band].tobytes()) for band in self.bands]

    def resemble(self, signature: np.ndarray) -> bool:
        """Say whether one of the texts has a similarity of at least the threshold with that of a signature."""
        if self.threshold is None:
            return False
        near = {place for key in self._keys(signature) for place in self.buckets.get(key, ())}
        return bool(near) and bool((similarity(signature, self.signatures[sorted(near)]) >= self.threshold).any())


def join_families(cluster_of: np.ndarray, families: list[str]) -> np.ndarray:
    """Return cluster numbers where rows of one family, "" being none, lie together as well."""
    heads: dict[int | str, int] = {}
    edges = [(i, heads.setdefault(key, i)) for i, key in enumerate(cluster_of.tolist())]
    edges += [(i, heads.setdefault(name, i)) for i, name in enumerate(families) if name]
    return _connect(len(families), [np.array(edges, np.int64).reshape(-1, 2).T])


def name_clusters(cluster_of: np.ndarray, names: list[str]) -> list[str]:
    """Return for each row the smallest name in its cluster."""
    smallest: dict[int, str] = {}
    for cluster, name in zip(cluster_of.tolist(), names, strict=True):
        smallest[cluster] = min(name, smallest.get(cluster, name))
    return [smallest[cluster] for cluster in cluster_of.tolist()]


def _connect(size: int, edges: Sequence[Sequence[np.ndarray] | np.ndarray]) -> np.ndarray:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    left, right = (np.concatenate([edge[side] for edge in edges]) for side in (0, 1))
    graph = coo_matrix((np.ones(len(left), np.int8), (left, right)), shape=(size, size))
    return connected_components(graph, directed=False)[1]
