"""What the report reads: the evaluation as matrices, the pool, selections, and where artifacts come from."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from playpen import tables
from playpen.artifact import MANIFEST, read_manifest
from playpen.config import PlaypenError, did_you_mean

MARK = re.compile(r"[0-9a-f]{8}")
"""A fingerprint, as it stands for an input in a manifest's config."""
POOLS = ("pool", "large_pool", "train")
"""Splits that a selection can be made from, in the order in which a row is looked for."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured, one column a model."""

    losses: pd.DataFrame
    """Index (task, row_id); mean nats per supervised token."""
    items: pd.DataFrame | None
    """Index (task, item); 1.0 where the answer was right. None without benchmarks."""


def read_evaluation(artifact: str, models: Iterable[str]) -> Evaluation:
    """Read an evaluate artifact; every model must be there and have been asked every item."""
    wanted = list(dict.fromkeys(models))
    losses = _matrix(tables.read_table(artifact, "losses"), "row_id", "loss", wanted, f"{artifact}: losses")
    if not tables.has_table(artifact, "items") or tables.count_rows(artifact, "items") == 0:
        return Evaluation(losses, None)
    items = tables.read_table(artifact, "items")
    if "subtask" in items:  # members of a group, such as mmlu, each count their items from 0
        items["item"] = items["subtask"].astype(str) + "/" + items["item"].astype(str)
    return Evaluation(losses, _matrix(items, "item", "correct", wanted, f"{artifact}: items"))


def _matrix(rows: pd.DataFrame, key: str, value: str, models: list[str], where: str) -> pd.DataFrame:
    known = sorted(rows["model"].unique())
    for model in models:
        if model not in known:
            raise PlaypenError(f"{where}: no model '{model}' was evaluated{did_you_mean(model, known)}")
    chosen = rows[rows["model"].isin(models)]
    double = chosen[chosen.duplicated(["model", "task", key])]
    if len(double):
        raise PlaypenError(f"{where}: {key} {double[key].iloc[0]} of model '{double['model'].iloc[0]}' stands twice")
    matrix = chosen.pivot(index=["task", key], columns="model", values=value)[models].astype(float).sort_index()
    if matrix.isna().any(axis=None):
        place: Any = matrix.isna().stack().idxmax()
        raise PlaypenError(
            f"{where}: model '{place[2]}' has no value for {key} {place[1]} of task '{place[0]}', which others have; "
            "evaluate all models on the same items"
        )
    return matrix


def read_pool(data: str) -> pd.DataFrame:
    """Read row_id, num_tokens, source, quality_score and split of every row that could have been selected."""
    columns = ["row_id", "num_tokens", "source", "quality_score"]
    splits = [split for split in POOLS if tables.has_table(data, split)]
    if not splits:
        raise PlaypenError(f"{data} has none of the splits {', '.join(POOLS)}; was it made by build-data?")
    parts = [tables.read_table(data, split, columns).assign(split=split) for split in splits]
    pool = pd.concat(parts, ignore_index=True)
    tables.check_row_ids(pool, data)
    return pool


def read_selections(selections: Mapping[str, str], pool: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Read each arm's selection with what the pool says of its rows, best rank first."""
    found = {}
    for arm, path in selections.items():
        rows = tables.read_table(path, "selection", ["row_id", "kept", "rank", "score", "reason"])
        found[arm] = tables.join(rows, pool, f"selection of arm '{arm}' and the pool").sort_values("rank", ignore_index=True)
    return found


def read_scores(artifact: str | None, pool: pd.DataFrame, where: str) -> pd.DataFrame | None:
    """Read row_id and score with what the pool says of the rows; None when there is no artifact."""
    if artifact is None:
        return None
    return tables.join(tables.read_table(artifact, "scores", ["row_id", "score"]), pool, f"{where} and the pool")


def read_chats(data: str, row_ids: Iterable[str]) -> dict[str, list[dict[str, str]]]:
    """Return the messages of a few rows, without ever holding a split whole."""
    wanted, found = set(row_ids), {}
    for split in (s for s in POOLS if tables.has_table(data, s)):
        for piece in tables.iter_table(data, split, 4096, ["row_id", "messages"]):
            ids = piece.column("row_id").to_pylist()
            places = [place for place, row_id in enumerate(ids) if row_id in wanted]
            found |= {row["row_id"]: row["messages"] for row in piece.take(pa.array(places, pa.int64())).to_pylist()}
        if len(found) == len(wanted):
            break
    return found


def read_lineage(paths: Iterable[str]) -> dict[str, dict]:
    """Return the manifests of artifacts and of all they were made from that lies beside them, oldest ancestor first.

    A manifest names its inputs by fingerprint alone; a fingerprint that no directory beside it carries is left out.
    Each has the `path` of its artifact and the name of its `directory` too.
    """
    found: dict[str, dict] = {}

    def visit(where: Path) -> None:
        manifest = read_manifest(where)
        if manifest["fingerprint"] in found:
            return
        for mark in sorted({text for text in strings_in(manifest["config"]) if MARK.fullmatch(text)}):
            for parent in sorted(where.parent.glob(f"*-{mark}")):
                if (parent / MANIFEST).exists():
                    visit(parent)
        found[manifest["fingerprint"]] = {**manifest, "directory": where.name, "path": str(where)}

    for path in paths:
        visit(Path(path))
    return found


def behind(manifest: dict, manifests: Mapping[str, dict]) -> dict[str, dict]:
    """Return, of some manifests by fingerprint, those of all that one was made from; it is not among them."""
    found: dict[str, dict] = {}
    for mark in strings_in(manifest["config"]):
        if mark in manifests and mark not in found:
            found |= {mark: manifests[mark], **behind(manifests[mark], manifests)}
    return found


def strings_in(value: object) -> Iterator[str]:
    """Yield every string in plain data, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings_in(item)
