"""The logit lens equals a computation by hand for each family of norms, and is refused where it would mean nothing."""

import pytest
import tiny
import torch
from torch import nn

from playpen.activations import find_hook, hook_width
from playpen.dashboard_data import logit_lens
from playpen.dashboard_data.logit_lens import LogitLens, find_lens, measure_norm


def tiny_model(family):
    """Return a model of random weights, its norms' too, and the hook of its first layer."""
    from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoConfig, GPTNeoForCausalLM, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    if family == "gemma3":
        model, layers = tiny.make_model(), "model.layers"
    elif family == "llama":
        shape = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        model, layers = LlamaForCausalLM(LlamaConfig(vocab_size=320, **shape)), "model.layers"
    elif family == "gpt2":
        model, layers = GPT2LMHeadModel(GPT2Config(vocab_size=320, n_embd=24, n_layer=2, n_head=2)), "transformer.h"
    else:
        shape = {"hidden_size": 24, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]]}
        model, layers = GPTNeoForCausalLM(GPTNeoConfig(vocab_size=320, **shape)), "transformer.h"
    for name, parameter in model.named_parameters():
        if "norm" in name or "ln_" in name:
            parameter.data = 0.5 + torch.rand(parameter.shape)
    return model.eval().requires_grad_(False), f"{layers}.0"


def by_hand(model, family, directions):
    """Return the lens by the family's own formula of its final norm."""
    head = model.get_output_embeddings().weight
    if family == "gemma3":
        scaled = directions * (1 + model.model.norm.weight)
    elif family == "llama":
        scaled = directions * model.model.norm.weight
    else:
        scaled = (directions - directions.mean(1, keepdim=True)) * model.transformer.ln_f.weight
    logits = scaled @ head.T
    return logits - logits.mean(1, keepdim=True)


@pytest.mark.parametrize("family", ["gemma3", "llama", "gpt2", "gptneo"])
def test_the_lens_equals_the_familys_formula_by_hand(family, monkeypatch):
    monkeypatch.setattr(logit_lens, "VOCABULARY_CHUNK", 100)
    model, layer = tiny_model(family)
    lens = find_lens(model, find_hook(model, f"{layer}.output"), 320)
    assert isinstance(lens, LogitLens)
    directions = torch.randn((5, model.config.get_text_config().hidden_size))
    torch.testing.assert_close(lens.values(directions), by_hand(model, family, directions), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", ["gemma3", "gptneo"])
def test_the_lens_is_what_the_model_does_when_the_norm_only_scales(family):
    """Move the stream by a small step in the direction: logits move by the lens over the norm, less what scaling does."""
    model, layer = tiny_model(family)
    lens = find_lens(model, find_hook(model, f"{layer}.output"), 320)
    norm = model.model.norm if family == "gemma3" else model.transformer.ln_f
    width = model.config.get_text_config().hidden_size
    stream = torch.randn((1, width), dtype=torch.float64)
    direction = torch.randn((1, width), dtype=torch.float64)
    centred = stream - stream.mean() if family == "gptneo" else stream
    direction = direction - direction.mean() - (direction - direction.mean()) @ centred[0] / centred.square().sum() * centred
    head, norm = model.get_output_embeddings().weight.double(), norm.double()
    step = 1e-4
    moved = (norm(stream + step * direction) - norm(stream)) @ head.T / step * centred.square().mean().sqrt()
    moved = moved - moved.mean()
    torch.testing.assert_close(lens.values(direction).double(), moved, rtol=1e-2, atol=1e-2)


def test_only_the_tokenizers_tokens_are_in_the_lens():
    model, layer = tiny_model("gemma3")
    lens = find_lens(model, find_hook(model, f"{layer}.output"), 300)
    assert lens.values(torch.randn((2, 32))).shape == (2, 300)
    assert abs(lens.values(torch.randn((2, 32))).mean()) < 1e-5


def test_a_place_that_is_not_the_residual_stream_has_no_lens_and_says_why():
    model, layer = tiny_model("gemma3")
    wide = find_lens(model, find_hook(model, f"{layer}.mlp.down_proj.input"), 320)
    assert (
        wide == "the decoder writes activations 64 wide at model.layers.0.mlp.down_proj.input, but the residual stream is 32 wide"
    )
    into = find_lens(model, find_hook(model, f"{layer}.self_attn.o_proj.input"), 320)
    assert into == (
        "the decoder writes to model.layers.0.self_attn.o_proj.input, which is not in the residual stream; a lens needs the input, "
        "middle or output of a layer, what its attention or MLP adds (behind its norm, where it has one), or the input of the "
        "final norm"
    )


PLACES = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out")
ELSEWHERE = {
    "gemma3": ("mlp.input", "mlp.output", "self_attn.output", "input_layernorm.output", "pre_feedforward_layernorm.output"),
    "llama": ("mlp.input", "self_attn.q_proj.output", "self_attn.q_proj.input", "post_attention_layernorm.output"),
    "gpt2": ("mlp.input", "attn.c_proj.input", "ln_1.output", "ln_2.output"),
}
FINAL = {"gemma3": "model.norm", "llama": "model.norm", "gpt2": "transformer.ln_f"}


@pytest.mark.parametrize("family", ELSEWHERE)
def test_the_stream_and_what_is_added_to_it_have_a_lens_and_other_places_of_its_width_have_none(family):
    model, layer = tiny_model(family)
    inside = [f"blocks.{number}.{place}" for number in range(2) for place in PLACES]
    for name in (*inside, f"{layer}.input", layer, f"{FINAL[family]}.input"):
        assert isinstance(find_lens(model, find_hook(model, name), 320), LogitLens), name
    for name in (*(f"{layer}.{part}" for part in ELSEWHERE[family]), f"{FINAL[family]}.output"):
        hook = find_hook(model, name)
        assert hook_width(model, hook) == model.config.get_text_config().hidden_size
        assert f"to {name}, which is not in the residual stream" in find_lens(model, hook, 320), name


def test_a_model_whose_last_norm_is_no_norm_has_no_lens():
    class Odd(nn.Module):
        def forward(self, x):
            return x.tanh()

    model, layer = tiny_model("gemma3")
    model.model.norm = Odd()
    assert find_lens(model, find_hook(model, f"{layer}.output"), 320) == (
        "the Odd before the unembedding is neither an RMSNorm nor a LayerNorm"
    )


@pytest.mark.parametrize("width", [7, 8])
def test_norms_of_odd_and_even_width_are_measured(width):
    layer, rms = nn.LayerNorm(width), nn.RMSNorm(width)
    for module in (layer, rms):
        module.weight.data = torch.rand(width) - 0.3
    layer.bias.data = torch.rand(width)
    for module, centres in ((layer, True), (rms, False)):
        found = measure_norm(module, width)
        assert found.centres is centres
        torch.testing.assert_close(found.scale, module.weight.data, rtol=1e-3, atol=1e-4)
