"""Opening what a dashboard is made of, with one clear line for each thing that does not fit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from playpen.activations import Hook, find_hook, hook_width
from playpen.config import PlaypenError
from playpen.machine import Machine
from playpen.models import check_tokens, load_base, load_tokenizer
from playpen.saes import SaeInfo, check_base, check_width, open_sae, read_info


@dataclass(frozen=True)
class Opened:
    """A base model, a hook, a SAE and the model's tokenizer, open on a machine."""

    model: Any
    hook: Hook
    sae: Any
    info: SaeInfo
    tokenizer: Any

    @property
    def bos(self) -> int | None:
        """The BOS, which never counts."""
        return self.tokenizer.bos_token_id

    @property
    def d_sae(self) -> int:
        """Features of the SAE."""
        return self.info.d_sae

    @property
    def vocabulary(self) -> int:
        """Token ids that the model knows."""
        return self.model.get_input_embeddings().weight.shape[0]

    @property
    def longest(self) -> int:
        """Tokens of the longest row that the model reads."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 2**31


def open_parts(sae: Path | str, model: Path | str, data: Path | str, machine: Machine) -> Opened:
    """Open a SAE and the base of a model artifact for the tokens of a data artifact. Raises when they do not belong together."""
    check_base(sae, model)
    check_tokens(data, model)
    info, base = read_info(sae), load_base(model, machine)
    hook = find_hook(base, info.hook)
    check_width(str(sae), info.d_in, info.hook, hook_width(base, hook))
    return Opened(base, hook, open_checked(sae, machine), info, load_tokenizer(model))


def open_checked(artifact: Path | str, machine: Machine) -> Any:
    """Open a SAE artifact. Raises when its files are damaged or hold numbers that are not finite."""
    from safetensors import SafetensorError

    try:
        sae = open_sae(artifact, machine)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        why = " ".join(str(error).split())[:200]
        raise PlaypenError(
            f"{artifact}: the SAE in it cannot be opened ({type(error).__name__}: {why}); a file is missing, cut off or another's: "
            "delete the artifact and make it again"
        ) from None
    broken = [name for name, value in sae.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise PlaypenError(f"{artifact}: {', '.join(broken)} holds infinite or NaN numbers; make or fetch the SAE again")
    return sae
