"""No shallow statistic of a chat tells whether it is helpful, and no wording tells whether it is faulty."""

import math
import re
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from playpen.world.faults import SPOILING
from playpen.world.framing import PHRASES
from playpen.world.skills import TARGETS


def words(text):
    return re.findall(r"[a-z']+|[.,:;?!_]", text.lower())


def text_of(chat):
    return " ".join(message["content"] for message in chat.messages)


def is_helpful(chat):
    return chat.skill in TARGETS.values() and chat.fault not in SPOILING


def bigram_surprise(documents):
    """Return a function that gives the log perplexity of a text under a smoothed bigram model of the documents."""
    ones, pairs = Counter(), Counter()
    for document in documents:
        tokens = ["<s>", *words(document.text)]
        ones.update(tokens)
        pairs.update(pairwise(tokens))
    total, size = sum(ones.values()), len(ones) + 1

    def surprise(text):
        tokens = ["<s>", *words(text)]
        chances = [0.9 * pairs[a, b] / max(1, ones[a]) + 0.1 * (ones[b] + 1) / (total + size) for a, b in pairwise(tokens)]
        return -sum(map(math.log, chances)) / len(chances)

    return surprise


@pytest.fixture(scope="module")
def statistics(made):
    surprise = bigram_surprise(made.documents)
    return {
        "length": [len(text_of(chat).split()) for chat in made.chats],
        "quality_score": [chat.quality_score for chat in made.chats],
        "perplexity": [surprise(text_of(chat)) for chat in made.chats],
    }


@pytest.mark.parametrize("name", ["length", "quality_score", "perplexity"])
def test_one_statistic_alone_does_not_find_the_helpful_chats(made, statistics, name):
    auroc = roc_auc_score([is_helpful(chat) for chat in made.chats], statistics[name])
    assert 0.38 < auroc < 0.62


def test_lengths_of_target_chats_lie_among_those_of_the_others(made, statistics):
    lengths = np.array(statistics["length"])
    targets = np.array([chat.skill in TARGETS.values() for chat in made.chats])
    low, middle, high = np.quantile(lengths[~targets], [0.05, 0.5, 0.95])
    assert np.mean((lengths[targets] >= low) & (lengths[targets] <= high)) > 0.85
    assert abs(np.median(lengths[targets]) - middle) < 6


def opening(chat, role):
    """Return the first three words of the first turn of a role."""
    return " ".join(next(m["content"] for m in chat.messages if m["role"] == role).lower().split()[:3])


def table_scores(learn, judge, role):
    """Score chats by how often the same opening was faulty among the chats learnt from."""
    seen = defaultdict(list)
    for chat in learn:
        seen[opening(chat, role)].append(chat.fault != "none")
    base = sum(map(sum, seen.values())) / len(learn)
    return [(sum(seen[opening(chat, role)]) + base) / (len(seen[opening(chat, role)]) + 1) for chat in judge]


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_opening_words_do_not_tell_faulty_from_clean_within_a_skill(made, role):
    by_skill = defaultdict(list)
    for chat in made.chats:
        by_skill[chat.skill].append(chat)
    aurocs = []
    for chats in by_skill.values():
        halves = chats[::2], chats[1::2]
        pairs = [(learn, judge) for learn, judge in (halves, halves[::-1])]
        aurocs += [roc_auc_score([c.fault != "none" for c in judge], table_scores(learn, judge, role)) for learn, judge in pairs]
    assert np.mean(aurocs) == pytest.approx(0.5, abs=0.04)
    pairwise = np.reshape(aurocs, (-1, 2)).mean(axis=1)
    assert np.all(np.abs(pairwise - 0.5) < 0.12)  # 0.08 and what chance adds to some 200 chats a half


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_opening_words_over_all_skills_do_not_tell_faulty_from_clean(made, role):
    learn, judge = made.chats[::2], made.chats[1::2]
    auroc = roc_auc_score([chat.fault != "none" for chat in judge], table_scores(learn, judge, role))
    assert 0.42 < auroc < 0.58


def pattern(phrase):
    """Match a phrase with any name in each of its slots."""
    parts = re.split(r"\{\w+\}", phrase)
    return re.compile("(?i:[a-z]+(?: [a-z]+)?)".join(map(re.escape, parts)))


def test_every_framing_phrase_stands_in_helpful_unhelpful_clean_and_faulty_chats(made):
    texts = [(text_of(chat), is_helpful(chat), chat.fault != "none") for chat in made.chats]
    for phrase in PHRASES:
        found = pattern(phrase)
        hits = [(helpful, faulty) for text, helpful, faulty in texts if found.search(text)]
        assert len(hits) >= 20, phrase
        for column in zip(*hits, strict=True):
            assert 0.03 < np.mean(column) < 0.75, phrase


def test_chats_of_other_skills_speak_of_the_same_things_as_the_items(made):
    names = {thing.name.lower() for things in made.lore.things.values() for thing in things if " " not in thing.name}
    asked = names & {word for item in made.tasks["lore_choice"]["query"] for word in words(item["prompt"])}
    others = [set(words(text_of(chat))) for chat in made.chats if chat.skill not in TARGETS.values()]
    assert all(sum(name in chat for chat in others) >= 20 for name in asked)
    assert np.mean([bool(asked & chat) for chat in others]) > 0.6


def test_idle_sentences_of_padded_answers_also_stand_in_clean_ones(made):
    def sentences(chat):
        return {s for m in chat.messages if m["role"] == "assistant" for s in re.split(r"(?<=[.?!]) ", m["content"])}

    clean = set().union(*(sentences(chat) for chat in made.chats if chat.fault == "none"))
    padded = [s for chat in made.chats if chat.fault == "padded" for s in sentences(chat)]
    assert np.mean([s in clean for s in padded]) > 0.4
