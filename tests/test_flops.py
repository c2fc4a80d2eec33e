"""Estimates of operations equal what a counter sees, but for attention between tokens; what cannot be told is None."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch.utils.flop_counter import FlopCounterMode

from playpen import artifact, flops
from playpen.machine import Machine
from playpen.matrix_weights import first_place, new_adapter, numbers, read_adapter, read_weights
from playpen.models import load_base, load_model, model_files
from playpen.report_page.sources import read_lineage
from playpen.tables import read_metrics, read_table, write_json

ALONE = Machine(device="cpu", forward_tokens=1, train_rows=1)
"""One row a pass, so that there is no padding to count."""


def seal(root: Path, name: str, kind: str, fill: Any, config: dict[str, Any]) -> Path:
    """Write an artifact under its name and fingerprint, as a plan does."""
    made = tiny.write_artifact(root / name, kind, fill, config)
    return made.rename(root / f"{name}-{mark_of(made)}")


def mark_of(path: Path) -> str:
    return artifact.read_manifest(path)["fingerprint"]


def named(path: Path) -> Path:
    return path.rename(path.with_name(f"{path.name}-{mark_of(path)}"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("flops")
    base = tiny.tiny_base(path / "base", layers=3)
    tiny.tiny_adapter(path / "first", base)
    tiny.tiny_data(path / "data", base, {"pool": 6, "query": 3, "test": 2})
    return path


def counted(work: Any) -> int:
    """Return the operations of products with weights: all products but those of attention."""
    with FlopCounterMode(display=False) as counter:
        work()
    return sum(n for kind, n in counter.get_flop_counts().get("Global", {}).items() if "attention" not in str(kind))


@pytest.mark.parametrize(
    "hook",
    [
        *(
            "model.embed_tokens.output",
            "model.layers.0.input",
            "model.layers.1.self_attn.q_proj.output",
            "model.layers.66%.output",
        ),
        *(
            "model.layers.1.self_attn.o_proj.input",
            "model.layers.1.post_attention_layernorm.output",
            "model.layers.1.mlp.down_proj.input",
        ),
        *("model.layers.1.mlp.output", "model.layers.2", "model.norm.output", "lm_head.input", "lm_head.output"),
    ],
)
def test_a_forward_pass_costs_what_a_counter_sees_up_to_any_hook(home: Path, hook: str) -> None:
    from playpen.activations import capture, find_hook

    model, weights, ids = (
        load_base(home / "base", ALONE),
        read_weights(model_files(home / "base").base),
        torch.ones(1, 40, dtype=torch.int64),
    )
    found = counted(lambda: capture(model, find_hook(model, hook), ids, torch.ones_like(ids)))
    # q, k and v stand side by side: a hook behind one of them may stop before the others
    least = found if "q_proj" not in hook else found + 2 * 40 * 32 * 32
    assert flops.forward(weights, {}, 40, 0, weights.place(hook)) == least


def test_names_of_transformer_lens_and_of_other_families_are_places(home: Path) -> None:
    weights = read_weights(model_files(home / "base").base)
    places = {"blocks.1.hook_resid_pre": (1, 0), "blocks.1.hook_resid_mid": (1, 2), "blocks.1.mlp.hook_post": (1, 3)}
    places |= {"blocks.1.hook_mlp_out": (1, 4), "blocks.1.attn.hook_z": (1, 1), "transformer.h.2.mlp": (2, 4)}
    places |= {"transformer.h.1.attn.c_proj.output": (1, 2), "gpt_neox.layers.0.attention.dense.input": (0, 1)}
    places |= {
        "model.layers.0.pre_feedforward_layernorm.input": (0, 2),
        "model.layers.0.post_feedforward_layernorm.output": (0, 4),
    }
    assert {hook: weights.place(hook) for hook in places} == places


def test_a_lora_step_costs_what_a_counter_sees(home: Path) -> None:
    from torch.nn.functional import cross_entropy

    from playpen.losses import labelled, output_head, pad

    model, row = load_model(home / "first", ALONE, trainable=True), read_table(home / "data", "pool").iloc[0]
    ids, _, labels = pad([row["input_ids"]], [row["labels"]], [0], torch.device("cpu"))

    def train() -> None:
        hidden, targets, _ = labelled(model, ids, None, labels)
        cross_entropy(output_head(model)(hidden), targets).backward()

    found = counted(train)
    files = model_files(home / "first")
    told = flops.step(read_weights(files.base), read_adapter(files.adapter), row["num_tokens"], row["num_labels"])
    assert told == pytest.approx(found, rel=0.03)


def test_nothing_goes_back_below_the_first_adapted_matrix(home: Path) -> None:
    weights = read_weights(model_files(home / "base").base)
    late = {key: shape for key, shape in new_adapter(weights, 4, ["gate_proj"]).items() if key[0] == 2}
    assert first_place(late) == (2, 3)
    back = 2 * (weights.passed() + 32 * 64) + 6 * numbers(late)  # of the last layer, the way down alone
    assert flops.step(weights, late, 1, 0) == back
    assert numbers(new_adapter(weights, 4, ["q_proj"])) == 3 * 4 * (32 + 32)


def test_a_fingerprint_costs_what_a_counter_sees(home: Path, tmp_path: Path) -> None:
    from playpen.fingerprints import COLUMNS, fingerprint_rows, open_fingerprinter, pooled_tokens
    from playpen.tables import iter_table

    base, sae, data = copies(home, tmp_path)
    fingerprinter = open_fingerprinter(sae, base, "answer", 8, ALONE)
    (table,) = iter_table(data, "pool", 100, COLUMNS)
    found = counted(lambda: fingerprint_rows(fingerprinter, table))
    rows = read_table(data, "pool", ["num_tokens", "num_labels"])
    sizes = {"tokens": int(rows["num_tokens"].sum()), "pooled_tokens": pooled_tokens(fingerprinter, table), "rows": len(rows)}
    assert sizes["pooled_tokens"] == rows["num_labels"].sum()
    config = {"sae": mark_of(sae), "model": mark_of(base), "data": mark_of(data)}
    made = seal(tmp_path, "features", "fingerprint", lambda out: write_json(out / "metrics.json", sizes), config)
    assert told(made) == pytest.approx(found, rel=0.03)


def copies(home: Path, root: Path) -> tuple[Path, Path, Path]:
    """Return a base, a SAE at its second layer and data, named by their fingerprints."""
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig

    from playpen.saes import write_sae

    base = named(tiny.tiny_base(root / "base", layers=3))
    data = named(tiny.tiny_data(root / "data", base, {"pool": 6, "query": 3}))
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=32, d_sae=64, k=4))
    made = seal(
        root,
        "sae",
        "train-sae",
        lambda out: write_sae(out, sae, "model.layers.1.output", mark_of(base), 1.0),
        {"model": mark_of(base)},
    )
    return base, made, data


def told(path: Path) -> int | None:
    manifests = read_lineage([str(path)])
    return flops.estimate(manifests[mark_of(path)], manifests)


def test_the_dense_step_of_a_jumprelu_sae_costs_what_a_counter_sees() -> None:
    from sae_lens import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput

    sae, x = JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(d_in=32, d_sae=128)), torch.randn(50, 32)
    given = TrainStepInput(
        sae_in=x, coefficients={"l0": 1.0, "pre_act": 1.0}, dead_neuron_mask=None, n_training_steps=0, is_logging_step=False
    )
    found = counted(lambda: sae.training_forward_pass(given).loss.backward())
    assert 50 * flops.sae_step("jumprelu", 32, 128, 8, 0) == pytest.approx(found, rel=0.03)


def test_the_sparse_step_of_a_topk_sae_grows_with_its_active_entries() -> None:
    assert flops.sae_step("topk", 128, 1024, 16, 0) == 2 * 128 * 1024 + 8 * 16 * 128
    assert flops.sae_step("matryoshka", 128, 1024, 16, 0) == flops.sae_step("batchtopk", 128, 1024, 16, 0) + 6 * 16 * 128
    assert flops.sae_step("topk", 128, 1024, 16, 500) == flops.sae_step("topk", 128, 1024, 16, 0) + 2 * 128 * 500 + 8 * 64 * 128


def test_pretraining_costs_six_for_each_weight_and_token(tmp_path: Path) -> None:
    def fill(out: Path) -> None:
        from playpen.models import write_model_files

        tiny.make_model().save_pretrained(out / "model")
        write_model_files(out, out / "model", out / "model")
        write_json(out / "metrics.json", {"tokens": 1000})

    made = seal(tmp_path, "base", "pretrain", fill, {})
    layer = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 64
    assert told(made) == 6 * 1000 * (2 * layer + 320 * 32)


def test_each_row_of_an_attribution_pays_for_its_own_gradients(home: Path, tmp_path: Path) -> None:
    base = named(tiny.tiny_base(tmp_path / "base"))
    first = named(tiny.tiny_adapter(tmp_path / "first", base))
    config = {
        "model": mark_of(first),
        "checkpoints": [],
        "split": "pool",
        "aggregation": "mean",
        "per_query": False,
        "projection_dim": 0,
    }
    config |= {"preconditioner": "none", "preconditioner_rows": "query", "moments": "none"}
    sizes = {"rows": 10, "queries": 5, "tokens": {"pool": 100, "query": 50}, "labels": {"pool": 40, "query": 20}}

    def made(name: str, **changes: Any) -> int:
        path = seal(tmp_path, name, "attribute", lambda out: write_json(out / "metrics.json", sizes), {**config, **changes})
        found = told(path)
        assert found is not None
        return found

    files = model_files(first)
    weights, adapter = read_weights(files.base), read_adapter(files.adapter)
    size = numbers(adapter)
    assert made("whole") == flops.step(weights, adapter, 150, 60) + 2 * size * 150 + 2 * size * 10
    assert made("nearest", aggregation="nearest") - made("again") == 2 * size * 10 * 4
    projected = sum(2 * 8 * (rows + columns + 8) for rows, columns in adapter.values())
    assert (
        made("projected", projection_dim=8)
        == flops.step(weights, adapter, 150, 60) + projected * 150 + 2 * 64 * len(adapter) * 10
    )
    assert made("fitted", preconditioner="autocorrelation", projection_dim=8) > made("projected2", projection_dim=8)
    assert made("two", checkpoints=[mark_of(first)]) == 2 * made("one")


def test_rivals_without_products_take_none_and_others_what_their_passes_take(tmp_path: Path) -> None:
    base = named(tiny.tiny_base(tmp_path / "base"))
    weights = read_weights(model_files(base).base)
    sizes = {"rows": 5, "tokens": {"pool": 100, "query": 20}, "labels": 30}

    def made(**method: Any) -> int | None:
        config = {"method": method}
        return told(seal(tmp_path, method["kind"], "score", lambda out: write_json(out / "metrics.json", sizes), config))

    assert [made(kind=kind) for kind in ("bm25", "length", "dsir", "column")] == [0, 0, 0, 0]
    assert made(kind="perplexity", model=mark_of(base)) == flops.forward(weights, {}, 120, 30)
    assert made(kind="rds", model=mark_of(base), hook="lm_head.input") == 2 * weights.passed() * 120
    assert made(kind="hidden", model=mark_of(base), hook="model.layers.0.output") == weights.passed() * 120
    assert made(kind="ifd", model="0" * 8) is None


def test_trainings_and_evaluations_pay_for_what_they_trained_and_measured(tmp_path: Path) -> None:
    base = named(tiny.tiny_base(tmp_path / "base"))
    first = named(tiny.tiny_adapter(tmp_path / "first", base))
    weights, adapter = read_weights(model_files(base).base), read_adapter(model_files(first).adapter)
    sizes = {"tokens": {"trained": 500, "measured": 90}, "labels": {"trained": 200, "measured": 40}}

    def made(name: str, kind: str, config: dict[str, Any], metrics: dict[str, Any] = sizes) -> int | None:
        return told(seal(tmp_path, name, kind, lambda out: write_json(out / "metrics.json", metrics), config))

    settings = {"model": mark_of(base), "init": None, "rank": 4, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}
    expected = flops.step(weights, adapter, 500, 200) + flops.forward(weights, adapter, 90, 40)
    assert made("bank", "retrain", settings) == made("bank2", "retrain", {**settings, "init": mark_of(first)}) == expected
    plan = seal(tmp_path, "plan", "preregister", lambda out: None, settings)
    assert made("compared", "compare", {"model": mark_of(base), "plan": mark_of(plan)}) == expected
    asked = {"tokens": {"base": 100, "first": 100}, "labels": {"base": 30, "first": 30}}
    models = {"models": {"base": mark_of(base), "first": mark_of(first)}}
    assert made("evaluation", "evaluate", models, asked) == 2 * flops.forward(weights, {}, 100, 30) + 2 * numbers(adapter) * 100


def test_what_no_manifest_tells_is_none(home: Path, tmp_path: Path) -> None:
    lost = seal(
        tmp_path, "features", "fingerprint", lambda out: write_json(out / "metrics.json", {"tokens": 5}), {"model": "0" * 8}
    )
    assert told(lost) is None
    assert told(seal(tmp_path, "data", "build-data", lambda out: None, {})) is None
    base = named(tiny.tiny_base(tmp_path / "base"))
    old = {"models": {"base": mark_of(base)}}
    assert (
        told(seal(tmp_path, "evaluation", "evaluate", lambda out: write_json(out / "metrics.json", {"models": {}}), old)) is None
    )
    assert read_metrics(home / "data")["tokens"]["pool"] > 0


def test_the_ledger_has_a_row_a_rival_with_operations_and_the_price_of_a_thousand_rows(tmp_path: Path) -> None:
    from playpen.report_page.layout import render_text
    from playpen.report_page.provenance import cost_table

    base = named(tiny.tiny_base(tmp_path / "base"))
    sizes = {"rows": 500, "tokens": {"pool": 100, "query": 20}, "labels": 30}
    methods = {"bm25": {"kind": "bm25"}, "rds": {"kind": "rds", "model": mark_of(base), "hook": "lm_head.input"}}
    made = [
        seal(tmp_path, name, "score", lambda out: write_json(out / "metrics.json", sizes), {"method": method})
        for name, method in methods.items()
    ]
    bank = {"rows": 50, "tokens": {"trained": 9, "measured": 9}, "labels": {"trained": 3, "measured": 3}}
    settings = {"model": mark_of(base), "init": None, "rank": 4, "target_modules": ["q_proj"]}
    made.append(seal(tmp_path, "bank", "retrain", lambda out: write_json(out / "metrics.json", bank), settings))
    table = cost_table(read_lineage([str(path) for path in made]))
    rows = {row[0].text: dict(zip(table.heads, row, strict=True)) for row in table.rows}
    operations = 2 * read_weights(model_files(base).base).passed() * 120
    assert rows["score rds"]["FLOPs"].sort == operations
    assert rows["score rds"]["FLOPs per 1,000 rows"].sort == 2 * operations
    assert [rows["score bm25"][head].text for head in ("FLOPs", "FLOPs per 1,000 rows")] == ["\u2013", "\u2013"]
    assert [rows["load-model"][head].text for head in ("FLOPs", "seconds per 1,000 rows")] == ["\u2013", "\u2013"]
    assert rows["retrain"]["FLOPs"].sort
    assert rows["retrain"]["FLOPs per 1,000 rows"].text == "\u2013"  # its rows come again and again
    assert f"{operations:.2e}" in render_text(table)
