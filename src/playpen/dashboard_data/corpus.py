"""The tokens that a dashboard is made of, numbered through, and what is known of their rows and documents."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from playpen.activations import not_bos
from playpen.config import PlaypenError
from playpen.token_rows import CONTROL, PROMPTS, TokenRows

MAX_TOKENS = 2**31 - 2
"""Tokens are numbered in 32 bits, and the one after the last needs a number too."""


@dataclass(frozen=True)
class Groups:
    """Documents sorted into sources, categories or sides; a document may be in none."""

    names: list[str]
    of_document: np.ndarray
    """int32 [documents]: number of its group; -1 is none."""
    tokens: np.ndarray
    """int64 [groups]: counted tokens of each."""
    documents: np.ndarray
    """int64 [groups]: documents of each."""


@dataclass(frozen=True)
class Corpus:
    """n tokens in r rows of m documents; it stays in memory, 9 bytes a token."""

    ids: np.ndarray
    """int32 [n]: token ids, row after row."""
    counted: np.ndarray
    """bool [n]: all but the BOS."""
    starts: np.ndarray
    """int64 [r + 1]: number of the first token of each row, and n."""
    row_of: np.ndarray
    """int32 [n]: the row of each token."""
    document_of: np.ndarray
    """int32 [r]: the document of each row."""
    documents: list[str]
    """The row_id of each document, in order of their first rows."""
    tokens_of: np.ndarray
    """int64 [m]: counted tokens of each document, in all of its rows that are here."""
    sources: Groups
    categories: Groups
    sides: Groups
    """`prompts` and `control`, in this order; no groups when the corpus has not both."""

    num_tokens: int
    """Counted tokens."""

    def document_of_token(self, token: np.ndarray) -> np.ndarray:
        """Return the document of each token."""
        return self.document_of[self.row_of[token]]

    def positions(self, token: np.ndarray) -> np.ndarray:
        """Return the place of each token in its row, from 0."""
        return token - self.starts[self.row_of[token]]

    def prompts(self) -> tuple[np.ndarray, int]:
        """Return the documents (mask [m]) among which a category is told, and their tokens: the prompts, or all without sides."""
        if self.sides.names:
            return self.sides.of_document == 0, int(self.sides.tokens[0])
        return np.ones(len(self.documents), bool), self.num_tokens


def draw_rows(rows: TokenRows, bos: int | None, tokens: int | None, seed: int) -> TokenRows:
    """Return rows in a random order: whole rows until `tokens` tokens are reached, or all."""
    order = np.random.default_rng(seed).permutation(len(rows))
    if tokens is None:
        return rows.take(order)
    sizes = np.array([int(mask.sum()) for mask in not_bos(rows.ids, bos)], dtype=np.int64)
    return rows.take(order[: int(np.searchsorted(np.cumsum(sizes[order]), tokens)) + 1])


def make_corpus(rows: TokenRows, bos: int | None) -> Corpus:
    """Number the tokens of rows. Raises when no token counts, or too many are there for 32 bits."""
    lengths = np.array([len(row) for row in rows.ids], dtype=np.int64)
    if lengths.sum() > MAX_TOKENS:
        raise PlaypenError(f"the rows hold {lengths.sum()} tokens; a dashboard takes at most {MAX_TOKENS}: set tokens")
    ids = np.concatenate([*rows.ids, np.empty(0, np.int32)]).astype(np.int32)
    counted = ids != bos if bos is not None else np.ones(len(ids), bool)
    if not counted.any():
        raise PlaypenError("the data hold no token besides the BOS; give rows with text")
    row_of = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    document_of, documents = pd.factorize(rows.document)
    first = np.unique(document_of, return_index=True)[1]
    tokens = np.bincount(document_of[row_of[counted]], minlength=len(documents))

    def group(column: np.ndarray, names: list[str] | None = None) -> Groups:
        return _group(column[first].astype(str), tokens, names)

    sides = [PROMPTS, CONTROL] if {PROMPTS, CONTROL} <= set(rows.side) else []
    return Corpus(
        ids,
        counted,
        np.append(0, np.cumsum(lengths)),
        row_of,
        document_of.astype(np.int32),
        [str(name) for name in documents],
        tokens,
        group(rows.source),
        group(rows.category),
        group(rows.side, sides),
        int(counted.sum()),
    )


def _group(labels: np.ndarray, tokens: np.ndarray, names: list[str] | None) -> Groups:
    """Sort documents by their label; an empty one is no group. `tokens` are each document's."""
    known = sorted(set(labels.tolist()) - {""}) if names is None else names
    number = {name: i for i, name in enumerate(known)}
    of_document = np.array([number.get(label, -1) for label in labels.tolist()], dtype=np.int32)
    inside = of_document >= 0
    count = np.bincount(of_document[inside], minlength=len(known))
    weight = np.bincount(of_document[inside], weights=tokens[inside], minlength=len(known))
    return Groups(known, of_document, weight.astype(np.int64), count.astype(np.int64))
