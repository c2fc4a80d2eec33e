"""Train a sparse autoencoder on a base model's activations: which features are its representations made of?

The model runs up to the hook over the rows of a data artifact; a SAE of SAELens learns to rebuild each token's activation
from k of `d_sae` features. The result is SAELens' own format: `SAE.load_from_disk(".../sae")` takes raw activations.

    playpen train-sae --model runs/demo/base --data runs/demo/data --hook model.layers.2.output --d-sae 1024 --k 16

TopK: Gao et al. 2024, arXiv 2406.04093, sections 2.3 and A.2 (loss of dead features). BatchTopK: Bussmann et al. 2024, arXiv
2412.06410, section 3; it is saved as the JumpReLU of its mean threshold. Loss: squared error, summed over the width, of
activations whose median norm is scaled to the root of the width; the scale is folded into the saved weights.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from playpen.config import Input, PlaypenError, config

if TYPE_CHECKING:
    import numpy as np

    from playpen.machine import Machine

VERSION = 1
RESUMABLE = True


@config
class Config:
    """Which features are a base model's representations made of?"""

    model: Input
    """The base model; an adapter in it is left out."""
    data: Input
    """The data whose rows give the tokens, of build-data with this model's tokenizer."""
    hook: str
    """Where in the model, as model.layers.12.output or model.layers.12.mlp.output; the SAE's input width follows from it."""
    splits: tuple[str, ...] = ("train", "pool")
    """Splits of the data to train on."""
    architecture: Literal["topk", "batchtopk"] = "topk"
    """topk: k features on every token; batchtopk: k on average over a batch, so that rich tokens may have more."""
    d_sae: PositiveInt = 6144
    """Features of the SAE; more are finer, rarer and dearer. 8 to 32 times the width at the hook is usual."""
    k: PositiveInt = 64
    """Active features a token; more rebuild better and mean less each."""
    tokens: PositiveInt = 10_000_000
    """Training tokens, in whole batches; rows come again, reshuffled, when they have fewer."""
    batch_tokens: PositiveInt = 4096
    """Tokens of one optimiser step."""
    lr: PositiveFloat = 1e-4
    """Peak learning rate of Adam: 5 % linear warm-up, linear decay to 0 over the last 20 %. Raise it for short runs."""
    buffer_tokens: PositiveInt = 500_000
    """Tokens of the mixing buffer in memory, 4 bytes times the width each; a batch is drawn from all of it."""
    aux_coefficient: float = 1.0
    """Weight of the loss by which dead features learn to rebuild what is left over; 0 lets them die."""
    dead_tokens: PositiveInt | None = None
    """A feature is dead after this many tokens without firing; left out, a tenth of `tokens`, at most 4 million."""
    heldout_tokens: PositiveInt = 100_000
    """Tokens of rows (whole groups of near-duplicates) kept out of training to measure quality on."""
    ce_tokens: PositiveInt = 8192
    """Held-out tokens for the CE-loss score; they need whole forward passes, four times."""
    seed: NonNegativeInt = 0
    """Seed of the start weights, the held-out rows and all orders."""


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write `sae/`, `sae.json`, `history.parquet` and `metrics.json`."""
    from playpen.activation_stream import Mixer, RowStream
    from playpen.activations import find_hook, hook_width, not_bos
    from playpen.models import check_tokens, load_base, load_tokenizer, model_files
    from playpen.saes import open_sae, write_sae
    from playpen.tables import write_json, write_table

    check_tokens(config.data, config.model)
    bos, base = load_tokenizer(config.model).bos_token_id, load_base(config.model, machine)
    hook = find_hook(base, config.hook)
    rows, heldout = split_rows(config, bos)
    stream = RowStream(base, hook, rows, not_bos(rows, bos), machine, config.seed)
    mixer = Mixer(stream, config.buffer_tokens, config.batch_tokens, config.seed)
    started = time.monotonic()
    trainer, history = train(config, hook_width(base, hook), mixer, out, machine)
    seconds = time.monotonic() - started
    scale = trainer.activation_scaler.scaling_factor
    trainer.sae.cfg.metadata.hf_hook_name = trainer.sae.cfg.metadata.hook_name = hook.name
    write_sae(out, finish(trainer, mixer), hook.name, model_files(config.model).base_id, scale)
    trained = trainer.n_training_samples
    epochs = {
        "tokens": trained,
        "epoch_tokens": stream.tokens,
        "epochs": trained / stream.tokens,
        "train_seconds": round(seconds, 2),
    }
    quality = measure(base, hook, open_sae(out, machine), heldout, bos, config, machine)
    write_table(out / "history.parquet", history)
    write_json(out / "metrics.json", {**epochs, **quality, "scale": scale})
    (out / "checkpoint.pt").unlink(missing_ok=True)


def split_rows(config: Config, bos: int | None) -> "tuple[list[np.ndarray], list[np.ndarray]]":
    """Return (rows to train on, held-out rows) as token ids; a group of near-duplicates is wholly on one side."""
    import numpy as np
    import pandas as pd

    from playpen.tables import read_table

    table = pd.concat([read_table(config.data, split, ["row_id", "input_ids", "group"]) for split in config.splits])
    rows = table["input_ids"].tolist()
    group = np.unique(np.where(table["group"] == "", table["row_id"], table["group"]).astype(str), return_inverse=True)[1]
    order = np.random.default_rng(config.seed).permutation(group.max(initial=-1) + 1)
    tokens = np.cumsum(np.bincount(group, weights=[int((row != bos).sum()) for row in rows])[order])
    held = order[: int(np.searchsorted(tokens, config.heldout_tokens)) + 1]
    train_tokens = int(tokens[-1] - tokens[len(held) - 1]) if len(held) < len(tokens) else 0
    if train_tokens < config.batch_tokens:
        raise PlaypenError(
            f"splits {', '.join(config.splits)} of {config.data} hold {int(tokens[-1])} tokens; after heldout_tokens={config.heldout_tokens} too few "
            f"are left for one batch of batch_tokens={config.batch_tokens}; lower both or give more data"
        )
    out = np.isin(group, held)
    return [row for row, o in zip(rows, out, strict=True) if not o], [row for row, o in zip(rows, out, strict=True) if o]


def make_trainer(config: Config, d_in: int, mixer: Any, device: Any) -> Any:
    """Return SAELens' trainer of a fresh SAE, to be stepped by hand; it has no logger, so it computes no metrics by itself."""
    import torch
    from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    steps = config.tokens // config.batch_tokens
    if steps < 1:
        raise PlaypenError(f"tokens={config.tokens} is less than one batch of batch_tokens={config.batch_tokens}")
    if config.k > config.d_sae:
        raise PlaypenError(f"k={config.k} features cannot be active of d_sae={config.d_sae}; lower k")
    kinds = {"topk": (TopKTrainingSAE, TopKTrainingSAEConfig), "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig)}
    sae_class, config_class = kinds[config.architecture]
    shape = {"d_in": d_in, "d_sae": config.d_sae, "k": config.k, "aux_loss_coefficient": config.aux_coefficient}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        sae = sae_class(config_class(**shape)).to(str(device))
    window = config.dead_tokens or min(4_000_000, config.tokens // 10)
    plan = SAETrainerConfig(
        total_training_samples=steps * config.batch_tokens,
        train_batch_size_samples=config.batch_tokens,
        lr=config.lr,
        lr_end=config.lr,  # the trainer asserts that it is set; the decay goes to 0 whatever it is
        lr_warm_up_steps=max(1, round(0.05 * steps)),
        lr_decay_steps=round(0.2 * steps),
        device=str(device),
        dead_feature_window=max(1, round(window / config.batch_tokens)),
    )
    return SAETrainer(cfg=plan, sae=sae, data_provider=mixer)


def train(config: Config, d_in: int, mixer: Any, out: Path, machine: "Machine") -> tuple[Any, Any]:
    """Train to the end, from the checkpoint if there is one. Returns (trainer, history)."""
    import pandas as pd
    from tqdm import tqdm

    trainer = make_trainer(config, d_in, mixer, machine.torch_device())
    history: list[dict[str, float]] = load_checkpoint(out, trainer, mixer) or start(trainer, mixer)
    steps, saved = trainer.cfg.total_training_steps, time.monotonic()
    bar = tqdm(total=steps, initial=trainer.n_training_steps, desc="train-sae", unit="step", disable=None, mininterval=1)
    while trainer.n_training_steps < steps:
        output = trainer.step(next(mixer))
        if trainer.n_training_steps % max(1, steps // 200) == 0 or trainer.n_training_steps == steps - 1:
            history.append(record(trainer, output))
        trainer.n_training_steps += 1
        bar.update()
        if time.monotonic() - saved >= machine.checkpoint_seconds and trainer.n_training_steps < steps:
            save_checkpoint(out, trainer, mixer, history)
            saved = time.monotonic()
    bar.close()
    return trainer, pd.DataFrame(history)


def start(trainer: Any, mixer: Any) -> list[dict[str, float]]:
    """Fill the buffer; set the scale (median norm to the root of the width) and the decoder's bias (the mean) by it."""
    mixer.fill()
    sample = mixer.buffer[:: max(1, len(mixer.buffer) // 100_000)]
    norm = float(sample.norm(dim=1).median())
    if norm == 0:
        raise PlaypenError("most activations at the hook are zero; name another hook")
    trainer.activation_scaler.scaling_factor = sample.shape[1] ** 0.5 / norm
    trainer.sae.b_dec.data.copy_(trainer.activation_scaler(sample).mean(0))
    return []


def record(trainer: Any, output: Any) -> dict[str, float]:
    """Return one row of the history: loss on scaled activations; explained variance about the batch's mean, on the batch."""
    from math import isfinite

    log = trainer.build_train_step_log_dict(output, trainer.n_training_samples)
    if not isfinite(log["losses/overall_loss"]):
        raise PlaypenError(f"the loss is not finite after {trainer.n_training_samples} tokens; lower lr")
    return {
        "step": trainer.n_training_steps + 1,
        "tokens": trainer.n_training_samples,
        "loss": log["losses/overall_loss"],
        "l0": log["metrics/l0"],
        "explained_variance": log["metrics/explained_variance"],
        "aux_loss": log["losses/auxiliary_reconstruction_loss"],
        "dead_fraction": log["sparsity/dead_features"] / trainer.sae.cfg.d_sae,
        "lr": log["details/current_learning_rate"],
    }


TRAINER_STATE = (
    "n_training_steps",
    "n_training_samples",
    "act_freq_scores",
    "n_forward_passes_since_fired",
    "n_frac_active_samples",
)


def save_checkpoint(out: Path, trainer: Any, mixer: Any, history: list[dict[str, float]]) -> None:
    """Write everything that the rest of the training depends on, whole or not at all."""
    import torch

    parts = {name: getattr(trainer, name).state_dict() for name in ("sae", "optimizer", "lr_scheduler")}
    counts = {name: getattr(trainer, name) for name in TRAINER_STATE}
    scale = trainer.activation_scaler.scaling_factor
    part = out / ".checkpoint.pt"
    torch.save({"parts": parts, "counts": counts, "scale": scale, "mixer": mixer.state(), "history": history}, part)
    part.replace(out / "checkpoint.pt")


def load_checkpoint(out: Path, trainer: Any, mixer: Any) -> list[dict[str, float]] | None:
    """Put trainer and mixer where a killed training was and return its history; None when there is no checkpoint."""
    import torch

    (out / ".checkpoint.pt").unlink(missing_ok=True)
    if not (out / "checkpoint.pt").exists():
        return None
    found = torch.load(out / "checkpoint.pt", map_location=trainer.cfg.device, weights_only=True)
    for name, state in found["parts"].items():
        getattr(trainer, name).load_state_dict(state)
    for name, value in found["counts"].items():
        setattr(trainer, name, value)
    trainer.activation_scaler.scaling_factor = found["scale"]
    mixer.load(found["mixer"])
    return found["history"]


def finish(trainer: Any, mixer: Any) -> Any:
    """Return the SAE ready to save: takes raw activations, has decoder rows of norm 1, and for BatchTopK a calibrated threshold."""
    import torch

    sae, scaler = trainer.sae.eval(), trainer.activation_scaler
    if sae.cfg.architecture() == "batchtopk":
        # The running mean of the threshold starts from 0 and lags behind; the mean over fresh batches has neither fault.
        with torch.no_grad():
            acts = (sae.encode(scaler(next(mixer))) for _ in range(8))
            sae.topk_threshold.fill_(sum(float(a[a > 0].min()) for a in acts) / 8)
    sae.fold_activation_norm_scaling_factor(scaler.scaling_factor)
    sae.fold_W_dec_norm()
    sae.cfg.rescale_acts_by_decoder_norm = False  # the norms are 1 now, so inference need not divide by them
    return sae


def measure(base: Any, hook: Any, sae: Any, rows: Any, bos: int | None, config: Config, machine: "Machine") -> dict[str, float]:
    """Return the quality of the saved SAE on held-out rows."""
    import numpy as np

    from playpen.activations import activations_of, not_bos
    from playpen.sae_quality import ce_score, reconstruction

    counted = not_bos(rows, bos)
    values = activations_of(base, hook, rows, counted, machine)
    few = int(np.searchsorted(np.cumsum([len(row) for row in rows]), config.ce_tokens)) + 1
    ce = ce_score(base, hook, sae, rows[:few], counted[:few], values.mean(0), machine)
    return {**reconstruction(sae, values), **ce, "heldout_tokens": len(values), "heldout_rows": len(rows)}
