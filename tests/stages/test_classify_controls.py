"""The controls of classify: a confound is caught, a signal beyond source and length is found, and nothing is saved that cannot be used."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planted import QUICK
from scipy.stats import sem, spearmanr, t
from sklearn.metrics import roc_auc_score
from tiny import write_artifact

from playpen import cross_validation
from playpen.config import PlaypenError, make_config
from playpen.feature_table import Features
from playpen.machine import Machine
from playpen.saved_classifier import load_classifier
from playpen.stages.classify import Config, Rank, run
from playpen.tables import read_metrics, read_table, write_json, write_table
from playpen.trials import hidden_source_length, source_length

ROWS, FEATURES, WIDTH = 400, 60, 24
IDS = [f"r{i}" for i in range(ROWS)]
LINEAR = {"models": ("l1", "l2"), "l1": QUICK["l1"], "l2": QUICK["l2"], "trees": QUICK["trees"], "folds": 3, "bootstrap": 200}


class World:
    """Rows from three sources, whose longer ones switch on more features; feature 3 is on at random."""

    def __init__(self, root: Path) -> None:
        draw = np.random.default_rng(11)
        self.root, self.draw = root, draw
        self.source = draw.integers(0, 3, ROWS)
        self.tokens = np.round(np.exp(draw.normal(4 + 0.3 * self.source, 0.5))).astype(int)
        self.labels = np.maximum(1, (self.tokens * draw.uniform(0.3, 0.7, ROWS)).astype(int))
        active = np.clip(self.tokens // 8, 1, WIDTH)
        ids = np.stack([draw.permutation(np.arange(4, FEATURES))[:WIDTH] for _ in range(ROWS)]).astype(np.int64)
        ids[np.arange(WIDTH) >= active[:, None]] = FEATURES
        self.signal = draw.random(ROWS) < 0.4
        ids[self.signal, 0] = 3
        strength = np.where(ids < FEATURES, draw.gamma(4.0, 1.0, ids.shape), 0)
        self.length_score = np.log(self.labels) + 0.4 * self.source + draw.normal(0, 0.2, ROWS)
        stats = np.column_stack([self.tokens, active, draw.normal(size=(ROWS, 8))])
        self.features = Features(ids, strength.astype(np.float32), stats.astype(np.float32), FEATURES)
        columns = {"num_tokens": self.tokens, "num_labels": self.labels, "group": [f"g{i // 2}" for i in range(ROWS)]}
        pool = pd.DataFrame({"row_id": IDS, "source": np.array(["a", "b", "c"])[self.source], **columns})
        self.data = self.write("data", "build-data", lambda out: write_table(out / "pool.parquet", pool))
        self.own = self.fingerprint("features", self.features)

    def write(self, name: str, kind: str, fill: Callable[[Path], None]) -> str:
        return str(write_artifact(self.root / name, kind, fill))

    def fingerprint(self, name: str, features: Features, hidden: np.ndarray | None = None) -> str:
        there = features.ids < features.num_features
        pairs = {"ids": features.ids.astype(np.int32), "mean": features.strength}
        lists = {key: [row[keep] for row, keep in zip(values, there, strict=True)] for key, values in pairs.items()}

        def fill(out: Path) -> None:
            table = pd.DataFrame({"row_id": IDS, **lists, "stats": list(features.stats)})
            write_table(out / "features" / "shard-00000.parquet", table)
            if hidden is not None:
                vectors = pd.DataFrame({"row_id": IDS[::-1], "vector": list(hidden[::-1].astype(np.float32))})
                write_table(out / "hidden" / "shard-00000.parquet", vectors)
            info = {"num_features": features.num_features, "k": features.ids.shape[1], "tokens": "answer", "sae": "s"}
            write_json(out / "fingerprint.json", {**info, "model_id": "m"})

        return self.write(name, "fingerprint", fill)

    def scores(self, name: str, score: np.ndarray, vectors: np.ndarray | None = None) -> str:
        def fill(out: Path) -> None:
            write_table(out / "scores.parquet", pd.DataFrame({"row_id": IDS, "score": score.astype(np.float32)}))
            if vectors is not None:
                write_table(out / "vectors.parquet", pd.DataFrame({"row_id": IDS, "vector": list(vectors)}))

        return self.write(name, "attribute", fill)

    def classify(self, out: Path, score: str, **changes: object) -> Path:
        given = {"features": (self.own,), "scores": score, "data": self.data, **LINEAR, **changes}
        out.mkdir()
        run(make_config(Config, given, "classify"), out, Machine(device="cpu"))
        return out


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def confounded(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    score = world.scores("confounded", world.length_score)
    return world.classify(tmp_path_factory.mktemp("a") / "out", score, models=("statistics", "l1", "l2"))


@pytest.fixture(scope="module")
def signal(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    score = world.scores("signal", world.length_score + world.signal)
    return world.classify(tmp_path_factory.mktemp("b") / "out", score)


def gaps(out: Path, model: str, measure: str) -> pd.DataFrame:
    found = read_table(out, "differences").query("model == @model and measure == @measure")
    return found.set_index("against")


def test_a_planted_length_confound_is_caught(confounded: Path) -> None:
    report = read_table(confounded, "report").set_index("name")
    assert report.loc["l1", "auroc_low"] > 0.7
    best = read_metrics(confounded)["best"]
    for rival in ("source_length", "source_length trees"):
        assert gaps(confounded, best, "auroc").loc[rival, "high"] < 0
    verdict = read_metrics(confounded)["verdict"]
    assert verdict["outcome"] == "loses"
    assert verdict["sentence"].startswith("The features lose to source and length: AUROC ")
    assert read_metrics(confounded)["together"]["outcome"] != "beats"
    assert report.loc["l2 beyond source_length", "auroc_low"] < 0.5 < report.loc["l2 beyond source_length", "auroc_high"] + 0.03
    assert report.loc["l1", "auroc_within_source_length"] < report.loc["l1", "auroc"] - 0.1


def test_a_planted_signal_beyond_source_and_length_is_found(signal: Path) -> None:
    metrics = read_metrics(signal)
    for model in ("l1", "l2 + source_length"):
        found = gaps(signal, model, "spearman_within_source_length")
        assert (found.loc[["source_length", "source_length trees"], "low"] > 0).all()
    assert metrics["together"]["outcome"] == "beats"
    assert metrics["together"]["low"] > 0
    report = read_table(signal, "report").set_index("name")
    assert report.loc["l2 beyond source_length", "auroc_low"] > 0.55


@pytest.mark.parametrize("made", ["confounded", "signal"])
def test_the_source_alone_says_nothing_within_a_source(made: str, request: pytest.FixtureRequest) -> None:
    report = read_table(request.getfixturevalue(made), "report").set_index("name").loc["source"]
    for where in ("_within_source", "_within_source_length"):
        assert report[[f"auroc{where}{end}" for end in ("", "_low", "_high")]].tolist() == [0.5] * 3
        assert report[[f"spearman{where}{end}" for end in ("", "_low", "_high")]].tolist() == [0.0] * 3


def t_interval(values: list[float]) -> tuple[float, float]:
    return t.interval(0.95, len(values) - 1, np.mean(values), sem(values))


@pytest.mark.parametrize("made", ["confounded", "signal"])
def test_shuffled_labels_give_an_auroc_of_one_half_within_its_interval(made: str, request: pytest.FixtureRequest) -> None:
    shuffled = read_metrics(request.getfixturevalue(made))["shuffled"]
    assert shuffled["model"] == "l2"
    assert len(set(shuffled["folds"])) == 5 * 3
    assert shuffled["auroc"] == pytest.approx(np.mean(shuffled["folds"]))
    assert (shuffled["auroc_low"], shuffled["auroc_high"]) == pytest.approx(t_interval(shuffled["folds"]))
    assert shuffled["auroc_low"] < 0.5 < shuffled["auroc_high"]
    assert shuffled["holds_half"] is True
    row = read_table(request.getfixturevalue(made), "report").set_index("name").loc["shuffled"]
    assert (row["auroc"], row["uses"]) == (shuffled["auroc"], "features")


def test_differences_equal_a_slow_computation(world: World, tmp_path: Path) -> None:
    out = world.classify(tmp_path / "out", world.scores("slow", world.length_score + world.signal), bootstrap=12, models=("l1",))
    held = read_table(out, "heldout").set_index("row_id")
    ours, theirs = (held[held["model"] == name].loc[IDS] for name in ("l1", "source_length"))
    codes = np.unique([f"g{i // 2}" for i in range(ROWS)], return_inverse=True)[1]
    members = [np.flatnonzero(codes == code) for code in range(ROWS // 2)]
    picks = np.random.default_rng(0).integers(ROWS // 2, size=(12, ROWS // 2))
    samples = [np.concatenate([members[pick] for pick in row]) for row in picks]

    def auroc(rows: np.ndarray) -> float:
        return float(np.subtract(*(roc_auc_score(m["label"].iloc[rows], m["prediction"].iloc[rows]) for m in (ours, theirs))))

    def within(rows: np.ndarray) -> float:
        means = []
        for made in (ours, theirs):
            own = world.source * 3 + ours["fold"].to_numpy()
            parts = [rows[own[rows] == stratum] for stratum in range(9)]
            found = [spearmanr(made["score"].iloc[part], made["prediction"].iloc[part])[0] for part in parts]
            means.append(np.average(found, weights=[len(part) for part in parts]))
        return float(means[0] - means[1])

    for measure, compute in (("auroc", auroc), ("spearman_within_source", within)):
        row = gaps(out, "l1", measure).loc["source_length"]
        assert row["value"] == pytest.approx(compute(np.arange(ROWS)))
        low, high = np.quantile([compute(rows) for rows in samples], [0.025, 0.975])
        assert (row["low"], row["high"]) == pytest.approx((low, high))


def test_every_row_of_features_is_compared_with_every_control_in_every_measure(confounded: Path) -> None:
    found = read_table(confounded, "differences")
    assert found.columns.tolist() == ["model", "against", "measure", "value", "low", "high"]
    assert set(found["against"]) == {"length", "source", "source_length", "source_length trees", "statistics"}
    assert set(found["model"]) == {"l1", "l2", "l2 + source_length", "l2 beyond source_length"}
    assert len(found) == 5 * 4 * 4
    uses = read_table(confounded, "report").set_index("name")["uses"]
    assert uses.loc[["l1", "statistics", "length", "l2 + source_length"]].tolist() == [
        "features",
        "statistics",
        "metadata",
        "features+metadata",
    ]
    assert {name: row["uses"] for name, row in read_metrics(confounded)["models"].items()} == uses.to_dict()


def test_duplicates_that_share_a_group_teach_nothing_about_each_other(world: World, tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    pairs = np.repeat(np.stack([draw.permutation(1000)[:WIDTH] for _ in range(ROWS // 2)]), 2, axis=0)
    twins = Features(pairs, np.ones(pairs.shape, np.float32), np.zeros((ROWS, 10), np.float32), 1000)
    score = world.scores("coins", np.repeat(draw.normal(size=ROWS // 2), 2))
    only = {"features": (world.fingerprint("twins", twins),), "models": ("l2",), "shuffles": 0, "bootstrap": 100, "folds": 5}
    only["l2"] = {"variances": (100.0,), "min_rows": 2}
    grouped = world.classify(tmp_path / "grouped", score, **only)
    apart = read_table(world.data, "pool").assign(group=IDS)
    loose = world.write("loose", "build-data", lambda out: write_table(out / "pool.parquet", apart))
    leaking = world.classify(tmp_path / "leaking", score, **only, data=loose)
    aurocs = [read_table(out, "report").set_index("name").loc["l2"] for out in (grouped, leaking)]
    assert aurocs[0]["auroc_low"] < 0.55
    assert aurocs[1]["auroc_low"] > 0.65


def test_controls_are_rows_of_their_own_and_curves_do_not_escape_them(world: World, tmp_path: Path) -> None:
    score = world.length_score + world.signal
    vectors = world.draw.normal(size=(ROWS, 6)).astype(np.float32)
    vectors[:, 2] += 3 * score
    controls = {"bm25": world.scores("bm25", -np.abs(score - np.median(score)), vectors)}
    out = world.classify(tmp_path / "out", world.scores("middle", score), controls=controls, models=("l1",), shuffles=0)
    report = read_table(out, "report").set_index("name")
    assert report.loc[["bm25", "bm25 vectors"], "uses"].tolist() == ["scores", "vectors"]
    assert report.loc["bm25 vectors", "auroc"] > 0.8
    assert {"bm25", "bm25 vectors"} < set(read_table(out, "differences")["against"])
    bent = {"bm25": world.scores("bent", score)}
    above = world.scores("above", np.abs(score - np.median(score)))
    row = read_table(world.classify(tmp_path / "bent", above, controls=bent, models=("l1",), shuffles=0), "report")
    assert row.set_index("name").loc["bm25", "auroc"] > 0.95


def test_hidden_states_are_a_control_and_fingerprints_joined_are_one_more_source(world: World, tmp_path: Path) -> None:
    hidden = world.draw.normal(size=(ROWS, 5))
    hidden[:, 1] += 4 * world.signal
    blind = Features(world.features.ids.copy(), world.features.strength, world.features.stats, FEATURES)
    blind.ids[blind.ids == 3] = FEATURES
    sources = (world.fingerprint("nine", blind, hidden), world.fingerprint("twelve", world.features, hidden))
    score = world.scores("hidden", world.signal + 0.3 * world.draw.normal(size=ROWS))
    out = world.classify(tmp_path / "out", score, features=sources, join=True, models=("l1",), shuffles=0)
    report = read_table(out, "report").set_index("name")
    assert report["uses"].loc[["hidden nine", "hidden twelve", "hidden nine + twelve"]].tolist() == ["hidden"] * 3
    assert (report.loc[["hidden nine", "hidden trees nine"], "auroc"] > 0.8).all()
    assert report.loc["l1 nine", "auroc"] < 0.65
    assert report.loc["l1 nine + twelve", "auroc"] > 0.8
    assert read_metrics(out)["best"] == "l1 twelve"


def test_the_control_of_length_bends_so_that_the_middle_may_be_best(world: World, tmp_path: Path) -> None:
    middle = world.scores("middling", -np.abs(np.log(world.labels) - np.median(np.log(world.labels))))
    row = (
        read_table(world.classify(tmp_path / "out", middle, models=("l1",), shuffles=0), "report").set_index("name").loc["length"]
    )
    assert (row["model"], row["uses"]) == ("length", "metadata")
    assert row["auroc"] > 0.95


def test_hidden_states_with_source_and_length_know_all_three(world: World, tmp_path: Path) -> None:
    hidden = world.draw.normal(size=(ROWS, 40))
    hidden[:, 1] += 3 * world.signal
    sources = (world.fingerprint("seen", world.features, hidden),)
    score = world.scores("three", world.length_score + world.signal)
    report = read_table(world.classify(tmp_path / "out", score, features=sources, models=("l1",), shuffles=0), "report")
    found = report.set_index("name").loc["hidden + source_length"]
    assert (found["model"], found["uses"], found["features"]) == ("hidden_and_source_length", "hidden+metadata", "seen")
    for alone in ("hidden", "source_length"):
        assert found["auroc"] > report.set_index("name").loc[alone, "auroc"] + 0.05
    assert "hidden + source_length" in set(read_table(tmp_path / "out", "differences")["against"])


def test_source_and_length_have_the_same_say_beside_hidden_states_of_any_width(world: World) -> None:
    rows, beside = read_table(world.data, "pool"), source_length(read_table(world.data, "pool"))
    for width, times in ((3, 1), (200, 12)):
        hidden = world.draw.normal(size=(ROWS, width)).astype(np.float32)
        found = hidden_source_length(hidden, rows)
        np.testing.assert_array_equal(found[:, :width], hidden)
        np.testing.assert_array_equal(found[:, width:], np.tile(beside, (1, times)))


def test_the_row_to_save_is_the_best_of_features_unless_another_is_named(world: World, tmp_path: Path) -> None:
    shown = np.column_stack([world.length_score, world.features.stats[:, 1:]]).astype(np.float32)
    told = Features(world.features.ids, world.features.strength, shown, FEATURES)
    inputs = {"features": (world.fingerprint("told", told),), "models": ("statistics", "l1"), "shuffles": 0, "bootstrap": 10}
    score = world.scores("told_score", world.length_score)
    plain = world.classify(tmp_path / "plain", score, **inputs)
    report = read_table(plain, "report").set_index("name")
    assert report.loc["statistics", "auroc"] > report.loc["l1", "auroc"]
    assert (read_metrics(plain)["best"], read_metrics(plain)["saved"]) == ("l1", "l1")
    assert load_classifier(plain).info["uses"] == "features"
    named = world.classify(tmp_path / "named", score, **inputs, save="statistics")
    assert (read_metrics(named)["best"], read_metrics(named)["saved"]) == ("l1", "statistics")
    assert load_classifier(named).info["model"] == "statistics"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"save": "source_length"},
            "save names 'source_length', which uses metadata: predict makes the features and hidden states of one artifact",
        ),
        ({"save": "l2 + source_length"}, r"which uses features\+metadata"),
        ({"save": "l3"}, "save names 'l3', which is no row of the report; known: l1, l2"),
        ({"models": ("statistics",)}, "no row of features alone can be saved; add l1 to models, or name one in save: statistics"),
        ({"join": True}, "join needs several features artifacts"),
    ],
)
def test_what_cannot_be_saved_or_joined_is_refused_in_one_line_before_the_work(
    changes: dict[str, object], message: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = world.scores(tmp_path.name, world.length_score)
    monkeypatch.setattr(cross_validation, "predict_held_out", lambda *_: pytest.fail("work began"))
    with pytest.raises(PlaypenError, match=message) as error:
        world.classify(tmp_path / "out", score, **changes)
    assert "\n" not in str(error.value)


def test_several_fingerprints_side_by_side_cannot_be_saved(world: World, tmp_path: Path) -> None:
    both = (world.own, world.fingerprint("second", world.features))
    with pytest.raises(PlaypenError, match="which uses several features artifacts: predict makes"):
        world.classify(
            tmp_path / "out",
            world.scores("several", world.length_score),
            features=both,
            join=True,
            save="l1 features + second",
        )


def refused(world: World, out: Path, message: str, **controls: str) -> None:
    with pytest.raises(PlaypenError, match=message) as error:
        world.classify(out, world.scores(out.name, world.length_score), controls=controls)
    assert "\n" not in str(error.value)


def test_a_control_that_does_not_fit_is_refused_in_one_line(world: World, tmp_path: Path) -> None:
    few = pd.DataFrame({"row_id": IDS[1:], "score": np.zeros(ROWS - 1)})
    short = world.write("short", "score", lambda out: write_table(out / "scores.parquet", few))
    refused(
        world,
        tmp_path / "few",
        "controls.bm25: these rows and the scores .*short: 1 of 400 rows have no partner, the first is row_id r0",
        bm25=short,
    )
    holes = np.where(np.arange(ROWS) == 7, np.nan, 1.0)
    refused(
        world,
        tmp_path / "nan",
        "controls.bm25: 1 scores of .*holes are not finite, the first is that of row_id r7",
        bm25=world.scores("holes", holes),
    )
    ragged = pd.DataFrame({"row_id": IDS, "vector": [[1.0] * (2 + (i == 5)) for i in range(ROWS)]})
    vectors = world.write("ragged", "score", lambda out: write_table(out / "vectors.parquet", ragged))
    refused(world, tmp_path / "uneven", r"vectors of table 'vectors' are not all of one width; found 2, 3", minilm=vectors)
    refused(world, tmp_path / "nothing", "has no table 'scores'", bm25=world.data)
    taken = world.scores("taken", world.length_score)
    refused(world, tmp_path / "name", "controls holds 'l1', which is a row of the report already", l1=taken)


def test_results_do_not_depend_on_the_number_of_threads(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    score, models = world.scores("threads", world.length_score + world.signal), ("l1", "l2", "trees", "mean_pooling")
    few = {
        "models": models,
        "ks": (8,),
        "folds": 2,
        "mean_pooling": QUICK["mean_pooling"],
        "bootstrap": 20,
        "shuffles": 1,
        "label": Rank(),
    }
    made = []
    for threads in (1, 4):
        monkeypatch.setattr(cross_validation.os, "cpu_count", lambda threads=threads: threads)
        made.append(world.classify(tmp_path / str(threads), score, **few))
    files = [file.relative_to(made[0]) for file in made[0].rglob("*") if file.is_file()]
    assert len(files) == 6
    assert [f for f in files if (made[0] / f).read_bytes() != (made[1] / f).read_bytes()] == []
