"""How fast is train-sae, beside its floor and beside SAELens' own runner?

    .venv/bin/python benchmarks/train_sae.py [--rounds 3] [--base DIRECTORY]

The same model, rows, SAE, batch, buffer, token count and number format for both, in turns, in one process. Two sizes: the
embedded world's base (width 128, SAE of 1,024, k 16), pretrained here in some minutes unless --base names a model artifact, and a
Gemma 3 of random weights of width 640 (SAE of 4,096, k 32). The floor is measured here too: the bare forward pass to the hook of
full batches without padding, and the five dense products of a SAE's step (encoding and its weight gradient, decoding and both of
its gradients), nothing else. Explained variance is that of both SAEs on the same held-out rows. The last line is the smaller of
the two ratios over SAELens.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from playpen import artifact
from playpen.machine import Machine
from playpen.tables import write_json, write_table

CONTEXT, BATCH, BUFFER = 128, 4096, 65_536
CPU = Machine(device="cpu")


def seal(path: Path, fill: Any) -> Path:
    """Write an artifact by hand."""
    part = path.with_name(path.name + ".part")
    part.mkdir(parents=True)
    fill(part)
    mark = artifact.fingerprint("benchmark", 1, {"name": path.name})
    identity = {"name": path.name, "kind": "benchmark", "version": 1, "fingerprint": mark, "config": {}}
    artifact.seal(part, path, identity, artifact.provenance(time.time(), {}, "benchmarks/train_sae.py"))
    return path


def make_base(root: Path) -> Path:
    """Pretrain the world's base model."""
    from playpen.stage import make_plan, run_plan

    plan = make_plan({"world": {"kind": "make-world"}, "base": {"kind": "pretrain", "corpus": "world", "tokens": 600_000}})
    return run_plan(plan, root, CPU)["base"]


def make_wide(path: Path, narrow: Path) -> Path:
    """Write a Gemma 3 of width 640 with random weights and the tokenizer of the narrow one."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    from playpen.models import load_tokenizer, write_model_files

    tokenizer = load_tokenizer(narrow)
    torch.manual_seed(0)
    model = Gemma3ForCausalLM(
        Gemma3TextConfig(
            vocab_size=len(tokenizer),
            hidden_size=640,
            intermediate_size=2048,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=1,
            head_dim=256,
            layer_types=["full_attention"] * 3,
            max_position_embeddings=1024,
        )
    )

    def fill(out: Path) -> None:
        model.save_pretrained(out / "model")
        tokenizer.save_pretrained(out / "model")
        write_model_files(out, out / "model", out / "model")

    return seal(path, fill)


def make_rows(path: Path, base: Path, tokens: int) -> Path:
    """Write a corpus whose blocks hold one document each, so that both trainers see the same contexts."""
    from playpen.models import load_tokenizer, model_files
    from playpen.world import World, make_corpus, make_lore

    tokenizer, config = load_tokenizer(base), World(num_documents=30_000)
    texts = [document.text for document in make_corpus(config, make_lore(config))]
    stream = np.concatenate([np.array(ids, np.int32) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]])
    count = tokens // CONTEXT
    blocks = np.concatenate(
        [np.full((count, 1), tokenizer.bos_token_id, np.int32), stream[: count * (CONTEXT - 1)].reshape(count, -1)], axis=1
    )

    def fill(out: Path) -> None:
        lists = pa.list_(pa.int32())
        one = {"starts": pa.array([[0]] * count, lists), "documents": pa.array([[i] for i in range(count)], pa.list_(pa.int64()))}
        write_table(out / "blocks" / "shard-00000.parquet", pa.table({"input_ids": pa.array(list(blocks), lists), **one}))
        names = {name: [text] * count for name, text in (("source", "world"), ("category", ""), ("side", "control"))}
        numbers = {"document": np.arange(count), "row_id": [f"{i:016x}" for i in range(count)]}
        numbers["group"] = numbers["row_id"]
        write_table(out / "documents" / "shard-00000.parquet", pa.table({**numbers, **names}))
        write_json(out / "metrics.json", {"tokenizer": artifact.digest(str(model_files(base).tokenizer / "tokenizer.json"))})

    return seal(path, fill)


def floor(base: Path, hook: str, d_sae: int) -> float:
    """Return tokens a second of the bare forward pass to the hook and a SAE step's five dense products; medians of 7."""
    from playpen.activations import capture, find_hook
    from playpen.models import load_base

    model = load_base(base, CPU)
    ids = torch.randint(6, model.config.vocab_size, (BATCH // CONTEXT, CONTEXT))
    x = capture(model, find_hook(model, hook), ids, torch.ones_like(ids)).flatten(0, 1)
    W, V, acts = torch.randn(x.shape[1], d_sae), torch.randn(d_sae, x.shape[1]), torch.randn(len(x), d_sae)

    @torch.no_grad()
    def forward() -> None:
        capture(model, find_hook(model, hook), ids, None)  # type: ignore[arg-type]

    def products() -> None:
        x @ W, x.T @ acts, acts @ V, x @ V.T, acts.T @ x

    return BATCH / (median_time(forward) + median_time(products))


def median_time(work: Any) -> float:
    """Return the median seconds of seven calls, after one."""
    work()
    seconds = []
    for _ in range(7):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def ours(base: Path, rows: Path, out: Path, size: dict[str, Any]) -> tuple[float, Path]:
    """Return tokens a second of train-sae's training, its buffer's filling included, and where the SAE is."""
    from playpen.stages import train_sae

    out.mkdir()
    train_sae.run(train_config(base, rows, size), out, CPU)
    found = json.loads((out / "metrics.json").read_text())
    return found["tokens"] / found["train_seconds"], out / "sae"


def train_config(base: Path, rows: Path, size: dict[str, Any]) -> Any:
    """Return the config of train-sae."""
    from playpen.stages import train_sae

    shape = {"batch_tokens": BATCH, "buffer_tokens": BUFFER, "heldout_tokens": 20_000, "ce_tokens": 500, "evaluations": 0}
    return train_sae.Config(model=str(base), data=str(rows), **size, **shape)


def theirs(base: Path, rows: Path, out: Path, size: dict[str, Any]) -> tuple[float, Path]:
    """Return tokens a second of SAELens' runner on the same training rows, and where its SAE is."""
    from datasets import Dataset
    from sae_lens import LanguageModelSAERunnerConfig, LanguageModelSAETrainingRunner, LoggingConfig, TopKTrainingSAEConfig
    from sae_lens.load_model import HookedProxyLM

    from playpen.models import load_base, load_tokenizer
    from playpen.stages import train_sae
    from playpen.token_rows import read_token_rows

    tokenizer, model = load_tokenizer(base), load_base(base, CPU)
    hook = size["hook"].removesuffix(".output")
    training, _ = train_sae.split_rows(train_config(base, rows, size), read_token_rows(rows), tokenizer.bos_token_id)
    steps = size["tokens"] // BATCH
    width = model.config.hidden_size
    sae = TopKTrainingSAEConfig(
        d_in=width, d_sae=size["d_sae"], k=size["k"], normalize_activations="expected_average_only_in", device="cpu"
    )
    config = LanguageModelSAERunnerConfig(
        sae=sae,
        model_name="benchmark",
        model_class_name="AutoModelForCausalLM",
        hook_name=hook,
        dataset_path="",
        streaming=False,
        is_dataset_tokenized=True,
        context_size=CONTEXT,
        prepend_bos=False,
        exclude_special_tokens=[tokenizer.bos_token_id],
        store_batch_size_prompts=BATCH // CONTEXT,
        n_batches_in_buffer=BUFFER // CONTEXT,
        train_batch_size_tokens=BATCH,
        training_tokens=steps * BATCH,
        lr=size["lr"],
        n_batches_for_norm_estimate=BUFFER // BATCH,  # as many tokens as ours looks at; its default is 1,000 batches
        lr_warm_up_steps=max(1, round(0.05 * steps)),
        lr_decay_steps=round(0.2 * steps),
        dead_feature_window=max(1, steps // 10),
        device="cpu",
        dtype="float32",
        logger=LoggingConfig(log_to_wandb=False),
        n_checkpoints=0,
        checkpoint_path=None,
        output_path=str(out),
        verbose=False,
    )
    data = Dataset.from_dict({"input_ids": [row.tolist() for row in training.ids]})
    proxy = HookedProxyLM(model, tokenizer, hook_names=[hook])
    runner = LanguageModelSAETrainingRunner(config, override_dataset=data, override_model=proxy)  # type: ignore[arg-type]
    started = time.monotonic()
    runner.run()
    return steps * BATCH / (time.monotonic() - started), out


def explained(base: Path, rows: Path, size: dict[str, Any], sae: Path) -> float:
    """Return the explained variance of a saved SAE on the held-out rows."""
    from sae_lens import SAE

    from playpen.activations import activations_of, find_hook, not_bos
    from playpen.models import load_base, load_tokenizer
    from playpen.sae_quality import reconstruction
    from playpen.stages import train_sae
    from playpen.token_rows import read_token_rows

    bos, model = load_tokenizer(base).bos_token_id, load_base(base, CPU)
    _, held = train_sae.split_rows(train_config(base, rows, size), read_token_rows(rows), bos)
    values = activations_of(model, find_hook(model, size["hook"]), held.ids, not_bos(held.ids, bos), CPU)
    return reconstruction(SAE.load_from_disk(sae, device="cpu"), values)[0]["explained_variance"]


def compare(name: str, base: Path, root: Path, size: dict[str, Any], rounds: int) -> float:
    """Print a table of one size and return the ratio of our speed to SAELens'."""
    rows = make_rows(root / f"{name}-rows", base, size["tokens"] + 40 * BATCH)
    rates: dict[str, list[float]] = {"ours": [], "SAELens": [], "floor": []}
    quality: dict[str, float] = {}
    for turn in range(rounds):
        rates["floor"].append(floor(base, size["hook"], size["d_sae"]))
        for who, work in (("ours", ours), ("SAELens", theirs)):
            rate, where = work(base, rows, root / f"{name}-{who}-{turn}", size)
            rates[who].append(rate)
            quality[who] = explained(base, rows, size, where)
    middle = {who: statistics.median(found) for who, found in rates.items()}
    print(f"\n{name}: {size['tokens']:,} tokens, d_sae {size['d_sae']}, k {size['k']}, median of {rounds}")
    print(f"{'':16}{'tokens/s':>10}{'of floor':>10}{'held-out explained variance':>30}")
    for who in ("floor", "ours", "SAELens"):
        print(f"{who:16}{middle[who]:10.0f}{middle[who] / middle['floor']:10.2f}{quality.get(who, float('nan')):30.4f}")
    print(f"rounds: { ({who: [round(rate) for rate in found] for who, found in rates.items()}) }")
    return middle["ours"] / middle["SAELens"]


def main() -> None:
    """Compare both sizes and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each; the median counts")
    parser.add_argument("--base", type=Path, default=None, help="a model artifact of the world; pretrained here when left out")
    call = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        base = call.base or make_base(root)
        small = {"hook": "model.layers.2.output", "d_sae": 1024, "k": 16, "tokens": 60 * BATCH, "lr": 2e-3}
        large = {"hook": "model.layers.1.output", "d_sae": 4096, "k": 32, "tokens": 24 * BATCH, "lr": 1e-3}
        ratios = [
            compare("128-to-1024", base, root, small, call.rounds),
            compare("640-to-4096", make_wide(root / "wide", base), root, large, call.rounds),
        ]
    print(f"\nratio {min(ratios):.2f}")


if __name__ == "__main__":
    main()
