"""The demo preset, whole, at a small size: every stage runs on what the one before made, and a second run makes nothing."""

import json
from pathlib import Path

import pytest

from playpen.cli import apply_setting, load_preset
from playpen.machine import Machine
from playpen.stage import make_plan, run_plan
from playpen.tables import read_metrics

SMALL = (
    "world.num_documents=400",
    "world.num_chats=420",
    "world.num_prompts=20",
    "world.query_items=12",
    "world.test_items=12",
    "base.tokens=60000",
    "base.layers=2",
    "base.hidden=64",
    "data.train=60",
    "data.val=10",
    "data.pool=150",
    "data.query_per_task=8",
    "data.test_per_task=8",
    "first.epochs=1",
    "sae.hook=model.layers.1.output",
    "sae.d_sae=128",
    "sae.k=8",
    "sae.tokens=20000",
    "sae.batch_tokens=512",
    "sae.buffer_tokens=4000",
    "sae.heldout_tokens=1000",
    "sae.ce_tokens=500",
    "classifier.bootstrap=50",
    "classifier.folds=2",
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], Path, list[str]]:
    """Run the demo twice; return its artifacts, its root and what the second run said."""
    root, said = tmp_path_factory.mktemp("demo"), []
    _, spec = load_preset("demo")
    for setting in SMALL:
        apply_setting(spec, setting)
    for name in [name for name in spec if name.startswith("pick_") and "tokens" in spec[name]["method"]]:
        spec[name]["method"]["tokens"] = 1500
    made = run_plan(make_plan(spec), root, Machine(device="cpu"), say=lambda line: None)
    run_plan(make_plan(spec), root, Machine(device="cpu", train_rows=4, forward_tokens=512), say=said.append)
    return made, root, said


def test_every_entry_is_made_once_and_another_machine_makes_nothing(demo: tuple[dict[str, Path], Path, list[str]]) -> None:
    made, root, said = demo
    assert all((path / "manifest.json").exists() for path in made.values())
    assert all(line.startswith("  there") for line in said)
    assert json.loads((root / "manifest.json").read_text())["entries"]["report"] == made["report"].name


def test_the_arms_have_the_same_budget_of_tokens(demo: tuple[dict[str, Path], Path, list[str]]) -> None:
    made = demo[0]
    for arm in ("pick_sae", "pick_attribution", "pick_random_0", "pick_quality_0"):
        assert 1300 <= read_metrics(made[arm])["tokens"] <= 1500


def test_the_page_answers_and_the_summary_names_it(demo: tuple[dict[str, Path], Path, list[str]]) -> None:
    report = demo[0]["report"]
    assert "held-out target" in " ".join((report / "summary.txt").read_text().split())
    assert (report / "index.html").read_text().count("<img") + (report / "index.html").read_text().count("<svg") >= 5
    assert "{path}/index.html" in (report / "summary.txt").read_text()


def test_no_table_that_a_stage_may_read_tells_the_truth_of_a_row(demo: tuple[dict[str, Path], Path, list[str]]) -> None:
    import pyarrow.parquet as pq

    for name in ("world", "data", "scores", "features", "predictions", "pick_sae"):
        for file in demo[0][name].rglob("*.parquet"):
            assert file.name == "truth.parquet" or not {"skill", "fault"} & set(pq.read_schema(file).names)
