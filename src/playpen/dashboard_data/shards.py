"""Pass two: features described a shard at a time. A shard that is whole is never made again."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from playpen.config import PlaypenError
from playpen.dashboard_data.decoder_map import draw_map
from playpen.dashboard_data.describe import DEAD, PROMOTED, Described, Lens, Study, describe, to_record
from playpen.dashboard_data.entries import Chunk, read_features
from playpen.dashboard_data.exports import Batches
from playpen.dashboard_data.logit_lens import LogitLens
from playpen.dashboard_data.scripts import to_json, write_packed, write_whole
from playpen.dashboard_data.token_text import TokenText

MAPPED_AT_ONCE = 512
"""A map of fewer features takes less time than starting a process for it."""
NAMED, SEARCHED, AROUND = 5, 5, 8
"""Tokens that name a feature in the list; examples whose text is searched, and tokens on either side of their peak."""


@dataclass(frozen=True)
class Maker:
    """Makes the shards of a dashboard."""

    study: Study
    chunks: list[Chunk]
    directions: Tensor
    """float32 [D, d_in]: the decoder's."""
    lens: LogitLens | str
    """The logit lens, or why there is none."""
    text: TokenText
    size: int
    """Features of a shard."""
    out: Path
    work: Path
    """Where what the list needs of each shard is kept."""
    batches: Batches | None
    """Writes the shards for Neuronpedia too, when that is wanted."""

    def count(self) -> int:
        """Return the number of shards."""
        return -(-len(self.study.features) // self.size)

    def places(self, number: int) -> range:
        """Return the places of a shard's features in the list."""
        return range(number * self.size, min((number + 1) * self.size, len(self.study.features)))

    def script(self, number: int) -> Path:
        """Return the data file of a shard."""
        return self.out / "data" / f"shard-{number:05d}.js"

    def make(self, number: int, tick: Callable[[], object]) -> None:
        """Write a shard and what the list needs of it; calls `tick()` after each feature."""
        places = self.places(number)
        found, lenses = [], self._lenses(self.study.features[places.start : places.stop])
        entries = read_features(self.chunks, self.study.features[places.start : places.stop])
        for place, each, lens in zip(places, entries, lenses, strict=True):
            found.append(describe(self.study, place, each, lens))
            tick()
        write_whole(self._kept(number), to_json(self._listed(found)))
        shard = self._records(found)
        content = to_json(shard)
        if self.batches is not None:
            self.batches.write(number, shard)
        write_packed(self.script(number), "shard", content, number)  # last: it says that the shard is whole

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of the list, without their places on the map, once all shards are there."""
        return [row for number in range(self.count()) for row in self._read(number)["rows"]]

    def search(self) -> dict[str, list[Any]]:
        """Return the columns of the search file, once all shards are there."""
        kept = [self._read(number)["search"] for number in range(self.count())]
        return {name: [value for each in kept for value in each[name]] for name in ("id", "text")}

    def start_map(self, seed: int) -> Callable[[], np.ndarray]:
        """Start to draw the map on another core; returns what waits for it.

        That is: the places of the features, float64 [f, 2], NaN for those that are dead here.
        """
        file, features = self.work / "map.npy", self.study.features
        alive = np.zeros(len(features), bool)
        for chunk in self.chunks:
            alive |= np.diff(chunk.offsets(0, chunk.d_sae))[features] > 0
        task = (self.directions[torch.from_numpy(features[alive])].cpu().numpy(), seed, file)
        process = None
        if alive.any() and not file.exists() and len(task[0]) < MAPPED_AT_ONCE:
            draw_map(*task)
        elif alive.any() and not file.exists():
            process = get_context("spawn").Process(target=draw_map, args=task, daemon=True)
            process.start()

        def wait() -> np.ndarray:
            if process is not None:
                process.join()
                if process.exitcode:
                    raise PlaypenError(f"drawing the map ended with status {process.exitcode}; is memory short? Run again")
            places = np.full((len(features), 2), np.nan)
            if alive.any():
                places[alive] = np.load(file)
            return places

        return wait

    def _read(self, number: int) -> dict[str, Any]:
        return json.loads(self._kept(number).read_text())

    def _kept(self, number: int) -> Path:
        return self.work / f"list-{number:05d}.json"

    def _lenses(self, features: np.ndarray) -> list[Lens | None]:
        if isinstance(self.lens, str):
            return [None] * len(features)
        values = self.lens.values(self.directions[torch.from_numpy(features)])
        most = min(PROMOTED, values.shape[1])
        ends = (values.topk(most, dim=1, largest=largest).indices.cpu().numpy() for largest in (True, False))
        return [Lens(*three) for three in zip(*ends, values.cpu().numpy(), strict=True)]

    def _records(self, found: list[Described]) -> dict[str, Any]:
        corpus = self.study.corpus
        used = np.unique(np.concatenate([ids for each in found for ids in each.token_ids(corpus)]))
        place = np.zeros(max(len(self.study.occurrences), int(used.max(initial=0)) + 1), np.int64)
        place[used] = np.arange(len(used))
        return {"strings": self.text(used), "features": [to_record(each, corpus, place) for each in found]}

    def _listed(self, found: list[Described]) -> dict[str, Any]:
        rows = [{**each.numbers, **self._names(each)} for each in found]
        alive = [each for each in found if not each.numbers["flags"] & DEAD]
        texts = self._passages(alive)
        return {"rows": rows, "search": {"id": [each.numbers["id"] for each in alive], "text": texts}}

    def _names(self, each: Described) -> dict[str, list[str]]:
        up = np.empty(0, np.int64) if each.lens is None else each.lens.up
        return {"tokens": self.text(each.table.ids[:NAMED]), "up": self.text(up[:NAMED])}

    def _passages(self, found: list[Described]) -> list[str]:
        """Return the text around the peaks of each feature's strongest examples, in lower case."""
        corpus, cuts, owner = self.study.corpus, [], []
        for i, each in enumerate(found):
            for peak in each.windows.peak[: min(SEARCHED, len(each.chosen.top))]:
                row = corpus.row_of[peak]
                start, end = max(corpus.starts[row], peak - AROUND), min(corpus.starts[row + 1], peak + AROUND + 1)
                cuts.append(corpus.ids[start:end])
                owner.append(i)
        texts: list[list[str]] = [[] for _ in found]
        for i, text in zip(owner, self.text.passage(cuts), strict=True):
            texts[i].append(text.lower())
        return ["\n".join(several) for several in texts]
