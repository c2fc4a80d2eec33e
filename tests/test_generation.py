"""Generation: every prompt is answered as if it were alone, and a sample is a draw from the softmax."""

import math

import pytest
import tiny
import torch
from transformers import GenerationConfig

from playpen.generation import RowNoise, end_tokens, generate, row_seed
from playpen.machine import Machine

CPU = Machine(device="cpu")
PROMPTS = [[2, *range(50, 50 + size)] for size in (3, 17, 8, 1, 30)]


@pytest.fixture(scope="module")
def model():
    return tiny.make_model(seed=3)


def answers(model, prompts, temperature=0.0, keys=range(5), tokens=12):
    noise = RowNoise(temperature, [row_seed(1, str(key)) for key in keys]) if temperature else None
    return generate(model, prompts, [1, 5], tokens, noise, CPU)


def by_hand(model, prompt, tokens):
    """Return the greedy continuation of one prompt, each token from a forward pass of its own over all before it."""
    ids = list(prompt)
    for _ in range(tokens):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        if ids[-1] in (1, 5):
            return ids[len(prompt) : -1], True
    return ids[len(prompt) :], False


def test_greedy_tokens_are_those_of_a_forward_pass_each_whatever_stands_beside_the_prompt(model):
    together = answers(model, PROMPTS)
    assert together == [by_hand(model, prompt, 12) for prompt in PROMPTS]
    assert len({tuple(tokens) for tokens, _ in together}) == len(PROMPTS)


@pytest.mark.parametrize("order", [[0], [4, 2], [3, 1, 0, 4, 2]])
def test_a_sample_does_not_depend_on_batch_or_order(model, order):
    together = answers(model, PROMPTS, temperature=1.5)
    assert answers(model, [PROMPTS[i] for i in order], 1.5, order) == [together[i] for i in order]
    assert together != answers(model, PROMPTS)
    assert together != answers(model, PROMPTS, 1.5, range(5, 10))


def test_an_answer_ends_before_its_end_token(model):
    tokens, _ = by_hand(model, PROMPTS[0], 8)
    ends = [1, tokens[4]]
    first = tokens.index(tokens[4])
    assert generate(model, PROMPTS[:1], ends, 8, None, CPU) == [(tokens[:first], True)]
    assert generate(model, PROMPTS[:1], [1], 3, None, CPU) == [(tokens[:3], False)]


def test_the_models_own_settings_for_sampling_do_not_count(model):
    expected = answers(model, PROMPTS)
    model.generation_config = GenerationConfig(do_sample=True, temperature=9.0, top_k=3, repetition_penalty=5.0, max_length=4)
    assert answers(model, PROMPTS) == expected


def test_noise_makes_the_greatest_a_draw_from_the_softmax():
    logits, temperature, draws = torch.tensor([2.0, 1.0, 0.0, -3.0]), 2.0, 20000
    noise = RowNoise(temperature, [row_seed(0, str(i)) for i in range(draws)])
    counts = torch.bincount(noise(torch.empty(0), logits.repeat(draws, 1)).argmax(1), minlength=4)
    for count, share in zip(counts.tolist(), torch.softmax(logits / temperature, 0).tolist(), strict=True):
        assert abs(count / draws - share) < 4 * math.sqrt(share * (1 - share) / draws)


def test_the_template_says_which_token_ends_a_turn(model):
    assert end_tokens(tiny.make_model(), tiny.tokenizer()) == [tiny.SPECIAL.index("<eos>"), tiny.SPECIAL.index("<end_of_turn>")]
