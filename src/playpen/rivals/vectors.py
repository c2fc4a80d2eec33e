"""Vectors of rows from a model's activations: a table in shards, made batch by batch."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from playpen.progress import tqdm
from playpen.rivals.job import Job
from playpen.tables import iter_table, write_table

SHARD = 1024
"""Rows whose vectors are written at a time; a killed run repeats at most these."""

SCHEMA = pa.schema([("row_id", pa.string()), ("vector", pa.list_(pa.float32()))])
"""The columns of a table `vectors`."""

Weigh = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From a row's tokens and labels to the weight of each token, which sum to 1; all 0 where none counts."""


def make_vectors(job: Job, split: str, folder: Path, model: Any, hook: Any, weigh: Weigh) -> None:
    """Write the table `vectors` of a split in `folder`, weighted means of the activations at a hook; whole shards stay."""
    step = "query" if split == "query" else "pool"
    rows = job.queries("num_tokens") if split == "query" else job.rows("num_tokens")
    total = int(rows["num_tokens"].sum())
    with tqdm(total=total, desc=f"vectors of {split}", unit="token", disable=None, mininterval=1) as bar:
        for i, table in enumerate(iter_table(job.data, split, SHARD, ["row_id", "input_ids", "labels"])):
            file, part = folder / "vectors" / f"shard-{i:05d}.parquet", table.to_pandas()
            size = int(part["input_ids"].map(len).sum())
            if file.exists():
                bar.update(size)
                continue
            weights = [weigh(ids, labels) for ids, labels in zip(part["input_ids"], part["labels"], strict=True)]
            vectors = weighted_means(model, hook, list(part["input_ids"]), weights, job.machine, bar)
            write_table(file, vector_table(part["row_id"].tolist(), vectors))
            job.tokens[step] += size


def weighted_means(
    model: Any, hook: Any, ids: Sequence[np.ndarray], weights: Sequence[np.ndarray], machine: Any, bar: tqdm
) -> np.ndarray:
    """Return float32 [rows, d]: the sum of each row's activations times its weights."""
    import torch

    from playpen.activations import hook_width, iter_activations

    counted, found = [weight > 0 for weight in weights], np.zeros((len(ids), hook_width(model, hook)), np.float32)
    for batch, values in iter_activations(model, hook, ids, counted, machine):
        weight = np.concatenate([weights[i][counted[i]] for i in batch.rows]).astype(np.float32)
        scaled = values * torch.from_numpy(weight).to(values.device)[:, None]
        sums = values.new_zeros((len(batch.rows), values.shape[1]))
        found[batch.rows] = sums.index_add_(0, batch.row_of_token().to(values.device), scaled).cpu().numpy()
        bar.update(sum(len(ids[i]) for i in batch.rows))
    return found


def vector_table(row_ids: Sequence[str], vectors: np.ndarray) -> pa.Table:
    """Return row_ids and vectors [rows, d] as a table `vectors`."""
    offsets = pa.array(np.arange(len(vectors) + 1) * vectors.shape[1], pa.int32())
    lists = pa.ListArray.from_arrays(offsets, pa.array(vectors.astype(np.float32).ravel()))
    return pa.table([pa.array(row_ids, pa.string()), lists], schema=SCHEMA)


def read_vectors(folder: Path) -> np.ndarray:
    """Return the vectors of a table `vectors`, float32 [rows, d], in its order."""
    return np.concatenate([_matrix(table["vector"]) for table in iter_table(folder, "vectors", SHARD, ["vector"])])


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    return column.combine_chunks().flatten().to_numpy().reshape(len(column), -1)
