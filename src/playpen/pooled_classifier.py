"""Networks that pool learned embeddings of an example's K strongest features, by mean or by attention.

Pooling is one product of a batch's weights, spread over the vocabulary, with the embeddings, so that the [rows, K, dim] products
are never made; `embedding_bag` says the same, but its backward pass takes ten times as long on a CPU. The networks are so small
that many on one core each train faster than one on many; they stay on the CPU and draw from their own generators, and so give
the same bytes.
"""

from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from playpen.feature_matrix import Arrays

PREDICT_ROWS = 512
FEWEST_STEPS, FEWEST_ROWS = 10, 16
"""When rows are few, batches shrink, down to 16 rows, so that an epoch still has ten steps."""


class Network(nn.Module):
    """Embeddings, pooling, and a head that gives the logit."""

    def __init__(self, config: Any, vocabulary: int, generator: Generator) -> None:
        super().__init__()
        dim, hidden = config.dim, config.hidden

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator) * shape[-1] ** -0.5)

        self.padding, self.share, self.generator = vocabulary, config.dropout, generator
        self.embedding = drawn(vocabulary + 1, dim)
        self.query = drawn(dim) if config.attention else None
        self.norm = nn.BatchNorm1d(dim, affine=False)  # pooled examples differ little from their mean; this brings it out
        self.hidden_weight = drawn(hidden, dim) if hidden else None
        self.hidden_bias = nn.Parameter(torch.zeros(hidden)) if hidden else None
        self.out_weight, self.out_bias = drawn(1, hidden or dim), nn.Parameter(torch.zeros(1))

    def forward(self, places: Tensor, strengths: Tensor) -> Tensor:
        """Return logits [n] from positions in the vocabulary (int64 [n, K]) and damped strengths (float32 [n, K])."""
        weights = self._mean(strengths) if self.query is None else self._attention(places, strengths)
        pooled = weights.new_zeros(len(places), self.padding + 1).scatter(1, places, weights) @ self.embedding
        state = self._drop(self.norm(pooled))
        if self.hidden_weight is not None:
            state = self._drop(F.gelu(F.linear(state, self.hidden_weight, self.hidden_bias)))
        return F.linear(state, self.out_weight, self.out_bias)[:, 0]

    def _mean(self, strengths: Tensor) -> Tensor:
        return strengths / (strengths > 0).sum(1, keepdim=True).clamp(min=1)

    def _attention(self, places: Tensor, strengths: Tensor) -> Tensor:
        """Return the strengths weighed by the softmax of query times scaled embedding."""
        logits = (self.embedding @ self.query)[places] * strengths  # type: ignore[operator]
        return logits.masked_fill(strengths == 0, -1e9).softmax(1) * strengths

    def _drop(self, values: Tensor) -> Tensor:
        if not self.training or not self.share:
            return values
        return values * (torch.rand(values.shape, generator=self.generator) >= self.share) / (1 - self.share)


def fit_members(
    config: Any, places: np.ndarray, strengths: np.ndarray, vocabulary: int, target: np.ndarray, inner: np.ndarray, seed: int
) -> Arrays:
    """Train the members, each stopped on another inner fold, and return their parameters stacked: `[members, ...]` each."""
    rows = (*_tensors(places, strengths, vocabulary), torch.from_numpy(target.astype(np.float32)))
    states = []
    for member in range(min(config.members, int(inner.max()) + 1)):
        network = Network(config, vocabulary, torch.Generator().manual_seed(seed * 1000 + member))
        states.append(_fit(config, network, rows, torch.from_numpy(inner == member)))
    return {name: torch.stack([state[name] for state in states]).numpy() for name in states[0]}


Rows = tuple[Tensor, Tensor, Tensor]
"""Places, strengths and targets of the training rows."""


def _tensors(places: np.ndarray, strengths: np.ndarray, vocabulary: int) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(places), torch.from_numpy(np.where(places < vocabulary, strengths, 0).astype(np.float32))


def _fit(config: Any, network: Network, rows: Rows, held: Tensor) -> dict[str, Tensor]:
    """Train one network and return its state at the epoch of the lowest loss on the held rows."""
    train, (places, strengths, target) = torch.nonzero(~held)[:, 0], rows
    with torch.no_grad():
        network.out_bias.fill_(torch.logit(target[train].mean()).item())
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
    lowest, best, since = float("inf"), {}, count(1)
    for _ in range(config.epochs):
        _train_epoch(config, network, optimizer, rows, train)
        loss = F.binary_cross_entropy_with_logits(_logits(network, places[held], strengths[held]), target[held]).item()
        if loss < lowest:
            lowest, best, since = loss, {name: value.clone() for name, value in network.state_dict().items()}, count(1)
        elif next(since) >= config.patience:
            break
    return best


def _train_epoch(config: Any, network: Network, optimizer: torch.optim.Optimizer, rows: Rows, train: Tensor) -> None:
    network.train()
    order = train[torch.randperm(len(train), generator=network.generator)]
    size = min(config.batch_rows, max(FEWEST_ROWS, len(train) // FEWEST_STEPS))
    for places, strengths, target in zip(*(part[order].split(size) for part in rows), strict=True):
        if len(target) == 1:
            continue  # batch normalisation needs two
        kept = torch.rand(places.shape, generator=network.generator) >= config.feature_dropout
        loss = F.binary_cross_entropy_with_logits(network(places, strengths * kept), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def _logits(network: Network, places: Tensor, strengths: Tensor) -> Tensor:
    network.eval()
    return torch.cat([network(*part) for part in zip(places.split(PREDICT_ROWS), strengths.split(PREDICT_ROWS), strict=True)])


def predict_members(config: Any, places: np.ndarray, strengths: np.ndarray, arrays: Arrays) -> np.ndarray:
    """Return the members' mean prediction, float32 [n] in [0, 1]."""
    if not len(places):
        return np.zeros(0, np.float32)
    vocabulary, members, total = len(arrays["vocabulary"]), len(arrays["embedding"]), torch.zeros(len(places))
    inputs, network = _tensors(places, strengths, vocabulary), Network(config, vocabulary, torch.Generator())
    for member in range(members):
        network.load_state_dict({name: torch.as_tensor(arrays[name][member]) for name in network.state_dict()})
        total += torch.sigmoid(_logits(network, *inputs))
    return (total / members).numpy()
