"""How good a SAE is, on rows that it was never trained on.

Explained variance is 1 - sum |x - x'|^2 / sum |x - mean x|^2 over the held-out tokens: variance about the mean, both sums over
all tokens before the ratio. The CE-loss score is (CE of the ablation - CE with x') / (CE of the ablation - CE of the model), in
nats a predicted token, with x' put in the place of x at every token but the BOS; the ablation is zero or the mean activation.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from playpen.activations import Hook, Rows, edited, make_batches
from playpen.machine import Machine
from playpen.saes import chunks

LOGITS = 2**27
"""Logits held at once; a batch of the CE evaluation has at most this many over the vocabulary in tokens."""


@torch.no_grad()
def reconstruction(sae: Any, values: Tensor) -> dict[str, float]:
    """Return explained variance, L0 and the share of dead features over held-out tokens [n, d_in]."""
    center = values.double().mean(0) if values.device.type != "mps" else values.mean(0)
    error = total = active = 0.0
    fired = torch.zeros(sae.cfg.d_sae, dtype=torch.bool, device=values.device)
    for x in chunks(values, sae.cfg.d_sae):
        features = sae.encode(x)
        error += float((sae.decode(features) - x).pow(2).sum())
        total += float((x - center).pow(2).sum())
        on = features != 0
        active += float(on.sum())
        fired |= on.any(0)
    return {
        "explained_variance": 1 - error / total,
        "l0": active / len(values),
        "dead_fraction": 1 - float(fired.float().mean()),
    }


def ce_score(model: Any, hook: Hook, sae: Any, rows: Rows, counted: Rows, mean: Tensor, machine: Machine) -> dict[str, float]:
    """Return the mean loss of the model as it is, with the SAE's reconstruction, and with zero and mean ablation, and both scores."""
    changes = {"ce_model": None, "ce_sae": sae, "ce_zero": torch.zeros_like, "ce_mean": lambda x: mean.expand_as(x)}
    budget = max(1, min(machine.forward_tokens, LOGITS // model.config.get_text_config().vocab_size))
    sums, predicted = dict.fromkeys(changes, 0.0), 0
    for batch in make_batches(rows, counted, budget):
        predicted += int(batch.attention[:, 1:].sum())
        for name, change in changes.items():
            sums[name] += _loss(model, hook, batch, change)
    ce = {name: value / predicted for name, value in sums.items()}
    scores = {
        f"ce_score_{which}": (ce[f"ce_{which}"] - ce["ce_sae"]) / (ce[f"ce_{which}"] - ce["ce_model"])
        for which in ("zero", "mean")
    }
    return {**ce, **scores, "ce_tokens": predicted}


@torch.no_grad()
def _loss(model: Any, hook: Hook, batch: Any, change: Any) -> float:
    """Return the summed next-token loss of a batch with the counted activations changed."""
    ids, attention, counted = (part.to(model.device) for part in (batch.input_ids, batch.attention, batch.counted))

    def edit(activations: Tensor) -> Tensor:
        if change is None:
            return activations
        new = activations.clone()
        new[counted] = change(activations[counted].float()).to(new.dtype)
        return new

    with edited(hook, edit):
        logits = model(input_ids=ids, attention_mask=attention.long(), use_cache=False).logits
    there = attention[:, 1:]
    return float(F.cross_entropy(logits[:, :-1][there].float(), ids[:, 1:][there], reduction="sum"))
