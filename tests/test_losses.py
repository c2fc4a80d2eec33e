"""Row losses: those of a plain loop over unpadded rows, whatever the batch, the slice of logits and the architecture."""

import numpy as np
import pytest
import tiny

from playpen import losses
from playpen.chat import IGNORE, encode, without_end_of_turn
from playpen.config import PlaypenError
from playpen.machine import Machine

CPU = Machine(device="cpu")


@pytest.fixture(scope="module")
def rows():
    examples = [encode(tiny.make_chat(seed), tiny.tokenizer()) for seed in range(12)]
    return [e.input_ids for e in examples], [e.labels for e in examples]


def plain_losses(model, input_ids, labels):
    import torch

    with torch.no_grad():
        return [
            model(input_ids=torch.tensor([ids]), labels=torch.tensor([target])).loss.item()
            for ids, target in zip(input_ids, labels, strict=True)
        ]


def gpt_neo():
    import torch
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]]}
    return GPTNeoForCausalLM(GPTNeoConfig(vocab_size=320, max_position_embeddings=256, window_size=16, **shape)).eval()


def capped():
    model = tiny.make_model(seed=4)
    model.config.final_logit_softcapping = 2.0
    return model


@pytest.mark.parametrize("make", [tiny.make_model, lambda: tiny.make_adapter(tiny.make_model()), capped, gpt_neo])
def test_row_losses_are_those_of_a_plain_loop(rows, make):
    model = make()
    np.testing.assert_allclose(losses.row_losses(model, *rows, CPU), plain_losses(model, *rows), rtol=1e-5)


def test_batches_and_slices_of_logits_change_nothing(rows, monkeypatch):
    model = tiny.make_model()
    whole = losses.row_losses(model, *rows, CPU)
    alone = losses.row_losses(model, *rows, Machine(device="cpu", forward_tokens=1))
    monkeypatch.setattr(losses, "LOGITS", 7 * 320)
    sliced = losses.row_losses(model, *rows, CPU)
    np.testing.assert_allclose(alone, whole, rtol=1e-5)
    np.testing.assert_allclose(sliced, whole, rtol=1e-5)


def test_a_row_without_a_label_is_named_and_refused(rows):
    input_ids, labels = rows
    first_only = [[labels[0][0]] + [IGNORE] * (len(labels[0]) - 1), *labels[1:]]
    with pytest.raises(PlaypenError, match="row number 0 has no token with a label"):
        losses.row_losses(tiny.make_model(), input_ids, first_only, CPU)


def test_logits_scaled_in_a_way_not_known_here_are_refused(rows):
    model = tiny.make_model()
    model.config.logits_scaling = 8.0
    with pytest.raises(PlaypenError, match="logits_scaling"):
        losses.row_losses(model, *rows, CPU)


def test_batches_hold_every_row_once_within_the_budget():
    lengths = [5, 90, 3, 40, 41, 7, 200, 3]
    batches = losses.token_batches(lengths, 100)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert batches[0] == [6], "the longest row comes first and, above the budget, alone"
    assert all(len(batch) * max(lengths[row] for row in batch) <= 100 for batch in batches[1:])


def test_sampled_labels_follow_the_models_own_probabilities_and_not_the_batch(rows):
    import torch

    model, (ids, labels) = tiny.make_model(), rows
    found = losses.sampled_labels(model, ids, labels, CPU, seed=0)
    alone = losses.sampled_labels(model, ids, labels, Machine(device="cpu", forward_tokens=1), seed=0)
    assert all((a == b).all() for a, b in zip(found, alone, strict=True))
    assert all(((f != IGNORE)[1:] == (np.array(t) != IGNORE)[1:]).all() for f, t in zip(found, labels, strict=True))
    place = int(np.flatnonzero(np.array(labels[0]) != IGNORE)[0])
    drawn = losses.sampled_labels(model, [ids[0][: place + 1]] * 2000, [labels[0][: place + 1]] * 2000, CPU, seed=1)
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids[0][:place]])).logits[0, -1].softmax(-1).numpy()
    counted = np.bincount([row[place] for row in drawn], minlength=len(expected)) / 2000
    assert 0.5 * np.abs(counted - expected).sum() < 0.6 * np.sqrt(expected * (1 - expected) / 2000).sum()
    assert counted.argmax() == expected.argmax()


@pytest.mark.parametrize("logits", [losses.LOGITS, 7 * 320])
@pytest.mark.parametrize("make", [lambda: tiny.make_adapter(tiny.make_model()), capped])
def test_the_summed_loss_of_padded_rows_and_its_gradient_are_those_of_a_plain_loop(rows, monkeypatch, make, logits):
    import torch

    monkeypatch.setattr(losses, "LOGITS", logits)
    model, (input_ids, labels) = make().requires_grad_(True), rows
    ids, _, targets = losses.pad(input_ids, labels, range(len(input_ids)), torch.device("cpu"))
    total, weights = losses.summed_labels(model, ids, targets), list(model.parameters())
    ours = torch.autograd.grad(total, weights)
    plain = sum(
        model(input_ids=torch.tensor([row]), labels=torch.tensor([label])).loss * sum(t != IGNORE for t in label[1:])
        for row, label in zip(input_ids, labels, strict=True)
    )
    assert total.item() == pytest.approx(plain.item(), rel=1e-5)
    for mine, theirs in zip(ours, torch.autograd.grad(plain, weights), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


def test_rows_without_a_label_have_a_summed_loss_of_0_with_a_gradient():
    import torch

    total = losses.summed_labels(tiny.make_model().requires_grad_(True), torch.ones(2, 5).long(), torch.full((2, 5), IGNORE))
    total.backward()
    assert total.item() == 0


def test_losses_of_parts_of_the_labels_are_those_of_each_part_alone(rows, monkeypatch):
    monkeypatch.setattr(losses, "LOGITS", 7 * 320)
    (input_ids, labels), model, tokenizer = rows, tiny.make_model(), tiny.tokenizer()
    words = [without_end_of_turn(row, tokenizer) for row in labels]
    found = losses.losses_of_parts(model, input_ids, labels, [words, labels], CPU)
    for part, mine in zip([words, labels], found, strict=True):
        np.testing.assert_allclose(mine, losses.row_losses(model, input_ids, part, CPU), rtol=1e-6)
    assert (np.abs(found[0] - found[1]) > 1e-3).all(), "every row has a marker that the words leave out"


def test_an_adapter_is_folded_in_where_that_changes_no_loss(rows, tmp_path):
    from playpen.models import load_merged, load_model

    tiny.tiny_adapter(tmp_path / "tuned", tiny.tiny_base(tmp_path / "base"))
    merged, apart = load_merged(tmp_path / "tuned", CPU), load_model(tmp_path / "tuned", CPU)
    tuned = losses.row_losses(merged, *rows, CPU)
    np.testing.assert_allclose(tuned, losses.row_losses(apart, *rows, CPU), rtol=1e-5)
    assert np.abs(tuned - losses.row_losses(load_merged(tmp_path / "base", CPU), *rows, CPU)).max() > 1e-3
    rounded = load_merged(tmp_path / "tuned", Machine(device="cpu", dtype="bfloat16"))
    assert hasattr(apart, "peft_config")
    assert not any("lora" in name for name, _ in merged.named_parameters())
    assert any("lora" in name for name, _ in rounded.named_parameters())
