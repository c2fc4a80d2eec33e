"""The stage profile-memory: the largest that fits is found, running out harms nobody, a stopped run measures only what is missing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny
import torch

from playpen.chat import IGNORE
from playpen.config import PlaypenError
from playpen.journal import Journal
from playpen.machine import Machine
from playpen.stages import profile_memory
from playpen.stages.profile_memory import Config, largest_that_fits, recommend, search
from playpen.tables import read_metrics, read_table
from playpen.training_memory import Asked, Cell, measure, out_of_memory, random_rows

CPU = Machine(device="cpu")
NOTHING_FITS = 0.03
"""GB: less than Python with torch."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_base(tmp_path_factory.mktemp("profile_memory") / "base")


def profile(base: Path, path: Path, **fields: Any) -> Path:
    config = Config(model=str(base), **{"sequence_lengths": (16,), "checkpointing": "never", **fields})
    return tiny.write_artifact(path, "profile-memory", lambda out: profile_memory.run(config, out, CPU))


@pytest.mark.parametrize("most", [1, 2, 3, 12, 16, 100])
def test_the_largest_that_fits_is_found_without_asking_twice(most: int) -> None:
    for limit in range(most + 2):
        asked: list[int] = []

        def fits(rows: int, limit: int = limit, asked: list[int] = asked) -> bool:
            asked.append(rows)
            return rows <= limit

        assert largest_that_fits(most, fits) == min(limit, most)
        assert len(set(asked)) == len(asked) <= 2 * most.bit_length() + 1


def memory_of(cell: Any) -> int:
    """Return the bytes of a made-up model: weights, and activations by token, fewer with checkpointing, and by token pair."""
    tokens = cell.rows * cell.sequence_length
    return 1000 + tokens * (2 if cell.checkpointing else 10) + tokens * cell.sequence_length // 100


def made_up(limit: int) -> Callable[[Any], dict[str, Any]]:
    def measured(cell: Any) -> dict[str, Any]:
        fits = memory_of(cell) <= limit
        speed = (700.0 if cell.checkpointing else 1000.0) if fits else None
        told = {"peak_bytes": memory_of(cell), "reserved_bytes": None, "tokens_per_second": speed}
        return {"fits": fits, "ended": "done" if fits else "limit", **told}

    return measured


def test_the_search_finds_the_largest_of_every_length_and_setting() -> None:
    config = Config(model="runs/base", sequence_lengths=(400, 100, 200), batch=16)
    limit = 20_000
    table = search(config, made_up(limit))
    for found in profile_memory.summary(config, table, limit)["largest"]:
        cells = [Cell(found["sequence_length"], rows, found["checkpointing"]) for rows in range(1, config.batch + 1)]
        assert found["rows"] == sum(memory_of(cell) <= limit for cell in cells)
    order = table[["sequence_length", "checkpointing", "rows"]].to_numpy().tolist()
    assert order == sorted(order)
    assert set(table["rows"]) >= {1, 2, 4, 8, 16}


def cells(*rows: tuple[int, bool, int, float | None]) -> pd.DataFrame:
    """Return cells of one length from (rows, checkpointing, peak_bytes, tokens_per_second); without a speed it does not fit."""
    table = pd.DataFrame(rows, columns=["rows", "checkpointing", "peak_bytes", "tokens_per_second"])
    return table.assign(sequence_length=64, fits=table["tokens_per_second"].notna()).astype({"tokens_per_second": float})


@pytest.mark.parametrize(
    ("why", "table", "rows", "checkpointing"),
    [
        ("the fastest", cells((1, False, 10, 100.0), (2, False, 20, 200.0), (4, False, 40, 300.0)), 4, False),
        ("a batch of 12 has no micro-batch of 5", cells((4, False, 40, 200.0), (5, False, 50, 300.0)), 4, False),
        ("what does not fit has no say", cells((4, False, 40, 200.0), (6, False, 60, None)), 4, False),
        ("of two that are as fast, the smaller", cells((4, False, 40, 291.0), (6, False, 60, 300.0)), 4, False),
        ("91 of 100 is no headroom", cells((4, False, 91, 400.0), (4, True, 50, 300.0), (2, False, 50, 290.0)), 2, False),
        ("slower with checkpoints, but it fits", cells((1, False, 200, None), (1, True, 80, 50.0)), 1, True),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_recommended_divides_the_batch_fits_and_is_fast(why: str, table: Any, rows: int, checkpointing: bool) -> None:
    best = recommend(table, Config(model="runs/base", batch=12), 100)
    assert best is not None
    assert (best["rows"], best["accumulation"], best["checkpointing"]) == (rows, 12 // rows, checkpointing)


def test_nothing_is_recommended_where_nothing_leaves_the_headroom() -> None:
    assert recommend(cells((1, False, 91, 5.0), (1, True, 200, None)), Config(model="runs/base"), 100) is None


def test_what_is_measured_is_finetunes_trainer_with_two_micro_batches_a_step(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from playpen.stages import finetune

    made: list[Any] = []
    real = finetune.make_trainer
    monkeypatch.setattr(finetune, "make_trainer", lambda *args: made.append(real(*args)) or made[-1])
    config = Config(model=str(base), batch=6, steps=2, rank=3, target_modules=("q_proj",))
    found = measure(Asked(config, Cell(16, 2, True), 10**10, tmp_path, replace(CPU, processes=4, train_rows=9)))
    (trainer,) = made
    arguments = trainer.args
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (2, 2)
    assert arguments.gradient_checkpointing
    assert trainer.state.global_step == 1 + config.steps
    assert {tuple(weight.shape) for weight in trainer.model.parameters() if weight.requires_grad} == {(3, 32), (32, 3)}
    assert found["fits"]
    assert found["tokens_per_second"] > 0


@pytest.mark.parametrize(("labels", "labelled"), [(1.0, 16), (0.5, 8), (0.01, 1)])
def test_rows_have_the_length_and_the_share_of_labels_asked_for(base: Path, labels: float, labelled: int) -> None:
    rows = random_rows(Config(model=str(base), labels=labels), Cell(16, 2, False), 5)
    assert [len(ids) for ids in rows["input_ids"]] == [16] * 5
    for ids, row in zip(rows["input_ids"], rows["labels"], strict=True):
        assert row[-labelled:].tolist() == ids[-labelled:].tolist()
        assert (row[:-labelled] == IGNORE).all()


@pytest.mark.slow
def test_finetune_fits_and_is_measured_in_a_process_of_its_own(base: Path, tmp_path: Path) -> None:
    made = profile(base, tmp_path / "memory", sequence_lengths=(64,), batch=1, steps=1)
    (row,) = read_table(made, "memory").to_dict("records")
    numbers = read_metrics(made)
    assert (row["sequence_length"], row["rows"], row["checkpointing"], row["fits"], row["ended"]) == (64, 1, False, True, "done")
    assert 10**8 < row["peak_bytes"] < numbers["limit_bytes"]
    assert row["tokens_per_second"] > 0
    assert numbers["recommended"]["64"]["rows"] == numbers["recommended"]["64"]["accumulation"] == 1
    assert "LoRA @ seq=64, bs=1 |" in (made / "memory.md").read_text()
    assert {file.name for file in made.iterdir()} == {"manifest.json", "memory.md", "memory.parquet", "metrics.json"}


def test_where_nothing_fits_the_table_says_so(base: Path, tmp_path: Path) -> None:
    made = profile(base, tmp_path / "memory", sequence_lengths=(16, 64), limit_gb=NOTHING_FITS)
    table, numbers = read_table(made, "memory"), read_metrics(made)
    assert table[["sequence_length", "rows", "fits", "ended"]].to_numpy().tolist() == [
        [16, 1, False, "limit"],
        [64, 1, False, "limit"],
    ]
    assert (table["peak_bytes"] > numbers["limit_bytes"]).all()
    assert numbers["recommended"] == {"16": None, "64": None}
    assert (made / "memory.md").read_text().count("| OOM |") == 2


def test_a_stopped_run_keeps_its_cells_and_ends_like_one_that_was_not(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields: dict[str, Any] = {"sequence_lengths": (16, 32, 64), "checkpointing": "never", "limit_gb": NOTHING_FITS}
    config, part = Config(model=str(base), **fields), tmp_path / "part"
    part.mkdir()
    real, measured = profile_memory.measure_apart, []

    def stop_at_the_third(*args: Any) -> dict[str, Any]:
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(args[-1].sequence_length)
        return real(*args)

    monkeypatch.setattr(profile_memory, "measure_apart", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        profile_memory.run(config, part, CPU)
    with Journal(part / "cells.jsonl") as journal:
        kept = [journal.found[f"{length}-1-False"]["peak_bytes"] for length in (16, 32)]
    monkeypatch.setattr(profile_memory, "measure_apart", lambda *args: measured.append(args[-1].sequence_length) or real(*args))
    profile_memory.run(config, part, CPU)
    assert measured == [16, 32, 64]
    table = read_table(part, "memory")
    assert table["sequence_length"].tolist() == [16, 32, 64]
    assert table["peak_bytes"].tolist()[:2] == kept
    assert not table["fits"].any()


def test_cells_of_another_machine_are_not_gone_on_with(base: Path, tmp_path: Path) -> None:
    with Journal(tmp_path / "cells.jsonl") as journal:
        journal.add("machine", {"device": "NVIDIA H200", "dtype": "bfloat16", "limit_bytes": 10**9})
    with pytest.raises(PlaypenError, match=r"was begun on NVIDIA H200 in bfloat16, and this is .* in float32"):
        profile_memory.run(Config(model=str(base), sequence_lengths=(16,)), tmp_path, CPU)


def test_what_does_not_fit_into_less_than_the_limit_is_not_told_as_too_large(base: Path, tmp_path: Path) -> None:
    config = Config(model=str(base), sequence_lengths=(16,))
    with pytest.raises(PlaypenError, match=r"do not fit into the 0.03 GB that are free now, but the limit was 1.00 GB"):
        profile_memory.measure_apart(config, tmp_path, CPU, 10**9, 3 * 10**7, Cell(16, 1, False))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sequence_lengths": (16, 512)}, "holds 512, but the context of .* is 256 tokens"),
        ({"limit_gb": 1e6}, "limit_gb is 1e.06, but only .* GB are free here"),
    ],
)
def test_a_wrong_input_is_one_line(base: Path, tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PlaypenError, match=message):
        profile(base, tmp_path / "made", **fields)


def test_a_length_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="sequence_lengths holds something twice"):
        Config(model="runs/base", sequence_lengths=(16, 16))


@pytest.mark.parametrize(
    ("error", "want_of_memory"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_only_a_want_of_memory_counts_as_one(error: Exception, want_of_memory: bool) -> None:
    assert out_of_memory(error) == want_of_memory


def test_the_allocators_own_refusal_is_a_want_of_memory() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert out_of_memory(refused.value)
