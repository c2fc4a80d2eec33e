"""Encoding with what comes before it: the active entries of tokens, and the pre-activations that near misses are told by."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from playpen.saes import BY_ONE_PRODUCT, encode_by_one_product

WITH_PRE_ACTIVATIONS = ("topk", "jumprelu", "standard")
"""SAELens' architectures whose activity is decided by one number a feature, linear in the input."""


@dataclass(frozen=True)
class Encoded:
    """n tokens encoded by a SAE of D features."""

    token: Tensor
    """int64 [entries]: token of each active entry, ascending."""
    feature: Tensor
    strength: Tensor
    before: Tensor | None
    """float32 [n, D]: pre-activations, in the unit of the strengths; None where the architecture has none."""


@torch.no_grad()
def encode(sae: Any, x: Tensor) -> Encoded:
    """Return what `sae.encode(x)` holds but zeros, for tokens [n, d_in]; the product with the encoder is made once."""
    kind = sae.cfg.architecture()
    if kind in BY_ONE_PRODUCT:
        return Encoded(*encode_by_one_product(sae, x))
    if kind not in WITH_PRE_ACTIVATIONS:
        dense = sae.encode(x)
        token, feature = dense.nonzero(as_tuple=True)
        return Encoded(token, feature, dense[token, feature], None)
    before = torch.addmm(sae.b_enc, sae.process_sae_in(x), sae.W_enc)
    token, feature = (before > 0).nonzero(as_tuple=True)
    return Encoded(token, feature, before[token, feature], before)


def decoder_directions(sae: Any) -> Tensor:
    """Return what one unit of each feature's strength adds to the rebuilt activation: float32 [D, d_in]."""
    directions = sae.W_dec.detach().float()
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        directions = directions / directions.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return directions
