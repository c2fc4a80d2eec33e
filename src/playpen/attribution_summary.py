"""What attribution scores go with: their spread, rank correlations, and who is in the top."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

TOP = (10, 30, 100, 300, 1000, 3000, 10000)
"""Sizes of the top whose composition by source is told."""
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


def write_diagnostics(rows: pd.DataFrame, file: Path) -> None:
    """Write one line of JSON a row; the loss of a row that no gradient was taken of is null."""
    with file.open("w", encoding="utf-8") as handle:
        for row in rows.itertuples():
            loss = float(row.loss)  # type: ignore[arg-type]
            values = {"row_id": row.row_id, "score": float(row.score), "length": int(row.num_tokens)}  # type: ignore[arg-type]
            values |= {"num_labels": int(row.num_labels), "loss": None if math.isnan(loss) else loss, "source": row.source}  # type: ignore[arg-type]
            handle.write(json.dumps(values, ensure_ascii=False) + "\n")


def summary(rows: pd.DataFrame) -> dict[str, Any]:
    """Return coverage, the spread of the scores, their rank correlations and who is in the top k.

    `rows` has score, loss, num_tokens, num_labels, quality_score and source. Spread and correlations are those of the rows
    that have a loss, whose share is the coverage. A correlation is None where it has no meaning.
    """
    scored = rows[rows["loss"].notna()]
    score = scored["score"].astype("float64")
    spread = {"mean": score.mean(), "std": score.std(ddof=0), "share_above_0": (score > 0).mean()}
    quantiles = {str(q): float(score.quantile(q)) for q in QUANTILES}
    others = {"length": "num_tokens", "num_labels": "num_labels", "loss": "loss", "quality_score": "quality_score"}
    tops = [k for k in TOP if k < len(rows)]
    ranked = rows.sort_values("score", ascending=False, kind="stable")
    return {
        "coverage": len(scored) / len(rows),
        "score": {**{name: float(value) for name, value in spread.items()}, "quantiles": quantiles},
        "spearman": {name: _spearman(score, scored[column].astype("float64")) for name, column in others.items()},
        "top": {str(k): _composition(ranked.head(k)) for k in tops},
        "all": _composition(rows),
    }


def _spearman(score: pd.Series, other: pd.Series) -> float | None:
    """Return the rank correlation over the rows where `other` is known."""
    known = other.notna()
    if score[known].nunique() < 2 or other[known].nunique() < 2:
        return None
    return float(np.corrcoef(score[known].rank(), other[known].rank())[0, 1])


def _composition(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the share of each source and the mean length of some rows."""
    shares = {str(name): float(share) for name, share in rows["source"].value_counts(normalize=True).sort_index().items()}
    return {"sources": shares, "mean_length": float(rows["num_tokens"].mean())}
