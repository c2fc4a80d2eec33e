"""Activations equal those of a plain forward pass, whatever the batches, and a stopped pass leaves no trace."""

import numpy as np
import pytest
import tiny
import torch

from playpen.activations import activations_of, capture, edited, find_hook, hook_width, iter_activations, make_batches, not_bos
from playpen.config import PlaypenError
from playpen.machine import Machine

BOS = tiny.SPECIAL.index("<bos>")


@pytest.fixture(scope="module")
def model():
    return tiny.make_model().requires_grad_(False)


@pytest.fixture(scope="module")
def rows():
    draw = np.random.default_rng(0)
    return [np.append(BOS, draw.integers(6, 320, size=size)).astype(np.int32) for size in (3, 17, 8, 40, 1, 8)]


def cpu(tokens=4096):
    return Machine(device="cpu", forward_tokens=tokens)


def test_a_layers_output_is_the_hidden_state_of_transformers(model, rows):
    ids = torch.from_numpy(rows[3]).long()[None]
    expected = model(input_ids=ids, output_hidden_states=True).hidden_states[1]
    found = capture(model, find_hook(model, "model.layers.0.output"), ids, torch.ones_like(ids))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_an_input_is_what_enters_the_module(model, rows):
    ids = torch.from_numpy(rows[1]).long()[None]
    hook = find_hook(model, "model.layers.1.mlp.down_proj.input")
    entering = capture(model, hook, ids, torch.ones_like(ids))
    leaving = capture(model, find_hook(model, "model.layers.1.mlp.down_proj.output"), ids, torch.ones_like(ids))
    assert hook_width(model, hook) == model.config.intermediate_size
    torch.testing.assert_close(hook.module(entering), leaving)


def test_a_name_without_a_side_means_the_output(model):
    assert find_hook(model, "model.layers.1.mlp").side == "output"
    assert find_hook(model, "model.layers.1.mlp").module is find_hook(model, "model.layers.1.mlp.output").module


def test_an_unknown_hook_names_the_nearest(model):
    with pytest.raises(PlaypenError, match=r"'model\.layers\.7\.mlp\.output' names no module.*model\.layers\.[01]\.mlp\.output"):
        find_hook(model, "model.layers.7.mlp.output")


def test_a_hook_that_never_runs_is_refused(model):
    with pytest.raises(PlaypenError, match="never reached"):
        hook_width(model, find_hook(model, "model.layers.output"))


def test_a_hook_without_a_width_is_refused(model):
    with pytest.raises(PlaypenError, match="no activations of shape"):
        hook_width(model, find_hook(model, "model.layers.0.self_attn.q_norm"))


def test_nothing_after_the_hook_is_computed_and_the_model_stays_as_it_was(model, rows):
    ids = torch.from_numpy(rows[3]).long()[None]
    before, ran = model(input_ids=ids).logits, []
    handles = [
        m.register_forward_hook(lambda *_: ran.append(1)) for m in (model.model.layers[1], model.model.norm, model.lm_head)
    ]
    capture(model, find_hook(model, "model.layers.0.output"), ids, torch.ones_like(ids))
    for handle in handles:
        handle.remove()
    assert ran == []
    torch.testing.assert_close(model(input_ids=ids).logits, before, rtol=0, atol=0)


@pytest.mark.parametrize(
    "name", ["model.layers.1.output", "model.layers.1.self_attn.output", "model.layers.1.self_attn.o_proj.input"]
)
def test_an_edit_that_changes_nothing_changes_nothing_and_one_that_does_does(model, rows, name):
    ids = torch.from_numpy(rows[3]).long()[None]
    hook, before = find_hook(model, name), model(input_ids=ids).logits
    with edited(hook, lambda x: x):
        torch.testing.assert_close(model(input_ids=ids).logits, before, rtol=0, atol=0)
    with edited(hook, torch.zeros_like):
        assert (model(input_ids=ids).logits - before).abs().max() > 1e-3
    torch.testing.assert_close(model(input_ids=ids).logits, before, rtol=0, atol=0)


def test_batches_hold_each_row_once_within_the_budget(rows):
    batches = list(make_batches(rows, not_bos(rows, BOS), 32))
    assert sorted(np.concatenate([b.rows for b in batches])) == list(range(len(rows)))
    assert [b.input_ids.shape for b in batches if b.input_ids.numel() > 32] == [(1, 41)]  # a long row travels alone
    for batch in batches:
        for i, row in enumerate(batch.rows):
            np.testing.assert_array_equal(batch.input_ids[i][batch.attention[i]], rows[row])


@pytest.mark.parametrize("budget", [1, 50, 4096])
def test_padding_and_company_do_not_change_activations(model, rows, budget):
    hook = find_hook(model, "model.layers.1.output")
    expected = []
    for row in rows:
        ids = torch.from_numpy(row).long()[None]
        expected.append(capture(model, hook, ids, torch.ones_like(ids))[0, 1:])
    found = activations_of(model, hook, rows, not_bos(rows, BOS), cpu(budget))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-5, atol=1e-5)


def test_tokens_know_their_rows_and_the_bos_never_counts(model, rows):
    hook = find_hook(model, "model.layers.0.output")
    for batch, values in iter_activations(model, hook, rows, not_bos(rows, BOS), cpu(100)):
        owner = batch.row_of_token()
        assert len(owner) == len(values)
        assert torch.bincount(owner).tolist() == [len(rows[i]) - 1 for i in batch.rows]


def test_activations_that_overflow_are_refused_by_row(rows):
    broken = tiny.make_model().requires_grad_(False)
    broken.model.embed_tokens.weight[rows[2][4]] = float("inf")
    with pytest.raises(PlaypenError, match=r"'model\.layers\.0\.output'.*infinite or NaN.*first in row 2.*float32 or bfloat16"):
        activations_of(broken, find_hook(broken, "model.layers.0.output"), rows, not_bos(rows, BOS), cpu())
