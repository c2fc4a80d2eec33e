"""The tables that explain rows: the contributions to each prediction, where the features fire, and what that makes of each token."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from playpen.contributions import Contributions
from playpen.fingerprints import Fingerprinter, token_strengths

EXPLAINED = pa.schema(
    [
        ("row_id", pa.string()),
        ("kept", pa.bool_()),
        ("rank", pa.int32()),
        ("score", pa.float32()),
        ("shown", pa.bool_()),
        ("in_sample", pa.bool_()),
        ("prediction", pa.float32()),
        ("log_odds", pa.float64()),
        ("baseline", pa.float64()),
    ]
)
CONTRIBUTIONS = pa.schema(
    [("row_id", pa.string()), ("feature", pa.int32()), ("contribution", pa.float64()), ("strength", pa.float32())]
)
FIRINGS = pa.schema(
    [
        ("row_id", pa.string()),
        ("feature", pa.int32()),
        ("position", pa.int32()),
        ("strength", pa.float32()),
        ("value", pa.float64()),
    ]
)
TOKENS = pa.schema([("row_id", pa.string()), ("position", pa.int32()), ("token", pa.string()), ("value", pa.float64())])


def as_table(columns: pd.DataFrame | dict[str, Any], schema: pa.Schema) -> pa.Table:
    """Return the columns of a schema, in its order and types."""
    return pa.table({name: pa.array(columns[name], schema.field(name).type) for name in schema.names}, schema=schema)


def contribution_table(found: Contributions, row_ids: np.ndarray) -> pa.Table:
    """Return the contributions that are not 0 with the columns of `CONTRIBUTIONS`; of a row, the greatest first, up or down."""
    order = np.argsort(-np.abs(found.value), axis=1, kind="stable")
    value, ids, strength = (np.take_along_axis(part, order, 1) for part in (found.value, found.ids, found.strength))
    row, place = np.nonzero(value)
    columns = {"row_id": row_ids[row], "feature": ids[row, place], "contribution": value[row, place]}
    return as_table({**columns, "strength": strength[row, place]}, CONTRIBUTIONS)


def firing_table(fingerprinter: Fingerprinter, table: pa.Table, contributions: pa.Table) -> pa.Table:
    """Return where the contributing features of rows fire, with the columns of `FIRINGS`.

    `table` has the columns that `fingerprint_rows` needs. A contribution is parted among the tokens by their share of the
    feature's strength, so that a feature's values in a row sum to its contribution.
    """
    columns = contributions.select(["row_id", "feature", "contribution"]).to_pandas()
    entries = token_strengths(fingerprinter, table).merge(columns, on=["row_id", "feature"], how="inner")
    strength = entries["strength"].astype(np.float64)
    share = strength / strength.groupby([entries["row_id"], entries["feature"]]).transform("sum")
    return as_table(entries.assign(value=share * entries["contribution"]), FIRINGS)


def token_table(table: pa.Table, firings: pa.Table, text: Any) -> pa.Table:
    """Return every token of rows with the sum of what fires on it, with the columns of `TOKENS`; 0 where nothing does.

    `text` gives the text of token ids.
    """
    ids = table["input_ids"].combine_chunks()
    lengths, names = ids.value_lengths().to_numpy(), table["row_id"].to_numpy()
    starts, total = np.cumsum(lengths) - lengths, int(lengths.sum())
    place = starts[pd.Index(names).get_indexer(firings["row_id"].to_numpy())] + firings["position"].to_numpy()
    columns = {
        "row_id": np.repeat(names, lengths),
        "position": np.arange(total) - np.repeat(starts, lengths),
        "token": text(ids.flatten().to_numpy()),
        "value": np.bincount(place, firings["value"].to_numpy(), minlength=total),
    }
    return as_table(columns, TOKENS)
