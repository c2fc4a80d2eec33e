"""A made-up corpus and SAE activity for tests: rows of random tokens, and strengths on a few of them."""

import numpy as np

from playpen.dashboard_data.corpus import Corpus, make_corpus
from playpen.dashboard_data.entries import Chunk, Entries, plan_chunks
from playpen.token_rows import CONTROL, PROMPTS, TokenRows

BOS, VOCABULARY = 0, 40


def made_rows(rows: int = 60, seed: int = 0) -> TokenRows:
    """Return rows of two sides, four sources and three categories; every fifth is a second piece of the document before it."""
    draw = np.random.default_rng(seed)
    ids = [np.append(BOS, draw.integers(1, VOCABULARY, draw.integers(3, 25))).astype(np.int32) for _ in range(rows)]
    document = np.array([f"d{i - (i % 5 == 4):03d}" for i in range(rows)], dtype=object)
    number = np.array([int(name[1:]) for name in document])
    side = np.where(number % 2 == 0, PROMPTS, CONTROL).astype(object)
    source = np.array([f"s{n % 4}" for n in number], dtype=object)
    category = np.where(number % 2 == 0, np.array(["", "yes", "no", "maybe"], dtype=object)[number // 2 % 4], "")
    return TokenRows(ids, document, source, category.astype(object), side, document)


def made_corpus(rows: int = 60, seed: int = 0) -> Corpus:
    return make_corpus(made_rows(rows, seed), BOS)


def made_entries(corpus: Corpus, share: float, seed: int = 1) -> Entries:
    """Return the activity of a feature that is on for a share of the counted tokens; some strengths are equal."""
    draw = np.random.default_rng(seed)
    token = np.flatnonzero(corpus.counted & (draw.random(len(corpus.ids)) < share))
    return Entries(token, np.ceil(draw.gamma(2, 3, len(token)) * 4).astype(np.float32) / 4)


def dense(entries: Entries, corpus: Corpus) -> np.ndarray:
    """Return the strength on every token, 0 where it is off."""
    found = np.zeros(len(corpus.ids), np.float32)
    found[entries.token] = entries.strength
    return found


def write_chunks(table: np.ndarray, corpus: Corpus, folder) -> list[Chunk]:
    """Write strengths [tokens, D], 0 where off, as the chunk files of pass one."""
    from playpen.dashboard_data.entries import _write

    found = plan_chunks(corpus, folder, table.shape[1])
    for chunk in found:
        end = int(corpus.starts[chunk.rows.stop])
        part = table[chunk.first : end]
        token, feature = part.nonzero()
        _write(chunk, token, feature.astype(np.int32), part[token, feature], end - chunk.first)
    return found
