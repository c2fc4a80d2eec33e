"""Turn chats and target tasks into token tables whose splits share nothing.

    playpen build-data --model runs/mine/base --train 0 --val 0 --pool -1 files --paths pool.jsonl chats --paths target.jsonl

It answers: what may be trained on, what is picked from, what is the target? Every row is checked, tokenised in the
model's own template and given to a split by the hash of (seed, row), never by its place in the input. Exact copies are
dropped; near-duplicates stay in one split; whatever resembles a target leaves all other splits. Rows that cannot be
used are listed, with the reason, in `dropped.parquet`. Near-duplicates are found by MinHash (Broder 1997).
"""

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, model_validator

from playpen import tables
from playpen.artifact import digest
from playpen.config import Input, PlaypenError, config
from playpen.examples import Dropped, Encoded, Encoder, Examples, draw, write_split
from playpen.models import model_files
from playpen.progress import tqdm
from playpen.sources import Source, World, single
from playpen.splits import assign, group
from playpen.targets import HubTasks, Target, Targets

if TYPE_CHECKING:
    from playpen.machine import Machine

VERSION = 1
SPLITS = ("train", "val", "pool", "large_pool")
MARGIN = 1.3
"""How many times the rows asked for are tokenised, so that some may fall out as near-duplicates."""

Size = Annotated[int, Field(ge=-1)]


@config
class Config:
    """What data to build."""

    model: Input
    """Model whose tokenizer and chat template make the tokens."""
    source: Annotated[Source, Field(discriminator="kind")]
    """Where the chats come from."""
    targets: Annotated[Targets, Field(discriminator="kind")] = HubTasks()
    """What the model shall get better at."""
    train: Size = 50_000
    """Rows to fine-tune on; 0 for no such split. One of the four sizes may be -1: all the rest."""
    val: Size = 2_000
    """Rows to measure the loss of fine-tuning on (`val_rows` of finetune)."""
    pool: Size = 20_000
    """Rows to score and to pick from."""
    large_pool: Size = 0
    """Rows for `predict` to rank, where gradients would cost too much."""
    query_per_task: NonNegativeInt = 512
    """At most so many examples of each task are queries, which attribution sees."""
    test_per_task: NonNegativeInt = 512
    """At most so many examples of each task are held out for evaluation. A task of fewer examples is cut in proportion."""
    max_length: Annotated[int, Field(ge=2)] = 1024
    """Longest example in tokens."""
    too_long: Literal["drop", "truncate"] = "drop"
    """Drop longer examples, or cut them after max_length tokens (those without an answer before the cut are dropped)."""
    near_duplicate: Annotated[float, Field(gt=0, le=1)] | None = 0.8
    """Jaccard similarity of five-word runs from which two chats count as near-duplicates; lower finds more, null only exact copies."""
    seed: int = 0
    """Seed of who goes where."""

    @model_validator(mode="after")
    def _sizes_make_sense(self) -> "Config":
        sizes = [getattr(self, name) for name in SPLITS]
        if not any(sizes):
            raise ValueError("asks for no rows: train, val, pool and large_pool are all 0")
        if sizes.count(-1) > 1:
            raise ValueError("only one of train, val, pool and large_pool may be -1 (all the rest)")
        return self

    @property
    def sizes(self) -> dict[str, int]:
        """The splits asked for, the one that takes the rest last."""
        asked = {name: getattr(self, name) for name in SPLITS if getattr(self, name)}
        return dict(sorted(asked.items(), key=lambda pair: pair[1] == -1))


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write the split tables, `dropped.parquet`, `tasks/*.jsonl`, `metrics.json` and, of a world, its truth."""
    dropped, work = Dropped(), out / "scratch"
    targets, pool = Examples(work / "targets", dropped), Examples(work / "pool", dropped)
    with Encoder(config.model, config.max_length, config.too_long == "truncate", machine.workers) as encoder:
        aims = encode_targets(config, encoder, targets)
        splits = fill_splits(config, encoder, targets, pool)
    held = separate_targets(targets, aims)
    for name, places in [*splits.items(), *held.items()]:
        write_split(out, name, targets if name in held else pool, places)
    write_items(out, aims, held["test"])
    dropped.write(out)
    for source in single(config.source):
        if isinstance(source, World):
            tables.copy_truth(source.world, out)
    tables.write_json(out / "metrics.json", {**measure(pool, targets, splits, held, aims), "tokenizer": _tokenizer_mark(config)})
    shutil.rmtree(work)


def _tokenizer_mark(config: Config) -> str:
    return digest(str(model_files(config.model).tokenizer / "tokenizer.json"))


def encode_targets(config: Config, encoder: Encoder, targets: Examples) -> list[tuple[Target, str]]:
    """Set the chosen target examples aside; return each with its split, by place."""
    found: dict[tuple[str, str], dict[int, Target]] = defaultdict(dict)
    for target in tqdm(config.targets(), desc="targets", unit=" rows", disable=None, mininterval=1):
        number = targets.add(target.row, target.task)
        if number is not None:
            found[target.task, target.split][number] = target
        else:
            found[target.task, target.split] |= {}
    chosen: list[tuple[Target, str]] = []
    for among in found.values():
        chosen += _choose(config, encoder, targets, among)
    for task in dict.fromkeys(task for task, _ in found):
        if config.query_per_task and not any(t.task == task and split == "query" for t, split in chosen):
            raise PlaypenError(f"task '{task}' has no usable query example; dropped: {_reasons(targets.dropped)}")
    return chosen


def _choose(config: Config, encoder: Encoder, targets: Examples, among: dict[int, Target]) -> Iterator[tuple[Target, str]]:
    """Encode the examples of one task in the order of their lots until query and test are full."""
    order = sorted(among, key=lambda number: draw(config.seed, targets.ids[number]))
    room = room_of(config, list(among.values()))
    results = encoder(targets, iter(order))
    while sum(room.values()) and (step := next(results, None)):
        number, found = step
        if isinstance(found, str):
            targets.drop([number], found)
            continue
        split = next(name for name, free in room.items() if free)
        room[split] -= 1
        targets.keep(number, found)
        yield among[number], split


def room_of(config: Config, among: list[Target]) -> dict[str, int]:
    """Return how many examples of one task go to query and to test, when they come from the same split."""
    query, test, size = config.query_per_task, config.test_per_task, len(among)
    if not among:
        return {}
    if among[0].split:
        return {among[0].split: {"query": query, "test": test}[among[0].split]}
    share = among[0].test_share
    if share is not None:
        test = min(test, round(size * share))
        return {"query": min(query, size - test), "test": test}
    if size < query + test:
        query = round(size * query / (query + test))
    return {"query": query, "test": min(test, size - query)}


def fill_splits(config: Config, encoder: Encoder, targets: Examples, pool: Examples) -> dict[str, list[int]]:
    """Read, encode, group and place the chats; return the places of each split. Raise when there are too few."""
    sizes, results = config.sizes, encoder(pool, candidates(config, pool))
    goal = float("inf") if -1 in sizes.values() else MARGIN * sum(sizes.values())
    while True:
        more = _encode_until(goal, results, pool)
        free = group(config.near_duplicate, targets, pool)
        order = sorted(free, key=lambda place: draw(config.seed, pool.name(place)))
        filled, parted = assign([pool.groups[place] for place in order], sizes)
        if not more or all(len(filled[name]) == size for name, size in sizes.items()):
            break
        goal *= 1.5
    _drop_resembling(targets, pool, set(range(len(pool.encoded))) - set(free))
    pool.drop([pool.encoded[order[i]] for i in parted], "near-duplicate, or of the same conversation, as a row in another split")
    _check_filled(sizes, filled, pool)
    return {name: [order[i] for i in rows] for name, rows in filled.items()}


def candidates(config: Config, pool: Examples) -> Iterator[int]:
    """Read the sources and yield rows by number: of whole sources in the order of their lots, then of streams in turn."""
    sources = single(config.source)
    for source in sources:
        if not source.streams:
            for row in tqdm(source(), desc=f"reading {source.kind}", unit=" rows", disable=None, mininterval=1):
                pool.add(row)
    yield from sorted(range(len(pool)), key=lambda number: draw(config.seed, pool.ids[number]))
    streams = [source() for source in sources if source.streams]
    while streams:
        for stream in list(streams):
            row = next(stream, None)
            if row is None:
                streams.remove(stream)
            elif (number := pool.add(row)) is not None:
                yield number


def _encode_until(goal: float, results: Iterator[tuple[int, Encoded | str]], pool: Examples) -> bool:
    """Keep tokens until `goal` rows have them; return False when the rows ended before."""
    total = None if goal == float("inf") else int(goal)
    with tqdm(total=total, initial=len(pool.encoded), desc="tokens", unit=" rows", disable=None, mininterval=1) as bar:
        while len(pool.encoded) < goal:
            step = next(results, None)
            if step is None:
                return False
            number, found = step
            if isinstance(found, str):
                pool.drop([number], found)
            else:
                pool.keep(number, found)
                bar.update()
    return True


def _drop_resembling(targets: Examples, pool: Examples, places: set[int]) -> None:
    copies = [place for place in sorted(places) if targets.has(pool.name(place))]
    pool.drop([pool.encoded[place] for place in copies], "exact copy of a target")
    pool.drop([pool.encoded[place] for place in sorted(places - set(copies))], "near-duplicate of a target")


def _check_filled(sizes: dict[str, int], filled: dict[str, list[int]], pool: Examples) -> None:
    if all(len(filled[name]) >= max(size, 1) for name, size in sizes.items()):
        return
    asked = ", ".join(f"{name} {'the rest' if size == -1 else size}" for name, size in sizes.items())
    there = sum(len(rows) for rows in filled.values())
    raise PlaypenError(
        f"asked for {sum(size for size in sizes.values() if size > 0)} rows ({asked}) but the source has only {there} that can "
        f"be used; dropped: {_reasons(pool.dropped)}. Ask for fewer rows, or give more sources"
    )


def _reasons(dropped: Dropped) -> str:
    return ", ".join(f"{reason} ({count})" for reason, count in list(dropped.counts().items())[:5]) or "nothing"


def separate_targets(targets: Examples, aims: list[tuple[Target, str]]) -> dict[str, list[int]]:
    """Return the places of query and test, without the test examples that resemble a query."""
    held = {name: [place for place, (_, split) in enumerate(aims) if split == name] for name in ("query", "test")}
    asked = {targets.groups[place] for place in held["query"]}
    leaks = [place for place in held["test"] if targets.groups[place] in asked]
    targets.drop([targets.encoded[place] for place in leaks], "near-duplicate of a query example")
    return held | {"test": [place for place in held["test"] if place not in set(leaks)]}


def write_items(out: Path, aims: list[tuple[Target, str]], places: list[int]) -> None:
    """Write the held-out multiple-choice items of each task, for evaluation without a hub."""
    lines: dict[str, list[str]] = defaultdict(list)
    for target in (aims[place][0] for place in places):
        if target.item is not None:
            lines[target.task].append(json.dumps(target.item._asdict(), ensure_ascii=False) + "\n")
    for task, items in lines.items():
        file = out / "tasks" / f"{task}.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(items), encoding="utf-8")


def measure(
    pool: Examples, targets: Examples, splits: dict[str, list[int]], held: dict[str, list[int]], aims: list[tuple[Target, str]]
) -> dict[str, Any]:
    """Return rows, tokens, origins, tasks, dropped rows by reason and what was found of near-duplicates."""
    table = {name: _split_numbers(pool, places) for name, places in splits.items()}
    table |= {name: _split_numbers(targets, places) for name, places in held.items() if places}
    sizes = Counter(pool.groups).values()
    placed = sum(len(places) for places in splits.values())
    return {
        **{key: {name: numbers[key] for name, numbers in table.items()} for key in next(iter(table.values()))},
        "tasks": {name: dict(Counter(aims[place][0].task for place in places)) for name, places in held.items()},
        "dropped": pool.dropped.counts(),
        "read": len(pool),
        "tokenised": len(pool.encoded),
        "not_needed": len(pool) - placed,
        "near_duplicates": {
            "groups": sum(size > 1 for size in sizes),
            "rows": sum(size for size in sizes if size > 1),
            "largest": max(sizes, default=0),
        },
    }


def _split_numbers(examples: Examples, places: list[int]) -> dict[str, Any]:
    tokens = [examples.lengths[place] for place in places]
    return {
        "rows": len(places),
        "tokens": sum(length for length, _, _ in tokens),
        "label_tokens": sum(labels for _, labels, _ in tokens),
        "mean_tokens": round(sum(length for length, _, _ in tokens) / len(places), 2),
        "truncated": sum(cut for _, _, cut in tokens),
        "sources": dict(Counter(examples.source(place) for place in places).most_common()),
    }
