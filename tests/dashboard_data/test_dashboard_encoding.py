"""Encoding gives what the SAE's own dense encoding holds, with the pre-activations that decide what is on."""

import pytest
import torch
from sae_lens import (
    GatedSAE,
    GatedSAEConfig,
    JumpReLUSAE,
    JumpReLUSAEConfig,
    StandardSAE,
    StandardSAEConfig,
    TopKSAE,
    TopKSAEConfig,
)

from playpen.dashboard_data.encoding import decoder_directions, encode
from playpen.saes import encode_sparse

KINDS = ("jumprelu", "topk", "topk_rescaled", "standard", "gated")


def make_sae(kind):
    """Return a SAE of random weights, 16 to 40, of which some features are active on a token."""
    shape = {"d_in": 16, "d_sae": 40}
    sae = {
        "jumprelu": lambda: JumpReLUSAE(JumpReLUSAEConfig(**shape)),
        "topk": lambda: TopKSAE(TopKSAEConfig(**shape, k=5)),
        "topk_rescaled": lambda: TopKSAE(TopKSAEConfig(**shape, k=5, rescale_acts_by_decoder_norm=True)),
        "standard": lambda: StandardSAE(StandardSAEConfig(**shape)),
        "gated": lambda: GatedSAE(GatedSAEConfig(**shape)),
    }[kind]()
    draw = torch.Generator().manual_seed(0)
    for name, parameter in sae.named_parameters():
        parameter.data = torch.randn(parameter.shape, generator=draw) * (0.3 if name.startswith("b_") else 1)
    if kind == "jumprelu":
        sae.threshold.data = sae.threshold.data.abs() * 2
    return sae.eval().requires_grad_(False)


X = torch.randn((30, 16), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
def test_active_entries_are_those_of_the_dense_encoding_and_of_fingerprints(kind):
    sae = make_sae(kind)
    found, dense = encode(sae, X), torch.zeros((30, 40))
    dense[found.token, found.feature] = found.strength
    torch.testing.assert_close(dense, sae.encode(X), rtol=1e-4, atol=1e-5)
    sparse = torch.zeros((30, 40))
    token, feature, strength = encode_sparse(sae, X)
    sparse[token, feature] = strength
    torch.testing.assert_close(dense, sparse)
    assert 0 < len(found.token) < 1200


@pytest.mark.parametrize("kind", KINDS[:4])
def test_pre_activations_are_the_strengths_where_on_and_below_what_is_on_where_off(kind):
    sae = make_sae(kind)
    found = encode(sae, X)
    torch.testing.assert_close(found.before[found.token, found.feature], found.strength)
    off = torch.ones((30, 40), dtype=torch.bool)
    off[found.token, found.feature] = False
    if kind.startswith("topk"):
        lowest = torch.full((30,), torch.inf).scatter_reduce(0, found.token, found.strength, "amin")
        assert (found.before <= lowest[:, None])[off].all()
    else:
        bar = sae.threshold if kind == "jumprelu" else torch.zeros(40)
        assert (found.before <= bar)[off].all()


def test_an_architecture_without_pre_activations_says_so():
    assert encode(make_sae("gated"), X).before is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_decoder_direction_is_what_a_unit_of_strength_adds(kind):
    sae = make_sae(kind)
    added = sae.decode(torch.eye(40)) - sae.decode(torch.zeros((1, 40)))
    torch.testing.assert_close(decoder_directions(sae), added, rtol=1e-4, atol=1e-5)
