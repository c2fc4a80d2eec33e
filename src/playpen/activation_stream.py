"""A stream of activations for SAE training: rows reshuffled each epoch, mixed in a buffer so that a batch holds many contexts.

The order depends on the seed and the rows alone, never on the size of the forward passes. The whole state can be saved and
loaded, so that a resumed training sees what an unbroken one would have seen.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from playpen import processes
from playpen.activations import Hook, Rows, activations_of
from playpen.machine import Machine
from playpen.progress import tqdm

PIECE_BATCHES = 8
"""Batches whose activations are made at once: the more, the more alike are the lengths of the rows in one forward pass."""


class RowStream:
    """Gives the activations of rows without end, each epoch in another order; those of several hooks stand side by side."""

    def __init__(self, model: Any, hook: Hook | Sequence[Hook], rows: Rows, counted: Rows, machine: Machine, seed: int) -> None:
        self.model, self.hook, self.rows, self.counted, self.machine, self.seed = model, hook, rows, counted, machine, seed
        self.taken = np.zeros(len(rows), dtype=np.int64)
        """How often each row has been taken."""
        self.sizes = np.array([int(mask.sum()) for mask in counted])
        self.tokens = int(self.sizes.sum())
        """Counted tokens in one epoch."""
        self.epoch = self.position = 0
        self.rest: Tensor | None = None

    def take(self, n: int) -> Tensor:
        """Return the next n activations: float32 [n, d]."""
        have = 0 if self.rest is None else len(self.rest)
        chosen: list[int] = []
        while have < n:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.rows))
            ends = have + np.cumsum(self.sizes[order[self.position :]])
            end = self.position + min(int(np.searchsorted(ends, n)) + 1, len(ends))
            chosen += order[self.position : end].tolist()
            have = int(ends[end - self.position - 1])
            self.epoch, self.position = (self.epoch, end) if end < len(order) else (self.epoch + 1, 0)
        parts = [] if self.rest is None else [self.rest]
        if chosen:
            np.add.at(self.taken, chosen, 1)
            parts.append(self._activations(chosen))
        found = torch.cat(parts)
        self.rest = found[n:].clone()
        return found[:n]

    def _activations(self, chosen: list[int]) -> Tensor:
        """Return the activations of rows, in their order: every process makes those of its share, and gets them all."""
        count = processes.count() if len(chosen) >= processes.count() else 1  # too few to share are made by each
        mine = chosen[processes.rank() :: count] if count > 1 else chosen
        picked = [self.rows[i] for i in mine], [self.counted[i] for i in mine]
        found = activations_of(self.model, self.hook, *picked, self.machine)
        if count == 1:
            return found
        parts = processes.joined_rows(found, [int(self.sizes[chosen[r::count]].sum()) for r in range(count)])
        cut = [part.split(self.sizes[chosen[r::count]].tolist()) for r, part in enumerate(parts)]
        return torch.cat([cut[i % count][i // count] for i in range(len(chosen))])

    def state(self) -> dict[str, Any]:
        """Return where the stream is."""
        return {"epoch": self.epoch, "position": self.position, "rest": self.rest, "taken": torch.from_numpy(self.taken)}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from where a stream was."""
        self.epoch, self.position, self.rest = state["epoch"], state["position"], state["rest"]
        self.taken = state["taken"].cpu().numpy()


class Mixer:
    """Draws batches at random from one preallocated buffer of activations.

    When the rows have no more tokens than the buffer, it holds them all and the model runs once. Otherwise, whenever half
    of the buffer has been drawn, new activations take the places of the drawn ones, until the buffer holds all that is still
    to be drawn: no activation is made in vain. `tokens` are drawn in all, whole batches of them.
    """

    def __init__(self, stream: RowStream, capacity: int, batch: int, seed: int, tokens: int) -> None:
        self.stream, self.batch, self.piece, self.left = stream, batch, PIECE_BATCHES * batch, tokens
        self.whole = stream.tokens <= capacity
        self.size = stream.tokens if self.whole else max(min(capacity, tokens - tokens % batch), 2 * batch)
        self.draw = torch.Generator().manual_seed(seed)
        self.buffer = torch.empty(0)
        self.order = torch.empty(0, dtype=torch.int64)
        self.at = 0

    def fill(self) -> None:
        """Fill the buffer, a piece at a time so that there is never a second copy of it."""
        with tqdm(total=self.size, desc="filling the buffer", unit="token", disable=None, mininterval=1) as progress:
            for start in range(0, self.size, self.piece):
                found = self.stream.take(min(self.piece, self.size - start))
                if start == 0:
                    self.buffer = found.new_empty((self.size, found.shape[1]))
                self.buffer[start : start + len(found)] = found
                progress.update(len(found))
        self._shuffle()

    def _shuffle(self) -> None:
        served = self.size if self.whole or self.left <= self.size else self.size // 2
        self.order = torch.randperm(self.size, generator=self.draw)[: served - served % self.batch]
        self.at = 0

    def __iter__(self) -> "Mixer":
        return self

    def __next__(self) -> Tensor:
        """Return one batch [batch, d]."""
        if self.left < self.batch:
            raise StopIteration
        if self.at == len(self.order):
            if not self.whole:
                for places in self.order.to(self.buffer.device).split(self.piece):
                    self.buffer[places] = self.stream.take(len(places))
            self._shuffle()
        places = self.order[self.at : self.at + self.batch].to(self.buffer.device)
        self.at += self.batch
        self.left -= self.batch
        return self.buffer[places]

    def sample(self, tokens: int) -> Tensor:
        """Return up to `tokens` activations of the buffer, evenly spread over it, without drawing them."""
        return self.buffer[:: -(-len(self.buffer) // tokens)]

    def state(self) -> dict[str, Any]:
        """Return everything the following batches depend on."""
        mine = {"buffer": self.buffer, "order": self.order, "at": self.at, "left": self.left, "draw": self.draw.get_state()}
        return {**mine, "stream": self.stream.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from where a mixer was."""
        self.buffer, self.order, self.at, self.left = state["buffer"], state["order"].cpu(), state["at"], state["left"]
        self.draw.set_state(state["draw"].cpu())
        self.stream.load(state["stream"])
