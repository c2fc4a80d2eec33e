"""The preset sae-demo, whole, at a small size: from JSONL through Chroma and mixing to a SAE, its graphs and its dashboards."""

import json
from pathlib import Path

import pytest

from playpen.artifact import read_manifest
from playpen.cli import apply_setting, load_preset
from playpen.machine import Machine
from playpen.stage import make_plan, run_plan
from playpen.tables import read_metrics, read_table

pytest.importorskip("chromadb")

SMALL = (
    "world.num_documents=300",
    "world.num_chats=60",
    "world.num_prompts=60",
    "world.query_items=4",
    "world.test_items=4",
    "base.tokens=40000",
    "base.layers=2",
    "base.hidden=64",
    "imported.max_cosine=null",
    "sae.hook=blocks.1.hook_resid_post",
    "sae.d_sae=96",
    "sae.k=8",
    "sae.tokens=12000",
    "sae.batch_tokens=512",
    "sae.buffer_tokens=4000",
    "sae.heldout_tokens=2000",
    "sae.ce_tokens=400",
    "dashboard.tokens=6000",
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], list[str]]:
    """Run the preset twice; return its artifacts and what the second run said."""
    root, said = tmp_path_factory.mktemp("sae-demo"), []
    _, spec = load_preset("sae-demo")
    for setting in SMALL:
        apply_setting(spec, setting)
    made = run_plan(make_plan(spec), root, Machine(device="cpu"), say=lambda line: None)
    run_plan(make_plan(spec), root, Machine(device="cpu", forward_tokens=512), say=said.append)
    return made, said


def test_every_entry_is_made_once(demo: tuple[dict[str, Path], list[str]]) -> None:
    made, said = demo
    assert all((path / "manifest.json").exists() for path in made.values())
    assert all(line.startswith("  there") for line in said)


def test_the_prompts_of_the_world_come_through_chroma_as_they_were(demo: tuple[dict[str, Path], list[str]]) -> None:
    made, _ = demo
    lines = [json.loads(line) for line in (made["world"] / "prompts.jsonl").read_text().splitlines()]
    exported = read_table(made["prompts"], "prompts")
    assert sorted(exported["text"]) == sorted(f"{row['question']}\n\n{row['response']}" for row in lines)
    assert sorted(exported["category"]) == sorted(row["category"] for row in lines)


def test_the_sae_was_trained_on_the_mixed_corpus_and_its_manifest_says_on_how_much_of_what(
    demo: tuple[dict[str, Path], list[str]],
) -> None:
    made, _ = demo
    manifest, corpus = read_manifest(made["sae"]), read_metrics(made["corpus"])
    assert manifest["config"]["data"] == read_manifest(made["corpus"])["fingerprint"]
    assert manifest["metrics"]["sources"].keys() == corpus["by_source"].keys()
    assert manifest["metrics"]["sources"]["prompts"] > 0
    assert abs(corpus["prompts_share"] - 0.2) < 0.02


def test_graphs_and_dashboards_are_pages(demo: tuple[dict[str, Path], list[str]]) -> None:
    made, _ = demo
    for entry in ("graphs", "dashboard"):
        assert "<html" in (made[entry] / "index.html").read_text()
    assert (made["graphs"] / "figures" / "loss.png").stat().st_size > 5000
    assert len(read_table(made["dashboard"], "features")) == 96
