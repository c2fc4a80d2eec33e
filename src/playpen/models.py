"""Models: opened by the artifact that holds them, with their tokenizer, on a machine.

A model artifact has a `model.json`: `base`, the directory of the base weights; `tokenizer`, the directory of the
tokenizer with its chat template; `adapter`, that of a LoRA adapter or null; `base_id`, the fingerprint of the artifact that holds the base. Paths
are relative to the artifact unless absolute.
"""

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playpen import artifact
from playpen.config import PlaypenError
from playpen.machine import Machine
from playpen.tables import read_metrics, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# PEFT imports bitsandbytes, which reports a kernel that a CPU never needs as an error.
logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)


PARTS = ("base", "tokenizer", "adapter")


@dataclass(frozen=True)
class ModelFiles:
    """Where the parts of a model lie."""

    base: Path
    tokenizer: Path
    adapter: Path | None
    base_id: str


def write_model_files(out: Path, base: Path, tokenizer: Path, adapter: Path | None = None, base_id: str | None = None) -> None:
    """Write `model.json` of an artifact under way; paths inside `out` or beside it become relative."""

    def place(path: Path | None) -> str | None:
        if path is None:
            return None
        near = path.resolve().is_relative_to(out.resolve().parent)
        return os.path.relpath(path.resolve(), out.resolve()) if near else str(path.resolve())

    write_json(
        out / "model.json", {"base": place(base), "tokenizer": place(tokenizer), "adapter": place(adapter), "base_id": base_id}
    )


def model_files(model: Path | str) -> ModelFiles:
    """Return where the parts of a model artifact lie."""
    where = Path(model)
    if not (where / "model.json").exists():
        raise PlaypenError(f"{where} holds no model: expected an artifact of load-model, pretrain or finetune")
    found: dict[str, Any] = json.loads((where / "model.json").read_text())
    parts = {key: (where / found[key]).resolve() if found[key] else None for key in PARTS}
    for key, path in parts.items():
        if path is not None and not path.exists():
            raise PlaypenError(f"{where}: its {key} should lie in {path}, which is not there; was it moved or deleted?")
    base_id = found["base_id"] or artifact.read_manifest(where)["fingerprint"]
    return ModelFiles(parts["base"], parts["tokenizer"], parts["adapter"], base_id)  # type: ignore[arg-type]


def written_parts(path: Path) -> list[Path]:
    """Return where the parts of a model artifact lie, as it is written there: relative to it or in full; nothing for other artifacts."""
    if not (path / "model.json").exists():
        return []
    found = json.loads((path / "model.json").read_text())
    return [Path(found[key]) for key in PARTS if found[key]]


def model_name(artifact_path: Path | str) -> str:
    """Return what an artifact was brought in from, a hub's or a package's name, or its own when it was made here."""
    manifest = artifact.read_manifest(artifact_path)
    source = manifest["config"].get("source")
    known = source if isinstance(source, dict) else {}
    return known.get("id") or known.get("package") or manifest["name"]


def be_quiet() -> None:
    """Silence what transformers says about itself; its errors still come through."""
    import warnings

    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def load_tokenizer(model: Path | str) -> Any:
    """Open the tokenizer of a model artifact."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_files(model).tokenizer)


def read_context(model: Path | str) -> int | None:
    """Return how many tokens the base of a model artifact can read at once, None where its config names no limit."""
    from transformers import AutoConfig

    return getattr(AutoConfig.from_pretrained(model_files(model).base).get_text_config(), "max_position_embeddings", None)


def load_base(model: Path | str, machine: Machine) -> "PreTrainedModel":
    """Open the base weights of a model artifact, whatever adapter it has, in evaluation mode without gradients."""
    from transformers import AutoModelForCausalLM

    be_quiet()
    found: Any = AutoModelForCausalLM.from_pretrained(
        model_files(model).base, dtype=machine.torch_dtype(), attn_implementation="sdpa"
    )
    return found.to(machine.torch_device()).eval().requires_grad_(False)


def load_model(model: Path | str, machine: Machine, trainable: bool = False) -> Any:
    """Open a model artifact with its adapter, if it has one, in evaluation mode."""
    from peft import PeftModel

    files, base = model_files(model), load_base(model, machine)
    if files.adapter is None:
        return base
    opened = PeftModel.from_pretrained(base, str(files.adapter), is_trainable=trainable).eval()
    check_adapter(opened, files.adapter)
    return opened


def load_merged(model: Path | str, machine: Machine) -> Any:
    """Open a model artifact to measure it, in evaluation mode, its adapter folded into the base's weights in float32.

    A small model spends half of a forward pass in its adapter otherwise. In bfloat16, which would round the sum, it stays beside them.
    """
    import torch

    opened = load_model(model, machine)
    folds = hasattr(opened, "merge_and_unload") and machine.torch_dtype() == torch.float32
    return opened.merge_and_unload() if folds else opened


def check_adapter(opened: Any, adapter: Path) -> None:
    """Raise unless the opened model holds exactly the weights of the adapter's file: PEFT only warns, and goes on at random."""
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file

    stored = load_file(adapter / "adapter_model.safetensors")
    here = {name: value.cpu() for name, value in get_peft_model_state_dict(opened).items()}
    wrong = sorted(set(stored) ^ set(here)) or [
        name
        for name, value in stored.items()
        if not torch.allclose(value.to(here[name].dtype), here[name], rtol=0, atol=0, equal_nan=True)
    ]
    if wrong:
        raise PlaypenError(f"the adapter in {adapter} did not load: {len(wrong)} of its weights differ, the first is {wrong[0]}")


def check_tokens(data: Path | str, model: Path | str) -> None:
    """Raise when `data` was tokenised by another tokenizer than the model's."""
    mine, theirs = artifact.digest(str(model_files(model).tokenizer / "tokenizer.json")), read_metrics(data).get("tokenizer")
    if theirs != mine:
        raise PlaypenError(f"{data} was tokenised with another tokenizer than that of {model}; build the data with this model")


def check_same_base(left: Path | str, right: Path | str) -> None:
    """Raise when two model artifacts do not share their base."""
    mine, theirs = model_files(left).base_id, model_files(right).base_id
    if mine != theirs:
        raise PlaypenError(
            f"{left} stands on base {mine} but {right} on base {theirs}; an adapter fits only the base it was trained on"
        )
