"""Draw the training graphs of sparse autoencoders, of one run or of several side by side, from our histories or from W&B.

    playpen graphs --saes runs/demo/sae --root runs/mine
    playpen graphs --saes runs/mine/small runs/mine/large --wandb me/saes/1a2b3c4d --labels small large SAELens

Loss, L0, explained variance, dead features, CE-loss score, learning rate and feature density, each as a PNG and all on one
self-contained page. Runs lie over each other in the same axes; what a run has no numbers for is left out of a graph, and the
page says so. W&B's runs may be of SAELens or of our own trainings (`--machine.tracker wandb`).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import model_validator
from tyro.conf import arg

from playpen.config import File, Input, PlaypenError, config

if TYPE_CHECKING:
    from playpen.machine import Machine
    from playpen.report_page.layout import Figure, Page, Table
    from playpen.run_history import RunHistory

VERSION = 1


@config
class Config:
    """The training graphs of one run, or of several side by side."""

    saes: tuple[Input, ...] = ()
    """Artifacts of train-sae; the variants in them are runs of their own."""
    wandb: Annotated[tuple[str, ...], arg(metavar="ENTITY/PROJECT/RUN ...")] = ()
    """Runs on the W&B server, as entity/project/run. They are read once: an ended run does not change."""
    wandb_offline: tuple[File, ...] = ()
    """Directories of offline runs, as wandb/offline-run-20260102_030405-1a2b3c4d, or the .wandb files in them."""
    labels: tuple[str, ...] = ()
    """Names of the runs on the page, in the order above; left out, those that they have."""
    title: str = "How the SAE learnt"
    """Heading of the page."""

    @model_validator(mode="after")
    def _some(self) -> "Config":
        if not (self.saes or self.wandb or self.wandb_offline):
            raise PlaypenError("graphs: no run is named; give saes, wandb or wandb_offline")
        return self


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write `figures/*.png`, `index.html` and `metrics.json`."""
    from playpen.report_page import drawing, layout
    from playpen.tables import write_json
    from playpen.training_figures import figures

    runs = read_runs(config)
    drawn = figures(lambda *what: drawing.picture(out / "figures", *what), runs)
    (out / "index.html").write_text(layout.render_html(make_page(config, runs, drawn)))
    write_json(out / "metrics.json", {"runs": numbers(runs), "graphs": list(drawn)})


def read_runs(config: Config) -> "list[RunHistory]":
    """Read every run, and give each a name of its own."""
    from playpen.run_history import read_trained
    from playpen.wandb_runs import read_offline, read_online

    runs = [found for sae in config.saes for found in read_trained(sae)]
    runs += [read_online(path) for path in config.wandb]
    runs += [read_offline(place) for place in config.wandb_offline]
    return name_runs(runs, config.labels)


def name_runs(runs: "list[RunHistory]", labels: tuple[str, ...]) -> "list[RunHistory]":
    """Give the runs their labels; without labels, runs of the same name are numbered."""
    from dataclasses import replace

    names = [found.label for found in runs]
    if labels and len(labels) != len(runs):
        raise PlaypenError(f"graphs: {len(labels)} labels for {len(runs)} runs ({', '.join(names)}); give one a run, or none")
    if len(set(labels)) < len(labels):
        raise PlaypenError(f"graphs: labels names two runs alike: {', '.join(labels)}")
    own = [name if names.count(name) == 1 else f"{name} ({names[: place + 1].count(name)})" for place, name in enumerate(names)]
    return [replace(found, label=label) for found, label in zip(runs, labels or own, strict=True)]


def numbers(runs: "list[RunHistory]") -> "dict[str, Any]":
    """Return the final numbers of each run, by label, with whether each was measured on tokens set aside."""
    found = {}
    for one in runs:
        lasts = {name: one.last(name) for name in MEASURES}
        there = {
            name: {"value": value, "evaluated": evaluated} for name, (value, evaluated) in lasts.items() if value is not None
        }
        never = {} if one.density is None else {"never_active": one.density.never}
        found[one.label] = {"origin": Path(one.origin).name, "tokens": one.tokens, "final": there, **never}
    return found


MEASURES = {
    "loss": ("training loss", 3, 1),
    "l0": ("L0", 1, 1),
    "explained_variance": ("explained variance", 3, 1),
    "dead_fraction": ("dead features (%)", 2, 100),
    "ce_score_zero": ("CE score, zeros", 3, 1),
    "ce_score_mean": ("CE score, mean", 3, 1),
}
"""Columns of the table: head, digits, and the factor of what is shown."""


def final_table(runs: "list[RunHistory]") -> "Table":
    """Return the final numbers, one row a run."""
    from playpen.report_page.layout import Cell, Table, count, number

    def cell(one: "RunHistory", name: str) -> Cell:
        (_, digits, scale), (value, evaluated) = MEASURES[name], one.last(name)
        if value is None:
            return Cell("–")
        return Cell(number(value * scale, digits) + ("" if evaluated or name == "loss" else "*"), value)

    rows = tuple((Cell(one.label), count(one.tokens), *(cell(one, name) for name in MEASURES)) for one in runs)
    note = (
        "Measured on tokens set aside for it, at the end (SAELens: tokens of its training stream, at its last evaluation); the loss "
        "and what has a * are of the last training batch that was noted. A dash: never measured."
    )
    return Table("final", ("run", "tokens", *(head for head, _, _ in MEASURES.values())), rows, note)


def settings_table(runs: "list[RunHistory]") -> "Table | None":
    """Return the settings that all runs have and not all alike; None when there is none."""
    from playpen.report_page.layout import Cell, Table
    from playpen.run_history import settings_that_differ

    differing = dict(settings_that_differ(runs))
    if not differing:
        return None
    rows = tuple((Cell(name), *(Cell(str(value)) for value in values)) for name, values in differing.items())
    note = "Settings that the configs of all runs hold with different values; an input is its fingerprint."
    return Table("settings", ("setting", *(one.label for one in runs)), rows, note, folded=len(rows) > 12)


def make_page(config: Config, runs: "list[RunHistory]", drawn: "dict[str, Figure]") -> "Page":
    """Put the graphs and tables together."""
    from playpen.report_page.layout import Page, Section, listing
    from playpen.training_figures import NAMES

    missing = [title for name, title in NAMES.items() if name not in drawn]
    lead = f"No run has numbers for {listing(missing)}." if missing else ""
    sections = [Section("Graphs", lead, tuple(drawn.values())), Section("Final numbers", "", (final_table(runs),))]
    differing = settings_table(runs) if len(runs) > 1 else None
    if differing is not None:
        sections.append(Section("What the runs were told", "", (differing,)))
    return Page(
        title="SAE training graphs",
        question=config.title,
        answer=answer(runs),
        verdict="",
        tone="open",
        others=(),
        sections=tuple(sections),
        verb="graphs",
    )


def answer(runs: "list[RunHistory]") -> str:
    """Return the sentence at the head of the page: what each run came to."""
    from playpen.graph_axes import tokens_text
    from playpen.report_page.layout import number

    def told(one: "RunHistory") -> str:
        share, l0 = one.last("explained_variance")[0], one.last("l0")[0]
        percent = None if share is None else 100 * share
        return f"{one.label} explains {number(percent, 1)}% of the variance with {number(l0, 1)} active features a token"

    if len(runs) > 1:
        more = f"; {len(runs) - 4} more are below" if len(runs) > 4 else ""
        return "; ".join(told(one) for one in runs[:4]) + more + "."
    dead, score = runs[0].last("dead_fraction")[0], runs[0].last("ce_score_zero")[0]
    rest = f" {number(100 * dead, 2)}% of its features are dead." if dead is not None else ""
    rest += f" Its CE-loss score is {number(score)}." if score is not None else ""
    return f"After {tokens_text(runs[0].tokens)} training tokens, {told(runs[0])}.{rest}"
