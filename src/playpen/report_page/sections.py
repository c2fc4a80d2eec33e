"""The parts of the page, in the order in which they are read; a part whose input is missing is left out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from playpen.report_page import examples, figures, tabulate
from playpen.report_page.layout import Section
from playpen.report_page.statistics import LOSS, Arms, Difference, Measure, comparison_intervals, overlaps, shares


@dataclass(frozen=True)
class Findings:
    """Everything that was read and counted."""

    arms: Arms
    subject: str
    references: tuple[str, ...]
    measures: list[Measure]
    differences: list[Difference]
    selections: Mapping[str, pd.DataFrame]
    pool: pd.DataFrame
    truth: pd.DataFrame | None
    seed: int

    @property
    def kept(self) -> set[str]:
        """The rows that the subject kept, empty without its selection."""
        chosen = self.selections.get(self.subject)
        return set() if chosen is None else set(chosen.loc[chosen["kept"], "row_id"])


def arms_section(found: Findings, draw: figures.Draw) -> Section:
    """Show the arms side by side."""
    primary = found.measures[0]
    seeds = {arm: primary.mean(models) for arm, models in found.arms.items()}
    spans = comparison_intervals(found.arms, primary)
    references = {name: primary.mean((name,))[0] for name in found.references}
    losses = [row for row in found.differences if not row.measure.startswith("accuracy")]
    table = tabulate.arms_table(found.arms, found.references, found.measures, found.differences, found.selections, found.subject)
    blocks = (
        table,
        figures.arms_figure(draw, seeds, spans, found.subject, references),
        figures.forest_figure(draw, "differences", losses, found.subject, 1, "nats per token", f"← {found.subject} better"),
    )
    lead = "Every arm starts from the same model and is trained on its own choice of rows, with the same seeds."
    return Section("The arms side by side", lead, blocks)


def differences_section(found: Findings, draw: figures.Draw) -> Section:
    """Show every paired difference, and the benchmarks where there are any."""
    accuracies = [row for row in found.differences if row.measure.startswith("accuracy")]
    drawn = (
        figures.forest_figure(draw, "benchmarks", accuracies, found.subject, 100, "percentage points", "") if accuracies else None
    )
    effect = next(row.effect for row in found.differences if row.measure == LOSS)
    lead = (
        f"Each held-out item is compared with itself: {effect.items:,} items times {effect.seeds} "
        f"seed{'s' * (effect.seeds > 1)} for the loss. Intervals answer for other seeds and other items."
    )
    blocks = (tabulate.differences_table(found.differences, found.subject), *([drawn] if drawn else []))
    return Section("Paired differences", lead, blocks)


def scores_section(found: Findings, scores: Mapping[str, pd.DataFrame], draw: figures.Draw) -> Section:
    """Show how scores are spread, and whether length or quality would have done as well."""
    blocks: list[Any] = []
    for name, rows in scores.items():
        what = f"{name} score"
        blocks.append(figures.distribution_figure(draw, f"{name}-scores", rows, found.kept, what, found.subject))
        blocks.append(
            figures.against_figure(draw, f"{name}-length", rows, "num_tokens", "length (tokens)", what, found.kept, found.seed)
        )
        if rows["quality_score"].notna().any():
            label = "quality score (judge's mark)"
            blocks.append(
                figures.against_figure(draw, f"{name}-quality", rows, "quality_score", label, what, found.kept, found.seed)
            )
    lead = "A higher score means that training on the row lowers the target loss more."
    return Section("Scores", lead, tuple(blocks))


def choice_section(found: Findings, draw: figures.Draw) -> Section:
    """Show what the arms took: sources, planted faults and skills where they are known, and what arms share."""
    kinds = {"source": found.pool}
    if found.truth is not None:
        kinds = {"fault": found.truth, "skill": found.truth, **kinds}
    tables = {what: shares(what, known, found.selections) for what, known in kinds.items()}
    blocks = [tabulate.shares_table(f"{what}s", table, what) for what, table in tables.items()]
    drawn = [
        figures.shares_figure(draw, f"{what}s", table, found.subject, what)
        for what, table in tables.items()
        if found.subject in table and len(table) > 1
    ]
    lead = "What kind of rows each arm took, against what there was to take."
    if found.truth is not None:
        lead += " Faults and skills are planted and known; no stage but this one and validate may read them." + _faulty(
            tables["fault"]
        )
    return Section("What was chosen", lead, (*drawn, tabulate.overlap_table(overlaps(found.selections), found.subject), *blocks))


def _faulty(table: pd.DataFrame) -> str:
    if "none" not in table.index:
        return ""

    def faulty(arm: str) -> float:
        return 100 * (1 - float(np.asarray(table.loc["none", arm]).item()))

    parts = [f"{faulty(arm):.0f}% of what {arm} kept" for arm in table.columns if arm != "offered"]
    return f" A fault is in {faulty('offered'):.0f}% of the rows offered, in {', '.join(parts)}."


def examples_section(
    found: Findings, data_chats: Mapping[str, list[dict[str, str]]], kept: pd.DataFrame, rejected: pd.DataFrame
) -> Section:
    """Show kept and rejected examples."""
    lead = f"Read them: would you have chosen as {found.subject} did?"
    return Section("Examples", lead, (examples.chats(kept, rejected, data_chats, found.subject),))


def numbers(found: Findings) -> dict[str, Any]:
    """Return every number of the comparison, for metrics.json."""
    by_arm = {
        arm: {
            measure.name: {"mean": float(np.mean(measure.mean(models))), "seeds": measure.mean(models)}
            for measure in found.measures
        }
        for arm, models in {**found.arms, **{name: (name,) for name in found.references}}.items()
    }
    paired: dict[str, dict[str, Any]] = {}
    for row in found.differences:
        paired.setdefault(row.arm, {})[row.measure] = {
            **vars(row.effect),
            "better": row.better,
            "verdict": row.tone,
            "p_holm": row.p_holm,
        }
    budgets = {
        arm: {"rows": int(rows["kept"].sum()), "tokens": int(rows.loc[rows["kept"], "num_tokens"].sum())}
        for arm, rows in found.selections.items()
    }
    return {"arms": by_arm, "paired": paired, "budgets": budgets, "overlaps": overlaps(found.selections)}
