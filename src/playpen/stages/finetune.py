"""Fine-tune a base model with LoRA on chats: all of a split, or only the rows that a selection keeps.

    playpen finetune --model runs/demo/base --data runs/demo/data --root runs/mine

Continue an earlier adapter with `init`; leave it out to start anew from the base. The rows are tokenised already, so that
training and attribution see the same tokens. LoRA: Hu et al. 2021, arXiv 2106.09685, section 4; rank-stabilised scaling:
Kalajdzievski 2023, arXiv 2312.03732.
"""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeInt

from playpen.config import Input, PlaypenError, config
from playpen.lora_settings import LoraSettings, num_steps, warmup_steps
from playpen.tables import check_row_ids, read_splits, read_table, write_json

if TYPE_CHECKING:
    import pandas as pd

    from playpen.machine import Machine

VERSION = 2
RESUMABLE = True
DISTRIBUTED = True


ADAPTER = ("rank", "alpha", "dropout", "target_modules", "rslora")
"""Fields that an adapter given as `init` brings along."""


@config
class Config(LoraSettings):
    """Fine-tune a base model with LoRA on chats."""

    model: Input
    """Base model: an artifact of load-model or pretrain."""
    data: Input
    """Artifact of build-data, made with this model's tokenizer."""
    splits: Annotated[tuple[Literal["train", "pool", "large_pool"], ...], Field(min_length=1)] = ("train",)
    """Which rows of the data to train on."""
    keep: Input | None = None
    """A selection; only the rows that it keeps are trained on."""
    init: Input | None = None
    """An earlier adapter on the same base to go on from; a new one when left out."""
    keep_moments: bool = False
    """Keep the moments of Adam (`optimizer.safetensors`, twice the size of the adapter), for `attribute --moments`."""
    val_rows: NonNegativeInt = 0
    """First rows of the data's `val` split whose loss is measured after training; 0 measures none."""
    seed: int = 0
    """Seed of the adapter's start, of dropout and of the order of rows."""


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write `adapter/` (with the tokenizer), `history.parquet`, `metrics.json` and, when asked, `optimizer.safetensors`."""
    from transformers import set_seed

    from playpen.models import check_tokens, load_tokenizer, model_files, write_model_files
    from playpen.moments import FILE, write_moments
    from playpen.training import remove_checkpoints, train

    check_tokens(config.data, config.model)
    rows = training_rows(config)
    set_seed(config.seed)
    tokenizer = load_tokenizer(config.model)
    trainer = make_trainer(config, rows, tokenizer, out, machine)
    metrics: dict[str, Any] = train(trainer, config, out, machine)
    if not trainer.is_world_process_zero():
        return
    for lora in trainer.model.peft_config.values():
        if isinstance(lora.target_modules, set):
            lora.target_modules = sorted(lora.target_modules)  # a set is written in another order by every process
    trainer.model.save_pretrained(out / "adapter")
    tokenizer.save_pretrained(out / "adapter")
    if config.keep_moments:
        write_moments(trainer.model, trainer.optimizer, out / FILE)
    remove_checkpoints(out)
    if config.val_rows:
        metrics["val_loss"] = validation_loss(config, trainer.model, machine)
    base = model_files(config.model)
    write_model_files(out, base.base, out / "adapter", out / "adapter", base.base_id)
    tokens, labels = int(rows["num_tokens"].sum()), int(rows["num_labels"].sum())
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    write_json(out / "metrics.json", {**metrics, "rows": len(rows), "tokens": tokens, "labels": labels, "trainable": trainable})


def training_rows(config: Config) -> "pd.DataFrame":
    """Return the rows to train on; a selection of other data is refused."""
    where = f"{' + '.join(config.splits)} of {config.data}"
    rows = read_splits(config.data, config.splits, ["row_id", "input_ids", "labels", "num_tokens", "num_labels"])
    check_row_ids(rows, where)
    if config.keep is not None:
        selection = read_table(config.keep, "selection", ["row_id", "kept"])
        kept = set(selection.loc[selection["kept"], "row_id"])
        strange = kept - set(rows["row_id"])
        if strange:
            raise PlaypenError(
                f"{config.keep} keeps {len(strange)} rows that {where} lacks, "
                f"among them row_id {min(strange)}: was the selection made from other data?"
            )
        rows = rows[rows["row_id"].isin(kept)]
    if not len(rows):
        raise PlaypenError(f"nothing to train on: {config.keep or config.data} leaves no row of {where}")
    return rows.reset_index(drop=True)


def validation_loss(config: Config, model: Any, machine: "Machine") -> float:
    """Return the mean loss on rows of the `val` split, in nats per supervised token."""
    from playpen.losses import row_losses

    rows = read_table(config.data, "val", ["input_ids", "labels"]).head(config.val_rows)
    return float(row_losses(model.eval(), rows["input_ids"].tolist(), rows["labels"].tolist(), machine).mean())


def make_trainer(config: Config, rows: "pd.DataFrame", tokenizer: Any, out: Path, machine: "Machine") -> Any:
    """Return TRL's trainer over pre-tokenised rows; its loss never holds logits of the whole vocabulary for all tokens."""
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig

    from playpen.label_trainer import LabelTrainer
    from playpen.shared_batches import BatchTrainer
    from playpen.training import trainer_arguments

    steps = num_steps(len(rows), config)
    arguments = SFTConfig(
        **trainer_arguments(out, machine, config.batch, config.seed, steps, "finetune"),
        num_train_epochs=config.epochs,
        learning_rate=config.lr,
        warmup_steps=warmup_steps(len(rows), config),
        weight_decay=config.weight_decay,
        lr_scheduler_type="cosine",
        loss_type="nll",
        max_length=None,
        packing=False,
    )
    table = Dataset.from_dict({"input_ids": rows["input_ids"].tolist(), "labels": rows["labels"].tolist()})
    model, lora = trainable_model(config, machine)
    trainer = BatchTrainer if machine.torch_device().type == "cuda" else LabelTrainer
    return trainer(model=model, args=arguments, train_dataset=table, processing_class=tokenizer, peft_config=lora)


def trainable_model(config: Config, machine: "Machine") -> tuple[Any, Any]:
    """Return (model, LoraConfig): the base with a configuration to adapt it, or an earlier adapter and None."""
    from peft import LoraConfig

    from playpen.models import check_same_base, load_base, load_model, model_files

    if config.init is not None:
        check_same_base(config.model, config.init)
        changed = [f.name for f in fields(Config) if f.name in ADAPTER and getattr(config, f.name) != f.default]
        if changed:
            raise PlaypenError(
                f"{', '.join(changed)} cannot be set beside init, whose adapter has its own; leave one of them out"
            )
        if model_files(config.init).adapter is None:
            raise PlaypenError(f"init {config.init} has no adapter; leave init out to start from the base")
        return load_model(config.init, machine, trainable=True), None
    base = load_base(config.model, machine)
    names = {name.rsplit(".", 1)[-1] for name, _ in base.named_modules()}
    missing = [name for name in config.target_modules if name not in names]
    if missing:
        raise PlaypenError(
            f"the model has no module named {', '.join(missing)}; target_modules can be of {', '.join(sorted(n for n in names if n.endswith('_proj')))}"
        )
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(config.target_modules),
        use_rslora=config.rslora,
        task_type="CAUSAL_LM",
    )
    return base, lora
