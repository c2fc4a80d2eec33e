"""The rows of an attribution: read, checked, and cut to the labels whose loss counts."""

from typing import Any

import numpy as np
import pandas as pd

from playpen.chat import IGNORE, without_end_of_turn
from playpen.config import PlaypenError
from playpen.tables import check_row_ids, read_table

COLUMNS = ["row_id", "input_ids", "labels", "num_tokens", "num_labels", "source", "quality_score"]


def read_rows(data: str, split: str) -> pd.DataFrame:
    """Return the rows of a split; raises when there are none, and on one without a label, which the data should not hold."""
    rows = read_table(data, split, COLUMNS)
    if rows.empty:
        raise PlaypenError(f"attribute: {data} has no {split} rows; build the data with some")
    check_row_ids(rows, f"{data} {split}")
    if (rows["num_labels"] < 1).any():
        wrong = rows.loc[rows["num_labels"] < 1, "row_id"].iloc[0]
        raise PlaypenError(f"attribute: row_id {wrong} of {split} has no token with a label, so it has no gradient; leave it out")
    return rows


def without_end_tokens(rows: pd.DataFrame, tokenizer: Any) -> pd.DataFrame:
    """Return rows without labels where a turn ends, `num_labels` counted anew; a row may be left with none."""
    labels = [np.array(without_end_of_turn(row, tokenizer), np.int32) for row in rows["labels"]]
    counts = [int((row[1:] != IGNORE).sum()) for row in labels]
    return rows.assign(labels=pd.Series(labels, index=rows.index), num_labels=counts)


def check_queries(queries: pd.DataFrame) -> None:
    """Raise when a target has no label left: it would ask for nothing."""
    if (queries["num_labels"] < 1).any():
        wrong = queries.loc[queries["num_labels"] < 1, "row_id"].iloc[0]
        raise PlaypenError(
            f"attribute: row_id {wrong} of query answers with nothing but the end of its turn; leave it out of the targets, "
            "or set end_tokens to true"
        )


def with_labels(rows: pd.DataFrame, least: int) -> np.ndarray:
    """Return bool [rows]: which have at least `least` labels, and at least one; raises when none has."""
    enough = (rows["num_labels"] >= max(least, 1)).to_numpy()
    if not enough.any():
        most = int(rows["num_labels"].max())
        raise PlaypenError(f"attribute: no row has {least} labels, the most is {most}; lower min_labels")
    return enough


def check_lengths(rows: pd.DataFrame, model: Any) -> None:
    """Raise when a row is longer than the model's context, and name the longest."""
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = rows.iloc[int(rows["num_tokens"].to_numpy().argmax())]
    if context and longest["num_tokens"] > context:
        raise PlaypenError(
            f"attribute: row_id {longest['row_id']} has {longest['num_tokens']} tokens, but the model's context is {context}; "
            "build the data with a smaller max_length"
        )


def below_the_lowest(scores: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """Return float32 [rows, ...]: `scores` [scored rows, ...] in their rows, and in the others the next number below the lowest."""
    lowest = np.nextafter(scores.min(0), np.float32(-np.inf))
    spread = np.broadcast_to(lowest, (len(scored), *scores.shape[1:])).copy()
    spread[scored] = scores
    return spread
