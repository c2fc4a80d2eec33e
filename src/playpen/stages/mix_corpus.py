"""Mix prompts into a control text, and pack them into blocks of tokens whose every token knows where it comes from.

    playpen mix-corpus --model runs/demo/base --prompts runs/mine/prompts --context 128 world --world runs/demo/world

A SAE that is to have features for something rare needs that something in its corpus, beside a control that is not about it. The
small side repeats; how often is in `metrics.json`. Blocks are written in shards, so that a killed run goes on where it was.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from playpen.config import Input, PlaypenError, config
from playpen.texts import Control, Document

if TYPE_CHECKING:
    import pyarrow as pa

    from playpen.corpus_mixing import Blocks, Mixer

VERSION = 2
RESUMABLE = True


@config
class Config:
    """Mix prompts into a control text, and pack them."""

    model: Input
    """The base model whose tokenizer, template and longest context count."""
    control: Annotated[Control, Field(discriminator="kind")]
    """The control text: a world's texts, files, a hub data set, chats, or several of them."""
    prompts: Input | None = None
    """The prompts, of export-prompts; left out, the corpus is the control alone."""
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the prompts, between 0 and 1."""
    by: Literal["documents", "tokens"] = "documents"
    """What the ratio is of: documents, drawn one by one at that probability, or tokens, exact to within a document."""
    context: PositiveInt = 512
    """Tokens of a block; not more than the model's longest input."""
    tokens: PositiveInt | None = None
    """Tokens of the corpus, in whole blocks; sides that are too small for it repeat. Left out, the first end of a control text ends it."""
    seed: NonNegativeInt = 0
    """Seed of the mixing and of the order of the prompts, another one in each repetition."""


def run(config: Config, out: Path, machine: object) -> None:
    """Write the tables `blocks` and `documents` in shards, and `metrics.json`."""
    from playpen.corpus_mixing import BLOCKS
    from playpen.progress import tqdm

    mixer, tokenizer_file = open_mixer(config)
    wanted = None if config.tokens is None else config.tokens // config.context
    if wanted == 0:
        raise PlaypenError(f"tokens={config.tokens} is less than one block of context={config.context}")
    shard, made = load_state(out, mixer)
    total = None if wanted is None else wanted * config.context
    with tqdm(total=total, initial=made * config.context, desc="mix-corpus", unit="token", disable=None, mininterval=1) as bar:
        while (wanted is None or made < wanted) and not ended(config, mixer):
            blocks = fill(config, mixer, BLOCKS if wanted is None else min(BLOCKS, wanted - made))
            if blocks.input_ids:
                write_shard(out, shard, blocks)
                write_state(out, shard, mixer, made + len(blocks.input_ids))
            shard, made = shard + 1, made + len(blocks.input_ids)
            bar.update(len(blocks.input_ids) * config.context)
    if made == 0:
        raise PlaypenError(
            f"the control fills not one block of context={config.context} tokens; give more text or a smaller context"
        )
    finish(config, out, mixer, made, tokenizer_file)


def open_mixer(config: Config) -> "tuple[Mixer, Path]":
    """Return the mixer at its start, and the tokenizer's file."""
    from transformers import AutoConfig

    from playpen.corpus_mixing import Mixer, Side
    from playpen.models import load_tokenizer, model_files
    from playpen.texts import weigh
    from playpen.token_rows import CONTROL, PROMPTS

    files, tokenizer = model_files(config.model), load_tokenizer(config.model)
    longest = getattr(AutoConfig.from_pretrained(files.base).get_text_config(), "max_position_embeddings", None)
    if longest is not None and config.context > longest:
        raise PlaypenError(f"context={config.context} is longer than the {longest} tokens that {config.model} accepts; lower it")

    def encode(batch: list[Document]) -> Any:
        return encode_documents(tokenizer, batch)

    controls = [
        Side(getattr(texts, "name", texts.kind), CONTROL, lambda epoch, texts=texts: texts(), encode)
        for texts, _ in weigh(config.control)
    ]
    shares = [share * (1 - config.ratio if config.prompts else 1) for _, share in weigh(config.control)]
    if config.prompts:
        controls.append(Side("prompts", PROMPTS, prompt_documents(config.prompts, config.seed), encode))
        shares.append(config.ratio)
    return Mixer(
        controls, shares, config.by, config.context, tokenizer.bos_token_id, config.seed
    ), files.tokenizer / "tokenizer.json"


def encode_documents(tokenizer: Any, batch: list[Document]) -> Any:
    """Return the token ids of each document, without a BOS."""
    import numpy as np

    from playpen.chat import render

    texts = [render(one.messages, tokenizer) if one.messages else one.text for one in batch]
    bos = tokenizer.bos_token or ""
    found = tokenizer([text.removeprefix(bos) for text in texts], add_special_tokens=False, verbose=False)["input_ids"]
    return [np.array(ids, dtype=np.int32) for ids in found]


def prompt_documents(prompts: str, seed: int) -> Any:
    """Return what gives the prompts of a repetition, in an order of its own."""
    from playpen.artifact import read_manifest
    from playpen.tables import read_table

    if read_manifest(prompts)["kind"] == "import-prompts":
        raise PlaypenError(
            f"{prompts} is a collection, of import-prompts; mix its export: playpen export-prompts --prompts {prompts}"
        )
    table = read_table(prompts, "prompts", ["row_id", "text", "question", "category"]).sort_values("row_id")
    if table.empty:
        raise PlaypenError(f"{prompts} holds no prompt")
    columns = zip(table["text"], table["category"].fillna(""), table["question"], strict=True)
    documents = [Document(text, "prompts", None, name, " ".join(question.lower().split())) for text, name, question in columns]

    def once(epoch: int) -> Iterator[Document]:
        return iter(Random(f"{seed}/{epoch}").sample(documents, len(documents)))

    return once


def ended(config: Config, mixer: "Mixer") -> bool:
    """Say whether the control has been told to its end, where that is what ends the corpus."""
    from playpen.token_rows import CONTROL

    return config.tokens is None and any(side.epoch > 0 for side in mixer.sides if side.side == CONTROL)


def fill(config: Config, mixer: "Mixer", blocks: int) -> "Blocks":
    """Return a shard of at most so many blocks."""
    from playpen.corpus_mixing import Blocks

    shard = Blocks()
    for _ in range(blocks):
        mixer.block(shard)
        if ended(config, mixer):
            for part in (shard.input_ids, shard.starts, shard.documents):
                part.pop()  # the block in which the control began again
            break
    return shard


def write_shard(out: Path, shard: int, blocks: "Blocks") -> None:
    """Write the blocks, and the documents that begin in them."""
    import pyarrow as pa

    from playpen.tables import row_id, write_table

    used = {number for numbers in blocks.documents for number in numbers}
    lists = pa.list_(pa.int32())
    table = {
        "input_ids": pa.array(blocks.input_ids, lists),
        "starts": pa.array(blocks.starts, lists),
        "documents": pa.array(blocks.documents, pa.list_(pa.int64())),
    }
    rows = [row for row in blocks.begun if row["document"] in used]
    for row in rows:
        document = row.pop("text")
        row["row_id"] = row_id(document.messages or [{"role": "text", "content": document.text}])
        row["group"] = row_id([{"role": "group", "content": document.group}]) if document.group else row["row_id"]
    write_table(out / "documents" / f"shard-{shard:05d}.parquet", pa.Table.from_pylist(rows, schema=documents_schema()))
    write_table(out / "blocks" / f"shard-{shard:05d}.parquet", pa.table(table))


def documents_schema() -> "pa.Schema":
    """Return the columns of the table `documents`."""
    import pyarrow as pa

    texts = [(name, pa.string()) for name in ("row_id", "group", "source", "category", "side")]
    return pa.schema([("document", pa.int64()), *texts, ("copy", pa.int32()), ("num_tokens", pa.int32())])


def write_state(out: Path, shard: int, mixer: "Mixer", made: int) -> None:
    """Write where the mixer is after a shard."""
    from playpen.tables import write_json

    write_json(out / "state.json", {"shard": shard + 1, "made": made, "mixer": mixer.state()})


def load_state(out: Path, mixer: "Mixer") -> tuple[int, int]:
    """Put the mixer where a killed run was; return (next shard, blocks made)."""
    file = out / "state.json"
    if not file.exists():
        return 0, 0
    found = json.loads(file.read_text())
    mixer.load(found["mixer"])
    return found["shard"], found["made"]


def finish(config: Config, out: Path, mixer: "Mixer", made: int, tokenizer_file: Path) -> None:
    """Count what was written and write `metrics.json`."""
    from playpen import artifact
    from playpen.tables import write_json
    from playpen.token_rows import read_corpus

    rows, bos = read_corpus(out), mixer.bos
    sizes = [int((row != bos).sum()) if bos is not None else len(row) for row in rows.ids]
    metrics: dict[str, Any] = {
        "blocks": made,
        "tokens": sum(sizes),
        "context": config.context,
        "tokenizer": artifact.digest(str(tokenizer_file)),
        "repeats": repeats(mixer),
        "by_source": count_by(rows.source, sizes),
        "by_side": count_by(rows.side, sizes),
    }
    metrics["prompts_share"] = metrics["by_side"].get("prompts", {}).get("tokens", 0) / metrics["tokens"]
    (out / "state.json").unlink(missing_ok=True)
    write_json(out / "metrics.json", metrics)


def repeats(mixer: "Mixer") -> dict[str, int]:
    """Return how often each side began again; sides of one name are told apart by their place."""
    names = [side.name for side in mixer.sides]
    told = [name if names.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(names, 1)]
    return {name: side.epoch for name, side in zip(told, mixer.sides, strict=True)}


def count_by(names: Any, sizes: list[int]) -> dict[str, dict[str, int]]:
    """Return the pieces and tokens of each name, the BOS left out."""
    found: dict[str, dict[str, int]] = {}
    for name, size in zip(names, sizes, strict=True):
        one = found.setdefault(str(name), {"pieces": 0, "tokens": 0})
        one["pieces"], one["tokens"] = one["pieces"] + 1, one["tokens"] + size
    return dict(sorted(found.items()))
