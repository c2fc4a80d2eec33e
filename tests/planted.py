"""Fingerprints with a planted signal, and classifiers that find it quickly."""

import numpy as np
import pyarrow as pa

from playpen.classifiers import AttentionPooling, L1Logistic, L2Logistic, MeanPooling, Statistics, Trees
from playpen.feature_table import Features

FEATURES, WIDTH = 50, 16
QUICK = {
    "statistics": Statistics(),
    "l1": L1Logistic(penalties=(6.0, 25.0)),
    "l2": L2Logistic(variances=(0.3, 3.0)),
    "trees": Trees(trees=30, features=20),
    "mean_pooling": MeanPooling(members=1, epochs=25, dim=8, hidden=8, lr=0.02, dropout=0.0, feature_dropout=0.1),
    "attention_pooling": AttentionPooling(members=1, epochs=25, dim=8, hidden=8, lr=0.02, dropout=0.0, feature_dropout=0.1),
}


def planted(rows: int, seed: int = 0) -> tuple[Features, np.ndarray]:
    """Return fingerprints in which features 3 and 7 raise the score, and nothing else does."""
    draw = np.random.default_rng(seed)
    ids = np.stack([draw.permutation(FEATURES)[:WIDTH] for _ in range(rows)]).astype(np.int64)
    strength = draw.gamma(1.0, 30.0, (rows, WIDTH)).astype(np.float32) + 1
    score = sum((np.log1p(strength / 30) * (ids == feature)).sum(1) + (ids == feature).any(1) for feature in (3, 7))
    order = np.argsort(-strength, axis=1)
    ids, strength = (np.take_along_axis(values, order, 1) for values in (ids, strength))
    return Features(ids, strength, draw.normal(size=(rows, 10)).astype(np.float32), FEATURES), score + draw.normal(
        size=rows
    ) * 0.1


def top_quarter(score: np.ndarray) -> np.ndarray:
    return (score > np.quantile(score, 0.75)).astype(np.float32)


def as_table(features: Features) -> pa.Table:
    there = features.ids < features.num_features
    lists = {"ids": features.ids.astype(np.int32), "mean": features.strength}
    columns = {name: [row[keep] for row, keep in zip(values, there, strict=True)] for name, values in lists.items()}
    return pa.table({"row_id": [f"r{i}" for i in range(len(features))], **columns, "stats": list(features.stats)})
