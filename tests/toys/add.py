"""Add up the numbers of other artifacts."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from playpen.config import Input, config
from playpen.machine import Machine
from playpen.tables import read_metrics, write_json

VERSION = 1


@config
class Sum:
    """Add."""

    kind: Literal["sum"] = "sum"
    scale: float = 1.0
    """Factor of each number."""


@config
class Mean:
    """Average."""

    kind: Literal["mean"] = "mean"


@config
class Config:
    """What to add, and how."""

    inputs: tuple[Input, ...]
    """Artifacts of write or add."""
    lr: float = 3e-4
    """Changes nothing but the fingerprint."""
    method: Annotated[Sum | Mean, Field(discriminator="kind")] = Sum()
    """How to put them together."""


def run(config: Config, out: Path, machine: Machine) -> None:
    """Write the sum or mean."""
    with (out.parent / "made.log").open("a") as log:
        log.write(out.name.removesuffix(".part") + "\n")
    numbers = [read_metrics(path)["number"] for path in config.inputs]
    total = sum(n * getattr(config.method, "scale", 1 / len(numbers)) for n in numbers)
    write_json(out / "metrics.json", {"number": total})
