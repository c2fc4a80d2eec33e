"""The page of evidence: every claim, then what each rests on, what it cost, and how to make it again."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from playpen import comparison_page, validation_page
from playpen.evidence import Claim, Found, answer
from playpen.report_page import classifiers, figures, layout, provenance
from playpen.report_page.layout import Cell, Page, Section, Table, num
from playpen.scorer_costs import Cost, costs_table, ratio

if TYPE_CHECKING:
    from playpen.stages.evidence import Config


def make_page(config: "Config", found: Found, made: list[Claim], costs: list[Cost], draw: figures.Draw) -> Page:
    """Put the answer and all sections together; figures are drawn by `draw`."""
    failed = sum(not claim.holds for claim in made)
    sections = [
        Section(
            "The claims",
            known_before(found),
            (claims_table(made, [name for name in found.controls if name not in found.needed.controls]),),
        ),
        *validation_sections(config, found, draw),
        classifiers.classifier_section(found.classified, found.gaps, found.heldout, draw),
        arms_section(found, draw),
        Section("What was planned", comparison_page.planned_text(found.plan, found.planned), ()),
        costs_section(config, found, costs),
        Section(
            "What it cost", "What each kind of stage took, all its runs together.", (provenance.cost_table(found.manifests),)
        ),
        provenance.reproduction(found.manifests),
    ]
    return Page(
        title=config.title,
        question="What holds against a sceptic, and what does not",
        answer=answer(config, found, made),
        verdict=f"{len(made) - failed} of {len(made)} claims hold",
        tone="bad" if failed else "good",
        others=(),
        sections=tuple(sections),
        verb="evidence",
    )


def known_before(found: Found) -> str:
    """Say where thresholds stand, and what had been started before them: its figures could have been known."""
    when = found.planned["provenance"]["started"]
    names = [f"the {name}" for name, made in found.inputs.items() if made["provenance"]["started"] < when]
    older = f"Started before it, so that their figures could be known: {layout.listing(names)}." if names else ""
    return f"What each needs stands in the plan {found.planned['directory']}, made {when}, before any of its arms was trained. {older}".rstrip()


def write_page(page: Page, out: Path) -> None:
    """Write `index.html`, `report.md` and `summary.txt`, in which `{path}` stands for the artifact's place."""
    (out / "index.html").write_text(layout.render_html(page))
    (out / "report.md").write_text(layout.render_markdown(page))
    table = page.sections[0].blocks[0]
    assert isinstance(table, Table)
    text = "\n".join([layout.render_text(table), "", layout.wrap(page.answer)]).replace("{", "{{").replace("}", "}}")
    (out / "summary.txt").write_text(text + "\n\npage: {path}/index.html\n")


def claims_table(made: list[Claim], unused: list[str]) -> Table:
    """Return one row a claim, those that do not hold first; `unused` are controls that no claim is about."""
    rows = tuple(
        (
            Cell(claim.claim),
            num(claim.value, 4, tone="good" if claim.holds else "bad"),
            num(claim.needed, 4),
            Cell("yes" if claim.holds else "no"),
        )
        for claim in sorted(made, key=lambda claim: claim.holds)
    )
    note = (
        "Found and needed: the figure itself or, for what must be ahead, the lower end of the 95% interval and what it must exceed; "
        "for arms p, adjusted over the planned family, and the level. A dash is not defined, and does not hold."
    )
    note += f" Controls of the report that no claim is about: {layout.listing(unused)}." if unused else ""
    return Table("claims", ("claim", "found", "needed", "holds"), rows, note)


def validation_sections(config: "Config", found: Found, draw: figures.Draw) -> list[Section]:
    """Return the sections of validate, with a figure of the LDS in the first."""
    first, *rest = validation_page.sections(found.judged, found.reference, found.validated["rows"])
    lds = found.judged["lds"]
    figure = figures.lds_figure(draw, lds[lds["form"] == "keep_half"], config.subject, found.reference)
    return [replace(first, blocks=(figure, *first.blocks)), *rest]


def arms_section(found: Found, draw: figures.Draw) -> Section:
    """Show every arm: the effects, the losses at the largest budget, and effect against budget where there are several."""
    plan = found.plan
    blocks = [comparison_page.effects_table(found.effects, plan, found.sizes)]
    blocks += [comparison_page.arms_figure(draw, found.losses, plan, max(plan.budgets))]
    blocks += [comparison_page.budget_figure(draw, found.effects, plan)] if len(plan.budgets) > 1 else []
    lead = f"{plan.seeds} seeds, {found.losses['row_id'].nunique():,} held-out rows; every arm starts from the same model."
    return Section("Training on each choice", lead, tuple(blocks))


def costs_section(config: "Config", found: Found, costs: list[Cost]) -> Section:
    """Show what a thousand rows cost by each scorer."""
    named = {cost.name: cost for cost in costs}
    lead = ratio(named[found.reference], named[config.subject])
    return Section("What scoring costs", lead, (costs_table(costs, config.subject),))
