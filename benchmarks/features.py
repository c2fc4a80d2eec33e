"""Feature dashboards side by side with SAEDashboard 0.8.0: the same weights, SAE, tokens and features.

    python benchmarks/features.py --sae runs/demo/sae --model runs/demo/base --data runs/demo/data --tokens 1000000

SAEDashboard needs an environment of its own (transformers < 4.57, datasets < 4): it is made under --work, or given by --side.
It takes rows of one length only, so the corpus is cut anew into rows of --length tokens for both. It runs as its own runner for
Neuronpedia runs it, with its activation cache and default sizes, on the transformers model itself behind the few methods of
TransformerLens that it calls, because the releases of that which it allows open a Gemma 3 by its name on the hub only. Its time
is linear in batches of features, after a first one that fills the cache: --batches are run and printed, the rest counts like the
last. The seconds of both are those of a process of its own from its start to its end: importing and opening the model too.

Prints a table and, as its last line, `ratio X`: our features a second over SAEDashboard's, by the clock. On a machine that
others use too, the processor's seconds beside it are the fairer measure; give both one thread then.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PACKAGES = ("sae-dashboard==0.8.0", "pyarrow<22", "pandas<3")
"""SAEDashboard, and the last of what it needs but does not pin that its numpy 1 can load."""
UNWANTED = ("torchvision", "torchaudio")
"""Nothing here uses them, and builds for CUDA break transformers under a CPU torch."""


def main() -> None:
    """Run both and print the table."""
    call = read_arguments()
    if call.inside:
        run_saedashboard(json.loads(Path(call.inside).read_text()))
        return
    call.work.mkdir(parents=True, exist_ok=True)
    spec = write_rows(call)
    side = call.side or make_environment(call.work / "side")
    ours, theirs = run_ours(call, spec), run_theirs(call, spec, side)
    heads = ("features", "tokens", "seconds", "cpu seconds", "features/s", "peak GB", "MB written")
    print(" " * 14 + "".join(f"{head:>13}" for head in heads))
    for name, row in (("playpen", ours), ("SAEDashboard", theirs)):
        speed = row["features"] / row["seconds"]
        figures = (row["seconds"], row["cpu"], speed, row["peak"] / 1e9, row["bytes"] / 1e6)
        print(f"{name:14}{row['features']:13}{row['tokens']:13}" + "".join(f"{figure:13.2f}" for figure in figures))
    print(f"ratio of cpu seconds {theirs['cpu'] / ours['cpu']:.2f}")
    print(f"ratio {theirs['seconds'] / ours['seconds']:.2f}")


def read_arguments() -> argparse.Namespace:
    """Return the flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("sae", "model", "data"):
        parser.add_argument(f"--{name}", type=Path, help=f"the {name} artifact")
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=2048, help="the first so many")
    parser.add_argument("--length", type=int, default=128, help="tokens of a row, the BOS among them")
    parser.add_argument("--batches", type=int, default=4, help="batches of features that SAEDashboard is really run on")
    parser.add_argument("--batch", type=int, default=128, help="features in one of its batches; 128 is its default")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of both")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark"), help="where everything is written")
    parser.add_argument("--side", type=Path, help="python of an environment that holds SAEDashboard")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    return parser.parse_args()


def make_environment(folder: Path) -> Path:
    """Make SAEDashboard's environment, and return its python."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", *UNWANTED], check=True)
    return python


def write_rows(call: argparse.Namespace) -> dict:
    """Cut the tokens of the data into rows of one length, as a corpus artifact for us and as an array for SAEDashboard."""
    import numpy as np
    import pyarrow as pa

    from playpen import artifact
    from playpen.models import load_tokenizer, model_files
    from playpen.tables import write_json, write_table
    from playpen.token_rows import read_token_rows

    model, sae = artifact.find_artifact(str(call.model)), artifact.find_artifact(str(call.sae))
    data, bos = artifact.find_artifact(str(call.data)), load_tokenizer(model).bos_token_id
    flat = np.concatenate(read_token_rows(data).ids)
    flat = flat[flat != bos]
    rows = min(call.tokens, len(flat)) // (call.length - 1)
    ids = np.column_stack([np.full(rows, bos), flat[: rows * (call.length - 1)].reshape(rows, -1)]).astype(np.int32)
    ids = np.unique(ids, axis=0)  # SAEDashboard refuses equal rows
    corpus = call.work / "corpus"
    blocks = {"input_ids": list(ids), "starts": [[0]] * len(ids), "documents": [[i] for i in range(len(ids))]}
    kinds = {"input_ids": pa.int32(), "starts": pa.int32(), "documents": pa.int64()}
    write_table(
        corpus / "blocks" / "shard-00000.parquet",
        pa.table({name: pa.array(values, pa.list_(kinds[name])) for name, values in blocks.items()}),
    )
    names = [f"{i:016x}" for i in range(len(ids))]
    columns = {
        "document": range(len(ids)),
        "row_id": names,
        "group": names,
        "num_tokens": [call.length] * len(ids),
    }
    same = {"source": "rows", "category": "", "side": "", "copy": 0}
    write_table(corpus / "documents.parquet", pa.table({**columns, **{name: [value] * len(ids) for name, value in same.items()}}))
    write_json(corpus / "metrics.json", {"tokenizer": artifact.digest(str(model_files(model).tokenizer / "tokenizer.json"))})
    write_json(corpus / "manifest.json", {"format": 1, "name": "corpus", "fingerprint": "0" * 8, "config": {}})
    np.save(call.work / "rows.npy", ids)
    files = model_files(model)
    hook = json.loads((sae / "sae.json").read_text())["hook"]
    spec = {"rows": "rows.npy", "base": files.base, "tokenizer": files.tokenizer, "sae": sae / "sae", "hook": hook}
    plain = {name: str(value) for name, value in spec.items()}
    return {**plain, "model": str(model), "artifact": str(sae), "corpus": str(corpus), "tokens": ids.size}


def environment(call: argparse.Namespace) -> dict[str, str]:
    """Return the environment variables of both: so many threads, and no network."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    off = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "WANDB_MODE": "disabled"}
    return {**os.environ, **dict.fromkeys(names, str(call.threads)), **off}


def run_ours(call: argparse.Namespace, spec: dict) -> dict:
    """Run the stage in a process of its own, Neuronpedia's files among its output."""
    root = call.work / f"ours-{time.time_ns()}"
    flags = {"--sae": spec["artifact"], "--model": spec["model"], "--data": spec["corpus"], "--root": root}
    flags |= {"--tokens": "None", "--features": call.features, "--exports": "neuronpedia", "--machine.device": "cpu"}
    words = [str(word) for pair in flags.items() for word in pair]
    used = run_process([sys.executable, "-m", "playpen", "features", *words], env=environment(call))
    made = next(root.glob("features-*"))
    metrics = json.loads((made / "metrics.json").read_text())
    print(json.dumps({name: value for name, value in metrics.items() if name.startswith("seconds")}))
    size = sum(file.stat().st_size for file in made.rglob("*") if file.is_file())
    return {"features": metrics["features"], "tokens": spec["tokens"], **used, "peak": metrics["peak_rss"], "bytes": size}


def run_process(words: list[str], **how: Any) -> dict[str, float]:
    """Run a command; return its seconds by the clock and by the processor."""
    started, before = time.time(), cpu_seconds(resource.RUSAGE_CHILDREN)
    subprocess.run(words, check=True, **how)
    return {"seconds": time.time() - started, "cpu": cpu_seconds(resource.RUSAGE_CHILDREN) - before}


def cpu_seconds(who: int) -> float:
    """Return the seconds that a processor has worked for a process, or for those that it waited for."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def run_theirs(call: argparse.Namespace, spec: dict, side: Path) -> dict:
    """Run SAEDashboard on the first batches of features, and extrapolate to all."""
    batches = -(-call.features // call.batch)
    few = min(call.batches, batches)
    inside = {**spec, "batch": call.batch, "batches": few, "work": str(call.work.resolve()), "threads": call.threads}
    (call.work / "inside.json").write_text(json.dumps(inside))
    command = [str(side), __file__, "--inside", str(call.work / "inside.json")]
    with (call.work / "theirs.log").open("wb") as log:
        used = run_process(command, env=environment(call), stdout=log, stderr=log)
    found = json.loads((call.work / "theirs.json").read_text())
    for name in ("seconds", "cpu"):
        figures = " ".join(f"{value:.1f}" for value in found[name])
        print(f"SAEDashboard: {name} of its batches of {call.batch} features, {few} of {batches}: {figures}")
    row = {name: used[name] + (batches - few) * found[name][-1] for name in ("seconds", "cpu")}
    size = found["bytes"] * batches / few
    return {"features": call.features, "tokens": spec["tokens"], **row, "peak": found["peak"], "bytes": size}


def run_saedashboard(spec: dict) -> None:
    """Run SAEDashboard's runner for Neuronpedia in its own environment, and write the seconds of each batch."""
    import numpy as np
    import torch
    from sae_dashboard.neuronpedia import neuronpedia_runner
    from sae_lens import SAE

    work, device = Path(spec["work"]), "cpu"
    torch.set_num_threads(spec["threads"])
    os.chdir(work)  # it keeps its cache in the working directory
    sae = SAE.load_from_disk(spec["sae"], device=device)
    if hasattr(sae.cfg, "rescale_acts_by_decoder_norm"):
        sae.cfg.rescale_acts_by_decoder_norm = True  # it folds norms, which are 1 here, and TopK refuses that otherwise
    model = Wrapped(spec)
    sae.cfg.metadata.hook_name = model.hook_name
    config = neuronpedia_runner.NeuronpediaRunnerConfig(
        sae_set="benchmark",
        sae_path="",
        outputs_dir=str(work / f"theirs-{time.time_ns()}"),
        huggingface_dataset_path="rows",
        n_prompts_total=int(np.load(work / spec["rows"]).shape[0]),
        n_tokens_in_prompt=int(np.load(work / spec["rows"]).shape[1]),
        n_features_at_a_time=spec["batch"],
        sae_dtype="float32",
        sae_device=device,
    )
    runner = object.__new__(neuronpedia_runner.NeuronpediaRunner)
    runner.cfg, runner.sae, runner.model = config, sae, model
    runner.model_id, runner.layer, runner.hook_name = "benchmark", model.layer, model.hook_name
    runner.cached_activations_dir = work / f"cache-{time.time_ns()}"
    runner.vocab_dict = runner.get_vocab_dict()
    runner.get_tokens = lambda: torch.from_numpy(np.load(work / spec["rows"])).long()
    Path(config.outputs_dir).mkdir(parents=True)
    seconds, cpu = [], []
    for batch in range(spec["batches"]):
        config.start_batch = config.end_batch = batch
        runner.activations_store = None  # it deletes it
        started, worked = time.time(), cpu_seconds(resource.RUSAGE_SELF)
        runner.run()
        seconds.append(time.time() - started)
        cpu.append(cpu_seconds(resource.RUSAGE_SELF) - worked)
    size = sum(file.stat().st_size for file in Path(config.outputs_dir).glob("batch-*.json"))
    found = {"seconds": seconds, "cpu": cpu, "bytes": size, "peak": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    (work / "theirs.json").write_text(json.dumps(found))


class Wrapped:
    """A transformers model behind the methods of TransformerLens that SAEDashboard calls."""

    def __init__(self, spec: dict) -> None:
        import re

        from transformer_lens.hook_points import HookPoint
        from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

        self.hf = AutoModelForCausalLM.from_pretrained(spec["base"]).eval()
        folder = Path(spec["tokenizer"])
        known = json.loads((folder / "tokenizer_config.json").read_text())
        names = {name: known[name] for name in ("bos_token", "eos_token", "pad_token") if isinstance(known.get(name), str)}
        # The directory itself is of a later release of transformers, which this one cannot open.
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **names)
        name = spec["hook"].removesuffix(".output")
        self.layer = int(re.search(r"\.(\d+)$", name)[1])
        self.hook_name = f"blocks.{self.layer}.hook_resid_post"
        self.module, self.hook_dict = self.hf.get_submodule(name), {self.hook_name: HookPoint()}
        self.hook_dict[self.hook_name].name = self.hook_name
        self.W_U = self.hf.get_output_embeddings().weight.detach().T
        self.cfg = type("Config", (), {"d_vocab": self.W_U.shape[1]})

    def run_with_hooks(self, tokens: object, stop_at_layer: int, fwd_hooks: list) -> None:
        """Run the model up to the hook, and hand over what flows there."""

        class Reached(Exception):
            pass

        def stop(module: object, args: object, output: object) -> None:
            activations = output[0] if isinstance(output, tuple) else output
            for point, act in fwd_hooks:
                act(activations, hook=self.hook_dict[point])
            raise Reached

        handle = self.module.register_forward_hook(stop)
        try:
            self.hf(input_ids=tokens, use_cache=False)
        except Reached:
            pass
        finally:
            handle.remove()


if __name__ == "__main__":
    main()
