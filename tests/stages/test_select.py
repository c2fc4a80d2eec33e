"""The stage select: rules equal their closed forms, controls match what they control, mistakes are one line."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny

from playpen.config import PlaypenError
from playpen.machine import Machine
from playpen.selection_budget import length_bin
from playpen.selection_rules import Longest, MatchedRandom, Quality, Random, Threshold, TopK
from playpen.stages import select
from playpen.stages.select import Config, choose
from playpen.tables import read_metrics, read_table, write_table

POOL = 200


def write_scores(path: Path, rows: pd.DataFrame, values: np.ndarray) -> Path:
    table = pd.DataFrame({"row_id": rows["row_id"], "score": values.astype(np.float32)})
    return tiny.write_artifact(path, "attribute", lambda out: write_table(out / "scores.parquet", table))


def run(path: Path, **fields: object) -> Path:
    return tiny.write_artifact(path, "select", lambda out: select.run(Config(**fields), out, Machine()))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("select")
    base = tiny.tiny_base(path / "base")
    rng = np.random.default_rng(0)
    chats = [tiny.make_chat(seed) for seed in range(POOL)]
    columns = {
        "source": rng.choice(["a", "b", "c"], POOL).tolist(),
        "quality_score": rng.integers(0, 5, POOL).astype(float).tolist(),
    }
    tiny.tiny_data(path / "data", base, {"pool": tiny.data_table(chats, **columns), "train": 12})
    rows = read_table(path / "data", "pool")
    # The scores follow source and length, so that a plain random draw would not match the selection.
    write_scores(
        path / "scores", rows, rows["num_tokens"].to_numpy() + 20.0 * (rows["source"] == "a").to_numpy() + rng.random(POOL)
    )
    run(path / "top", data=str(path / "data"), scores=str(path / "scores"), method=TopK(k=40))
    return path


def pick(home: Path, method: object, **fields: object) -> pd.DataFrame:
    return choose(Config(data=str(home / "data"), scores=str(home / "scores"), method=method, **fields))


def test_top_k_keeps_exactly_the_k_highest_scores_and_ranks_all_rows(home: Path) -> None:
    table = read_table(home / "top", "selection")
    highest = read_table(home / "scores", "scores").nlargest(40, "score")["row_id"]
    assert set(table.loc[table["kept"], "row_id"]) == set(highest)
    assert table["rank"].tolist() == list(range(1, POOL + 1))
    assert table["score"].is_monotonic_decreasing
    assert table["reason"].str.len().min() > 0


def test_ties_go_to_the_lower_row_id(home: Path, tmp_path: Path) -> None:
    write_scores(tmp_path / "flat", read_table(home / "data", "pool"), np.zeros(POOL))
    kept = choose(Config(data=str(home / "data"), scores=str(tmp_path / "flat"), method=TopK(k=5)))
    assert kept["row_id"].tolist() == sorted(kept["row_id"])


def test_a_token_budget_is_kept_and_nearly_used_up(home: Path) -> None:
    rows = pick(home, TopK(tokens=1000))
    used = int(rows.loc[rows["kept"], "num_tokens"].sum())
    assert used <= 1000 < used + int(rows.loc[~rows["kept"], "num_tokens"].iloc[0])


def test_matched_random_has_the_counts_of_source_length_and_answer_length_of_what_it_matches(home: Path) -> None:
    top = read_table(home / "top", "selection").set_index("row_id")["kept"]
    rows = pick(home, MatchedRandom(like=str(home / "top")), seed=3)
    stratum = [rows["source"], length_bin(rows["num_tokens"]), length_bin(rows["num_labels"])]
    wanted = rows["row_id"].map(top).groupby(stratum).sum()
    assert rows["kept"].groupby(stratum).sum().tolist() == wanted.tolist()
    assert set(rows.loc[rows["kept"], "row_id"]) != set(top[top].index)


def test_random_draws_change_with_the_seed_and_only_with_it(home: Path) -> None:
    drawn = [frozenset(r.loc[r["kept"], "row_id"]) for r in (pick(home, Random(k=30), seed=s) for s in (0, 0, 1))]
    assert drawn[0] == drawn[1] != drawn[2]


def test_quality_and_longest_follow_their_column(home: Path) -> None:
    best = pick(home, Quality(k=20))
    assert best.loc[best["kept"], "quality_score"].min() >= best.loc[~best["kept"], "quality_score"].max()
    long = pick(home, Longest(k=20))
    assert long.loc[long["kept"], "num_labels"].min() >= long.loc[~long["kept"], "num_labels"].max()


def test_threshold_keeps_what_reaches_it(home: Path) -> None:
    rows = pick(home, Threshold(value=50.0))
    assert ((rows["score"] >= 50.0) == rows["kept"]).all()
    assert rows["kept"].any()


def test_the_numbers_tell_overlap_and_the_difference_in_budget(home: Path, tmp_path: Path) -> None:
    path = run(
        tmp_path / "half", data=str(home / "data"), scores=str(home / "scores"), method=TopK(k=20), against=(str(home / "top"),)
    )
    told = read_metrics(path)["against"][0]
    assert (told["shared_rows"], told["jaccard"], told["rows_difference"]) == (20, 0.5, -20)
    assert told["tokens_difference"] == read_metrics(path)["tokens"] - read_metrics(home / "top")["tokens"]


def test_several_splits_are_ranked_as_one(home: Path) -> None:
    rows = choose(Config(data=str(home / "data"), splits=("train", "pool"), method=Longest(k=30)))
    assert len(rows) == POOL + 12


def test_scores_of_another_pool_are_refused_with_a_row_id(home: Path, tmp_path: Path) -> None:
    tiny.tiny_data(tmp_path / "other", home / "base", {"pool": 16}, seed=9)
    rows = read_table(tmp_path / "other", "pool")
    write_scores(tmp_path / "scores", rows, np.zeros(len(rows)))
    with pytest.raises(PlaypenError, match=r"have no partner, the first is row_id [0-9a-f]{16}"):
        choose(Config(data=str(home / "data"), scores=str(tmp_path / "scores"), method=TopK(k=5)))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (TopK(k=5), "needs scores"),
        (TopK(k=10_000), "only 200 rows"),
        (Quality(k=5, column="stars"), "no column stars"),
        (Threshold(value=1e9), "keeps no row"),
    ],
)
def test_what_cannot_be_chosen_is_one_line(home: Path, tmp_path: Path, method: object, message: str) -> None:
    scores = None if message == "needs scores" else str(home / "scores")
    with pytest.raises(PlaypenError, match=message):
        run(tmp_path / "selection", data=str(home / "data"), scores=scores, method=method)


@pytest.mark.parametrize("budget", [{}, {"k": 3, "tokens": 3}, {"tokens": 3, "labels": 3}])
def test_a_budget_is_in_rows_or_in_one_kind_of_tokens_never_both(budget: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="either k"):
        Config(data="data", method=TopK(**budget))
