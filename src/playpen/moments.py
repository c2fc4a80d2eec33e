"""What Adam remembers of the gradients, kept beside an adapter: the running means of a gradient and of its square.

`optimizer.safetensors` of a finetune artifact holds `first/NAME` and `second/NAME` (m and v of Adam, Kingma & Ba 2015, arXiv
1412.6980, algorithm 1, before the correction for their start at zero) for each matrix NAME of `adapter_model.safetensors`,
float32 and of its shape; the header holds the number of steps and Adam's constants.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

from playpen.config import PlaypenError

FILE = "optimizer.safetensors"


@dataclass(frozen=True)
class Moments:
    """Adam's memory after its last step."""

    first: "dict[str, Tensor]"
    """m of each matrix, by its name in the adapter's file."""
    second: "dict[str, Tensor]"
    """v of each matrix."""
    step: int
    beta1: float
    beta2: float
    eps: float

    def variance(self, name: str) -> "Tensor":
        """Return the mean square of a matrix's gradient, corrected for the start at zero."""
        return self.second[name] / (1 - self.beta2**self.step)

    def update(self, name: str, gradient: "Tensor") -> "Tensor":
        """Return the direction [N, O, I] of Adam's next step on each of N gradients of a matrix alone, without weight decay."""
        step, first, second = self.step + 1, self.first[name].to(gradient.device), self.second[name].to(gradient.device)
        mean = (self.beta1 * first + (1 - self.beta1) * gradient) / (1 - self.beta1**step)
        square = (self.beta2 * second + (1 - self.beta2) * gradient**2) / (1 - self.beta2**step)
        return mean / (square.sqrt() + self.eps)


def write_moments(model: Any, optimizer: Any, file: Path) -> None:
    """Write the memory of an Adam optimiser for the trainable matrices of a PEFT model."""
    from safetensors.torch import save_file

    states = {name.replace(".default.", "."): optimizer.state[p] for name, p in model.named_parameters() if p.requires_grad}
    parts = {"first": "exp_avg", "second": "exp_avg_sq"}
    tensors = {f"{part}/{name}": s[key].float().cpu().contiguous() for part, key in parts.items() for name, s in states.items()}
    group = optimizer.param_groups[0]
    constants = {"beta1": group["betas"][0], "beta2": group["betas"][1], "eps": group["eps"]}
    header = {"step": int(next(iter(states.values()))["step"]), **constants}
    save_file(tensors, file, metadata={name: repr(value) for name, value in header.items()})


def read_moments(model: Path | str) -> Moments:
    """Read what a finetune artifact kept of its optimiser; raises when it kept nothing."""
    from safetensors import safe_open

    file = check_moments(model)
    with safe_open(file, "pt") as handle:
        header = handle.metadata()
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    first, second = ({n.partition("/")[2]: t for n, t in tensors.items() if n.startswith(part)} for part in ("first", "second"))
    return Moments(first, second, int(header["step"]), *(float(header[key]) for key in ("beta1", "beta2", "eps")))


def check_moments(model: Path | str) -> Path:
    """Return the file of an artifact's moments, or say how to get one."""
    file = Path(model) / FILE
    if not file.exists():
        raise PlaypenError(f"{model} kept no moments of its optimiser (no {FILE}); finetune it again with keep_moments")
    return file
