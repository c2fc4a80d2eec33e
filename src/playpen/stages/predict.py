"""Predict the attribution of a pool that is too large for gradients, in one streaming pass.

    playpen predict --classifier runs/demo/classifier --sae runs/demo/sae --model runs/demo/base --data runs/demo/data

Each row is fingerprinted and classified at once; nothing but its score is stored, and memory does not grow with the pool. The
table `scores` holds the prediction in [0, 1], higher = more helpful: the probability of being in the top, the expected
rank or the expected score, as the classifier was trained. With `per_query` the table `query_scores` holds the expected score for each
query, of a classifier that learnt them (`classify --per-query`). Written in shards, so that a killed run goes on where it was; `--machine.ray-workers N` shares them among N workers of Ray. A pool of any
size comes from `build-pool`.
"""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PositiveInt

from playpen.config import Input, PlaypenError, config

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from playpen.fingerprints import Fingerprinter
    from playpen.machine import Machine
    from playpen.saved_classifier import SavedClassifier

VERSION = 1
RESUMABLE = True


@config
class Config:
    """How helpful would each row of a large pool be?"""

    classifier: Input
    """The classifier, of classify."""
    sae: Input
    """The SAE on whose features it was trained."""
    model: Input
    """The base model of the SAE; an adapter in it is left out."""
    data: Input
    """The data, of build-data or build-pool."""
    splits: Annotated[tuple[str, ...], Field(min_length=1)] = ("large_pool",)
    """Splits of the data to predict, as one table."""
    per_query: bool = False
    """Write the expected score for each query too (`query_scores`), as round_robin needs: 4 bytes a row and query."""
    shard_rows: PositiveInt = 2000
    """Rows worked on, and written, at a time; fewer need less memory and lose less when the run is killed. Another number is another artifact."""


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write the table `scores` (row_id, score) in shards, and `metrics.json`."""
    from playpen.fingerprints import COLUMNS
    from playpen.models import check_tokens
    from playpen.query_scores import NAME, QUERIES_OF
    from playpen.saved_classifier import load_classifier
    from playpen.shards import Job, cut, map_shards
    from playpen.tables import write_json

    check_tokens(config.data, config.model)
    classifier = load_classifier(config.classifier)
    check_fingerprint(config, classifier.info["fingerprint"])
    if config.per_query and classifier.queries is None:
        raise PlaypenError(
            f"per_query: the classifier {config.classifier} learnt no score for each query; make it with classify --per-query"
        )
    shards = cut(config.data, config.splits, config.shard_rows)
    started = time.monotonic()
    job = Job(partial(open_work, config, machine), COLUMNS, out, (*((NAME,) if config.per_query else ()), "scores"))
    found = map_shards(job, shards, machine, "predict")
    seconds = time.monotonic() - started
    counts = {name: found[name] for name in ("rows", "tokens", "pooled_tokens", "predicted_rows", "in_sample_rows")}
    speed = counts["predicted_rows"] / max(seconds, 1e-9)
    queries = {QUERIES_OF: classifier.queries_of} if config.per_query else {}
    write_json(out / "metrics.json", {**counts, **queries, "seconds": round(seconds, 2), "rows_per_second": round(speed, 2)})


def check_fingerprint(config: Config, made: dict[str, Any]) -> None:
    """Raise when the SAE or the base is not the one whose features the classifier was trained on."""
    from playpen import artifact
    from playpen.models import model_files

    sae, base = artifact.read_manifest(config.sae)["fingerprint"], model_files(config.model).base_id
    for what, path, found, expected in (("SAE", config.sae, sae, made["sae"]), ("base", config.model, base, made["model_id"])):
        if found != expected:
            raise PlaypenError(
                f"{path} is {what} {found}, but the classifier {config.classifier} was trained on features of {what} {expected}; "
                f"give that {what}, or classify features of this one"
            )


def held_out_predictions(classifier: str, name: str) -> dict[str, float]:
    """Return by row_id what the saved kind of classifier predicts of its own training rows when they are held out."""
    from playpen.tables import read_table

    table = read_table(classifier, "heldout", ["row_id", "model", "prediction"])
    mine = table[table["model"] == name]
    return dict(zip(mine["row_id"], mine["prediction"], strict=True))


def held_out_queries(classifier: str) -> "dict[str, np.ndarray]":
    """Return by row_id what is predicted of a training row for each query when it is held out, float32 [queries]."""
    from playpen.tables import read_table

    table = read_table(classifier, "heldout_queries", ["row_id", "scores"])
    return dict(zip(table["row_id"], table["scores"], strict=True))


@dataclass(frozen=True)
class Predictions:
    """The work on a shard: the tables `scores` and, when asked for, `query_scores`."""

    fingerprinter: "Fingerprinter"
    classifier: "SavedClassifier"
    heldout: dict[str, float]
    """By row_id, what is predicted of a row that the classifier learnt from."""
    heldout_queries: "dict[str, np.ndarray] | None" = None
    """By row_id, what is predicted of such a row for each query; None when queries are not asked for."""

    def __call__(self, rows: "pa.Table") -> "dict[str, pa.Table]":
        """Return the tables of rows with `fingerprints.COLUMNS`.

        A row that the classifier learnt from gets its held-out prediction: its own would be too sure, and outrank the rest.
        """
        import numpy as np
        import pyarrow as pa

        from playpen.fingerprints import fingerprint_rows
        from playpen.query_scores import as_table

        made, names = fingerprint_rows(self.fingerprinter, rows, self.classifier.hidden), rows["row_id"].to_pylist()
        own = self.classifier.predict(made)
        score = [self.heldout.get(name, float(mine)) for name, mine in zip(names, own, strict=True)]
        scores = {"scores": pa.table({"row_id": pa.array(names, pa.string()), "score": pa.array(score, pa.float32())})}
        if self.heldout_queries is None:
            return scores
        each = self.classifier.predict_queries(made)
        each = np.array([self.heldout_queries.get(name, mine) for name, mine in zip(names, each, strict=True)], np.float32)
        return {"query_scores": as_table(names, each), **scores}

    def count(self, rows: "pa.Table", fresh: bool) -> dict[str, int]:
        """Return what `metrics.json` counts."""
        from playpen.fingerprints import pooled_tokens

        return {
            "rows": rows.num_rows,
            "tokens": len(rows["input_ids"].combine_chunks().flatten()),
            "pooled_tokens": pooled_tokens(self.fingerprinter, rows),
            "predicted_rows": rows.num_rows if fresh else 0,
            "in_sample_rows": sum(name in self.heldout for name in rows["row_id"].to_pylist()),
        }


def open_work(config: Config, machine: "Machine") -> Predictions:
    """Open the classifier, the model and the SAE, here or in a worker."""
    from playpen.fingerprints import open_fingerprinter
    from playpen.saved_classifier import load_classifier

    classifier = load_classifier(config.classifier)
    made = classifier.info["fingerprint"]
    fingerprinter = open_fingerprinter(config.sae, config.model, made["tokens"], made["k"], machine)
    heldout = held_out_predictions(config.classifier, classifier.info["name"])
    queries = held_out_queries(config.classifier) if config.per_query else None
    return Predictions(fingerprinter, classifier, heldout, queries)
