"""A made-up dashboard, written in the files of docs/dashboard_format.md: English-like documents, and features that are rules over them.

A feature fires on the tokens of a few words, some only in one source, so that every number follows from the text and what a
test looks for is planted: `TELLS_PROMPTS` fires on nothing but prompts, `DEAD` on nothing at all. Same arguments, same files.
"""

import base64
import gzip
import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kurtosis, rankdata, skew
from synthetic_world import (
    CATEGORIES,
    COLUMNS,
    CONTRAST,
    DEAD,
    DENSE,
    PATTERNS,
    SIDES,
    SINGLE,
    TELLS_PROMPTS,
    World,
    make_strengths,
    make_world,
)

__all__ = ["DEAD", "DENSE", "SHARD", "SINGLE", "TELLS_PROMPTS", "write"]

WINDOW = 14
SHARD = 32


def auroc(score: np.ndarray, positive: np.ndarray) -> float | None:
    """Return the chance that a positive has the higher score, ties counting half."""
    up, down = int(positive.sum()), int((~positive).sum())
    return None if not up or not down else float((rankdata(score)[positive].sum() - up * (up + 1) / 2) / (up * down))


def log_odds(a: np.ndarray, b: np.ndarray) -> float:
    """Return the log of the odds of being active in `a` over those in `b`, 0.5 added to each count."""
    odds = [(part.sum() + 0.5) / ((~part).sum() + 0.5) for part in (a, b)]
    return float(np.log(odds[0] / odds[1]))


def write(
    out: Path,
    features: int = 96,
    listed: int | None = None,
    documents: int = 700,
    seed: int = 0,
    extra: tuple[str, ...] = (),
    sides: bool = True,
) -> Path:
    """Write the data of a dashboard; `listed` repeats the features until the list has so many, and only the first and last shard.

    Without `sides` the corpus has neither sides nor categories, and there are no logit lens and no near misses.
    """
    made = Maker(make_world(documents, seed, extra), features, seed, extra, sides)
    size = listed or features
    shards = -(-size // SHARD)
    script(out, "meta.js", "meta", json.dumps(made.meta(size, shards)))
    columns = made.columns()
    repeats = {key: (values * (size // features + 1))[:size] for key, values in columns.items()}
    repeats["id"] = list(range(size))
    script(out, "list.js", "list", packed(repeats))
    alive = [i for i in range(features) if not columns["flags"][i] & 1]
    script(out, "search.js", "search", packed({"id": alive, "text": [made.search_text(i) for i in alive]}))
    for shard in range(shards) if size == features else (0, shards - 1):
        ids = range(shard * SHARD, min(size, (shard + 1) * SHARD))
        made.strings = {}
        found = [{**made.feature(i % features), "id": i} for i in ids]
        script(out, f"shard-{shard:05}.js", f"shard({shard}, ", packed({"strings": list(made.strings), "features": found}))
    return out


def script(out: Path, name: str, call: str, value: str) -> None:
    """Write a data file: a script that calls one function of the page."""
    (out / "data").mkdir(parents=True, exist_ok=True)
    head = call if "(" in call else f"{call}("
    (out / "data" / name).write_text(f"playpen.{head}{value});\n")


def packed(value: Any) -> str:
    """Return JSON as the text of a JavaScript string of base64 of gzip."""
    return json.dumps(base64.b64encode(gzip.compress(json.dumps(value).encode(), 6, mtime=0)).decode())


class Maker:
    """Everything that is known of each feature."""

    def __init__(self, world: World, features: int, seed: int, extra: tuple[str, ...], sides: bool) -> None:
        self.world, self.draw, self.sides = world, np.random.default_rng(seed + 1), sides
        self.strengths = make_strengths(world, features, seed, extra)
        self.strings: dict[str, int] = {}
        self.document = world.document
        self.lengths = np.bincount(self.document)
        self.side = np.array([list(SIDES.values())[s] == "prompts" for s in world.source])
        self.next = np.append(world.tokens[1:], world.tokens[0])
        self.maximum = np.maximum.reduceat(self.strengths, world.starts, axis=0)
        decoder = self.draw.normal(size=(features, 24)) + 2 * self.draw.normal(size=(7, 24))[np.arange(features) % 7]
        self.decoder = decoder / np.linalg.norm(decoder, axis=1, keepdims=True)
        self.cosine = self.decoder @ self.decoder.T
        with np.errstate(all="ignore"):
            self.pearson = np.nan_to_num(np.corrcoef(self.strengths.T))
        place = np.linalg.svd(self.decoder, full_matrices=False)[0][:, :2]
        self.place = np.round((place - place.min(0)) / np.ptp(place, axis=0), 4)
        self.lens = np.round(self.draw.normal(size=(features, len(world.strings))) * 1.5, 3)

    def meta(self, size: int, shards: int) -> dict[str, Any]:
        """Return the meta file."""
        w = self.world
        columns = [*COLUMNS, *(CONTRAST if self.sides else ())]
        metrics = {"explained_variance": 0.873, "l0": 15.2, "ce_score": 0.94, "dead_fraction": 0.01}
        sae = {"hook": "model.layers.2.output", "architecture": "topk", "d_in": 128, "d_sae": size, "fingerprint": "1a2b3c4d"}
        return {
            "format": 1,
            "title": "Questions and stories",
            "sae": {**sae, "metrics": metrics},
            "model": "a made-up model",
            "corpus": {"tokens": len(w.tokens), "rows": len(w.starts), "documents": len(w.starts)},
            "sources": [{**part, "side": SIDES[part["name"]] if self.sides else ""} for part in self.parts(PATTERNS, w.source)],
            "categories": self.parts(CATEGORIES, w.category) if self.sides else [],
            "length_auroc": auroc(self.lengths, self.side) if self.sides else None,
            "num_features": size,
            "shard_features": SHARD,
            "num_shards": shards,
            "columns": [dict(zip(("key", "label", "help", "format"), column, strict=True)) for column in columns],
            "lens": None if self.sides else "the SAE reads attention heads, whose width is not that of the residual stream",
            "near": None if self.sides else "a gated SAE decides by more than one number",
            "neuronpedia": None,
        }

    def parts(self, names: Iterable[str], of_document: np.ndarray) -> list[dict[str, Any]]:
        """Return the sources or the categories with their sizes."""
        of_token = of_document[self.document]
        sizes = [(int((of_token == i).sum()), int((of_document == i).sum())) for i, _ in enumerate(names)]
        inside = of_document >= 0
        lengths = [auroc(self.lengths[inside], of_document[inside] == i) for i in range(len(sizes))]
        rows = zip(names, sizes, lengths, strict=True)
        return [{"name": name, "tokens": t, "documents": d, "length_auroc": length} for name, (t, d), length in rows]

    def columns(self) -> dict[str, list[Any]]:
        """Return the list."""
        rows = [self.row(i) for i in range(self.strengths.shape[1])]
        return {key: [row[key] for row in rows] for key in rows[0]}

    def row(self, i: int) -> dict[str, Any]:
        """Return the statistics of one feature."""
        on, w = self.strengths[:, i] > 0, self.world
        values, top, most = self.strengths[on, i], self.maximum[:, i], np.bincount(w.tokens[on], minlength=len(w.strings))
        share = float(most.max() / on.sum()) if on.any() else None
        prompts = self.side[self.document]
        prompt_docs = w.category >= 0
        by_category = [auroc(top[prompt_docs], w.category[prompt_docs] == c) or 0 for c in range(len(CATEGORIES))]
        by_source = [float(on[w.source[self.document] == s].mean()) for s in range(len(PATTERNS))]
        flags = (not on.any()) + 2 * bool(on.mean() > 0.1) + 4 * bool(on.sum() >= 5 and (share or 0) >= 0.9)
        alive = bool(on.any())

        def rounded(value: Any) -> float | None:
            return round(float(value), 6) if value is not None and alive and np.isfinite(value) else None

        return {
            "id": i,
            "density": round(float(on.mean()), 7),
            "documents": rounded((top > 0).mean()) or 0,
            "max": rounded(values.max(initial=0)),
            "mean": rounded(values.mean()) if alive else None,
            "std": rounded(values.std()) if alive else None,
            "skew": rounded(skew(values)) if alive else None,
            "kurtosis": rounded(kurtosis(values, fisher=False)) if alive else None,
            "token_share": rounded(share),
            "prompts": rounded(on[prompts].mean()) if self.sides else None,
            "control": rounded(on[~prompts].mean()) if self.sides else None,
            "log_odds": rounded(log_odds(on[prompts], on[~prompts])) if self.sides else None,
            "auroc": rounded(auroc(top, self.side)) if self.sides else None,
            "category": int(np.argmax(by_category)) if alive and self.sides else None,
            "category_auroc": rounded(max(by_category)) if self.sides else None,
            "source": int(np.argmax(by_source)) if alive else None,
            "lift": rounded(max(by_source) / on.mean()) if alive else None,
            "x": float(self.place[i, 0]),
            "y": float(self.place[i, 1]),
            "flags": int(flags),
            "tokens": [w.strings[t] for t in np.argsort(-most, kind="stable")[:5] if most[t]],
            "up": [w.strings[t] for t in np.argsort(-self.lens[i], kind="stable")[:5]] if self.sides else [],
        }

    def search_text(self, i: int) -> str:
        """Return the text around the peaks of the five strongest documents."""
        w, peaks = self.world, self.strongest(i, 5)
        return " … ".join("".join(w.strings[t] for t in w.tokens[max(0, p - 8) : p + 9]) for p in peaks).lower()

    def strongest(self, i: int, count: int) -> list[int]:
        """Return the places of the strongest tokens, one a document."""
        order = [int(p) for p in np.argsort(-self.strengths[:, i], kind="stable")[: 40 * count] if self.strengths[p, i] > 0]
        best: dict[int, int] = {}
        for p in order:
            best.setdefault(int(self.document[p]), p)
        return list(best.values())[:count]

    def text(self, token: int) -> int:
        """Return the place of a token in the shard's strings."""
        return self.strings.setdefault(self.world.strings[token], len(self.strings))

    def example(self, i: int, place: int, value: float | None = None) -> dict[str, Any]:
        """Return the tokens around one place of the corpus."""
        w, document = self.world, int(self.document[place])
        start, end = int(w.starts[document]), int(np.append(w.starts, len(w.tokens))[document + 1])
        low, high = max(start, place - WINDOW), min(end, place + WINDOW + 1)
        strengths = self.strengths[low:high, i]
        effects = [round(float(a * self.lens[i, self.next[p]] / 10), 3) for p, a in zip(range(low, high), strengths, strict=True)]
        return {
            "d": f"{document:016x}",
            "s": int(w.source[document]),
            "c": int(w.category[document]) if self.sides else -1,
            "p": low - start,
            "n": end - start,
            "at": place - low,
            "v": round(float(self.strengths[place, i] if value is None else value), 2),
            "t": [self.text(t) for t in w.tokens[low:high]],
            "a": [round(float(a), 2) for a in strengths],
            "e": [*effects[:-1], None] if self.sides else None,
        }

    def groups(self, i: int, edges: np.ndarray) -> list[dict[str, Any]]:
        """Return the groups of active tokens between falling edges, with two examples each."""
        values, found = self.strengths[:, i], []
        for high, low in pairwise(edges):
            inside = np.flatnonzero((values > 0) & (values <= high) & (values > low))
            some = self.draw.choice(inside, min(2, len(inside)), replace=False) if len(inside) else []
            found.append(
                {
                    "low": float(low),
                    "high": float(high),
                    "count": len(inside),
                    "examples": [self.example(i, int(p)) for p in some],
                }
            )
        return found

    def feature(self, i: int) -> dict[str, Any]:
        """Return what the feature's own view shows."""
        w, values = self.world, self.strengths[:, i]
        on = np.flatnonzero(values)
        active, off = values[on], np.flatnonzero(values == 0)
        counts, edges = np.histogram(active, 40, (0, float(active.max(initial=1)))) if len(on) else (np.empty(0), np.empty(0))
        position = np.arange(len(values)) - w.starts[self.document]
        bins = np.array([0, 1, 2, 4, 8, 16, 32, 64, 128])
        place = np.digitize(position, bins) - 1
        density = [float((values[place == b] > 0).mean()) if (place == b).any() else 0.0 for b in range(len(bins) - 1)]
        quantiles = np.quantile(active, np.linspace(1, 0, 11)) if len(on) else np.empty(0)
        widths = np.linspace(float(active.max(initial=0)), 0, 11) if len(on) else np.empty(0)
        if len(quantiles):
            quantiles[-1] = 0
        some = self.draw.choice(on, min(10, len(on)), replace=False) if len(on) else []
        near = self.draw.choice(off, 10, replace=False)
        miss = np.sort(self.draw.uniform(0, max(1.0, float(active.min(initial=2))), 10))[::-1]
        return {
            "id": i,
            "top": [self.example(i, p) for p in self.strongest(i, 20)],
            "quantiles": self.groups(i, quantiles),
            "intervals": self.groups(i, widths),
            "random": [self.example(i, int(p)) for p in some],
            "near": [self.example(i, int(p), v) for p, v in zip(near, miss, strict=True)] if self.sides else [],
            "histogram": {"edges": edges.tolist(), "counts": counts.astype(int).tolist()},
            "positions": {"edges": bins.tolist(), "density": density},
            "logits": self.logits(i),
            "tokens": self.token_rows(i),
            "next": [[self.text(t), int(n)] for t, n in _most(self.next[on], 12)],
            "neighbours": self.relatives(self.cosine[i], i),
            "correlated": self.relatives(self.pearson[i], i) if len(on) else [],
            "sources": [self.part(i, w.source == s) for s in range(len(PATTERNS))],
            "categories": [self.part(i, w.category == c) for c in range(len(CATEGORIES))] if self.sides else [],
        }

    def logits(self, i: int) -> dict[str, Any] | None:
        """Return the logit lens."""
        if not self.sides:
            return None
        order, (counts, edges) = np.argsort(-self.lens[i], kind="stable"), np.histogram(self.lens[i], 40)
        up, down = ([[self.text(t), float(self.lens[i, t])] for t in part[:10]] for part in (order, order[::-1]))
        return {"up": up, "down": down, "histogram": {"edges": edges.tolist(), "counts": counts.tolist()}}

    def token_rows(self, i: int) -> list[list[Any]]:
        """Return the tokens on which it is active most often."""
        w, values = self.world, self.strengths[:, i]
        rows = []
        for token, count in _most(w.tokens[values > 0], 12):
            here = values[w.tokens == token]
            rows.append([self.text(token), int(count), round(float(here[here > 0].mean()), 3), float((here > 0).mean())])
        return rows

    def relatives(self, closeness: np.ndarray, i: int) -> list[list[Any]]:
        """Return the ten nearest other features."""
        order = [int(j) for j in np.argsort(-closeness, kind="stable") if j != i and closeness[j] > 0.05][:10]
        return [[j, round(float(closeness[j]), 4)] for j in order]

    def part(self, i: int, documents: np.ndarray) -> list[float | int | None]:
        """Return how it behaves on some documents against all others."""
        on, inside = self.strengths[:, i] > 0, documents[self.document]
        density, top = float(on[inside].mean()), self.maximum[:, i]
        lift = density / float(on.mean()) if on.any() else None
        return [int(on[inside].sum()), density, lift, log_odds(on[inside], on[~inside]), auroc(top, documents)]


def _most(values: np.ndarray, count: int) -> list[tuple[int, int]]:
    found, times = np.unique(values, return_counts=True)
    return [(int(found[j]), int(times[j])) for j in np.argsort(-times, kind="stable")[:count]]
