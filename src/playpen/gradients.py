"""Per-example gradients of a LoRA adapter, by Bergson (https://github.com/EleutherAI/bergson): the one module that imports it.

Bergson's hooks take each row's gradient of each LoRA matrix, project it (Rademacher, both sides), precondition, normalise
and dot it with the queries'. What is ours is the loop that feeds them: the model is opened by `models.load_model` on the
`Machine`'s device, so the adapter is the one we know; batches may exceed the model's context; logits exist only where a
label is, and neither the head nor the embedding gets a gradient. `bergson.build` and `score_dataset` differ in all of
these. Defaults of Bergson have changed between releases, so every setting that matters is given here, and recorded.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from torch import Tensor
from tqdm import tqdm

from playpen.config import PlaypenError
from playpen.losses import backward_losses, causal_model, pad, token_batches
from playpen.machine import Machine
from playpen.models import load_model, model_files


@contextmanager
def _keep_logging() -> Iterator[None]:
    """Undo what importing Bergson does to the root logger: it throws its handlers out and sets it to INFO on stdout."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:], root.level = handlers, level


with _keep_logging():
    from bergson import GradientProcessor, IndexConfig, InMemoryCollector, PreprocessConfig, Scorer
    from bergson.config.config import InversionConfig
    from bergson.hessians.autocorrelation import AutocorrelationCollector
    from bergson.hessians.preconditioner import load_preconditioner
    from bergson.score.score_writer import InMemorySequenceScoreWriter
    from bergson.utils.peft import detect_peft_modules


@dataclass(frozen=True)
class Taking:
    """How gradients are taken: the same for queries, scored rows and the preconditioner."""

    model: Any
    """PEFT model whose LoRA matrices alone require gradients."""
    machine: Machine
    mean: bool
    """Loss of a row: the mean over its labels, else their sum."""
    projection_dim: int
    """Each LoRA matrix's gradient becomes projection_dim squared numbers; 0 keeps all of them."""
    seed: int
    """Seed of the projection."""

    def processor(self) -> GradientProcessor:
        """Return Bergson's description of the projection."""
        return GradientProcessor(
            projection_dim=self.projection_dim or None,
            reshape_to_square=False,
            projection_type="rademacher",
            projection_target="per_module",
            projection_scale="jl",
            include_bias=False,
            projection_seed=self.seed,
        )


@dataclass(frozen=True)
class Comparing:
    """How gradients are compared."""

    unit_normalize: bool
    """Divide each query's and each row's gradient, all matrices together, by its length, before any mean over queries."""
    aggregation: Literal["mean", "nearest"]
    preconditioner: Path | None
    """Folder of `fit_preconditioner`, whose inverse goes on the query; its root on both sides with `unit_normalize`."""
    damping: float
    """Added to the eigenvalues of each matrix's block, in units of their mean."""

    def preprocess(self) -> PreprocessConfig:
        """Return what Bergson does to the gradients of the queries."""
        return PreprocessConfig(
            unit_normalize=self.unit_normalize,
            hessian_path=str(self.preconditioner) if self.preconditioner else None,
            ev_correction=False,
            inversion_cfg=self.inversion(),
            aggregation="mean" if self.aggregation == "mean" else "none",
            normalize_aggregated_grad=False,
        )

    def inversion(self) -> InversionConfig:
        """Return how the second moments are inverted."""
        return InversionConfig(inversion="damped_inverse", damping_factor=self.damping)


def settings(taking: Taking, comparing: Comparing) -> dict[str, Any]:
    """Return every setting Bergson was given, for the record."""
    processor = asdict(taking.processor())
    kept = {k: v for k, v in processor.items() if k not in ("normalizers", "hessians", "hessians_eigen")}
    preprocess = {k: v for k, v in asdict(comparing.preprocess()).items() if k != "hessian_path"}
    loss = {"loss_fn": "ce", "loss_reduction": "mean" if taking.mean else "sum", "label_smoothing": 0.0}
    return {**kept, **preprocess, **loss, "score": "nearest" if comparing.aggregation == "nearest" else "individual"}


def open_adapter(model: Path | str, machine: Machine) -> Any:
    """Open a finetune artifact with gradients for its LoRA matrices only; raise unless the adapter's weights are in it."""
    files = model_files(model)
    if files.adapter is None:
        raise PlaypenError(f"{model} has no adapter; attribute takes gradients of a LoRA adapter, so give it a finetune artifact")
    opened = load_model(model, machine, trainable=True)
    head = causal_model(opened).get_output_embeddings()
    if any("lora_" in name for name, _ in head.named_parameters()):
        raise PlaypenError(f"{model} has LoRA on its output head, whose gradients are not taken here; leave the head out of it")
    return opened


def fit_preconditioner(taking: Taking, rows: pd.DataFrame, folder: Path) -> None:
    """Write the second moment of the rows' gradients, one block a LoRA matrix (Bergson's autocorrelation Hessian)."""
    processor = taking.processor()
    collector = AutocorrelationCollector(
        model=taking.model.base_model,
        data=Dataset.from_dict({"row": range(len(rows))}),
        processor=processor,
        target_modules=detect_peft_modules(taking.model),
        path=str(folder),
    )
    _feed(taking, collector, rows, "preconditioner")
    # Not collector.teardown(): that also makes eigenvectors, which nothing here reads, at most of the cost of the step.
    processor.hessians = {name: (block / len(rows)).cpu() for name, block in processor.hessians.items()}
    processor.save(folder)


def query_gradients(taking: Taking, comparing: Comparing, rows: pd.DataFrame) -> dict[str, Tensor]:
    """Return the gradient of each LoRA matrix [queries or 1, numbers], ready to be dotted with a row's."""
    collector = _collector(taking, len(rows), taking.processor(), preprocess_cfg=comparing.preprocess())
    _feed(taking, collector, rows, "queries")
    collector.teardown()
    return {name: value.contiguous() for name, value in collector.gradients.items()}


class Scoring:
    """Scores rows against the gradients of the queries; made once, called with any number of tables of rows."""

    def __init__(self, taking: Taking, comparing: Comparing, queries: dict[str, Tensor]) -> None:
        self.taking, self.comparing, self.queries = taking, comparing, queries
        self.processor = taking.processor()  # holds the projection, which is made once
        two_sided = comparing.unit_normalize and comparing.preconditioner is not None
        self.root = (
            load_preconditioner(
                comparing.preconditioner, inversion_cfg=comparing.inversion(), power=-0.5, device=taking.machine.torch_device()
            )
            if two_sided
            else None
        )

    def __call__(self, rows: pd.DataFrame, bar: tqdm) -> tuple[np.ndarray, np.ndarray]:
        """Return the score and the mean nats per label of each row, float32 [rows]; NaN where nothing was scored."""
        writer = InMemorySequenceScoreWriter(len(rows), 1)
        writer.scores.fill_(torch.nan)
        scorer = Scorer(
            query_grads=self.queries,
            modules=list(self.queries),
            writer=writer,
            device=self.taking.machine.torch_device(),
            dtype=torch.float32,
            unit_normalize=self.comparing.unit_normalize,
            score_mode="nearest" if self.comparing.aggregation == "nearest" else "individual",
            index_transform=self.root.apply if self.root else None,
        )
        collector = _collector(self.taking, len(rows), self.processor, scorer=scorer)
        _feed(self.taking, collector, rows, bar)
        return writer.scores[:, 0].numpy(), collector.per_doc_losses.cpu().numpy()


def _collector(taking: Taking, rows: int, processor: GradientProcessor, **more: Any) -> InMemoryCollector:
    """Return Bergson's hooks for the LoRA matrices."""
    return InMemoryCollector(
        model=taking.model.base_model,
        data=Dataset.from_dict({"row": range(rows)}),
        cfg=IndexConfig(run_path="unused", attribute_tokens=False, filter_modules=None),
        processor=processor,
        target_modules=detect_peft_modules(taking.model),
        skip_hessians=True,
        **more,
    )


def _feed(taking: Taking, collector: Any, rows: pd.DataFrame, bar: tqdm | str) -> None:
    """Run forward and backward over all rows with the hooks in place."""
    ids: Sequence[Any] = rows["input_ids"].tolist()
    labels: Sequence[Any] = rows["labels"].tolist()
    if isinstance(bar, str):
        with tqdm(total=int(rows["num_tokens"].sum()), desc=bar, unit="token", disable=None, mininterval=1) as made:
            return _feed(taking, collector, rows, made)
    # The first layer's inputs need no gradient, and its hooks do not use it.
    warnings.filterwarnings("ignore", message="Full backward hook is firing when gradients are computed with respect to module")
    for batch in token_batches([len(row) for row in ids], taking.machine.forward_tokens):
        padded = pad(ids, labels, batch, taking.machine.torch_device())
        with collector.with_batch():
            losses = backward_losses(taking.model, *padded, mean=taking.mean)
        collector.process_batch(batch, losses=losses)
        bar.update(sum(len(ids[row]) for row in batch))
    return None
