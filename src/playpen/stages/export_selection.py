"""Hand over selected examples: `selected.jsonl` in the pool's own format, ranked, with reasons and a data card.

    playpen export-selection --selection runs/pick/chosen --data runs/pick/data --splits train pool large_pool

Rows that came from a file are written with their own fields as they were; others as `messages`. Each gets one more field,
`playpen`, with its rank, score, reason and row_id, so that nothing of the original is lost or renamed.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from playpen.artifact import read_manifest
from playpen.config import Input, PlaypenError, config
from playpen.tables import join, read_splits, read_table, write_json

if TYPE_CHECKING:
    from playpen.machine import Machine

VERSION = 1


@config
class Config:
    """Which selection to hand over."""

    selection: Input
    """Artifact of select."""
    data: Input
    """Artifact of build-data that it was made from."""
    splits: tuple[str, ...] = ("pool",)
    """Splits that it was made from."""
    filename: str = "selected"
    """Name of the file, without its ending."""


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write `<filename>.jsonl`, `rejected.csv` (row_id, rank, reason), the data card `README.md` and `metrics.json`."""
    rows = ranked_rows(config)
    kept = rows[rows["kept"]]
    with (out / f"{config.filename}.jsonl").open("w", encoding="utf-8") as file:
        for row in kept.to_dict("records"):
            file.write(json.dumps(exported(row), ensure_ascii=False) + "\n")
    rows.loc[~rows["kept"], ["row_id", "rank", "score", "reason"]].to_csv(out / "rejected.csv", index=False)
    (out / "README.md").write_text(data_card(config, rows))
    tokens = {"tokens": int(kept["num_tokens"].sum()), "tokens_offered": int(rows["num_tokens"].sum())}
    write_json(out / "metrics.json", {"rows": len(kept), "rows_offered": len(rows), **tokens})
    where = f"{{path}}/{config.filename}.jsonl"
    (out / "summary.txt").write_text(
        f"{len(kept)} of {len(rows)} examples, {tokens['tokens']} tokens: {where}\ndata card: {{path}}/README.md\n"
    )


def ranked_rows(config: Config) -> pd.DataFrame:
    """Return the selection's rows, best first, with their texts; a selection from other data is refused."""
    columns = ["row_id", "messages", "raw", "source", "num_tokens"]
    rows = join(
        read_table(config.selection, "selection"),
        read_splits(config.data, config.splits, columns),
        f"export-selection: the selection {config.selection} and {' + '.join(config.splits)} of {config.data}",
    )
    return rows.sort_values("rank", ignore_index=True)


def exported(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return one example as the user gave it, with why it was picked."""
    original = json.loads(row["raw"]) if row["raw"] else {"messages": [dict(turn) for turn in row["messages"]]}
    if not isinstance(original, dict):
        raise PlaypenError(f"row_id {row['row_id']}: its original row is {type(original).__name__}, expected a mapping")
    score = float(row["score"])
    why = {"rank": int(row["rank"]), "score": score if score == score else None, "reason": row["reason"], "row_id": row["row_id"]}
    return original | {"playpen": why}


def data_card(config: Config, rows: pd.DataFrame) -> str:
    """Return the data card: what the file is, how it was chosen, what is in it and what it is not."""
    kept = rows[rows["kept"]]
    manifest, data = read_manifest(config.selection), read_manifest(config.data)
    by_source = rows.groupby("source").agg(offered=("kept", "size"), kept=("kept", "sum"))
    table = "\n".join(f"| {name} | {int(r.offered)} | {int(r.kept)} |" for name, r in by_source.iterrows())
    return f"""---
license: other
tags: [playpen, data-selection]
---
# {config.filename}

{len(kept)} chats ({int(kept["num_tokens"].sum())} tokens) out of {len(rows)} ({int(rows["num_tokens"].sum())} tokens), chosen by playpen, best first.

## How it was chosen

Method: `{json.dumps(manifest["config"]["method"])}`. Every row has a field `playpen` with its rank, its score (higher: more helpful
for the target, by prediction), the reason and its row_id. What was not chosen, and why, is in `rejected.csv`.

| artifact | made by | when |
|---|---|---|
| data `{data["fingerprint"]}` | `{data["provenance"]["command"]}` | {data["provenance"]["started"]} |
| selection `{manifest["fingerprint"]}` | `{manifest["provenance"]["command"]}` | {manifest["provenance"]["started"]} |

## What is in it

| source | offered | kept |
|---|---|---|
{table}

Rows before the choice: {json.dumps(data["metrics"].get("rows", {}))}. Left out while the data was built: {json.dumps(data["metrics"].get("dropped", {}))}.

## What it is not

Chosen for one target and one model; it says nothing about other targets. Nothing was checked for truth, safety or licence:
those of the pool it came from hold.
"""
