"""The tables of the report: numbers in, cells out."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from playpen.report_page.layout import Cell, Table, count, num, number, probability, span
from playpen.report_page.statistics import LOSS, Arms, Difference, Measure


def arms_table(
    arms: Arms,
    references: tuple[str, ...],
    found: list[Measure],
    rows: list[Difference],
    kept: Mapping[str, pd.DataFrame],
    subject: str,
) -> Table:
    """Return one row an arm, lowest loss first, then the models that the arms started from."""
    primary = {row.arm: row for row in rows if row.measure == LOSS}
    order = sorted(arms, key=lambda arm: np.mean(found[0].mean(arms[arm])))
    heads = ("arm", *(_head(measure) for measure in found), f"{subject} minus it", "95% interval", "rows", "tokens")
    lines = [_arm_row(arm, arms[arm], found, primary.get(arm), kept.get(arm)) for arm in order]
    lines += [_arm_row(name, (name,), found, None, None) for name in references]
    seeds = len(arms[subject])
    note = (
        f"Mean over {seeds} seed{'s' * (seeds > 1)} (least to greatest in brackets) and over items, every "
        "item counting alike; loss in nats "
        "per supervised token, accuracy in %. Rows and tokens are those of the first seed's selection."
    )
    return Table("arms", heads, tuple(lines), note, strong=subject)


def _head(measure: Measure) -> str:
    kind, _, task = measure.name.partition(": ")
    return "loss" if not task else f"{task} loss" if kind == LOSS else f"{task} (%)"


def _arm_row(
    name: str, models: tuple[str, ...], found: list[Measure], row: Difference | None, kept: pd.DataFrame | None
) -> tuple[Cell, ...]:
    budget = kept[kept["kept"]] if kept is not None else None
    gap = (Cell("–"), Cell("–"))
    if row is not None:
        gap = (num(row.effect.effect, 3, True, tone=row.tone), Cell(span(row.effect.low, row.effect.high), row.effect.low))
    size = (count(len(budget)), count(budget["num_tokens"].sum())) if budget is not None else (Cell("–"), Cell("–"))
    return (Cell(name), *(_seeds_cell(measure, models) for measure in found), *gap, *size)


def _seeds_cell(measure: Measure, models: tuple[str, ...]) -> Cell:
    digits, scale = (3, 1) if measure.lower_is_better else (1, 100)
    values = [value * scale for value in measure.mean(models)]
    text = number(float(np.mean(values)), digits)
    if measure.name == LOSS and len(values) > 1:
        text += f" ({number(min(values), digits)}–{number(max(values), digits)})"
    return Cell(text, float(np.mean(values)))


def differences_table(rows: list[Difference], subject: str) -> Table:
    """Return every paired difference, losses in nats and accuracies in percentage points."""
    heads = ("against", "measure", "difference", "95% interval", "p (items)", "p (Holm)", "p (seeds)", f"seeds won by {subject}")
    note = (
        f"{subject} minus the other arm: losses in nats per token (below 0 is better), accuracies in percentage points "
        "(above 0 is better). p (items): sign-flip over items for these very runs; Holm: adjusted for all "
        "arms, primary measure only; "
        "p (seeds): exact sign-flip over seeds, which can not fall below 2 / 2^seeds."
    )
    return Table("differences", heads, tuple(_difference_row(row) for row in rows), note)


def _difference_row(row: Difference) -> tuple[Cell, ...]:
    effect, accuracy = row.effect, row.measure.startswith("accuracy")
    scale, digits = (100, 1) if accuracy else (1, 3)
    return (
        Cell(row.arm),
        Cell(row.measure),
        num(effect.effect * scale, digits, True, tone=row.tone),
        Cell(span(effect.low * scale, effect.high * scale, digits), effect.low),
        Cell(probability(effect.p_items), effect.p_items),
        Cell(probability(row.p_holm), row.p_holm),
        Cell(probability(effect.p_seeds), effect.p_seeds),
        Cell(f"{row.better} of {effect.seeds}", row.better),
    )


def overlap_table(found: Mapping[str, Mapping[str, int]], subject: str) -> Table:
    """Return how many kept rows each pair of arms shares."""
    rows = tuple((Cell(arm), *(count(shared[other]) for other in found)) for arm, shared in found.items())
    return Table(
        "overlap", ("arm", *found), rows, "Rows that both arms kept; on the diagonal, all that an arm kept.", strong=subject
    )


def shares_table(name: str, shares: pd.DataFrame, what: str) -> Table:
    """Return the share of each kind among rows offered and kept, in % with bars."""
    most = float(shares.to_numpy().max()) or 1.0
    rows = tuple(
        (Cell(str(label)), *(num(value * 100, 1, bar=value / most) for value in shares.loc[label])) for label in shares.index
    )
    note = f"Share of rows by {what}, in %: of all rows offered, and of those that each arm kept (first seed)."
    return Table(name, (what, *shares.columns), rows, note, folded=True)
