"""The report of classify: what each row's held-out predictions are worth, and by how much the features beat what needs none."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from playpen.config import PlaypenError, did_you_mean
from playpen.intervals import estimate, interval, resample
from playpen.prediction_metrics import NAMES, measures, number
from playpen.trials import TO_BEAT, Trial

REFERENCES = ("best", "statistics", "length")
"""What every row's AUROC is compared with in `report`."""
COMPARED = ("auroc", "spearman", "spearman_within_source", "spearman_within_source_length")
"""The measures of the table `differences`."""
TITLES = {"auroc": "AUROC", "spearman": "Spearman"}

Predictions = dict[Trial, np.ndarray]


@dataclass(frozen=True)
class Samples:
    """Every measure of every row of the report."""

    trials: list[Trial]
    point: np.ndarray
    """On the rows as they are: float64 [trials, len(NAMES)]."""
    draws: np.ndarray
    """On bootstrap samples of groups, the same for all: float64 [draws, trials, len(NAMES)]."""

    def value(self, trial: Trial, measure: str) -> float:
        """Return a measure on the rows as they are; NaN where it is not defined."""
        return float(self.point[self.trials.index(trial), NAMES.index(measure)])

    def minus(self, trial: Trial, other: Trial, measure: str) -> tuple[float | None, float | None, float | None]:
        """Return the difference of two rows in a measure, and its 95 % interval from paired samples."""
        i, j, m = self.trials.index(trial), self.trials.index(other), NAMES.index(measure)
        low, high = interval(self.draws[:, i, m] - self.draws[:, j, m])
        return number(self.point[i, m] - self.point[j, m]), number(low), number(high)


def sample(predictions: Predictions, rows: pd.DataFrame, target: np.ndarray, seed: int, draws: int) -> Samples:
    """Measure every row of the report on the rows as they are and on bootstrap samples of their groups, some rows a thread."""
    group, made = rows["group"].to_numpy(), list(predictions.values())

    def some(part: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        statistic = measures(rows, target, part)
        return estimate(len(rows), statistic), resample(group, statistic, draws, seed)

    step = -(-len(made) // (os.cpu_count() or 1))
    with ThreadPoolExecutor() as pool:
        parts = list(pool.map(some, [made[start : start + step] for start in range(0, len(made), step)]))
    return Samples(list(predictions), *(np.concatenate([part[i] for part in parts], axis=i) for i in range(2)))


def choose(samples: Samples, by: str, save: str | None) -> tuple[Trial, Trial]:
    """Return the best row by the measure `by` among those that predict can make from features, and the one to save."""
    of_features = [trial for trial in samples.trials if trial.can_predict and trial.of_features]
    named = [trial for trial in samples.trials if trial.name == save]
    able = of_features or named
    best = max(able, key=lambda trial: np.nan_to_num(samples.value(trial, by), nan=-np.inf))
    return best, named[0] if named else best


def check_save(trials: list[Trial], save: str | None) -> None:
    """Raise when the row to save is none of the report's, when predict could not make what it sees, or when none can be saved."""
    able = [trial.name for trial in trials if trial.can_predict]
    named = next((trial for trial in trials if trial.name == save), None)
    if save is None and not any(trial.can_predict and trial.of_features for trial in trials):
        raise PlaypenError(f"no row of features alone can be saved; add l1 to models, or name one in save: {', '.join(able)}")
    if save is None:
        return
    if named is None:
        raise PlaypenError(f"save names '{save}', which is no row of the report{did_you_mean(save, able)}")
    if not named.can_predict:
        why = "several features artifacts" if named.fingerprints and not named.fingerprints.alone else named.uses
        raise PlaypenError(
            f"save names '{save}', which uses {why}: predict makes the features and hidden states of one artifact alone; name one of {', '.join(able)}"
        )


def report_table(samples: Samples, best: Trial) -> pd.DataFrame:
    """Return one row a trial: name, model, uses, k, features; each measure with its interval; `auroc_minus_*`.

    `auroc_minus_best`, `_statistics` (of the same features) and `_length` are differences to those rows, empty where there is none.
    """
    low, high = interval(samples.draws)
    found = []
    for i, trial in enumerate(samples.trials):
        row = {"name": trial.name, "model": trial.model, "uses": trial.uses, "k": trial.k}
        row["features"] = trial.fingerprints.name if trial.fingerprints else None
        for m, measure in enumerate(NAMES):
            row |= {measure: samples.point[i, m], f"{measure}_low": low[i, m], f"{measure}_high": high[i, m]}
        for reference in REFERENCES:
            other = best if reference == "best" else _reference(samples.trials, trial, reference)
            gap = samples.minus(trial, other, "auroc") if other else (None, None, None)
            row |= {f"auroc_minus_{reference}{end}": value for end, value in zip(("", "_low", "_high"), gap, strict=True)}
        found.append(row)
    numbers = [name for name in found[0] if name.startswith(NAMES)]
    return pd.DataFrame(found).astype({"k": "Int64", **dict.fromkeys(numbers, float)})


def _reference(trials: list[Trial], trial: Trial, model: str) -> Trial | None:
    def same(other: Trial) -> bool:
        return None in (other.fingerprints, trial.fingerprints) or other.fingerprints is trial.fingerprints

    return next((other for other in trials if other.model == model and same(other)), None)


def differences_table(samples: Samples) -> pd.DataFrame:
    """Return each row of features against every control in each of `COMPARED`: model, against, measure, value, low, high."""
    controls = [trial for trial in samples.trials if not trial.of_features]
    found = []
    for trial in (trial for trial in samples.trials if trial.of_features):
        for other in controls:
            for measure in COMPARED:
                gap = dict(zip(("value", "low", "high"), samples.minus(trial, other, measure), strict=True))
                found.append({"model": trial.name, "against": other.name, "measure": measure, **gap})
    columns = ["model", "against", "measure", "value", "low", "high"]
    return pd.DataFrame(found, columns=columns).astype(dict.fromkeys(columns[3:], float))


def verdicts(samples: Samples, best: Trial, by: str) -> dict[str, dict[str, object] | None]:
    """Return `verdict`, of the best row of features, and `together`, of features with source and length: see `verdict`."""
    same = [
        trial for trial in samples.trials if trial.model == "l2_and_source_length" and trial.fingerprints is best.fingerprints
    ]
    both = verdict(samples, same[0], by, "Features with source and length", "source and length alone") if same else None
    subject = "The features" if best.of_features else f"The {best.name}"
    return {"verdict": verdict(samples, best, by, subject, "source and length"), "together": both}


def verdict(samples: Samples, trial: Trial, by: str, subject: str, other: str) -> dict[str, object]:
    """Return whether a row beats the stronger of `TO_BEAT` in the measure `by`, by an interval that excludes 0, and a sentence."""
    rivals = [each for each in samples.trials if each.name in TO_BEAT]
    rival = max(rivals, key=lambda each: np.nan_to_num(samples.value(each, by), nan=-np.inf))
    value, low, high = samples.minus(trial, rival, by)
    found = {"model": trial.name, "against": rival.name, "measure": by, "value": value, "low": low, "high": high}
    if value is None or low is None or high is None:
        return {**found, "outcome": "undefined", "sentence": f"{subject} cannot be compared with {other}: {by} is not defined."}
    outcome, verb = ("beats", "beat") if low > 0 else ("loses", "lose to") if high < 0 else ("ties", "cannot be told apart from")
    ours, theirs = (samples.value(each, by) for each in (trial, rival))
    numbers = f"{ours:.3f} ({trial.name}) against {theirs:.3f} ({rival.name}), difference {value:+.3f}"
    sentence = f"{subject} {verb} {other}: {TITLES[by]} {numbers}, 95% interval {low:+.3f} to {high:+.3f}."
    return {**found, "outcome": outcome, "sentence": sentence}


def with_shuffled(report: pd.DataFrame, shuffled: dict[str, Any] | None) -> pd.DataFrame:
    """Add the row of the runs on shuffled labels, whose interval is over runs; only its AUROC is there."""
    if shuffled is None:
        return report
    row = {"name": "shuffled", "model": shuffled["model"], "uses": "features"}
    row |= {name: shuffled[name] for name in ("auroc", "auroc_low", "auroc_high")}
    return pd.concat([report, pd.DataFrame([row]).reindex(columns=report.columns).astype(report.dtypes)], ignore_index=True)


def held_out_table(rows: pd.DataFrame, predictions: Predictions) -> pd.DataFrame:
    """Return one row a scored row and trial: row_id, model (the trial's name), fold, label, score, prediction."""
    base = rows[["row_id", "label"]].assign(fold=rows["fold"].astype(np.int32), score=rows["score"].astype(np.float32))
    parts = [base.assign(model=trial.name, prediction=prediction) for trial, prediction in predictions.items()]
    return pd.concat(parts, ignore_index=True)[["row_id", "model", "fold", "label", "score", "prediction"]]
