"""Scores against the truth that a world plants: are the helpful rows at the top, and the faulty ones below the clean?

Helpful, as the world defines it: of a skill that a target task asks for, and without a fault that spoils it. A padded
answer still holds the right one. Recall@k is the share of the helpful rows among the k highest scores; AUPRC is average
precision, whose chance level is the share of helpful rows; the detection AUROC of a fault is the chance that a clean row
scores above one with that fault, 0.5 when scores do not see it.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from playpen.banks import top_rows
from playpen.config import PlaypenError
from playpen.intervals import Statistic, estimate, interval, resample
from playpen.prediction_metrics import auroc
from playpen.tables import join

Measure = tuple[str, str, int | None, int, float, Statistic]
"""Name, of what, k, rows of that kind, value of chance, statistic."""


def with_truth(rows: pd.DataFrame, truth: pd.DataFrame, tasks: Sequence[str], where: str) -> pd.DataFrame:
    """Return the rows with `fault`, `needed` (a target task asks for its skill) and `helpful`; a task that no world has is refused."""
    from playpen.world.faults import SPOILING
    from playpen.world.skills import TARGETS

    if strange := sorted(set(tasks) - set(TARGETS)):
        raise PlaypenError(
            f"{where}: no skill is known to help the target task '{strange[0]}', only those of {', '.join(TARGETS)}; set truth to false"
        )
    skills = {TARGETS[task] for task in tasks}
    found = join(rows, truth[["row_id", "skill", "fault"]], f"{where} and its truth")
    found["needed"] = found["skill"].isin(skills)
    found["helpful"] = found["needed"] & ~found["fault"].isin(SPOILING)
    return found


def recall_table(scores: pd.DataFrame, rows: pd.DataFrame, ks: Sequence[int], draws: int, seed: int) -> pd.DataFrame:
    """Return one row a scorer and measure: scores, measure, of, k, rows, value, low, high, chance.

    `scores` has one column a scorer, in the order of `rows` of `with_truth`. 95 % intervals resample the groups of
    near-duplicates. A value that is not defined (no such row) is NaN.
    """
    found = []
    for name in scores.columns:
        measures = list(_measures(rows, scores[name].to_numpy(float), ks))
        both, group = stack([measure[-1] for measure in measures]), rows["group"].to_numpy()
        low, high = interval(resample(group, both, draws, seed))
        for measure, *values in zip(measures, estimate(len(rows), both), low, high, strict=True):
            numbers = dict(zip(("value", "low", "high"), map(float, values), strict=True))
            told = dict(zip(("measure", "of", "k", "rows"), measure[:4], strict=True))
            found.append({"scores": name, **told, **numbers, "chance": measure[4]})
    return pd.DataFrame(found).astype({"k": "Int64"})


def _measures(rows: pd.DataFrame, score: np.ndarray, ks: Sequence[int]) -> Iterator[Measure]:
    helpful, needed, fault = (rows[name].to_numpy() for name in ("helpful", "needed", "fault"))
    count, ids = int(helpful.sum()), rows["row_id"].to_numpy(str)
    yield "auprc", "helpful", None, count, count / len(rows), average_precision(helpful, score)
    for k in ks:
        yield "recall", "helpful", k, count, min(1.0, k / len(rows)), _share(top_rows(ids, score, k), helpful)
    for kind in sorted(set(fault) - {"none"}):
        for measure, among in (("auroc", np.ones(len(rows), bool)), ("auroc_needed", needed)):
            places = np.flatnonzero(among & np.isin(fault, (kind, "none")))
            yield measure, kind, None, int((fault[places] == kind).sum()), 0.5, _auroc_among(places, fault == "none", score)


def stack(measures: Sequence[Statistic]) -> Statistic:
    """Return one statistic of several side by side: weights [draws, n] in, [draws, measures] out."""
    return lambda weights: np.stack([measure(weights) for measure in measures], axis=-1)


def _auroc_among(places: np.ndarray, clean: np.ndarray, score: np.ndarray) -> Statistic:
    statistic = auroc(clean[places], score[places])
    return lambda weights: statistic(weights[:, places])


def _share(taken: np.ndarray, helpful: np.ndarray) -> Statistic:
    """Return the share of the helpful rows that are taken."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        total = weights[:, helpful].sum(1)
        return np.divide(weights[:, helpful & taken].sum(1), total, out=np.full(len(weights), np.nan), where=total > 0)

    return statistic


def average_precision(label: np.ndarray, score: np.ndarray) -> Statistic:
    """Return average precision as a statistic, rows of equal score taken together; scikit-learn's on unit weights."""
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    positive = label[order].astype(float)

    def statistic(weights: np.ndarray) -> np.ndarray:
        mass = weights[:, order]
        taken, hits = np.cumsum(mass, axis=1)[:, last], np.cumsum(mass * positive, axis=1)[:, last]
        precision = np.divide(hits, taken, out=np.zeros_like(hits), where=taken > 0)
        total = hits[:, -1]
        summed = (np.diff(hits, axis=1, prepend=0) * precision).sum(1)
        return np.divide(summed, total, out=np.full(len(weights), np.nan), where=total > 0)

    return statistic
