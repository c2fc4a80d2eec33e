"""Fingerprints: which SAE features an example switches on in the base model, pooled over its tokens.

For each feature an example has the mean strength over the pooled tokens (zeros count), the maximum, and the fraction of
tokens on which the feature is active; the K strongest by mean are kept. Ten global statistics describe all of them. The BOS
and padding never count. Work is done on the active entries alone, whose number does not grow with the width of the SAE.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from playpen.activations import Batch, Hook, Rows, find_hook, hook_width, iter_activations, not_bos
from playpen.chat import IGNORE
from playpen.machine import Machine
from playpen.models import load_base, load_tokenizer
from playpen.saes import check_base, check_width, encode_sparse, open_sae, read_info

Pooled = Literal["answer", "prompt", "all", "both"]
STATISTICS = (
    "tokens",
    "active_share",
    "feature_share",
    "mean_strength",
    "std_strength",
    "max_strength",
    "mean_active",
    "std_active",
    "cv_active",
    "concentration",
)
"""The ten global statistics, in the order of the `stats` column; standard deviations divide by n."""

SCHEMA = pa.schema(
    [("row_id", pa.string()), ("ids", pa.list_(pa.int32()))]
    + [(name, pa.list_(pa.float32())) for name in ("mean", "max", "fraction", "stats")]
)
"""The columns of a features table."""

VECTOR = pa.field("vector", pa.list_(pa.float32()))
"""The column of mean hidden states, of a table beside it."""

COLUMNS = ["row_id", "input_ids", "labels"]
"""The columns of a data table that `fingerprint_rows` needs."""


@dataclass(frozen=True)
class Fingerprinter:
    """A base model, a hook and a SAE, open on a machine."""

    model: Any
    hook: Hook
    sae: Any
    bos: int | None
    tokens: Pooled
    k: int
    machine: Machine

    @property
    def num_features(self) -> int:
        """Size of the id space: answer features of `both` follow the prompt's, offset by d_sae."""
        return self.sae.cfg.d_sae * (2 if self.tokens == "both" else 1)


def open_fingerprinter(sae: Path | str, model: Path | str, tokens: Pooled, k: int, machine: Machine) -> Fingerprinter:
    """Open a SAE artifact and the base of a model artifact. Raises when they do not belong together."""
    check_base(sae, model)
    info, base = read_info(sae), load_base(model, machine)
    hook = find_hook(base, info.hook)
    check_width(str(sae), info.d_in, info.hook, hook_width(base, hook))
    return Fingerprinter(base, hook, open_sae(sae, machine), load_tokenizer(model).bos_token_id, tokens, k, machine)


def fingerprint_rows(fingerprinter: Fingerprinter, table: pa.Table, hidden: bool = False) -> pa.Table:
    """Return the fingerprints of rows with `COLUMNS`, in their order, with the columns of `SCHEMA`.

    With `hidden` there is `VECTOR` as well: the mean over the pooled tokens of the activations that the SAE reads, 0 where no
    token is pooled; [d_in] a row, or [2 d_in] when prompt and answer are kept apart (`both`), the prompt's first.
    """
    rows, answers, counted = pooled_rows(fingerprinter, table)
    parts, order = [], []
    f, schema = fingerprinter, SCHEMA.append(VECTOR) if hidden else SCHEMA
    for batch, values in iter_activations(f.model, f.hook, rows, counted, f.machine):
        part = np.concatenate([answers[i][counted[i]] for i in batch.rows]) if f.tokens == "both" else None
        made = _fingerprint_batch(f, batch, values, part)
        parts.append(made.append_column(VECTOR, _hidden_batch(batch, values, part)) if hidden else made)
        order.append(batch.rows)
    if not parts:
        return schema.empty_table()
    back = np.argsort(np.concatenate(order))
    columns = pa.concat_tables(parts).combine_chunks().take(pa.array(back))
    return columns.add_column(0, SCHEMA.field("row_id"), table["row_id"].cast(pa.string())).cast(schema)


def _ragged(column: pa.ChunkedArray) -> list[np.ndarray]:
    lists = column.combine_chunks()
    return np.split(lists.flatten().to_numpy(), np.cumsum(lists.value_lengths().to_numpy()))[:-1]


def pooled_rows(fingerprinter: Fingerprinter, table: pa.Table) -> tuple[Rows, Rows, Rows]:
    """Return of rows with `COLUMNS` the token ids and the masks of the answers and of the tokens whose features count."""
    rows, answers = _ragged(table["input_ids"]), [row != IGNORE for row in _ragged(table["labels"])]
    return rows, answers, _pooled(rows, answers, fingerprinter)


def _pooled(rows: Rows, answers: Rows, fingerprinter: Fingerprinter) -> list[np.ndarray]:
    real = not_bos(rows, fingerprinter.bos)
    if fingerprinter.tokens == "answer":
        return [a & b for a, b in zip(real, answers, strict=True)]
    if fingerprinter.tokens == "prompt":
        return [a & ~b for a, b in zip(real, answers, strict=True)]
    return real


def pooled_tokens(fingerprinter: Fingerprinter, table: pa.Table) -> int:
    """Return how many tokens of rows with `COLUMNS` the SAE reads."""
    return sum(int(mask.sum()) for mask in pooled_rows(fingerprinter, table)[2])


def token_strengths(fingerprinter: Fingerprinter, table: pa.Table) -> pd.DataFrame:
    """Return every active entry of the pooled tokens of rows with `COLUMNS`: row_id, position (in `input_ids`), feature, strength.

    A feature's strengths of a row, divided by its pooled tokens, sum to the mean that `fingerprint_rows` gives of the same table.
    """
    f, names = fingerprinter, table["row_id"].to_numpy()
    rows, answers, counted = pooled_rows(f, table)
    parts = [(names[:0], np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    for batch, values in iter_activations(f.model, f.hook, rows, counted, f.machine):
        token, feature, strength = (part.cpu().numpy() for part in encode_sparse(f.sae, values))
        place, position = batch.counted.nonzero().numpy().T
        if f.tokens == "both":
            feature = feature + f.sae.cfg.d_sae * np.concatenate([answers[i][counted[i]] for i in batch.rows])[token]
        parts.append((names[batch.rows[place[token]]], position[token], feature, strength))
    columns = map(np.concatenate, zip(*parts, strict=True))
    return pd.DataFrame(dict(zip(("row_id", "position", "feature", "strength"), columns, strict=True)))


def _fingerprint_batch(f: Fingerprinter, batch: Batch, values: Tensor, answer: np.ndarray | None) -> pa.Table:
    """Return the fingerprints of one batch. `values` is [n, d_in]; `answer` [n] parts the id space, when given."""
    row = batch.row_of_token().to(values.device)
    half = torch.zeros_like(row) if answer is None else torch.from_numpy(answer).to(row.device, row.dtype)
    token, feature, strength = encode_sparse(f.sae, values)
    groups = _group(row[token] * f.num_features + half[token] * f.sae.cfg.d_sae + feature, strength)
    tokens = torch.bincount(row * 2 + half, minlength=2 * len(batch.rows)).view(-1, 2)
    stats = _statistics(token, strength, row, groups, tokens.sum(1), f)
    owner, ident = groups.key // f.num_features, groups.key % f.num_features
    n = tokens[owner, ident // f.sae.cfg.d_sae]
    mean, fraction = groups.total / n, groups.count / n
    keep = _strongest(owner, mean, f.k)
    offsets = np.append(0, np.cumsum(torch.bincount(owner[keep], minlength=len(batch.rows)).cpu().numpy()))
    names = {"ids": ident, "mean": mean, "max": groups.peak, "fraction": fraction}
    columns = {name: _lists(column[keep], offsets, SCHEMA.field(name).type) for name, column in names.items()}
    return pa.table(
        {**columns, "stats": _lists(stats.flatten(), np.arange(len(stats) + 1) * len(STATISTICS), SCHEMA.field("stats").type)}
    )


def _hidden_batch(batch: Batch, values: Tensor, answer: np.ndarray | None) -> pa.ListArray:
    """Return the mean of the activations [n, d_in] over each row's tokens; of prompt and answer apart when `answer` is given."""
    row, halves = batch.row_of_token().to(values.device), 1 if answer is None else 2
    place = row if answer is None else 2 * row + torch.from_numpy(answer).to(row.device, row.dtype)
    total = values.new_zeros(len(batch.rows) * halves, values.shape[1]).index_add_(0, place, values)
    mean = total / torch.bincount(place, minlength=len(total)).clamp(min=1)[:, None]
    width = halves * values.shape[1]
    return _lists(mean.flatten(), np.arange(len(batch.rows) + 1) * width, VECTOR.type)


def _lists(values: Tensor, offsets: np.ndarray, kind: pa.DataType) -> pa.ListArray:
    flat = pa.array(values.cpu().numpy().astype(kind.value_type.to_pandas_dtype()))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)


@dataclass(frozen=True)
class _Groups:
    """Active entries gathered by (row, feature), ordered by it."""

    key: Tensor
    """row * num_features + feature: int64 [g]."""
    count: Tensor
    total: Tensor
    peak: Tensor


def _group(key: Tensor, strength: Tensor) -> _Groups:
    unique, inverse, count = torch.unique(key, return_inverse=True, return_counts=True)
    total = strength.new_zeros(len(unique)).index_add_(0, inverse, strength)
    peak = strength.new_zeros(len(unique)).scatter_reduce_(0, inverse, strength, "amax")
    return _Groups(unique, count, total, peak)


def _strongest(owner: Tensor, mean: Tensor, k: int) -> Tensor:
    """Return the positions of the k strongest groups of each row, strongest first; rows in order, ties by feature."""
    order = torch.argsort(mean, descending=True, stable=True)
    order = order[torch.argsort(owner[order], stable=True)]
    sizes = torch.bincount(owner)
    rank = torch.arange(len(owner), device=owner.device) - torch.repeat_interleave(torch.cumsum(sizes, 0) - sizes, sizes)
    return order[rank < k]


def _statistics(token: Tensor, strength: Tensor, row: Tensor, groups: _Groups, tokens: Tensor, f: Fingerprinter) -> Tensor:
    """Return the ten global statistics [rows, 10]; all 0 where no token is pooled, and those of strengths where none is active."""
    b, d_sae = len(tokens), f.sae.cfg.d_sae
    exact = torch.float32 if strength.device.type == "mps" else torch.float64
    owner, value = row[token], strength.to(exact)

    def by_row(where: Tensor, what: Tensor) -> Tensor:
        return torch.zeros(b, dtype=exact, device=what.device).index_add_(0, where, what.to(exact))

    n, entries = tokens.to(exact).clamp(min=1), torch.bincount(owner, minlength=b).to(exact)
    some = entries.clamp(min=1)
    mean = by_row(owner, value) / some
    std = (by_row(owner, (value - mean[owner]) ** 2) / some).sqrt()
    peak = torch.zeros(b, dtype=exact, device=value.device).scatter_reduce_(0, owner, value, "amax")
    active = torch.bincount(token, minlength=len(row)).to(exact)
    mean_active = entries / n
    std_active = (by_row(row, (active - mean_active[row]) ** 2) / n).sqrt()
    spread = std_active / torch.where(mean_active > 0, mean_active, 1)
    distinct, counts = _without_halves(groups, f.num_features, d_sae)
    different = torch.bincount(distinct, minlength=b).to(exact)
    concentration = by_row(distinct, counts.to(exact) ** 2) / some**2
    columns = (tokens, entries / (n * d_sae), different / d_sae, mean, std, peak, mean_active, std_active, spread, concentration)
    return torch.stack([column.to(exact) for column in columns], dim=1)


def _without_halves(groups: _Groups, num_features: int, d_sae: int) -> tuple[Tensor, Tensor]:
    """Return (row, number of active tokens) of each (row, feature), prompt and answer taken together."""
    owner = groups.key // num_features
    if num_features == d_sae:
        return owner, groups.count
    unique, inverse = torch.unique(owner * d_sae + groups.key % d_sae, return_inverse=True)
    return unique // d_sae, torch.zeros_like(unique).index_add_(0, inverse, groups.count)
