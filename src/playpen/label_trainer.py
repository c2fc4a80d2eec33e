"""TRL's trainer where there is no Triton: logits only where a label is, and rows of like length passed together.

On CUDA TRL leaves out the positions without a label; elsewhere it makes logits, entropy and the best token at every one, which
costs a tiny model on short answers more than a third of its time. The batch's loss and its gradient are the same here, but for
the order of sums.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor

from playpen.losses import CLOSE, causal_model, passes, summed_labels
from playpen.shared_batches import BatchTrainer


class LabelTrainer(BatchTrainer):
    """TRL's trainer with the loss of `losses.summed_labels`, for rows padded on the right."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.model_accepts_loss_kwargs = True  # so that the loss is told the labels of the whole batch, whatever the model
        causal = causal_model(self.model)
        causal.forward = MethodType(_summed_nats, causal)  # inside what DDP or FSDP wrap around the model

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean nats a label, over the labels of all micro-batches and processes."""
        loss = model(**{name: inputs[name] for name in ("input_ids", "attention_mask", "labels")}) / num_items_in_batch
        return loss * self.accelerator.num_processes  # whose gradients are averaged

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: counting the parameters at every step takes long, and nothing reads the sum."""
        return 0


def _summed_nats(model: Any, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **unused: Any) -> Tensor:
    """Return the summed loss of padded rows [N, S], in nats; stands in for the forward of a causal language model.

    `unused` is what PEFT passes on although it is nothing, as `inputs_embeds=None`.
    """
    lengths = attention_mask.sum(1).tolist()
    total = torch.zeros((), device=labels.device)
    for part in passes(list(range(len(lengths))), lengths, len(lengths), CLOSE):
        width = max(lengths[row] for row in part)
        total = total + summed_labels(model, input_ids[part, :width], labels[part, :width])
    return total
