"""The figures of the report, each one function that draws on given axes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from playpen.report_page.drawing import ACCENT, INK, LINE, MID_ACCENT, MID_MUTED, MUTED, WARM, grid, picture
from playpen.report_page.layout import Figure, listing, number, short, span
from playpen.report_page.statistics import LOSS, Difference, rank_correlation

SHOWN = 4000
"""Points in a scatter plot at most; more are thinned at random."""
Draw = Callable[[str, Callable[[Any], None], str, str, float], Figure]


def pen(folder: Path) -> Draw:
    """Return `picture` for one folder."""
    return lambda name, paint, alt, caption, height: picture(folder, name, paint, alt, caption, height)


def arms_figure(
    draw: Draw,
    seeds: Mapping[str, list[float]],
    spans: Mapping[str, tuple[float, float]],
    subject: str,
    references: Mapping[str, float],
) -> Figure:
    """Draw each arm's loss: a ring a seed, a dot for the mean, a line for the interval; the lowest on top."""
    order = sorted(seeds, key=lambda arm: np.mean(seeds[arm]))
    reach = [value for arm in order for value in (*seeds[arm], *spans[arm])]
    width = max(reach) - min(reach)
    near = {name: value for name, value in references.items() if min(reach) - width < value < max(reach) + width}
    far = [f"{name} ({number(value)})" for name, value in references.items() if name not in near]

    def paint(axes: Any) -> None:
        for place, arm in enumerate(order):
            color = ACCENT if arm == subject else MUTED
            axes.plot(spans[arm], [place, place], color=color, lw=2, solid_capstyle="round", zorder=2)
            axes.plot(seeds[arm], [place] * len(seeds[arm]), "o", mfc="none", mec=color, ms=7, mew=1.1, zorder=3)
            axes.plot(np.mean(seeds[arm]), place, "o", color=color, ms=5, zorder=4)
        for name, value in near.items():
            axes.axvline(value, color=MUTED, lw=0.9, ls=(0, (2, 3)))
            axes.text(value, -0.72, name, ha="center", va="bottom", fontsize=8, color=MUTED)
        _rows(axes, order, subject)
        axes.set_xlabel("held-out target loss (nats per token)")

    alt = (
        "Held-out target loss by arm, lowest first: "
        + ", ".join(f"{arm} {number(float(np.mean(seeds[arm])))}" for arm in order)
        + "."
    )
    caption = (
        "Further left is better. Each ring is one seed, the dot their mean. The line is the 95% interval without what all arms "
        "share (hard items, lucky seeds), so lines that do not touch are arms that differ."
        + (f" Off the scale: {listing(far)}." if far else "")
    )
    return draw("arms", paint, alt, caption, 1.1 + 0.42 * len(order))


def _rows(axes: Any, labels: list[str], subject: str = "") -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.75)
    grid(axes)
    for label in axes.get_yticklabels():
        if label.get_text() == subject:
            label.set(color=ACCENT, fontweight="bold")


def forest_figure(draw: Draw, name: str, rows: list[Difference], subject: str, scale: float, unit: str, left: str) -> Figure:
    """Draw differences with their intervals around 0, grouped by arm; those of the primary measure are filled."""

    def paint(axes: Any) -> None:
        axes.axvline(0, color=INK, lw=0.9)
        for place, row in enumerate(rows):
            ends, main = np.array([row.effect.low, row.effect.high]) * scale, row.measure == LOSS
            color = {"good": ACCENT, "bad": WARM, "open": MUTED}[row.tone]
            axes.plot(ends, [place, place], color=color, lw=2.4 if main else 1.2, solid_capstyle="round")
            axes.plot(row.effect.effect * scale, place, "o", color=color, ms=6 if main else 4)
        _rows(axes, [_label(row) for row in rows])
        for label, row in zip(axes.get_yticklabels(), rows, strict=True):
            label.set(color=INK if row.measure == LOSS else MUTED, fontsize=9.5 if row.measure == LOSS else 8.5)
        axes.set_xlabel(f"{subject} minus the other arm ({unit})")
        axes.text(0, 1.0, f"{left}  ", transform=axes.get_xaxis_transform(), ha="right", va="bottom", fontsize=8, color=MUTED)

    points = [f"{_label(row)} {span(row.effect.low * scale, row.effect.high * scale, 2 + (scale == 1))}" for row in rows]
    alt = f"Paired differences of {subject}, 95% intervals in {unit}: " + "; ".join(points) + "."
    better, worse = (sum(row.tone == tone for row in rows) for tone in ("good", "bad"))
    caption = (
        "A line that keeps clear of 0 is a difference that seeds and items do not explain: "
        f"{better} of {len(rows)} in favour of {subject} (blue), {worse} against it (orange). 95% intervals, "
        "paired by seed and item."
    )
    return draw(name, paint, alt, caption, 1.1 + 0.3 * len(rows))


def _label(row: Difference) -> str:
    return row.arm if row.measure == LOSS else f"{row.arm}, {row.measure.split(': ', 1)[1]}"


def classifiers_figure(draw: Draw, rows: Mapping[str, tuple[float, float, float]], best: str) -> Figure:
    """Draw each classifier's AUROC with its interval; 0.5 is a guess."""
    order = sorted(rows, key=lambda name: -rows[name][0])

    def paint(axes: Any) -> None:
        axes.axvline(0.5, color=INK, lw=0.9)
        for place, name in enumerate(order):
            value, low, high = rows[name]
            color = ACCENT if name == best else MUTED
            axes.plot([low, high], [place, place], color=color, lw=2, solid_capstyle="round")
            axes.plot(value, place, "o", color=color, ms=5.5)
        _rows(axes, order, best)
        axes.set_xlabel("AUROC on held-out rows (0.5 is a guess)")

    alt = "AUROC by classifier: " + ", ".join(f"{name} {number(rows[name][0])}" for name in order) + "."
    caption = (
        f"How well each predictor tells helpful rows from the rest on rows it never saw, with 95% intervals. {best} was kept."
    )
    return draw("classifiers", paint, alt, caption, 1.1 + 0.36 * len(order))


def reliability_figure(draw: Draw, heldout: pd.DataFrame, best: str) -> Figure:
    """Draw the share of positive rows against the predicted probability, in ten bins of equal count."""
    curves = {name: _bins(rows) for name, rows in heldout.groupby("model", sort=True)}

    def paint(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=INK, lw=0.9)
        for name, bins in curves.items():
            if name != best:
                axes.plot(bins["prediction"], bins["label"], color=MUTED, alpha=0.5, lw=1)
        axes.plot(curves[best]["prediction"], curves[best]["label"], "o-", color=ACCENT, lw=1.6, ms=4.5)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="predicted probability of being helpful", ylabel="share that was")
        grid(axes, "both")

    gap = float((curves[best]["prediction"] - curves[best]["label"]).abs().mean())
    alt = f"Reliability of {best}: on average {number(gap)} from the diagonal over ten bins of held-out rows."
    caption = (
        f"On the diagonal a prediction means what it says; {best} (blue) is {number(gap, 2)} away on average. Grey: the others."
    )
    return draw("reliability", paint, alt, caption, 3.4)


def _bins(rows: pd.DataFrame) -> pd.DataFrame:
    place = pd.qcut(rows["prediction"].rank(method="first"), min(10, len(rows)), labels=False)
    return rows.groupby(place)[["prediction", "label"]].mean()


def predicted_figure(draw: Draw, rows: pd.DataFrame, best: str) -> Figure:
    """Draw true attribution against prediction on held-out rows."""
    correlation = number(rank_correlation(rows["prediction"], rows["score"]), 2)

    def paint(axes: Any) -> None:
        for value, color, name in ((0, MID_MUTED, "the rest"), (1, MID_ACCENT, "helpful by label")):
            part = rows[rows["label"] == value]
            axes.scatter(part["prediction"], part["score"], s=11, color=color, alpha=0.75, lw=0, label=name, rasterized=True)
        axes.set(xlabel="prediction", ylabel="attribution score (higher helps more)")
        axes.legend(loc="upper left", handletextpad=0.1, borderaxespad=0)
        grid(axes, "both")

    alt = f"Predicted against true attribution of {len(rows):,} held-out rows; Spearman {correlation}."
    caption = f"Each point is a held-out row: what {best} predicted and what the gradients say. Spearman {correlation}."
    return draw("predicted", paint, alt, caption, 3.4)


def distribution_figure(draw: Draw, name: str, rows: pd.DataFrame, kept: set[str], what: str, subject: str) -> Figure:
    """Draw the histogram of scores, the subject's kept rows in the accent colour."""
    inside = rows["row_id"].isin(kept)
    edges = np.histogram_bin_edges(rows["score"], bins=40)

    def paint(axes: Any) -> None:
        parts = [rows.loc[inside, "score"], rows.loc[~inside, "score"]]
        axes.hist(parts, bins=edges, stacked=True, color=[ACCENT, LINE], label=[f"kept by {subject}", "the rest"])
        axes.set(xlabel=f"{what} (higher helps more)", ylabel="rows")
        if kept:
            axes.legend(loc="upper right", handlelength=1, borderaxespad=0)
        grid(axes, "y")

    low, middle, high = rows["score"].quantile([0.05, 0.5, 0.95])
    alt = f"Histogram of {what} of {len(rows):,} rows: median {short(middle)}, 5% below {short(low)}, 5% above {short(high)}."
    share = f" Of these rows {int(inside.sum()):,} were kept by {subject}." if kept else ""
    caption = f"{what.capitalize()} of {len(rows):,} rows; the median is {short(middle)}, the middle 90% lie "
    caption += f"from {short(low)} to {short(high)}.{share}"
    return draw(name, paint, alt, caption, 2.8)


def against_figure(
    draw: Draw, name: str, rows: pd.DataFrame, column: str, label: str, what: str, kept: set[str], seed: int
) -> Figure:
    """Draw scores against a column of the data, the subject's kept rows in colour."""
    correlation = number(rank_correlation(rows[column], rows["score"]), 2, True)
    shown = rows.dropna(subset=[column])
    shown = shown.sample(SHOWN, random_state=seed) if len(shown) > SHOWN else shown

    def paint(axes: Any) -> None:
        inside = shown["row_id"].isin(kept)
        for part, color in ((shown[~inside], MID_MUTED), (shown[inside], MID_ACCENT)):
            axes.scatter(part[column], part["score"], s=9, color=color, alpha=0.6, lw=0, rasterized=True)
        axes.set(xlabel=label, ylabel=what)
        grid(axes, "both")

    told = "; kept rows in blue" if kept else ""
    alt = f"{what.capitalize()} against {label}; Spearman {correlation}."
    caption = f"If the points climbed in a line, {label.split(' (')[0]} alone would do. Spearman {correlation}{told}."
    return draw(name, paint, alt, caption, 3.0)


def shares_figure(draw: Draw, name: str, table: pd.DataFrame, subject: str, what: str) -> Figure:
    """Draw the share of each kind among the rows offered (bar) and among those that each arm kept (dots)."""
    top = table.head(14)

    def paint(axes: Any) -> None:
        places = np.arange(len(top))
        axes.barh(places, top["offered"] * 100, color=LINE, height=0.62, label="offered")
        for arm in (column for column in top.columns if column not in ("offered", subject)):
            axes.plot(top[arm] * 100, places, "o", mfc="none", mec=MUTED, ms=4.5, mew=0.9)
        axes.plot(top[subject] * 100, places, "o", color=ACCENT, ms=6.5, label=subject)
        axes.plot([], [], "o", mfc="none", mec=MUTED, ms=4.5, mew=0.9, label="other arms")
        _rows(axes, [str(label) for label in top.index])
        axes.set(xlabel="share of rows (%)", xlim=(0, None))
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=3,
            handletextpad=0.4,
            handlelength=1,
            columnspacing=1.4,
            borderaxespad=0,
        )

    moved = (top[subject] - top["offered"]).sort_values()
    most, least = moved.index[-1], moved.index[0]
    alt = (
        f"Share of each {what} among rows offered and rows kept: "
        + ", ".join(
            f"{label} {number(top.loc[label, 'offered'] * 100, 0)}% to {number(top.loc[label, subject] * 100, 0)}%"
            for label in top.index
        )
        + f" in {subject}."
    )
    caption = (
        f"Bars are all rows offered, blue dots what {subject} kept. It took more of {most} and less of {least} than chance would."
    )
    return draw(name, paint, alt, caption, 1.0 + 0.32 * len(top))


def lds_figure(draw: Draw, rows: pd.DataFrame, strong: str, reference: str) -> Figure:
    """Draw the pooled LDS of each scorer with its interval, the highest on top; 0 is chance."""
    order = rows.sort_values("pooled", ascending=False, kind="stable").set_index("scores")

    def paint(axes: Any) -> None:
        axes.axvline(0, color=INK, lw=0.9)
        for place, (name, row) in enumerate(order.iterrows()):
            color = ACCENT if name == strong else WARM if name == reference else MUTED
            axes.plot([row["pooled_low"], row["pooled_high"]], [place, place], color=color, lw=2, solid_capstyle="round")
            axes.plot(row["pooled"], place, "o", color=color, ms=5.5)
        _rows(axes, [str(name) for name in order.index], strong)
        axes.set_xlabel("LDS, pooled (0 is chance)")

    alt = "LDS by scorer: " + ", ".join(f"{name} {number(row['pooled'])}" for name, row in order.iterrows()) + "."
    caption = (
        f"How well summed scores rank trainings on random subsets by their target loss, with 95% intervals: {strong} in blue, the labels "
        f"that it was learnt from ({reference}) in orange."
    )
    return draw("lds", paint, alt, caption, 1.1 + 0.36 * len(order))
