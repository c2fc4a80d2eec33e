"""The held-out rows of a SAE's training, and what is measured on them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from playpen.activations import Hook, activations_of, hook_width, not_bos
from playpen.machine import Machine
from playpen.sae_quality import ablations, reconstruction, scores, spliced
from playpen.sparse_probing import KS, pool_documents, probe
from playpen.token_rows import PROMPTS, TokenRows


class Heldout:
    """Held-out rows of a model, with the activations at its hooks."""

    def __init__(
        self, model: Any, hooks: Sequence[Hook], rows: TokenRows, bos: int | None, ce_tokens: int, machine: Machine
    ) -> None:
        self.model, self.rows, self.machine = model, rows, machine
        self.counted = not_bos(rows.ids, bos)
        order = np.random.default_rng(0).permutation(len(rows))  # the first ones would be those of one split
        few = order[: int(np.searchsorted(np.cumsum([len(rows.ids[i]) for i in order]), ce_tokens)) + 1]
        self.ce_rows, self.ce_counted = [rows.ids[i] for i in few], [self.counted[i] for i in few]
        values = activations_of(model, hooks, rows.ids, self.counted, machine)
        parts = values.split([hook_width(model, hook) for hook in hooks], dim=1)
        self.values: dict[str, Tensor] = {hook.name: part for hook, part in zip(hooks, parts, strict=True)}
        self.ablated: dict[str, dict[str, float]] = {}
        """Losses of the model with nothing and with the ablations, by hook: measured once."""

    def measure(self, sae: Any, hook: Hook) -> tuple[dict[str, float], Tensor]:
        """Return every measure of `sae_quality` for a SAE at a hook, and its densities [d_sae]."""
        values = self.values[hook.name]
        if hook.name not in self.ablated:
            self.ablated[hook.name] = self._spliced(hook, ablations(values.mean(0)))
        ce = {**self.ablated[hook.name], **self._spliced(hook, {"sae": sae})}
        found, density = reconstruction(sae, values)
        sizes = {"heldout_tokens": len(values), "heldout_rows": len(self.rows)}
        return {**found, **ce, **scores(ce), **sizes}, density

    def _spliced(self, hook: Hook, changes: Any) -> dict[str, float]:
        return spliced(self.model, hook, changes, self.ce_rows, self.ce_counted, self.machine)

    def probe(self, sae: Any, hook: Hook) -> dict[str, Any]:
        """Return `probing`: for each source, and for each category among the prompts, the AUROC of 1, 2 and 5 features; and the means of both."""
        lengths = np.array([int(mask.sum()) for mask in self.counted])
        _, first, document = np.unique(self.rows.document.astype(str), return_index=True, return_inverse=True)
        pooled, rows = pool_documents(sae, self.values[hook.name], lengths, document), self.rows.take(first)
        asked = rows.side == PROMPTS
        found = {
            "source": probe(pooled, rows.source, rows.group),
            "category": probe(pooled[asked], rows.category[asked], rows.group[asked]),  # type: ignore[index]
        }
        means = {
            f"probe_{what}_auroc_{k}": float(np.mean([one[f"auroc_{k}"] for one in part.values()]))
            for what, part in found.items()
            for k in KS
            if part
        }
        return {"probing": {what: part for what, part in found.items() if part}, **means}
