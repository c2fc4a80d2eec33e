"""A classifier on disk: `classifier.json`, which says what it is and how its fingerprints are made, and `weights.safetensors`.

Where the score for each query was learnt too, its weights are in `queries.safetensors`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from playpen.classifiers import CLASSIFIERS
from playpen.config import PlaypenError, make_config
from playpen.feature_matrix import Arrays
from playpen.feature_table import Features, dense, from_table
from playpen.query_regression import QueryRidge
from playpen.query_scores import QUERIES_OF
from playpen.tables import write_json


@dataclass(frozen=True)
class SavedClassifier:
    """A classifier that predicts from a features table."""

    info: dict[str, Any]
    """What `classifier.json` holds: model, uses, k, settings, label, `fingerprint` (the fingerprint.json it was trained on)..."""
    config: Any
    arrays: Arrays
    queries: Arrays | None = None
    """What `QueryRidge` has learnt of each query, where classify was asked to."""
    queries_of: str | None = None
    """Fingerprint of the data whose queries these are, in their order."""

    @property
    def hidden(self) -> bool:
        """Whether it sees mean hidden states, in the place of features."""
        return self.info.get("uses") == "hidden"

    def predict(self, features_table: pa.Table) -> np.ndarray:
        """Return a prediction for each row of a features table: float32 [n] in [0, 1], higher = more helpful.

        One that sees hidden states needs their column, `fingerprints.VECTOR`.
        """
        return self.config.predict(self.arrays, self._seen(features_table))

    def predict_queries(self, features_table: pa.Table) -> np.ndarray:
        """Return the expected score of each row of a features table for each query: float32 [n, queries], higher = more helpful."""
        assert self.queries is not None
        return QueryRidge().predict(self.queries, self._seen(features_table))

    def _seen(self, features_table: pa.Table) -> Features:
        if self.hidden:
            vectors, rows = features_table["vector"].combine_chunks().flatten().to_numpy(), features_table.num_rows
            return dense(vectors.reshape(rows, len(vectors) // max(rows, 1)))
        made = self.info["fingerprint"]
        features = from_table(features_table, made["num_features"], self.info["k"] or made["k"])
        return dense(features.stats) if self.info["model"] == "statistics" else features.without_columns()


def save_classifier(where: Path, info: dict[str, Any], arrays: Arrays) -> None:
    """Write a classifier into the directory `where`."""
    from safetensors.numpy import save_file

    where.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, where / "weights.safetensors")
    write_json(where / "classifier.json", info)


def save_queries(where: Path, arrays: Arrays, queries_of: str | None) -> None:
    """Write what was learnt of each query, and of which data the queries are, beside the classifier in the directory `where`."""
    from safetensors.numpy import save_file

    told = {QUERIES_OF: queries_of} if queries_of else None
    save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, where / "queries.safetensors", told)


def load_classifier(artifact: Path | str) -> SavedClassifier:
    """Open the classifier of a classify artifact."""
    from safetensors.numpy import load_file

    where = Path(artifact) / "classifier"
    if not (where / "classifier.json").exists():
        raise PlaypenError(f"{artifact} holds no classifier: expected an artifact of classify")
    info = json.loads((where / "classifier.json").read_text())
    config = make_config(CLASSIFIERS[info["model"]], info["settings"], str(where / "classifier.json"))
    return SavedClassifier(info, config, load_file(where / "weights.safetensors"), *_load_queries(where / "queries.safetensors"))


def _load_queries(file: Path) -> tuple[Arrays | None, str | None]:
    from safetensors import safe_open
    from safetensors.numpy import load_file

    if not file.exists():
        return None, None
    with safe_open(file, "np") as opened:
        return load_file(file), (opened.metadata() or {}).get(QUERIES_OF)
