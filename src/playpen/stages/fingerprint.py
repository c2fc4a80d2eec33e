"""Fingerprint examples: which SAE features does each switch on in the base model?

One forward pass of the base a row, stopped at the SAE's hook; no gradients. Per example the K strongest features (mean,
maximum, fraction of tokens active) and ten global statistics are kept: a classifier learns attribution from them. The mean
hidden state of the same tokens is kept beside them, as the control that needs no SAE.

    playpen fingerprint --sae runs/demo/sae --model runs/demo/base --data runs/demo/data --split pool

Written in shards, so that a killed run goes on where it was; `--machine.ray-workers N` shares them among N workers of Ray.
"""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveInt

from playpen.config import Input, config

if TYPE_CHECKING:
    import pyarrow as pa

    from playpen.fingerprints import Fingerprinter
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


@dataclass(frozen=True)
class Fingerprints:
    """The work on a shard: its tables `features` and, when asked for, `hidden`."""

    fingerprinter: "Fingerprinter"
    hidden: bool

    def __call__(self, rows: "pa.Table") -> "dict[str, pa.Table]":
        """Return the tables of rows with `fingerprints.COLUMNS`."""
        from playpen.fingerprints import fingerprint_rows

        made = fingerprint_rows(self.fingerprinter, rows, self.hidden)
        if not self.hidden:
            return {"features": made}
        return {"hidden": made.select(["row_id", "vector"]), "features": made.drop_columns("vector")}

    def count(self, rows: "pa.Table", fresh: bool) -> dict[str, int]:
        """Return `rows` and, of a shard made now, `tokens` and `pooled_tokens`."""
        from playpen.fingerprints import pooled_tokens

        if not fresh:
            return {"rows": rows.num_rows}
        tokens = len(rows["input_ids"].combine_chunks().flatten())
        return {"rows": rows.num_rows, "tokens": tokens, "pooled_tokens": pooled_tokens(self.fingerprinter, rows)}


def open_work(config: Config, machine: "Machine") -> Fingerprints:
    """Open the model and the SAE, in a worker."""
    from playpen.fingerprints import open_fingerprinter

    return Fingerprints(open_fingerprinter(config.sae, config.model, config.tokens, config.k, machine), config.hidden)


def make_shards(fingerprinter: "Fingerprinter", config: Config, out: Path) -> dict[str, int]:
    """Write the shards that are not there; return `rows` of all and, of those made now, `tokens` and `pooled_tokens`."""
    from playpen.fingerprints import COLUMNS
    from playpen.shards import Job, cut, map_shards

    machine, tables = fingerprinter.machine, ("hidden", "features") if config.hidden else ("features",)
    here = partial(Fingerprints, fingerprinter, config.hidden)
    job = Job(partial(open_work, config, machine) if machine.ray_workers else here, COLUMNS, out, tables)
    found = map_shards(job, cut(config.data, (config.split,), SHARD_ROWS), machine, "fingerprint")
    return {name: found[name] for name in ("rows", "tokens", "pooled_tokens")}
