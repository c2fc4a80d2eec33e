"""Selection rules beyond top-k: each finds what is planted, keeps its promise, and fills its budget."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny

from playpen.artifact import read_manifest
from playpen.config import PlaypenError
from playpen.machine import Machine
from playpen.query_scores import write_query_scores
from playpen.row_similarity import read_row_vectors
from playpen.selection_budget import Budget
from playpen.selection_rules import Deduplicated, FacilityLocation, FilterBottom, Gumbel, RoundRobin, SourceCap, TopK
from playpen.stages.select import Config, choose, ranked, run
from playpen.tables import read_metrics, read_table, write_json, write_table

ROWS = 60


@pytest.fixture
def rows() -> pd.DataFrame:
    """60 rows by row_id; source `a` scores best, and lengths are of no order."""
    rng = np.random.default_rng(3)
    score = rng.normal(size=ROWS)
    return pd.DataFrame(
        {
            "row_id": [f"{i:016x}" for i in range(ROWS)],
            "source": np.where(score > 0.5, "a", rng.choice(["b", "c"], ROWS)),
            "num_tokens": rng.integers(5, 60, ROWS).astype(np.int32),
            "num_labels": rng.integers(1, 30, ROWS).astype(np.int32),
            "quality_score": None,
            "score": score.astype(np.float32),
        }
    )


def kept(rows: pd.DataFrame, method: Budget, seed: int = 0) -> pd.DataFrame:
    """Return the rows that a method keeps, best first, after checking what holds for every method."""
    found = ranked(rows, method, seed)  # type: ignore[arg-type]
    assert sorted(found["row_id"]) == sorted(rows["row_id"])
    assert found["kept"].iloc[: found["kept"].sum()].all(), "a rejected row stands before a kept one"
    assert found["reason"].str.len().min() > 0
    return found[found["kept"]]


def write_vectors(path: Path, rows: pd.DataFrame, vectors: np.ndarray) -> str:
    write_table(path / "vectors.parquet", pd.DataFrame({"row_id": rows["row_id"], "vector": list(vectors.astype(np.float32))}))
    return str(path)


def write_features(path: Path, rows: pd.DataFrame, ids: list[list[int]], strengths: list[list[float]]) -> str:
    def fill(out: Path) -> None:
        stats = [[0.0] * 10] * len(rows)
        write_table(
            out / "features.parquet", pd.DataFrame({"row_id": rows["row_id"], "ids": ids, "mean": strengths, "stats": stats})
        )
        write_json(out / "fingerprint.json", {"num_features": 50, "k": 8})

    return str(tiny.write_artifact(path, "fingerprint", fill))


def clusters(rows: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Return vectors in six directions; the best-scored third of the rows share one of them."""
    which = rng.integers(1, 6, ROWS)
    which[rows["score"].rank(ascending=False).to_numpy() <= ROWS / 3] = 0
    return np.eye(6)[which] + 0.05 * rng.normal(size=(ROWS, 6))


RULES = {
    "gumbel": lambda path, **budget: Gumbel(**budget),
    "filter_bottom": lambda path, **budget: FilterBottom(**budget),
    "source_cap": lambda path, **budget: SourceCap(share=0.4, **budget),
    "round_robin": lambda path, **budget: RoundRobin(**budget),
    "facility_location": lambda path, **budget: FacilityLocation(features=path, **budget),
    "deduplicated": lambda path, **budget: Deduplicated(features=path, above=0.9999, **budget),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("unit", "column"), [("k", None), ("tokens", "num_tokens"), ("labels", "num_labels")])
def test_every_budget_is_kept_and_used_up_to_the_next_row(
    rows: pd.DataFrame, tmp_path: Path, rule: str, unit: str, column: str
) -> None:
    rng = np.random.default_rng(0)
    rows = rows.assign(query_scores=list(rng.normal(size=(ROWS, 4))))
    limit = {"k": 13, "tokens": 311, "labels": 97}[unit]
    method = RULES[rule](write_vectors(tmp_path, rows, clusters(rows, rng)), **{unit: limit})
    chosen = kept(rows, method)
    if column is None:
        assert len(chosen) == limit
    else:
        following = ranked(rows, method, 0).iloc[len(chosen)]
        assert chosen[column].sum() <= limit < chosen[column].sum() + following[column]


def test_gumbel_is_top_k_near_zero_random_when_hot_and_between_them_prefers_the_better(rows: pd.DataFrame) -> None:
    best = set(rows.nlargest(10, "score")["row_id"])
    assert set(kept(rows, Gumbel(k=10, temperature=1e-9))["row_id"]) == best
    shares = [
        np.mean([len(best & set(kept(rows, Gumbel(k=10, temperature=t), seed)["row_id"])) / 10 for seed in range(20)])
        for t in (1e9, 0.5)
    ]
    assert shares[0] == pytest.approx(10 / ROWS, abs=0.1)
    assert shares[0] + 0.2 < shares[1] < 1


def test_gumbel_draws_the_first_row_with_a_chance_proportional_to_the_exponential_of_its_score(rows: pd.DataFrame) -> None:
    few = rows.head(3).assign(score=np.float32([0.0, 1.0, 2.0]))
    z = (few["score"] - 1) / np.sqrt(2 / 3)
    expected = np.exp(z / 0.8) / np.exp(z / 0.8).sum()
    rng = np.random.default_rng(0)
    first = [int(Gumbel(k=1, temperature=0.8)(few, rng)["priority"].idxmax()) for _ in range(500)]
    assert [first.count(row) / 500 for row in range(3)] == pytest.approx(expected.tolist(), abs=0.07)


def test_scores_that_are_all_the_same_are_drawn_at_random_by_gumbel(rows: pd.DataFrame) -> None:
    flat = rows.assign(score=np.float32(2))
    drawn = {frozenset(kept(flat, Gumbel(k=5), seed)["row_id"]) for seed in range(5)}
    assert len(drawn) == 5


def test_filter_bottom_never_keeps_the_worst_and_may_keep_any_other(rows: pd.DataFrame) -> None:
    worst = set(rows.nsmallest(15, "score")["row_id"])
    drawn = [set(kept(rows, FilterBottom(k=20, drop=0.25), seed)["row_id"]) for seed in range(30)]
    assert not worst & set.union(*drawn)
    assert set.union(*drawn) == set(rows["row_id"]) - worst
    told = ranked(rows, FilterBottom(k=20, drop=0.25), 0).set_index("row_id")["reason"]
    assert all("among the worst 25%" in told[row] for row in worst)


def test_filter_bottom_says_when_what_it_leaves_cannot_fill_the_budget(rows: pd.DataFrame) -> None:
    with pytest.raises(PlaypenError, match="filter_bottom takes only 6 of 20 rows"):
        kept(rows, FilterBottom(k=20, drop=0.9))


@pytest.mark.parametrize(("unit", "column"), [("k", None), ("tokens", "num_tokens"), ("labels", "num_labels")])
def test_no_source_takes_more_than_its_share_in_the_unit_of_the_budget(rows: pd.DataFrame, unit: str, column: str | None) -> None:
    limit = {"k": 20, "tokens": 400, "labels": 150}[unit]
    assert (kept(rows, TopK(**{unit: limit}))["source"] == "a").mean() > 0.5
    chosen = kept(rows, SourceCap(share=0.35, **{unit: limit}))
    used = chosen.groupby("source")[column].sum() if column else chosen["source"].value_counts()
    assert used.max() <= 0.35 * limit
    assert used["a"] > 0.2 * limit


def test_a_source_cap_of_everything_is_top_k_and_one_that_cannot_fill_the_budget_is_refused(rows: pd.DataFrame) -> None:
    assert kept(rows, SourceCap(k=20, share=1))["row_id"].tolist() == kept(rows, TopK(k=20))["row_id"].tolist()
    with pytest.raises(PlaypenError, match="source_cap takes only 12 of 20 rows"):
        kept(rows, SourceCap(k=20, share=0.2))


def test_a_share_that_is_a_whole_number_of_rows_may_be_used_up_whatever_its_float_is(rows: pd.DataFrame) -> None:
    many = pd.concat([rows] * 2).sort_values("score", ascending=False)
    many = many.assign(row_id=[f"{i:016x}" for i in range(2 * ROWS)], source=np.repeat(list("abcd"), 30))
    assert kept(many, SourceCap(k=100, share=0.29))["source"].value_counts()["a"] == 29  # 0.29 * 100 is a little below 29


def test_shares_that_leave_less_than_a_row_each_may_leave_a_little_of_a_budget_in_tokens(rows: pd.DataFrame) -> None:
    short = pd.concat([rows] * 5).assign(row_id=[f"{i:016x}" for i in range(5 * ROWS)], num_tokens=np.int32(7))
    chosen = kept(short, SourceCap(tokens=600, share=1 / 3))  # 200 tokens are 28 rows of 7, and 4 over
    assert chosen["source"].value_counts().to_dict() == {"a": 28, "b": 28, "c": 28}
    with pytest.raises(PlaypenError, match="source_cap takes only 525 of 600 tokens"):
        kept(short, SourceCap(tokens=600, share=0.3))


def test_queries_take_turns_and_each_picks_its_best_row_that_is_left(rows: pd.DataFrame) -> None:
    scores = np.random.default_rng(1).normal(size=(ROWS, 3))
    scores[:, 2] *= 1000  # a mean over queries would hear the third alone
    left, expected = set(range(ROWS)), []
    for pick in range(17):
        row = max(left, key=lambda i, query=pick % 3: scores[i, query])
        left.remove(row)
        expected.append(rows["row_id"][row])
    chosen = kept(rows.assign(query_scores=list(scores)), RoundRobin(k=17, order="split"))
    assert chosen["row_id"].tolist() == expected
    assert chosen["query"].value_counts().to_dict() == {0: 6, 1: 6, 2: 5}
    assert chosen["reason"].iloc[4].startswith("pick 2 of query 2 of 3")


def test_turns_may_be_drawn_so_that_the_last_queries_of_the_split_are_not_the_ones_without(rows: pd.DataFrame) -> None:
    scores = np.random.default_rng(1).normal(size=(ROWS, 12))
    table = rows.assign(query_scores=list(scores))
    first = [kept(table, RoundRobin(k=6, order="split"), seed=seed)["query"].tolist() for seed in range(4)]
    drawn = [kept(table, RoundRobin(k=6), seed=seed)["query"].tolist() for seed in range(4)]
    assert first == [[*range(6)]] * 4
    assert len({tuple(turns) for turns in drawn}) == 4
    assert len({query for turns in drawn for query in turns}) > 8
    assert drawn == [kept(table, RoundRobin(k=6), seed=seed)["query"].tolist() for seed in range(4)]
    two_rounds = kept(table, RoundRobin(k=24))["query"].tolist()
    assert sorted(two_rounds[:12]) == [*range(12)]
    assert two_rounds[:12] == two_rounds[12:]


def test_turns_by_tokens_and_with_ties_are_those_of_a_search_over_all_rows(rows: pd.DataFrame) -> None:
    scores = np.random.default_rng(2).integers(0, 4, size=(ROWS, 5)).astype(np.float64)  # most rows tie
    left, expected, spent = list(range(ROWS)), [], 0
    while spent < 300:
        query = len(expected) % 5
        row = max(left, key=lambda i, query=query: (scores[i, query], -i))
        left.remove(row)
        expected.append(rows["row_id"][row])
        spent += rows["num_tokens"][row]
    chosen = kept(rows.assign(query_scores=list(scores)), RoundRobin(tokens=300, order="split"))
    assert chosen["row_id"].tolist() == expected[: len(chosen)]
    assert len(expected) - len(chosen) <= 1


def test_round_robin_may_keep_every_row(rows: pd.DataFrame) -> None:
    alike = np.repeat(np.random.default_rng(1).normal(size=(ROWS, 1)), 2, axis=1)
    assert len(kept(rows.assign(query_scores=list(alike)), RoundRobin(k=ROWS))) == ROWS


def test_a_query_that_prefers_no_row_has_no_turn(rows: pd.DataFrame) -> None:
    scores = np.random.default_rng(1).normal(size=(ROWS, 3))
    scores[:, 1] = 0.5
    chosen = kept(rows.assign(query_scores=list(scores)), RoundRobin(k=8, order="split"))
    assert chosen["query"].tolist() == [0, 2] * 4
    assert chosen["reason"].iloc[3].startswith("pick 2 of query 3 of 3")
    with pytest.raises(PlaypenError, match="each of 3 queries gives all rows the same score"):
        kept(rows.assign(query_scores=list(np.zeros((ROWS, 3)))), RoundRobin(k=8))


def write_turns(home: Path, **fields: object) -> Path:
    """Write a data artifact of six rows and three queries, and `scores` of it in which query q likes row q; `fields` are of their config."""
    base = tiny.tiny_base(home / "base")
    queries = tiny.data_table([tiny.make_chat(i) for i in range(3)], task="lore")
    data = tiny.tiny_data(home / "data", base, {"pool": 6, "query": queries})
    ids = read_table(data, "pool")["row_id"]

    def fill(out: Path) -> None:
        write_table(out / "scores.parquet", pd.DataFrame({"row_id": ids, "score": np.arange(6, dtype=np.float32)}))
        write_query_scores(ids[::-1], np.eye(6, 3)[::-1], out / "query_scores.parquet")

    tiny.write_artifact(home / "scores", "attribute", fill, {"data": read_manifest(data)["fingerprint"], **fields})
    return home


def turns_of(home: Path, k: int = 2) -> Config:
    return Config(data=str(home / "data"), scores=str(home / "scores"), method=RoundRobin(k=k, order="split"))


def test_round_robin_reads_the_scores_of_each_query_and_says_when_they_are_missing(tmp_path: Path) -> None:
    cfg = turns_of(write_turns(tmp_path))
    ids = read_table(tmp_path / "data", "pool")["row_id"]
    chosen = choose(cfg)
    assert chosen.loc[chosen["kept"], "row_id"].tolist() == [ids[0], ids[1]]
    (tmp_path / "scores" / "query_scores.parquet").unlink()
    with pytest.raises(
        PlaypenError, match=r"round_robin needs scores for each query, but .*scores has no table 'query_scores': make it by"
    ):
        choose(cfg)


def test_a_reason_by_turns_names_the_query_and_the_numbers_tell_how_many_have_no_pick(tmp_path: Path) -> None:
    cfg, out = turns_of(write_turns(tmp_path)), tmp_path / "out"
    asked = read_table(tmp_path / "data", "query")["messages"][0][0]["content"]
    out.mkdir()
    run(cfg, out, Machine(device="cpu"))
    reason = read_table(out, "selection")["reason"][0]
    assert reason.startswith(f"pick 1 of query 1 of 3 (lore: '{asked[:60]}")
    assert (read_metrics(out)["queries"], read_metrics(out)["queries_without_a_pick"]) == (3, 1)


def test_queries_of_other_data_go_without_a_name_as_many_as_they_are(tmp_path: Path) -> None:
    chosen = choose(turns_of(write_turns(tmp_path, data="01234567")))
    assert chosen["reason"][0] == "pick 1 of query 1 of 3, whose score for it is 1"


def coverage(rows: pd.DataFrame, vectors: np.ndarray, chosen: pd.DataFrame) -> float:
    """Return the mean, over rows weighed by the share that score lower, of the cosine to the nearest kept row."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near = (unit @ unit[rows["row_id"].isin(chosen["row_id"]).to_numpy()].T).max(1).clip(0)
    helpful = rows["score"].rank() - 1
    return float(np.average(near, weights=helpful))


@pytest.mark.parametrize("diversity", [0.2, 0.5, 1.0])
def test_facility_location_picks_what_a_greedy_search_over_all_rows_picks(
    rows: pd.DataFrame, tmp_path: Path, diversity: float
) -> None:
    vectors = np.random.default_rng(5).normal(size=(ROWS, 4))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alike, helpful = (unit @ unit.T).clip(0), (rows["score"].rank() - 1).to_numpy() / (ROWS - 1)

    def value(picks: list[int]) -> float:
        own = (1 - diversity) / 12 * helpful[picks].sum()
        return own + diversity / helpful.sum() * (helpful * alike[:, picks].max(1)).sum()

    picks: list[int] = []
    for _ in range(12):
        picks.append(max(set(range(ROWS)) - set(picks), key=lambda row: value([*picks, row])))
    chosen = kept(rows, FacilityLocation(k=12, features=write_vectors(tmp_path, rows, vectors), diversity=diversity))
    assert chosen["row_id"].tolist() == rows["row_id"][picks].tolist()
    assert chosen["gain"].sum() == pytest.approx(value(picks), rel=1e-5)


def test_facility_location_covers_more_than_top_k_and_without_diversity_is_top_k(rows: pd.DataFrame, tmp_path: Path) -> None:
    vectors = clusters(rows, np.random.default_rng(2))
    path = write_vectors(tmp_path, rows, vectors)
    top, spread = kept(rows, TopK(k=8)), kept(rows, FacilityLocation(k=8, features=path))
    assert coverage(rows, vectors, spread) > coverage(rows, vectors, top) + 0.2
    assert spread["score"].mean() > rows["score"].mean()
    assert kept(rows, FacilityLocation(k=8, features=path, diversity=0))["row_id"].tolist() == top["row_id"].tolist()


def test_facility_location_reads_fingerprints_and_a_row_without_features_is_like_none(rows: pd.DataFrame, tmp_path: Path) -> None:
    few = rows.head(4).assign(score=np.float32([4, 3, 2, 1]))
    path = write_features(tmp_path / "features", few, [[1, 2], [1, 2], [3], []], [[3.0, 4.0], [6.0, 8.0], [2.0], []])
    alike = read_row_vectors(path, few, "cosine", "test").to(np.arange(4))
    assert alike == pytest.approx(np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]], float), abs=1e-6)
    assert kept(few, FacilityLocation(k=2, features=path, diversity=0.9))["row_id"].tolist() == few["row_id"][[0, 2]].tolist()


def test_of_copies_only_the_best_is_kept_and_the_others_name_it(rows: pd.DataFrame, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    original = np.arange(ROWS) % 20  # three copies of each of 20 rows
    path = write_vectors(tmp_path, rows, rng.normal(size=(20, 16))[original] + 1e-4 * rng.normal(size=(ROWS, 16)))
    method = Deduplicated(k=20, features=path, above=0.99)
    chosen = kept(rows, method)
    assert sorted(original[chosen.merge(rows.reset_index(), on="row_id")["index"]]) == list(range(20))
    best = rows.groupby(original)["score"].max()
    assert sorted(chosen["score"]) == sorted(best)
    passed = ranked(rows, method, 0).query("~taken").set_index("row_id")
    assert len(passed) > 20
    for row, like, reason in zip(passed.index, passed["like"], passed["reason"], strict=True):
        assert int(row, 16) % 20 == int(like, 16) % 20
        assert like in reason
    with pytest.raises(PlaypenError, match="deduplicated takes only 20 of 21 rows"):
        kept(rows, Deduplicated(k=21, features=path, above=0.99))


def test_jaccard_is_the_share_of_features_that_two_rows_have_in_common(rows: pd.DataFrame, tmp_path: Path) -> None:
    few = rows.head(4).assign(score=np.float32([4, 3, 2, 1]))
    ids, strengths = [[1, 2, 3, 4], [1, 2, 3, 9], [1, 8], []], [[1.0, 9, 1, 1], [9.0, 1, 1, 1], [1.0, 1], []]
    path = write_features(tmp_path / "features", few, ids, strengths)
    alike = read_row_vectors(path, few, "jaccard", "test").to(np.arange(4))
    assert alike[0].tolist() == pytest.approx([1, 3 / 5, 1 / 5, 0])
    assert alike[1].tolist() == pytest.approx([3 / 5, 1, 1 / 5, 0])
    chosen = kept(few, Deduplicated(k=3, features=path, above=0.5, measure="jaccard"))
    assert chosen["row_id"].tolist() == few["row_id"][[0, 2, 3]].tolist()


@pytest.mark.parametrize("mistake", ["measure", "rows", "finite", "scores"])
def test_vectors_that_do_not_fit_are_one_line(rows: pd.DataFrame, tmp_path: Path, mistake: str) -> None:
    vectors = np.ones((ROWS, 3))
    if mistake == "finite":
        vectors[7, 1] = np.nan
    path = write_vectors(tmp_path, rows.head(50) if mistake == "rows" else rows, vectors[: 50 if mistake == "rows" else ROWS])
    method = Deduplicated(k=2, features=path, measure="jaccard" if mistake == "measure" else "cosine")
    words = {
        "measure": "jaccard compares sets of features",
        "rows": "10 of 60 rows have no partner",
        "finite": f"the vector of row_id {rows['row_id'][7]} is not finite",
        "scores": "deduplicated needs scores",
    }[mistake]
    with pytest.raises(PlaypenError, match=words):
        kept(rows.drop(columns="score") if mistake == "scores" else rows, method)
