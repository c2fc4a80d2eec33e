"""SAELens' TopK family, trained on its active entries alone.

SAELens trains TopK, BatchTopK and Matryoshka SAEs by dense products of [tokens, d_sae] in which all but k entries a token are
zero. These subclasses compute the same loss and the same gradients from the active entries: one dense product finds them, and
decoding, both weight gradients and the firing statistics then cost k, not d_sae, a token. The dense pre-activations are made a
piece at a time, so that they stay in a core's cache and are never held for a whole batch (but by BatchTopK, which must rank
them all). SAELens' `rescale_acts_by_decoder_norm` is folded into the encoder's columns, `apply_b_dec_to_input` into its bias.

Loss: squared error summed over the width, mean over tokens, plus the loss of dead features (Gao et al. 2024, arXiv 2406.04093,
section 2.4 and appendix A.2) and, for Matryoshka, the error of each nested width (Bussmann et al. 2025, arXiv 2503.17547, section 3).
"""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from sae_lens import BatchTopKTrainingSAE, MatryoshkaBatchTopKTrainingSAE, TopKTrainingSAE
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from torch import Tensor

from playpen import processes

PIECE = 2**21
"""Dense pre-activations held at once on a CPU: 8 MB."""

warnings.filterwarnings("ignore", message="Sparse CSR tensor support")


@dataclass(frozen=True)
class Code:
    """The active entries of a batch of tokens, ordered by token."""

    feature: Tensor
    """int64 [n]"""
    strength: Tensor
    """float32 [n], with its gradient; an entry may be 0."""
    start: Tensor
    """Where each token's entries start, and the end of the last: int64 [tokens + 1]."""

    @property
    def tokens(self) -> int:
        """The number of tokens."""
        return len(self.start) - 1

    def within(self, first: int, last: int) -> "Code":
        """Return the entries of the features first to last - 1 only."""
        chosen = (self.feature >= first) & (self.feature < last)
        counts = torch.cat([chosen.new_zeros(1, dtype=torch.int64), chosen.cumsum(0)])
        return Code(self.feature[chosen], self.strength[chosen], counts[self.start])


def sum_by_feature(feature: Tensor, start: Tensor, weight: Tensor, values: Tensor, d_sae: int) -> Tensor:
    """Return, for each feature, the sum of weight times the token's values over its entries: [d_sae, d].

    Args:
        feature, weight: entries [n], ordered by token.
        start: where each token's entries start, [tokens + 1].
        values: [tokens, d].
    """
    if values.device.type == "cpu" and not torch.backends.mkl.is_available():  # a CPU without MKL has no sparse product
        dense = values.new_zeros(len(values), d_sae)
        dense[_token(start, len(feature)), feature] = weight
        return dense.T @ values
    order = torch.argsort(feature, stable=True)
    rows = torch.zeros(d_sae + 1, dtype=torch.int64, device=feature.device)
    rows[1:] = torch.bincount(feature, minlength=d_sae).cumsum(0)
    matrix = torch.sparse_csr_tensor(
        rows, _token(start, len(feature))[order], weight[order], (d_sae, len(values)), check_invariants=False
    )
    return matrix @ values


def _token(start: Tensor, entries: int) -> Tensor:
    """Return the token of each entry: int64 [n]. Their number is given, for to ask a device for it takes a synchronisation."""
    return torch.repeat_interleave(torch.arange(len(start) - 1, device=start.device), start.diff(), output_size=entries)


class _Encode(torch.autograd.Function):
    """Active entries of x W + b; the gradient flows through their strengths to W and b, not to x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor, choose: Any) -> tuple[Tensor, Tensor, Tensor]:
        strength, feature, start = choose(x, W, b)
        ctx.save_for_backward(x, feature, start)
        ctx.width = W.shape[1]
        ctx.mark_non_differentiable(feature, start)
        return strength, feature, start

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[None, Tensor, Tensor, None]:
        x, feature, start = ctx.saved_tensors
        grad = grads[0].contiguous()
        W = sum_by_feature(feature, start, grad, x, ctx.width).T
        return None, W, grad.new_zeros(ctx.width).index_add_(0, feature, grad), None


class _Decode(torch.autograd.Function):
    """Sum over a token's entries of strength times the feature's row of W."""

    @staticmethod
    def forward(ctx: Any, strength: Tensor, W: Tensor, feature: Tensor, start: Tensor) -> Tensor:
        ctx.save_for_backward(strength, W, feature, start)
        return F.embedding_bag(feature, W, start, per_sample_weights=strength, mode="sum", include_last_offset=True)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, None, None]:
        strength, W, feature, start = ctx.saved_tensors
        grad = grads[0].contiguous()
        own = torch.ops.aten._embedding_bag_per_sample_weights_backward(
            grad, W, feature, start[:-1], _token(start, len(feature)), 0
        )
        return own, sum_by_feature(feature, start, strength, grad, len(W)), None, None


def _pick(values: Tensor, feature: Tensor) -> Tensor:
    """Return values[feature], for a scalar a feature.

    On a CPU the backward pass of plain indexing adds up repeated features from all threads at once, in an order of chance, so
    that every run would have other weights; that of index_select adds them in the order of the entries.
    """
    return values.index_select(0, feature)


def decode(code: Code, W: Tensor) -> Tensor:
    """Return [tokens, d]: each token's entries times their rows of W [d_sae, d]."""
    return _Decode.apply(code.strength, W, code.feature, code.start)  # type: ignore[return-value]


def encode_topk(x: Tensor, W: Tensor, b: Tensor, k: int, signed: bool = False) -> Code:
    """Return the k largest entries of each token of x W + b, negative ones as 0 unless `signed`."""

    def choose(x: Tensor, W: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = [torch.addmm(b, piece, W).topk(k, sorted=False) for piece in _pieces(x, W)]
        strength, feature = (torch.cat(column).flatten() for column in zip(*found, strict=True))
        return strength, feature, torch.arange(0, len(feature) + 1, k, device=x.device)

    strength, feature, start = _Encode.apply(x, W, b, choose)  # type: ignore[misc]
    return Code(feature, strength if signed else strength.relu(), start)


def encode_batch_topk(x: Tensor, W: Tensor, b: Tensor, count: int) -> Code:
    """Return the `count` largest positive entries of x W + b over all tokens, those of other processes included (each has its own)."""

    def choose(x: Tensor, W: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dense = torch.addmm(b, x, W)
        place = _largest(dense.flatten(), min(count, dense.numel()))
        if processes.count() > 1:
            place = place[_kept(dense.flatten()[place], count)]
        token = place // dense.shape[1]
        start = torch.zeros(len(x) + 1, dtype=torch.int64, device=x.device)
        start[1:] = torch.bincount(token, minlength=len(x)).cumsum(0)
        return dense.flatten()[place], place % dense.shape[1], start

    strength, feature, start = _Encode.apply(x, W, b, choose)  # type: ignore[misc]
    return Code(feature, strength, start)


def _largest(values: Tensor, count: int) -> Tensor:
    """Return the places of the `count` largest positive values, in order of place.

    On a CPU a sample bounds the smallest of them from below, so that only a few times `count` values have to be ranked; on
    other devices that would cost a synchronisation.
    """
    if values.device.type != "cpu":
        return values.relu().topk(count, sorted=False).indices.sort().values
    step = max(1, len(values) // 2**17)
    sample = values[::step]
    rank = min(len(sample), int(1.5 * count / step) + 64)
    bound = sample.topk(rank).values[-1].clamp(min=0)
    place = (values > bound).nonzero()[:, 0]
    if len(place) < count and bound > 0:
        place = (values > 0).nonzero()[:, 0]
    if len(place) <= count:
        return place
    return place[values[place].topk(count, sorted=False).indices].sort().values


def _kept(values: Tensor, count: int) -> Tensor:
    """Say which of this process's values, `count` at most and above 0, are among the `count` largest of all processes' [n].

    Of equal ones, those of the first processes are: tokens that begin their rows alike have equal activations.
    """
    parts = processes.joined_rows(F.pad(values, (0, count - len(values))), [count] * processes.count())
    least = torch.cat(parts).topk(count).values[-1]
    left = count - sum((part > least).sum() for part in parts)
    equal, before = values == least, sum((part == least).sum() for part in parts[: processes.rank()])
    return (values > least) | (equal & (equal.cumsum(0) <= left - before))


def _pieces(x: Tensor, W: Tensor) -> tuple[Tensor, ...]:
    return x.split(max(1, PIECE // W.shape[1])) if x.device.type == "cpu" else (x,)


class SparseSteps:
    """The training step of SAELens' TopK family on active entries; mixed in before one of its classes."""

    cfg: Any
    W_enc: Tensor
    W_dec: Tensor
    b_enc: Tensor
    b_dec: Tensor
    dead: Tensor | None = None
    """Features that the auxiliary loss works on, int64; whoever trains sets it, now and then."""

    def encode_sparse(self, x: Tensor, W: Tensor, b: Tensor) -> Code:
        """Return the active entries of x W + b."""
        return encode_topk(x, W, b, int(self.cfg.k))

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """Return the loss of SAELens' own class; `feature_acts` is its sparse [tokens, d_sae]."""
        x, norm = step_input.sae_in, self.W_dec.norm(dim=-1)
        W, b = self.W_enc * norm, self.b_enc * norm
        if self.cfg.apply_b_dec_to_input:
            b = b - self.b_dec @ W
        code = self.encode_sparse(x, W, b)
        scaled = Code(code.feature, code.strength / _pick(norm, code.feature), code.start)
        rebuilt = decode(scaled, self.W_dec) + self.b_dec
        losses = {"mse_loss": _squared_error(rebuilt, x), "auxiliary_reconstruction_loss": self._aux(x, rebuilt, W, b, norm)}
        losses |= self.inner_losses(scaled, x)
        acts = torch.sparse_coo_tensor(
            torch.stack([_token(code.start, len(code.feature)), code.feature]),
            code.strength.detach(),
            (len(x), self.cfg.d_sae),
            check_invariants=False,
        )
        empty = x.new_empty(0)
        loss = torch.stack(list(losses.values())).sum()
        return TrainStepOutput(sae_in=x, sae_out=rebuilt, feature_acts=acts, hidden_pre=empty, loss=loss, losses=losses)

    def inner_losses(self, scaled: Code, x: Tensor) -> dict[str, Tensor]:
        """Return further losses, by name."""
        return {}

    def _aux(self, x: Tensor, rebuilt: Tensor, W: Tensor, b: Tensor, norm: Tensor) -> Tensor:
        """Return the error with which the strongest dead features rebuild what the living ones leave over."""
        if self.dead is None or len(self.dead) == 0:
            return x.new_zeros(())
        wanted, dead = self.cfg.d_in // 2, self.dead
        code = encode_topk(x, W[:, dead], b[dead], min(wanted, len(dead)), signed=True)
        scaled = Code(code.feature, code.strength / _pick(norm[dead], code.feature), code.start)
        share = min(len(dead) / wanted, 1.0)
        left = (x - rebuilt).detach()
        return self.cfg.aux_loss_coefficient * share * _squared_error(decode(scaled, self.W_dec[dead]), left)


def _squared_error(found: Tensor, wanted: Tensor) -> Tensor:
    return (found - wanted).pow(2).sum(-1).mean()


class SparseTopK(SparseSteps, TopKTrainingSAE):  # type: ignore[misc]
    """SAELens' TopK SAE."""


class SparseBatchTopK(SparseSteps, BatchTopKTrainingSAE):  # type: ignore[misc]
    """SAELens' BatchTopK SAE."""

    def encode_sparse(self, x: Tensor, W: Tensor, b: Tensor) -> Code:
        """Return the k times tokens largest entries of x W + b."""
        return encode_batch_topk(x, W, b, int(self.cfg.k * len(x) * processes.count()))

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """Return the loss, and let the running threshold follow."""
        output = super().training_forward_pass(step_input)
        with torch.no_grad():
            active, rate = output.feature_acts._values(), self.cfg.topk_threshold_lr
            if processes.count() > 1:
                active = processes.least(active)
            if len(active):  # nothing is when every feature has died
                self.topk_threshold = (1 - rate) * self.topk_threshold + rate * active.min().double()
        return output


class SparseMatryoshka(SparseBatchTopK, MatryoshkaBatchTopKTrainingSAE):  # type: ignore[misc]
    """SAELens' Matryoshka BatchTopK SAE."""

    def inner_losses(self, scaled: Code, x: Tensor) -> dict[str, Tensor]:
        """Return the error of each nested width but the whole."""
        losses, rebuilt, first = {}, self.b_dec, 0
        for width in self.cfg.matryoshka_widths[:-1]:
            rebuilt = decode(scaled.within(first, width), self.W_dec) + rebuilt
            losses[f"inner_mse_loss_{width}"], first = _squared_error(rebuilt, x), width
        return losses
