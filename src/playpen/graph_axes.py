"""Axes of training graphs: which limits, which ticks, which marks, so that pictures side by side can be read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor, inf, log10
from typing import Any

import numpy as np
import pandas as pd

from playpen.report_page.layout import MINUS, number, short

HEIGHT, LEGEND_ROW = 2.9, 0.17
"""Inches of a figure, and of each row of its legend."""
LEGEND_LETTERS, NAME_LETTERS = 60, 40
"""Letters that a row of a legend holds (a mark counts 6), and a name in it at most."""
POINTS = 400
"""Points of a curve at most; of a longer one, neighbours are averaged."""
START = 0.05
"""Share of the training whose values may lie outside the frame: what falls from afar would press the rest flat."""
SPAN = 4.0
"""Ratio of the greatest to the least value from which on a value axis may be logarithmic."""
FAR = 20.0
"""Ratio of the longest to the shortest run from which on the axis of tokens is logarithmic."""
SUPERSCRIPTS = str.maketrans("-.0123456789", "⁻·⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Axis:
    """The value axis of a graph."""

    label: str
    digits: int = 3
    """Digits after the point of a value in words."""
    scale: float = 1.0
    """Factor between a value and what is shown of it."""
    least: float | None = None
    """Lower end; left out, it follows from the curves."""
    most: float = inf
    """Upper end, unless a curve goes beyond."""
    may_be_log: bool = False
    ticks: Callable[[float], str] | None = None
    """How a value is written, where the usual way will not do."""

    def text(self, value: float | None) -> str:
        """Return a value in words."""
        if value is None:
            return number(None)
        return self.ticks(value) if self.ticks else number(value * self.scale, self.digits)


def tokens_text(tokens: float) -> str:
    """Return a number of tokens with its unit: 250k, 1.5M, 2B."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(tokens) >= size:
            return f"{tokens / size:.3g}{unit}"
    return f"{tokens:.0f}"


def rate_text(rate: float) -> str:
    """Return a learning rate as 3e-4, with a real minus sign."""
    if rate == 0:
        return "0"
    power = floor(log10(abs(rate)) + 1e-9)
    return f"{rate / 10**power:.3g}e{power}".replace("-", MINUS)


def power_text(power: float) -> str:
    """Return a power of ten, as 10⁻³."""
    return "10" + f"{power:g}".translate(SUPERSCRIPTS)


def name_text(label: str) -> str:
    """Return a run's label for a legend: short, and with no letter that matplotlib takes for a command."""
    cut = label if len(label) <= NAME_LETTERS else label[: NAME_LETTERS - 1] + "…"
    return ("\u200b" + cut if cut.startswith("_") else cut).replace("$", r"\$")


def thin(curve: pd.DataFrame) -> pd.DataFrame:
    """Return a curve of at most `POINTS` points: neighbours averaged, the last point kept as it is."""
    size = -(-(len(curve) - 1) // (POINTS - 1))
    if size <= 1:
        return curve
    groups = curve.iloc[:-1].groupby(np.arange(len(curve) - 1) // size).mean()
    return pd.concat([groups, curve.iloc[-1:]], ignore_index=True)


def frame_tokens(axes: Any, curves: Sequence[pd.DataFrame]) -> None:
    """Set the axis of tokens, logarithmic where one run is far longer than another."""
    from matplotlib.ticker import NullLocator

    ends = [curve["tokens"].max() for curve in curves]
    if max(ends) >= FAR * min(ends) > 0:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(0, None)
    axes.xaxis.set_major_formatter(lambda value, _: tokens_text(value))
    axes.set_xlabel("training tokens")


def frame_values(axes: Any, curves: Sequence[pd.DataFrame], axis: Axis) -> None:
    """Set the value axis, logarithmic where the values span much."""
    from matplotlib.ticker import MaxNLocator

    axes.set_ylabel(axis.label)
    values = pd.concat(curves)["value"] * axis.scale
    if axis.may_be_log and values.min() > 0 and values.max() >= SPAN * values.min():
        _make_log(axes, values.max() / values.min())
        return
    kept = pd.concat([curve[curve["tokens"] >= START * curve["tokens"].max()] for curve in curves])["value"] * axis.scale
    low, high = float(kept.min()) if axis.least is None else axis.least, float(kept.max())
    room = 0.08 * (high - low) or 0.08 * abs(high) or 1.0
    top = min(high + room, axis.most + room / 2) if high <= axis.most else high + room
    axes.set_ylim(low - (room if axis.least is None else 0), top)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    if axis.ticks is not None:
        axes.yaxis.set_major_formatter(lambda value, _: axis.text(value))


def _make_log(axes: Any, span: float) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7) if span < 30 else (1, 2, 5) if span < 1e4 else (1,)))
    axes.yaxis.set_major_formatter(lambda value, _: short(value))
    axes.yaxis.set_minor_locator(NullLocator())


def put_legend(axes: Any) -> None:
    """Name what is drawn above the axes, where it hides nothing; a single thing needs no name."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        where = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
        axes.legend(handles, labels, ncols=_columns(labels), handlelength=1.6, handletextpad=0.5, columnspacing=1.4, **where)


def height_of(labels: Sequence[str]) -> float:
    """Return the height of a figure with these names in its legend, in inches."""
    return HEIGHT + (LEGEND_ROW * -(-len(labels) // _columns(labels)) if len(labels) > 1 else 0)


def _columns(labels: Sequence[str]) -> int:
    """Return how many names stand side by side in a legend."""
    longest = min(NAME_LETTERS, max(len(label) for label in labels))
    return max(1, min(len(labels), LEGEND_LETTERS // (6 + longest)))
