"""A comparison of arms: which trainings it takes, and what the paired differences are, over held-out rows and over items."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from playpen.paired import holm, paired_effect
from playpen.retraining import Job

if TYPE_CHECKING:
    from playpen.stages.preregister import Config


ITEM_MEASURES = {"accuracy": "correct", "accuracy_norm": "correct_norm", "margin": "margin"}
"""What is measured over items, and the column of `items` that it is the mean of."""


@dataclass(frozen=True, eq=False)
class Training:
    """One training of an arm."""

    budget: int
    arm: str
    job: Job


def trainings(plan: "Config", choices: pd.DataFrame, row_ids: np.ndarray, work: Path) -> list[Training]:
    """Return every training of the plan; `row_ids` are those of the rows, in ascending order.

    Arms that no budget changes are trained once a seed and stand in every budget.
    """
    places = choices.assign(place=np.searchsorted(row_ids, choices["row_id"].to_numpy(str)))
    kept = {key: group["place"].to_numpy(np.int64) for key, group in places.groupby(["budget", "arm", "seed"])}
    found = []
    for budget in plan.budgets:
        for arm in plan.arms:
            for seed in range(plan.seed, plan.seed + plan.seeds):
                free = plan.arms[arm].kind in ("everything", "nothing")
                file = work / f"{'any' if free else budget}-{quote(arm, safe='')}-{seed}.npy"
                found.append(Training(budget, arm, Job(file, kept.get((budget, arm, seed), np.array([], np.int64)), seed)))
    return found


def matrix(measured: pd.DataFrame, budget: int, arm: str, unit: str = "row_id", value: str = "loss") -> np.ndarray:
    """Return what was measured of one arm, float64 [seeds, units], seeds in ascending order; a unit is a held-out row, or an item."""
    mine = measured[(measured["budget"] == budget) & (measured["arm"] == arm)]
    return mine.pivot(index="seed", columns=unit, values=value).to_numpy(np.float64)


def effects(losses: pd.DataFrame, plan: "Config") -> pd.DataFrame:
    """Return one row a budget and rival.

    Columns: budget, arm, loss (of the arm), subject_loss, effect (subject minus arm, nats a token), low, high (95 %), p_seeds, p_rows, p_both,
    p (the largest), p_holm (over the family and all budgets, else empty), seeds_won and rows_won (shares of seeds and of rows in which
    the subject's mean loss is lower), in_family.
    """
    found = []
    for budget in plan.budgets:
        subject = matrix(losses, budget, plan.subject)
        for arm in (name for name in plan.arms if name != plan.subject):
            other = matrix(losses, budget, arm)
            effect = paired_effect(subject, other, plan.seed)
            means = {"loss": other.mean(), "subject_loss": subject.mean()}
            sizes = {"effect": effect.effect, "low": effect.low, "high": effect.high}
            tests = {"p_seeds": effect.p_seeds, "p_rows": effect.p_items, "p_both": effect.p_both}
            tests["p"] = max(tests.values())
            won = {"seeds_won": effect.lower / effect.seeds, "rows_won": float(((subject - other).mean(0) < 0).mean())}
            found.append({"budget": budget, "arm": arm, **means, **sizes, **tests, **won, "in_family": arm in plan.tested})
    table = pd.DataFrame(found)
    mine = table[table["in_family"]]
    adjusted = holm({str(place): float(p) for place, p in mine["p"].items()})
    table["p_holm"] = [adjusted.get(str(place), np.nan) for place in table.index]
    return table


def item_effects(items: pd.DataFrame, plan: "Config") -> pd.DataFrame:
    """Return one row a budget, task, measure and rival; the task "" is all items together, where there is more than one task.

    Columns: budget, task, measure (accuracy, accuracy_norm, or margin in nats), arm, value (of the arm), subject_value, effect (subject minus
    arm: above 0, the subject is better), low, high (95 %), p (the largest of three, as in `effects`; adjusted for nothing), items.
    """
    found = []
    for task in ([""] if items["task"].nunique() > 1 else []) + sorted(items["task"].unique()):
        mine = (items if task == "" else items[items["task"] == task]).assign(
            unit=lambda t: t["task"] + "/" + t["item"].astype(str)
        )
        for budget in plan.budgets:
            for measure, column in ITEM_MEASURES.items():
                subject = matrix(mine, budget, plan.subject, "unit", column)
                for arm in (name for name in plan.arms if name != plan.subject):
                    place = {"budget": budget, "task": task, "measure": measure, "arm": arm}
                    found.append({**place, **_item_effect(subject, matrix(mine, budget, arm, "unit", column), plan.seed)})
    return pd.DataFrame(found)


def _item_effect(subject: np.ndarray, other: np.ndarray, seed: int) -> dict[str, Any]:
    effect = paired_effect(subject, other, seed)
    values = {"value": float(other.mean()), "subject_value": float(subject.mean())}
    p = max(effect.p_seeds, effect.p_items, effect.p_both)
    return {**values, "effect": effect.effect, "low": effect.low, "high": effect.high, "p": p, "items": effect.items}


def numbers(found: pd.DataFrame, asked: pd.DataFrame, losses: pd.DataFrame, plan: "Config") -> dict[str, Any]:
    """Return the outcome as plain numbers, by budget and arm; that of the items by budget, task, measure and arm."""
    plain = found.astype(object).where(found.notna(), None)
    budgets: dict[str, Any] = {}
    for row in plain.to_dict("records"):
        budgets.setdefault(str(row.pop("budget")), {})[row.pop("arm")] = row
    items: dict[str, Any] = {}
    for row in asked.to_dict("records"):
        place = items.setdefault(str(row.pop("budget")), {}).setdefault(row.pop("task") or "all", {})
        place.setdefault(row.pop("measure"), {})[row.pop("arm")] = row
    trained = losses.groupby(["budget", "arm", "seed"]).ngroups
    return {
        "subject": plan.subject,
        "seeds": plan.seeds,
        "rows": losses["row_id"].nunique(),
        "trainings": trained,
        "budgets": budgets,
        "items": items,
    }
