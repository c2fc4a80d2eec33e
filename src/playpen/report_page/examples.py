"""Examples that a person can read: a few kept and a few rejected rows, spread evenly over the ranks."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from playpen.report_page.layout import Chat, Chats, number

SHOWN = 10
"""Examples of each kind."""
LONGEST = 4000
"""Characters of a turn that are shown."""


def spread(rows: pd.DataFrame, wanted: int = SHOWN) -> pd.DataFrame:
    """Return at most `wanted` rows: the first, the last, and evenly between them."""
    places = np.unique(np.linspace(0, len(rows) - 1, min(wanted, len(rows))).round().astype(int)) if len(rows) else []
    return rows.iloc[places]


def choose(selection: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the kept and the rejected rows to show, from a selection sorted by rank."""
    return spread(selection[selection["kept"]]), spread(selection[~selection["kept"]])


def chats(kept: pd.DataFrame, rejected: pd.DataFrame, messages: Mapping[str, list[dict[str, str]]], subject: str) -> Chats:
    """Lay the rows out in two columns."""
    columns = tuple(
        (f"{title} by {subject}", tuple(_chat(row, messages[row["row_id"]]) for _, row in rows.iterrows()))
        for title, rows in (("Kept", kept), ("Rejected", rejected))
    )
    note = "Not picked by hand: the first and the last by rank, and evenly between them. Scores are as the selection saw them."
    return Chats(columns, note)


def _chat(row: pd.Series, messages: list[dict[str, str]]) -> Chat:
    turns = tuple((turn["role"], _short(turn["content"])) for turn in messages)
    opening = next((content for role, content in turns if role == "user"), turns[0][1])
    return Chat(turns, tuple(_facts(row)), str(row["reason"] or ""), " ".join(opening.split())[:120])


def _facts(row: pd.Series) -> list[tuple[str, str]]:
    facts = [
        ("rank", f"{int(row['rank']):,}"),
        ("tokens", f"{int(row['num_tokens']):,}"),
        ("source", str(row["source"] or "unknown")),
    ]
    facts += [("score", number(float(row["score"]), 4))] if pd.notna(row["score"]) else []
    facts += [("quality", number(float(row["quality_score"]), 1))] if pd.notna(row["quality_score"]) else []
    return facts + [(name, str(row[name]) or "none") for name in ("skill", "fault") if name in row and pd.notna(row[name])]


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … ({len(text) - LONGEST:,} more characters)"
