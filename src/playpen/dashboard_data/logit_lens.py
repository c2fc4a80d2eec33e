"""The logit lens: which tokens a decoder direction promotes if it went straight to the unembedding (nostalgebraist 2020).

A direction in the residual stream passes the final norm's weights and the unembedding; the norm's division is left out,
because it only scales, and so is what does not depend on the direction. The norm is found by what it does, not by its class:
its weights are what it makes of a probe. Only a direction in the residual stream has a lens, or in what is added to it: a
direction of the same width elsewhere (what the MLP reads, a query) means something else, though the product exists.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from playpen.activations import Hook, hook_width
from playpen.hook_names import stream_places

VOCABULARY_CHUNK = 2**15
"""Tokens of the vocabulary that directions are multiplied with at once."""


@dataclass(frozen=True)
class FinalNorm:
    """What a norm does to a direction: x -> scale * (x - mean of x, if it centres)."""

    scale: Tensor
    """float32 [d]."""
    centres: bool


@dataclass(frozen=True)
class LogitLens:
    """The way from the residual stream [d] to the logits of v tokens."""

    norm: FinalNorm
    unembedding: Tensor
    """[v, d], in the model's own number format."""

    @torch.no_grad()
    def values(self, directions: Tensor) -> Tensor:
        """Return the logits of directions [b, d], less their mean over the vocabulary: float32 [b, v]."""
        scaled = directions.float()
        if self.norm.centres:
            scaled = scaled - scaled.mean(-1, keepdim=True)
        scaled = scaled * self.norm.scale
        parts = [scaled @ part.float().T for part in self.unembedding.split(VOCABULARY_CHUNK)]
        logits = torch.cat(parts, dim=1)
        return logits - logits.mean(-1, keepdim=True)


def find_lens(model: Any, hook: Hook, tokens: int) -> LogitLens | str:
    """Return the lens over the first `tokens` tokens of the vocabulary or, in words, why there is none."""
    width, stream = hook_width(model, hook), model.config.get_text_config().hidden_size
    if width != stream:
        return f"the decoder writes activations {width} wide at {hook.name}, but the residual stream is {stream} wide"
    head = model.get_output_embeddings()
    if head is None:
        return f"{type(model).__name__} has no unembedding"
    last = _feeds(model, head)
    if last is None or next(last.children(), None) is not None:
        return "no single module gives the unembedding its input, so the final norm is unknown"
    if not _in_stream(model, hook, last):
        return (
            f"the decoder writes to {hook.name}, which is not in the residual stream; a lens needs the input, middle or output of "
            "a layer, what its attention or MLP adds (behind its norm, where it has one), or the input of the final norm"
        )
    norm = measure_norm(last, head.weight.shape[1])
    return norm if isinstance(norm, str) else LogitLens(norm, head.weight.detach()[:tokens])


def _in_stream(model: Any, hook: Hook, last: nn.Module) -> bool:
    """Say whether a hook is the residual stream, or what is added to it; `last` is the final norm."""
    modules = dict(model.named_modules())
    places = (name.rpartition(".") for name in stream_places(modules))
    allowed = [(last, "input"), *((modules[path], side) for path, _, side in places)]
    return any(module is hook.module and side == hook.side for module, side in allowed)


@torch.no_grad()
def _feeds(model: Any, head: Any) -> nn.Module | None:
    """Return the module whose output the unembedding reads, by a forward pass of two tokens; the innermost one."""
    made: list[tuple[nn.Module, Tensor]] = []
    read: list[Tensor] = []
    # Outputs are held until the end, so that no two of them can have had the same memory.
    handles = [
        module.register_forward_hook(lambda m, _, out: made.append((m, out)) if isinstance(out, Tensor) else None)
        for module in model.modules()
        if module is not head
    ]
    handles.append(head.register_forward_pre_hook(lambda _, args: read.append(args[0])))
    try:
        model(input_ids=torch.zeros((1, 2), dtype=torch.int64, device=model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return next((m for m, out in made if read and out.data_ptr() == read[0].data_ptr()), None)


@torch.no_grad()
def measure_norm(module: nn.Module, width: int) -> FinalNorm | str:
    """Measure an RMSNorm or LayerNorm by what it makes of a probe; say so when it is neither.

    Of a probe x with mean 0 and mean square 1, such a norm makes x * scale + bias; half of the difference to what it makes of -x
    is x * scale.
    """
    norm = deepcopy(module).float()
    device = next(module.parameters(), torch.empty(0)).device
    probe = torch.ones(width, device=device)
    probe[::2] = -1 if width % 2 == 0 else -(width // 2) / (width // 2 + 1)
    probe = 1000 * probe / probe.square().mean().sqrt()  # large, so that the norm's epsilon is nothing beside it
    up, down, moved = norm(probe[None])[0], norm(-probe[None])[0], norm(probe[None] + 500)[0]
    scale, bias = (up - down) / (2 * probe / 1000), (up + down) / 2
    found = FinalNorm(scale, bool(torch.allclose(moved, up, rtol=1e-3, atol=1e-3 * float(scale.abs().max()))))
    draw = torch.Generator().manual_seed(0)
    other = 100 * torch.randn(width, generator=draw).to(device)
    centred = other - other.mean() if found.centres else other
    expected = centred / centred.square().mean().sqrt() * scale + bias
    if not torch.allclose(norm(other[None])[0], expected, rtol=1e-2, atol=1e-2 * float(scale.abs().max())):
        return f"the {type(module).__name__} before the unembedding is neither an RMSNorm nor a LayerNorm"
    return found
