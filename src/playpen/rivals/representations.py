"""Rivals that compare what a model makes of a row with what it makes of the queries: one forward pass, no gradient.

Both write the table `vectors` too, for a classifier to use as a control.
"""

from typing import Any, Literal

import numpy as np
from tyro.conf import Suppress

from playpen.chat import IGNORE
from playpen.config import Input, config
from playpen.rivals.job import Aggregate, Job, open_model
from playpen.rivals.vectors import Weigh, make_vectors, read_vectors


@config
class Rds:
    """RDS+: cosine of position-weighted last hidden states, and of the queries the nearest.

    Ivison et al. 2025, arXiv 2503.01807: the vector of a chat, prompt and answers, is the mean of the last hidden
    states of all its tokens, that of position t weighted by t (the first is 1), so that later ones, which have seen more, count
    more. Padding has no weight, whatever the batch.
    """

    kind: Suppress[Literal["rds"]] = "rds"
    model: Input
    """The model, with its adapter if it has one; of pretrain, load-model or finetune."""
    hook: str = "lm_head.input"
    """Where the last hidden state is read: what goes into the head; in GPT-NeoX models that is embed_out.input."""
    aggregate: Aggregate = "max"
    """The nearest query, as in the paper, or the mean over them."""

    def __call__(self, job: Job) -> np.ndarray:
        """Return the cosines, in [-1, 1]."""
        return _compare(job, self.model, self.hook, lambda bos: by_position, self.aggregate)


@config
class Hidden:
    """Cosine of mean hidden states: RepSim (Hanawa et al. 2021, arXiv 2006.04528), with the mean over tokens."""

    kind: Suppress[Literal["hidden"]] = "hidden"
    model: Input
    """The model, with its adapter if it has one; of pretrain, load-model or finetune."""
    hook: str = "model.layers.66%.output"
    """Where: a module's path, then .output or .input; 66% is two thirds up the layers."""
    tokens: Literal["answer", "prompt", "all"] = "answer"
    """Tokens averaged: those with loss, the others, or all; the BOS is left out."""
    aggregate: Aggregate = "mean"
    """Mean over the queries, or the nearest."""

    def __call__(self, job: Job) -> np.ndarray:
        """Return the cosines, in [-1, 1]; NaN for a row without such a token."""
        return _compare(job, self.model, self.hook, self._weigh, self.aggregate)

    def _weigh(self, bos: int | None) -> Weigh:
        def weigh(ids: np.ndarray, labels: np.ndarray) -> np.ndarray:
            answer, real = labels != IGNORE, ids != (-1 if bos is None else bos)
            mask = real & {"answer": answer, "prompt": ~answer, "all": np.ones_like(answer)}[self.tokens]
            return mask / max(int(mask.sum()), 1)

        return weigh


def by_position(ids: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the weight of each token of a row: its position, from 1, over the sum of all."""
    place = np.arange(1, len(ids) + 1)
    return place / place.sum()


def _compare(job: Job, model: str, hook: str, weigh: Any, aggregate: Aggregate) -> np.ndarray:
    """Write the vectors of the rows and return their cosines with those of the queries."""
    with job.timed("open"):
        from playpen.activations import find_hook
        from playpen.losses import causal_model
        from playpen.models import load_tokenizer
        from playpen.rivals.similarity import cosines

        opened = causal_model(open_model(job, model, [job.split, "query"]))
        place, one = find_hook(opened, hook), weigh(load_tokenizer(model).bos_token_id)
    with job.timed("query"):
        make_vectors(job, "query", job.work / "query", opened, place, one)
    with job.timed("pool"):
        make_vectors(job, job.split, job.out, opened, place, one)
        return cosines(read_vectors(job.out), read_vectors(job.work / "query"), aggregate, job.keep)
