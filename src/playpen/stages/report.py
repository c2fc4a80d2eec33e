"""Write one self-contained page that answers the question of an experiment, with its figures and tables.

    playpen report --title "Demo" --question "Does it help?" --data runs/demo/data \\
        --evaluation runs/demo/evaluation --arms sae sae_0,sae_1 random random_0,random_1

Did training on the subject's choice of rows lower the held-out target loss, by how much, and how sure is that? The
answer is one sentence that is computed, and says first if the subject did not win. Differences are paired by seed and
item (`playpen.paired`: seeds and items as two random factors, with t quantiles). Writes `index.html`, `figures/*.png`,
`report.md`, `summary.txt` and `metrics.json` with every number shown. Nothing is loaded from a network, then or later.
"""

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.constructors import PrimitiveConstructorSpec

from playpen.config import Input, PlaypenError, config, did_you_mean

if TYPE_CHECKING:
    from playpen.machine import Machine
    from playpen.report_page.figures import Draw
    from playpen.report_page.layout import Page, Section
    from playpen.report_page.sections import Findings

VERSION = 3
ON_THE_COMMAND_LINE = PrimitiveConstructorSpec(
    nargs=1,
    metavar="MODEL,MODEL...",
    instance_from_str=lambda words: tuple(words[0].split(",")),
    is_instance=lambda value: isinstance(value, tuple),
    str_from_instance=lambda models: [",".join(models)],
)
"""The models of an arm as one word, because flags cannot tell where a list inside a mapping ends."""


@config
class Config:
    """One page about the arms of an experiment."""

    title: str
    """Heading of the page."""
    question: str
    """The question in plain words; it stands above the answer."""
    data: Input
    """Artifact of build-data that the rows were selected from."""
    evaluation: Input
    """Artifact of evaluate with every model named in `arms` and `reference_models`."""
    arms: dict[str, Annotated[tuple[str, ...], ON_THE_COMMAND_LINE]]
    """Models of each arm in `evaluation`, one a seed, with the seeds in the same order in every arm."""
    subject: str = "sae"
    """The arm that the question is about."""
    baseline: str = "random"
    """The arm that the answer names first; the others follow it."""
    selections: dict[str, Input] = field(default_factory=dict)
    """Selection of each arm's first seed: budgets, overlaps, and the subject's examples; leave out arms that have none."""
    scores: Input | None = None
    """Artifact of attribute: distribution of scores."""
    classifier: Input | None = None
    """Artifact of classify: how well attribution is predicted."""
    predictions: Input | None = None
    """Artifact of predict: distribution of predictions."""
    reference_models: tuple[str, ...] = ()
    """Models in `evaluation` to show beside the arms, such as the base and the first adapter."""
    costs: tuple[Input, ...] = ()
    """Further artifacts for the cost table; the inputs above and all that they were made from are in it anyway."""
    seed: int = 0
    """Seed of drawn sign flips and of the points that large scatter plots show."""


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write the page, its figures, its tables in Markdown, the summary and every number."""
    from playpen.report_page import figures, layout, provenance, sections

    check_arms(config)
    found = find(config)
    draw = figures.pen(out / "figures")
    page = make_page(config, found, draw)
    (out / "index.html").write_text(layout.render_html(page))
    (out / "report.md").write_text(layout.render_markdown(page))
    (out / "summary.txt").write_text(summary(page))
    record: dict[str, Any] = {"question": config.question, "answer": page.answer, "verdict": page.verdict}
    record |= {"subject": config.subject, "baseline": config.baseline, **sections.numbers(found)}
    _write_metrics(out, record | {"classifier": _classifier_metrics(config), "seconds": provenance.costs(_lineage(config))})


def _write_metrics(out: Path, record: dict[str, Any]) -> None:
    from playpen.tables import write_json

    write_json(out / "metrics.json", record)


def check_arms(config: Config) -> None:
    """Refuse arms that cannot be paired."""
    for role, name in (("subject", config.subject), ("baseline", config.baseline)):
        if name not in config.arms:
            raise PlaypenError(f"report: {role} is '{name}', which is no arm{did_you_mean(name, list(config.arms))}")
    if config.subject == config.baseline:
        raise PlaypenError(f"report: subject and baseline are both '{config.subject}'; name two arms")
    seeds = {arm: len(models) for arm, models in config.arms.items()}
    if len(set(seeds.values())) > 1 or 0 in seeds.values():
        raise PlaypenError(f"report: arms are paired by seed, so each needs as many models; found {seeds}")
    for arm in config.selections:
        if arm not in config.arms:
            raise PlaypenError(f"report: selections names '{arm}', which is no arm{did_you_mean(arm, list(config.arms))}")


def find(config: Config) -> "Findings":
    """Read and count everything that the arms have in common."""
    from playpen.report_page import sources, statistics
    from playpen.report_page.sections import Findings
    from playpen.tables import read_truth

    models = [*(model for models in config.arms.values() for model in models), *config.reference_models]
    found = statistics.measures(sources.read_evaluation(config.evaluation, models))
    pool = sources.read_pool(config.data)
    selections = sources.read_selections(config.selections, pool)
    arms = {
        arm: config.arms[arm] for arm in sorted(config.arms, key=lambda arm: (arm != config.subject, arm != config.baseline, arm))
    }
    return Findings(
        arms=arms,
        subject=config.subject,
        references=config.reference_models,
        measures=found,
        differences=statistics.differences(arms, config.subject, found, config.seed),
        selections={arm: selections[arm] for arm in arms if arm in selections},
        pool=pool,
        truth=read_truth(config.data),
        seed=config.seed,
    )


def make_page(config: Config, found: "Findings", draw: "Draw") -> "Page":
    """Put the answer and the sections together."""
    from playpen.report_page import layout, statistics

    primary = {row.arm: row for row in found.differences if row.measure == statistics.LOSS}
    main = primary.pop(config.baseline)
    budget = statistics.budget_text(config.subject, found.selections.get(config.subject))
    return layout.Page(
        title=config.title,
        question=config.question,
        answer=statistics.answer(found.arms, config.subject, main, found.measures[0], budget),
        verdict=statistics.verdict(main),
        tone=main.tone,
        others=tuple((row.arm, statistics.against(row), row.tone) for row in primary.values()),
        sections=tuple(section for section in make_sections(config, found, draw) if section.blocks),
    )


def make_sections(config: Config, found: "Findings", draw: "Draw") -> "list[Section]":
    """Return the parts of the page for which there is input."""
    from playpen.report_page import classifiers, layout, provenance, sections, sources

    scores = {"attribution": config.scores, "predicted": config.predictions}
    read = {name: sources.read_scores(path, found.pool, f"{name} scores") for name, path in scores.items()}
    there = {name: rows for name, rows in read.items() if rows is not None}
    made = [sections.arms_section(found, draw), sections.differences_section(found, draw)]
    if config.classifier is not None:
        made.append(classifiers.classifier_section(_classifier_metrics(config), *_classifier_tables(config.classifier), draw))
    made += [sections.scores_section(found, there, draw)] if there else []
    made += [sections.choice_section(found, draw)] if found.selections else []
    made += [_examples(config, found)] if config.subject in found.selections else []
    manifests = _lineage(config)
    lead = "What each kind of stage took, all its runs together."
    return [*made, layout.Section("What it cost", lead, (provenance.cost_table(manifests),)), provenance.reproduction(manifests)]


def _examples(config: Config, found: "Findings") -> "Section":
    from playpen.report_page import examples, sections, sources

    rows = found.selections[config.subject]
    if found.truth is not None:
        rows = rows.merge(found.truth[["row_id", "skill", "fault"]], on="row_id", how="left")
    kept, rejected = examples.choose(rows)
    messages = sources.read_chats(config.data, [*kept["row_id"], *rejected["row_id"]])
    return sections.examples_section(found, messages, kept, rejected)


def _classifier_metrics(config: Config) -> Mapping[str, Any]:
    from playpen.tables import read_metrics

    if config.classifier is None:
        return {}
    metrics = read_metrics(config.classifier)
    if not {"models", "best"} <= set(metrics):
        raise PlaypenError(f"report: {config.classifier} has no 'models' and 'best' in metrics.json; was it made by classify?")
    known = ("models", "best", "saved", "label", "verdict", "together", "shuffled")
    return {name: metrics[name] for name in known if name in metrics}


def _classifier_tables(classifier: str) -> tuple[Any, Any]:
    """Return the tables `differences`, which classify made none of before its version 2, and `heldout`."""
    import pandas as pd

    from playpen.tables import has_table, read_table

    columns = ["model", "against", "measure", "value", "low", "high"]
    there = has_table(classifier, "differences")
    gaps = read_table(classifier, "differences", columns) if there else pd.DataFrame(columns=columns)
    return gaps, read_table(classifier, "heldout", ["row_id", "model", "label", "score", "prediction"])


def _lineage(config: Config) -> dict[str, dict[str, Any]]:
    from playpen.config import inputs_of
    from playpen.report_page import sources

    return sources.read_lineage(inputs_of(config))


def summary(page: "Page") -> str:
    """Return what the command line prints at the end; `{path}` stands for the artifact's place, other braces are doubled."""
    from playpen.report_page import layout

    table = page.sections[0].blocks[0]
    assert isinstance(table, layout.Table)
    text = "\n".join([page.question, "", layout.render_text(table), "", layout.wrap(page.answer)])
    return text.replace("{", "{{").replace("}", "}}") + "\n\npage: {path}/index.html\n"
