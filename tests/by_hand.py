"""Gradients made by hand, one unpadded row at a time: what attribution is held against."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from playpen.machine import Machine
from playpen.models import load_model
from playpen.tables import read_table

CPU = Machine(device="cpu")


def matrices(model: Any) -> dict[str, Any]:
    """Return the LoRA matrices of an opened adapter by their names in its file."""
    return {name.replace(".default.", "."): p for name, p in model.named_parameters() if "lora_" in name}


def row_loss(model: Any, row: Any, reduction: str = "mean") -> Any:
    """Return the loss of one row of a table, by its own unpadded forward pass."""
    import torch

    logits = model(input_ids=torch.tensor([list(row.input_ids)], dtype=torch.long)).logits[0, :-1]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(list(row.labels), dtype=torch.long)[1:], reduction=reduction)


def matrix_gradients(model: Any, rows: pd.DataFrame, reduction: str = "mean") -> list[dict[str, Any]]:
    """Return each row's gradient of each LoRA matrix, by its name in the adapter's file."""
    import torch

    found = matrices(model)
    losses = (row_loss(model, row, reduction) for row in rows.itertuples())
    return [dict(zip(found, torch.autograd.grad(loss, list(found.values())), strict=True)) for loss in losses]


def flat(gradients: list[dict[str, Any]]) -> np.ndarray:
    """Return float64 [rows, numbers]: all matrices of each row, one after another."""
    return np.stack([np.concatenate([part.detach().numpy().ravel() for part in row.values()]) for row in gradients]).astype(float)


def gradients_by_hand(model: Path, data: Path, split: str, reduction: str = "mean") -> np.ndarray:
    """Return [rows, numbers]: each row's gradient over all LoRA matrices."""
    return flat(matrix_gradients(load_model(model, CPU, trainable=True), read_table(data, split), reduction))


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the cosine of each row of `left` with each of `right`."""
    return (left / np.linalg.norm(left, axis=1, keepdims=True)) @ (right / np.linalg.norm(right, axis=1, keepdims=True)).T


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-4) -> None:
    """Fail unless all numbers agree within a share of the largest."""
    assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()


@contextmanager
def passed_through(model: Any) -> Iterator[dict[str, list[Any]]]:
    """Collect, by a LoRA matrix's name in the adapter's file, its input [S, I] and its output [S, O], which keeps its gradient."""
    seen: dict[str, list[Any]] = {}

    def hook(name: str) -> Any:
        def keep(module: Any, given: Any, made: Any) -> None:
            made.retain_grad()
            seen[name] = [given[0][0].detach(), made]

        return keep

    modules = [
        (name, m) for name, m in model.named_modules() if name.endswith("default") and "lora_" in name and hasattr(m, "weight")
    ]
    hooks = [m.register_forward_hook(hook(f"{name.removesuffix('.default')}.weight")) for name, m in modules]
    try:
        yield seen
    finally:
        for handle in hooks:
            handle.remove()
