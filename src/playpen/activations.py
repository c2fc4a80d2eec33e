"""Activations: what flows through one place of a model, by a forward pass that stops there.

A hook names a module of a transformers model and one of its sides: `model.layers.12.output`,
`model.layers.12.self_attn.o_proj.input`, or `transformer.h.2.mlp` alone, which means its output. GemmaScope's and SAELens'
`hf_hook_name` are such names; TransformerLens' `blocks.12.hook_resid_post` is understood too. Rows travel in batches of like length, and only the tokens that count come back.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from playpen.config import PlaypenError
from playpen.hook_names import module_name
from playpen.machine import Machine

Rows = Sequence[np.ndarray]
"""One array a row: token ids, or a mask over them."""


class _Reached(Exception):
    """Ends a forward pass at its hook."""


@dataclass(frozen=True)
class Hook:
    """One side of one module of a model."""

    name: str
    module: nn.Module
    side: Literal["input", "output"]


@dataclass(frozen=True)
class Batch:
    """Rows of like length, padded on the right to one rectangle [b, t]."""

    rows: np.ndarray
    """Positions [b] of the rows in the list they came from."""
    input_ids: Tensor
    attention: Tensor
    """True where there is a token, False where there is padding."""
    counted: Tensor
    """True where a token counts; never on padding."""

    def row_of_token(self) -> Tensor:
        """Return, for each counted token in row-major order, its row within the batch: int64 [n]."""
        return self.counted.nonzero()[:, 0]


def find_hook(model: nn.Module, name: str) -> Hook:
    """Return the hook of a name; an unknown one is an error that names the nearest.

    A share in place of a layer's number, as in model.layers.66%.output, is that depth of whatever model it is, rounded down.
    """
    modules = dict(model.named_modules())
    name = _at_depth(modules, module_name(modules, name))
    path, _, side = name.rpartition(".")
    if side in ("input", "output") and path in modules:
        return Hook(name, modules[path], side)  # type: ignore[arg-type]
    if name and name in modules:
        return Hook(name, modules[name], "output")
    wanted, suffix = (path, f".{side}") if side in ("input", "output") else (name, "")
    near = [found + suffix for found in get_close_matches(wanted, [m for m in modules if m], n=3, cutoff=0.3)]
    raise PlaypenError(
        f"hook '{name}' names no module of {type(model).__name__}; nearest: {', '.join(near) or 'none'} "
        "(a module's path, then .output or .input)"
    )


def _at_depth(modules: dict[str, nn.Module], name: str) -> str:
    found = re.match(r"(.+)\.(\d+)%(.*)", name)
    if not found or not isinstance(modules.get(found[1]), nn.ModuleList):
        return name
    layers = len(list(modules[found[1]].children()))
    return f"{found[1]}.{min(layers - 1, int(found[2]) * layers // 100)}{found[3]}"


def hook_width(model: Any, hook: Hook) -> int:
    """Return d_in, the width of the activations at a hook, by a forward pass of two tokens."""
    ids = torch.zeros((1, 2), dtype=torch.int64, device=model.device)
    return capture(model, hook, ids, torch.ones_like(ids)).shape[-1]


@contextmanager
def edited(hook: Hook, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let forward passes go on with `edit(activations)` in place of what flows through the hook, [b, t, d] both."""

    def on_output(module: nn.Module, args: Any, output: Any) -> Any:
        return (edit(output[0]), *output[1:]) if isinstance(output, tuple) else edit(output)

    def on_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (edit(args[0]), *args[1:]), kwargs
        first = next(iter(kwargs))
        return args, {**kwargs, first: edit(kwargs[first])}

    if hook.side == "output":
        handle = hook.module.register_forward_hook(on_output)
    else:
        handle = hook.module.register_forward_pre_hook(on_input, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def capture(model: Any, hook: Hook, input_ids: Tensor, attention: Tensor) -> Tensor:
    """Return the activations [b, t, d] at a hook, in the model's dtype; nothing after the hook is computed."""
    return capture_each(model, [hook], input_ids, attention)[0]


@torch.no_grad()
def capture_each(model: Any, hooks: Sequence[Hook], input_ids: Tensor, attention: Tensor) -> list[Tensor]:
    """Return the activations [b, t, d] at each hook by one forward pass, which ends when the last of them is reached."""
    found: dict[int, Any] = {}

    def keep(place: int, activations: Any) -> Any:
        found[place] = activations
        if len(found) == len(hooks):
            raise _Reached
        return activations

    with ExitStack() as stack, suppress(_Reached):
        for place, hook in enumerate(hooks):
            stack.enter_context(edited(hook, partial(keep, place)))
        model(input_ids=input_ids, attention_mask=attention, use_cache=False)
    return [_checked(hook, found.get(place)) for place, hook in enumerate(hooks)]


def _checked(hook: Hook, activations: Any) -> Tensor:
    if activations is None:
        raise PlaypenError(f"hook '{hook.name}' is never reached by a forward pass; name a module that the model runs")
    if not isinstance(activations, Tensor) or activations.dim() != 3:
        raise PlaypenError(
            f"hook '{hook.name}' gives no activations of shape [row, position, width]; name a layer or a part of one"
        )
    return activations


def not_bos(rows: Rows, bos: int | None) -> list[np.ndarray]:
    """Return the mask of the tokens that are no BOS."""
    return [row != bos if bos is not None else np.ones(len(row), bool) for row in rows]


def make_batches(rows: Rows, counted: Rows, budget: int) -> Iterator[Batch]:
    """Yield every row once, longest first, in batches of at most `budget` tokens with their padding (but of one row at least)."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, int(lengths[order[start]])))
        chosen = order[start : start + size]
        there = np.arange(int(lengths[chosen[0]])) < lengths[chosen][:, None]
        ids, mask = np.zeros(there.shape, np.int64), np.zeros(there.shape, bool)
        ids[there] = np.concatenate([rows[i] for i in chosen])
        mask[there] = np.concatenate([counted[i] for i in chosen])
        yield Batch(chosen, *(torch.from_numpy(part) for part in (ids, there, mask)))
        start += size


def iter_activations(
    model: Any, hook: Hook | Sequence[Hook], rows: Rows, counted: Rows, machine: Machine
) -> Iterator[tuple[Batch, Tensor]]:
    """Yield each batch with the activations of its counted tokens, float32 [n, d] on the model's device, in row-major order.

    Those of several hooks stand side by side in their order. Raises when an activation is infinite or NaN.
    """
    hooks = [hook] if isinstance(hook, Hook) else list(hook)
    for batch in make_batches(rows, counted, machine.forward_tokens):
        ids, attention, mask = (part.to(model.device) for part in (batch.input_ids, batch.attention, batch.counted))
        parts = [found[mask].float() for found in capture_each(model, hooks, ids, attention.long())]
        values = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        if not torch.isfinite(values.sum()):  # one pass; a sum is finite only when all its terms are
            _refuse(model, hooks, batch, values)
        yield batch, values


def _refuse(model: Any, hooks: Sequence[Hook], batch: Batch, values: Tensor) -> None:
    bad = (~torch.isfinite(values)).any(1).cpu()
    if bad.any():
        row = batch.rows[int(batch.row_of_token()[bad][0])]
        raise PlaypenError(
            f"hook '{', '.join(hook.name for hook in hooks)}': {int(bad.sum())} tokens of a batch have infinite or NaN activations, the first in row {row}, under "
            f"{str(model.dtype).removeprefix('torch.')}; use float32 or bfloat16 (--machine.dtype), which hold larger numbers than float16, "
            "or mend the weights"
        )


def activations_of(model: Any, hook: Hook | Sequence[Hook], rows: Rows, counted: Rows, machine: Machine) -> Tensor:
    """Return the activations of the counted tokens of all rows, in their order: float32 [n, d]."""
    ends = np.cumsum([int(mask.sum()) for mask in counted])
    starts, out = ends - [int(mask.sum()) for mask in counted], torch.empty(0)
    for batch, values in iter_activations(model, hook, rows, counted, machine):
        if not len(out):
            out = values.new_empty((int(ends[-1]), values.shape[1]))
        place = np.concatenate([np.arange(int(starts[i]), int(ends[i])) for i in batch.rows])
        out[torch.from_numpy(place).to(out.device)] = values
    return out
