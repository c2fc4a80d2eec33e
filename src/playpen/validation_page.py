"""What validate found, as numbers for `metrics.json` and as one page of text: tables in, words out."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from playpen.lds import MEASURES
from playpen.report_page.layout import Cell, Page, Section, Table, count, num, number, probability, render_markdown, span

NAMES = {"keep_half": "lds", "leave_out": "lds_leave_out"}
"""What the LDS of a form is called in `metrics.json`."""
TITLES = {"keep_half": "LDS, random subsets kept", "leave_out": "LDS, rows left out"}
Tables = Mapping[str, pd.DataFrame]


def metrics(tables: Tables) -> dict[str, Any]:
    """Return every number by scorer: `lds.NAME.pooled`, `lds.ceiling`, `lds.retained.NAME`, `qld.NAME.SHARE`, `recall.NAME`."""
    found: dict[str, Any] = {}
    for form, rows in tables["lds"].groupby("form") if "lds" in tables else ():
        found[NAMES[str(form)]] = _lds_metrics(rows)
    if "tails" in tables:
        found["qld"] = _by_name(tables["tails"], lambda row: f"{row.pop('share'):g}")
    if "recall" in tables:
        found["recall"] = _by_name(tables["recall"], _recall_key)
    return found


def _plain(table: pd.DataFrame) -> list[dict[Any, Any]]:
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _lds_metrics(rows: pd.DataFrame) -> dict[str, Any]:
    found: dict[str, Any] = {"retained": {}, "ceiling": None}
    for row in _plain(rows.drop(columns=["form"])):
        name, kept = row.pop("scores"), {end: row.pop(f"retained{end}") for end in ("", "_low", "_high")}
        found[name] = {key: value for key, value in row.items() if value is not None}
        found[name] |= {"low": row["pooled_low"], "high": row["pooled_high"]}
        if kept[""] is not None:
            found["retained"][name] = {"value": kept[""], "low": kept["_low"], "high": kept["_high"]}
    return found


def _recall_key(row: dict[str, Any]) -> str:
    measure, of, k = (row.pop(key) for key in ("measure", "of", "k"))
    return f"recall@{k}" if measure == "recall" else measure if of == "helpful" else f"{measure}.{of}"


def _by_name(table: pd.DataFrame, key: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for row in _plain(table):
        found.setdefault(row.pop("scores"), {})[key(row)] = row
    return found


def page(tables: Tables, reference: str | None, rows: int) -> str:
    """Return the findings in Markdown, the strongest statement first."""
    answers = [_lds_answer(str(form), part) for form, part in _forms(tables)]
    answers += [_tails_answer(tables["tails"])] if "tails" in tables else []
    question = "Do these scores predict which training rows lower the target loss?"
    answer = " ".join(answers) or "Judged by the planted truth alone; no training was looked at."
    return render_markdown(Page("Validation", question, answer, "", "", (), tuple(sections(tables, reference, rows)), "validate"))


def sections(tables: Tables, reference: str | None, rows: int) -> list[Section]:
    """Return a part for each table that is there: LDS by form, tail removal, planted truth."""
    found = [_lds_section(str(form), part, reference) for form, part in _forms(tables)]
    found += [_tails_section(tables["tails"])] if "tails" in tables else []
    return found + ([_recall_section(tables["recall"], rows)] if "recall" in tables else [])


def _forms(tables: Tables) -> list[tuple[Any, pd.DataFrame]]:
    return list(tables["lds"].groupby("form")) if "lds" in tables else []


def _lds_answer(form: str, rows: pd.DataFrame) -> str:
    """Say what each scorer is worth beside the length control, those that fail first."""
    words = []
    ours = rows[~rows["scores"].isin(["random", "length", "ceiling"])].sort_values("pooled")
    for row in ours.to_dict("records"):
        above = "above chance" if row["pooled_low"] > 0 else "below chance" if row["pooled_high"] < 0 else "no better than chance"
        beside = " but not clearly above length" if row["pooled_low"] > 0 and row["minus_length_low"] <= 0 else ""
        interval = span(row["pooled_low"], row["pooled_high"], sign=False)
        words.append(f"{row['scores']} is {above}{beside} ({number(row['pooled'])}, {interval})")
    return f"{TITLES[form]}: {'; '.join(words)}."


def _tails_answer(rows: pd.DataFrame) -> str:
    """Name the scorers whose top rows cost more than random ones when left out, and those whose do not."""
    ours = rows[rows["scores"] != "length"]
    surely = [
        f"{row['scores']} at {100 * row['share']:g}%"
        for row in ours.to_dict("records")
        if row["qld"] > 0 and row["p_holm"] < 0.05
    ]
    where = f": {', '.join(surely)}" if surely else ""
    return (
        f"Leaving the top rows out surely costs more than leaving out random ones in {len(surely)} of {len(ours)} cases{where}."
    )


def _lds_section(form: str, rows: pd.DataFrame, reference: str | None) -> Section:
    heads = ["scores", "pooled", "95% interval", "per target", "95% interval", "minus length", "95% interval"]
    heads += [f"retained of {reference}", "95% interval", f"{reference} minus it", "95% interval"] if reference else []
    shown = MEASURES if reference else MEASURES[:-2]
    ordered = rows.sort_values("pooled", ascending=False, kind="stable").to_dict("records")
    lines = tuple(
        (Cell(row["scores"]), *(cell for name in shown for cell in _with_interval(row, name, name in ("minus_length", "behind"))))
        for row in ordered
    )
    return Section(TITLES[form], "", (Table(NAMES[form], tuple(heads), lines, _lds_note(rows, reference)),))


def _with_interval(row: Mapping[Any, Any], name: str, sign: bool) -> tuple[Cell, Cell]:
    interval = "–" if pd.isna(row[name]) else span(row[f"{name}_low"], row[f"{name}_high"], sign=sign)
    return num(row[name], 3, sign), Cell(interval)


def _lds_note(rows: pd.DataFrame, reference: str | None) -> str:
    first = rows.iloc[0]
    note = (
        f"Spearman over {first['subsets']} subsets of summed scores against minus the target loss, the mean of {first['seeds']} "
        f"trainings; pooled: mean loss of {first['targets']} targets, per target: mean of the targets' own correlations. "
        "Intervals resample subsets and targets, differences on the same samples. Differences from length are from its LDS or that of its opposite, "
        "whichever is above 0. "
    )
    top = rows[rows["scores"] == "ceiling"]
    note += (
        "One seed, so the noise of training is not known and there is no ceiling."
        if top.empty
        else "Ceiling: what one half of the seeds says of the other; knowing the expected losses would give about "
        f"{number(float(top['attainable'].iloc[0]))}."
    )
    if reference and rows["retained"].isna().all():
        note += f" Nothing is retained of {reference}, whose own LDS is not surely above 0."
    if rows["per_query"].any():
        note += f" Of their own for each target: the scores of {', '.join(rows.loc[rows['per_query'], 'scores'])}."
    return note


def _tails_section(rows: pd.DataFrame) -> Section:
    heads = ("share", "scores", "rows", "loss", "random", "QLD", "95% interval", "deviations", "p", "p (Holm)")
    lines = tuple(
        (
            Cell(f"{row['share']:.3g}", row["share"]),
            Cell(row["scores"]),
            count(row["removed"]),
            num(row["loss"], 4),
            num(row["random_loss"], 4),
            num(row["qld"], 4, True),
            Cell(span(row["low"], row["high"], 4)),
            num(row["deviations"], 2, True),
            Cell(probability(row["p"])),
            Cell(probability(None if pd.isna(row["p_holm"]) else row["p_holm"])),
        )
        for row in rows.sort_values(["share", "qld"], ascending=[True, False], kind="stable").to_dict("records")
    )
    note = (
        f"Target loss in nats a label without the top rows, against {rows['draws'].iloc[0]} random removals of the same size; all rows give "
        f"{number(float(rows['all_loss'].iloc[0]), 4)}. QLD above 0: the rows were worth more than random ones. Deviations: in those of the "
        "random removals. Interval and p: the top as one more random removal (Student's t); Holm: for all scorers and shares together."
    )
    return Section("Tail removal", "", (Table("tails", heads, lines, note),))


def _recall_section(rows: pd.DataFrame, total: int) -> Section:
    tables = []
    for name, measures, note in (
        ("helpful", ("auprc", "recall"), "Helpful rows, 95% interval in brackets. {count} of {total} rows are helpful."),
        ("faults", ("auroc",), "Chance that a clean row scores above one with the fault; 0.5 is blind."),
        ("faults-needed", ("auroc_needed",), "The same among rows of the skills that the targets ask for."),
    ):
        part = rows[rows["measure"].isin(measures)]
        if len(part):
            tables.append(_recall_table(name, part, note.format(count=part["rows"].iloc[0], total=total)))
    return Section("Planted truth", "", tuple(tables))


def _recall_table(name: str, rows: pd.DataFrame, note: str) -> Table:
    heads = rows.apply(
        lambda row: f"recall@{row['k']}" if row["measure"] == "recall" else row["of"] if "auroc" in row["measure"] else "AUPRC",
        axis=1,
    )
    table = rows.assign(head=heads)
    columns = list(dict.fromkeys(heads))
    chance = table.drop_duplicates("head").set_index("head")["chance"]
    lines = [(Cell("chance"), *(num(float(chance[head])) for head in columns))]
    for scorer, part in table.groupby("scores", sort=False):
        by_head = part.set_index("head")
        cells = [
            f"{number(by_head['value'][head])} ({span(by_head['low'][head], by_head['high'][head], sign=False)})"
            for head in columns
        ]
        lines.append((Cell(str(scorer)), *(Cell(text, 0.0) for text in cells)))
    return Table(name, ("scores", *columns), tuple(lines), note)
