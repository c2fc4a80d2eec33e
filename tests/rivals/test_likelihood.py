"""Perplexity and IFD equal plain loops over unpadded rows, whatever the answer lacks."""

import numpy as np
import pytest
import tiny
import torch
from near_copy import CPU, chat, data_of, job, make_home, pool_of, unpadded

from playpen.chat import IGNORE, without_end_of_turn
from playpen.config import PlaypenError
from playpen.losses import row_losses
from playpen.models import load_model
from playpen.rivals import likelihood
from playpen.rivals.likelihood import Ifd, Perplexity, without_instruction

BOS = tiny.SPECIAL.index("<bos>")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("likelihood"))


def words_of(rows):
    return [without_end_of_turn(row.tolist(), tiny.tokenizer()) for row in rows["labels"]]


def nats(model, ids, labels):
    """Return the mean nats of one row's labels by its own forward pass."""
    with torch.no_grad():
        logits = model(input_ids=unpadded(ids)).logits[0, :-1]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(labels)[1:]).item()


@pytest.mark.parametrize("model", ["base", "tuned"])
def test_perplexity_is_the_loss_of_the_answers_words(home, tmp_path, model):
    rows = pool_of(home)
    expected = row_losses(load_model(home / model, CPU), list(rows["input_ids"]), words_of(rows), CPU)
    given = job(home / "data", tmp_path / "high")
    high = Perplexity(model=str(home / model), prefer="high")(given)
    low = Perplexity(model=str(home / model), prefer="low")(job(home / "data", tmp_path / "low"))
    assert high.tolist() == expected.astype(float).tolist()
    assert (low == -high).all()
    assert given.tokens == {"pool": rows["num_tokens"].sum(), "query": 0}


def test_the_middle_comes_first_and_both_ends_last_with_mid(home, tmp_path):
    mid = Perplexity(model=str(home / "base"), prefer="mid")(job(home / "data", tmp_path / "mid"))
    loss = Perplexity(model=str(home / "base"), prefer="high")(job(home / "data", tmp_path / "high"))
    by_loss = mid[np.argsort(loss)]
    assert (np.diff(by_loss[:8]) > 0).all()
    assert by_loss == pytest.approx(by_loss[::-1])


def test_equal_losses_share_their_rank_and_unknown_ones_have_none():
    found = likelihood._rank(np.array([2.0, np.nan, 1.0, 2.0, 3.0]))
    np.testing.assert_allclose(found, [0.5, np.nan, 0.125, 0.5, 0.875])


def test_ifd_is_the_loss_with_over_the_loss_without_the_instruction(home, tmp_path):
    rows, model, expected = pool_of(home), load_model(home / "base", CPU), []
    for row, words in zip(rows.itertuples(), words_of(rows), strict=True):
        answer = row.labels != IGNORE
        alone = nats(model, [BOS, *row.input_ids[answer]], [IGNORE, *np.array(words)[answer]])
        expected.append(nats(model, row.input_ids, words) / alone)
    assert min(expected) < 1 < max(expected)
    given = job(home / "data", tmp_path)
    found = Ifd(model=str(home / "base"))(given)
    np.testing.assert_allclose(found, [ifd if ifd < 1 else 1 - ifd for ifd in expected], rtol=1e-4, atol=1e-5)
    assert given.facts["rows_at_or_above_1"] == sum(ifd >= 1 for ifd in expected)
    assert given.tokens["pool"] > rows["num_tokens"].sum()


def test_an_instruction_that_does_not_help_puts_its_row_below_all_that_do(home, tmp_path):
    found = Ifd(model=str(home / "base"))(job(home / "data", tmp_path))
    helped = found > 0
    assert 0 < helped.sum() < len(found)
    assert (found[helped] < 1).all()


def test_without_a_bos_the_first_answer_token_counts_on_neither_side():
    ids, labels = np.array([9, 8, 5, 6, 7]), [IGNORE, IGNORE, 5, 6, 7]
    words = [IGNORE, IGNORE, 5, 6, IGNORE]
    assert without_instruction(ids, labels, words, None) == ([IGNORE, IGNORE, IGNORE, 6, IGNORE], [5, 6, 7], [IGNORE, 6, IGNORE])
    with_bos = np.array([BOS, 8, 5, 6, 7])
    assert without_instruction(with_bos, labels, words, BOS) == (words, [BOS, 5, 6, 7], [IGNORE, 5, 6, IGNORE])


def test_answers_of_one_token_have_a_score_and_answers_without_a_word_have_none(home, tmp_path):
    pool = [tiny.make_chat(seed) for seed in range(4)] + [tiny.make_chat(3)]
    labels = tiny.data_table(pool)["labels"].to_pylist()
    first = [next(i for i, label in enumerate(row) if label != IGNORE) for row in labels]
    labels[1] = [label if i == first[1] else IGNORE for i, label in enumerate(labels[1])]
    labels[2] = [IGNORE] * len(labels[2])
    end = tiny.SPECIAL.index("<end_of_turn>")
    labels[0] = [label if label == end else IGNORE for label in labels[0]]
    data = data_of(tmp_path / "data", home / "base", pool, labels=labels)
    for i, method in enumerate((Perplexity(model=str(home / "base"), prefer="low"), Ifd(model=str(home / "base")))):
        found = method(job(data, tmp_path / str(i)))
        assert np.isnan(found).tolist() == [True, False, True, False, False]
        assert found[3] == pytest.approx(found[4], rel=1e-5)


def test_a_killed_run_goes_on_and_ends_as_if_never_killed(home, tmp_path, monkeypatch):
    monkeypatch.setattr(likelihood, "SHARD", 5)
    method, real, made = Ifd(model=str(home / "base")), likelihood._losses, []
    whole = method(job(home / "data", tmp_path / "whole"))

    def killed_at_the_sixth(*args):
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(args)
        return real(*args)

    monkeypatch.setattr(likelihood, "_losses", killed_at_the_sixth)
    with pytest.raises(KeyboardInterrupt):
        method(job(home / "data", tmp_path / "killed"))
    calls = []
    monkeypatch.setattr(likelihood, "_losses", lambda *args: (calls.append(args), real(*args))[1])
    assert (method(job(home / "data", tmp_path / "killed")) == whole).all()
    assert len(calls) == 2 * 4 - 5


def test_losses_that_are_not_finite_are_no_score(home, tmp_path):
    from safetensors.torch import load_file, save_file

    tiny.tiny_adapter(tmp_path / "wild", home / "base")
    file = tmp_path / "wild" / "adapter" / "adapter_model.safetensors"
    save_file({name: value * 1e30 for name, value in load_file(file).items()}, file)
    with pytest.raises(PlaypenError, match="losses are not finite; did the training of the model diverge"):
        Perplexity(model=str(tmp_path / "wild"))(job(home / "data", tmp_path / "out"))


def test_a_row_longer_than_the_context_is_named(home, tmp_path):
    tiny.tiny_base(tmp_path / "short", context=64)
    long = chat("Where is it?", "Under the white stone. " * 20)
    data = data_of(tmp_path / "data", home / "base", [tiny.make_chat(0), long])
    with pytest.raises(PlaypenError, match=r"of pool has \d+ tokens, but the context of .* is 64; build the data"):
        Perplexity(model=str(tmp_path / "short"))(job(data, tmp_path / "out"))
