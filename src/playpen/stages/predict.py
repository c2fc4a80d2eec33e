"""Predict the attribution of a pool that is too large for gradients, in one streaming pass.

    playpen predict --classifier runs/demo/classifier --sae runs/demo/sae --model runs/demo/base --data runs/demo/data

Each row is fingerprinted and classified at once; nothing but its score is stored, and memory does not grow with the pool. The
table `scores` holds the prediction in [0, 1], higher = more helpful: the probability of being in the top, the expected
rank or the expected score, as the classifier was trained. Written in shards, so that a killed run goes on where it was.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PositiveInt

from playpen.config import Input, PlaypenError, config

if TYPE_CHECKING:
    import pyarrow as pa

    from playpen.machine import Machine

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
    """The data, of build-data."""
    splits: Annotated[tuple[str, ...], Field(min_length=1)] = ("large_pool",)
    """Splits of the data to predict, as one table."""
    shard_rows: PositiveInt = 2000
    """Rows worked on, and written, at a time; fewer need less memory and lose less when the run is killed."""


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write the table `scores` (row_id, score) in shards, and `metrics.json`."""
    from playpen.fingerprints import COLUMNS, open_fingerprinter, pooled_tokens
    from playpen.models import check_tokens
    from playpen.progress import tqdm
    from playpen.saved_classifier import load_classifier
    from playpen.tables import count_rows, iter_table, write_json

    check_tokens(config.data, config.model)
    classifier, total = load_classifier(config.classifier), sum(count_rows(config.data, split) for split in config.splits)
    made = classifier.info["fingerprint"]
    check_fingerprint(config, made)
    fingerprinter = open_fingerprinter(config.sae, config.model, made["tokens"], made["k"], machine)
    heldout = held_out_predictions(config.classifier, classifier.info["name"])
    counts = dict.fromkeys(("rows", "tokens", "pooled_tokens", "predicted_rows", "in_sample_rows"), 0)
    started = time.monotonic()
    tables = (table for split in config.splits for table in iter_table(config.data, split, config.shard_rows, COLUMNS))
    with tqdm(total=total, desc="predict", unit="row", disable=None, mininterval=1) as progress:
        for i, table in enumerate(tables):
            fresh = predict_shard(classifier, fingerprinter, table, heldout, out / "scores" / f"shard-{i:05d}.parquet")
            counts["rows"] += table.num_rows
            counts["tokens"] += len(table["input_ids"].combine_chunks().flatten())
            counts["pooled_tokens"] += pooled_tokens(fingerprinter, table)
            counts["predicted_rows"] += table.num_rows if fresh else 0
            counts["in_sample_rows"] += sum(row in heldout for row in table["row_id"].to_pylist())
            progress.update(table.num_rows)
    seconds = time.monotonic() - started
    speed = counts["predicted_rows"] / max(seconds, 1e-9)
    write_json(out / "metrics.json", {**counts, "seconds": round(seconds, 2), "rows_per_second": round(speed, 2)})


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


def predict_shard(classifier: Any, fingerprinter: Any, table: "pa.Table", heldout: dict[str, float], file: Path) -> bool:
    """Write the scores of some rows, unless they are there already; return whether they were made now.

    A row that the classifier learnt from gets its held-out prediction: its own would be too sure, and outrank the rest.
    """
    import pyarrow as pa

    from playpen.fingerprints import fingerprint_rows
    from playpen.tables import write_table

    if file.exists():
        return False
    ids, score = table["row_id"].to_pylist(), classifier.predict(fingerprint_rows(fingerprinter, table, classifier.hidden))
    score = [heldout.get(row_id, float(own)) for row_id, own in zip(ids, score, strict=True)]
    write_table(file, pa.table({"row_id": table["row_id"].cast(pa.string()), "score": pa.array(score, pa.float32())}))
    return True
