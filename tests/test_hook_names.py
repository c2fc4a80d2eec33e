"""TransformerLens' names of hooks stand for the same places in models of several families."""

from typing import Any

import pytest
import tiny
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
)

from playpen.activations import capture, find_hook, hook_width
from playpen.config import PlaypenError


def gpt_neo():
    layers = [[["global", "local"], 2]]
    return GPTNeoForCausalLM(GPTNeoConfig(hidden_size=24, num_layers=4, num_heads=2, attention_types=layers, vocab_size=60))


def llama():
    return LlamaForCausalLM(LlamaConfig(num_key_value_heads=2, **SMALL))


def olmo2():
    """Return a model whose norms scale by other factors than 1, so that a place behind one is no place before it."""
    model = Olmo2ForCausalLM(Olmo2Config(num_key_value_heads=2, pad_token_id=None, **SMALL))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data = 0.5 + torch.rand(parameter.shape)
    return model


def pythia(parallel=True):
    return GPTNeoXForCausalLM(GPTNeoXConfig(use_parallel_residual=parallel, **SMALL))


SMALL: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "vocab_size": 60,
}
MODELS = {
    "gemma": tiny.make_model,
    "gpt_neo": gpt_neo,
    "llama": llama,
    "olmo2": olmo2,
    "pythia": pythia,
    "gpt_neox": lambda: pythia(parallel=False),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_embd=24, n_layer=3, n_head=2, vocab_size=60)),
}
NAMES = {
    "gemma": {
        "hook_resid_post": "model.layers.1.output",
        "hook_resid_mid": "model.layers.1.pre_feedforward_layernorm.input",
        "hook_mlp_out": "model.layers.1.post_feedforward_layernorm.output",
        "hook_attn_out": "model.layers.1.post_attention_layernorm.output",
        "attn.hook_z": "model.layers.1.self_attn.o_proj.input",
    },
    "gpt_neo": {
        "hook_resid_pre": "transformer.h.1.input",
        "hook_mlp_out": "transformer.h.1.mlp.output",
        "mlp.hook_post": "transformer.h.1.mlp.c_proj.input",
        "attn.hook_z": "transformer.h.1.attn.attention.out_proj.input",
    },
    "llama": {
        "hook_resid_mid": "model.layers.1.post_attention_layernorm.input",
        "mlp.hook_post": "model.layers.1.mlp.down_proj.input",
    },
    "olmo2": {
        "hook_resid_mid": "model.layers.1.mlp.input",
        "hook_mlp_out": "model.layers.1.post_feedforward_layernorm.output",
        "hook_attn_out": "model.layers.1.post_attention_layernorm.output",
    },
    "pythia": {
        "hook_resid_post": "gpt_neox.layers.1.output",
        "hook_mlp_out": "gpt_neox.layers.1.mlp.output",
        "hook_attn_out": "gpt_neox.layers.1.attention.output",
        "mlp.hook_post": "gpt_neox.layers.1.mlp.dense_4h_to_h.input",
    },
    "gpt_neox": {"hook_resid_mid": "gpt_neox.layers.1.post_attention_layernorm.input"},
    "gpt2": {"hook_resid_mid": "transformer.h.1.ln_2.input", "attn.hook_z": "transformer.h.1.attn.c_proj.input"},
}


@pytest.mark.parametrize("family", MODELS)
def test_a_name_of_transformerlens_is_the_module_it_stands_for(family):
    model = MODELS[family]()
    for place, wanted in NAMES[family].items():
        hook = find_hook(model, f"blocks.1.{place}")
        assert hook.name == wanted, place
        assert hook_width(model, hook) > 0


def test_the_mlp_of_tinystories_is_as_wide_as_the_stream_and_its_inside_four_times_as_wide():
    """The spec's 768 with the hook "post" cannot work: that place is 3072 wide."""
    model = gpt_neo()
    assert hook_width(model, find_hook(model, "blocks.2.hook_mlp_out")) == 24
    assert hook_width(model, find_hook(model, "transformer.h.2.mlp")) == 24
    assert hook_width(model, find_hook(model, "blocks.2.mlp.hook_post")) == 96


@pytest.mark.parametrize("family", [name for name in MODELS if name != "pythia"])
def test_the_stream_in_the_middle_of_a_layer_is_the_stream_before_it_and_what_attention_adds(family):
    model = MODELS[family]().eval()
    ids = torch.tensor([[5, 9, 13, 2]])
    names = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out")
    hooks = [find_hook(model, f"blocks.1.{name}") for name in names]
    before, middle, after, attention, mlp = (capture(model, hook, ids, torch.ones_like(ids)) for hook in hooks)
    torch.testing.assert_close(before + attention, middle, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(middle + mlp, after, rtol=1e-4, atol=1e-5)


def test_where_attention_and_mlp_run_side_by_side_a_layer_is_their_sum_and_has_no_middle():
    model = pythia().eval()
    ids = torch.tensor([[5, 9, 13, 2]])
    hooks = [
        find_hook(model, f"blocks.1.{name}") for name in ("hook_resid_pre", "hook_resid_post", "hook_attn_out", "hook_mlp_out")
    ]
    before, after, attention, mlp = (capture(model, hook, ids, torch.ones_like(ids)) for hook in hooks)
    torch.testing.assert_close(before + attention + mlp, after, rtol=1e-4, atol=1e-5)
    with pytest.raises(PlaypenError, match=r"hook 'blocks\.1\.hook_resid_mid': attention and MLP .* no middle; name hook_resid"):
        find_hook(model, "blocks.1.hook_resid_mid")


def test_a_place_that_nobody_knows_is_refused_with_the_nearest_names():
    with pytest.raises(PlaypenError, match="names no module"):
        find_hook(tiny.make_model(), "blocks.1.hook_nonsense")
