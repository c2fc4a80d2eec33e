"""One world of the default size, made once for all tests of it."""

from typing import NamedTuple

import pytest

from playpen.world import Chat, Document, Lore, World, make_chats, make_corpus, make_lore, make_prompts, make_tasks


class Made(NamedTuple):
    """A world and all that was made from it."""

    config: World
    lore: Lore
    documents: list[Document]
    chats: list[Chat]
    tasks: dict
    prompts: list[dict]


@pytest.fixture(scope="session")
def made() -> Made:
    """The default world."""
    config = World()
    lore = make_lore(config)
    parts = (make(config, lore) for make in (make_corpus, make_chats, make_tasks, make_prompts))
    return Made(config, lore, *parts)
