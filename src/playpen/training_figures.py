"""The graphs of SAE trainings: of one run by itself, of several laid over each other in the same axes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from playpen.graph_axes import (
    Axis,
    frame_tokens,
    frame_values,
    height_of,
    name_text,
    power_text,
    put_legend,
    rate_text,
    thin,
)
from playpen.report_page.drawing import SERIES, grid
from playpen.report_page.layout import Figure, listing, number
from playpen.run_history import Density, RunHistory

Draw = Callable[[str, Callable[[Any], None], str, str, float], Figure]
DASHES = ("-", (0, (4, 1.6)), (0, (1.2, 1.4)), (0, (5, 1.4, 1.2, 1.4)))
MARKERS = ("o", "s", "^", "D")
"""Lines and marks of runs: the next ones when the colours come again."""
LINE = {"lw": 1.5}
DOTS = {"ls": "", "ms": 4.8, "mew": 0, "zorder": 3}
FILLED = {"ls": "-", "lw": 1.1, "ms": 4.8, "mew": 1.1}
RINGS = {**FILLED, "ls": (0, (3, 2)), "mfc": "none"}


@dataclass(frozen=True)
class Series:
    """One curve of a run in a graph."""

    measure: str
    evaluated: bool
    told: str
    """What it is, where the graph shows one run."""
    style: dict[str, Any]


@dataclass(frozen=True)
class Graph:
    """What is drawn over training tokens."""

    name: str
    axis: Axis
    caption: str
    series: tuple[Series, ...]


def _one(measure: str) -> tuple[Series, ...]:
    return (Series(measure, False, "training batches", LINE),)


def _both(measure: str) -> tuple[Series, ...]:
    return (*_one(measure), Series(measure, True, "evaluation", DOTS))


GRAPHS = (
    Graph(
        "loss",
        Axis("training loss", may_be_log=True),
        "The lower the better, but only runs of the same loss and scale can be compared by it.",
        _one("loss"),
    ),
    Graph(
        "l0",
        Axis("active features a token (L0)", digits=1, least=0, may_be_log=True),
        "More rebuild better and mean less each, so compare the other graphs at like L0.",
        _both("l0"),
    ),
    Graph(
        "explained_variance",
        Axis("explained variance", most=1),
        "The share of the activations' variance that is rebuilt.",
        _both("explained_variance"),
    ),
    Graph(
        "dead_fraction",
        Axis("dead features (%)", digits=2, scale=100, least=0, most=100),
        "In training: silent for a window of tokens. In an evaluation: silent on all of its tokens.",
        _both("dead_fraction"),
    ),
    Graph(
        "ce_score",
        Axis("CE-loss score", most=1),
        "The share of the cross-entropy that comes back when rebuilt activations stand where an ablation stood; at 1 the model is "
        "as good as without the SAE. The ablation is by zeros (dots) or, which is harder to beat, by the mean activation (rings).",
        (Series("ce_score_zero", True, "against zeros", FILLED), Series("ce_score_mean", True, "against the mean", RINGS)),
    ),
    Graph("lr", Axis("learning rate", least=0, ticks=rate_text), "The schedule of the optimiser.", _one("lr")),
)
DENSITY = "density"
NAMES = {graph.name: graph.axis.label for graph in GRAPHS} | {DENSITY: "feature density"}
"""Every graph, with what it is called."""


def figures(draw: Draw, runs: Sequence[RunHistory]) -> dict[str, Figure]:
    """Return every graph for which at least one run has numbers, by name."""
    drawn = {graph.name: curves_figure(draw, runs, graph) for graph in GRAPHS} | {DENSITY: density_figure(draw, runs)}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def curves_figure(draw: Draw, runs: Sequence[RunHistory], graph: Graph) -> Figure | None:
    """Draw a graph over training tokens; None when no run has numbers for it."""
    drawn = [run for run in runs if any(len(run.curve(one.measure, one.evaluated)) for one in graph.series)]
    if not drawn:
        return None
    names = [run.label for run in drawn] if len(runs) > 1 else [series.told for series in graph.series]
    lasts = [f"{run.label} {graph.axis.text(run.last(graph.series[0].measure)[0])}" for run in drawn]
    alt = f"{graph.axis.label[0].upper()}{graph.axis.label[1:]} by training tokens; at the end {', '.join(lasts)}."
    marks = " Lines are of training batches, dots of evaluations." if len(runs) > 1 and graph.series[-1].style is DOTS else ""
    caption = graph.caption + marks + _without(runs, drawn)
    return draw(graph.name, lambda axes: _paint(axes, runs, graph), alt, caption, height_of(names))


def _without(runs: Sequence[RunHistory], drawn: Sequence[RunHistory]) -> str:
    names = [run.label for run in runs if run not in drawn]
    return f" Not drawn, for want of numbers: {listing(names)}." if names else ""


def _look(place: int) -> tuple[str, Any, str]:
    """Return (colour, line, mark) of a run by its place."""
    turn = place // len(SERIES) % len(DASHES)
    return SERIES[place % len(SERIES)], DASHES[turn], MARKERS[turn]


def _paint(axes: Any, runs: Sequence[RunHistory], graph: Graph) -> None:
    shown, alone = [], len(runs) == 1
    for place, run in enumerate(runs):
        color, dash, mark = _look(place)
        label = name_text(run.label)
        for nth, series in enumerate(graph.series):
            curve = thin(run.curve(series.measure, series.evaluated))
            if not len(curve):
                continue
            style = {"color": SERIES[nth] if alone else color, "label": series.told if alone else label, **series.style}
            style |= {"marker": mark} if series.evaluated else {"ls": dash}
            axes.plot(curve["tokens"], curve["value"] * graph.axis.scale, **style)
            label = None
            shown.append(curve)
    frame_tokens(axes, shown)
    frame_values(axes, shown, graph.axis)
    put_legend(axes)
    grid(axes, "y")


def density_figure(draw: Draw, runs: Sequence[RunHistory]) -> Figure | None:
    """Draw how many features are active how often, on a log scale; None when no run knows."""
    drawn = [(run, run.density) for run in runs if run.density is not None]
    if not drawn:
        return None
    never = [f"{number(100 * density.never, 2)}% of {run.label}" for run, density in drawn]
    middle = [f"{run.label} {power_text(round(median(density), 1))}" for run, density in drawn]
    alt = f"Histogram of the features' density on a log scale; median of those ever active: {', '.join(middle)}."
    caption = (
        "On the left are features that hardly ever fire, on the right those that nearly always do. A height is the share of all "
        f"features for a factor of ten, so that runs of any width compare. Never active, and nowhere in it: {listing(never)}."
    )
    names = [run.label for run, _ in drawn]
    return draw(
        DENSITY,
        lambda axes: _paint_density(axes, runs),
        alt,
        caption + _without(runs, [run for run, _ in drawn]),
        height_of(names),
    )


def _paint_density(axes: Any, runs: Sequence[RunHistory]) -> None:
    lows = [-1.0]
    for place, run in enumerate(runs):
        if run.density is None:
            continue
        (color, dash, _), heights, edges = _look(place), 100 * run.density.per_decade, run.density.edges
        if len(runs) == 1:
            axes.stairs(heights, edges, fill=True, color=color, alpha=0.14, lw=0)
        axes.stairs(heights, edges, color=color, lw=1.4, ls=dash, label=name_text(run.label))
        lows += edges[:-1][run.density.counts > 0].tolist()
    axes.set(xlim=(min(lows), 0), ylim=(0, None), xlabel="share of tokens on which a feature is active")
    axes.set_ylabel("features (% a decade)")
    axes.set_xticks(np.arange(np.ceil(min(lows)), 0.5))
    axes.xaxis.set_major_formatter(lambda value, _: power_text(value))
    put_legend(axes)
    grid(axes, "y")


def median(density: Density) -> float:
    """Return log10 of the median density of the features that were ever active."""
    below = np.concatenate([[0.0], np.cumsum(density.counts)])
    return float(np.interp(below[-1] / 2, below, density.edges))
