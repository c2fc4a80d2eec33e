"""SAE artifacts: a sparse autoencoder in SAELens' format under `sae/`, and `sae.json`, which says where in which model it sits."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor

from playpen.config import PlaypenError
from playpen.machine import Machine
from playpen.models import model_files
from playpen.tables import write_json

CHUNK_ENTRIES = {"cpu": 2**21}
"""Entries (tokens times features) of one dense piece of an encoding: what stays in a core's cache on a CPU."""
BY_ONE_PRODUCT = ("topk", "jumprelu")
"""SAELens' architectures whose active entries follow from the product with the encoder alone."""


@dataclass(frozen=True)
class SaeInfo:
    """What `sae.json` says."""

    hook: str
    """Where the SAE reads the model, as `model.layers.12.output`."""
    model_id: str | None
    """Fingerprint of the base it was made for; None when it fits any."""
    d_in: int
    d_sae: int
    architecture: str
    """SAELens' name of the saved SAE."""
    scale: float
    """Factor by which activations were multiplied in training; already folded into the weights."""


def write_sae(out: Path, sae: Any, hook: str, model_id: str | None, scale: float = 1.0) -> SaeInfo:
    """Write a SAE for inference, in float32, and its `sae.json`; `SAE.load_from_disk(out / "sae")` reads it back on a CPU."""
    sae = sae.to(device="cpu", dtype=torch.float32)
    save = getattr(sae, "save_inference_model", sae.save_model)  # only a training SAE has the former
    cfg = json.loads(save(out / "sae")[1].read_text())
    info = SaeInfo(hook, model_id, cfg["d_in"], cfg["d_sae"], cfg["architecture"], scale)
    write_json(out / "sae.json", asdict(info))
    return info


def read_info(artifact: Path | str) -> SaeInfo:
    """Read the `sae.json` of a SAE artifact."""
    file = Path(artifact) / "sae.json"
    if not file.exists():
        raise PlaypenError(f"{artifact} holds no SAE: expected an artifact of train-sae or load-sae")
    return SaeInfo(**json.loads(file.read_text()))


def open_sae(artifact: Path | str, machine: Machine) -> Any:
    """Open a SAE artifact for inference, in float32 on the machine's device."""
    read_info(artifact)
    sae = SAE.load_from_disk(Path(artifact) / "sae", device=str(machine.torch_device()), dtype="float32")
    return sae.eval().requires_grad_(False)


def check_width(where: str, d_in: int, hook: str, width: int) -> None:
    """Raise when a SAE does not fit the activations at a hook."""
    if d_in != width:
        raise PlaypenError(
            f"{where} reads activations of width {d_in}, but those at '{hook}' are {width} wide; give its own hook or model"
        )


def check_base(artifact: Path | str, model: Path | str) -> None:
    """Raise when a SAE was made for another base than that of a model artifact."""
    wanted, found = read_info(artifact).model_id, model_files(model).base_id
    if wanted is not None and wanted != found:
        raise PlaypenError(
            f"{artifact} was made for base {wanted}, but {model} stands on base {found}; features of one base mean nothing in another"
        )


def chunks(values: Tensor, d_sae: int) -> Iterator[Tensor]:
    """Yield tokens [n, d_in] in pieces whose dense encoding is small."""
    entries = CHUNK_ENTRIES.get(values.device.type, 2**26)
    yield from values.split(max(1, entries // d_sae))


@torch.no_grad()
def encode_sparse(sae: Any, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the active entries of tokens [n, d_in]: (token int64, feature int64, strength float32), ordered by token."""
    parts, start = [], 0
    for piece in chunks(values, sae.cfg.d_sae):
        token, feature, strength = _active(sae, piece)
        parts.append((token + start, feature, strength))
        start += len(piece)
    token, feature, strength = (torch.cat(column) for column in zip(*parts, strict=True))
    return token, feature, strength


def _active(sae: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if sae.cfg.architecture() in BY_ONE_PRODUCT:
        return encode_by_one_product(sae, x)[:3]
    dense = sae.encode(x)
    token, feature = dense.nonzero(as_tuple=True)
    return token, feature, dense[token, feature]


@torch.no_grad()
def encode_by_one_product(sae: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what a TopK or JumpReLU SAE's `encode(x)` holds but zeros, without the dense encoding, which halves its time.

    That is: token, feature, strength of each active entry, ordered by token; and the pre-activations [n, D], in the unit of the
    strengths.
    """
    before = torch.addmm(sae.b_enc, sae.process_sae_in(x), sae.W_enc)
    if sae.cfg.architecture() == "jumprelu":
        token, feature = (before > sae.threshold.clamp(min=0)).nonzero(as_tuple=True)
        return token, feature, before[token, feature], before
    if sae.cfg.rescale_acts_by_decoder_norm:
        before *= sae.W_dec.norm(dim=-1)
    strength, feature = before.topk(sae.cfg.k, sorted=False)
    on = strength > 0
    return on.nonzero()[:, 0], feature[on], strength[on], before
