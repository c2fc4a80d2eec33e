"""TransformerLens' names of the common places in a model, and the modules of transformers that they stand for.

`blocks.12.hook_resid_post` is the output of the twelfth layer, whatever the model calls its layers. What a layer adds to the
residual stream (`hook_mlp_out`, `hook_attn_out`) is taken after the norm that some families (Gemma 2 and 3) put behind it,
as TransformerLens does. In the middle of a layer (`hook_resid_mid`) the stream is what the MLP's side reads: before the norm in
front of the MLP or, where there is none (OLMo 2 has norms only behind attention and MLP), the MLP's own input.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from playpen.config import PlaypenError

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
IN_STREAM = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_mlp_out", "hook_attn_out")
"""The places of a layer that are the residual stream, or what is added to it."""
PARALLEL = ("use_parallel_residual", "parallel_attn")
"""What configs call it that attention and MLP read the same stream (GPT-NeoX and StableLM, Falcon)."""


def module_name(modules: Mapping[str, Any], name: str) -> str:
    """Return the module's name and side for a name of TransformerLens; any other name comes back as it is.

    Raises for the middle of a layer whose attention and MLP run side by side, because its stream has none.

    Args:
        modules: the model's `named_modules()`.
    """
    found = re.fullmatch(r"blocks\.(\d+%?)\.(.+)", name)
    if not found or "blocks" in modules:
        return name
    layers, place = layers_name(modules), found[2]
    if layers is None or place not in PLACES:
        return name
    if place == "hook_resid_mid" and is_parallel(modules):
        raise PlaypenError(
            f"hook '{name}': attention and MLP of this model read the same stream, so a layer has no middle; "
            "name hook_resid_pre or hook_resid_post"
        )
    part = _part(modules, f"{layers}.0", place)
    return name if part is None else f"{layers}.{found[1]}{part}"


def stream_places(modules: Mapping[str, Any]) -> list[str]:
    """Return the names of all places that are the residual stream, or are added to it, layer by layer."""
    layers = layers_name(modules)
    if layers is None:
        return []
    places = [place for place in IN_STREAM if place != "hook_resid_mid" or not is_parallel(modules)]
    parts = [part for place in places if (part := _part(modules, f"{layers}.0", place)) is not None]
    return [f"{layers}.{number}{part}" for number in range(len(modules[layers])) for part in parts]


def is_parallel(modules: Mapping[str, Any]) -> bool:
    """Say whether the model's config has attention and MLP read the same stream."""
    config = getattr(modules.get(""), "config", None)
    return any(getattr(config, name, False) for name in PARALLEL)


def _part(modules: Mapping[str, Any], layer: str, place: str) -> str | None:
    """Return what follows a layer's path in the name of a place, as `.mlp.output`; None when the layer has no such module."""
    parts = [part if part.startswith(".") else f".{part}" for part in _options(modules, layer, place)]
    return next((part for part in parts if f"{layer}{part}".rpartition(".")[0] in modules), None)


def _options(modules: Mapping[str, Any], layer: str, place: str) -> tuple[str, ...]:
    """Return what a place may be called; behind a norm on the way out, `post_attention_layernorm` is that of attention."""
    normed = f"{layer}.post_feedforward_layernorm" in modules
    if place == "hook_attn_out" and normed:
        return ("post_attention_layernorm.output",)
    if place == "hook_resid_mid" and normed and f"{layer}.pre_feedforward_layernorm" not in modules:
        return ("mlp.input",)
    return PLACES[place]


def layers_name(modules: Mapping[str, Any]) -> str | None:
    """Return the path of the model's list of layers."""
    known = [name for name in LAYERS if isinstance(modules.get(name), nn.ModuleList)]
    lists = [name for name, module in modules.items() if isinstance(module, nn.ModuleList)]
    return known[0] if known else max(lists, key=lambda name: len(modules[name]), default=None)
