"""What the report counts: arms by seed, paired differences, the verdict in words, shares of planted truth."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import numpy as np
import pandas as pd

from playpen.paired import Effect, holm, interval, paired_effect
from playpen.report_page.layout import number, span
from playpen.report_page.sources import Evaluation

LOSS = "loss"
"""The name of the primary measure: mean held-out target loss over all tasks, nats per token."""

Arms = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Measure:
    """One thing that was measured of every model, item by item."""

    name: str
    values: pd.DataFrame
    """Index item, one column a model."""
    lower_is_better: bool

    def of(self, models: tuple[str, ...]) -> np.ndarray:
        """Return `[seeds, items]`."""
        return self.values[list(models)].to_numpy().T

    def mean(self, models: tuple[str, ...]) -> list[float]:
        """Return the mean over items of each model."""
        return [float(value) for value in self.of(models).mean(axis=1)]


def measures(evaluation: Evaluation) -> list[Measure]:
    """Return the loss overall, the loss of each task where there are several, and the accuracy of each benchmark."""
    losses: Any = evaluation.losses
    items: Any = evaluation.items
    tasks = losses.index.unique("task")
    found = [Measure(LOSS, losses, True)]
    found += [Measure(f"loss: {task}", losses.xs(task, level="task"), True) for task in tasks if len(tasks) > 1]
    if items is not None:
        found += [Measure(f"accuracy: {task}", items.xs(task, level="task"), False) for task in items.index.unique("task")]
    return found


@dataclass(frozen=True)
class Difference:
    """The subject against one arm in one measure."""

    arm: str
    measure: str
    effect: Effect
    """Subject minus arm."""
    better: int
    """Seeds in which the subject is the better one."""
    tone: str
    """`good`, `bad` or `open`: the interval is on the subject's side, on the arm's side, or holds 0."""
    p_holm: float | None = None
    """p over items, adjusted for all arms; of the primary measure only."""


def differences(arms: Arms, subject: str, found: list[Measure], seed: int) -> list[Difference]:
    """Compare the subject with every other arm in every measure, paired by seed and item."""
    rows = [_difference(arms, subject, arm, measure, seed) for arm in arms if arm != subject for measure in found]
    adjusted = holm({row.arm: row.effect.p_items for row in rows if row.measure == LOSS})
    return [replace(row, p_holm=adjusted[row.arm]) if row.measure == LOSS else row for row in rows]


def _difference(arms: Arms, subject: str, arm: str, measure: Measure, seed: int) -> Difference:
    ours, theirs = measure.of(arms[subject]), measure.of(arms[arm])
    effect = paired_effect(ours, theirs, seed)
    gaps = (ours - theirs).mean(axis=1)
    better = int((gaps < 0).sum() if measure.lower_is_better else (gaps > 0).sum())
    below, above = ("good", "bad") if measure.lower_is_better else ("bad", "good")
    tone = below if effect.high < 0 else above if effect.low > 0 else "open"
    return Difference(arm, measure.name, effect, better, tone)


def comparison_intervals(arms: Arms, measure: Measure) -> dict[str, tuple[float, float]]:
    """Return an interval of each arm's mean that leaves out how hard each item is for all arms and how each seed went for all.

    Cousineau 2005 with Morey's 2008 correction: values are centred by their mean over arms, cell by cell.
    """
    values = {arm: measure.of(models) for arm, models in arms.items()}
    centre = np.mean(list(values.values()), axis=0)
    spread = sqrt(len(arms) / (len(arms) - 1))
    return {arm: _around(found, spread * (found - centre)) for arm, found in values.items()}


def _around(values: np.ndarray, centred: np.ndarray) -> tuple[float, float]:
    low, high = interval(centred)
    return float(values.mean() + low - centred.mean()), float(values.mean() + high - centred.mean())


def verdict(row: Difference) -> str:
    """Return the outcome in three words."""
    return {"good": "Lower loss than", "bad": "Higher loss than", "open": "No clear difference from"}[row.tone] + f" {row.arm}"


def answer(arms: Arms, subject: str, row: Difference, primary: Measure, budget: str) -> str:
    """Return the outcome in one sentence that says first if the subject did not win."""
    ours, other = (float(np.mean(primary.mean(arms[name]))) for name in (subject, row.arm))
    effect, seeds = row.effect, row.effect.seeds
    start = {
        "good": "On",
        "bad": f"{subject} lost to {row.arm}: on",
        "open": f"{subject} cannot be told apart from {row.arm}: on",
    }[row.tone]
    caution = "" if seeds > 1 else "; one seed, so the interval knows nothing of how training runs differ"
    return (
        f"{start} {'these ' if seeds > 1 else 'this '}{counted(seeds, 'seed')}, training on {budget} gave a held-out target "
        f"loss of {number(ours)} nats per token against {number(other)} for {row.arm} (difference "
        f"{number(effect.effect, 3, True)}, "
        f"95% interval {span(effect.low, effect.high)}; lower in {row.better} of {seeds} seeds{caution})."
    )


def against(row: Difference) -> str:
    """Return one short sentence about an arm that the answer does not name."""
    effect = row.effect
    lead = {"good": "lower than", "bad": "higher than", "open": "not clearly different from"}[row.tone]
    gap = f"{number(effect.effect, 3, True)} ({span(effect.low, effect.high)})"
    return f"{lead} {row.arm}: {gap}, lower in {row.better} of {effect.seeds}"


def counted(value: int, word: str) -> str:
    """Return `1 seed` or `3 seeds`."""
    return f"{value:,} {word}" + ("" if value == 1 else "s")


def budget_text(arm: str, selection: pd.DataFrame | None) -> str:
    """Return what an arm was trained on, in words."""
    if selection is None:
        return f"the rows of {arm}"
    kept = selection[selection["kept"]]
    return f"the {counted(len(kept), 'example')} ({int(kept['num_tokens'].sum()):,} tokens) that {arm} selected"


def overlaps(selections: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, int]]:
    """Return how many kept rows each pair of arms shares."""
    kept = {arm: set(rows.loc[rows["kept"], "row_id"]) for arm, rows in selections.items()}
    return {arm: {other: len(ours & theirs) for other, theirs in kept.items()} for arm, ours in kept.items()}


def shares(column: str, truth: pd.DataFrame, selections: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the share of each value of a truth column: among all rows offered, and among those each arm kept."""
    offered = next(iter(selections.values()))
    groups = {"offered": offered["row_id"], **{arm: rows.loc[rows["kept"], "row_id"] for arm, rows in selections.items()}}
    known = truth.set_index("row_id")[column].fillna("").replace("", "none")
    parts = {name: known.reindex(ids).value_counts(normalize=True) for name, ids in groups.items()}
    return pd.DataFrame(parts).fillna(0.0).sort_values("offered", ascending=False, kind="stable")


def rank_correlation(left: pd.Series, right: pd.Series) -> float | None:
    """Return Spearman's correlation over the pairs that are whole, or None when there is none."""
    whole = left.notna() & right.notna()
    if whole.sum() < 3 or left[whole].nunique() < 2 or right[whole].nunique() < 2:
        return None
    return float(left[whole].astype(float).rank().corr(right[whole].astype(float).rank()))
