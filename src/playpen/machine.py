"""Machine: where and how a stage runs. Nothing here ever changes what an artifact is called."""

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from pydantic import NonNegativeInt, PositiveInt, model_validator
from tyro.conf import DisallowNone

from playpen.config import PlaypenError, config

if TYPE_CHECKING:
    import torch

NEEDED = ("image", "instance_type", "role", "bucket")
"""What a job on SageMaker cannot do without, and nothing can guess."""


@config
class SageMaker:
    """One instance of Amazon SageMaker, and what a training job there may use."""

    image: DisallowNone[str | None] = None
    """Address of the container's image; PLAYPEN_SAGEMAKER_IMAGE when left out."""
    instance_type: DisallowNone[str | None] = None
    """Type of the one instance, as ml.g5.2xlarge; PLAYPEN_SAGEMAKER_INSTANCE_TYPE when left out."""
    role: DisallowNone[str | None] = None
    """ARN of the role that the job runs as; PLAYPEN_SAGEMAKER_ROLE when left out."""
    bucket: DisallowNone[str | None] = None
    """S3 bucket for what goes up and comes back; PLAYPEN_SAGEMAKER_BUCKET when left out."""
    prefix: str = "playpen"
    """Where in the bucket."""
    region: DisallowNone[str | None] = None
    """Region; PLAYPEN_SAGEMAKER_REGION, or that of the AWS configuration, when left out."""
    spot: bool = False
    """Take spare capacity, which may be interrupted: the job then goes on from its last checkpoint."""
    max_run_seconds: PositiveInt = 86_400
    """Longest time that the job may run."""
    max_wait_seconds: PositiveInt = 172_800
    """With spot: longest time from asking to the end, waiting for capacity included."""
    volume_gb: PositiveInt = 100
    """Size of the instance's volume."""
    install: Literal["requirements", "nothing"] = "requirements"
    """Install the package versions of this machine into the container, or nothing, for an image that has all but playpen."""
    extras: tuple[str, ...] = ()
    """Extras of playpen to install with them, as offline or prompts."""
    environment: tuple[str, ...] = ()
    """Variables of the container: NAME=VALUE, or NAME alone for the value that it has here."""
    subnets: tuple[str, ...] = ()
    """Subnets of a VPC to run in."""
    security_groups: tuple[str, ...] = ()
    """Security groups there."""
    poll_seconds: PositiveInt = 15
    """Between two looks at the job and its log."""

    @model_validator(mode="after")
    def _can_run(self) -> "SageMaker":
        if self.spot and self.max_wait_seconds < self.max_run_seconds:
            raise ValueError(
                f"may wait {self.max_wait_seconds} s in all but run {self.max_run_seconds} s; max_wait_seconds includes the run, so raise it"
            )
        if bool(self.subnets) != bool(self.security_groups):
            raise ValueError("names subnets or security groups alone; a VPC needs both")
        return self

    def setting(self, name: str) -> str | None:
        """Return a setting, or what the environment says when it was left out."""
        return getattr(self, name) or os.environ.get(variable(name))

    def needed(self, name: str) -> str:
        """Return a setting that a job needs; raises PlaypenError with all that are missing."""
        if missing := [name for name in NEEDED if not self.setting(name)]:
            told = ", ".join(f"{n} (--machine.sagemaker.{n.replace('_', '-')} or {variable(n)})" for n in missing)
            raise PlaypenError(f"the launcher sagemaker needs {told}")
        return self.setting(name) or ""

    def container_environment(self) -> dict[str, str]:
        """Return the variables that the container is given; raises PlaypenError for one that is not set here."""
        found = {}
        for item in self.environment:
            name, sep, value = item.partition("=")
            if not name or (not sep and name not in os.environ):
                raise PlaypenError(
                    f"machine.sagemaker.environment: '{item}' is neither NAME=VALUE nor a variable that is set here"
                )
            found[name] = value if sep else os.environ[name]
        return found

    def secrets(self) -> set[str]:
        """Return the names of the variables whose values come from here, and are not to be shown."""
        return {item for item in self.environment if "=" not in item}


def variable(name: str) -> str:
    """Return the environment variable that stands for a setting of SageMaker's."""
    return f"PLAYPEN_SAGEMAKER_{name.upper()}"


@config
class Machine:
    """Where and how to run; never part of an artifact's identity."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device of the models; auto takes CUDA, then MPS, then the CPU. A named device that is missing is an error."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the models; auto is bfloat16 on CUDA and float32 elsewhere."""
    processes: PositiveInt = 1
    """Processes of finetune, attribute, train-sae and evaluate, started by torchrun (one a GPU); other stages run in one."""
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

    launcher: Literal["here", "sagemaker"] = "here"
    """Where the work is done: on this machine, or in a training job on Amazon SageMaker (needs playpen[sagemaker])."""
    sagemaker: SageMaker = SageMaker()
    """What such a job uses."""

    def plain(self) -> dict[str, Any]:
        """Return what a manifest keeps: all but the names of somebody's account."""
        return {name: value for name, value in asdict(self).items() if name != "sagemaker"}

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
