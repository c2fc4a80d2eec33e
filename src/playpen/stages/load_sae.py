"""Bring in a trained sparse autoencoder: from a directory, a hub repository or SAELens' list of releases.

The result is the same artifact as train-sae's. Directories are SAELens' (`cfg.json`, `sae_weights.safetensors`) or
GemmaScope's (`params.safetensors` with w_enc, w_dec, b_enc, b_dec, threshold, and perhaps a `config.json`).

    playpen load-sae --model runs/mine/base hub --repository google/gemma-scope-2-270m-pt \\
        --folder resid_post/layer_12_width_16k_l0_medium

Gemma Scope: Lieberum et al. 2024, arXiv 2408.05147. JumpReLU (section 2.2): a feature whose pre-activation
(x - [b_dec]) W_enc + b_enc is above its threshold has that value, else 0; GemmaScope does not subtract b_dec.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from playpen.config import File, HubModel, Input, PlaypenError, config, did_you_mean

if TYPE_CHECKING:
    from playpen.activations import Hook
    from playpen.machine import Machine

VERSION = 1
GEMMASCOPE_KEYS = {"w_enc": "W_enc", "w_dec": "W_dec", "b_enc": "b_enc", "b_dec": "b_dec", "threshold": "threshold"}


@config
class Directory:
    """A directory on disk, in SAELens' or GemmaScope's format."""

    kind: Literal["directory"] = "directory"
    path: File
    """Directory with cfg.json and sae_weights.safetensors, or with params.safetensors."""


@config
class Hub:
    """A folder of a hub repository, in SAELens' or GemmaScope's format, at a pinned commit."""

    kind: Literal["hub"] = "hub"
    repository: HubModel
    """Repository, as google/gemma-scope-2-270m-pt, with @commit to pin it by hand."""
    folder: str
    """Folder in it, as resid_post/layer_12_width_16k_l0_medium."""


@config
class Release:
    """An entry of SAELens' list of pretrained SAEs; whatever its repository holds now."""

    kind: Literal["release"] = "release"
    release: str
    """Release, as gemma-scope-2-270m-pt-res."""
    id: str
    """Id of the SAE in it, as layer_12_width_16k_l0_medium."""


@config
class Variant:
    """One of the variants that train-sae trained beside a SAE."""

    kind: Literal["variant"] = "variant"
    sae: Input
    """The artifact of train-sae."""
    name: str
    """The variant's name in its config."""


@config
class Config:
    """Bring in a trained sparse autoencoder."""

    source: Annotated[Directory | Hub | Release | Variant, Field(discriminator="kind")]
    """Where the SAE is."""
    model: Input
    """The base model that it was made for."""
    hook: str | None = None
    """Where in the model it reads, as model.layers.12.output; left out, what the SAE's own files say."""


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write `sae/`, `sae.json` and `metrics.json`."""
    from playpen.activations import hook_width
    from playpen.models import load_base, model_files
    from playpen.saes import check_width, write_sae
    from playpen.tables import write_json

    sae, where = read_source(config.source, out)
    check_usable(sae, where)
    base = load_base(config.model, machine)
    hook, name = open_hook(config.hook, sae, where, base)
    check_width(where, sae.cfg.d_in, name, hook_width(base, hook))
    sae.cfg.metadata.hf_hook_name = name
    info = write_sae(out, sae, name, model_files(config.model).base_id)
    write_json(out / "metrics.json", {"d_in": info.d_in, "d_sae": info.d_sae, "listed_l0": sae.cfg.metadata.l0})


def read_source(source: Directory | Hub | Release | Variant, out: Path) -> tuple[Any, str]:
    """Return (SAE, its place in words)."""
    if isinstance(source, Variant):
        return read_directory(variant_folder(source)), f"variant '{source.name}' of {source.sae}"
    if isinstance(source, Release):
        return read_release(source), f"{source.release} {source.id}"
    if isinstance(source, Directory):
        path = Path(source.path).expanduser().resolve()
        return read_directory(path), str(path)
    import tempfile

    with tempfile.TemporaryDirectory(dir=out, prefix=".download-") as folder:
        return read_directory(download(source, Path(folder))), f"{source.repository}/{source.folder}"


def variant_folder(source: Variant) -> Path:
    """Return the directory of a variant's SAE."""
    folder = Path(source.sae) / "variants"
    known = sorted(path.name for path in folder.glob("*"))
    if source.name not in known:
        raise PlaypenError(f"{source.sae} has no variant '{source.name}'{did_you_mean(source.name, known)}")
    return folder / source.name / "sae"


def download(source: Hub, into: Path) -> Path:
    """Download one folder of a repository at its commit and return where it lies."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    from playpen.hub import split_reference

    repository, revision = split_reference(source.repository)
    patterns = [f"{source.folder}/*.{ending}" for ending in ("json", "safetensors")]
    try:
        snapshot_download(repository, revision=revision, local_dir=into, allow_patterns=patterns)
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError, ValueError) as error:
        raise PlaypenError(
            f"{repository}@{revision} could not be downloaded ({_first_line(error)}); give a directory instead"
        ) from None
    if not (into / source.folder).is_dir():
        raise PlaypenError(
            f"{repository}@{revision} has no folder '{source.folder}' with .safetensors in it; look at its file list"
        )
    return into / source.folder


def read_release(source: Release) -> Any:
    """Open an entry of SAELens' list."""
    from huggingface_hub.errors import HfHubHTTPError
    from sae_lens import SAE

    try:
        return SAE.from_pretrained(source.release, source.id, device="cpu", dtype="float32")
    except (OSError, HfHubHTTPError, ValueError, KeyError) as error:
        raise PlaypenError(
            f"SAELens could not open release '{source.release}', id '{source.id}' ({_first_line(error)})"
        ) from None


def read_directory(path: Path) -> Any:
    """Open a directory in SAELens' or GemmaScope's format, in float32 on the CPU."""
    from safetensors import SafetensorError

    try:
        if (path / "params.safetensors").exists():
            return read_gemmascope(path)
        return read_saelens(path)
    except SafetensorError as error:
        raise PlaypenError(
            f"{path}: the weights file is truncated or no safetensors file ({_first_line(error)}); fetch it again"
        ) from None


def read_saelens(path: Path) -> Any:
    """Open a directory that SAELens saved for inference."""
    from sae_lens import SAE

    missing = [name for name in ("cfg.json", "sae_weights.safetensors") if not (path / name).exists()]
    if missing:
        raise PlaypenError(
            f"{path} lacks {' and '.join(missing)}; expected cfg.json and sae_weights.safetensors (SAELens) or params.safetensors (GemmaScope)"
        )
    try:
        return SAE.load_from_disk(path, device="cpu", dtype="float32")
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise PlaypenError(f"{path} is not an inference SAE that SAELens can open ({type(error).__name__}: {why})") from None


def read_gemmascope(path: Path) -> Any:
    """Open a directory with GemmaScope's `params.safetensors` as a JumpReLU SAE."""
    import torch
    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig
    from safetensors.torch import load_file

    found = load_file(path / "params.safetensors")
    missing, strange = sorted(GEMMASCOPE_KEYS.keys() - found.keys()), sorted(found.keys() - GEMMASCOPE_KEYS.keys())
    if missing or strange:
        raise PlaypenError(
            f"{path / 'params.safetensors'}: expected the keys {', '.join(GEMMASCOPE_KEYS)}; missing {', '.join(missing) or 'none'}, "
            f"unknown {', '.join(strange) or 'none'} (transcoders are not SAEs)"
        )
    d_in, d_sae = found["w_enc"].shape if found["w_enc"].dim() == 2 else (0, 0)
    shapes = {"w_enc": (d_in, d_sae), "w_dec": (d_sae, d_in), "b_enc": (d_sae,), "b_dec": (d_in,), "threshold": (d_sae,)}
    for key, shape in shapes.items():
        if tuple(found[key].shape) != shape:
            raise PlaypenError(f"{path / 'params.safetensors'}: {key} has shape {tuple(found[key].shape)}, expected {shape}")
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=d_in, d_sae=d_sae, apply_b_dec_to_input=False))
    sae.load_state_dict({GEMMASCOPE_KEYS[key]: value.to(torch.float32) for key, value in found.items()})
    sae.cfg.metadata.hf_hook_name = gemmascope_hook(path)
    return sae


def gemmascope_hook(path: Path) -> str | None:
    """Return the hook that `config.json` names or, without that file, the one that GemmaScope's folder names stand for."""
    if (path / "config.json").exists():
        try:
            found = json.loads((path / "config.json").read_text())
        except ValueError as error:
            raise PlaypenError(f"{path / 'config.json'} is not readable JSON ({error})") from None
        if found.get("hf_hook_point_in"):
            return found["hf_hook_point_in"]
    layer = re.search(r"layer_(\d+)", path.name)
    places = {"resid_post": "output", "attn_out": "self_attn.o_proj.input", "mlp_out": "post_feedforward_layernorm.output"}
    place = next((place for start, place in places.items() if path.parent.name.startswith(start)), None)
    return f"model.layers.{layer[1]}.{place}" if layer and place else None


def open_hook(wanted: str | None, sae: Any, where: str, base: Any) -> "tuple[Hook, str]":
    """Return the hook that is wanted, or that a SAE's own files name, and its name: a module's path and perhaps its side.

    SAELens names a module of a transformers model as it is, or TransformerLens' place, which becomes the module it stands for.
    """
    from playpen.activations import find_hook

    if wanted:
        return find_hook(base, wanted), wanted
    metadata, remedy = sae.cfg.metadata, "say where in the model it reads with hook, as model.layers.12.output"
    own = metadata.hf_hook_name or metadata.hook_name
    if not own:
        raise PlaypenError(f"{where} names no hook; {remedy}")
    try:
        hook = find_hook(base, own)
    except PlaypenError as error:
        raise PlaypenError(f"{where} names a place that is not in the model ({error}); {remedy}") from None
    return hook, hook.name


def check_usable(sae: Any, where: str) -> None:
    """Raise when a SAE would not do on raw activations what it did in training, or is none."""
    import torch

    if sae.cfg.normalize_activations in ("expected_average_only_in", "covariance_whitening"):
        raise PlaypenError(
            f"{where} was saved before its normalisation ({sae.cfg.normalize_activations}) was folded in; save it after fit()"
        )
    if "transcoder" in sae.cfg.architecture() or sae.W_dec.shape[-1] != sae.cfg.d_in:
        raise PlaypenError(f"{where} is a {sae.cfg.architecture()}, which rebuilds another place than it reads; give a SAE")
    broken = [name for name, value in sae.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise PlaypenError(f"{where}: {', '.join(broken)} holds infinite or NaN numbers; fetch it again")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().split("\n")[0] or type(error).__name__)[:200]
