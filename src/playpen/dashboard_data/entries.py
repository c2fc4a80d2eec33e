"""Pass one: every active entry of the corpus on disk, a chunk of rows at a time, each sorted by feature.

A chunk file is written whole or not at all, so a killed run goes on after the last. All else is computed from these files a
few features at a time, so only their own entries are in memory, 12 bytes each. Little-endian: offsets int64 [D + 1], then
tokens int32 and strengths float32, ordered by feature and then token; token numbers count from the chunk's first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from playpen.activations import Hook, iter_activations
from playpen.config import PlaypenError
from playpen.dashboard_data.corpus import Corpus
from playpen.dashboard_data.encoding import encode
from playpen.dashboard_data.near_misses import NearMisses
from playpen.machine import Machine
from playpen.saes import chunks
from playpen.tables import unfinished

CHUNK_TOKENS = 2**15
"""Tokens of a chunk, in whole rows; it bounds the memory of pass one."""


@dataclass(frozen=True)
class Chunk:
    """Rows that are encoded together, and their file."""

    path: Path
    rows: range
    first: int
    """Number of its first token."""
    d_sae: int

    def offsets(self, start: int, end: int) -> np.ndarray:
        """Return where the entries of features start to end begin: int64 [end - start + 1]."""
        return np.fromfile(self.path, np.int64, end - start + 1, offset=8 * start)

    def read(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the entries of features start to end - 1.

        That is: token int64 [n], numbered in the corpus; strength float32 [n]; where each feature's entries begin, and n.
        """
        offsets, head = self.offsets(start, end), 8 * (self.d_sae + 1)
        first, n = int(offsets[0]), int(offsets[-1] - offsets[0])
        total = (self.path.stat().st_size - head) // 8
        token = np.fromfile(self.path, np.int32, n, offset=head + 4 * first)
        strength = np.fromfile(self.path, np.float32, n, offset=head + 4 * (total + first))
        return token.astype(np.int64) + self.first, strength, offsets - first

    def near_file(self) -> Path:
        """Return the file of the near misses seen up to the end of this chunk."""
        return self.path.with_suffix(".near.npz")


def plan_chunks(corpus: Corpus, folder: Path, d_sae: int) -> list[Chunk]:
    """Cut the rows into chunks of `CHUNK_TOKENS` tokens, the last row whole."""
    found, row = [], 0
    while row < len(corpus.starts) - 1:
        first = int(corpus.starts[row])
        end = max(row + 1, int(np.searchsorted(corpus.starts, first + CHUNK_TOKENS)))
        end = min(end, len(corpus.starts) - 1)
        found.append(Chunk(folder / f"entries-{len(found):05d}.bin", range(row, end), first, d_sae))
        row = end
    return found


def encode_chunk(model: Any, hook: Hook, sae: Any, corpus: Corpus, chunk: Chunk, near: NearMisses, machine: Machine) -> None:
    """Run the model and the SAE over the rows of a chunk and write its files; `near` takes in what they hold."""
    bounds = corpus.starts[chunk.rows.start : chunk.rows.stop + 1]
    rows, counted = ([values[a:b] for a, b in pairwise(bounds)] for values in (corpus.ids, corpus.counted))
    parts = []
    for batch, values in iter_activations(model, hook, rows, counted, machine):
        row, position = (part.numpy() for part in batch.counted.nonzero(as_tuple=True))
        number, start = bounds[batch.rows[row]] + position, 0
        for piece in chunks(values, chunk.d_sae):
            tokens = number[start : start + len(piece)]
            parts.append(_encode_piece(sae, piece, tokens, near))
            start += len(piece)
    token, feature, strength = (np.concatenate(column) for column in zip(*parts, strict=True)) if parts else _nothing()
    near.save(chunk.near_file())
    _write(chunk, token - chunk.first, feature, strength, int(bounds[-1]) - chunk.first)


def _encode_piece(sae: Any, values: torch.Tensor, tokens: np.ndarray, near: NearMisses) -> tuple[np.ndarray, ...]:
    encoded = encode(sae, values)
    if encoded.before is not None:
        encoded.before[encoded.token, encoded.feature] = -torch.inf
        near.see(encoded.before, tokens)
    strength = encoded.strength.float().cpu().numpy()
    if not np.all(strength > 0):
        raise PlaypenError(
            f"the SAE ({sae.cfg.architecture()}) gives strengths that are negative or NaN; dashboards show features that are 0 or above"
        )
    return tokens[encoded.token.cpu().numpy()], encoded.feature.cpu().numpy().astype(np.int32), strength


def _nothing() -> tuple[np.ndarray, ...]:
    return np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.float32)


def _write(chunk: Chunk, token: np.ndarray, feature: np.ndarray, strength: np.ndarray, tokens: int) -> None:
    from scipy.sparse import coo_array

    place = (token.astype(np.int32), feature)
    by_feature = coo_array((strength, place), shape=(tokens, chunk.d_sae)).tocsc()
    by_feature.sort_indices()
    part = unfinished(chunk.path)
    with part.open("wb") as handle:
        for array, kind in ((by_feature.indptr, np.int64), (by_feature.indices, np.int32), (by_feature.data, np.float32)):
            array.astype(kind).tofile(handle)
    part.replace(chunk.path)


@dataclass(frozen=True)
class Entries:
    """The n tokens on which one feature is active, in order."""

    token: np.ndarray
    """int64 [n], ascending."""
    strength: np.ndarray
    """float32 [n], above 0."""

    def __len__(self) -> int:
        return len(self.token)

    def at(self, token: np.ndarray) -> np.ndarray:
        """Return the strength on each of some tokens: float32, 0 where it is off."""
        if not len(self.token):
            return np.zeros(token.shape, np.float32)
        place = np.minimum(np.searchsorted(self.token, token), len(self.token) - 1)
        return np.where(self.token[place] == token, self.strength[place], np.float32(0))


def read_features(found: list[Chunk], features: np.ndarray) -> Iterator[Entries]:
    """Yield the entries of each feature, ids ascending; those of neighbours are read together."""
    tokens: list[list[np.ndarray]] = [[] for _ in features]
    strengths: list[list[np.ndarray]] = [[] for _ in features]
    runs = np.split(np.arange(len(features)), np.flatnonzero(np.diff(features) != 1) + 1)
    for chunk in found:
        for run in runs:
            start, end = int(features[run[0]]), int(features[run[-1]]) + 1
            token, strength, cuts = chunk.read(start, end)
            for i, (a, b) in zip(run.tolist(), pairwise(cuts.tolist()), strict=True):
                tokens[i].append(token[a:b])
                strengths[i].append(strength[a:b])
    for token, strength in zip(tokens, strengths, strict=True):
        yield Entries(np.concatenate(token), np.concatenate(strength))
