"""Near misses: the inactive tokens on which a feature comes closest to firing, found in one pass and constant memory."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from playpen.dashboard_data.corpus import Corpus
from playpen.tables import unfinished

MAX_CANDIDATES = 2**17
"""Candidates merged at once; a piece of tokens that has more is halved."""


class NearMisses:
    """The `keep` inactive tokens with the highest pre-activation of each feature, at most one a document, seen so far.

    Tokens that beat the weakest kept one are rare after a while, so a column of pre-activations costs one maximum. Of equal
    ones the first seen stays.
    """

    def __init__(self, features: np.ndarray, keep: int, corpus: Corpus, device: torch.device) -> None:
        self.features, self.keep, self.corpus = torch.from_numpy(features).to(device), keep, corpus
        self.value = np.full((len(features), keep), -np.inf, np.float32)
        """[f, keep]: pre-activations, highest first; -inf where there is none yet."""
        self.token = np.full((len(features), keep), -1, np.int64)
        self.bar = torch.full((len(features),), -torch.inf, device=device)

    def see(self, before: Tensor, token: np.ndarray) -> None:
        """Take in the pre-activations [n, D] of tokens, -inf where a feature is active."""
        if self.keep:
            mine = before if len(self.features) == before.shape[1] else before[:, self.features]
            self._see(mine, token)

    def _see(self, before: Tensor, token: np.ndarray) -> None:
        columns = (before.amax(0) > self.bar).nonzero()[:, 0]
        if not len(columns):
            return
        if len(columns) * len(token) > MAX_CANDIDATES and len(token) > 1:
            half = len(token) // 2
            self._see(before[:half], token[:half])
            self._see(before[half:], token[half:])
            return
        few = before[:, columns]
        row, column = (few > self.bar[columns]).nonzero(as_tuple=True)
        self._merge(columns[column].cpu().numpy(), token[row.cpu().numpy()], few[row, column].cpu().numpy())
        self.bar[columns] = torch.from_numpy(self.value[columns.cpu().numpy(), -1]).to(self.bar.device)

    def _merge(self, place: np.ndarray, token: np.ndarray, value: np.ndarray) -> None:
        """Rank candidates (place of the feature, token, pre-activation) together with what is kept of the same features."""
        touched = np.unique(place)
        old = self.token[touched] >= 0
        place = np.concatenate([np.repeat(touched, old.sum(1)), place])
        token = np.concatenate([self.token[touched][old], token])
        value = np.concatenate([self.value[touched][old], value])
        order = np.lexsort((-value, place))
        place, token, value = place[order], token[order], value[order]
        documents = place * len(self.corpus.documents) + self.corpus.document_of_token(token)
        first = np.sort(np.unique(documents, return_index=True)[1])
        place, token, value = place[first], token[first], value[first]
        rank = np.arange(len(place)) - np.searchsorted(place, place)
        few = rank < self.keep
        self.value[touched], self.token[touched] = -np.inf, -1
        self.value[place[few], rank[few]], self.token[place[few], rank[few]] = value[few], token[few]

    def save(self, path: Path) -> None:
        """Write the state whole or not at all."""
        part = unfinished(path)
        with part.open("wb") as handle:
            np.savez(handle, value=self.value, token=self.token)
        part.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a saved state."""
        with np.load(path) as found:
            self.value, self.token = found["value"], found["token"]
        if self.keep:
            self.bar.copy_(torch.from_numpy(self.value[:, -1]))
