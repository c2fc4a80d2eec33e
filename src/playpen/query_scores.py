"""The table `query_scores`: the score of each row for each query, in the order of the `query` split of the data that it was made with."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from playpen import artifact
from playpen.config import PlaypenError
from playpen.tables import has_table, join, read_table, write_table

NAME = "query_scores"
QUERIES_OF = "queries_of"
"""Of predictions, the number in `metrics.json` that names the data whose queries they are of."""
SHOWN = 60
"""Characters of a question by which a query is named."""


def as_table(row_ids: Sequence[str] | pd.Series, scores: np.ndarray) -> pa.Table:
    """Return `scores` [rows, queries] as a table (row_id, scores: list of float32)."""
    offsets = pa.array(np.arange(len(scores) + 1) * scores.shape[1], pa.int32())
    lists = pa.ListArray.from_arrays(offsets, pa.array(scores.ravel(), pa.float32()))
    return pa.table({"row_id": pa.array(row_ids, pa.string()), "scores": lists})


def write_query_scores(row_ids: pd.Series, scores: np.ndarray, file: Path) -> None:
    """Write `scores` [rows, queries] as one list a row."""
    write_table(file, as_table(row_ids, scores))


def read_query_scores(path: str, rows: pd.DataFrame, what: str) -> np.ndarray:
    """Return the score of each row for each query, float32 [n, queries], in the order of `rows`.

    Raises when there are none, when a row lacks some, and when one is not finite; `what` needs them, in an error.
    """
    if not has_table(path, NAME):
        raise PlaypenError(
            f"{what} needs scores for each query, but {path} has no table '{NAME}': make it by attribute, score or predict with per_query"
        )
    found = join(rows[["row_id"]], read_table(path, NAME, ["row_id", "scores"]), f"{what}: these rows and the {NAME} of {path}")
    if found["scores"].map(len).nunique() > 1:
        raise PlaypenError(f"{what}: the lists in {NAME} of {path} are not all of one length; make it again")
    scores = np.stack(found["scores"].to_numpy())
    bad = ~np.isfinite(scores).all(1)
    if bad.any():
        raise PlaypenError(f"{what}: the {NAME} of row_id {found['row_id'].iloc[int(bad.argmax())]} in {path} are not finite")
    return scores


def queries_of(path: str) -> str | None:
    """Return the fingerprint of the data whose queries an artifact's scores are of; None when nothing tells."""
    made = artifact.read_manifest(path)
    return made["metrics"].get(QUERIES_OF) or made["config"].get("data")


def query_names(path: str, data: str) -> list[str]:
    """Return a name for each query of an artifact's scores, its task and how its last question begins; none when they are not of `data`."""
    if not has_table(data, "query") or queries_of(path) != artifact.read_manifest(data)["fingerprint"]:
        return []
    queries = read_table(data, "query", ["task", "messages"])
    return [_named(task, chat) for task, chat in zip(queries["task"], queries["messages"], strict=True)]


def _named(task: str, chat: Sequence[dict[str, str]]) -> str:
    asked = " ".join([turn["content"] for turn in chat if turn["role"] == "user"][-1].split())
    question = f"'{asked[:SHOWN]}{'...' if len(asked) > SHOWN else ''}'"
    return f"{task}: {question}" if task else question
