"""TRL's trainer, whose processes share every batch that one alone would take, and which goes on with the order it had.

Left to themselves, several processes would each sort rows by length on their own, repeat rows to fill the last batch, and draw
another order than one process does. And a training stopped within an epoch would go on in a new order, because the state from which
that epoch's was drawn is gone.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl.trainer.sft_trainer import SFTTrainer

from playpen import processes
from playpen.chat import IGNORE

ORDER = "order.pt"
"""File in a checkpoint: the state of the random numbers from which the running epoch's order was drawn."""
NOBODY = -1
"""In the place of a row, where a process has none left."""


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


class Shares(Sampler[list[int]]):
    """One process's micro-batches: its part of every batch, of like lengths in each part.

    Every process takes as many, also of a last batch that is not whole: one that has no row left takes `NOBODY`.
    """

    def __init__(self, order: Sampler[int], rows: int, batch: int, micro: int) -> None:
        self.order, self.rows, self.batch, self.micro = order, rows, batch, micro

    def _passes(self, rows: int) -> int:
        """Return how many micro-batches a process takes of a batch of so many rows."""
        return -(-rows // (processes.count() * self.micro))

    def __len__(self) -> int:
        return self.rows // self.batch * self._passes(self.batch) + self._passes(self.rows % self.batch)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.order)
        for start in range(0, len(order), self.batch):
            batch = order[start : start + self.batch]
            mine = batch[processes.rank() :: processes.count()]
            for i in range(self._passes(len(batch))):
                yield mine[i * self.micro : (i + 1) * self.micro] or [NOBODY]


class _OrNobody(Dataset[Any]):
    """Rows, and one without a label for whoever has none."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __getitem__(self, row: int) -> Any:
        if row != NOBODY:
            return self.rows[row]
        return {**{name: value[:2] for name, value in self.rows[0].items()}, "labels": [IGNORE, IGNORE]}


class BatchTrainer(SFTTrainer):
    """SFTTrainer with the same batches whatever the number of processes, and the same order after a stop."""

    going_on: torch.Tensor | None = None
    """What the order of the epoch that was stopped was drawn from."""

    def train(self, resume_from_checkpoint: Any = None, **more: Any) -> Any:
        """Train to the end, from a checkpoint when one is given that knows its order; an older one is of no use."""
        order = None if resume_from_checkpoint is None else Path(resume_from_checkpoint) / ORDER
        self.going_on = torch.load(order) if order is not None and order.exists() else None
        return super().train(None if self.going_on is None else resume_from_checkpoint, **more)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return this process's share of the batches."""
        if processes.count() == 1:
            return super().get_train_dataloader()
        whole: Any = self.train_dataset
        rows = self._remove_unused_columns(whole, description="Training")
        order = self._get_train_sampler(rows)
        shares = Shares(order, len(rows), order.batch_size, self.args.train_batch_size)
        pinned = self.args.dataloader_pin_memory
        return DataLoader(_OrNobody(rows), batch_sampler=shares, collate_fn=self.data_collator, pin_memory=pinned)

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
