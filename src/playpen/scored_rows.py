"""Rows with scores, joined with what classifiers learn from: their data and their fingerprints."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from playpen import artifact
from playpen.config import PlaypenError
from playpen.feature_table import Features, read_features, side_by_side
from playpen.tables import has_table, iter_table, join, read_table


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """One features artifact, or several side by side, its rows in the order of the scores."""

    paths: tuple[Path, ...]
    name: str
    info: dict[str, Any]
    """What its `fingerprint.json` holds; of several, only how many features a row they have together (`k`)."""
    features: Features
    hidden: np.ndarray | None
    """Mean hidden states of the pooled tokens, float32 [n, width], where fingerprint kept them."""

    @property
    def alone(self) -> bool:
        """Whether it is one artifact, whose features predict can make again."""
        return len(self.paths) == 1


def read_scored_rows(scores: str, data: str) -> pd.DataFrame:
    """Return row_id, score, group, source, num_tokens and num_labels of every scored row of the pool, in the order of the scores."""
    found = read_table(scores, "scores", ["row_id", "score"])
    bad = found.loc[~np.isfinite(found["score"]), "row_id"]
    if len(bad):
        raise PlaypenError(f"{scores}: {len(bad)} scores are not finite, the first is that of row_id {bad.iloc[0]}")
    pool = read_table(data, "pool", ["row_id", "group", "source", "num_tokens", "num_labels"])
    return join(found, pool, f"scores {scores} and the pool of {data}")


def read_fingerprints(path: str, rows: pd.DataFrame, of: str) -> Fingerprints:
    """Read a features artifact in the order of `rows`, each of which must be in it; `of` names the rows in an error."""
    where = Path(path)
    if not (where / "fingerprint.json").exists():
        raise PlaypenError(f"{where} has no fingerprint.json: expected an artifact of fingerprint")
    info = json.loads((where / "fingerprint.json").read_text())
    ids, features = read_features(where, info["num_features"], info["k"])
    places = pd.DataFrame({"row_id": ids, "place": np.arange(len(ids))})
    found = join(rows[["row_id"]], places, f"{of} and features {where}")
    hidden = read_vectors(where, "hidden", rows) if has_table(where, "hidden") else None
    name = artifact.read_manifest(where)["name"]
    return Fingerprints((where,), name, info, features.rows(found["place"].to_numpy()), hidden)


def joined(parts: list[Fingerprints]) -> Fingerprints:
    """Return several fingerprints of the same rows as one; their hidden states stand side by side where all have them."""
    hidden = [part.hidden for part in parts if part.hidden is not None]
    return Fingerprints(
        tuple(path for part in parts for path in part.paths),
        " + ".join(part.name for part in parts),
        {"k": sum(part.info["k"] for part in parts)},
        side_by_side([part.features for part in parts]),
        np.concatenate(hidden, axis=1) if len(hidden) == len(parts) else None,
    )


def read_scores(path: str, rows: pd.DataFrame, where: str) -> np.ndarray:
    """Read the scores of an artifact in the order of `rows`: float64 [n]. Raises on one that is missing or not finite."""
    found = join(rows[["row_id"]], read_table(path, "scores", ["row_id", "score"]), f"{where}: these rows and the scores {path}")
    bad = found.loc[~np.isfinite(found["score"]), "row_id"]
    if len(bad):
        raise PlaypenError(f"{where}: {len(bad)} scores of {path} are not finite, the first is that of row_id {bad.iloc[0]}")
    return found["score"].to_numpy(np.float64)


def read_vectors(path: str | Path, name: str, rows: pd.DataFrame) -> np.ndarray:
    """Read a table (row_id, vector: list of float32) in the order of `rows`: float32 [n, width].

    Raises on a row that is missing, on vectors that are not all of one width, and on numbers that are not finite.
    """
    table = pa.concat_tables(iter_table(path, name, 65_536, ["row_id", "vector"]))
    places = pd.DataFrame({"row_id": table["row_id"].to_pylist(), "place": np.arange(table.num_rows)})
    order = join(rows[["row_id"]], places, f"the scored rows and the table '{name}' of {path}")
    lists = table["vector"].combine_chunks()
    widths = sorted(set(lists.value_lengths().fill_null(0).to_pylist()))
    if len(widths) != 1 or widths[0] == 0:
        raise PlaypenError(
            f"{path}: the vectors of table '{name}' are not all of one width; found {', '.join(map(str, widths[:5]))}: make it again"
        )
    found = lists.flatten().to_numpy().reshape(table.num_rows, -1)[order["place"].to_numpy()].astype(np.float32)
    bad = ~np.isfinite(found).all(1)
    if bad.any():
        raise PlaypenError(f"{path}: the vector of row_id {rows['row_id'].iloc[int(bad.argmax())]} in '{name}' is not finite")
    return found
