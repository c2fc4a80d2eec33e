"""The stages preregister and compare: a planted better arm wins, a copy of the subject does not lose, and nothing can be changed afterwards."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny

from playpen.comparison import effects, matrix
from playpen.comparison_page import answer
from playpen.config import PlaypenError
from playpen.machine import Machine
from playpen.paired import holm, paired_effect
from playpen.stage import make_plan, run_plan
from playpen.stages import compare, preregister
from playpen.tables import read_metrics, read_table, write_table

CPU = Machine(device="cpu")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, chats, targets that ask what the first chats answer, and scores that know which those are."""
    path = tmp_path_factory.mktemp("compare")
    base = tiny.tiny_base(path / "base")
    tiny.tiny_data(path / "data", base, {"pool": 40, "test": 12})
    pool = read_table(path / "data", "pool", ["row_id"])
    write_scores(path / "good", pool["row_id"].tolist())
    write_scores(path / "bad", pool["row_id"].tolist()[::-1])
    return path


def write_scores(path: Path, row_ids: list[str]) -> Path:
    table = pd.DataFrame({"row_id": row_ids, "score": np.arange(len(row_ids), 0, -1, dtype=np.float32)})
    return tiny.write_artifact(path, "attribute", lambda out: write_table(out / "scores.parquet", table))


def plan_values(home: Path, **changes: Any) -> dict[str, Any]:
    arms = {
        "sae": {"kind": "picked", "scores": str(home / "good")},
        "twin": {"kind": "picked", "scores": str(home / "good")},
        "random": {"kind": "picked", "rule": {"kind": "random"}},
        "matched": {"kind": "matched", "like": "sae"},
        "everything": {"kind": "everything"},
        "nothing": {"kind": "nothing"},
    }
    named = {"model": str(home / "base"), "data": str(home / "data"), "arms": arms, "subject": "sae", "budgets": [200, 400]}
    return {**named, "seeds": 3, "rank": 2, "lr": 1e-2, "dropout": 0.0, "batch": 4, **changes}


def plan_of(home: Path, **changes: Any) -> preregister.Config:
    return preregister.Config(**plan_values(home, **changes))


def write_plan(home: Path, **changes: Any) -> Path:
    plan = make_plan({"plan": {"kind": "preregister", **plan_values(home, **changes)}})
    return run_plan(plan, home, CPU, say=lambda line: None)["plan"]


@pytest.fixture(scope="module")
def compared(home: Path) -> tuple[Path, Path]:
    plan = write_plan(home)
    return plan, run_compare(home, plan, home / "compared")


def run_compare(home: Path, plan: Path, path: Path) -> Path:
    cfg = compare.Config(plan=str(plan), model=str(home / "base"), data=str(home / "data"))
    return tiny.write_artifact(path, "compare", lambda out: compare.run(cfg, out, CPU))


def test_a_plan_holds_the_rows_of_every_arm_within_its_budget(home: Path, compared: tuple[Path, Path]) -> None:
    pool = read_table(home / "data", "pool", ["row_id", "num_tokens"])
    found = read_table(compared[0], "choices").merge(pool, on="row_id", how="left")
    spent = found.groupby(["budget", "arm", "seed"])["num_tokens"].sum()
    for (budget, arm, _), tokens in spent.items():
        assert arm == "everything" or tokens <= budget or arm == "matched"
    best = found[(found["budget"] == 200) & (found["arm"] == "sae") & (found["seed"] == 0)]["row_id"]
    assert set(best) == set(pool["row_id"].head(len(best)))
    draws = found[(found["budget"] == 200) & (found["arm"] == "random")].groupby("seed")["row_id"].agg(frozenset)
    assert draws.nunique() == 3
    sizes = found[found["arm"].isin(["sae", "matched"])].groupby(["budget", "arm", "seed"]).size().unstack("arm")
    assert (sizes["sae"] == sizes["matched"]).all()


def test_the_rows_tokens_and_steps_that_each_arm_trained_on_are_told(home: Path, compared: tuple[Path, Path]) -> None:
    arms = read_table(compared[1], "arms").set_index(["budget", "arm"])
    assert len(arms) == 2 * 6
    assert arms.xs("nothing", level="arm").to_numpy().tolist() == [[0.0] * 4] * 2
    pool = read_table(home / "data", "pool", ["row_id", "num_tokens"])
    chosen = read_table(compared[0], "choices").merge(pool, on="row_id")
    for key in ((200, "random"), (400, "everything")):
        mine: Any = chosen[(chosen["budget"] == key[0]) & (chosen["arm"] == key[1])].groupby("seed")["num_tokens"]
        assert arms.loc[key, "tokens"] == pytest.approx(mine.sum().mean())
        assert arms.loc[key, "steps"] == pytest.approx(np.ceil(mine.size() / 4).mean())
    planned = pd.DataFrame(read_metrics(compared[0])["arms"]).set_index(["budget", "arm"])
    assert planned.loc[arms.index, arms.columns].equals(arms)
    text = (compared[1] / "report.md").read_text()
    assert "| answer tokens | steps | loss |" in text


def test_an_arm_with_the_rows_of_the_subject_has_its_losses_and_nothing_leaves_the_model_alone(
    compared: tuple[Path, Path],
) -> None:
    losses = read_table(compared[1], "losses")
    for budget in (200, 400):
        assert (matrix(losses, budget, "twin") == matrix(losses, budget, "sae")).all()
        assert np.ptp(matrix(losses, budget, "nothing"), axis=0).max() == 0
        assert matrix(losses, budget, "everything").mean() < matrix(losses, budget, "nothing").mean()
    assert (matrix(losses, 200, "everything") == matrix(losses, 400, "everything")).all()
    assert read_metrics(compared[1])["trainings"] == 2 * 6 * 3


def test_effects_are_the_paired_differences_adjusted_over_family_and_budgets(home: Path) -> None:
    rng, parts = np.random.default_rng(0), []
    means = {"sae": 1.0, "twin": 1.0, "random": 1.5, "matched": 1.2, "everything": 0.9, "nothing": 2.0}
    for budget in (200, 400):
        for arm, mean in means.items():
            for seed in range(12):
                loss = mean + 0.05 * rng.standard_normal(30)
                parts.append(
                    pd.DataFrame(
                        {"budget": budget, "arm": arm, "seed": seed, "row_id": [f"{i:02}" for i in range(30)], "loss": loss}
                    )
                )
    losses, plan = pd.concat(parts), plan_of(home, seeds=12, family=("random", "twin"))
    found = effects(losses, plan).set_index(["budget", "arm"])
    expected = paired_effect(matrix(losses, 200, "sae"), matrix(losses, 200, "random"))
    row = found.loc[(200, "random")]
    assert (row["effect"], row["low"], row["high"]) == (expected.effect, expected.low, expected.high)
    assert row["p"] == max(expected.p_seeds, expected.p_items)
    assert row["effect"] == pytest.approx(-0.5, abs=0.02)
    assert row["p_holm"] < 0.01
    assert found.loc[(200, "twin"), "p_holm"] > 0.05
    assert np.isnan(found.loc[(200, "matched"), "p_holm"])
    family = found[found["in_family"]]
    assert family["p_holm"].tolist() == list(holm({str(i): p for i, p in enumerate(family["p"])}).values())
    assert (found["seeds_won"].loc[(200, "random")], found["rows_won"].loc[(200, "random")]) == (1.0, 1.0)


def test_the_page_says_first_whom_the_subject_did_not_beat_and_a_trained_arm_beats_the_untrained(
    home: Path, tmp_path: Path
) -> None:
    arms = {name: arm for name, arm in plan_values(home)["arms"].items() if name in ("sae", "twin", "nothing")}
    made = write_plan(home, arms=arms, family=("twin", "nothing"), budgets=(400,), seeds=11, claim="It learns.")
    out = run_compare(home, made, tmp_path / "out")
    found = read_table(out, "effects").set_index("arm")
    assert found.loc["nothing", "effect"] < 0
    assert found.loc["nothing", "p_holm"] < 0.01 < found.loc["twin", "p_holm"]
    assert (
        "sae cannot be told apart from twin; it beat nothing (needed: p < 0.01" in (out / "report.md").read_text().split("##")[0]
    )


def test_the_level_at_which_an_arm_is_beaten_is_the_plans(home: Path) -> None:
    found = pd.DataFrame({"budget": 200, "arm": ["random"], "effect": -0.1, "low": -0.2, "high": -0.01, "p_holm": 0.03})
    found["in_family"] = True
    assert "3 seeds give no adjusted p below 1, so this plan could tell no arm apart" in answer(found, plan_of(home), 200)
    assert "cannot be told apart from random (needed: p < 0.01, adjusted for 1 comparison)" in answer(found, plan_of(home), 200)
    told = answer(found, plan_of(home, needed={"level": 0.05}, seeds=9), 200)
    assert told.startswith("sae beat random (needed: p < 0.05")


def test_a_plan_says_in_words_what_its_claims_need(home: Path) -> None:
    text = preregister.plan_text(plan_of(home, needed={"lds": 0.3, "lds_rivals": ["bm25"], "controls": [], "level": 0.05}))
    assert "Beaten is what has an adjusted p below 0.05." in text
    assert "LDS of the labels at least 0.3 and surely above `bm25`; retained LDS at least 0.8" in text
    assert "AUROC at least 0.85 and surely above nothing else" in text


def test_the_page_has_its_figures_and_says_what_was_planned_and_seen_before(home: Path, compared: tuple[Path, Path]) -> None:
    assert (compared[1] / "index.html").exists()
    assert (compared[1] / "figures" / "budgets.png").exists()
    assert compared[0].name in (compared[1] / "report.md").read_text()


def test_a_killed_comparison_ends_like_one_that_was_not(
    home: Path, compared: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from playpen import retraining

    train, calls, part = retraining._train, [], tmp_path / "part"
    part.mkdir()

    def dying(task: Any, job: Any) -> None:
        calls.append(job)
        if len(calls) == 5:
            raise KeyboardInterrupt
        train(task, job)

    cfg = compare.Config(plan=str(compared[0]), model=str(home / "base"), data=str(home / "data"))
    with monkeypatch.context() as patch:
        patch.setattr(retraining, "_train", dying)
        with pytest.raises(KeyboardInterrupt):
            compare.run(cfg, part, CPU)
    assert len(list((part / "work").glob("*.npy"))) == 4
    compare.run(cfg, part, CPU)
    assert (part / "losses.parquet").read_bytes() == (compared[1] / "losses.parquet").read_bytes()
    assert not (part / "work").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subject": "sea"}, "subject is 'sea', which is no arm; did you mean sae"),
        ({"family": ("sae",)}, "family holds the subject 'sae'"),
        ({"subject": "nothing"}, "must be picked by a rule"),
        ({"budgets": (5, 5)}, "budgets holds something twice"),
        (
            {"arms": {"sae": {"kind": "picked", "rule": {"kind": "top_k", "k": 3}}, "nothing": {"kind": "nothing"}}},
            "arms.sae: its rule must leave k",
        ),
    ],
)
def test_a_plan_that_cannot_be_is_refused(home: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_of(home, **changes)


def test_scores_of_other_rows_and_a_budget_too_small_are_one_line(home: Path, tmp_path: Path) -> None:
    write_scores(tmp_path / "other", [f"{i:016x}" for i in range(40)])
    arms = {
        "sae": {"kind": "picked", "scores": str(tmp_path / "other")},
        "random": {"kind": "picked", "rule": {"kind": "random"}},
    }
    with pytest.raises(PlaypenError, match="arm 'sae'"):
        preregister.run(plan_of(home, arms=arms), tmp_path, CPU)
    with pytest.raises(PlaypenError, match="arm 'sae' keeps no row at a budget of 1 tokens; raise the budget"):
        preregister.run(plan_of(home, budgets=(1,)), tmp_path, CPU)
    with pytest.raises(
        PlaypenError, match=r"a budget of 99999 tokens takes all \d+ of pool, so that every arm would be the same"
    ):
        preregister.run(plan_of(home, budgets=(99999,)), tmp_path, CPU)


def test_a_plan_that_was_changed_after_it_was_made_is_refused(home: Path, tmp_path: Path) -> None:
    made = run_plan(
        make_plan({"plan": {"kind": "preregister", **plan_values(home, seed=9)}}), tmp_path, CPU, say=lambda line: None
    )["plan"]
    chosen = read_table(made, "choices")
    write_table(made / "choices.parquet", chosen[chosen["arm"] != "random"])
    cfg = compare.Config(plan=str(made), model=str(home / "base"), data=str(home / "data"))
    with pytest.raises(PlaypenError, match=r"is no longer what was planned \(choices.parquet: changed\)"):
        compare.run(cfg, tmp_path, CPU)


def test_a_plan_of_another_model_is_refused(home: Path, compared: tuple[Path, Path], tmp_path: Path) -> None:
    other = tiny.tiny_base(tmp_path / "other")
    cfg = compare.Config(plan=str(compared[0]), model=str(other), data=str(home / "data"))
    with pytest.raises(PlaypenError, match=r"names model \w+, but .* is \w+; give the planned one"):
        compare.run(cfg, tmp_path, CPU)
