"""Row tables: Parquet files keyed by `row_id`, read and joined under one contract.

An artifact's table named `scores` is the file `scores.parquet` or, when it was written in shards, the files
`scores/shard-*.parquet`. Every per-example table has a `row_id` column without gaps or doubles.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from playpen.config import PlaypenError

SPLITS = ("train", "val", "pool", "large_pool", "query", "test")
"""The tables of rows that data artifacts hold."""
TRUTH = b"playpen.truth"
"""Schema key that marks a table of planted truth."""

UNFINISHED = ".unfinished"
MAY_READ_TRUTH = ("validate", "report", "explore")
"""The stages that only show what others have chosen: none of them scores, selects or trains."""
TOLD = f"{', '.join(MAY_READ_TRUTH[:-1])} and {MAY_READ_TRUTH[-1]}"
running_stage: ContextVar[str] = ContextVar("running_stage", default="")
"""The verb of the stage that runs now; set by `stage.run_stage`."""

Messages = Sequence[dict[str, str]]


def row_id(messages: Messages) -> str:
    """Return the identity of an example: 16 hex digits of sha256 over its roles and contents."""
    canonical = json.dumps([[m["role"], m["content"]] for m in messages], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def unfinished(path: Path) -> Path:
    """Return the name of a file while it is written; what a killed process leaves of it is removed on the next run."""
    return path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")


def write_table(path: Path, table: pa.Table | pd.DataFrame, truth: bool = False) -> None:
    """Write a Parquet file whole or not at all."""
    whole: Any = pa.Table.from_pandas(table, preserve_index=False) if isinstance(table, pd.DataFrame) else table
    if truth:
        whole = whole.replace_schema_metadata({**(whole.schema.metadata or {}), TRUTH: b"1"})
    path.parent.mkdir(parents=True, exist_ok=True)
    part = unfinished(path)
    pq.write_table(whole, part, compression="zstd")
    part.replace(path)


def table_files(artifact: Path, name: str) -> list[Path]:
    """Return the files of a table in their order, or say what the artifact holds instead."""
    single = artifact / f"{name}.parquet"
    if single.exists():
        return [single]
    shards = sorted((artifact / name).glob("shard-*.parquet"))
    if shards:
        return shards
    known = sorted({p.stem for p in artifact.glob("*.parquet")} | {p.parent.name for p in artifact.glob("*/shard-*.parquet")})
    manifest = artifact / "manifest.json"
    kind = f" of {json.loads(manifest.read_text())['kind']}" if manifest.exists() else ""
    splits = [split for split in SPLITS if split in known] if get_close_matches(name, SPLITS) else []
    hint = f"name one of its splits, {', '.join(splits)}" if splits else "was it made by another stage?"
    raise PlaypenError(f"{artifact}{kind} has no table '{name}'; it holds {', '.join(known) or 'no table'}: {hint}")


def has_table(artifact: Path | str, name: str) -> bool:
    """Say whether an artifact holds a table of this name."""
    return (Path(artifact) / f"{name}.parquet").exists() or any((Path(artifact) / name).glob("shard-*.parquet"))


def read_table(artifact: Path | str, name: str, columns: list[str] | None = None) -> pd.DataFrame:
    """Read a table whole. Truth is refused here: `read_truth` is for the stages that may know it."""
    tables = [_read_file(file, columns) for file in table_files(Path(artifact), name)]
    return pa.concat_tables(tables).to_pandas()


def read_splits(artifact: Path | str, splits: Sequence[str], columns: list[str] | None = None) -> pd.DataFrame:
    """Read several tables of the same columns as one, in the order given."""
    return pd.concat([read_table(artifact, split, columns) for split in splits], ignore_index=True)


def _check_schema(file: Path, columns: list[str] | None) -> None:
    """Raise when a column is missing, and on planted truth."""
    schema = pq.read_schema(file)
    missing = [c for c in columns or [] if c not in schema.names]
    if missing:
        raise PlaypenError(f"{file} has no column {', '.join(missing)}; it has {', '.join(schema.names)}")
    if TRUTH in (schema.metadata or {}):
        raise PlaypenError(f"{file} holds planted truth; no stage but {TOLD} may read it")


def _read_file(file: Path, columns: list[str] | None) -> pa.Table:
    try:
        _check_schema(file, columns)
        return pq.read_table(file, columns=columns)
    except pa.ArrowException as error:
        raise PlaypenError(f"{file} is not a readable Parquet file ({error}); delete its artifact and run again") from None


def read_truth(artifact: Path | str) -> pd.DataFrame | None:
    """Read the planted truth of a data artifact (`row_id, skill, source, fault`), or None when it has none."""
    if running_stage.get() not in MAY_READ_TRUTH:
        raise PlaypenError(f"stage '{running_stage.get() or '(none)'}' asked for planted truth; only {TOLD} may read it")
    file = Path(artifact) / "truth.parquet"
    return pq.read_table(file).to_pandas() if file.exists() else None


def copy_truth(source: Path | str, out: Path) -> None:
    """Copy the planted truth of an artifact, unread, into an artifact under way; nothing is done when it has none."""
    file = Path(source) / "truth.parquet"
    if not file.exists():
        return
    if (out / file.name).exists():
        raise PlaypenError(f"{out} holds the planted truth of another world already; build data from one world at a time")
    shutil.copyfile(file, out / file.name)


def iter_table(artifact: Path | str, name: str, rows: int, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield a table in pieces of at most `rows` rows, in order, without ever holding it whole."""
    for file in table_files(Path(artifact), name):
        _check_schema(file, columns)
        for batch in pq.ParquetFile(file).iter_batches(batch_size=rows, columns=columns):
            yield pa.Table.from_batches([batch])


def iter_pieces(file: Path, sizes: Sequence[int], columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield a file's rows from the first on in pieces of these sizes, reading it once and holding little more than a piece."""
    _check_schema(file, columns)
    batches = pq.ParquetFile(file).iter_batches(batch_size=max(sizes), columns=columns)
    held: list[pa.RecordBatch] = []
    for size in sizes:
        while sum(map(len, held)) < size:
            held.append(next(batches))
        table = pa.Table.from_batches(held)
        yield table.slice(0, size)
        held = table.slice(size).to_batches()


def read_rows(file: Path, start: int, rows: int, columns: list[str] | None = None) -> pa.Table:
    """Read `rows` rows of a file from row `start` on, without ever holding much more of it; what lies before them is read as well."""
    _check_schema(file, columns)
    source, parts, place = pq.ParquetFile(file), [], 0
    for batch in source.iter_batches(batch_size=rows, columns=columns):
        first, last = max(start - place, 0), min(start + rows - place, len(batch))
        if first < last:
            parts.append(batch.slice(first, last - first))
        place += len(batch)
        if place >= start + rows:
            break
    return pa.Table.from_batches(parts)


def count_rows(artifact: Path | str, name: str) -> int:
    """Return the number of rows of a table from the files' footers."""
    return sum(pq.read_metadata(file).num_rows for file in table_files(Path(artifact), name))


def check_row_ids(table: pd.DataFrame, where: str) -> None:
    """Raise if a row_id stands twice, and name it."""
    double = table.loc[table["row_id"].duplicated(), "row_id"]
    if len(double):
        raise PlaypenError(
            f"{where}: row_id {double.iloc[0]} stands twice ({len(double)} doubles in all); each example may have one row"
        )


def join(left: pd.DataFrame, right: pd.DataFrame, where: str) -> pd.DataFrame:
    """Add the columns of `right` to `left` by `row_id`; every row of `left` must have exactly one partner."""
    check_row_ids(left, where)
    check_row_ids(right, where)
    missing = left.loc[~left["row_id"].isin(right["row_id"]), "row_id"]
    if len(missing):
        raise PlaypenError(
            f"{where}: {len(missing)} of {len(left)} rows have no partner, the first is row_id {missing.iloc[0]}; "
            "do the two tables come from the same data, and the same split of it?"
        )
    double = [c for c in right.columns if c in left.columns and c != "row_id"]
    return left.merge(right.drop(columns=double), on="row_id", how="left", validate="one_to_one")


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all, with sorted keys."""
    part = unfinished(path)
    part.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")
    part.replace(path)


def read_metrics(artifact: Path | str) -> dict[str, Any]:
    """Read the numbers of an artifact."""
    file = Path(artifact) / "metrics.json"
    return json.loads(file.read_text()) if file.exists() else {}
