"""How alike rows are: by the SAE features that they switch on, or by a vector each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from playpen.config import PlaypenError
from playpen.tables import join, read_table

Measure = Literal["cosine", "jaccard"]


@dataclass(frozen=True)
class RowVectors:
    """What rows are compared by."""

    matrix: Any
    """float32 [n, d], sparse (CSR) or dense: rows of length 1 for cosine, of zeros and ones for jaccard."""
    measure: Measure

    def __len__(self) -> int:
        return self.matrix.shape[0]

    def to(self, places: np.ndarray) -> np.ndarray:
        """Return float32 [n, places]: how alike each row is to those at `places`; a row without any feature is like none, 0."""
        some = self.matrix[places]
        shared = self.matrix @ (some.toarray() if hasattr(some, "toarray") else some).T
        if self.measure == "cosine":
            return shared
        sizes = np.asarray(self.matrix.sum(1)).ravel()
        return shared / np.maximum(sizes[:, None] + sizes[places] - shared, 1)


def read_row_vectors(path: str, rows: pd.DataFrame, measure: Measure, rule: str) -> RowVectors:
    """Read a fingerprint artifact, or a table `vectors` (row_id, vector), in the order of `rows`; each row must be in it."""
    if (Path(path) / "fingerprint.json").exists():
        return RowVectors(_features(path, rows, measure, rule), measure)
    if measure == "jaccard":
        raise PlaypenError(f"{rule}: jaccard compares sets of features, but {path} is no artifact of fingerprint; use cosine")
    found = join(rows[["row_id"]], read_table(path, "vectors", ["row_id", "vector"]), f"{rule}: rows and the vectors {path}")
    matrix = np.stack(found["vector"].to_numpy()).astype(np.float32)
    _check_finite(matrix, rows, path)
    return RowVectors(matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12), measure)


def _features(path: str, rows: pd.DataFrame, measure: Measure, rule: str) -> Any:
    """Return the strengths of features as a CSR matrix [n, features], or ones in their place for jaccard."""
    from scipy.sparse import csr_matrix

    from playpen.scored_rows import read_fingerprints

    features = read_fingerprints(path, rows, f"{rule}: rows").features
    owner, place = np.nonzero(features.ids < features.num_features)
    values = features.strength[owner, place] if measure == "cosine" else np.ones(len(owner), np.float32)
    made = csr_matrix((values, (owner, features.ids[owner, place])), (len(features), features.num_features))
    if measure == "jaccard":
        return made
    lengths = np.sqrt(np.asarray(made.multiply(made).sum(1)).ravel())
    made.data /= np.maximum(np.repeat(lengths, np.diff(made.indptr)), 1e-12)
    return made


def _check_finite(matrix: np.ndarray, rows: pd.DataFrame, path: str) -> None:
    bad = ~np.isfinite(matrix).all(1)
    if bad.any():
        raise PlaypenError(
            f"{path}: the vector of row_id {rows['row_id'].iloc[int(bad.argmax())]} is not finite ({bad.sum()} such)"
        )
