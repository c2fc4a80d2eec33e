"""A trainer that goes on, after a stop within an epoch, with the order of rows that the epoch had.

Left to itself, transformers' would go on in a new order, because the state from which the epoch's was drawn is gone: some rows would be
seen twice, others never.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler

from playpen import processes

ORDER = "order.pt"
"""File in a checkpoint: the state of the random numbers from which the running epoch's order was drawn."""


class EpochOrder(LengthGroupedSampler):
    """The order of rows in an epoch, drawn by the first process; it knows what it was drawn from, so that it can be drawn again."""

    drawn_from: torch.Tensor | None = None
    again: torch.Tensor | None = None

    def __iter__(self) -> Iterator[int]:
        """Draw an order, from the state `again` when that is set."""
        with torch.random.fork_rng(devices=[], enabled=self.again is not None):
            if self.again is not None:
                torch.set_rng_state(self.again)
            self.again, self.drawn_from = None, torch.get_rng_state()
            return iter(processes.from_first(lambda: list(super(EpochOrder, self).__iter__())))


class OrderedTrainer(Trainer):
    """Trainer with rows of like length in a batch, and the same order after a stop."""

    going_on: torch.Tensor | None = None
    """What the order of the epoch that was stopped was drawn from."""

    def train(self, resume_from_checkpoint: Any = None, **more: Any) -> Any:
        """Train to the end, from a checkpoint when one is given that knows its order; an older one is of no use."""
        order = None if resume_from_checkpoint is None else Path(resume_from_checkpoint) / ORDER
        self.going_on = torch.load(order) if order is not None and order.exists() else None
        return super().train(None if self.going_on is None else resume_from_checkpoint, **more)

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochOrder:
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps * processes.count()
        self.order = EpochOrder(batch, lengths=[len(ids) for ids in rows["input_ids"]])
        self.order.again = self.going_on
        return self.order

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if processes.is_first():
            torch.save(self.order.drawn_from, Path(output_dir) / ORDER)
        processes.wait_for_all()  # the file that tells a whole checkpoint is written next

    def _load_rng_state(self, checkpoint: str | None) -> None:
        self.order.again = None  # between two epochs, the next order is drawn from the state that is loaded now
        super()._load_rng_state(checkpoint)
