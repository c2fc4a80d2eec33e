"""Train sparse autoencoders on a base model's activations: which features are its representations made of?

The model runs up to the hook over a mixed corpus or the rows of a data artifact; a SAE of SAELens learns to rebuild each
token's activation from k of `d_sae` features. The result is SAELens' own format: `SAE.load_from_disk(".../sae")` takes raw
activations. Variants (other hooks, widths, k, architectures) learn from the same forward passes.

    playpen train-sae --model runs/demo/base --data runs/demo/data --hook model.layers.2.output --d-sae 1024 --k 16

Methods and papers: `sae_training.py`; measures of quality: `sae_quality.py` and `sparse_probing.py`. Activations are scaled so
that their median norm is the root of the width; the scale is folded into the saved weights.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator
from tyro.conf import Suppress

from playpen import processes
from playpen.config import Input, PlaypenError, config

if TYPE_CHECKING:
    from playpen.activation_stream import Mixer
    from playpen.heldout import Heldout
    from playpen.learners import Learner
    from playpen.machine import Machine
    from playpen.sae_training import SaePlan
    from playpen.token_rows import TokenRows
    from playpen.trackers import Tracker

VERSION = 5
RESUMABLE = True
DISTRIBUTED = True
Architecture = Literal["topk", "batchtopk", "matryoshka", "jumprelu"]


@config
class Variant:
    """Another SAE that learns from the same forward passes; what is left out is as in the first."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Its name: it lies in `variants/<name>`, and `load-sae` takes it from there."""
    hook: str | None = None
    """Where in the model."""
    architecture: Architecture | None = None
    """Sort of SAE."""
    d_sae: PositiveInt | None = None
    """Features."""
    k: PositiveInt | None = None
    """Active features a token."""
    lr: PositiveFloat | None = None
    """Peak learning rate."""


@config
class Config:
    """Which features are a base model's representations made of?"""

    model: Input
    """The base model; an adapter in it is left out."""
    data: Input
    """The tokens to train on: of mix-corpus, or of build-data; made with this model's tokenizer."""
    hook: str
    """Where in the model: a module and a side, as model.layers.12.output, or TransformerLens' blocks.12.hook_resid_post."""
    splits: tuple[str, ...] = ("train", "pool")
    """Splits to train on, of an artifact of build-data."""
    architecture: Architecture = "topk"
    """topk: k features on every token; batchtopk: k on average over a batch; matryoshka: that, in nested widths; jumprelu: a learnt threshold a feature."""
    d_in: PositiveInt | None = None
    """Width of the activations; left out, what the hook gives. Another one than that is an error."""
    d_sae: PositiveInt = 6144
    """Features of the SAE; more are finer, rarer and dearer. 8 to 32 times the width at the hook is usual."""
    k: PositiveInt = 64
    """Active features a token (jumprelu: the number it is drawn to); more rebuild better and mean less each."""
    tokens: PositiveInt = 10_000_000
    """Training tokens, in whole batches; rows come again, reshuffled, when they have fewer."""
    batch_tokens: PositiveInt = 4096
    """Tokens of one optimiser step."""
    lr: PositiveFloat = 1e-4
    """Peak learning rate of Adam: 5 % linear warm-up, linear decay to 0 over the last 20 %. Raise it for short runs."""
    buffer_tokens: PositiveInt = 500_000
    """Tokens of the mixing buffer in memory, 4 bytes times the width each; a batch is drawn from all of it."""
    aux_coefficient: NonNegativeFloat = 1.0
    """Weight of the loss by which dead features learn to rebuild what is left over (not jumprelu); 0 lets them die."""
    dead_tokens: PositiveInt | None = None
    """A feature is dead after this many tokens without firing; left out, a tenth of `tokens`, at most 4 million."""
    l0_coefficient: PositiveFloat = 1.0
    """Of jumprelu: weight of the penalty on the distance of L0 from k."""
    matryoshka_widths: tuple[PositiveInt, ...] = ()
    """Of matryoshka: the nested widths below d_sae, rising; left out, a sixteenth, an eighth, a quarter and half of it."""
    variants: Suppress[tuple[Variant, ...]] = ()
    """Further SAEs on the same forward passes; to be written in a preset."""
    heldout_tokens: PositiveInt = 100_000
    """Tokens of rows (whole groups of near-duplicates or copies) kept out of training to measure quality on; the same rows for any seed."""
    ce_tokens: PositiveInt = 8192
    """Held-out tokens for the CE-loss score and KL; they need whole forward passes, four times."""
    evaluations: NonNegativeInt = 4
    """How often quality is measured during training, beside the end."""
    seed: NonNegativeInt = 0
    """Seed of the start weights and all orders."""

    @field_validator("variants")
    @classmethod
    def _different(cls, variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
        names = [variant.name for variant in variants]
        if len(set(names)) < len(names):
            raise ValueError("two variants have the same name")
        return variants


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write `sae/`, `sae.json`, the tables `history`, `evaluation` and `density`, and `metrics.json`; variants likewise."""
    from playpen.models import check_tokens, load_base, load_tokenizer
    from playpen.token_rows import read_token_rows
    from playpen.trackers import open_tracker

    if config.batch_tokens % processes.count():
        raise PlaypenError(
            f"a batch of {config.batch_tokens} tokens cannot be shared evenly by {processes.count()} processes; change one of them"
        )
    check_tokens(config.data, config.model)
    bos = load_tokenizer(config.model).bos_token_id
    rows, held = split_rows(config, read_token_rows(config.data, config.splits), bos)
    follower = machine if processes.is_first() else replace(machine, tracker="none")
    with open_tracker(follower, out.name.removesuffix(".part"), config, out) as tracker:
        learn(config, load_base(config.model, machine), (rows, held), bos, tracker, out, machine)
    if processes.is_first():
        (out / "checkpoint.pt").unlink(missing_ok=True)


def learn(
    config: Config,
    base: Any,
    split: "tuple[TokenRows, TokenRows]",
    bos: int | None,
    tracker: "Tracker",
    out: Path,
    machine: "Machine",
) -> None:
    """Train every SAE on the first part of the rows, measure it on the second, and write it; the first process alone does the last two."""
    from playpen.activation_stream import Mixer, RowStream
    from playpen.activations import not_bos
    from playpen.heldout import Heldout
    from playpen.learners import log_end, write

    (rows, held), learners = split, make_learners(config, base, out, machine)
    hooks = list({learner.hook.name: learner.hook for learner in learners}.values())
    stream = RowStream(base, hooks, rows.ids, not_bos(rows.ids, bos), machine, config.seed)
    mixer = Mixer(stream, config.buffer_tokens, config.batch_tokens, config.seed, config.tokens)
    if mixer.whole and processes.is_first():
        print(
            f"  {stream.tokens} tokens to train on are no more than buffer_tokens={config.buffer_tokens}: all are held, and the model runs once"
        )
    heldout = Heldout(base, hooks, held, bos, config.ce_tokens, machine) if processes.is_first() else None
    started = time.monotonic()
    train(config, learners, mixer, heldout, tracker, out, machine)
    if heldout is None:
        return
    trained = {
        "tokens": learners[0].trainer.n_training_samples,
        "epoch_tokens": stream.tokens,
        "epochs": learners[0].trainer.n_training_samples / stream.tokens,
        "sources": count_sources(rows, stream),
        "train_seconds": round(time.monotonic() - started, 2),
    }
    for learner in learners:
        write(learner, mixer, heldout, trained, machine)
    log_end(learners[0], tracker)


def split_rows(config: Config, rows: "TokenRows", bos: int | None) -> "tuple[TokenRows, TokenRows]":
    """Return (rows to train on, held-out rows); a group is wholly on one side.

    Groups are held out in the order of a hash of their names: the same ones for any seed, and mostly the same when data are added.
    """
    import hashlib

    import numpy as np

    names, group = np.unique(rows.group.astype(str), return_inverse=True)
    order = np.argsort([hashlib.sha256(f"held out {name}".encode()).digest() for name in names], kind="stable")
    tokens = np.cumsum(np.bincount(group, weights=[int((row != bos).sum()) for row in rows.ids], minlength=len(names))[order])
    held = order[: int(np.searchsorted(tokens, config.heldout_tokens)) + 1]
    left = int(tokens[-1] - tokens[len(held) - 1]) if len(held) < len(tokens) else 0
    if left < config.batch_tokens:
        raise PlaypenError(
            f"{config.data} holds {int(tokens[-1]) if len(tokens) else 0} tokens to train on; after heldout_tokens={config.heldout_tokens} too few "
            f"are left for one batch of batch_tokens={config.batch_tokens}; lower both or give more data"
        )
    out = np.isin(group, held)
    return rows.take(~out), rows.take(out)


def make_learners(config: Config, base: Any, out: Path, machine: "Machine") -> "list[Learner]":
    """Return the SAEs to train, the first one first, each with its part of the activations."""
    from playpen.activations import find_hook, hook_width
    from playpen.learners import Learner
    from playpen.sae_training import make_trainer
    from playpen.saes import check_width

    found, places = [], {}
    for variant in (None, *config.variants):
        one = config if variant is None else variant_config(config, variant)
        hook, end = find_hook(base, one.hook), max((place.stop for place in places.values()), default=0)
        if hook.name not in places:
            places[hook.name] = slice(end, end + hook_width(base, hook))
        width = places[hook.name].stop - places[hook.name].start
        if one.d_in is not None:
            check_width("the config (d_in)", one.d_in, hook.name, width)
        folder = out if variant is None else out / "variants" / variant.name
        trainer = make_trainer(plan_sae(one, width), machine.torch_device())
        found.append(Learner(one, hook, places[hook.name], trainer, folder))
    return found


def variant_config(config: Config, variant: Variant) -> Config:
    """Return the config of a variant; a width that was stated is that of the first hook."""
    changes = {name: getattr(variant, name) for name in ("hook", "architecture", "d_sae", "k", "lr")}
    d_in = config.d_in if variant.hook is None else None
    return replace(config, variants=(), d_in=d_in, **{name: value for name, value in changes.items() if value is not None})


def plan_sae(config: Config, d_in: int) -> "SaePlan":
    """Return what one SAE is to be. Raises when its sizes contradict each other."""
    from playpen.sae_training import SaePlan

    steps = config.tokens // config.batch_tokens
    if steps < 1:
        raise PlaypenError(f"tokens={config.tokens} is less than one batch of batch_tokens={config.batch_tokens}")
    if config.k > config.d_sae:
        raise PlaypenError(f"k={config.k} features cannot be active of d_sae={config.d_sae}; lower k")
    widths = config.matryoshka_widths or tuple(max(1, config.d_sae // part) for part in (16, 8, 4, 2))
    if config.architecture == "matryoshka" and (list(widths) != sorted(set(widths)) or widths[-1] >= config.d_sae):
        raise PlaypenError(
            f"matryoshka_widths must rise and stay below d_sae={config.d_sae}, found {', '.join(map(str, widths))}"
        )
    return SaePlan(
        architecture=config.architecture,
        d_in=d_in,
        d_sae=config.d_sae,
        k=config.k,
        lr=config.lr,
        steps=steps,
        batch_tokens=config.batch_tokens,
        aux_coefficient=config.aux_coefficient,
        dead_tokens=config.dead_tokens or min(4_000_000, config.tokens // 10),
        l0_coefficient=config.l0_coefficient,
        widths=(*widths, config.d_sae),
        seed=config.seed,
    )


def train(
    config: Config,
    learners: "list[Learner]",
    mixer: "Mixer",
    heldout: "Heldout | None",
    tracker: "Tracker",
    out: Path,
    machine: "Machine",
) -> None:
    """Train to the end, from the checkpoint if there is one."""
    from playpen.learners import copy_history, evaluate, load_checkpoint, save_checkpoint, start, take_step
    from playpen.progress import tqdm

    lead, steps, every = learners[0], config.tokens // config.batch_tokens, max(1, config.tokens // config.batch_tokens // 200)
    marks = {round(steps * (i + 1) / (config.evaluations + 1)) for i in range(config.evaluations)} - {0, steps}
    if not load_checkpoint(out, learners, mixer, machine):
        start(learners, mixer)
    copy_history(lead, tracker, 0)
    saved = time.monotonic()
    bar = tqdm(total=steps, initial=lead.steps, desc="train-sae", unit="step", disable=None, mininterval=1)
    while (step := lead.steps + 1) <= steps:
        batch = next(mixer)
        for learner in learners:
            take_step(learner, batch, (step - 1) % every == 0 or step == steps)
            if step in marks and heldout is not None:
                learner.evaluations.append(evaluate(learner, mixer, heldout))
        copy_history(lead, tracker, step)
        bar.set_postfix(explained=f"{lead.history[-1]['explained_variance']:.3f}", refresh=False)
        bar.update()
        if heldout is not None and time.monotonic() - saved >= machine.checkpoint_seconds and step < steps:
            save_checkpoint(out, learners, mixer)
            saved = time.monotonic()
    bar.close()


def count_sources(rows: "TokenRows", stream: Any) -> dict[str, int]:
    """Return how many tokens of each source entered the buffer, from which batches are drawn."""
    import numpy as np

    tokens = stream.taken * stream.sizes
    return {str(name): int(tokens[rows.source == name].sum()) for name in np.unique(rows.source.astype(str))}
