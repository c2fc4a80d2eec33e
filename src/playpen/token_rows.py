"""Token rows: what a SAE is trained on and shown on, as arrays of token ids with where each row comes from.

They come from a mixed corpus, whose blocks are cut back into the pieces of documents that they hold, or from the splits of a
data artifact, a row a chat. A row starts with the BOS, where the tokenizer has one, and never holds tokens of two documents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from playpen.config import PlaypenError
from playpen.tables import read_splits, table_files

PROMPTS, CONTROL = "prompts", "control"
"""The two sides of a mixed corpus."""


@dataclass(frozen=True)
class TokenRows:
    """Rows of tokens; every array has one entry a row."""

    ids: list[np.ndarray]
    """Token ids of each row, int32."""
    document: np.ndarray
    """The row_id of the document or chat that it is (a piece of)."""
    source: np.ndarray
    """Where it comes from, in words."""
    category: np.ndarray
    """The category of a prompt's response; empty where there is none."""
    side: np.ndarray
    """`prompts` or `control` in a mixed corpus, else empty."""
    group: np.ndarray
    """What may not be parted by a hold-out: a chat's near-duplicates, a document's pieces and copies, the answers to one question."""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray) -> "TokenRows":
        """Return the rows of these numbers, or of this mask, in order."""
        places = np.flatnonzero(rows) if rows.dtype == bool else rows
        columns = (self.document, self.source, self.category, self.side, self.group)
        return TokenRows([self.ids[i] for i in places], *(column[places] for column in columns))


def is_corpus(artifact: Path | str) -> bool:
    """Say whether an artifact is a mixed corpus."""
    return (Path(artifact) / "blocks").is_dir()


def read_token_rows(artifact: Path | str, splits: Sequence[str] = ("train", "pool")) -> TokenRows:
    """Read a mixed corpus whole (`splits` has no meaning for it), or splits of a data artifact."""
    return read_corpus(Path(artifact)) if is_corpus(artifact) else read_chat_rows(Path(artifact), splits)


def read_chat_rows(artifact: Path, splits: Sequence[str]) -> TokenRows:
    """Read splits of a data artifact: a chat is a row."""
    table = read_splits(artifact, splits, ["row_id", "input_ids", "group", "source"])
    group = np.where(table["group"] == "", table["row_id"], table["group"])
    none = np.full(len(table), "", dtype=object)
    names = table["row_id"].to_numpy(object)
    return TokenRows(table["input_ids"].tolist(), names, table["source"].to_numpy(object), none, none, group.astype(object))


def read_corpus(artifact: Path) -> TokenRows:
    """Read a mixed corpus: each piece of a document in a block is a row."""
    documents = pd.concat([pq.read_table(file).to_pandas() for file in table_files(artifact, "documents")], ignore_index=True)
    if "group" not in documents:
        raise PlaypenError(
            f"{artifact}: the table documents has no column 'group': it was made by an earlier mix-corpus; make it again"
        )
    ids: list[np.ndarray] = []
    numbers: list[np.ndarray] = []
    for file in table_files(artifact, "blocks"):
        table = pq.read_table(file, columns=["input_ids", "starts", "documents"]).combine_chunks()
        blocks = table["input_ids"].combine_chunks() if table.num_rows else None
        if blocks is None:
            continue
        tokens = blocks.flatten().to_numpy()
        starts = table["starts"].combine_chunks()
        offsets = np.repeat(blocks.offsets.to_numpy()[:-1] - blocks.offsets[0].as_py(), starts.value_lengths().to_numpy())
        ids += np.split(tokens, (starts.flatten().to_numpy() + offsets)[1:])
        numbers.append(table["documents"].combine_chunks().flatten().to_numpy())
    place = np.concatenate(numbers) if numbers else np.empty(0, np.int64)
    of_piece = documents.iloc[place]
    columns = (of_piece[name].to_numpy(object) for name in ("row_id", "source", "category", "side", "group"))
    return TokenRows(ids, *columns)
