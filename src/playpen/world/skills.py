"""The table of skills: what a chat of the pool can be about."""

from collections.abc import Callable
from random import Random

from playpen.world import skills_facts, skills_forms, skills_words
from playpen.world.draft import Draft
from playpen.world.lore import Lore

SKILLS: dict[str, Callable[[Random, Lore], Draft]] = {
    "fact_question": skills_facts.fact_question,
    "reference": skills_words.reference,
    "counting": skills_words.counting,
    "sorting": skills_words.sorting,
    "past_tense": skills_words.past_tense,
    "rewriting": skills_forms.rewriting,
    "story": skills_words.story,
    "classification": skills_facts.classification,
    "sentence_form": skills_forms.sentence_form,
    "comparison": skills_facts.comparison,
    "format": skills_facts.card,
    "advice": skills_facts.advice,
    "summary": skills_facts.summary,
}

TARGETS = {"lore_choice": "fact_question", "reference_choice": "reference"}
"""The skill that each task asks for."""

COMMONNESS = {skill: 2.1 if skill in TARGETS.values() else 1.0 for skill in SKILLS}
"""How often each skill occurs over all sources, in relation to the others."""
