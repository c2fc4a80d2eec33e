"""Machine: where and how a stage runs. Nothing here ever changes what an artifact is called."""

from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeInt, PositiveInt

from playpen.config import PlaypenError, config

if TYPE_CHECKING:
    import torch


@config
class Machine:
    """Where and how to run; never part of an artifact's identity."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device of the models; auto takes CUDA, then MPS, then the CPU. A named device that is missing is an error."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the models; auto is bfloat16 on CUDA and float32 elsewhere."""
    processes: PositiveInt = 1
    """Processes of finetune, train-sae and evaluate, started by torchrun (one a GPU); other stages run in one."""
    workers: NonNegativeInt = 0
    """Worker processes for row-wise work on the CPU; 0 works in the main process."""
    ray_workers: NonNegativeInt = 0
    """Workers of Ray (the extra `ray`) that share the shards of build-pool, fingerprint and predict; 0 is a plain loop."""
    forward_tokens: PositiveInt = 4096
    """Tokens, padding included, in one batch of a forward pass; lower it when memory runs out."""
    train_rows: PositiveInt = 16
    """Rows in one micro-batch of training; gradients are accumulated up to the config's batch size."""
    checkpoint_seconds: NonNegativeInt = 300
    """Seconds between two checkpoints of training."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    tracker: Literal["none", "wandb", "tensorboard", "trackio"] = "none"
    """Where training histories are copied to while they are made; `history.parquet` is written in any case."""

    def torch_device(self) -> "torch.device":
        """Return the device to use; a named one that this machine lacks is an error."""
        import torch

        there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        name = self.device if self.device != "auto" else next(d for d in ("cuda", "mps", "cpu") if there[d])
        if not there[name]:
            raise PlaypenError(f"machine.device is {name}, but this machine has only {', '.join(d for d in there if there[d])}")
        return torch.device(name)

    def torch_dtype(self) -> "torch.dtype":
        """Return the number format to use on `torch_device()`."""
        import torch

        if self.dtype == "auto":
            return torch.bfloat16 if self.torch_device().type == "cuda" else torch.float32
        return getattr(torch, self.dtype)
