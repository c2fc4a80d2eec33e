"""A spool: rows set aside on disk while a stage works, and taken back in any order without holding them all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

CHUNK_ROWS = 2000


class Spool:
    """An append-only table of memory-mapped Arrow files in a directory of its own."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        folder.mkdir(parents=True)
        self.folder, self.schema = folder, schema
        self._waiting: list[dict[str, Any]] = []
        self._chunks: list[pa.Table] = []
        self._starts = [0]

    def __len__(self) -> int:
        return self._starts[-1] + len(self._waiting)

    def append(self, row: dict[str, Any]) -> None:
        """Add one row; it is number `len(spool) - 1` from now on."""
        self._waiting.append(row)
        if len(self._waiting) == CHUNK_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            path = self.folder / f"{len(self._chunks):06d}.arrow"
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, self.schema) as writer:
                writer.write_table(pa.Table.from_pylist(self._waiting, schema=self.schema))
            self._chunks.append(pa.ipc.open_file(pa.memory_map(str(path))).read_all())
            self._starts.append(self._starts[-1] + len(self._waiting))
            self._waiting = []

    def take(self, rows: Sequence[int] | np.ndarray) -> pa.Table:
        """Return the rows of these numbers, in this order."""
        self._flush()
        numbers = np.asarray(rows, dtype=np.int64)
        chunk_of = np.searchsorted(self._starts, numbers, side="right") - 1
        order = np.argsort(chunk_of, kind="stable")
        parts = [self._chunks[c].take(numbers[chunk_of == c] - self._starts[c]) for c in np.unique(chunk_of)]
        return pa.concat_tables([self.schema.empty_table(), *parts]).take(np.argsort(order))
