"""Training of one SAE, step by step, by SAELens' classes and optimiser: what it is made of, how it starts, and how it ends.

TopK: Gao et al. 2024, arXiv 2406.04093. BatchTopK: Bussmann et al. 2024, arXiv 2412.06410. Matryoshka: Bussmann et al. 2025,
arXiv 2503.17547. JumpReLU: Rajamanoharan et al. 2024, arXiv 2407.14435, with the penalty on the distance from a target L0 of
Gemma Scope 2. Weights and optimiser are float32 whatever the model's number format.
"""

import copy
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

import torch
from sae_lens import (
    BatchTopKTrainingSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAEConfig,
    TopKTrainingSAEConfig,
)
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.sae import TrainStepInput
from sae_lens.training.optim import get_lr_scheduler
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor
from torch.optim import Adam

from playpen import processes
from playpen.config import PlaypenError
from playpen.sparse_sae import SparseBatchTopK, SparseMatryoshka, SparseSteps, SparseTopK

Architecture = Literal["topk", "batchtopk", "matryoshka", "jumprelu"]
THRESHOLD_LR = 10.0
"""Learning rate of a JumpReLU's thresholds, in that of the weights."""
DEAD_EVERY = 10
"""Steps between two looks at which features are dead; a look costs a synchronisation with the device."""
CALIBRATION_BATCHES = 8
STATE = ("n_training_steps", "n_training_samples", "act_freq_scores", "n_forward_passes_since_fired", "n_frac_active_samples")


@dataclass(frozen=True)
class SaePlan:
    """What one SAE is to be, and how long it is trained."""

    architecture: Architecture
    d_in: int
    d_sae: int
    k: int
    lr: float
    steps: int
    batch_tokens: int
    aux_coefficient: float
    dead_tokens: int
    l0_coefficient: float
    widths: tuple[int, ...]
    """Nested widths of a Matryoshka SAE; the last is d_sae."""
    seed: int


class Trainer(SAETrainer[Any, Any]):
    """SAELens' trainer, with firing statistics from the active entries and no synchronisation with the device in a step.

    Each process takes its share of a batch, and the gradients are averaged: that of the whole batch, since all of its losses
    are means over tokens.
    """

    def _train_step(self, sae: Any, sae_in: Tensor) -> Any:
        sae_in = sae_in[processes.rank() :: processes.count()]
        sae.train()
        sparse = isinstance(sae, SparseSteps)
        if sparse and self.n_training_steps % DEAD_EVERY == 0:
            sae.dead = self.dead_neurons.nonzero()[:, 0]
        output = sae.training_forward_pass(
            TrainStepInput(
                sae_in=sae_in,
                dead_neuron_mask=None if sparse else self.dead_neurons,
                coefficients=self.get_coefficients(),
                n_training_steps=self.n_training_steps,
                is_logging_step=False,
            )
        )
        self._count(output.feature_acts)
        output.loss.backward()
        for weight in sae.parameters() if processes.count() > 1 else ():
            weight.grad = processes.mean(weight.grad)
        torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.lr_scheduler.step()
        for scheduler in self.coefficient_schedulers.values():
            scheduler.step()
        return output

    @torch.no_grad()
    def _count(self, acts: Tensor) -> None:
        if acts.is_sparse:
            on = (acts._values() > 0).to(self.act_freq_scores.dtype)
            counts = torch.zeros_like(self.act_freq_scores).index_add_(0, acts._indices()[1], on)
        else:
            counts = (acts > 0).sum(0).to(self.act_freq_scores.dtype)
        counts = processes.total(counts)
        self.n_forward_passes_since_fired.add_(1).mul_(counts == 0)
        self.act_freq_scores += counts
        self.n_frac_active_samples += acts.shape[0] * processes.count()


def make_trainer(plan: SaePlan, device: torch.device) -> Trainer:
    """Return the trainer of a fresh SAE, to be stepped by hand."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        sae = make_sae(plan).to(device)
    settings = SAETrainerConfig(
        total_training_samples=plan.steps * plan.batch_tokens,
        train_batch_size_samples=plan.batch_tokens,
        lr=plan.lr,
        lr_end=plan.lr,  # the trainer asserts that it is set; the decay goes to 0 whatever it is
        lr_warm_up_steps=max(1, round(0.05 * plan.steps)),
        lr_decay_steps=round(0.2 * plan.steps),
        device=str(device),
        dead_feature_window=max(1, round(plan.dead_tokens / plan.batch_tokens)),
    )
    trainer = Trainer(cfg=settings, sae=sae, data_provider=iter(()))
    if plan.architecture == "jumprelu":
        quicken_thresholds(trainer)
    for group in trainer.optimizer.param_groups:
        group["fused"] = True  # one pass over the weights and moments, not ten
    return trainer


def quicken_thresholds(trainer: Trainer) -> None:
    """Give the thresholds a higher learning rate: Adam moves them by about lr a step, which in a short run gets them nowhere."""
    weights = [value for name, value in trainer.sae.named_parameters() if name != "threshold"]
    quick = {"params": [trainer.sae.threshold], "lr": THRESHOLD_LR * trainer.cfg.lr}
    cfg = trainer.cfg
    trainer.optimizer = Adam([{"params": weights}, quick], lr=cfg.lr, betas=(cfg.adam_beta1, cfg.adam_beta2))
    trainer.lr_scheduler = get_lr_scheduler(
        cfg.lr_scheduler_name,
        lr=cfg.lr,
        optimizer=trainer.optimizer,
        warm_up_steps=cfg.lr_warm_up_steps,
        decay_steps=cfg.lr_decay_steps,
        training_steps=cfg.total_training_steps,
        lr_end=cfg.lr,
        num_cycles=cfg.n_restart_cycles,
    )


def make_sae(plan: SaePlan) -> Any:
    """Return a SAE with random weights, on the CPU."""
    shape: dict[str, Any] = {"d_in": plan.d_in, "d_sae": plan.d_sae}
    if plan.architecture == "jumprelu":
        warm_up = max(1, round(0.05 * plan.steps))
        penalty = {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": plan.k, "l0_coefficient": plan.l0_coefficient}
        dead = {"pre_act_loss_coefficient": 3e-6, "l0_warm_up_steps": warm_up}
        return JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(**shape, **penalty, **dead))
    shape |= {"k": plan.k, "aux_loss_coefficient": plan.aux_coefficient}
    if plan.architecture == "matryoshka":
        return SparseMatryoshka(MatryoshkaBatchTopKTrainingSAEConfig(**shape, matryoshka_widths=list(plan.widths)))
    if plan.architecture == "batchtopk":
        return SparseBatchTopK(BatchTopKTrainingSAEConfig(**shape))
    return SparseTopK(TopKTrainingSAEConfig(**shape))


@torch.no_grad()
def start(trainer: Trainer, sample: Tensor) -> None:
    """Set what training starts from by a sample of activations [n, d_in].

    The scale takes the median norm to the root of the width (a few tokens of huge norm would rule a mean), the decoder's bias
    is the mean, and a JumpReLU's thresholds let four times the wanted features through.
    """
    norm = float(sample.norm(dim=1).median())
    if norm == 0:
        raise PlaypenError("most activations at the hook are zero; name another hook")
    trainer.activation_scaler.scaling_factor = sample.shape[1] ** 0.5 / norm
    scaled, sae = trainer.activation_scaler(sample), trainer.sae
    sae.b_dec.copy_(scaled.mean(0))
    if isinstance(sae, JumpReLUTrainingSAE):
        before = sae.encode_with_hidden_pre(scaled[:: -(-len(scaled) // 2048)])[1]
        share = min(0.5, 4 * float(sae.cfg.target_l0 or 1) / sae.cfg.d_sae)
        ranks = before.flatten().sort().values
        sae.threshold.fill_(max(float(ranks[int((1 - share) * (len(ranks) - 1))]), 1e-3))


@torch.no_grad()
def start_as_first(trainer: Trainer) -> None:
    """Let every process start from the weights and the scale of the first: equal steps keep them equal."""
    trainer.activation_scaler.scaling_factor = processes.from_first(lambda: scale_of(trainer))
    for value in trainer.sae.state_dict().values():
        processes.set_as_first(value)


def record(trainer: Trainer, output: Any) -> dict[str, float]:
    """Return one row of the history: loss on scaled activations; explained variance about the batch's mean, on the batch.

    Of the whole batch, whoever took which part of it: every process must ask.
    """
    loss = float(processes.mean(output.loss.detach()))
    if not isfinite(loss):
        raise PlaypenError(f"the loss is not finite after {trainer.n_training_samples} tokens; lower lr")
    x, rebuilt, acts = output.sae_in, output.sae_out.detach(), output.feature_acts
    on = acts._values() > 0 if acts.is_sparse else acts > 0
    left = processes.total((rebuilt - x).pow(2).sum())
    aux = output.losses.get("auxiliary_reconstruction_loss", output.losses.get("pre_act_loss"))
    return {
        "step": trainer.n_training_steps + 1,
        "tokens": trainer.n_training_samples,
        "loss": loss,
        "l0": float(processes.total(on.sum())) / (len(x) * processes.count()),
        "explained_variance": 1 - float(left / processes.total((x - processes.mean(x.mean(0))).pow(2).sum())),
        "aux_loss": float(processes.mean(aux.detach())),
        "dead_fraction": float(trainer.dead_neurons.float().mean()),
        "lr": trainer.optimizer.param_groups[0]["lr"],
    }


@torch.no_grad()
def finished(trainer: Trainer, sample: Tensor) -> Any:
    """Return a copy of the SAE as it is saved: takes raw activations, has decoder rows of norm 1.

    The threshold of a BatchTopK SAE is calibrated on `sample`, raw activations [n, d_in]: its running mean starts from 0 and lags.
    """
    sae, scale = copy.deepcopy(trainer.sae).eval(), scale_of(trainer)
    sae.dead = None
    if "batchtopk" in sae.cfg.architecture():
        batches = sample.split(trainer.cfg.train_batch_size_samples)[:CALIBRATION_BATCHES]
        acts = [sae.encode(batch * scale) for batch in batches]
        least = [float(each[each > 0].min()) for each in acts if (each > 0).any()]
        if not least:
            raise PlaypenError(f"no feature is active after {trainer.n_training_samples} tokens; lower lr")
        sae.topk_threshold.fill_(sum(least) / len(least))
    sae.fold_activation_norm_scaling_factor(scale)
    sae.fold_W_dec_norm()
    if hasattr(sae.cfg, "rescale_acts_by_decoder_norm"):
        sae.cfg.rescale_acts_by_decoder_norm = False  # the norms are 1 now, so inference need not divide by them
    return sae


def scale_of(trainer: Trainer) -> float:
    """Return the factor by which activations are multiplied in training."""
    scale = trainer.activation_scaler.scaling_factor
    assert scale is not None  # `start` or `load` has set it
    return float(scale)


def state(trainer: Trainer) -> dict[str, Any]:
    """Return everything that the rest of a training depends on, but for the activations."""
    parts = {name: getattr(trainer, name).state_dict() for name in ("sae", "optimizer", "lr_scheduler")}
    parts["coefficients"] = {name: each.state_dict() for name, each in trainer.coefficient_schedulers.items()}
    counts = {name: getattr(trainer, name) for name in STATE}
    dead = getattr(trainer.sae, "dead", None)
    return {"parts": parts, "counts": counts, "scale": trainer.activation_scaler.scaling_factor, "dead": dead}


def load(trainer: Trainer, found: dict[str, Any]) -> None:
    """Put a trainer where a killed one was."""
    for name, value in found["parts"].items():
        if name != "coefficients":
            getattr(trainer, name).load_state_dict(value)
    for name, value in found["parts"]["coefficients"].items():
        trainer.coefficient_schedulers[name].load_state_dict(value)
    for name, value in found["counts"].items():
        setattr(trainer, name, value)
    trainer.activation_scaler.scaling_factor = found["scale"]
    trainer.sae.dead = found["dead"]
