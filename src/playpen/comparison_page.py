"""The page of a comparison: the verdict, every rival with its interval, effect against budget, and how it was made."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from playpen.comparison import matrix
from playpen.report_page import drawing, figures, layout, provenance, sources
from playpen.report_page.layout import Cell, Page, Section, Table, count, num, number, probability, span

if TYPE_CHECKING:
    from playpen.stages.compare import Config
    from playpen.stages.preregister import Config as Plan


def write_page(
    out: Path,
    config: "Config",
    plan: "Plan",
    found: pd.DataFrame,
    asked: pd.DataFrame,
    losses: pd.DataFrame,
    sizes: pd.DataFrame,
) -> None:
    """Write `index.html`, `report.md` and their figures."""
    manifests = sources.read_lineage([config.plan, config.model, config.data, *([config.init] if config.init else [])])
    draw, largest = figures.pen(out / "figures"), max(plan.budgets)
    blocks = [effects_table(found, plan, sizes)]
    blocks += [arms_figure(draw, losses, plan, budget) for budget in plan.budgets]
    blocks += [budget_figure(draw, found, plan)] if len(plan.budgets) > 1 else []
    lead = f"{plan.seeds} seeds, {losses['row_id'].nunique():,} held-out rows; every arm starts from the same model."
    made = sources.read_lineage([config.plan])
    planned = [manifest for manifest in made.values() if manifest["kind"] == "preregister"][-1]
    page = Page(
        title=config.title,
        question=f"Does what {plan.subject} picks lower the held-out target loss against every rival, at the same number of tokens?",
        answer=" ".join(answer(found, plan, budget) for budget in sorted(plan.budgets, reverse=True)),
        verdict="",
        tone=tone_of(found[found["budget"] == largest]),
        others=(),
        sections=(
            Section("The arms", lead, tuple(blocks)),
            *items_section(asked, plan),
            Section("What was planned", planned_text(plan, planned), ()),
            Section("What it cost", "What each kind of stage took, all its runs together.", (provenance.cost_table(manifests),)),
            provenance.reproduction(manifests),
        ),
        verb="compare",
    )
    (out / "index.html").write_text(layout.render_html(page))
    (out / "report.md").write_text(layout.render_markdown(page))


def tone(row: Any) -> str:
    """Return `good`, `bad` or `open`: the interval is below 0, above it, or holds it."""
    return "good" if row.high < 0 else "bad" if row.low > 0 else "open"


def tone_of(rows: pd.DataFrame) -> str:
    """Return the tone of the whole: that of the family's worst."""
    tones = {tone(row) for row in rows[rows["in_family"]].itertuples()}
    return "bad" if "bad" in tones else "open" if "open" in tones else "good"


def answer(found: pd.DataFrame, plan: "Plan", budget: int) -> str:
    """Return the outcome in two sentences, those that the subject did not beat first."""
    mine, level = found[(found["budget"] == budget) & found["in_family"]], plan.needed.level
    won: list[str] = mine.loc[(mine["effect"] < 0) & (mine["p_holm"] < level), "arm"].tolist()
    lost: list[str] = mine.loc[(mine["effect"] > 0) & (mine["p_holm"] < level), "arm"].tolist()
    unclear = [arm for arm in mine["arm"] if arm not in (*won, *lost)]
    parts = [f"lost to {layout.listing(lost)}"] if lost else []
    parts += [f"cannot be told apart from {layout.listing(unclear)}"] if unclear else []
    parts += [f"beat {layout.listing(won)}"] if won else []
    values = "; ".join(
        f"{row['arm']} {number(row['effect'], 3, True)} ({span(row['low'], row['high'])})" for row in mine.to_dict("records")
    )
    count = len(found[found["in_family"]])
    return (
        f"{powerless(plan)}{plan.subject} {'; it '.join(parts)} (needed: p < {level:g}, adjusted for {count} comparison{'s' * (count > 1)}), each "
        f"within {budget:,} tokens. Its held-out loss minus theirs, nats a token: {values}."
    )


def powerless(plan: "Plan") -> str:
    """Return a warning where no effect, however large, could have reached the planned level; else nothing."""
    if plan.least_p < plan.needed.level:
        return ""
    return (
        f"{plan.seeds} seed{'s' * (plan.seeds > 1)} give no adjusted p below {plan.least_p:.2g}, so this plan could tell no arm apart at its level "
        f"of {plan.needed.level:g}: read the intervals. "
    )


def planned_text(plan: "Plan", manifest: dict[str, Any]) -> str:
    """Return what was fixed before the first arm was trained, and when."""
    claim = f"Claim: {plan.claim} " if plan.claim else ""
    others = earlier_comparisons(manifest)
    looked = (
        f"Comparisons that had been started before lie beside it: {', '.join(others)}."
        if others
        else "No comparison beside it is older."
    )
    return (
        f"{claim}Rows, seeds, settings, family, test and level of this comparison are those of {manifest['directory']}, made "
        f"{manifest['provenance']['started']}; it was found unchanged, and compare chooses nothing. {looked} Seeds are those of trainings and draws: "
        "there is one base model, first adapter, classifier and target, and intervals do not answer for others."
    )


def earlier_comparisons(plan: dict[str, Any]) -> list[str]:
    """Return the artifacts of compare, beside a plan, that were started before it was made."""
    from playpen.artifact import MANIFEST, read_manifest

    beside = [read_manifest(file.parent) for file in sorted(Path(plan["path"]).parent.glob(f"*/{MANIFEST}"))]
    when = plan["provenance"]["started"]
    return [
        f"{each['name']}-{each['fingerprint']}"
        for each in beside
        if each["kind"] == "compare" and each["provenance"]["started"] < when
    ]


def effects_table(found: pd.DataFrame, plan: "Plan", sizes: pd.DataFrame) -> Table:
    """Return one row a budget and arm, the lowest loss first."""
    heads = ("arm", "budget", "tokens", "rows", "answer tokens", "steps", "loss", f"{plan.subject} minus it", "95% interval")
    heads += ("p (Holm)", "p (seeds)", "p (rows)", "p (both)", "seeds won", "rows won")
    rows = []
    for budget in plan.budgets:
        here = found[found["budget"] == budget]
        subject = (Cell(plan.subject), Cell(f"{budget:,}", budget), *_size(sizes, budget, plan.subject))
        rows.append((here["subject_loss"].iloc[0], (*subject, num(here["subject_loss"].iloc[0]), *[Cell("")] * 8)))
        rows += [(row.loss, _row(row, sizes)) for row in here.itertuples()]
    ordered = sorted(rows, key=lambda row: (row[1][1].sort or 0, row[0]))
    note = (
        f"Tokens, rows and answer tokens of an arm, once each, and its optimiser steps in all epochs: means over seeds; of short rows "
        f"a budget in tokens takes more, and so more steps. Loss in nats a token. {plan.subject} minus the arm: below 0, {plan.subject} is better. p: two-sided, sign-flip over seeds and over "
        "rows, Student's t over both; Holm adjusts the largest of the three over the planned family and all budgets. Won: share in which the subject's loss is lower."
    )
    return Table("effects", heads, tuple(cells for _, cells in ordered), note, strong=plan.subject)


def items_section(asked: pd.DataFrame, plan: "Plan") -> tuple[Section, ...]:
    """Return the secondary endpoint: how each arm answers multiple-choice items; empty where none was asked."""
    if asked.empty:
        return ()
    tasks = asked.drop_duplicates("task")[["task", "items"]].to_dict("records")
    named = layout.listing([f"{row['items']:,} of {row['task']}" for row in tasks if row["task"]])
    lead = (
        f"{named}, asked of every trained arm: a secondary endpoint, paired by seed and item. It is outside the planned family, its p is adjusted "
        "for nothing, and no claim rests on it."
    )
    titles = [f"Items answered{': ' + row['task'] if row['task'] else ''}" for row in tasks]
    tables = [(items_table(asked, plan, row["task"]),) for row in tasks]
    return tuple(
        Section(title, lead if i == 0 else "", table) for i, (title, table) in enumerate(zip(titles, tables, strict=True))
    )


def items_table(asked: pd.DataFrame, plan: "Plan", task: str) -> Table:
    """Return one row a budget and arm, the highest accuracy first; `task` "" is all items together."""
    heads = ("arm", "budget", "accuracy", f"{plan.subject} minus it", "95% interval", "p")
    heads += ("margin", f"{plan.subject} minus it", "95% interval", "p")
    rows = []
    for budget in plan.budgets:
        here = asked[(asked["task"] == task) & (asked["budget"] == budget)]
        accuracy, margin = (here[here["measure"] == measure].set_index("arm") for measure in ("accuracy", "margin"))
        own = [frame["subject_value"].iloc[0] for frame in (accuracy, margin)]
        subject = (percent(own[0]), *[Cell("")] * 3, num(own[1]), *[Cell("")] * 3)
        rows.append((own[0], (Cell(plan.subject), Cell(f"{budget:,}", budget), *subject)))
        for arm in accuracy.index:
            cells = (*_answered(accuracy.loc[arm], True), *_answered(margin.loc[arm], False))
            rows.append((accuracy.loc[arm, "value"], (Cell(arm), Cell(f"{budget:,}", budget), *cells)))
    ordered = sorted(rows, key=lambda row: (row[1][1].sort or 0, -row[0]))
    note = (
        f"{'Items of ' + task if task else 'All items together'}. Accuracy: share of items whose right choice has the greatest log-likelihood. Margin: nats by which it leads the best wrong "
        f"one. {plan.subject} minus the arm: above 0, {plan.subject} is better; of accuracies, in percentage points."
    )
    return Table(f"items_{task or 'all'}", heads, tuple(cells for _, cells in ordered), note, strong=plan.subject)


def percent(share: float) -> Cell:
    """Return a share as a cell."""
    return Cell(f"{100 * share:.1f}%", share)


def _answered(row: Any, share: bool) -> tuple[Cell, ...]:
    scale, digits = (100, 1) if share else (1, 3)
    good = "good" if row["low"] > 0 else "bad" if row["high"] < 0 else "open"
    reach = Cell(span(scale * row["low"], scale * row["high"], digits), row["low"])
    value = percent(row["value"]) if share else num(row["value"])
    effect = num(scale * row["effect"], digits, True, tone=good)
    return value, effect, reach, Cell(probability(row["p"]), row["p"])


def _row(row: Any, sizes: pd.DataFrame) -> tuple[Cell, ...]:
    place = (Cell(row.arm), Cell(f"{row.budget:,}", row.budget), *_size(sizes, row.budget, row.arm), num(row.loss))
    tests = tuple(
        Cell(probability(None if np.isnan(p) else p), None if np.isnan(p) else p)
        for p in (row.p_holm, row.p_seeds, row.p_rows, row.p_both)
    )
    won = tuple(Cell(f"{100 * share:.0f}%", share) for share in (row.seeds_won, row.rows_won))
    return (*place, num(row.effect, 3, True, tone=tone(row)), Cell(span(row.low, row.high), row.low), *tests, *won)


def _size(sizes: pd.DataFrame, budget: int, arm: str) -> tuple[Cell, ...]:
    found: Any = sizes.loc[(budget, arm)]
    return tuple(count(float(found[what])) for what in ("tokens", "rows", "labels", "steps"))


def arms_figure(draw: figures.Draw, losses: pd.DataFrame, plan: "Plan", budget: int) -> layout.Figure:
    """Draw the loss of each arm, a ring a seed."""
    from dataclasses import replace

    from playpen.paired import interval

    values = {arm: matrix(losses, budget, arm) for arm in plan.arms if plan.arms[arm].kind not in ("everything", "nothing")}
    seeds = {arm: each.mean(axis=1).tolist() for arm, each in values.items()}
    centre, spread = np.mean(list(values.values()), axis=0), np.sqrt(len(values) / max(1, len(values) - 1))
    spans = {}
    for arm, each in values.items():  # Cousineau 2005, Morey 2008: without what all arms share
        low, high = interval(spread * (each - centre))
        middle = float(spread * (each - centre).mean())
        spans[arm] = (float(each.mean()) + low - middle, float(each.mean()) + high - middle)
    free = [arm for arm in plan.arms if arm not in values]
    named: figures.Draw = lambda name, *rest: draw(f"{name}_{budget}", *rest)  # noqa: E731
    figure = figures.arms_figure(
        named, seeds, spans, plan.subject, {arm: float(matrix(losses, budget, arm).mean()) for arm in free}
    )
    return replace(figure, caption=f"At {budget:,} tokens. {figure.caption}")


def budget_figure(draw: figures.Draw, found: pd.DataFrame, plan: "Plan") -> layout.Figure:
    """Draw the effect against the budget, a line an arm of the family."""
    names = found.loc[found["in_family"], "arm"].unique()

    def paint(axes: Any) -> None:
        axes.axhline(0, color=drawing.INK, lw=0.9)
        for i, arm in enumerate(names):
            mine = found[found["arm"] == arm].sort_values("budget")
            color = drawing.SERIES[i % len(drawing.SERIES)]
            axes.plot(mine["budget"], mine["effect"], "-o", color=color, ms=4, lw=1.4, label=arm)
            axes.fill_between(mine["budget"], mine["low"], mine["high"], color=color, alpha=0.12, lw=0)
        axes.set_xscale("log")
        axes.set_xticks(sorted(plan.budgets), [f"{budget:,}" for budget in sorted(plan.budgets)])
        axes.minorticks_off()
        axes.set_xlabel("tokens trained on")
        axes.set_ylabel(f"{plan.subject} minus the arm (nats a token)")
        axes.legend()

    told = found[found["in_family"]].to_dict("records")
    points = "; ".join(f"{row['arm']} at {row['budget']:,}: {number(row['effect'], 3, True)}" for row in told)
    caption = f"Below 0, {plan.subject} has the lower loss. Bands: 95% intervals over seeds and rows."
    return draw("budgets", paint, f"Effect against budget: {points}.", caption, 3.4)
