"""SAEs trained on their active entries have the losses and gradients of SAELens' own dense ones."""

import pytest
import torch
from sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.saes.sae import TrainStepInput

from playpen import sparse_sae
from playpen.sparse_sae import SparseBatchTopK, SparseMatryoshka, SparseTopK, encode_batch_topk, encode_topk

SIZES = {"d_in": 24, "d_sae": 96, "k": 5}
CLASSES = {
    "topk": (SparseTopK, TopKTrainingSAE, TopKTrainingSAEConfig, {}),
    "batchtopk": (SparseBatchTopK, BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, {}),
    "matryoshka": (
        SparseMatryoshka,
        MatryoshkaBatchTopKTrainingSAE,
        MatryoshkaBatchTopKTrainingSAEConfig,
        {"matryoshka_widths": [12, 40, 96]},
    ),
}


def pair(name, **changes):
    """Return our SAE and SAELens', with the same random weights."""
    ours, theirs, config, more = CLASSES[name]
    torch.manual_seed(1)
    dense = theirs(config(**SIZES, **more, **changes))
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    sparse = ours(config(**SIZES, **more, **changes))
    sparse.load_state_dict(dense.state_dict())
    return sparse, dense


def step(sae, x, dead):
    sae.train()
    mask = torch.zeros(96, dtype=torch.bool).index_fill(0, dead, True)
    output = sae.training_forward_pass(
        TrainStepInput(sae_in=x, dead_neuron_mask=mask, coefficients={}, n_training_steps=3, is_logging_step=False)
    )
    output.loss.backward()
    return output, {name: parameter.grad for name, parameter in sae.named_parameters()}


@pytest.mark.parametrize("dead", [[], [3, 50], list(range(40, 70))], ids=["none", "few", "many"])
@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("shifted", [True, False])
def test_loss_gradients_and_activations_are_those_of_saelens(name, dead, shifted, monkeypatch):
    monkeypatch.setattr(sparse_sae, "PIECE", 96 * 50)  # several pieces a batch
    sparse, dense = pair(name, apply_b_dec_to_input=shifted)
    x, dead = torch.randn(200, 24), torch.tensor(dead, dtype=torch.int64)
    sparse.dead = dead
    ours, our_grads = step(sparse, x, dead)
    theirs, their_grads = step(dense, x, dead)
    assert our_grads.keys() == their_grads.keys()
    torch.testing.assert_close(ours.loss, theirs.loss)
    for key, loss in theirs.losses.items():
        torch.testing.assert_close(ours.losses[key], loss, msg=key)
    torch.testing.assert_close(ours.sae_out, theirs.sae_out, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.feature_acts.to_dense(), theirs.feature_acts, rtol=1e-4, atol=1e-5)
    for key, grad in their_grads.items():
        torch.testing.assert_close(our_grads[key], grad, rtol=1e-4, atol=1e-5, msg=key)
    if name != "topk":
        assert float(sparse.topk_threshold) == pytest.approx(float(dense.topk_threshold), rel=1e-5)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", CLASSES)
def test_gradients_of_many_entries_are_the_same_every_time_with_two_threads(name, two_threads):
    x, dead, found = torch.randn(40_000, 24), torch.arange(40, 70), []
    for _ in range(3):
        sparse, _ = pair(name)
        sparse.dead = dead
        found.append(step(sparse, x, dead)[1])
    for grads in found[1:]:
        assert all(torch.equal(grad, found[0][key]) for key, grad in grads.items())


def test_the_gradient_is_that_of_finite_differences():
    sparse, _ = pair("topk")
    sparse = sparse.double()
    x, dead = torch.randn(40, 24, dtype=torch.float64), torch.tensor([], dtype=torch.int64)
    step(sparse, x, dead)
    where, small = (5, 7), 1e-6
    losses = []
    for sign in (1, -1):
        with torch.no_grad():
            sparse.W_enc[where] += sign * small
        losses.append(float(step(sparse, x, dead)[0].loss))
        with torch.no_grad():
            sparse.W_enc[where] -= sign * small
    grad = float(sparse.W_enc.grad[where]) / 3  # of three backward passes
    assert (losses[0] - losses[1]) / (2 * small) == pytest.approx(grad, rel=1e-4)


@pytest.mark.parametrize("count", [1, 700, 5000, 10**6])
def test_the_largest_entries_of_a_batch_are_found_exactly(count):
    x, W, b = torch.randn(600, 24), torch.randn(24, 512), torch.randn(512)
    dense = torch.addmm(b, x, W).relu().flatten()
    found = encode_batch_topk(x, W, b, count)
    wanted = dense.topk(min(count, len(dense))).values
    torch.testing.assert_close(found.strength.sort(descending=True).values, wanted[wanted > 0])
    assert (found.start.diff() >= 0).all()
    assert found.start[-1] == len(found.feature)


def test_an_outlier_among_the_sampled_entries_does_not_hide_the_rest():
    x, W, b = torch.randn(600, 24), torch.randn(24, 512), torch.zeros(512)
    x[0] *= 1000
    dense = (x @ W).relu().flatten()
    torch.testing.assert_close(encode_batch_topk(x, W, b, 3000).strength.sum(), dense.topk(3000).values.sum())


def test_k_entries_a_token_come_in_the_order_of_tokens():
    x, W, b = torch.randn(30, 24), torch.randn(24, 96), torch.zeros(96)
    code = encode_topk(x, W, b, 4)
    assert code.start.tolist() == list(range(0, 121, 4))
    assert code.tokens == 30
    torch.testing.assert_close(code.strength.view(30, 4).sum(1), (x @ W).topk(4).values.sum(1))
    narrow = code.within(10, 50)
    assert ((narrow.feature >= 10) & (narrow.feature < 50)).all()
    assert narrow.start[-1] == int(((code.feature >= 10) & (code.feature < 50)).sum())
