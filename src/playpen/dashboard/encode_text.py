"""The features of a text: for each token the strongest, and for the whole text those with the highest maximum and mean."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from playpen.activations import activations_of, find_hook, hook_width, not_bos
from playpen.config import PlaypenError
from playpen.dashboard_data.opening import Opened, open_checked
from playpen.dashboard_data.token_text import TokenText
from playpen.machine import Machine
from playpen.models import load_base, load_tokenizer
from playpen.saes import check_base, check_width, encode_sparse, read_info

PER_TOKEN, PER_TEXT = 20, 50
"""Features named of a token, and of the whole text in each order."""
MAX_TOKENS = 1024
"""Tokens of the longest text, where the model does not read fewer."""


@dataclass(frozen=True)
class TextEncoder:
    """A base model up to a hook and a SAE, ready to look at texts."""

    opened: Opened
    text: TokenText
    name: str
    """What the page calls the model."""
    machine: Machine

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest text that is taken, the BOS left out."""
        return min(MAX_TOKENS, self.opened.longest - (self.opened.bos is not None))

    def about(self) -> dict[str, Any]:
        """Return what the page has to know."""
        return {"model": self.name, "max_tokens": self.max_tokens}

    def __call__(self, text: str) -> dict[str, Any]:
        """Return the features of a text.

        `tokens`: `{text, features: [[id, strength]]}` for each, strongest first; `by_max` and `by_mean`: `[[id, value]]` over
        all tokens, the mean counting those where it is off; `strengths`: `{id: [[token, strength]]}` for the features in
        either. Raises when the text has no token or too many.
        """
        ids = np.array(self.opened.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int32)
        if not 0 < len(ids) <= self.max_tokens:
            raise PlaypenError(
                f"the text has {len(ids)} tokens, expected 1 to {self.max_tokens}; give {'a shorter' if len(ids) else 'a'} text"
            )
        bos = self.opened.bos
        row = ids if bos is None else np.insert(ids, 0, bos)
        counted = not_bos([row], bos)
        values = activations_of(self.opened.model, self.opened.hook, [row], counted, self.machine)
        entries = (column.cpu().numpy() for column in encode_sparse(self.opened.sae, values))
        return summarise(self.text(row[counted[0]]), *entries)


def open_text_encoder(sae: Path, model: Path, machine: Machine) -> TextEncoder:
    """Open a SAE artifact and the base of a model artifact. Raises when they do not belong together."""
    check_base(sae, model)
    info, base = read_info(sae), load_base(model, machine)
    hook, tokenizer = find_hook(base, info.hook), load_tokenizer(model)
    check_width(str(sae), info.d_in, info.hook, hook_width(base, hook))
    opened = Opened(base, hook, open_checked(sae, machine), info, tokenizer)
    return TextEncoder(opened, TokenText(tokenizer), model.name, machine)


def summarise(tokens: list[str], token: np.ndarray, feature: np.ndarray, strength: np.ndarray) -> dict[str, Any]:
    """Return the answer for active entries (token, feature, strength) of a text, each [entries], ordered by token."""
    ids, place = np.unique(feature, return_inverse=True)
    most, total = np.zeros(len(ids)), np.bincount(place, weights=strength, minlength=len(ids))
    np.maximum.at(most, place, strength)
    by_max, by_mean = (_ranked(ids, values, PER_TEXT) for values in (most, total / max(1, len(tokens))))
    ends = np.searchsorted(token, np.arange(len(tokens) + 1))
    own = [_ranked(feature[a:b], strength[a:b], PER_TOKEN) for a, b in pairwise(ends)]
    shown = {ident for ident, _ in (*by_max, *by_mean)}
    strengths = {ident: _where(token[feature == ident], strength[feature == ident]) for ident in sorted(shown)}
    named = [{"text": text, "features": pairs} for text, pairs in zip(tokens, own, strict=True)]
    return {"tokens": named, "by_max": by_max, "by_mean": by_mean, "strengths": strengths}


def _ranked(ids: np.ndarray, values: np.ndarray, most: int) -> list[tuple[int, float]]:
    """Return (id, value) of the highest values, the lower id first of equal ones."""
    order = np.lexsort((ids, -values))[:most]
    return [(int(ids[i]), _short(values[i])) for i in order]


def _where(token: np.ndarray, strength: np.ndarray) -> list[tuple[int, float]]:
    return [(int(t), _short(s)) for t, s in zip(token, strength, strict=True)]


def _short(value: Any) -> float:
    return float(f"{value:.5g}")
