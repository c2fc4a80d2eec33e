"""TransformerLens' names of the common places in a model, and the modules of transformers that they stand for.

`blocks.12.hook_resid_post` is the output of the twelfth layer, whatever the model calls its layers. What a layer adds to the
residual stream (`hook_mlp_out`, `hook_attn_out`) is taken after the norm that some families (Gemma 2 and 3) put behind it,
as TransformerLens does.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

LAYERS = ("model.layers", "transformer.h", "gpt_neox.layers", "model.decoder.layers", "transformer.blocks")
"""Where families keep their layers; the longest list of modules is taken where none of these is there."""

PLACES: dict[str, tuple[str, ...]] = {
    "hook_resid_pre": (".input",),
    "hook_resid_mid": ("pre_feedforward_layernorm.input", "post_attention_layernorm.input", "ln_2.input"),
    "hook_resid_post": (".output",),
    "hook_mlp_out": ("post_feedforward_layernorm.output", "mlp.output"),
    "mlp.hook_post": ("mlp.down_proj.input", "mlp.c_proj.input", "mlp.dense_4h_to_h.input"),
    "attn.hook_z": (
        "self_attn.o_proj.input",
        "attn.attention.out_proj.input",
        "self_attn.out_proj.input",
        "attn.c_proj.input",
        "attention.dense.input",
    ),
    "hook_attn_out": ("self_attn.output", "attn.output", "attention.output"),
}
"""For each of TransformerLens' names in a block, the modules that may be it in a layer, the first that is there."""


def module_name(modules: Mapping[str, Any], name: str) -> str:
    """Return the module's name and side for a name of TransformerLens; any other name comes back as it is.

    Args:
        modules: the model's `named_modules()`.
    """
    found = re.fullmatch(r"blocks\.(\d+%?)\.(.+)", name)
    if not found or "blocks" in modules:
        return name
    layers, place = layers_name(modules), found[2]
    if layers is None or place not in PLACES:
        return name
    first = f"{layers}.0"
    for part in _options(modules, first, place):
        path = f"{first}.{part}".replace("..", ".").rpartition(".")[0]
        if path in modules:
            return f"{layers}.{found[1]}.{part}".replace("..", ".")
    return name


def _options(modules: Mapping[str, Any], layer: str, place: str) -> tuple[str, ...]:
    """Return what a place may be called; behind a norm on the way out, `post_attention_layernorm` is that of attention."""
    normed = f"{layer}.post_feedforward_layernorm" in modules
    if place == "hook_attn_out":
        return ("post_attention_layernorm.output",) if normed else PLACES[place]
    return PLACES[place]


def layers_name(modules: Mapping[str, Any]) -> str | None:
    """Return the path of the model's list of layers."""
    known = [name for name in LAYERS if isinstance(modules.get(name), nn.ModuleList)]
    lists = [name for name, module in modules.items() if isinstance(module, nn.ModuleList)]
    return known[0] if known else max(lists, key=lambda name: len(modules[name]), default=None)
