"""The stage validate: planted effects are found, formulas equal their closed form, and what does not fit is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
from scipy.stats import spearmanr, t

from playpen.banks import Design, read_bank, top_rows, write_bank
from playpen.config import PlaypenError
from playpen.machine import Machine
from playpen.stage import run_stage
from playpen.stages.validate import Config
from playpen.tables import read_metrics, read_table, write_json, write_table

POOL, TARGETS, SUBSETS = 80, 12, 60
SKILLS = ("fact_question", "reference", "story")
FAULTS = ("none", "none", "wrong_answer", "padded")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, rng = tmp_path_factory.mktemp("validate"), np.random.default_rng(5)
    base = tiny.tiny_base(path / "base")
    queries = tiny.data_table([tiny.make_chat(900 + i) for i in range(TARGETS)], "lore_choice")
    tiny.tiny_data(path / "data", base, {"pool": POOL, "test": TARGETS, "query": queries})
    rows = pool(path)
    write_scores(path / "true", rows, effects())
    write_scores(path / "noisy", rows, effects() + 1.5 * rng.normal(size=POOL))
    write_bank_of(path / "bank", path, draw(rng, SUBSETS, POOL // 2), rng)
    return path


def pool(home: Path) -> pd.DataFrame:
    return read_table(home / "data", "pool").sort_values("row_id", ignore_index=True)


def effects() -> np.ndarray:
    """What a row takes off the loss of every target, in hundredths of a nat."""
    return np.random.default_rng(0).normal(size=POOL)


def draw(rng: np.random.Generator, subsets: int, size: int) -> list[Design]:
    kept = [np.isin(np.arange(POOL), rng.permutation(POOL)[:size]) for _ in range(subsets)]
    return [Design("drawn", "", 1 - size / POOL, mask) for mask in kept]


def write_scores(path: Path, rows: pd.DataFrame, values: np.ndarray, each: np.ndarray | None = None) -> Path:
    def fill(out: Path) -> None:
        write_table(out / "scores.parquet", pd.DataFrame({"row_id": rows["row_id"], "score": values.astype(np.float32)}))
        if each is not None:
            table = {"row_id": rows["row_id"], "scores": list(each.astype(np.float32))}
            write_table(out / "query_scores.parquet", pd.DataFrame(table))

    return tiny.write_artifact(path, "attribute", fill)


def write_bank_of(path: Path, home: Path, designs: list[Design], rng: np.random.Generator, **fields: object) -> Path:
    """Write a bank whose losses are linear in what is kept, with the noise of two seeds."""
    told = {"form": "keep_half", "noise": 0.002, "targets": "test", "seeds": 2, "each": None, **fields}
    targets = np.sort(read_table(home / "data", str(told["targets"]))["row_id"].to_numpy(str))
    kept = np.stack([design.kept for design in designs]).astype(float)
    each = np.tile(effects()[:, None], (1, len(targets))) if told["each"] is None else told["each"]
    clean = 3 - 0.01 * (kept @ each) + np.arange(len(targets)) * 0.1
    noise = told["noise"] * rng.normal(size=(len(designs), told["seeds"], len(targets)))

    def fill(out: Path) -> None:
        write_bank(out, pool(home)["row_id"].to_numpy(str), designs, range(told["seeds"]), targets, clean[:, None] + noise)
        write_json(out / "metrics.json", {"form": told["form"]})

    return tiny.write_artifact(path, "retrain", fill)


def validate(home: Path, path: Path, **fields: object) -> Path:
    named = {name: str(home / name) for name in ("true", "noisy")}
    cfg = Config(**{"data": str(home / "data"), "banks": (str(home / "bank"),), "bootstrap": 200, "scores": named, **fields})
    return tiny.write_artifact(path, "validate", lambda out: run_stage("validate", cfg, out, Machine(device="cpu")))


def rho(left: Any, right: Any) -> float:
    found: Any = spearmanr(left, right)
    return float(found.statistic)


def by_hand(home: Path, bank: Path, name: str) -> tuple[float, float]:
    """Return LDS pooled and per target, by a loop."""
    read, scores = read_bank(str(bank)), read_table(home / name, "scores").set_index("row_id")["score"]
    summed = [scores[read.row_ids[design.kept]].to_numpy(float).sum() for design in read.designs]
    losses = read.losses.mean(axis=1)
    each = [rho(summed, -losses[:, target]) for target in range(losses.shape[1])]
    return rho(summed, -losses.mean(axis=1)), float(np.mean(each))


@pytest.fixture(scope="module")
def made(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return validate(home, tmp_path_factory.mktemp("made") / "validation", reference="true")


def test_true_scores_rank_the_trainings_and_random_ones_do_not(made: Path) -> None:
    lds = read_metrics(made)["lds"]
    assert lds["true"]["pooled"] > 0.98
    assert 0.3 < lds["noisy"]["pooled"] < 0.8
    assert lds["random"]["low"] < 0 < lds["random"]["high"]
    assert lds["length"]["low"] < 0 < lds["length"]["high"]
    assert lds["true"]["minus_length_low"] > 0.5
    assert lds["noisy"]["low"] < lds["noisy"]["pooled"] < lds["noisy"]["high"] < lds["true"]["low"]


@pytest.mark.parametrize("name", ["true", "noisy"])
def test_lds_is_exactly_the_spearman_of_scipy(home: Path, made: Path, name: str) -> None:
    lds, expected = read_metrics(made)["lds"][name], by_hand(home, home / "bank", name)
    assert (lds["pooled"], lds["per_target"]) == pytest.approx(expected, abs=1e-12)


def test_retained_lds_is_the_ratio_of_two_and_its_interval_holds_it(home: Path, made: Path) -> None:
    kept = read_metrics(made)["lds"]["retained"]
    assert set(kept) == {"noisy", "random", "length"}
    expected = by_hand(home, home / "bank", "noisy")[0] / by_hand(home, home / "bank", "true")[0]
    assert kept["noisy"]["value"] == pytest.approx(expected, abs=1e-12)
    assert kept["noisy"]["low"] < expected < kept["noisy"]["high"] < 1


def test_how_far_a_scorer_is_behind_the_reference_is_the_difference_on_the_same_samples(home: Path, made: Path) -> None:
    lds = read_metrics(made)["lds"]
    assert "behind" not in lds["true"]
    assert lds["noisy"]["behind"] == pytest.approx(lds["true"]["pooled"] - lds["noisy"]["pooled"])
    assert lds["length"]["behind"] == pytest.approx(lds["true"]["pooled"] - abs(lds["length"]["pooled"]))
    assert 0 < lds["noisy"]["behind_low"] < lds["noisy"]["behind"] < lds["noisy"]["behind_high"]
    near = validate(home, home / "near", reference="true", scores={"true": str(home / "true"), "same": str(home / "true")})
    same = read_metrics(near)["lds"]["same"]
    assert (same["behind_low"], same["behind"], same["behind_high"]) == (0, 0, 0)
    assert "true minus it" in (made / "validation.md").read_text()


def test_nothing_is_retained_of_a_reference_that_is_not_above_chance(home: Path, tmp_path: Path) -> None:
    write_scores(tmp_path / "chance", pool(home), np.random.default_rng(3).normal(size=POOL))
    scores = {"true": str(home / "true"), "chance": str(tmp_path / "chance")}
    found = validate(home, tmp_path / "validation", reference="chance", scores=scores)
    assert read_metrics(found)["lds"]["retained"] == {}
    assert "Nothing is retained of chance" in (found / "validation.md").read_text()


def test_the_ceiling_is_what_one_half_of_the_seeds_says_of_the_other(home: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    bank = write_bank_of(tmp_path / "bank", home, draw(rng, 40, 40), rng, seeds=4, noise=0.3)
    losses = read_bank(str(bank)).losses
    halves = losses[:, :2].mean(axis=(1, 2)), losses[:, 2:].mean(axis=(1, 2))
    told = read_metrics(validate(home, tmp_path / "validation", banks=(str(bank),)))["lds"]["ceiling"]
    agreement = rho(*halves)
    assert told["pooled"] == pytest.approx(agreement, abs=1e-12)
    assert told["attainable"] == pytest.approx(np.sqrt(2 * agreement / (1 + agreement)))
    assert told["per_target"] < told["pooled"] < 0.95


def test_rows_left_out_rank_like_the_scores_that_went_with_them(home: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    chunks = [Design("drawn", "", 0.05, ~np.isin(np.arange(POOL), part)) for part in np.array_split(rng.permutation(POOL), 20)]
    everything = Design("all", "", 0.0, np.ones(POOL, bool))
    bank = write_bank_of(tmp_path / "bank", home, [everything, *chunks], rng, form="leave_out")
    removed = [effects()[~design.kept].sum() for design in chunks]
    change = read_bank(str(bank)).losses[1:].mean(axis=(1, 2)) - read_bank(str(bank)).losses[0].mean()
    told = read_metrics(validate(home, tmp_path / "validation", banks=(str(bank),)))["lds_leave_out"]["true"]
    assert told["pooled"] == pytest.approx(rho(removed, change), abs=1e-12)
    assert told["pooled"] > 0.95
    assert told["subsets"] == 20


def test_scores_of_each_query_are_used_where_the_bank_measured_the_queries(home: Path, tmp_path: Path) -> None:
    """Rows help half of the targets and harm the others, so that one score for all of them knows nothing."""
    rng, queries = np.random.default_rng(4), read_table(home / "data", "query")["row_id"].to_numpy(str)
    sign = np.where(np.arange(TARGETS) < TARGETS / 2, 1.0, -1.0)
    each = effects()[:, None] * sign
    write_scores(tmp_path / "each", pool(home), each.mean(1) + 1e-3 * rng.normal(size=POOL), each)
    fields = {"scores": {"each": str(tmp_path / "each")}}
    designs, aligned = draw(rng, 40, 40), each[:, np.argsort(queries)]
    there = write_bank_of(tmp_path / "there", home, designs, rng, targets="query", each=aligned)
    other = write_bank_of(tmp_path / "other", home, designs, rng, targets="test", each=aligned)
    found, lost = (
        read_metrics(validate(home, tmp_path / f"{bank.name}_validation", banks=(str(bank),), **fields))["lds"]["each"]
        for bank in (there, other)
    )
    assert found["per_query"]
    assert found["per_target"] > 0.95
    assert not lost["per_query"]
    assert abs(lost["per_target"]) < 0.3


def drop_bank(home: Path, path: Path, rng: np.random.Generator) -> Path:
    ids, size = pool(home)["row_id"].to_numpy(str), 8
    length = pool(home)["num_labels"].to_numpy(float)
    tops = [Design("top", name, 0.1, ~top_rows(ids, values, size)) for name, values in (("true", effects()), ("length", length))]
    random = [Design("random", "", 0.1, design.kept) for design in draw(rng, 6, POOL - size)]
    return write_bank_of(path, home, [Design("all", "", 0.0, np.ones(POOL, bool)), *tops, *random], rng, form="drop")


def test_tail_removal_is_the_loss_without_the_top_against_that_without_random_rows(home: Path, tmp_path: Path) -> None:
    bank = drop_bank(home, tmp_path / "bank", np.random.default_rng(6))
    mean = read_bank(str(bank)).losses.mean(axis=(1, 2))
    made = validate(home, tmp_path / "validation", banks=(str(bank),))
    told = read_metrics(made)["qld"]["true"]["0.1"]
    random = mean[3:]
    qld, error = mean[1] - random.mean(), random.std(ddof=1) * np.sqrt(1 + 1 / 6)
    assert told["qld"] == pytest.approx(qld)
    assert told["deviations"] == pytest.approx(qld / random.std(ddof=1))
    assert (told["low"], told["high"]) == pytest.approx(t.interval(0.95, 5, qld, error))
    assert told["p"] == pytest.approx(2 * t.sf(qld / error, 5))
    assert told["all_loss"] == pytest.approx(mean[0])
    assert told["low"] > 0.02, "the best rows take 0.01 nats a unit off the loss"
    assert told["p_holm"] == told["p"], "there is one scorer and one share"
    assert read_metrics(made)["qld"]["length"]["0.1"]["low"] < 0
    assert "in 1 of 1 cases: true at 10%" in (made / "validation.md").read_text()


def test_a_top_that_is_one_more_random_removal_is_called_so_as_seldom_as_it_says() -> None:
    from playpen.tail_removal import against_random

    rng = np.random.default_rng(0)
    found = [against_random(float(sample[0]), sample[1:]) for sample in rng.normal(size=(2000, 6))]
    assert 0.035 < np.mean([told["p"] < 0.05 for told in found]) < 0.065


@pytest.fixture(scope="module")
def world(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the data with planted truth."""
    rng, path = np.random.default_rng(7), tmp_path_factory.mktemp("world") / "data"
    rows = pool(home)
    truth = pd.DataFrame({"row_id": rows["row_id"], "source": rows["source"]})
    truth["skill"], truth["fault"] = rng.choice(SKILLS, POOL), rng.choice(FAULTS, POOL)

    def fill(out: Path) -> None:
        for split in ("pool", "query"):
            write_table(out / f"{split}.parquet", read_table(home / "data", split))
        write_table(out / "truth.parquet", truth, truth=True)

    return tiny.write_artifact(path, "build-data", fill)


def test_recall_and_detection_are_those_of_scikit_learn(home: Path, world: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq
    from sklearn.metrics import average_precision_score, roc_auc_score

    truth = pq.read_table(world / "truth.parquet").to_pandas().sort_values("row_id", ignore_index=True)
    helpful = (truth["skill"] == "fact_question") & truth["fault"].isin(["none", "padded"])
    score = np.round(helpful + np.random.default_rng(8).normal(size=POOL), 1)  # with ties
    write_scores(tmp_path / "score", pool(home), score)
    fields = {"banks": (), "truth": True, "ks": (10, 20), "scores": {"ours": str(tmp_path / "score")}}
    made = validate(home, tmp_path / "validation", data=str(world), **fields)
    told, clean = read_metrics(made)["recall"]["ours"], truth["fault"] == "none"
    assert told["auprc"]["value"] == pytest.approx(average_precision_score(helpful, score.astype(np.float32)))
    assert told["auprc"]["chance"] == pytest.approx(helpful.mean())
    best = pd.Series(score).sort_values(ascending=False, kind="stable").index[:10]
    assert told["recall@10"]["value"] == pytest.approx(helpful[best].sum() / helpful.sum())
    wrong = clean | (truth["fault"] == "wrong_answer")
    assert told["auroc.wrong_answer"]["value"] == pytest.approx(roc_auc_score(clean[wrong], score[wrong]))
    needed = wrong & (truth["skill"] == "fact_question")
    assert told["auroc_needed.wrong_answer"]["value"] == pytest.approx(roc_auc_score(clean[needed], score[needed]))
    assert set(read_table(made, "recall")["scores"]) == {"ours", "random", "length"}


def test_no_table_names_the_truth_of_a_row(home: Path, world: Path, tmp_path: Path) -> None:
    made = validate(home, tmp_path / "validation", data=str(world), banks=(), truth=True)
    assert "row_id" not in read_table(made, "recall").columns


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("scores", r"validate: scores.true: .* have no partner, the first is row_id [0-9a-f]{16}"),
        ("bank", "was trained on 80 rows that pool of .* lacks"),
        ("no bank", "is no bank of retrainings"),
        ("two banks", "are both of the form keep_half"),
        ("truth", "has no planted truth"),
        ("tails", "left out other rows than the top of scores.true"),
    ],
)
def test_what_does_not_fit_is_one_line(home: Path, tmp_path: Path, mistake: str, message: str) -> None:
    tiny.tiny_data(tmp_path / "data", home / "base", {"pool": 16, "query": 4}, seed=9)
    other = pool(tmp_path)
    write_scores(tmp_path / "scores", other, np.arange(16.0))
    write_scores(tmp_path / "noise", pool(home), np.arange(80.0))
    fields: dict[str, object] = {
        "scores": lambda: {"scores": {"true": str(tmp_path / "scores")}},
        "bank": lambda: {"data": str(tmp_path / "data"), "scores": {"true": str(tmp_path / "scores")}},
        "no bank": lambda: {"banks": (str(home / "true"),)},
        "two banks": lambda: {"banks": (str(home / "bank"),) * 2},
        "truth": lambda: {"truth": True},
        "tails": lambda: {
            "banks": (str(drop_bank(home, tmp_path / "drop", np.random.default_rng(0))),),
            "scores": {"true": str(tmp_path / "noise")},
        },
    }[mistake]()
    with pytest.raises(PlaypenError, match=message) as told:
        validate(home, tmp_path / "validation", **fields)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scores": {"random": "a/b"}}, "may not be called 'random'"),
        ({"scores": {"labels": "a/b"}, "reference": "label"}, "did you mean labels"),
        ({"scores": {"labels": "a/b"}, "banks": ()}, "nothing to judge by"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**{"data": "a/data", "banks": ("a/bank",), **fields})


def test_the_page_says_first_what_the_scores_are_worth(made: Path) -> None:
    text = (made / "validation.md").read_text()
    assert "noisy is above chance" in text
    assert text.index("noisy is above") < text.index("| scores |")
    for name in ("true", "noisy", "random", "length", "ceiling"):
        assert f"| {name} |" in text
