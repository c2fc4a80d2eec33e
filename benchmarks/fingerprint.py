"""How fast is fingerprint, beside the bare forward pass and beside the naive loop?

    .venv/bin/python benchmarks/fingerprint.py --sae runs/demo/sae --model runs/demo/base --data runs/demo/data \\
        [--rows 500] [--source sharegpt] [--rounds 3]

The same model, SAE, rows, pooled tokens and number format for all, in turns, in one process, on the device that the machine
has; everything is open before a clock starts. The model must be a Gemma 3 and the SAE must read a layer's output.

- floor: the products with the weights up to the hook and with the encoder, for the tokens that need them and without padding, at
  the speed of a product of two square matrices, or the reading of those weights once a batch at the speed of a copy, if that
  takes longer. Both speeds are measured in each round.
- forward: the base's pass to the hook over the batches that ours makes, nothing else.
- ours: the stage's work, from the rows' file to the tables on disk.
- naive: a row at a time through SAELens' HookedSAETransformer: run_with_cache of the hook alone, `encode`, the means, maxima and
  fractions, the k strongest. Nothing is written, and no statistics are made.
- naive, stopped: the same with TransformerLens' stop_at_layer, so that what is behind the hook is not computed.

Seconds are the clock's and, in brackets, the processor's: on a machine that others use too the latter are the fairer measure;
give OMP_NUM_THREADS=1 then. A line tells how far the two ways' mean strengths are apart. The last line is the median of our speed
over the naive loop's, round by round; the two before it are that by the processor and our share of the forward pass's speed.
"""

import argparse
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from side_by_side import Seconds, in_turns, least_seconds, print_table, ratio

from playpen import artifact
from playpen.activations import Batch, Rows, capture_each, make_batches
from playpen.fingerprints import COLUMNS, Fingerprinter, open_fingerprinter, pooled_rows
from playpen.flops import forward
from playpen.machine import Machine
from playpen.matrix_weights import read_weights
from playpen.models import model_files
from playpen.stages import fingerprint
from playpen.tables import read_metrics, read_table, table_files, write_json, write_table


@dataclass(frozen=True)
class Work:
    """What all of them work on."""

    fingerprinter: Fingerprinter
    config: fingerprint.Config
    rows: Rows
    counted: Rows
    batches: list[Batch]

    @property
    def tokens(self) -> int:
        """Tokens of the rows, without padding."""
        return sum(map(len, self.rows))


def write_rows(call: argparse.Namespace, out: Path) -> Path:
    """Write the first rows of the split, of one source if asked for, as a data artifact of their own."""
    data = artifact.find_artifact(call.data)
    table = pq.read_table(table_files(data, call.split), filters=[("source", "==", call.source)] if call.source else None)
    if not table.num_rows:
        raise SystemExit(f"{data} has no row of that source in {call.split}: '{call.source}'")
    write_table(out / f"{call.split}.parquet", table.slice(0, call.rows))
    write_json(out / "metrics.json", {"tokenizer": read_metrics(data)["tokenizer"]})
    return out


def open_work(call: argparse.Namespace, folder: Path) -> Work:
    """Open the model, the SAE and the rows."""
    sae, model = (str(artifact.find_artifact(path)) for path in (call.sae, call.model))
    config = fingerprint.Config(sae=sae, model=model, data=str(write_rows(call, folder / "rows")), split=call.split)
    opened = open_fingerprinter(config.sae, config.model, config.tokens, config.k, Machine())
    rows, _, counted = pooled_rows(opened, pq.read_table(table_files(Path(config.data), config.split), columns=COLUMNS))
    return Work(opened, config, rows, counted, list(make_batches(rows, counted, opened.machine.forward_tokens)))


def hooked(base: Any, longest: int) -> Any:
    """Return SAELens' HookedSAETransformer with the weights of a Gemma 3, as they are."""
    from sae_lens import HookedSAETransformer
    from transformer_lens.config import HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions.gemma import convert_gemma_weights

    c = base.config
    if c.model_type != "gemma3_text":
        raise SystemExit(f"the naive loop opens a Gemma 3 alone, found {c.model_type}")
    local = [kind == "sliding_attention" for kind in c.layer_types]
    config = HookedTransformerConfig(
        d_model=c.hidden_size,
        d_head=c.head_dim,
        n_heads=c.num_attention_heads,
        n_key_value_heads=c.num_key_value_heads,
        d_mlp=c.intermediate_size,
        n_layers=c.num_hidden_layers,
        n_ctx=longest,
        d_vocab=c.vocab_size,
        eps=c.rms_norm_eps,
        act_fn=c.hidden_activation,
        attn_scale=c.query_pre_attn_scalar**0.5,
        normalization_type="RMS",
        positional_embedding_type="rotary",
        rotary_base=int(c.rope_parameters["full_attention"]["rope_theta"]),
        rotary_base_local=int(c.rope_parameters["sliding_attention"]["rope_theta"]),
        gated_mlp=True,
        final_rms=True,
        use_normalization_before_and_after=True,
        use_qk_norm=True,
        use_local_attn=any(local),
        window_size=c.sliding_window if any(local) else None,
        attn_types=["local" if near else "global" for near in local] if any(local) else None,
        original_architecture="Gemma3ForCausalLM",
        init_weights=False,
        dtype=base.dtype,
        device=str(base.device),
    )
    model = HookedSAETransformer(config)
    plain = dict.fromkeys(("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases"), False)
    model.load_and_process_state_dict(convert_gemma_weights(base, config), **plain)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def naive(work: Work, model: Any, stop: bool) -> list[dict[int, float]]:
    """Return the mean strength of the k strongest features of each row, a row at a time."""
    f, found = work.fingerprinter, []
    layer = layer_of(f.hook.name)
    name = f"blocks.{layer}.hook_resid_post"
    end = {"stop_at_layer": layer + 1} if stop else {}
    for ids, mask in zip(work.rows, work.counted, strict=True):
        tokens, pooled = torch.tensor(ids, device=f.model.device).long()[None], torch.tensor(mask, device=f.model.device)
        _, cache = model.run_with_cache(tokens, names_filter=name, **end)
        acts = f.sae.encode(cache[name][0].float())[pooled]
        mean, _, _ = acts.mean(0), acts.amax(0), (acts > 0).float().mean(0)
        strength, feature = mean.topk(min(f.k, len(mean)))
        found.append({int(i): float(s) for i, s in zip(feature.cpu(), strength.cpu(), strict=True) if s > 0})
    return found


def layer_of(hook: str) -> int:
    """Return the layer whose output a hook is."""
    found = re.fullmatch(r"model\.layers\.(\d+)(\.output)?", hook)
    if found is None:
        raise SystemExit(f"the naive loop knows the hook of a layer's output alone, found {hook}")
    return int(found[1])


@torch.no_grad()
def bare(work: Work) -> None:
    """Run the base up to the hook over the batches, and wait for it."""
    f, device, last = work.fingerprinter, work.fingerprinter.model.device, torch.zeros(1)
    for batch in work.batches:
        (last,) = capture_each(f.model, [f.hook], batch.input_ids.to(device), batch.attention.to(device).long())
    last.flatten()[0].item()


def ours(work: Work, out: Path) -> None:
    """Do the stage's work."""
    fingerprint.make_shards(work.fingerprinter, work.config, out)


def floor(work: Work) -> Seconds:
    """Return the seconds of the least that has to be done."""
    f = work.fingerprinter
    weights = read_weights(model_files(work.config.model).base)
    place, encoder = weights.place(f.hook.name), f.sae.cfg.d_in * f.sae.cfg.d_sae
    pooled = sum(int(mask.sum()) for mask in work.counted)
    operations = forward(weights, {}, work.tokens, 0, place) + 2 * encoder * pooled
    read = len(work.batches) * (weights.passed(place) * f.model.dtype.itemsize + encoder * f.sae.W_enc.dtype.itemsize)
    return least_seconds(operations, read, f.model)


def difference(work: Work, out: Path, theirs: list[dict[int, float]]) -> float:
    """Return the largest difference between two mean strengths of a row, in shares of its strongest; the median over rows."""
    mine = read_table(out, "features", ["ids", "mean"])
    apart = []
    for ids, mean, other in zip(mine["ids"], mine["mean"], theirs, strict=True):
        own = dict(zip(ids.tolist(), mean.tolist(), strict=True))
        if own:
            apart.append(max(abs(own[i] - other.get(i, 0.0)) for i in own) / max(own.values()))
    return float(np.median(apart))


def main() -> None:
    """Run all in turns and print the table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sae", required=True, help="an artifact of train-sae or load-sae")
    parser.add_argument("--model", required=True, help="the base of it: an artifact of pretrain or load-model")
    parser.add_argument("--data", required=True, help="an artifact of build-data in its tokens")
    parser.add_argument("--split", default="pool", help="whose first rows to fingerprint")
    parser.add_argument("--source", help="take rows of this source alone")
    parser.add_argument("--rows", type=int, default=500, help="how many")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each, after one that does not count")
    call = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = open_work(call, Path(folder))
        rival = hooked(work.fingerprinter.model, max(map(len, work.rows)))
        turn, means = iter(range(10**6)), []
        todo: dict[str, Callable[[], Any]] = {
            "forward": lambda: bare(work),
            "ours": lambda: ours(work, Path(folder) / f"ours-{next(turn)}"),
            "naive, stopped": lambda: naive(work, rival, stop=True),
            "naive": lambda: means.append(naive(work, rival, stop=False)),
        }
        rounds = in_turns(todo, lambda: floor(work), call.rounds)
        apart = difference(work, Path(folder) / "ours-0", means[0])
    padded = sum(batch.input_ids.numel() for batch in work.batches)
    print(f"\n{len(work.rows):,} rows, {work.tokens:,} tokens, {padded:,} with padding; medians of {call.rounds}", end="")
    print_table(rounds, work.tokens)
    print(f"mean strengths of ours and of the naive loop: {apart:.1e} of a row's strongest apart")
    for which, seconds in ((1, "processor's"), (0, "clock's")):
        print(f"by the {seconds} seconds: share of the forward pass's speed {ratio(rounds, 'forward', which):.2f}", end=", ")
        print(
            f"ratio over naive, stopped {ratio(rounds, 'naive, stopped', which):.2f}, over naive {ratio(rounds, 'naive', which):.2f}"
        )
    print(f"ratio {ratio(rounds, 'naive'):.2f}")


if __name__ == "__main__":
    main()
