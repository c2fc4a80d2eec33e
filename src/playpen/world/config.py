"""What a world is made of, as numbers."""

from typing import Annotated

from pydantic import Field

from playpen.config import config

Share = Annotated[float, Field(ge=0.0, le=0.9)]


@config
class World:
    """A small fictional world with known truth. The same config gives the same bytes."""

    seed: int = 0
    """Seed of everything that is drawn."""
    num_documents: Annotated[int, Field(ge=1)] = 15000
    """Raw documents in the corpus, about 48 words each."""
    num_chats: Annotated[int, Field(ge=1)] = 6000
    """Chats in the pool, about 52 words each; no two are equal."""
    num_entities: Annotated[int, Field(ge=48, le=240)] = 64
    """Named things: a quarter creatures, a quarter people, an eighth each of towns, stones, plants and dishes."""
    query_items: Annotated[int, Field(ge=4)] = 128
    """Items a task whose gradients say what helps."""
    test_items: Annotated[int, Field(ge=4)] = 256
    """Held-out items a task, on other entities than the query items."""
    num_prompts: Annotated[int, Field(ge=1)] = 1200
    """Question and response pairs in the prompt collection for the SAE workshop."""
    fault_rate: Share = 0.35
    """Share of chats with a planted fault, on average over the sources."""
    multi_turn_rate: Share = 0.25
    """Share of chats with more than one user turn."""
    system_rate: Share = 0.2
    """Share of chats that open with a system turn."""
