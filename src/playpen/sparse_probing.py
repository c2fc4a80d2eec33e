"""Sparse probing: how well do one, two or five features tell where a row comes from?

For a class against all others, on held-out documents: features are pooled by their mean over a document's tokens, the k features whose
mean differs most between the classes on one half of them (in pooled standard deviations) are chosen, a logistic regression
on them is fitted there, and the AUROC is that on the other half. Gurnee et al. 2023, arXiv 2305.01610, section 4; the mean
difference and k = 1, 2, 5 as in SAEBench (Karvonen et al. 2025, arXiv 2503.09532). No chosen feature is asked to be monosemantic, so
absorption by finer features lowers the score of k = 1 but not that of k = 5 by much.
"""

from typing import Any

import numpy as np
import torch
from scipy import sparse

from playpen.saes import chunks

KS = (1, 2, 5)
LEAST = 20
"""Groups that each side of a class needs in each half: fewer make an AUROC whose error is larger than what it tells."""


@torch.no_grad()
def pool_documents(sae: Any, values: torch.Tensor, lengths: np.ndarray, document: np.ndarray) -> sparse.csr_matrix:
    """Return the mean strengths [documents, d_sae]; a document without a token is 0.

    Args:
        values: [n, d_in], the tokens of the rows one after the other.
        lengths: tokens of each row.
        document: int64 [rows], 0 to the number of documents - 1: whose piece each row is.
    """
    row = np.repeat(document, lengths)
    sizes = np.bincount(document, weights=lengths)
    total, start = sparse.csr_matrix((len(sizes), sae.cfg.d_sae), dtype=np.float32), 0
    for x in chunks(values, sae.cfg.d_sae):
        acts = sae.encode(x)
        token, feature = (part.cpu().numpy() for part in acts.nonzero(as_tuple=True))
        entries = acts[acts != 0].cpu().numpy()
        total += sparse.coo_matrix((entries, (row[start + token], feature)), shape=total.shape).tocsr()
        start += len(x)
    return sparse.diags(1 / np.maximum(sizes, 1)).astype(np.float32) @ total  # type: ignore[return-value]


def probe(pooled: sparse.csr_matrix, labels: np.ndarray, groups: np.ndarray, seed: int = 0) -> dict[str, dict[str, float]]:
    """Return for each class `{auroc_1, auroc_2, auroc_5, positives, negatives}`, the last two being documents of the half tested on.

    Args:
        pooled: [documents, d_sae].
        labels: the class of each document; empty is no class and takes part as one of the others.
        groups: documents of one group are in the same half.

    Classes that in either half have fewer than 20 groups, or fewer than 20 without them, are left out.
    """
    names, inverse = np.unique(groups.astype(str), return_inverse=True)
    first = np.random.default_rng(seed).permutation(len(names))[inverse] % 2 == 0
    found = {}
    for name in sorted({str(label) for label in labels} - {""}):
        mine = labels == name
        if all(len(set(inverse[half & side])) >= LEAST for half in (first, ~first) for side in (mine, ~mine)):
            sizes = {"positives": int(mine[~first].sum()), "negatives": int((~mine)[~first].sum())}
            found[name] = {**{f"auroc_{k}": _auroc(pooled, mine, first, k) for k in KS}, **sizes}
    return found


def _auroc(pooled: sparse.csr_matrix, mine: np.ndarray, first: np.ndarray, k: int) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    chosen = _differing(pooled[first], mine[first], k)  # type: ignore[index]
    x = pooled[:, chosen].toarray()  # type: ignore[index]
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    model.fit(x[first], mine[first])
    return float(roc_auc_score(mine[~first], model.decision_function(x[~first])))


def _differing(pooled: sparse.csr_matrix, mine: np.ndarray, k: int) -> np.ndarray:
    """Return the k features whose means differ most between the two classes, in standard deviations."""
    mean = np.asarray(pooled.mean(0)).ravel()
    deviation = np.sqrt(np.maximum(np.asarray(pooled.multiply(pooled).mean(0)).ravel() - mean**2, 1e-12))
    gap = np.asarray(pooled[mine].mean(0) - pooled[~mine].mean(0)).ravel()  # type: ignore[index]
    return np.argsort(-np.abs(gap) / deviation, kind="stable")[:k]
