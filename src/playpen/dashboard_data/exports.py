"""Dashboards for other programs, made from the shards: lines of JSON, and SAEDashboard's files for Neuronpedia.

`batch-N.json` has the fields that SAEDashboard 0.8.0 writes. `correlated_features_l1` is, as there, the cosine of the
strengths. Empty as when it leaves them out: `correlated_neurons_*`, `decoder_weights_dist`, `vector`; no `dfa_*`.
"""

import gzip
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from playpen.config import PlaypenError
from playpen.dashboard_data.corpus import Corpus
from playpen.dashboard_data.relations import Partners
from playpen.dashboard_data.scripts import read_packed, to_json, write_whole
from playpen.tables import unfinished

ALIGNED = 3
"""Neurons listed of a decoder direction, as many as SAEDashboard's runner lists."""


@dataclass(frozen=True)
class Neuronpedia:
    """How Neuronpedia calls a SAE: `model/layer-set`."""

    model: str
    layer: int
    sae_set: str


def neuronpedia_name(given: str | None, hook: str, model: str, sae: str) -> Neuronpedia:
    """Return the names of a given `model/layer-set` or, without one, those that the artifacts have. Raises when there is no layer."""
    if given is not None:
        model, _, source = given.partition("/")
        layer, _, sae = source.partition("-")
        return Neuronpedia(model, int(layer), sae)
    layer = re.search(r"\.(\d+)(\.|$)", hook)
    if not layer:
        raise PlaypenError(f"the hook {hook} names no layer, which Neuronpedia's format needs: set neuronpedia, as model/5-set")
    return Neuronpedia(model, int(layer[1]), sae)


def write_lines(scripts: Sequence[Path], path: Path) -> None:
    """Write `features.jsonl.gz`: one feature a line, as in a shard but with the texts of the tokens in place of their numbers."""
    part = unfinished(path)
    with part.open("wb") as raw, gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as handle:
        for script in scripts:
            for feature in resolved(read_packed(script)):
                handle.write(to_json(feature) + b"\n")
    part.replace(path)


def resolved(shard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the features of a shard with the texts of their tokens."""
    text = shard["strings"].__getitem__
    for feature in shard["features"]:
        for example in examples_of(feature):
            example["t"] = [text(i) for i in example["t"]]
        for name in ("tokens", "next"):
            feature[name] = [[text(i), *rest] for i, *rest in feature[name]]
        for name in ("up", "down") if feature["logits"] else ():
            feature["logits"][name] = [[text(i), value] for i, value in feature["logits"][name]]
        yield feature


def examples_of(feature: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield all examples of a feature."""
    for name in ("top", "random", "near"):
        yield from feature[name]
    for name in ("quantiles", "intervals"):
        for group in feature[name]:
            yield from group["examples"]


@dataclass(frozen=True)
class Batches:
    """Writes SAEDashboard's files."""

    name: Neuronpedia
    features: np.ndarray
    """int64 [f]: ids, in the order of the list."""
    correlated: Partners
    directions: np.ndarray
    """float32 [D, d_in]"""
    corpus: Corpus
    dataset: str
    folder: Path

    def write(self, number: int, shard: dict[str, Any]) -> None:
        """Write a shard as `batch-N.json`; the shard is used up: its tokens' numbers become their texts."""
        head = {"model_id": self.name.model, "layer": self.name.layer, "sae_set": self.name.sae_set, "sae_id_suffix": None}
        found = [self._feature(feature) for feature in resolved(shard)]
        content = json.dumps({**head, "features": found}, allow_nan=False)
        write_whole(self.folder / f"batch-{number}.json", content.encode("ascii"))

    def _feature(self, feature: dict[str, Any]) -> dict[str, Any]:
        logits = feature["logits"] or {"up": [], "down": [], "histogram": {"edges": [], "counts": []}}
        return {
            "feature_index": feature["id"],
            **self._alignment(feature["id"]),
            **{f"correlated_neurons_{name}": [] for name in ("indices", "l1", "pearson")},
            **self._correlated(feature["id"]),
            "neg_str": [text for text, _ in logits["down"]],
            "neg_values": [round(value, 3) for _, value in logits["down"]],
            "pos_str": [text for text, _ in logits["up"]],
            "pos_values": [round(value, 3) for _, value in logits["up"]],
            "frac_nonzero": sum(group["count"] for group in feature["quantiles"]) / self.corpus.num_tokens,
            **_bars("freq", feature["histogram"]),
            **_bars("logits", logits["histogram"]),
            "n_prompts_total": len(self.corpus.document_of),
            "n_tokens_in_prompt": int(np.diff(self.corpus.starts).max()),
            "dataset": self.dataset,
            "decoder_weights_dist": [],
            "activations": [*_top(feature), *(a for group in feature["intervals"] for a in self._interval(group))],
            "vector": [],
        }

    def _alignment(self, ident: int) -> dict[str, list[Any]]:
        """Return the largest weights of the decoder direction, and their share of its sum of absolute weights."""
        direction = self.directions[ident].astype(np.float64)
        largest = np.argsort(-direction, kind="stable")[:ALIGNED]
        share = np.abs(direction[largest]) / max(np.abs(direction).sum(), 1e-12)
        values = {"indices": largest.tolist(), "values": direction[largest].round(3).tolist(), "l1": share.round(3).tolist()}
        return {f"neuron_alignment_{name}": column for name, column in values.items()}

    def _correlated(self, ident: int) -> dict[str, list[Any]]:
        place = int(np.searchsorted(self.features, ident))
        there = self.correlated.id[place] >= 0
        pearson, cosine = (
            values[place][there].astype(np.float64).round(3).tolist()
            for values in (self.correlated.value, self.correlated.cosine)
        )
        columns = {"indices": self.correlated.id[place][there].tolist(), "l1": cosine, "pearson": pearson}
        return {f"correlated_features_{name}": column for name, column in columns.items()}

    def _interval(self, group: dict[str, Any]) -> list[dict[str, Any]]:
        return [_activation(e, group["low"], group["high"], group["count"] / self.corpus.num_tokens) for e in group["examples"]]


def _top(feature: dict[str, Any]) -> list[dict[str, Any]]:
    return [_activation(example, -1, feature["top"][0]["v"], -1) for example in feature["top"]]


def _activation(example: dict[str, Any], low: float, high: float, contains: float) -> dict[str, Any]:
    return {
        "bin_min": low,
        "bin_max": high,
        "bin_contains": contains,
        "tokens": example["t"],
        "values": example["a"],
        "qualifying_token_index": example["at"],
    }


def _bars(name: str, histogram: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return the centres and heights of a histogram's bars."""
    edges = histogram["edges"]
    centres = [round((low + high) / 2, 3) for low, high in pairwise(edges)]
    return {f"{name}_hist_data_bar_heights": histogram["counts"], f"{name}_hist_data_bar_values": centres}
