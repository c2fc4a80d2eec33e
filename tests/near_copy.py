"""A tiny data artifact whose pool holds a near-copy of a query, with the model, the SAE and the fingerprints to find it by."""

from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch

from playpen.machine import Machine
from playpen.models import model_files
from playpen.rivals.job import Job
from playpen.saes import write_sae
from playpen.stages import fingerprint
from playpen.tables import read_table

CPU = Machine(device="cpu")
HOOK, D_SAE = "model.layers.0.output", 96
PLACE = 7
"""Where in the pool the near-copy stands."""


def chat(*turns: str) -> list[dict[str, str]]:
    """Return a chat of these turns, the user's first."""
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]


QUERY = chat("Tell me: which letter did the amber tower hide?", "It hid the letter of the white garden, near the bridge.")
COPY = chat("Tell me: which letter did the amber tower hide!", "It hid the letter of the white garden, near the bridge.")


def make_home(path: Path) -> Path:
    """Write `base`, `tuned` and `data`: 16 rows to score, of which `PLACE` is the copy, and 3 queries, the first the original."""
    base = tiny.tiny_base(path / "base")
    tiny.tiny_adapter(path / "tuned", base)
    pool = [tiny.make_chat(seed) for seed in range(16)]
    pool[PLACE] = COPY
    queries = [QUERY, *(tiny.make_chat(seed) for seed in (50, 51))]
    tiny.tiny_data(path / "data", base, {"pool": tiny.data_table(pool), "query": tiny.data_table(queries, "tiny"), "train": 3})
    return path


def make_fingerprints(home: Path) -> None:
    """Write the artifacts `sae`, `features` and `query_features` beside the others."""
    from sae_lens import TopKSAE, TopKSAEConfig

    sae = TopKSAE(TopKSAEConfig(d_in=32, d_sae=D_SAE, k=6))
    sae.W_enc.data = torch.randn((32, D_SAE), generator=torch.Generator().manual_seed(0))
    base = model_files(home / "base").base_id
    tiny.write_artifact(home / "sae", "load-sae", lambda out: write_sae(out, sae, HOOK, base) and None)
    for name, split in (("features", "pool"), ("query_features", "query")):
        inputs = {key: str(home / artifact) for key, artifact in (("sae", "sae"), ("model", "base"), ("data", "data"))}
        config = fingerprint.Config(**inputs, split=split, k=40)
        tiny.write_artifact(home / name, "fingerprint", lambda out, c=config: fingerprint.run(c, out, CPU), {"split": split})


def data_of(path: Path, base: Path, pool: list[Any], queries: list[Any] | None = None, **columns: Any) -> Path:
    """Write a data artifact of these chats; `columns` replaces whole columns of the pool."""
    targets = queries or [QUERY]
    return tiny.tiny_data(path, base, {"pool": tiny.data_table(pool, **columns), "query": tiny.data_table(targets, "tiny")})


def job(data: Path, out: Path, seed: int = 0, machine: Machine = CPU) -> Job:
    """Return a job on the pool of `data`."""
    out.mkdir(exist_ok=True, parents=True)
    return Job(str(data), "pool", machine, seed, out)


def unpadded(row: Any) -> "torch.Tensor":
    """Return the tokens of a row as a batch of one."""
    return torch.from_numpy(np.array(row))[None].long()


def pool_of(home: Path) -> Any:
    """Return the rows to score."""
    return read_table(home / "data", "pool")
