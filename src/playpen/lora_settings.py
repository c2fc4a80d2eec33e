"""How an adapter is trained: the settings that every stage which trains one has in common."""

import math
from dataclasses import fields
from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from playpen.config import config


@config
class LoraSettings:
    """How to train a LoRA adapter."""

    epochs: PositiveFloat = 2.0
    """Passes over the rows."""
    lr: PositiveFloat = 3e-4
    """Peak learning rate, cosine decay after warm-up."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of the steps in which the learning rate rises, rounded; none where that is less than two steps."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled weight decay of AdamW."""
    batch: PositiveInt = 16
    """Rows in one optimiser step."""
    rank: PositiveInt = 16
    """Rank of a new adapter."""
    alpha: PositiveInt = 32
    """Scale of the adapter, divided by the rank (or by its root with rslora)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Dropout on the adapter's input; 0 is faster."""
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    """Linear layers that get an adapter, by the end of their names."""
    rslora: bool = False
    """Divide alpha by the root of the rank."""


SETTINGS = tuple(field.name for field in fields(LoraSettings))  # type: ignore[arg-type]  # pydantic's dataclasses are dataclasses
"""Their names."""


def num_steps(rows: int, settings: LoraSettings) -> int:
    """Return how many optimiser steps a training on so many rows takes; the last one of an epoch may be on fewer rows."""
    return math.ceil(settings.epochs * math.ceil(rows / settings.batch))


def warmup_steps(rows: int, settings: LoraSettings) -> int:
    """Return in how many of those steps the rate rises: none, or at least two, for the first has rate 0 and one would only skip a batch."""
    rising = round(settings.warmup * num_steps(rows, settings))
    return rising if rising > 1 else 0
