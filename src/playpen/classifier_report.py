"""The report of classify: what each classifier's held-out predictions are worth, and against which references."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from playpen.prediction_metrics import auroc_differences, evaluate_predictions
from playpen.scored_rows import Fingerprints

LENGTH = "length"
"""The model of the reference that knows nothing but the numbers of tokens."""
REFERENCES = ("best", "statistics", LENGTH)
"""What every row's AUROC is compared with."""


@dataclass(frozen=True)
class Trial:
    """One row of the report."""

    name: str
    """What tells it from the other rows."""
    model: str
    k: int | None
    """Features a row that it sees; None when that is no setting of its own."""
    fingerprints: Fingerprints | None
    """None for a reference that sees no fingerprint."""


Predictions = dict[Trial, np.ndarray]


def make_report(
    predictions: Predictions, rows: pd.DataFrame, target: np.ndarray, by: str, seed: int, draws: int
) -> tuple[pd.DataFrame, Trial]:
    """Return one row a trial, and the trial that is best by the measure `by`.

    Columns: name, model, k, features; the measures of `evaluate_predictions` with their intervals; and `auroc_minus_*`, AUROC
    minus that of the best, of the statistics of the same features, and of length, from the same bootstrap samples. `rows` has
    label, score, group and source. A reference cannot be the best, for it cannot be saved.
    """
    label, score, group, source = (rows[name].to_numpy() for name in ("label", "score", "group", "source"))
    found = []
    for trial, prediction in predictions.items():
        place = {"name": trial.name, "model": trial.model, "k": trial.k}
        measures = evaluate_predictions(label, score, prediction, group, source, seed, draws, target)
        found.append({**place, "features": trial.fingerprints and trial.fingerprints.name, **measures})
    ours = [i for i, trial in enumerate(predictions) if trial.fingerprints]
    best = list(predictions)[max(ours, key=lambda i: -np.inf if found[i][by] is None else found[i][by])]
    gaps = auroc_differences(label, list(predictions.values()), group, seed, draws)
    report = pd.DataFrame(found).astype({"k": "Int64"})
    return pd.concat([report, _against_references(list(predictions), gaps, best)], axis=1), best


def _against_references(trials: list[Trial], gaps: list, best: Trial) -> pd.DataFrame:
    """Pick each trial's differences to its references; empty where the report has no such row."""
    found = []
    for i, trial in enumerate(trials):
        values: dict[str, float | None] = {}
        for reference in REFERENCES:
            j = next((j for j, other in enumerate(trials) if _is_reference(other, trial, reference, best)), None)
            bounds = (None, None, None) if j is None else gaps[i][j]
            values.update({f"auroc_minus_{reference}{end}": v for end, v in zip(("", "_low", "_high"), bounds, strict=True)})
        found.append(values)
    return pd.DataFrame(found).astype(float)


def _is_reference(candidate: Trial, trial: Trial, reference: str, best: Trial) -> bool:
    if reference == "best":
        return candidate == best
    same = candidate.fingerprints is trial.fingerprints or candidate.fingerprints is None or trial.fingerprints is None
    return candidate.model == reference and same


def held_out_table(rows: pd.DataFrame, predictions: Predictions) -> pd.DataFrame:
    """Return one row a scored row and trial: row_id, model (the trial's name), label, score, prediction."""
    base = rows[["row_id", "label"]].assign(score=rows["score"].astype(np.float32))
    parts = [base.assign(model=trial.name, prediction=prediction) for trial, prediction in predictions.items()]
    return pd.concat(parts, ignore_index=True)[["row_id", "model", "label", "score", "prediction"]]
