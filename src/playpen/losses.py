"""Losses of rows, with logits made only where a label is: what evaluation and attribution share.

A row's loss is the mean, over its tokens with a label, of minus the log probability of the label given the tokens before
it, in nats. Rows run in batches of like length; logits never exist for more than a slice of the labelled positions, so a
vocabulary of 262,144 needs no more memory than the rest of the model.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from playpen.chat import IGNORE
from playpen.config import PlaypenError
from playpen.machine import Machine
from playpen.progress import tqdm

LOGITS = 2**26
"""Logits held at once: 256 MB in float32, about four times that while their gradient is made."""

CLOSE = 0.75
"""Least length of a row beside the longest of its pass, on a CPU: a fifth less work on the demo's chats than whole batches."""

TokenLists = Sequence[Sequence[int]]


def row_losses(model: Any, input_ids: TokenLists, labels: TokenLists, machine: Machine, bar: tqdm | None = None) -> np.ndarray:
    """Return float32 [rows]: mean nats per supervised token of each row, in the order given.

    `model` is a causal language model of transformers or a PEFT model on one, in evaluation mode. `labels` are unshifted,
    -100 where a token carries no loss. `bar` is told the tokens done, in place of a bar of this call's own. Raises PlaypenError
    for a row without a label after its first token.
    """
    return losses_of_parts(model, input_ids, labels, [labels], machine, bar)[0]


def losses_of_parts(
    model: Any, input_ids: TokenLists, labels: TokenLists, parts: Sequence[TokenLists], machine: Machine, bar: tqdm | None = None
) -> np.ndarray:
    """Return float32 [parts, rows]: `row_losses` over those of the labels that each part keeps, all from one forward pass.

    A part is `labels` with -100 in more places. Raises PlaypenError for a row of which a part keeps none.
    """
    found, total = np.full((len(parts), len(input_ids)), np.nan, np.float32), sum(map(len, input_ids))
    own = tqdm(total=total, desc="losses", unit="token", disable=None, mininterval=1) if bar is None else nullcontext(bar)
    with torch.no_grad(), own as bar:
        for rows in token_batches([len(ids) for ids in input_ids], machine.forward_tokens):
            ids, mask, targets = pad(input_ids, labels, rows, machine.torch_device())
            nats, owner = _label_nats(model, ids, mask, targets)
            for i, part in enumerate(parts):
                kept = pad(input_ids, part, rows, machine.torch_device())[2]
                chosen = kept[:, 1:][targets[:, 1:] != IGNORE] != IGNORE
                sums = torch.zeros(len(rows), device=nats.device).index_add_(0, owner[chosen], nats[chosen])
                found[i, rows] = (sums / num_labels(kept)).cpu().numpy()
            bar.update(sum(len(input_ids[row]) for row in rows))
    return found


def backward_losses(model: Any, ids: Tensor, mask: Tensor, labels: Tensor, mean: bool, root: bool = False) -> Tensor:
    """Run forward and backward of the summed losses of padded rows [N, S]; return each row's mean nats [N].

    With `mean`, a row's loss is the mean over its labels, otherwise their sum; with `root` the weight of a label is the root of
    that, as the Fisher matrix of such losses needs, whose labels are independent draws. The gradient of the head's input is made
    slice by slice, then sent once through the backbone; parameters' gradients are dropped, because the caller listens
    with hooks. No gradient of the head or the embedding is ever made.
    """
    hidden, targets, owner = labelled(model, ids, mask, labels)
    count = num_labels(labels)
    weight = (1 / count if mean else torch.ones_like(count)).pow(0.5 if root else 1)[owner]
    nats = _send_back(model, hidden, targets, weight)
    model.zero_grad(set_to_none=True)
    return torch.zeros_like(count).index_add_(0, owner, nats) / count


def backward_labels(model: Any, ids: Tensor, mask: Tensor | None, labels: Tensor, divisor: float) -> float:
    """Add the gradients of the summed loss of all labels of padded rows [N, S], over `divisor`, to those that the parameters have.

    With all labels of a batch as `divisor`, its parts add up to the mean loss over its labels. No mask is needed where the
    padding is on the right and attention is causal: no real token looks at it. Returns the sum in nats, not divided.
    """
    hidden, targets, _ = labelled(model, ids, mask, labels)
    return float(_send_back(model, hidden, targets, torch.full((len(targets),), 1 / divisor, device=hidden.device)).sum())


def summed_labels(model: Any, ids: Tensor, labels: Tensor) -> Tensor:
    """Return the summed loss, in nats, of all labels of rows [N, S] that are padded on the right, for a backward pass of the caller's.

    Logits are made slice by slice; where there is more than one, each is made again in the backward pass, not kept.
    """
    hidden, targets, _ = labelled(model, ids, None, labels)
    head = output_head(model)

    def lost(part: slice) -> Tensor:
        return cross_entropy(head(hidden[part]), targets[part], reduction="sum")

    parts = list(_slices(hidden, head)) or [slice(0)]  # without a label the loss is 0, and still has a gradient
    return (
        lost(parts[0]) if len(parts) == 1 else torch.stack([checkpoint(lost, part, use_reentrant=False) for part in parts]).sum()
    )


def _send_back(model: Any, hidden: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """Run backward of the weighted loss at hidden states [T, D], whose logits are made slice by slice; return the nats [T]."""
    head, below, nats = output_head(model), torch.empty_like(hidden), torch.empty_like(weight)
    for part in _slices(hidden, head):
        leaf = hidden[part].detach().requires_grad_()
        lost = cross_entropy(head(leaf), targets[part], reduction="none")
        (below[part],) = torch.autograd.grad((lost * weight[part]).sum(), leaf)
        nats[part] = lost.detach()
    hidden.backward(below)
    return nats


def sampled_labels(model: Any, input_ids: TokenLists, labels: TokenLists, machine: Machine, seed: int) -> list[np.ndarray]:
    """Return int64 labels drawn from the model's own predictions where `labels` has one, else -100; of the rows' lengths.

    The draw at a token depends on the seed, the row's place and the token's, never on the batch. Gradients of the loss on
    such labels make the Fisher matrix, those on the data's own only the empirical one (Kunstner et al. 2019, arXiv
    1905.12558, section 2).
    """
    rng = np.random.default_rng(seed)
    places = [np.flatnonzero(np.asarray(row)[1:] != IGNORE) + 1 for row in labels]
    draws, found = [rng.random(len(place)) for place in places], [np.full(len(ids), IGNORE, np.int64) for ids in input_ids]
    with torch.no_grad():
        for rows in token_batches([len(ids) for ids in input_ids], machine.forward_tokens):
            hidden, _, _ = labelled(model, *pad(input_ids, labels, rows, machine.torch_device()))
            uniform = torch.from_numpy(np.concatenate([draws[row] for row in rows])).float().to(hidden.device)
            head = output_head(model)
            drawn = torch.cat([_inverse_cdf(head(hidden[part]), uniform[part]) for part in _slices(hidden, head)]).cpu().numpy()
            ends = np.cumsum([len(places[row]) for row in rows])
            for row, tokens in zip(rows, np.split(drawn, ends[:-1]), strict=True):
                found[row][places[row]] = tokens
    return found


def _inverse_cdf(logits: Tensor, uniform: Tensor) -> Tensor:
    """Return the token [T] at which the cumulated probabilities of each row of logits [T, V] pass its number in [0, 1]."""
    total = torch.softmax(logits, -1).cumsum(-1)
    return torch.searchsorted(total, uniform.unsqueeze(1) * total[:, -1:], right=True)[:, 0].clamp(max=logits.shape[1] - 1)


def _label_nats(model: Any, ids: Tensor, mask: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nats of each label of padded rows [T], row by row, and the row of each [T]."""
    hidden, targets, owner = labelled(model, ids, mask, labels)
    head = output_head(model)
    nats = [cross_entropy(head(hidden[part]), targets[part], reduction="none") for part in _slices(hidden, head)]
    return torch.cat(nats), owner


def labelled(model: Any, ids: Tensor, mask: Tensor | None, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return, for every position that predicts a label: its last hidden state [T, D], the label [T] and its row [T]."""
    hidden = causal_model(model).base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    owner, position = torch.nonzero(labels[:, 1:] != IGNORE, as_tuple=True)
    return hidden[owner, position], labels[owner, position + 1], owner


def causal_model(model: Any) -> Any:
    """Return the transformers model inside a PEFT model, which carries the adapter's layers, or `model` itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def output_head(model: Any) -> Callable[[Tensor], Tensor]:
    """Return the map from last hidden states to float32 logits, with the model's soft cap."""
    causal = causal_model(model)
    config, head = causal.config.get_text_config(), causal.get_output_embeddings()
    for name in ("logit_scale", "logits_scaling"):
        if getattr(config, name, None) not in (None, 1, 1.0):
            raise PlaypenError(f"{type(causal).__name__} scales its logits by config.{name}, which losses here do not know")
    cap = getattr(config, "final_logit_softcapping", None)

    def logits(hidden: Tensor) -> Tensor:
        raw = head(hidden).float()
        return raw if cap is None else torch.tanh(raw / cap) * cap

    return logits


def _slices(hidden: Tensor, head: Callable[[Tensor], Tensor]) -> Iterator[slice]:
    """Yield slices of the labelled positions whose logits fit in LOGITS."""
    with torch.no_grad():
        vocabulary = head(hidden[:1]).shape[-1]
    step = max(1, LOGITS // vocabulary)
    return (slice(start, start + step) for start in range(0, len(hidden), step))


def num_labels(labels: Tensor) -> Tensor:
    """Return the number of labels of each padded row, leaving out the first token, as float32 [N]."""
    return (labels[:, 1:] != IGNORE).sum(1).float()


def token_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Return rows in batches of like length, the longest first, so that memory runs out at once if ever.

    A batch has at most `budget` tokens, padding included; a row longer than that has a batch of its own.
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def passes(batch: list[int], lengths: list[int], most: int, close: float) -> list[list[int]]:
    """Split a batch into passes of at most `most` rows, none shorter than `close` times the longest of its pass.

    Gradients of the passes add up, so the step is the same; there is less padding to work on.
    """
    found: list[list[int]] = []
    longest = 0
    for length, row in sorted(zip(lengths, batch, strict=True), key=lambda pair: -pair[0]):
        if found and len(found[-1]) < most and length >= close * longest:
            found[-1].append(row)
        else:
            found.append([row])
            longest = length
    return found


def pad(input_ids: TokenLists, labels: TokenLists, rows: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return the ids, attention mask and labels of `rows`, padded on the right to [N, S]."""
    width = max(len(input_ids[row]) for row in rows)
    ids, mask, targets = (np.full((len(rows), width), fill, np.int64) for fill in (0, 0, IGNORE))
    for i, row in enumerate(rows):
        size = len(input_ids[row])
        ids[i, :size], mask[i, :size], targets[i, :size] = input_ids[row], 1, labels[row]
    if (empty := (targets[:, 1:] == IGNORE).all(1)).any():
        raise PlaypenError(f"row number {rows[int(empty.argmax())]} has no token with a label, so it has no loss; leave it out")
    return tuple(torch.from_numpy(part).to(device) for part in (ids, mask, targets))  # type: ignore[return-value]
