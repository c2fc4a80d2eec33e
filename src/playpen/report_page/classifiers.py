"""The part of the page about predicting attribution: do SAE features beat source and length, and every other control?"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from playpen.report_page import figures
from playpen.report_page.layout import Cell, Section, Table, number, span

TITLES = {
    "auroc": "AUROC",
    "spearman": "Spearman",
    "auroc_within_source": "AUROC within source",
    "spearman_within_source": "Spearman within source",
    "auroc_within_source_length": "AUROC within source and length",
    "spearman_within_source_length": "Spearman within source and length",
    "accuracy": "accuracy",
    "calibration_error": "calibration error",
    "brier": "Brier score",
}
"""Heads of the figures of a classifier, in the order in which they are shown."""
COMPARED = ("auroc", "spearman_within_source")
"""The measures in which the table shows how far a row of features is ahead of the control to beat."""


def classifier_section(metrics: Mapping[str, Any], gaps: pd.DataFrame, heldout: pd.DataFrame, draw: figures.Draw) -> Section:
    """Show how well attribution was predicted, and against which controls; `gaps` is the table `differences`, maybe empty."""
    models, saved = metrics["models"], metrics.get("saved", metrics["best"])
    auroc = {name: figures_of(values).get("auroc") for name, values in models.items()}
    drawn = {name: figure for name, figure in auroc.items() if figure is not None and None not in figure}
    blocks: list[Any] = [classifier_table(metrics, gaps, saved)]
    if len(gaps):
        blocks.append(controls_table(gaps[gaps["model"] == metrics["best"]], metrics["best"]))
    if saved in drawn:
        blocks.append(figures.classifiers_figure(draw, drawn, saved))  # type: ignore[arg-type]
    mine = heldout[heldout["model"] == saved]
    chances = metrics.get("label", "top") == "top"  # an expected rank or score is no probability
    if len(mine) and chances and mine["label"].isin((0, 1)).all() and mine["prediction"].between(0, 1).all():
        blocks.append(figures.reliability_figure(draw, heldout, saved))
    if len(mine):
        blocks.append(figures.predicted_figure(draw, mine, saved))
    return Section("Predicting attribution", _lead(metrics), tuple(blocks))


def _lead(metrics: Mapping[str, Any]) -> str:
    """Return the verdict first, then what else must be known to believe it."""
    found = [metrics[name]["sentence"] for name in ("verdict", "together") if metrics.get(name)]
    shuffled = metrics.get("shuffled")
    if shuffled:
        sound = "as it must be" if shuffled["holds_half"] else "not 0.5: chance in one report of twenty, else the label leaks"
        interval = span(shuffled["auroc_low"], shuffled["auroc_high"], sign=False)
        found.append(f"On shuffled labels the AUROC is {number(shuffled['auroc'])} (95% interval {interval}), {sound}.")
    if metrics.get("per_query"):
        found.append(_of_queries(metrics["per_query"]))
    return " ".join([*found, "Attribution needs a gradient for each row; these predictors need one forward pass or less."])


def _of_queries(found: Mapping[str, Any]) -> str:
    """Say how well the score for each query is predicted."""
    said = (
        f"For each of {found['queries']} queries by itself held-out predictions have a mean Spearman of {number(found['spearman'])} with its "
        f"scores; their mean over queries, used for all, has {number(found['spearman_of_mean'])}"
    )
    if found["gain_low"] is None:
        return said + "."
    return f"{said} (difference {number(found['gain'], 3, True)}; {span(found['gain_low'], found['gain_high'])} over queries, as if each were by itself)."


def figures_of(found: Mapping[str, Any]) -> dict[str, tuple[float, float | None, float | None]]:
    """Read the figures of one classifier, with their intervals in whichever form they are written.

    An interval is a mapping with `low` and `high`, a list of value, low and high, or `x_low` and `x_high` beside `x`.
    """
    figures = {}
    for name, value in found.items():
        if isinstance(value, Mapping) and {"low", "high"} <= set(value):
            middle = value.get("value", value.get("mean", value.get(name)))
            figures[name] = (middle, value["low"], value["high"])
        elif isinstance(value, list) and len(value) == 3:
            figures[name] = tuple(value)
        elif isinstance(value, int | float) and not name.endswith(("_low", "_high")):
            figures[name] = (value, found.get(f"{name}_low"), found.get(f"{name}_high"))
    return {name: figure for name, figure in figures.items() if isinstance(figure[0], int | float)}


def classifier_table(metrics: Mapping[str, Any], gaps: pd.DataFrame, saved: str) -> Table:
    """Return one row a classifier, the highest AUROC first: what it uses, its lead over source and length, and its figures."""
    found = {name: figures_of(values) for name, values in metrics["models"].items()}
    there = [name for name in TITLES if any(name in figures for figures in found.values())]
    order = sorted(found, key=lambda name: -found[name].get("auroc", (-1.0, None, None))[0])
    rival = metrics["verdict"]["against"] if len(gaps) else ""
    leads = gaps[gaps["against"] == rival].set_index(["model", "measure"])
    uses = any("uses" in values for values in metrics["models"].values())
    heads = ("classifier", *(["uses"] if uses else []), *(TITLES[name] for name in there))
    rows = []
    for name in order:
        used = [Cell(str(metrics["models"][name].get("uses") or "–"))] if uses else []
        ahead = [_gap_cell(leads, (name, measure)) for measure in COMPARED] if rival else []
        rows.append((Cell(name), *used, *(_figure_cell(found[name].get(figure)) for figure in there), *ahead))
    heads += tuple(f"{TITLES[measure]} minus {rival}" for measure in COMPARED) if rival else ()
    note = (
        "On held-out rows, near-duplicates kept on one side; 95% bootstrap intervals in brackets, differences on the same samples. "
        f"{saved} makes the predictions."
    )
    return Table("classifiers", heads, tuple(rows), note, strong=saved)


def _gap_cell(gaps: pd.DataFrame, key: tuple[str, str]) -> Cell:
    """Return a difference with its interval; its tone says on which side of 0 the interval lies."""
    row: Any = gaps.loc[key] if key in gaps.index else None
    if row is None or row.isna().any():
        return Cell("–")
    tone = "good" if row["low"] > 0 else "bad" if row["high"] < 0 else "open"
    return Cell(f"{number(row['value'], 3, True)} ({span(row['low'], row['high'])})", float(row["value"]), None, tone)


def controls_table(gaps: pd.DataFrame, best: str) -> Table:
    """Return what the best row of features is ahead of each control, in every measure compared."""
    names = list(dict.fromkeys(gaps["measure"]))
    cells = gaps.set_index(["against", "measure"])
    rows = tuple((Cell(other), *(_gap_cell(cells, (other, name)) for name in names)) for other in dict.fromkeys(gaps["against"]))
    note = f"{best} minus each control, paired 95% intervals; above 0 the features are ahead."
    return Table("controls", ("control", *(TITLES[name] for name in names)), rows, note)


def _figure_cell(figure: tuple[float, float | None, float | None] | None) -> Cell:
    if figure is None:
        return Cell("–")
    value, low, high = figure
    text = number(value)
    return Cell(text if low is None or high is None else f"{text} ({number(low)}–{number(high)})", float(value))
