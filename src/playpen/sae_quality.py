"""How good a SAE is, on rows that it was never trained on.

Explained variance is 1 - sum |x - x'|^2 / sum |x - mean x|^2 over the held-out tokens: variance about the mean, both sums over
all tokens before the ratio. The CE-loss score is (CE of the ablation - CE with x') / (CE of the ablation - CE of the model), in
nats a predicted token, with x' put in the place of x at every token but the BOS; the ablation is zero or the mean activation.
KL is the mean over predicted tokens of KL(model || model with x'), in nats. Density is the share of held-out tokens on which a
feature is active; dead is a density of 0, dense one above 0.1.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from playpen.activations import Hook, Rows, edited, make_batches
from playpen.machine import Machine
from playpen.saes import chunks

LOGITS = 2**27
"""Logits held at once; a batch of the CE evaluation has at most this many over the vocabulary in tokens."""
DENSE = 0.1


@torch.no_grad()
def reconstruction(sae: Any, values: Tensor) -> tuple[dict[str, float], Tensor]:
    """Return explained variance, L0 and the shares of dead and dense features over held-out tokens [n, d_in], and the densities."""
    center = values.double().mean(0) if values.device.type != "mps" else values.mean(0)
    error = total = 0.0
    fired = torch.zeros(sae.cfg.d_sae, dtype=torch.int64, device=values.device)
    for x in chunks(values, sae.cfg.d_sae):
        features = sae.encode(x)
        error += float((sae.decode(features) - x).pow(2).sum())
        total += float((x - center).pow(2).sum())
        fired += (features != 0).sum(0)
    density = fired.cpu().double() / len(values)
    found = {
        "explained_variance": 1 - error / total,
        "l0": float(density.sum()),
        "dead_fraction": float((density == 0).float().mean()),
        "dense_fraction": float((density > DENSE).float().mean()),
    }
    return found, density.float()


def ablations(mean: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return the two ablations: every activation [n, d] becomes zero, or the mean [d]."""
    return {"zero": torch.zeros_like, "mean": lambda x: mean.expand_as(x)}


@torch.no_grad()
def spliced(
    model: Any, hook: Hook, changes: Mapping[str, Callable[[Tensor], Tensor]], rows: Rows, counted: Rows, machine: Machine
) -> dict[str, float]:
    """Return `ce_model`, and for each change of the counted activations its `ce_<name>` and `kl_<name>`; nats a predicted token."""
    budget = max(1, min(machine.forward_tokens, LOGITS // model.config.get_text_config().vocab_size))
    sums, predicted = {"ce_model": 0.0} | {f"{what}_{name}": 0.0 for name in changes for what in ("ce", "kl")}, 0
    for batch in make_batches(rows, counted, budget):
        ids, attention, mask = (part.to(model.device) for part in (batch.input_ids, batch.attention, batch.counted))
        there = attention[:, 1:]
        wanted, plain = ids[:, 1:][there], _log_probs(model, hook, ids, attention, mask, None)
        sums["ce_model"] += float(F.nll_loss(plain, wanted, reduction="sum"))
        for name, change in changes.items():
            changed = _log_probs(model, hook, ids, attention, mask, change)
            sums[f"ce_{name}"] += float(F.nll_loss(changed, wanted, reduction="sum"))
            sums[f"kl_{name}"] += float(F.kl_div(changed, plain, reduction="sum", log_target=True))
        predicted += len(wanted)
    return {name: value / predicted for name, value in sums.items()} | {"ce_tokens": predicted}


def scores(ce: Mapping[str, float]) -> dict[str, float]:
    """Return the CE-loss scores of losses that hold `ce_model`, `ce_sae`, `ce_zero` and `ce_mean`."""
    return {
        f"ce_score_{which}": (ce[f"ce_{which}"] - ce["ce_sae"]) / (ce[f"ce_{which}"] - ce["ce_model"])
        for which in ("zero", "mean")
    }


def _log_probs(model: Any, hook: Hook, ids: Tensor, attention: Tensor, counted: Tensor, change: Any) -> Tensor:
    """Return the log-probabilities [predicted tokens, vocabulary] with the counted activations changed."""

    def edit(activations: Tensor) -> Tensor:
        if change is None:
            return activations
        new = activations.clone()
        new[counted] = change(activations[counted].float()).to(new.dtype)
        return new

    with edited(hook, edit):
        logits = model(input_ids=ids, attention_mask=attention.long(), use_cache=False).logits
    return logits[:, :-1][attention[:, 1:]].float().log_softmax(-1)
