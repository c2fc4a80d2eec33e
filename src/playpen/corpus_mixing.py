"""Mixing: documents of several sides, each at its share, cut into blocks whose every token knows its document.

A side that has run out starts again. What a mixer will yield depends on its sides, the shares and the seed alone; its state is a
few numbers, so that a killed run goes on exactly.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from random import Random
from typing import Any, Literal

import numpy as np

from playpen.config import PlaypenError
from playpen.texts import Document

BATCH = 256
"""Documents tokenised at once."""
BLOCKS = 2048
"""Blocks in a shard."""


class Side:
    """Documents of one sort, tokenised, without end."""

    def __init__(self, name: str, side: str, documents: Callable[[int], Iterator[Document]], encode: Any) -> None:
        self.name, self.side, self.documents, self.encode = name, side, documents, encode
        self.epoch = self.position = self.tokens = self.count = 0
        self._stream: Iterator[tuple[Document, np.ndarray]] | None = None

    def next(self) -> tuple[Document, np.ndarray]:
        """Return the next document that has tokens."""
        while True:
            self._stream = self._stream or self._encoded()
            found = next(self._stream, None)
            if found is None:
                self._start_again()
                continue
            self.position += 1
            if len(found[1]):
                self.count += 1
                self.tokens += len(found[1])
                return found

    def _start_again(self) -> None:
        if self.count == 0:
            raise PlaypenError(f"{self.name} holds no document with a token in it")
        self.epoch, self.position, self._stream = self.epoch + 1, 0, None

    def _encoded(self) -> Iterator[tuple[Document, np.ndarray]]:
        stream = islice(self.documents(self.epoch), self.position, None)
        while batch := list(islice(stream, BATCH)):
            yield from zip(batch, self.encode(batch), strict=True)

    def state(self) -> dict[str, int]:
        """Return where it is."""
        return {name: getattr(self, name) for name in ("epoch", "position", "tokens", "count")}

    def load(self, state: dict[str, int]) -> None:
        """Go on from where it was."""
        vars(self).update(state)
        self._stream = None


@dataclass
class Blocks:
    """A shard under way: blocks, and the documents that begin in it."""

    input_ids: list[np.ndarray] = field(default_factory=list)
    starts: list[list[int]] = field(default_factory=list)
    documents: list[list[int]] = field(default_factory=list)
    begun: list[dict[str, Any]] = field(default_factory=list)


class Mixer:
    """Draws documents from sides at their shares and cuts them into blocks."""

    def __init__(
        self, sides: list[Side], shares: list[float], by: Literal["documents", "tokens"], context: int, bos: int | None, seed: int
    ) -> None:
        self.sides, self.shares, self.by, self.context, self.bos = sides, shares, by, context, bos
        self.draw = Random(seed)
        self.number = 0
        """Number of the next document."""
        self.rest: tuple[int, list[int]] | None = None
        """What is left of the last document: its number and its tokens."""

    def block(self, shard: Blocks) -> None:
        """Add one block to a shard.

        A document that does not fit is cut; its next piece opens the next block. Every piece starts with the BOS, where there is one.
        """
        ids: list[int] = []
        starts: list[int] = []
        numbers: list[int] = []
        lead = [] if self.bos is None else [self.bos]
        while len(ids) < self.context:
            number, tokens = self.rest or self._next(shard)
            room = self.context - len(ids) - len(lead)
            starts.append(len(ids))
            numbers.append(number)
            ids += lead + tokens[: max(0, room)]
            left = tokens[max(0, room) :]
            self.rest = (number, left) if left else None
        shard.input_ids.append(np.array(ids, dtype=np.int32))
        shard.starts.append(starts)
        shard.documents.append(numbers)

    def _next(self, shard: Blocks) -> tuple[int, list[int]]:
        side = self.sides[self._which()]
        epoch = side.epoch
        document, tokens = side.next()
        row = {"document": self.number, "source": document.source, "category": document.category, "side": side.side}
        shard.begun.append({**row, "text": document, "copy": max(epoch, side.epoch), "num_tokens": len(tokens)})
        self.number += 1
        return self.number - 1, tokens.tolist()

    def _which(self) -> int:
        """Return the side whose turn it is: drawn by the shares, or the one that lags most behind its share of the tokens."""
        if self.by == "documents":
            return self.draw.choices(range(len(self.sides)), self.shares)[0]
        total = sum(side.tokens for side in self.sides)
        return max(
            range(len(self.sides)), key=lambda i: self.shares[i] * total - self.sides[i].tokens + (total == 0) * self.shares[i]
        )

    def state(self) -> dict[str, Any]:
        """Return everything that the following blocks depend on, as plain data."""
        kind, words, gauss = self.draw.getstate()
        return {
            "draw": [kind, list(words), gauss],
            "number": self.number,
            "rest": list(self.rest) if self.rest else None,
            "sides": [side.state() for side in self.sides],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from where a mixer was."""
        kind, words, gauss = state["draw"]
        self.draw.setstate((kind, tuple(words), gauss))
        self.number = state["number"]
        self.rest = (state["rest"][0], state["rest"][1]) if state["rest"] else None
        for side, found in zip(self.sides, state["sides"], strict=True):
            side.load(found)
