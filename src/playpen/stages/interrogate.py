"""Interrogate: put the unanswered questions of a collection to a model, and let a judge label what it says.

    playpen interrogate --prompts runs/mine/prompts --subject-name tiny --root runs/mine local --model runs/demo/base rules

Thought and response are kept apart. The judge says of each response whether it is a refusal, an official narrative, whataboutism
or none of these; it also labels responses that came without a label. The result is a new collection beside the old one, with its
own `prompts.parquet`. Every answer is written down as it comes: a killed run asks nothing twice.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pyarrow as pa
from pydantic import Field

from playpen.config import Input, PlaypenError, config
from playpen.journal import Journal
from playpen.judges import Judge, Rules, Verdict
from playpen.progress import tqdm
from playpen.prompt_collections import default_name, fill, imported, write_collection
from playpen.prompt_store import open_store
from playpen.prompts import Prompt, digest, measure, with_id
from playpen.subjects import Answer, Subject
from playpen.tables import write_json, write_table

if TYPE_CHECKING:
    from playpen.machine import Machine

VERSION = 1
STAYS = True
RESUMABLE = True
HOPELESS = 5
"""Questions that fail before any is answered, after which the run gives up."""

PROBLEMS = pa.schema([("row_id", pa.string()), ("question", pa.string()), ("step", pa.string()), ("problem", pa.string())])


@config
class Config:
    """Which questions to put to which model, and who judges the responses."""

    prompts: Input
    """The collection, an artifact of import-prompts or interrogate."""
    subject: Annotated[Subject, Field(discriminator="kind")]
    """The model to ask."""
    judge: Annotated[Judge, Field(discriminator="kind")] = Rules()
    """Who labels the responses."""
    subject_name: Annotated[str, Field(min_length=1)]
    """Subject under which its responses are stored; unanswered questions that name another subject are left alone."""


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write `prompts.parquet`, `problems.parquet`, `collection.json` and `metrics.json`, and the collection into the store."""
    if not (out / "metrics.json").exists():
        make(config, out, machine)
    shutil.rmtree(out / "journal", ignore_errors=True)


def make(config: Config, out: Path, machine: "Machine") -> None:
    """Ask, judge, and write everything, `metrics.json` last."""
    before = imported(config.prompts)
    prompts = before.prompts()
    todo = questions(config, prompts)
    with open_store(before.store, make=True):
        pass  # a store out of reach is found out before anything is asked
    config.judge.try_out()
    answers, unanswered = ask(config, todo, out, machine)
    filled = [fill_in(prompt, answers.get(prompt["row_id"]), config.subject_name) for prompt in prompts]
    verdicts, unlabelled = label(config, filled, out, machine)
    labelled = [put_label(prompt, verdicts.get(prompt["row_id"])) for prompt in filled]
    kept = first_places([prompt["row_id"] for prompt in labelled])
    final, vectors = [labelled[i] for i in kept], before.vectors()[kept]
    name = default_name(out)
    with open_store(before.store, make=True) as opened:
        fill(opened, name, final, vectors, own=True, offered=digest(final))
    write_collection(out, before.store, name, final, vectors)
    texts = {prompt["row_id"]: prompt["question"] for prompt in [*prompts, *filled]}
    lines = [*problem_lines("answer", unanswered, texts), *problem_lines("label", unlabelled, texts)]
    write_table(out / "problems.parquet", pa.Table.from_pylist(lines, schema=PROBLEMS))
    counts = {
        "asked": len(todo),
        "unanswered": len(unanswered),
        "cut_off": sum(not answer.whole for answer in answers.values()),
        "with_thought": sum(answer.thought is not None for answer in answers.values()),
        "labelled": len(verdicts),
        "unlabelled": len(unlabelled),
        "copies": len(labelled) - len(kept),
    }
    write_json(out / "metrics.json", {**measure(final), **counts})


def problem_lines(step: str, problems: Mapping[str, str], texts: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the lines of the table of problems."""
    return [{"row_id": key, "question": texts[key], "step": step, "problem": why} for key, why in problems.items()]


def questions(config: Config, prompts: Sequence[Prompt]) -> dict[str, str]:
    """Return the questions to ask, by row_id; raise when there is nothing to ask and nothing to label."""
    open_ones = [prompt for prompt in prompts if prompt["response"] is None]
    todo = {p["row_id"]: p["question"] for p in open_ones if p["subject"] in (None, config.subject_name)}
    if not todo and not unlabelled_in(prompts):
        others = sorted({str(prompt["subject"]) for prompt in open_ones})
        raise PlaypenError(
            f"{config.prompts} has no unanswered question for '{config.subject_name}' and no response without a label; "
            + (f"unanswered are questions for {', '.join(others)}" if others else "all its questions are answered")
        )
    return todo


def unlabelled_in(prompts: Sequence[Prompt]) -> dict[str, tuple[str, str]]:
    """Return question and response, by row_id, of the responses without a label."""
    return {p["row_id"]: (p["question"], p["response"]) for p in prompts if p["response"] is not None and p["category"] is None}


def ask(config: Config, todo: Mapping[str, str], out: Path, machine: "Machine") -> tuple[dict[str, Answer], dict[str, str]]:
    """Return the answers and the problems of the questions without one, by row_id; raise when none is answered."""
    with Journal(out / "journal" / "answers.jsonl") as journal:
        problems = work_through(journal, todo, lambda left: config.subject(left, machine), "ask", HOPELESS)
        if todo and not journal.found:
            raise PlaypenError(f"none of {len(todo)} questions was answered; the first: {next(iter(problems.values()))}")
        return {key: Answer(**value) for key, value in journal.found.items()}, problems


def label(config: Config, prompts: Sequence[Prompt], out: Path, machine: "Machine") -> tuple[dict[str, Verdict], dict[str, str]]:
    """Return the verdicts, and the problems of the responses that got none, by row_id."""
    with Journal(out / "journal" / "labels.jsonl") as journal:
        problems = work_through(journal, unlabelled_in(prompts), lambda left: config.judge(left, machine), "label")
        return {key: Verdict(**value) for key, value in journal.found.items()}, problems


def work_through(
    journal: Journal,
    todo: Mapping[str, Any],
    work: Callable[[dict[str, Any]], Iterator[tuple[str, Any]]],
    what: str,
    hopeless: int | None = None,
) -> dict[str, str]:
    """Put each result into the journal as it comes; return the problems by key, in the order of `todo`.

    With `hopeless`, so many problems before the first result end the run.
    """
    left, problems = {key: item for key, item in todo.items() if key not in journal.found}, {}
    with tqdm(total=len(todo), initial=len(todo) - len(left), desc=what, unit="row", disable=None, mininterval=1) as progress:
        for key, result in work(left) if left else ():
            if result.problem:
                problems[key] = result.problem
            else:
                journal.add(key, asdict(result))
            if hopeless and len(problems) == hopeless and not journal.found:
                raise PlaypenError(f"the first {hopeless} questions got no answer; the last: {result.problem}")
            progress.update()
    return {key: problems[key] for key in todo if key in problems}


def fill_in(prompt: Prompt, answer: Answer | None, subject_name: str) -> Prompt:
    """Return a prompt with its answer, under the name of its new content; its old label is gone."""
    if answer is None:
        return prompt
    new = {"response": answer.response, "thought": answer.thought, "subject": subject_name, "category": None, "censored": None}
    return with_id({**prompt, **new})


def put_label(prompt: Prompt, verdict: Verdict | None) -> Prompt:
    """Return a prompt with a judge's label; all but `none` count as censored."""
    return prompt if verdict is None else {**prompt, "category": verdict.label, "censored": verdict.label != "none"}


def first_places(keys: Sequence[str]) -> list[int]:
    """Return where each key stands first, in order."""
    first: dict[str, int] = {}
    for place, key in enumerate(keys):
        first.setdefault(key, place)
    return list(first.values())
