"""The stage evidence: every claim can fail and is then named first, the figures are those of its inputs, and what does not belong together is refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny

from playpen import artifact, comparison, validation_page
from playpen.config import PlaypenError
from playpen.evidence import answer, claims
from playpen.evidence_page import known_before
from playpen.machine import Machine
from playpen.needed import Needed
from playpen.scorer_costs import Cost, ratio, scorer_costs
from playpen.stage import make_plan, run_plan, run_stage
from playpen.stages import compare
from playpen.stages.evidence import Config, check_names, read
from playpen.tables import read_table, write_json, write_table

CPU = Machine(device="cpu")
CONTROLS = ("length", "source", "source_length", "source_length trees", "bm25", "hidden", "hidden trees")
MEASURES = ("auroc", "spearman", "spearman_within_source", "spearman_within_source_length")
LOSSES = {"sae": 1.0, "bm25": 1.2, "random": 1.5, "other": 0.9, "nothing": 2.0}
LDS = {"attribution": 0.6, "sae": 0.51, "bm25": 0.2, "rds": 0.3, "random": 0.0, "length": 0.1}
SECONDS = {"attribution": 40.0, "sae": 4.0, "bm25": 0.4, "rds": 6.0}


def seal(root: Path, name: str, kind: str, fill: Callable[[Path], None], config: dict[str, Any], seconds: float = 1.0) -> str:
    """Write an artifact under its name and fingerprint, as a plan does, and return its fingerprint."""
    made = tiny.write_artifact(root / name, kind, fill, config)
    manifest = artifact.read_manifest(made)
    manifest["provenance"] |= {"seconds": seconds, "peak_memory": int(1e9 * (1 + seconds / 100))}
    write_json(made / "manifest.json", manifest)
    made.rename(root / f"{name}-{manifest['fingerprint']}")
    return manifest["fingerprint"]


def labels_config(marks: dict[str, str], **changes: str) -> dict[str, str]:
    """Return how labels were made; `path` is what tells artifacts of tests apart, here by their split alone."""
    return {"path": "", "model": marks["first"], "data": marks["data"], "split": "pool", "moments": "none", **changes}


def at(root: Path, name: str) -> str:
    """Return the path of the artifact of a name."""
    (found,) = root.glob(f"{name}-????????")
    return str(found)


def told(**sizes: Any) -> Callable[[Path], None]:
    return lambda out: write_json(out / "metrics.json", sizes)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that a page of evidence rests on, in which every claim holds."""
    root = tmp_path_factory.mktemp("evidence")
    marks = {"base": renamed(tiny.tiny_base(root / "base"))}
    marks["data"] = renamed(
        tiny.tiny_data(root / "data", Path(at(root, "base")), {"pool": 30, "large_pool": 30, "test": 12, "query": 4})
    )
    model, data = marks["base"], marks["data"]
    marks["first"] = seal(root, "first", "finetune", told(rows=10, tokens=100), {"model": model, "data": data}, 30)
    marks["labels"] = seal(root, "labels", "attribute", told(rows=30, tokens=900), labels_config(marks), 25)
    marks["net"] = seal(root, "net", "train-sae", told(tokens=5000), {"model": model, "data": data}, 20)
    marks["features"] = seal(
        root, "features", "fingerprint", told(rows=30, tokens=900), {"sae": marks["net"], "model": model, "data": data}, 3
    )
    marks["classifier"] = write_classifier(root, marks)
    marks["sae"] = write_scores(
        root, "sae", "predict", {"classifier": marks["classifier"], "sae": marks["net"], "model": model, "data": data}
    )
    marks["attribution"] = write_scores(root, "attribution", "attribute", labels_config(marks, split="large_pool"))
    marks |= {name: write_scores(root, name, "score", {"method": {"kind": name}, "data": data}) for name in ("bm25", "rds")}
    marks["bank"] = seal(root, "bank", "retrain", told(rows=30), {"model": model, "data": data, "targets": "test"})
    write_validation(root, marks)
    write_plan(root)
    write_comparison(root, root)
    return root


def renamed(made: Path) -> str:
    mark = artifact.read_manifest(made)["fingerprint"]
    made.rename(made.with_name(f"{made.name}-{mark}"))
    return mark


def write_scores(root: Path, name: str, kind: str, config: dict[str, Any]) -> str:
    ids = read_table(at(root, "data"), "large_pool", ["row_id"])["row_id"]
    score = np.random.default_rng(len(name)).normal(size=len(ids)).astype(np.float32)

    def fill(out: Path) -> None:
        write_table(out / "scores.parquet", pd.DataFrame({"row_id": ids, "score": score}))
        write_json(out / "metrics.json", {"rows": len(ids), "tokens": {"pool": 600, "query": 60}})

    return seal(root, name, kind, fill, config, SECONDS[name])


def write_classifier(
    root: Path, marks: dict[str, str], auroc: float = 0.9, lows: dict[tuple[str, str], float] | None = None
) -> str:
    """Write a classify artifact; `lows` has lower ends of differences that are not 0.1."""
    values = {"l2": auroc, **dict.fromkeys(CONTROLS, 0.7)}
    uses = {"l2": "features", "hidden": "hidden", "hidden trees": "hidden", "bm25": "scores"}
    models: dict[str, Any] = {
        name: {"uses": uses.get(name, "metadata"), "auroc": value, "auroc_low": value - 0.02, "auroc_high": value + 0.02}
        for name, value in values.items()
    }
    models["shuffled"] = {"uses": "features", "auroc": 0.5, "auroc_low": 0.4, "auroc_high": 0.6}
    gaps = []
    for control in CONTROLS:
        for measure in MEASURES:
            low = (lows or {}).get((control, measure), 0.1)
            gaps.append(
                {"model": "l2", "against": control, "measure": measure, "value": low + 0.1, "low": low, "high": low + 0.2}
            )
    rng = np.random.default_rng(0)
    heldout = pd.DataFrame({"row_id": [f"{i}" for i in range(40)], "model": "l2", "label": [i % 2 for i in range(40)]})
    heldout = heldout.assign(score=rng.normal(size=40), prediction=rng.random(40))
    verdict = {"against": "source_length", "sentence": "The features beat source and length: so and so."}

    def fill(out: Path) -> None:
        write_table(out / "differences.parquet", pd.DataFrame(gaps))
        write_table(out / "heldout.parquet", heldout)
        metrics = {
            "models": models,
            "best": "l2",
            "saved": "l2",
            "label": "top",
            "verdict": verdict,
            "together": None,
            "shuffled": None,
        }
        write_json(out / "metrics.json", {**metrics, "rows": 30})

    return seal(
        root,
        "classifier",
        "classify",
        fill,
        {"features": [marks["features"]], "scores": marks["labels"], "data": marks["data"]},
        50,
    )


def lds_table(pooled: dict[str, float], retained: float | None) -> pd.DataFrame:
    rows = []
    for name, value in {**pooled, "ceiling": 0.8}.items():
        row: dict[str, Any] = {"scores": name, "attainable": 0.9 if name == "ceiling" else None}
        for measure in ("pooled", "per_target"):
            row |= {measure: value, f"{measure}_low": value - 0.05, f"{measure}_high": value + 0.05}
        kept = retained if name == "sae" else None
        row |= {"retained": kept, "retained_low": kept, "retained_high": kept}
        row |= dict.fromkeys(("minus_length", "minus_length_low", "minus_length_high"), 0.1)
        gap = None if name in ("ceiling", "attribution") else pooled["attribution"] - value
        row |= {"behind": gap} | {f"behind_{end}": gap and gap + by for end, by in (("low", -0.03), ("high", 0.03))}
        rows.append(row)
    table = pd.DataFrame(rows).assign(subsets=50, seeds=2, targets=12, form="keep_half", per_query=False)
    return table.astype({name: float for name in table.columns if name.startswith(("retained", "attainable", "behind"))})


def write_validation(
    root: Path,
    marks: dict[str, str],
    lds: dict[str, float] = LDS,
    retained: float | None = 0.85,
    reference: str | None = "attribution",
) -> str:
    table = lds_table(lds, retained)

    def fill(out: Path) -> None:
        write_table(out / "lds.parquet", table)
        write_json(out / "metrics.json", {"rows": 30, "reference": reference, **validation_page.metrics({"lds": table})})

    scores = {name: marks[name] for name in ("attribution", "sae", "bm25", "rds")}
    return seal(root, "validation", "validate", fill, {"data": marks["data"], "scores": scores, "banks": [marks["bank"]]})


def link(home: Path, root: Path, *names: str) -> None:
    """Let artifacts lie beside those of another root."""
    for name in names:
        (root / Path(at(home, name)).name).symlink_to(at(home, name))


def write_plan(root: Path, **changes: Any) -> None:
    """Make a real plan of real arms."""
    picked = {name: {"kind": "picked", "scores": at(root, name)} for name in ("sae", "bm25")}
    arms = {
        **picked,
        "random": {"kind": "picked", "rule": {"kind": "random"}},
        "other": {"kind": "picked", "rule": {"kind": "random"}},
    }
    values = {"model": at(root, "base"), "data": at(root, "data"), "splits": ["large_pool"], "budgets": [200, 400], "seeds": 12}
    values |= {
        "arms": {**arms, "nothing": {"kind": "nothing"}},
        "subject": "sae",
        "family": ["random", "bm25"],
        "rank": 2,
        **changes,
    }
    run_plan(make_plan({"plan": {"kind": "preregister", **values}}), root, CPU, say=lambda line: None)


def write_comparison(plans: Path, root: Path, means: dict[str, float] = LOSSES) -> str:
    """Write a compare artifact of the plan in `plans`, with planted mean losses of the arms, twice as far apart at the larger budget."""
    planned = artifact.read_manifest(at(plans, "plan"))
    config = {"plan": planned["fingerprint"], **{name: planned["config"][name] for name in ("model", "data", "init")}}
    named = {name: at(plans, name) for name in ("plan", "data")} | {"model": at(plans, "base")}
    cfg = compare.Config(plan=named["plan"], model=named["model"], data=named["data"])
    plan, rng, parts = compare.read_plan(cfg), np.random.default_rng(0), []
    for budget, far in ((200, 1), (400, 2)):
        for arm in plan.arms:
            for seed in range(12):
                loss = 1 + far * (means[arm] - 1) + 0.02 * rng.standard_normal(12)
                ids = [f"{i:02}" for i in range(12)]
                parts.append(pd.DataFrame({"budget": budget, "arm": arm, "seed": seed, "row_id": ids, "loss": loss}))
    losses = pd.concat(parts, ignore_index=True)

    def fill(out: Path) -> None:
        write_table(out / "losses.parquet", losses)
        write_table(out / "effects.parquet", comparison.effects(losses, plan))
        write_json(out / "metrics.json", {"subject": plan.subject})

    if root != plans:
        (root / Path(at(plans, "plan")).name).symlink_to(at(plans, "plan"))
    return seal(root, "comparison", "compare", fill, config)


def marks_of(root: Path) -> dict[str, str]:
    return {path.name.rpartition("-")[0]: path.name.rpartition("-")[2] for path in root.glob("*-????????")}


def config_of(root: Path, **changes: Any) -> Config:
    return Config(**{**{name: at(root, name) for name in ("classifier", "validation", "comparison")}, **changes})


@pytest.fixture(scope="module")
def made(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(home, tmp_path_factory.mktemp("made") / "out")


def run(home: Path, out: Path) -> Path:
    out.mkdir()
    run_stage("evidence", config_of(home), out, CPU)
    return out


def test_the_numbers_are_those_of_the_inputs_under_their_names(made: Path, home: Path) -> None:
    found = json.loads((made / "evidence.json").read_text())
    assert found["lds"] == {
        "labels": 0.6,
        "retained": 0.85,
        "rivals": {name: LDS[name] for name in ("bm25", "rds", "random", "length")},
    }
    assert found["auroc"] == {"sae": 0.9, "controls": dict.fromkeys(CONTROLS, 0.7)}
    effects = read_table(at(home, "comparison"), "effects")
    largest: Any = effects[effects["budget"] == 400].set_index("arm")
    assert set(found["arms"]) == set(LOSSES) - {"sae"}
    assert found["arms"]["random"]["effect"] == largest.loc["random", "effect"] == pytest.approx(-1, abs=0.02)
    assert found["arms"]["random"]["p_holm"] == largest.loc["random", "p_holm"] < 0.01
    assert found["arms"]["other"]["p_holm"] is None
    assert found["arms"]["other"]["low"] > 0
    assert len(found["claims"]) == 4 + 1 + 2 * len(CONTROLS) + 2 * 2
    assert all(set(claim) == {"claim", "value", "needed", "holds"} and claim["holds"] for claim in found["claims"])


def test_the_page_says_first_that_all_claims_hold(made: Path) -> None:
    text = (made / "report.md").read_text()
    assert text.split("\n\n")[2].startswith("All 23 claims hold. The labels have an LDS of 0.600")
    page = (made / "index.html").read_text()
    assert page.index("All 23 claims hold.") < page.index("<h2>")
    assert page.count("<figure>") == len(list((made / "figures").glob("*.png"))) == 6
    tables = [part.split('"')[0] for part in page.split('id="table-')[1:]]
    assert len(set(tables)) == len(tables)
    assert "All 23 claims hold." in (made / "summary.txt").read_text().format(path="x")


def test_the_same_inputs_give_the_same_bytes(made: Path, home: Path, tmp_path: Path) -> None:
    again = run(home, tmp_path / "out")
    files = [file.relative_to(made) for file in made.rglob("*") if file.is_file()]
    assert [str(file) for file in files if (made / file).read_bytes() != (again / file).read_bytes()] == []


def first_sentence(home: Path, **changes: Any) -> tuple[str, int]:
    """Return the first sentence of the page, and how many claims do not hold."""
    config = config_of(home, **changes)
    found = read(config)
    made = claims(config, found)
    return answer(config, found, made).split(". The labels have")[0], sum(not claim.holds for claim in made)


@pytest.mark.parametrize(
    ("lds", "retained", "said"),
    [
        ({"attribution": 0.39, "rds": 0.2}, 0.85, "LDS of the labels (attribution) is 0.390, 0.4 is needed"),
        ({"bm25": 0.58}, 0.85, "the labels are not surely ahead of bm25 in LDS (+0.020, \u22120.010 to +0.050)"),
        ({"rds": 0.62}, 0.85, "the labels are not surely ahead of rds in LDS (\u22120.020, \u22120.050 to +0.010)"),
        ({}, 0.7, "LDS retained by sae is 0.700, 0.8 is needed"),
        ({}, None, "LDS retained by sae is not defined, 0.8 is needed"),
    ],
)
def test_labels_and_predictions_that_fall_short_are_named_first(
    home: Path, tmp_path: Path, lds: dict[str, float], retained: float | None, said: str
) -> None:
    link(home, tmp_path, "bank", "attribution")
    write_validation(tmp_path, marks_of(home), LDS | lds, retained)
    sentence, failed = first_sentence(home, validation=at(tmp_path, "validation"))
    assert (failed, said in sentence, sentence.startswith("Of 23 claims 1 does not hold: ")) == (1, True, True)


@pytest.mark.parametrize("measure", ["auroc", "spearman_within_source"])
@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("low", [-0.01, float("nan")])
def test_a_control_that_features_are_not_surely_ahead_of_is_named_first(
    home: Path, tmp_path: Path, control: str, measure: str, low: float
) -> None:
    link(home, tmp_path, "labels")
    write_classifier(tmp_path, marks_of(home), lows={(control, measure): low})
    sentence, failed = first_sentence(home, classifier=at(tmp_path, "classifier"))
    title = {"auroc": "AUROC", "spearman_within_source": "Spearman within a source"}[measure]
    figures = "not defined" if np.isnan(low) else "+0.090, \u22120.010 to +0.190"
    assert sentence == f"Of 23 claims 1 does not hold: l2 is not surely ahead of {control} in {title} ({figures})"
    assert failed == 1


def test_an_auroc_and_an_arm_that_fall_short_are_both_in_the_first_sentence(home: Path, tmp_path: Path) -> None:
    link(home, tmp_path, "labels")
    write_classifier(tmp_path, marks_of(home), auroc=0.84)
    write_comparison(home, tmp_path, LOSSES | {"random": 0.9})
    changed = {name: at(tmp_path, name) for name in ("classifier", "comparison")}
    sentence, failed = first_sentence(home, **changed)
    assert failed == 3
    assert "AUROC of l2 is 0.840, 0.85 is needed; sae does not beat random at 200 tokens at p < 0.01 (+0.0" in sentence


def test_an_arm_that_cannot_be_told_apart_is_not_beaten(home: Path, tmp_path: Path) -> None:
    write_comparison(home, tmp_path, LOSSES | {"bm25": 0.9995})
    sentence, failed = first_sentence(home, comparison=at(tmp_path, "comparison"))
    assert failed == 2
    assert "sae does not beat bm25" in sentence


def test_labels_made_otherwise_or_judged_on_their_own_queries_are_refused(home: Path, tmp_path: Path) -> None:
    marks = marks_of(home)
    link(home, tmp_path, "bank", "data")
    marks["attribution"] = write_scores(
        tmp_path, "attribution", "attribute", labels_config(marks, split="large_pool", moments="adam")
    )
    write_validation(tmp_path, marks)
    refused(
        config_of(home, validation=at(tmp_path, "validation")),
        "judges other labels, 'attribution', than .* learnt: moments is adam there",
    )
    again = tmp_path / "again"
    again.mkdir()
    link(home, again, "attribution")
    config = {"model": marks["base"], "data": marks["data"], "targets": "query"}
    write_validation(again, {**marks_of(home), "bank": seal(again, "bank", "retrain", told(rows=30), config)})
    refused(
        config_of(home, validation=at(again, "validation")),
        "measured the queries, at which the labels aim; retrain with targets test",
    )


def test_an_arm_that_loses_at_one_budget_alone_does_not_hold(home: Path, tmp_path: Path) -> None:
    write_comparison(home, tmp_path)
    made = Path(at(tmp_path, "comparison"))
    effects = read_table(made, "effects")
    effects.loc[(effects["budget"] == 200) & (effects["arm"] == "random"), "effect"] = 0.2
    write_table(made / "effects.parquet", effects)
    sentence, failed = first_sentence(home, comparison=str(made))
    assert failed == 1
    assert "sae does not beat random at 200 tokens at p < 0.01 (+0.200" in sentence


def test_a_rival_whose_interval_overlaps_is_still_beaten_where_the_paired_one_is_above_0(home: Path, tmp_path: Path) -> None:
    link(home, tmp_path, "bank", "attribution")
    write_validation(tmp_path, marks_of(home), LDS | {"bm25": 0.56})
    sentence, failed = first_sentence(home, validation=at(tmp_path, "validation"))
    assert (sentence, failed) == ("All 23 claims hold", 0)


def test_thresholds_and_rivals_are_those_of_the_plan(home: Path, tmp_path: Path) -> None:
    link(home, tmp_path, *{path.name.rpartition("-")[0] for path in home.glob("*-????????")} - {"plan", "comparison"})
    needed = {"auroc": 0.95, "lds": 0.65, "lds_rivals": ["rds", "length"], "controls": ["hidden"]}
    write_plan(tmp_path, needed=needed)
    write_comparison(tmp_path, tmp_path)
    sentence, failed = first_sentence(home, comparison=at(tmp_path, "comparison"))
    assert failed == 2
    assert sentence.startswith(
        "Of 11 claims 2 do not hold: LDS of the labels (attribution) is 0.600, 0.65 is needed; AUROC of l2"
    )


def test_costs_are_of_a_thousand_rows_the_dearest_first(home: Path, made: Path) -> None:
    found = read(config_of(home))
    costs = scorer_costs(found.scores, "sae", found.manifests)
    assert [cost.name for cost in costs] == ["sae, with what it needs once", "attribution", "rds", "sae", "bm25"]
    by_name = {cost.name: cost for cost in costs}
    assert by_name["sae"].seconds == pytest.approx(1000 * 4 / 30)
    assert by_name["sae"].tokens == 1000 * 660 / 30
    assert by_name["sae, with what it needs once"].seconds == pytest.approx(1000 * (4 + 30 + 25 + 20 + 3 + 50) / 30)
    assert by_name["sae, with what it needs once"].memory.sort == pytest.approx(1.5)
    assert "a ratio of 10.0" in ratio(by_name["attribution"], by_name["sae"])
    assert "a ratio of 10.0" in (made / "report.md").read_text()
    written = json.loads((made / "metrics.json").read_text())["costs"]
    assert written["rds"]["seconds"] == pytest.approx(1000 * 6 / 30)


def test_scores_made_of_fingerprints_are_charged_with_them_and_lost_ones_have_no_price(home: Path) -> None:
    manifests = dict(read(config_of(home)).manifests)
    marks = marks_of(home)
    similar = {**manifests[marks["bm25"]], "config": {"method": {"kind": "sae_similarity", "features": marks["features"]}}}
    costs = scorer_costs({"similar": "0" * 8, "sae": marks["sae"], "lost": "1" * 8}, "sae", {**manifests, "0" * 8: similar})
    by_name = {cost.name: cost for cost in costs}
    assert by_name["similar"].seconds == pytest.approx(1000 * (0.4 + 3) / 30)
    assert by_name["lost"].seconds is None
    assert costs[-1].name == "lost"
    assert "cannot be compared" in ratio(by_name["lost"], by_name["sae"])
    assert ratio(Cost("a", 10, 30.0, 1.0, 60.0), Cost("b", 10, 10.0, 1.0, 12.0)).endswith(
        "a ratio of 3.0; of estimated operations the ratio is 5.0."
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subject": "sea"}, "subject names 'sea', which is none of the scores of .*; did you mean sae"),
        ({"subject": "rds"}, "subject is 'rds', but the subject of the plan of .* is 'sae'"),
    ],
)
def test_a_name_that_is_not_there_is_one_line(home: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    refused(config_of(home, **changes), message)


@pytest.mark.parametrize(
    ("needed", "message"),
    [
        ({"lds_rivals": ["bm52"]}, "needed.lds_rivals of the plan names 'bm52'.*did you mean bm25"),
        ({"lds_rivals": ["attribution"]}, "needed.lds_rivals of the plan names 'attribution', which is none of the scores"),
        ({"controls": ["minilm"]}, "needed.controls of the plan names 'minilm', which is none of the controls of .*known: bm25"),
        ({"controls": ["l2"]}, "needed.controls of the plan names 'l2', which is none of the controls"),
    ],
)
def test_a_name_in_the_plan_that_is_not_there_is_one_line(home: Path, needed: dict[str, Any], message: str) -> None:
    found = read(config_of(home))
    with pytest.raises(PlaypenError, match=message) as error:
        check_names(config_of(home), replace(found, plan=replace(found.plan, needed=Needed(**needed))))
    assert "\n" not in str(error.value)


def test_a_plan_that_fixed_nothing_is_one_line(home: Path, tmp_path: Path) -> None:
    link(home, tmp_path, *{path.name.rpartition("-")[0] for path in home.glob("*-????????")} - {"plan"})
    plan = Path(shutil.copytree(at(home, "plan"), tmp_path / Path(at(home, "plan")).name))
    manifest = artifact.read_manifest(plan)
    del manifest["config"]["needed"]
    write_json(plan / "manifest.json", manifest)
    refused(
        config_of(home, comparison=at(tmp_path, "comparison")),
        "the plan of .* fixes nothing that claims need; preregister and compare again",
    )


def test_the_page_says_what_was_known_when_the_plan_was_made(made: Path, home: Path) -> None:
    found = read(config_of(home))
    when = found.planned["provenance"]["started"]
    text = (made / "report.md").read_text()
    assert f"made {when}, before any of its arms was trained." in text
    later, earlier = ({"provenance": {"started": at}} for at in ("2999", "1999"))
    mixed = replace(found, inputs={"classifier": earlier, "validation": later, "comparison": later})
    assert known_before(mixed).endswith("so that their figures could be known: the classifier.")
    assert known_before(replace(found, inputs={"classifier": later})).endswith("trained.")


def refused(config: Config, message: str) -> None:
    with pytest.raises(PlaypenError, match=message) as error:
        read(config)
    assert "\n" not in str(error.value)


def test_artifacts_of_other_stages_or_without_labels_are_one_line(home: Path, tmp_path: Path) -> None:
    refused(config_of(home, validation=at(home, "bm25")), "validation .* is an artifact of score, expected one of validate")
    write_validation(tmp_path, marks_of(home), reference=None)
    refused(config_of(home, validation=at(tmp_path, "validation")), "names no labels; validate with reference")


def test_parts_that_do_not_belong_together_are_refused(home: Path, tmp_path: Path) -> None:
    marks = marks_of(home)
    write_validation(tmp_path, {**marks, "sae": marks["rds"]})
    refused(
        config_of(home, validation=at(tmp_path, "validation")),
        f"judged the scores {marks['rds']} as 'sae', but the arm .* picks by {marks['sae']}",
    )
    write_classifier(tmp_path, {**marks, "features": "0" * 8})
    refused(
        config_of(home, classifier=at(tmp_path, "classifier")), r"the scores 'sae' \(sae-\w+\) were not made by the classifier"
    )


def test_a_comparison_whose_plan_is_gone_is_one_line(home: Path, tmp_path: Path) -> None:
    seal(tmp_path, "comparison", "compare", lambda out: None, {"plan": "0" * 8, "model": "0" * 8, "data": "0" * 8, "init": None})
    refused(config_of(home, comparison=at(tmp_path, "comparison")), "00000000, the plan of .*, does not lie beside it")
