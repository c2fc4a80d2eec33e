"""The stage retrain: it trains as finetune does, on the subsets it says, whoever does the work and however often it is stopped."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from playpen.banks import read_bank
from playpen.config import PlaypenError
from playpen.losses import row_losses
from playpen.machine import Machine
from playpen.models import load_model, load_tokenizer
from playpen.stages import finetune, retrain
from playpen.stages.retrain import Config, Drop, KeepHalf, LeaveOut
from playpen.tables import read_metrics, read_table, write_table

CPU = Machine(device="cpu")
SETTINGS = {"epochs": 2, "lr": 1e-2, "rank": 4, "dropout": 0.0}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("retrain")
    base = tiny.tiny_base(path / "base")
    tiny.tiny_data(path / "data", base, {"train": 12, "pool": 24, "query": 4, "test": 8})
    write_scores(path / "scores", read_table(path / "data", "pool")["row_id"], np.arange(24.0))
    return path


def write_scores(path: Path, row_ids: pd.Series, values: np.ndarray) -> Path:
    table = pd.DataFrame({"row_id": row_ids, "score": values.astype(np.float32)})
    return tiny.write_artifact(path, "attribute", lambda out: write_table(out / "scores.parquet", table))


def config(home: Path, **fields: object) -> Config:
    return Config(model=str(home / "base"), data=str(home / "data"), **{**SETTINGS, "batch": 4, **fields})


def make(home: Path, path: Path, machine: Machine = CPU, **fields: object) -> Path:
    return tiny.write_artifact(path, "retrain", lambda out: retrain.run(config(home, **fields), out, machine))


def finetuned(home: Path, path: Path, **fields: object) -> Path:
    cfg = finetune.Config(model=str(home / "base"), data=str(home / "data"), **{**SETTINGS, "splits": ("pool",), **fields})
    return tiny.write_artifact(path, "finetune", lambda out: finetune.run(cfg, out, CPU))


def select(home: Path, path: Path, kept: set[str]) -> str:
    ids = read_table(home / "data", "pool")["row_id"]
    table = pd.DataFrame({"row_id": ids, "kept": ids.isin(kept)})
    return str(tiny.write_artifact(path, "select", lambda out: write_table(out / "selection.parquet", table)))


def test_what_all_trainings_read_and_foretold_is_counted(home: Path, tmp_path: Path) -> None:
    from playpen.chat import without_end_of_turn

    made = make(home, tmp_path / "bank", form=KeepHalf(subsets=3), seeds=1)
    pool, test = read_table(home / "data", "pool"), read_table(home / "data", "test")
    chosen = read_table(made, "subsets").merge(pool, on="row_id")
    tokenizer = load_tokenizer(home / "base")
    words = sum(sum(label != -100 for label in without_end_of_turn(row, tokenizer)[1:]) for row in test["labels"])
    found = read_metrics(made)
    assert found["tokens"] == {"trained": 2 * chosen["num_tokens"].sum(), "measured": 3 * test["num_tokens"].sum()}
    assert found["labels"] == {"trained": 2 * chosen["num_labels"].sum(), "measured": 3 * words}


def target_losses(home: Path, model: Path) -> np.ndarray:
    from playpen.chat import without_end_of_turn

    test, tokenizer = read_table(home / "data", "test"), load_tokenizer(home / "base")
    words = [without_end_of_turn(labels, tokenizer) for labels in test["labels"]]
    return row_losses(load_model(model, CPU), test["input_ids"].tolist(), words, CPU)


def in_order_of(home: Path, bank: Path) -> np.ndarray:
    """Return where each target of the split stands in the bank."""
    return pd.Index(read_bank(str(bank)).targets).get_indexer(pd.Index(read_table(home / "data", "test")["row_id"]))


def test_a_training_in_one_batch_from_an_adapter_ends_with_the_losses_of_finetune(home: Path, tmp_path: Path) -> None:
    """Nothing is drawn there, so that the two loops must agree to the last digits."""
    first = finetuned(home, tmp_path / "first", epochs=0.2)
    fields = {
        "init": str(first),
        "batch": 24,
        "epochs": 4,
        "lr": 1e-2,
        "rank": 16,
        "dropout": 0.05,
    }  # the last two are the adapter's
    made = make(home, tmp_path / "bank", seeds=1, form=KeepHalf(subsets=3), **fields)
    bank = read_bank(str(made))
    keep = select(home, tmp_path / "keep", set(bank.row_ids[bank.designs[1].kept]))
    expected = target_losses(home, finetuned(home, tmp_path / "model", keep=keep, **fields))
    np.testing.assert_allclose(bank.losses[1, 0, in_order_of(home, made)], expected, atol=2e-4)
    assert np.abs(expected - target_losses(home, first)).mean() > 0.05, "the training did too little to compare"


@pytest.mark.parametrize(("epochs", "batch", "warmup"), [(1.5, 5, 0.0), (3, 4, 0.03), (2, 7, 0.3)])
def test_the_rates_of_the_steps_are_those_of_finetune(
    home: Path, tmp_path: Path, epochs: float, batch: int, warmup: float
) -> None:
    from playpen.retraining import batches, cosine_schedule

    settings = {"epochs": epochs, "batch": batch, "warmup": warmup}
    made = finetuned(home, tmp_path / "model", **settings)
    cfg = finetune.Config(model="", data="", **{**SETTINGS, **settings})
    optimiser = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=cfg.lr)
    schedule, rates = cosine_schedule(optimiser, 24, cfg), []
    for _ in batches([1] * 24, cfg, 0):
        optimiser.step()
        rates.append(optimiser.param_groups[0]["lr"])
        schedule.step()
    assert rates == pytest.approx(read_table(made, "history")["learning_rate"].tolist())
    assert (rates[0] == cfg.lr) == (warmup < 0.3)


def test_trainings_in_small_batches_are_as_good_as_those_of_finetune(home: Path, tmp_path: Path) -> None:
    cfg = config(home)
    task = retrain.make_task(cfg, *(retrain.read_rows(cfg, split, None, 0) for split in ("pool", "test")), CPU)
    ours = np.array([task.retrainer(np.arange(24), seed).mean() for seed in range(4)])
    theirs = [target_losses(home, finetuned(home, tmp_path / str(seed), batch=4, seed=seed)).mean() for seed in range(3)]
    base = target_losses(home, home / "base").mean()
    noise = np.sqrt(ours.var(ddof=1) / len(ours) + np.var(theirs, ddof=1) / len(theirs))
    assert abs(ours.mean() - np.mean(theirs)) < 4 * noise
    assert base - ours.mean() > 10 * noise, "training must move the loss by far more than the margin allows"


def test_the_bank_depends_neither_on_a_kill_nor_on_the_workers(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from playpen import retraining

    fields = {"form": KeepHalf(subsets=3), "seeds": 2, "dropout": 0.1}
    whole, real, done = make(home, tmp_path / "whole", **fields), retraining._train, []

    def killed_at_the_third(task: retraining.Task, job: retraining.Job) -> None:
        done.append(job)
        if len(done) == 3:
            raise KeyboardInterrupt
        real(task, job)

    part = tmp_path / "part"
    part.mkdir()
    monkeypatch.setattr(retraining, "_train", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        retrain.run(config(home, **fields), part, CPU)
    kept = {file.name: file.stat().st_mtime_ns for file in (part / "work").iterdir()}
    assert len(kept) == 2
    monkeypatch.setattr(retraining, "_train", real)
    retrain.run(config(home, **fields), part, Machine(device="cpu", workers=2))
    assert read_metrics(part)["trainings_made"] == 4
    assert read_metrics(part)["tokens"] == read_metrics(whole)["tokens"]
    for table in ("subsets", "designs", "losses"):
        assert (part / f"{table}.parquet").read_bytes() == (whole / f"{table}.parquet").read_bytes()
    assert not (part / "work").exists()


def test_a_batch_is_split_so_that_no_row_is_padded_far() -> None:
    from playpen.losses import passes

    assert passes([7, 8, 9, 10], [60, 100, 80, 74], 16, 0.75) == [[8, 9], [10, 7]]
    assert passes([7, 8, 9], [50, 100, 80], 2, 0.0) == [[8, 9], [7]]


def test_micro_batches_add_up_to_the_batch(home: Path, tmp_path: Path) -> None:
    together, apart = (
        read_bank(
            str(make(home, tmp_path / str(n), Machine(device="cpu", train_rows=n), seeds=1, form=KeepHalf(subsets=3)))
        ).losses
        for n in (4, 1)
    )
    np.testing.assert_allclose(together, apart, atol=1e-3)
    assert np.ptp(together.mean(axis=(1, 2))) > 0.01


def table_of(home: Path) -> pd.DataFrame:
    return read_table(home / "data", "pool").sort_values("row_id", ignore_index=True)


def test_random_subsets_have_their_size_and_every_row_its_turn(home: Path) -> None:
    kept = np.stack([design.kept for design in KeepHalf(subsets=400)(table_of(home), np.random.default_rng(0))])
    assert (kept.sum(1) == 12).all()
    assert np.abs(kept.mean(0) - 0.5).max() < 0.12
    together = (kept[:, 0] & kept[:, 1]).mean()
    assert abs(together - 0.5 * 11 / 23) < 0.08, "rows must be drawn without regard to each other"


def test_chunks_leave_every_row_out_exactly_once_and_draws_leave_out_their_share(home: Path) -> None:
    everything, *chunks = LeaveOut(subsets=7)(table_of(home), np.random.default_rng(0))
    assert everything.kept.all()
    assert (np.stack([~chunk.kept for chunk in chunks]).sum(0) == 1).all()
    drawn = LeaveOut(subsets=5, fraction=0.25)(table_of(home), np.random.default_rng(0))[1:]
    assert [int((~design.kept).sum()) for design in drawn] == [6] * 5


def test_the_top_of_scores_and_of_length_is_left_out_and_as_many_random_rows(home: Path) -> None:
    rows = table_of(home)
    designs = Drop(scores={"ours": str(home / "scores")}, shares=(0.1, 0.25), random=3)(rows, np.random.default_rng(0))
    assert [design.kind for design in designs] == ["all", *["top", "top", "random", "random", "random"] * 2]
    best = read_table(home / "scores", "scores").nlargest(6, "score")["row_id"]
    ours, length = designs[6], designs[7]
    assert set(rows.loc[~ours.kept, "row_id"]) == set(best)
    assert rows.loc[~length.kept, "num_labels"].min() >= rows.loc[length.kept, "num_labels"].max()
    assert {int((~design.kept).sum()) for design in designs[6:]} == {6}


def test_some_rows_and_some_targets_are_drawn_by_the_seed(home: Path) -> None:
    first, again, other = (retrain.read_rows(config(home, seed=seed), "pool", 10, 0)["row_id"].tolist() for seed in (0, 0, 1))
    assert first == again == sorted(first) != other
    assert len(set(first)) == 10


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rows": 99}, "has 24 rows, 99 are wanted; lower rows"),
        ({"split": "large_pool"}, "has no table 'large_pool'"),
        ({"form": LeaveOut(subsets=25)}, "24 rows cannot be parted into 25 chunks"),
        ({"form": KeepHalf(subsets=3, fraction=0.01)}, "fraction 0.01 of 24 rows is 0 rows"),
        ({"split": "train", "form": "drop"}, "have no partner, the first is row_id"),
        ({"target_modules": ("c_attn",)}, "no module named c_attn"),
        ({"lr": 1e30}, "losses that are not finite; lower lr"),
    ],
)
def test_what_cannot_be_trained_is_one_line(home: Path, tmp_path: Path, fields: dict[str, object], message: str) -> None:
    if fields.get("form") == "drop":
        fields = {**fields, "form": Drop(scores={"ours": str(home / "scores")}, shares=(0.25,), random=3)}
    with pytest.raises(PlaypenError, match=message):
        make(home, tmp_path / "bank", **{"seeds": 1, "form": KeepHalf(subsets=3), **fields})


def test_scores_may_not_take_the_name_of_a_control() -> None:
    with pytest.raises(ValueError, match="may not be called 'length'"):
        Drop(scores={"length": "runs/x/scores"})
