"""Rivals that ask a model how likely the answer is: perplexity, and the share of it that the instruction does not explain.

Both count the words of the answers, without the tokens that end a turn: a base model finds those so unlikely that they would
outweigh a short answer.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from tyro.conf import Suppress

from playpen.chat import IGNORE, count_labels, without_end_of_turn
from playpen.config import Input, PlaypenError, config
from playpen.progress import tqdm
from playpen.rivals.job import Job, kept, open_model

SHARD = 1024
"""Rows measured between two saves; a killed run repeats at most these."""

Lists = Sequence[Sequence[int]]


@config
class Perplexity:
    """How well a model foretells the answer given the prompt: the surest rows, the most surprising ones, or those in between.

    Marion et al. 2023, arXiv 2309.04564; Ankner et al. 2024, arXiv 2405.20541 (low, medium, high).
    """

    kind: Suppress[Literal["perplexity"]] = "perplexity"
    model: Input
    """The model to ask, with its adapter if it has one; of pretrain, load-model or finetune."""
    prefer: Literal["low", "mid", "high"] = "mid"
    """Perplexities that come first; mid ranks by nearness to the median."""

    def __call__(self, job: Job) -> np.ndarray:
        """Return the log perplexity (mean nats a word token) times -1 or 1, or minus the distance of its rank from the middle.

        The rank runs from 0 to 1, ties share theirs. NaN for an answer without a word.
        """
        with job.timed("open"):
            model, rows, _ = _open(job, self.model)
        with job.timed("pool"):
            loss = answer_losses(job, "answer", model, list(rows["input_ids"]), list(rows["words"]))
        if self.prefer == "mid":
            return -np.abs(_rank(loss) - 0.5)
        return loss if self.prefer == "high" else -loss


@config
class Ifd:
    """Instruction-following difficulty: the loss of the answer given the instruction over its loss alone.

    Li et al. 2024, "From Quantity to Quality" (Cherry LLM), arXiv 2308.12032: the most difficult rows come first, but those at or
    above 1, where the instruction does not help, come last.
    """

    kind: Suppress[Literal["ifd"]] = "ifd"
    model: Input
    """The model to ask, with its adapter if it has one; of pretrain, load-model or finetune."""

    def __call__(self, job: Job) -> np.ndarray:
        """Return IFD where it is below 1, else 1 - IFD, which is at most 0. NaN for an answer without a token to compare."""
        with job.timed("open"):
            model, rows, bos = _open(job, self.model)
            columns = (rows["input_ids"], rows["labels"], rows["words"])
            both = [without_instruction(*row, bos) for row in zip(*columns, strict=True)]
        with job.timed("pool"):
            given = answer_losses(job, "given", model, list(rows["input_ids"]), [one[0] for one in both])
            alone = answer_losses(job, "alone", model, [one[1] for one in both], [one[2] for one in both])
        ifd = given / np.where(alone > 0, alone, np.nan)
        job.facts["rows_at_or_above_1"] = int((ifd >= 1).sum())
        return np.where(ifd >= 1, 1 - ifd, ifd)


def _open(job: Job, model: str) -> tuple[Any, pd.DataFrame, int | None]:
    """Return the model, the rows with `words`, the labels of the answers' words alone, and the BOS."""
    from playpen.models import load_tokenizer

    opened, tokenizer = open_model(job, model, [job.split]), load_tokenizer(model)
    rows = job.rows("input_ids", "labels")
    rows["words"] = [without_end_of_turn(labels.tolist(), tokenizer) for labels in rows["labels"]]
    return opened, rows, tokenizer.bos_token_id


def without_instruction(
    ids: np.ndarray, labels: Sequence[int], words: Sequence[int], bos: int | None
) -> tuple[list[int], list[int], list[int]]:
    """Return the labels that count given the instruction, and the tokens and labels of the answer alone, which are as many.

    The answer alone is the BOS, where the row has one, and every token with a label; the answers of several turns follow each
    other. Without a BOS nothing foretells the first of them, so that it counts on neither side.
    """
    answer, counted = np.asarray(labels) != IGNORE, np.array(words)
    has_bos = bos is not None and len(ids) > 0 and ids[0] == bos and not answer[0]
    if not has_bos and answer.any():
        counted[int(answer.argmax())] = IGNORE
    alone, of_alone = ids[answer].tolist(), counted[answer].tolist()
    return counted.tolist(), [ids[0]] * has_bos + alone, [IGNORE] * has_bos + of_alone


def answer_losses(job: Job, name: str, model: Any, ids: Lists, labels: Lists) -> np.ndarray:
    """Return float64 [rows]: mean nats a label, NaN for a row without any; whole shards of an earlier run are taken over."""
    total, parts = sum(map(len, ids)), []
    with tqdm(total=total, desc=f"loss of the {name}", unit="token", disable=None, mininterval=1) as bar:
        for start in range(0, len(ids), SHARD):
            file, end = job.work / name / f"shard-{start:08d}.npy", start + SHARD
            if file.exists():
                bar.update(sum(map(len, ids[start:end])))
            parts.append(kept(file, lambda a=start, b=end: _losses(model, ids[a:b], labels[a:b], job, bar)))
    return np.concatenate(parts).astype(np.float64)


def _losses(model: Any, ids: Lists, labels: Lists, job: Job, bar: tqdm) -> np.ndarray:
    from playpen.losses import row_losses

    has_label = np.array([any(label != IGNORE for label in row[1:]) for row in labels])
    there, found = np.flatnonzero(has_label).tolist(), np.full(len(ids), np.nan, np.float32)
    if len(there):
        found[there] = row_losses(model, [ids[i] for i in there], [labels[i] for i in there], job.machine, bar)
    bar.update(sum(len(row) for row, has in zip(ids, has_label, strict=True) if not has))
    job.tokens["pool"] += sum(len(ids[i]) for i in there)
    job.facts["labels"] = job.facts.get("labels", 0) + sum(count_labels(labels[i]) for i in there)
    if not np.isfinite(found[there]).all():
        raise PlaypenError(
            f"score: {int((~np.isfinite(found[there])).sum())} losses are not finite; did the training of the model diverge? "
            "If not, run with machine.dtype float32"
        )
    return found


def _rank(values: np.ndarray) -> np.ndarray:
    """Return the share of the known values below each, half of its equals counted, in (0, 1); NaN where unknown."""
    from scipy.stats import rankdata

    return (rankdata(values, nan_policy="omit") - 0.5) / max(int(np.isfinite(values).sum()), 1)
