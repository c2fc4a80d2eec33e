"""Rows of a pool of any size: read from their source once, checked, and set aside in shards before anything is made of them.

Only a shard is held at a time, and 8 bytes of each row's identity (some 70 in memory), by which exact copies are known. What is set
aside is kept when a run is killed; the source is then read again up to where it was, and a source read to its end never again.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from playpen.chat_files import Row
from playpen.examples import SCHEMA, sample_of
from playpen.progress import tqdm
from playpen.sources import Source, single
from playpen.tables import row_id, write_json, write_table

TABLE = "rows"
READ = "read.json"
"""Written when the source has been read to its end."""
COPY = "exact copy of another row"
SET_ASIDE = pa.schema(
    [("position", pa.int64())]
    + [SCHEMA.field(name) for name in ("row_id", "messages", "source", "quality_score", "raw")]
    + [("problem", pa.string()), ("sample", pa.string())]
)
"""The columns of a row set aside: `problem` is empty where it can be used, else it says why not."""


def set_aside(source: Source, rows: int | None, shard_rows: int, folder: Path) -> None:
    """Read at most `rows` rows of a source into the table `rows` of a folder, `shard_rows` of them a file; whole files are kept."""
    if (folder / READ).exists():
        return
    whole = sorted((folder / TABLE).glob("shard-*.parquet"))
    seen = _names_in(whole)
    there = chain.from_iterable(each() for each in single(source))
    bar = tqdm(total=rows, desc="reading", unit="row", disable=None, mininterval=1)
    with bar as progress:
        for number, part in enumerate(_pieces(islice(there, rows), shard_rows)):
            if number >= len(whole):
                table = pa.Table.from_pylist([_checked(row, seen) for row in part], schema=SET_ASIDE)
                write_table(folder / TABLE / f"shard-{number:05d}.parquet", table)
            progress.update(len(part))
    write_json(folder / READ, {"read": True})


def _pieces(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    rows = iter(rows)
    while piece := list(islice(rows, size)):
        yield piece


def _names_in(files: list[Path]) -> set[int]:
    """Return the identities of the usable rows of files, as numbers."""
    found: set[int] = set()
    for file in files:
        found.update(int(name, 16) for name in pq.read_table(file, columns=["row_id"])["row_id"].to_pylist() if name)
    return found


def _checked(row: Row, seen: set[int]) -> dict[str, Any]:
    """Return a row to be set aside; an exact copy of an earlier one gets that as its problem."""
    name, problem, sample = "", row.problem, row.sample
    if not problem:
        name = row_id(row.messages)
        if int(name, 16) in seen:
            name, problem, sample = "", COPY, sample_of(row.messages)
        else:
            seen.add(int(name, 16))
    kept = {"messages": row.messages, "quality_score": row.quality, "raw": row.raw} if name else {}
    return {"position": row.position, "row_id": name, "source": row.source, "problem": problem, "sample": sample, **kept}
