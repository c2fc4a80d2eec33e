"""Fingerprints as sparse rows, in the order of a table."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from playpen.config import PlaypenError
from playpen.tables import join, read_table


def read_info(features: str) -> dict[str, Any]:
    """Return what a features artifact says of how it was made."""
    file = Path(features) / "fingerprint.json"
    if not file.exists():
        raise PlaypenError(f"{features} has no fingerprint.json: expected an artifact of fingerprint")
    return json.loads(file.read_text())


def read_sparse(features: str, rows: pd.DataFrame, column: Literal["mean", "max"], of: str) -> Any:
    """Return a scipy csr_array [rows, num_features] of a column of a features table, float64, in the order of `rows`.

    Every row must have its fingerprint; `of` names the rows in an error. Raises on strengths that are not finite.
    """
    from scipy.sparse import csr_array

    size = read_info(features)["num_features"]
    found = join(rows[["row_id"]], read_table(features, "features", ["row_id", "ids", column]), f"{of} and features {features}")
    ids, values = (np.concatenate(found[name].to_list() or [np.empty(0)]) for name in ("ids", column))
    if not np.isfinite(values).all():
        raise PlaypenError(f"{features} holds strengths that are not finite: was the model run in float16?")
    if len(ids) and not 0 <= ids.min() <= ids.max() < size:
        raise PlaypenError(f"{features} holds feature {ids.max()}, but its id space has {size}: fingerprint.json is another's")
    ends = np.append(0, np.cumsum(found["ids"].map(len)))
    return csr_array((values.astype(np.float64), ids.astype(np.int64), ends), shape=(len(rows), size))
