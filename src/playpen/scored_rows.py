"""Rows with scores, joined with what classifiers learn from: their data and their fingerprints."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from playpen import artifact
from playpen.config import PlaypenError
from playpen.feature_table import Features, read_features
from playpen.tables import join, read_table


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """One features artifact, its rows in the order of the scores."""

    path: Path
    name: str
    info: dict[str, Any]
    """What its `fingerprint.json` holds."""
    features: Features


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
    joined = join(rows[["row_id"]], places, f"{of} and features {where}")
    return Fingerprints(where, artifact.read_manifest(where)["name"], info, features.rows(joined["place"].to_numpy()))
