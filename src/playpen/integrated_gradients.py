"""Contributions of features to the log-odds of the pooled networks, by integrated gradients from the empty example.

The path is a straight line: every damped strength grows from 0 to its value at the same pace. A feature's contribution is its
strength times the mean slope of the log-odds along that line, and all of them sum to the log-odds minus those of the empty
example (Sundararajan, Taly and Yan 2017, arXiv 1703.01365, section 3, proposition 1). The integral is taken by Gauss-Legendre
quadrature in float64, with twice as many nodes until nothing changes: the integrand is smooth, so the error falls
geometrically. Slopes with respect to a pooled vector come from autograd, those of the pooling itself are written out.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from playpen.config import PlaypenError

ROWS = 256
"""Rows worked on at a time; bounds memory at some hundred MB."""
TOLERANCE = 1e-7
"""Change of any contribution, and gap of their sum, in log-odds, at which the number of nodes is enough."""
NODES = tuple(2**power for power in range(4, 13))
"""Nodes of the quadrature that are tried in turn."""


def integrate(arrays: dict[str, np.ndarray], places: np.ndarray, strengths: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the log-odds of the empty example and the contribution of each feature, float64 [n, K].

    `arrays` holds the members' parameters, stacked; `places` are positions in the vocabulary, int64 [n, K]; `strengths` are damped,
    float64 [n, K], and 0 where there is nothing. Raises when `NODES` do not suffice.
    """
    members = {name: torch.from_numpy(np.asarray(value, np.float64)) for name, value in arrays.items()}
    found = [
        _integrate_rows(members, torch.from_numpy(places[i : i + ROWS]), torch.from_numpy(strengths[i : i + ROWS]))
        for i in range(0, len(places), ROWS)
    ]
    count, _, width = members["embedding"].shape
    baseline = float(log_odds(members, torch.zeros(count, 1, width, dtype=torch.float64))[0])
    return baseline, np.concatenate([np.zeros((0, places.shape[1])), *(part.numpy() for part in found)])


def _integrate_rows(members: dict[str, Tensor], places: Tensor, strengths: Tensor) -> Tensor:
    embedded = members["embedding"][:, places]
    along = _along_attention if "query" in members else _along_mean
    _, start = _pool(members, embedded, strengths * 0)
    _, end = _pool(members, embedded, strengths)
    gain = log_odds(members, end) - log_odds(members, start)
    before = torch.full_like(strengths, torch.inf)
    for nodes in NODES:
        found = along(members, embedded, strengths, *_quadrature(nodes))
        if max(_largest(found - before), _largest(found.sum(1) - gain)) <= TOLERANCE:
            return found
        before = found
    raise PlaypenError(
        f"integrated gradients differ by {_largest(found.sum(1) - gain):.1e} in log-odds from the prediction with {NODES[-1]} nodes; "
        "the network bends too sharply: classify again with more weight_decay, or explain a linear classifier"
    )


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0


def _quadrature(nodes: int) -> tuple[list[float], list[float]]:
    """Return nodes in (0, 1) and their weights, which sum to 1."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    return ((points + 1) / 2).tolist(), (weights / 2).tolist()


def log_odds(members: dict[str, Tensor], pooled: Tensor) -> Tensor:
    """Return the log-odds [n] of the members' mean probability, from what each has pooled [members, n, dim]."""
    epsilon = 1e-5  # torch's BatchNorm1d, which the networks leave as it is
    mean, variance = members["norm.running_mean"][:, None], members["norm.running_var"][:, None]
    state = (pooled - mean) / torch.sqrt(variance + epsilon)
    if "hidden_weight" in members:
        state = F.gelu(state @ members["hidden_weight"].mT + members["hidden_bias"][:, None])
    logit = (state @ members["out_weight"].mT)[..., 0] + members["out_bias"]
    return torch.logsumexp(F.logsigmoid(logit), 0) - torch.logsumexp(F.logsigmoid(-logit), 0)


def _slope(members: dict[str, Tensor], pooled: Tensor) -> Tensor:
    """Return the gradient of the log-odds with respect to what each member has pooled: [members, n, dim]."""
    pooled = pooled.detach().requires_grad_()
    return torch.autograd.grad(log_odds(members, pooled).sum(), pooled)[0]


def _pool(members: dict[str, Tensor], embedded: Tensor, strengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return the share of each feature in the pooling ([n, K], or [members, n, K] by attention) and the pooled vectors."""
    there = strengths > 0
    if "query" in members:
        logits = torch.einsum("mnkd,md->mnk", embedded, members["query"]) * strengths
        share = torch.where(there, logits.masked_fill(~there, -1e9).softmax(-1), 0.0)
    else:
        share = there.to(strengths.dtype) / there.sum(1, keepdim=True).clamp(min=1)
    return share, ((share * strengths).unsqueeze(-2) @ embedded)[..., 0, :]


def _along_mean(
    members: dict[str, Tensor], embedded: Tensor, strengths: Tensor, nodes: list[float], weights: list[float]
) -> Tensor:
    """Integrate mean pooling: the pooled vector is linear in the path, so the mean slope serves all features."""
    share, pooled = _pool(members, embedded, strengths)
    slopes = [weight * _slope(members, node * pooled) for node, weight in zip(nodes, weights, strict=True)]
    slope = torch.stack(slopes).sum(0)
    return share * strengths * (embedded @ slope[..., None]).sum(0)[..., 0]


def _along_attention(
    members: dict[str, Tensor], embedded: Tensor, strengths: Tensor, nodes: list[float], weights: list[float]
) -> Tensor:
    """Integrate attention pooling, whose shares w change along the path.

    With x the strengths at a node, e the embeddings, a = e . query and g the slope at the pooled vector sum_i w_i x_i e_i, the slope by
    x_j is w_j (h_j + a_j (x_j h_j - sum_i w_i x_i h_i)) where h = g . e.
    """
    pull, total = torch.einsum("mnkd,md->mnk", embedded, members["query"]), torch.zeros_like(strengths)
    for node, weight in zip(nodes, weights, strict=True):
        now = node * strengths
        share, pooled = _pool(members, embedded, now)
        height = (embedded @ _slope(members, pooled)[..., None])[..., 0]
        reached = now * height
        slope = share * (height + pull * (reached - (share * reached).sum(-1, keepdim=True)))
        total += weight * slope.sum(0)
    return strengths * total
