"""Fingerprint examples: which SAE features does each switch on in the base model?

One forward pass of the base a row, stopped at the SAE's hook; no gradients. Per example the K strongest features (mean,
maximum, fraction of tokens active) and ten global statistics are kept: a classifier learns attribution from them. The mean
hidden state of the same tokens is kept beside them, as the control that needs no SAE.

    playpen fingerprint --sae runs/demo/sae --model runs/demo/base --data runs/demo/data --split pool

Written in shards, so that a killed run goes on where it was.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveInt

from playpen.config import Input, config

if TYPE_CHECKING:
    import pyarrow as pa

    from playpen.machine import Machine

VERSION = 1
RESUMABLE = True
SHARD_ROWS = 2000


@config
class Config:
    """Which SAE features does each example switch on in the base model?"""

    sae: Input
    """The SAE, of train-sae or load-sae."""
    model: Input
    """The base model that the SAE was made for; an adapter in it is left out."""
    data: Input
    """The data, of build-data."""
    split: str = "pool"
    """Split of the data to fingerprint."""
    k: PositiveInt = 256
    """Features kept an example, the strongest by mean; more keep weaker ones and make the table larger."""
    tokens: Literal["answer", "prompt", "all", "both"] = "answer"
    """Tokens pooled: the assistant's, the rest, all, or both apart (the answer's feature ids are then offset by the SAE's width)."""
    hidden: bool = True
    """Keep the mean hidden state of the same tokens as well, for classify to compare with; no further forward pass."""


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write the tables `features` and `hidden` in shards, `fingerprint.json` and `metrics.json`."""
    from playpen import artifact
    from playpen.fingerprints import open_fingerprinter
    from playpen.models import check_tokens, model_files
    from playpen.tables import write_json

    check_tokens(config.data, config.model)
    fingerprinter = open_fingerprinter(config.sae, config.model, config.tokens, config.k, machine)
    started = time.monotonic()
    counts = make_shards(fingerprinter, config, out)
    seconds = time.monotonic() - started
    write_json(
        out / "fingerprint.json",
        {
            "sae": artifact.read_manifest(config.sae)["fingerprint"],
            "model_id": model_files(config.model).base_id,
            "hook": fingerprinter.hook.name,
            "tokens": config.tokens,
            "k": config.k,
            "d_sae": fingerprinter.sae.cfg.d_sae,
            "num_features": fingerprinter.num_features,
        },
    )
    write_json(
        out / "metrics.json",
        {
            **counts,
            "seconds": round(seconds, 2),
            "tokens_per_second": round(counts["tokens"] / max(seconds, 1e-9)),
        },
    )


def make_shards(fingerprinter: Any, config: Config, out: Path) -> dict[str, int]:
    """Write the shards that are not there; return `rows` of all and, of those made now, `tokens` and `pooled_tokens`.

    A thread writes each shard while the next one is made.
    """
    from playpen.fingerprints import COLUMNS, fingerprint_rows, pooled_tokens
    from playpen.progress import tqdm
    from playpen.tables import count_rows, iter_table

    counts: dict[str, int] = dict.fromkeys(("rows", "tokens", "pooled_tokens"), 0)
    bar = tqdm(total=count_rows(config.data, config.split), desc="fingerprint", unit="row", disable=None, mininterval=1)
    with bar as progress, ThreadPoolExecutor(max_workers=1) as writer:
        writing: Future[None] | None = None
        for i, table in enumerate(iter_table(config.data, config.split, SHARD_ROWS, COLUMNS)):
            name = f"shard-{i:05d}.parquet"
            if not (out / "features" / name).exists():
                made = fingerprint_rows(fingerprinter, table, config.hidden)
                counts["tokens"] += len(table["input_ids"].combine_chunks().flatten())
                counts["pooled_tokens"] += pooled_tokens(fingerprinter, table)
                if writing is not None:
                    writing.result()  # one shard waits at most, and a full disk ends the work
                writing = writer.submit(write_shard, made, out, name)
            counts["rows"] += table.num_rows
            progress.update(table.num_rows)
        if writing is not None:
            writing.result()
    return counts


def write_shard(made: "pa.Table", out: Path, name: str) -> None:
    """Write one shard of each table."""
    from playpen.tables import write_table

    if "vector" in made.column_names:
        write_table(out / "hidden" / name, made.select(["row_id", "vector"]))
        made = made.drop_columns("vector")
    write_table(out / "features" / name, made)  # last: it is what tells that the shard is whole
