"""Make the embedded world: corpus, chats with known truth, tasks, prompts.

playpen make-world --seed 1 --num-chats 2000
"""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from playpen.tables import write_json, write_table
from playpen.world import Chat, Document, make_chats, make_corpus, make_lore, make_prompts, make_tasks
from playpen.world import World as Config
from playpen.world.grammar import count_words
from playpen.world.tasks import Item

if TYPE_CHECKING:
    from playpen.machine import Machine

VERSION = 1

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write every part of the world under `out`; which chats are faulty stands in `truth.parquet` alone."""
    lore = make_lore(config)
    documents, chats = make_corpus(config, lore), make_chats(config, lore)
    tasks, prompts = make_tasks(config, lore), make_prompts(config, lore)
    write_table(out / "corpus.parquet", pa.table({"text": [d.text for d in documents], "kind": [d.kind for d in documents]}))
    _write_chats(out, chats)
    for task, splits in tasks.items():
        for split, items in splits.items():
            _write_lines(out / "tasks" / task / f"{split}.jsonl", items)
    _write_lines(out / "prompts.jsonl", prompts)
    write_json(out / "metrics.json", measure(documents, chats, tasks, prompts))


def _write_chats(out: Path, chats: list[Chat]) -> None:
    columns = {name: [getattr(chat, name) for chat in chats] for name in Chat._fields}
    public = {name: columns[name] for name in ("row_id", "messages", "source", "quality_score")}
    schema = pa.schema(
        [("row_id", pa.string()), ("messages", MESSAGES), ("source", pa.string()), ("quality_score", pa.float32())]
    )
    write_table(out / "chats.parquet", pa.table(public, schema=schema))
    write_table(
        out / "truth.parquet", pa.table({name: columns[name] for name in ("row_id", "skill", "source", "fault")}), truth=True
    )


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def measure(
    documents: list[Document], chats: list[Chat], tasks: dict[str, dict[str, list[Item]]], prompts: list[dict[str, Any]]
) -> dict[str, float]:
    """Return counts, sizes in words, and shares of faults and skills."""
    lengths = [sum(count_words(message["content"]) for message in chat.messages) for chat in chats]
    numbers: dict[str, float] = {
        "num_documents": len(documents),
        "num_chats": len(chats),
        "num_prompts": len(prompts),
        "corpus_words": sum(count_words(document.text) for document in documents),
        "mean_words_a_chat": round(sum(lengths) / len(lengths), 2),
        "vocabulary": len(vocabulary(documents, chats, tasks, prompts)),
    }
    numbers |= {f"items/{task}/{split}": len(items) for task, splits in tasks.items() for split, items in splits.items()}
    for name in ("skill", "fault"):
        counts = Counter(getattr(chat, name) for chat in chats)
        numbers |= {f"share/{name}/{value}": round(count / len(chats), 4) for value, count in counts.items()}
    return numbers


def vocabulary(
    documents: list[Document], chats: list[Chat], tasks: dict[str, dict[str, list[Item]]], prompts: list[dict[str, Any]]
) -> set[str]:
    """Return the distinct words of the world, in lower case and without punctuation."""
    texts = [document.text for document in documents]
    texts += [message["content"] for chat in chats for message in chat.messages]
    texts += [
        text
        for splits in tasks.values()
        for items in splits.values()
        for item in items
        for text in (item["prompt"], *item["choices"])
    ]
    texts += [text for entry in prompts for text in (entry["question"], entry["response"])]
    return {word for text in texts for word in (raw.strip('.,:;?!"/_').lower() for raw in text.split()) if word}
