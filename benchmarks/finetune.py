"""How fast is finetune, beside a plain TRL script?

    .venv/bin/python benchmarks/finetune.py --model runs/demo/base --data runs/demo/data [--rows 300] [--rounds 3]

The same model, rows, LoRA, batch, epochs, rates and number format for both, in turns, in one process, on the device that the
machine has. Theirs is the script of TRL's documentation: SFTTrainer and LoraConfig over tokenised rows, rows of like length
together as ours. Seconds are those of the training alone, without imports and the opening of files; each side trains once
before it is timed. The floor is the products of matrices that a step must make (forward, and back to LoRA's matrices alone), without padding, at the speed of a
product of two square matrices in the same round. The last line is the median of our seconds over theirs, round by round: below 1 is faster than TRL.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from side_by_side import least_seconds

from playpen import artifact
from playpen.chat import IGNORE
from playpen.flops import step
from playpen.lora_settings import warmup_steps
from playpen.machine import Machine
from playpen.matrix_weights import read_adapter, read_weights
from playpen.models import load_base, load_tokenizer, model_files
from playpen.stages import finetune
from playpen.tables import read_table, write_table


def write_rows(config: finetune.Config, rows: int, out: Path) -> Path:
    """Write a selection of the first rows of the split, and return where."""
    ids = read_table(config.data, config.splits[0], ["row_id"])
    out.mkdir()
    write_table(out / "selection.parquet", ids.assign(kept=ids.index < rows))
    return out


def ours(config: finetune.Config, out: Path) -> tuple[float, float]:
    """Return the seconds of our stage's training and its last loss."""
    out.mkdir()
    finetune.run(config, out, Machine())
    found = json.loads((out / "metrics.json").read_text())
    return found["train_seconds"], found["last_loss"]


def theirs(config: finetune.Config, out: Path) -> tuple[float, float]:
    """Return the seconds of TRL's trainer on the same rows, and its loss as ours counts it: the mean of the last tenth of its steps."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    rows, machine = finetune.training_rows(config), Machine()
    lora: Any = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(config.target_modules),
        task_type="CAUSAL_LM",
    )
    arguments = SFTConfig(
        output_dir=str(out),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch,
        learning_rate=config.lr,
        warmup_steps=warmup_steps(len(rows), config),
        weight_decay=config.weight_decay,
        lr_scheduler_type="cosine",
        gradient_checkpointing=False,
        bf16=str(machine.torch_dtype()) == "torch.bfloat16",
        use_cpu=machine.torch_device().type == "cpu",
        train_sampling_strategy="group_by_length",
        max_length=None,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=config.seed,
    )
    table = Dataset.from_dict({name: rows[name].tolist() for name in ("input_ids", "labels")})
    model, tokenizer = load_base(config.model, machine), load_tokenizer(config.model)
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=table, processing_class=tokenizer, peft_config=lora)
    trainer.remove_callback(PrinterCallback)  # its lines would hide the table
    started = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - started
    losses = [float(row["loss"]) for row in trainer.state.log_history if "loss" in row]
    return seconds, statistics.mean(losses[-max(1, len(losses) // 10) :])


def floor(config: finetune.Config, adapter: Path) -> float:
    """Return the seconds of the least that has to be done."""
    rows = finetune.training_rows(config)
    tokens = sum(len(ids) for ids in rows["input_ids"])
    labels = sum(int((row[1:] != IGNORE).sum()) for row in rows["labels"])
    operations = step(read_weights(model_files(config.model).base), read_adapter(adapter), tokens, labels) * config.epochs
    return least_seconds(operations, 0, load_base(config.model, Machine()))[0]


def main() -> None:
    """Train both in turns, and print their seconds, their losses and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="an artifact of pretrain or load-model")
    parser.add_argument("--data", required=True, help="an artifact of build-data in its tokens")
    parser.add_argument("--split", default="pool", help="whose first rows to train on")
    parser.add_argument("--rows", type=int, default=300, help="how many")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    call = parser.parse_args()
    named = {name: str(artifact.find_artifact(getattr(call, name))) for name in ("model", "data")}
    fields = {**named, "splits": (call.split,), "epochs": 1, "dropout": 0.0}
    rounds: dict[str, list[float]] = {"ours": [], "TRL": []}
    least: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        plain = finetune.Config(**fields)
        config = finetune.Config(**fields, keep=str(write_rows(plain, call.rows, Path(folder) / "rows")))
        for turn in range(call.rounds + 1):
            for who, train in (("ours", ours), ("TRL", theirs)):
                seconds, loss = train(config, Path(folder) / f"{who}-{turn}")
                rounds[who] += [seconds] if turn else []
                print(f"{who:6}{turn or 'warm':>6}{seconds:9.2f} s   last loss {loss:.4f}", flush=True)
            least += [floor(config, Path(folder) / f"ours-{turn}" / "adapter")] if turn else []
    times = statistics.median(a / b for a, b in zip(rounds["ours"], least, strict=True))
    print(f"\nfloor {statistics.median(least):.2f} s, of which ours takes {times:.1f} times as long", end="")
    print(f"\nratio {statistics.median(a / b for a, b in zip(rounds['ours'], rounds['TRL'], strict=True)):.2f}")


if __name__ == "__main__":
    main()
