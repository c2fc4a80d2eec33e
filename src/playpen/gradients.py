"""Per-example gradients of a LoRA adapter, by Bergson (https://github.com/EleutherAI/bergson): the one module that imports it.

Bergson's hooks take each row's gradient of each LoRA matrix, project it (Rademacher, both sides), precondition, normalise
and dot it with the queries'. What is ours is the loop that feeds them: the model is opened by `models.load_model` on the
`Machine`'s device, so the adapter is the one we know; batches may exceed the model's context; logits exist only where a
label is, and neither the head nor the embedding gets a gradient. `bergson.build` and `score_dataset` differ in all of
these. Defaults of Bergson have changed between releases, so every setting that matters is given here, and recorded.
Of several processes each works by itself (`apart`), where Bergson would sum over all of them.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from torch import Tensor

from playpen.config import PlaypenError
from playpen.losses import backward_losses, causal_model, pad, sampled_labels, token_batches
from playpen.machine import Machine
from playpen.models import load_model, model_files
from playpen.moments import Moments
from playpen.processes import apart
from playpen.progress import tqdm


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
    from bergson.gradients import AdamNormalizer
    from bergson.hessians.autocorrelation import AutocorrelationCollector
    from bergson.hessians.eigenvectors import LambdaCollector, eigendecompose_owned
    from bergson.hessians.kfac import CovarianceCollector
    from bergson.hessians.preconditioner import is_factored_hessian, load_preconditioner
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
    """Seed of the projection, and of the labels that EK-FAC draws."""
    moments: Moments | None = None
    """What Adam remembered at the end of the model's training, where it is used."""
    adam: bool = False
    """With `moments`: scored rows alone become Adam's next step on them; else every gradient is divided by the root of v."""

    def processor(self) -> GradientProcessor:
        """Return Bergson's description of the normalisation and the projection."""
        return GradientProcessor(
            normalizers=self._normalizers(),
            projection_dim=self.projection_dim or None,
            reshape_to_square=False,
            projection_type="rademacher",
            projection_target="per_module",
            projection_scale="jl",
            include_bias=False,
            projection_seed=self.seed,
        )

    def _normalizers(self) -> dict[str, AdamNormalizer]:
        if self.moments is None or self.adam:
            return {}
        device = self.machine.torch_device()
        names = detect_peft_modules(self.model)
        return {name: AdamNormalizer(self.moments.variance(stored_name(name)).to(device)) for name in names}


def stored_name(module: str) -> str:
    """Return the name in the adapter's file of the matrix of one of Bergson's modules."""
    return f"base_model.{module.removesuffix('.default')}.weight"


@dataclass(frozen=True)
class Comparing:
    """How gradients are compared."""

    unit_normalize: bool
    """Divide each query's and each row's gradient, all matrices together, by its length, before any mean over queries."""
    aggregation: Literal["mean", "nearest", "none"]
    """One score a row, by the mean query or the nearest; `none` gives one for each query."""
    preconditioner: Path | None
    """Folder of a fitted preconditioner, whose inverse goes on the query; its root on both sides with `unit_normalize`."""
    damping: float
    """Added to the eigenvalues of each matrix's block, in units of their mean."""

    def preprocess(self) -> PreprocessConfig:
        """Return what Bergson does to the gradients of the queries."""
        return PreprocessConfig(
            unit_normalize=self.unit_normalize,
            hessian_path=str(self.preconditioner) if self.preconditioner else None,
            ev_correction=self.preconditioner is not None and is_factored_hessian(self.preconditioner),
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
    moments = None if taking.moments is None else "adam" if taking.adam else "second"
    score = "nearest" if comparing.aggregation == "nearest" else "individual"
    return {**kept, **preprocess, **loss, "moments": moments, "score": score}


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


@apart()
def fit_autocorrelation(taking: Taking, rows: pd.DataFrame, folder: Path) -> None:
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


@apart()
def fit_ekfac(taking: Taking, rows: pd.DataFrame, folder: Path) -> None:
    """Write the EK-FAC factors of each LoRA matrix's Fisher block, for labels drawn from the model's own predictions.

    A block is (A x S) in the eigenbasis of A, the second moment of the matrix's inputs, and S, that of its outputs'
    gradients, both over tokens; its eigenvalues are the mean squares of the rows' gradients there (George et al. 2018, arXiv
    1806.03884, section 3; Grosse et al. 2023, arXiv 2308.03296, section 2.2).
    """
    rows = rows.assign(labels=pd.Series(_own_labels(taking, rows), index=rows.index))
    names, device = detect_peft_modules(taking.model), taking.machine.torch_device()
    shared: dict[str, Any] = {"model": taking.model.base_model, "target_modules": names, "path": str(folder)}
    shared |= {"dtype": torch.float32, "processor": GradientProcessor()}
    factors = CovarianceCollector(**shared)
    # Bergson takes the first GPU wherever there is one; the model is on the Machine's device.
    factors.A_cov_dict, factors.S_cov_dict = _on(device, factors.A_cov_dict), _on(device, factors.S_cov_dict)
    _feed(taking, factors, rows, "factors", root=True)
    inputs = _eigenvectors(factors.A_cov_dict, factors.A_shapes, factors.num_positions, folder / "eigen_activation_sharded")
    outputs = _eigenvectors(factors.S_cov_dict, factors.S_shapes, factors.num_positions, folder / "eigen_gradient_sharded")
    corrections = LambdaCollector(**shared, num_documents=len(rows), eigenvectors=(inputs, outputs))
    corrections.device = str(device)
    corrections.eigen_a, corrections.eigen_g = _on(device, corrections.eigen_a), _on(device, corrections.eigen_g)
    _feed(taking, corrections, rows, "eigenvalues", root=True)
    corrections.teardown()


def _eigenvectors(sums: dict[str, Tensor], shapes: Any, counts: dict[str, int], folder: Path) -> dict[str, Tensor]:
    """Return and write the eigenvectors of each matrix's second moment, without Bergson's bar, which shows in log files too."""
    with redirect_stderr(StringIO()):
        return eigendecompose_owned(sums, shapes, None, 1, str(folder), torch.float32, num_positions=counts)[0]


def _own_labels(taking: Taking, rows: pd.DataFrame) -> list[np.ndarray]:
    """Return labels drawn from the model's predictions, where the rows have one."""
    return sampled_labels(taking.model, rows["input_ids"].tolist(), rows["labels"].tolist(), taking.machine, taking.seed)


def _on(device: torch.device, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


FIT = {"autocorrelation": fit_autocorrelation, "ekfac": fit_ekfac}
"""How the preconditioner of each name is fitted to rows and written to a folder."""


@apart()
def query_gradients(taking: Taking, comparing: Comparing, rows: pd.DataFrame) -> dict[str, Tensor]:
    """Return the gradient of each LoRA matrix [queries or 1, numbers], ready to be dotted with a row's."""
    collector = _collector(taking, len(rows), taking.processor(), preprocess_cfg=comparing.preprocess())
    _feed(taking, collector, rows, "queries")
    collector.teardown()
    return {name: value.contiguous() for name, value in collector.gradients.items()}


class Scoring:
    """Scores rows against the gradients of the queries; made once, called with any number of tables of rows."""

    @apart()
    def __init__(self, taking: Taking, comparing: Comparing, queries: dict[str, Tensor]) -> None:
        self.taking, self.comparing, self.queries = taking, comparing, queries
        self.processor = taking.processor()  # holds the projection, which is made once
        two_sided = comparing.unit_normalize and comparing.preconditioner is not None
        self.root = (
            load_preconditioner(
                comparing.preconditioner,
                inversion_cfg=comparing.inversion(),
                power=-0.5,
                ev_correction=comparing.preprocess().ev_correction,
                device=taking.machine.torch_device(),
            )
            if two_sided
            else None
        )

    @apart()
    def __call__(self, rows: pd.DataFrame, bar: tqdm) -> tuple[np.ndarray, np.ndarray]:
        """Return float32 scores [rows, queries or 1] and the mean nats per label [rows]; NaN where nothing was scored."""
        width = len(next(iter(self.queries.values()))) if self.comparing.aggregation == "none" else 1
        writer = InMemorySequenceScoreWriter(len(rows), width)
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
        steps = {"moments": self.taking.moments} if self.taking.adam else {}
        collector = _collector(self.taking, len(rows), self.processor, scorer=scorer, **steps)
        _feed(self.taking, collector, rows, bar)
        return writer.scores.numpy(), collector.per_doc_losses.cpu().numpy()


@dataclass(kw_only=True)
class _AdamSteps(InMemoryCollector):
    """Takes, in place of the gradient of each row, the step that Adam would make on it alone."""

    moments: Moments

    def forward_hook(self, module: Any, a: Tensor) -> None:
        """Keep the inputs [N, S, I] as they are: a step is made of the whole gradient, and projected then."""
        module._inputs = a

    def _module_gradient(self, module: Any, g: Tensor) -> Tensor:
        step = self.moments.update(stored_name(module._name), g.mT @ module._inputs)
        p = self.per_module_projection_dim
        return step if p is None else self.double_sided_projection(module._name, step, p, *step.shape[1:])


def _collector(taking: Taking, rows: int, processor: GradientProcessor, **more: Any) -> InMemoryCollector:
    """Return Bergson's hooks for the LoRA matrices; they take Adam's steps when given `moments`."""
    return (_AdamSteps if "moments" in more else InMemoryCollector)(
        model=taking.model.base_model,
        data=Dataset.from_dict({"row": range(rows)}),
        cfg=IndexConfig(run_path="unused", attribute_tokens=False, filter_modules=None),
        processor=processor,
        target_modules=detect_peft_modules(taking.model),
        skip_hessians=True,
        **more,
    )


def _feed(taking: Taking, collector: Any, rows: pd.DataFrame, bar: tqdm | str, root: bool = False) -> None:
    """Run forward and backward over all rows with the hooks in place; `root` as in `backward_losses`."""
    ids: Sequence[Any] = rows["input_ids"].tolist()
    labels: Sequence[Any] = rows["labels"].tolist()
    if isinstance(bar, str):
        with tqdm(total=int(rows["num_tokens"].sum()), desc=bar, unit="token", disable=None, mininterval=1) as made:
            return _feed(taking, collector, rows, made, root)
    # The first layer's inputs need no gradient, and its hooks do not use it.
    warnings.filterwarnings("ignore", message="Full backward hook is firing when gradients are computed with respect to module")
    for batch in token_batches([len(row) for row in ids], taking.machine.forward_tokens):
        padded = pad(ids, labels, batch, taking.machine.torch_device())
        predicting = torch.nn.functional.pad(padded[1][:, 1:], (0, 1)).bool()  # all but padding and each row's last token
        with collector.with_batch(predicting):
            losses = backward_losses(taking.model, *padded, mean=taking.mean, root=root)
        collector.process_batch(batch, losses=losses)
        bar.update(sum(len(ids[row]) for row in batch))
    return None
