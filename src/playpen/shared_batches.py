"""TRL's trainer, whose processes share every batch that one alone would take.

Left to themselves, several processes would each sort rows by length on their own, repeat rows to fill the last batch, and draw
another order than one process does.
"""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler
from trl.trainer.sft_trainer import SFTTrainer

from playpen import processes
from playpen.chat import IGNORE
from playpen.epoch_order import OrderedTrainer

NOBODY = -1
"""In the place of a row, where a process has none left."""


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


class BatchTrainer(OrderedTrainer, SFTTrainer):
    """SFTTrainer with the same batches whatever the number of processes, and the same order after a stop."""

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
