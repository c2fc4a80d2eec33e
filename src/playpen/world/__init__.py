"""The embedded universe: a small fictional world in plain English, with known truth, made from a seed.

lore = make_lore(World(seed=1))
documents, chats, tasks = make_corpus(world, lore), make_chats(world, lore), make_tasks(world, lore)
"""

from playpen.world.chats import Chat, make_chats
from playpen.world.config import World
from playpen.world.corpus import Document, make_corpus
from playpen.world.lore import Lore, make_lore
from playpen.world.prompts import make_prompts
from playpen.world.tasks import make_tasks

__all__ = ["Chat", "Document", "Lore", "World", "make_chats", "make_corpus", "make_lore", "make_prompts", "make_tasks"]
