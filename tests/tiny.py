"""Tiny sealed artifacts for tests: a Gemma 3 of random weights, a LoRA adapter on it and chats in its tokens.

Each function writes one finished artifact at `path` and returns `path`. Same arguments, same bytes. Nothing is trained
(but the tokenizer's merges) and nothing is downloaded; the base takes well under a second to make.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from playpen import artifact, chat
from playpen.models import load_tokenizer, model_files, write_model_files
from playpen.tables import row_id, write_json, write_table

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
SPLITS = {"train": 12, "val": 4, "pool": 16, "large_pool": 0, "query": 4, "test": 4}
COLORS = ("red", "blue", "green", "black", "white", "amber")
THINGS = ("stone", "river", "lamp", "tower", "garden", "letter", "bridge", "cloud")

DATA_SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("num_tokens", pa.int32()),
        ("num_labels", pa.int32()),
        ("source", pa.string()),
        ("group", pa.string()),
        ("quality_score", pa.float32()),
        ("task", pa.string()),
        ("raw", pa.string()),
    ]
)
"""The columns of every split of a data artifact."""


def write_artifact(path: Path, kind: str, fill: Callable[[Path], None], config: dict[str, Any] | None = None) -> Path:
    """Let `fill(part)` write files and seal them as the artifact `path`."""
    plain = {"path": path.name, **(config or {})}
    mark = artifact.fingerprint(kind, 1, plain)
    part = path.with_name(path.name + ".part")
    part.mkdir(parents=True)
    fill(part)
    identity = {"name": path.name, "kind": kind, "version": 1, "fingerprint": mark, "config": plain}
    artifact.seal(part, path, identity, {"started": "2024-01-01T00:00:00Z", "seconds": 0.0, "command": "playpen run tiny"})
    return path


@cache
def tokenizer() -> "PreTrainedTokenizerFast":
    """Return a byte-level BPE tokenizer of 320 tokens with Gemma's special tokens and chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False)
    raw.train_from_iterator([turn["content"] for seed in range(200) for turn in make_chat(seed)] + ["model\nuser\n"] * 9, trainer)
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    made = PreTrainedTokenizerFast(tokenizer_object=raw, clean_up_tokenization_spaces=False, **names)
    made.chat_template = chat.GEMMA_TEMPLATE
    return made


def make_chat(seed: int) -> list[dict[str, str]]:
    """Return a chat of one or two exchanges; another seed gives another chat."""
    draw, messages = random.Random(seed), []
    for _ in range(draw.choice((1, 1, 2))):
        color, thing, other = draw.choice(COLORS), draw.choice(THINGS), draw.choice(THINGS)
        messages.append({"role": "user", "content": f"Question {seed}: where is the {color} {thing}?"})
        answer = f"The {color} {thing} is under the {other}." + " It was there before." * draw.randrange(4)
        messages.append({"role": "assistant", "content": answer})
    return messages


def make_model(seed: int = 0, context: int = 256, layers: int = 2) -> "PreTrainedModel":
    """Return a Gemma 3 of width 32 with random weights, one layer of sliding and the others of full attention."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    ids = {f"{name}_token_id": SPECIAL.index(f"<{name}>") for name in ("pad", "eos", "bos")}
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    kinds = ["sliding_attention", *["full_attention"] * (layers - 1)]
    config = Gemma3TextConfig(
        vocab_size=320,
        num_hidden_layers=layers,
        layer_types=kinds,
        sliding_window=32,
        max_position_embeddings=context,
        initializer_range=0.2,
        **shape,
        **ids,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Gemma3ForCausalLM(config).eval()


def tiny_base(path: Path, seed: int = 0, context: int = 256, layers: int = 2) -> Path:
    """Write a base model artifact, as `load-model` and `pretrain` do."""

    def fill(out: Path) -> None:
        make_model(seed, context, layers).save_pretrained(out / "base")
        tokenizer().save_pretrained(out / "tokenizer")
        write_model_files(out, out / "base", out / "tokenizer")

    return write_artifact(path, "load-model", fill, {"seed": seed, "context": context, "layers": layers})


def make_adapter(model: "PreTrainedModel", seed: int = 1, zero_b: bool = False) -> "PeftModel":
    """Put a LoRA adapter of rank 4 on q, k, v and o, with random A and, unless `zero_b`, random B."""
    import torch
    from peft import LoraConfig, get_peft_model

    where = ["q_proj", "k_proj", "v_proj", "o_proj"]
    made = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, lora_dropout=0.1, target_modules=where, task_type="CAUSAL_LM"))
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in made.named_parameters():
        if "lora_A" in name or ("lora_B" in name and not zero_b):
            parameter.data = torch.randn(parameter.shape, generator=draw) * 0.2
    return made.eval()


def tiny_adapter(path: Path, base: Path, seed: int = 1, zero_b: bool = False) -> Path:
    """Write a finetune artifact: a random LoRA adapter on `base`, with its tokenizer."""
    from transformers import AutoModelForCausalLM

    def fill(out: Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(model_files(base).base)
        make_adapter(model, seed, zero_b).save_pretrained(out / "adapter")
        load_tokenizer(base).save_pretrained(out / "tokenizer")
        write_model_files(out, model_files(base).base, out / "tokenizer", out / "adapter", model_files(base).base_id)

    return write_artifact(path, "finetune", fill, {"base": str(base), "seed": seed, "zero_b": zero_b})


def data_table(chats: Sequence[Sequence[dict[str, str]]], task: str = "", **columns: Sequence[Any]) -> pa.Table:
    """Return chats as a split of a data artifact; `columns` replaces whole columns, for instance `source=[...]`."""
    examples = [chat.encode(messages, tokenizer()) for messages in chats]
    values: dict[str, Sequence[Any]] = {
        "row_id": [row_id(messages) for messages in chats],
        "messages": [list(messages) for messages in chats],
        "input_ids": [example.input_ids for example in examples],
        "labels": [example.labels for example in examples],
        "source": [task or ("even", "odd")[i % 2] for i in range(len(chats))],
        "group": [f"g{i}" for i in range(len(chats))],
        "quality_score": [None if task else i / len(chats) for i in range(len(chats))],
        "task": [task] * len(chats),
        "raw": ["" if task else json.dumps({"messages": list(messages)}) for messages in chats],
        **columns,
    }
    values["num_tokens"] = [len(ids) for ids in values["input_ids"]]
    values["num_labels"] = [sum(label != chat.IGNORE for label in labels[1:]) for labels in values["labels"]]
    return pa.table({name: values[name] for name in DATA_SCHEMA.names}, schema=DATA_SCHEMA)


def tiny_data(path: Path, base: Path, splits: Mapping[str, int | pa.Table] = SPLITS, seed: int = 0) -> Path:
    """Write a data artifact in the tokens of `base`; a split is a number of made-up chats or a table of `data_table`."""

    def make(name: str, size: int, first: int) -> pa.Table:
        return data_table([make_chat(1000 * seed + first + i) for i in range(size)], "tiny" if name in ("query", "test") else "")

    def fill(out: Path) -> None:
        tables, first = {}, 0
        for name, split in splits.items():
            tables[name] = make(name, split, first) if isinstance(split, int) else split
            first += tables[name].num_rows
        for name, table in tables.items():
            if table.num_rows:
                write_table(out / f"{name}.parquet", table)
        tokens = {name: sum(table["num_tokens"].to_pylist()) for name, table in tables.items()}
        rows = {name: table.num_rows for name, table in tables.items()}
        mark = artifact.digest(str(model_files(base).tokenizer / "tokenizer.json"))
        write_json(out / "metrics.json", {"tokenizer": mark, "rows": rows, "tokens": tokens})

    return write_artifact(path, "build-data", fill, {"base": str(base), "seed": seed})
