"""Generation with a local model: many prompts at once, each answered as if it were alone.

Prompts are padded on the left and masked. A sampled token is the greatest of the logits over the temperature plus Gumbel noise,
which is a draw from their softmax; each row's noise comes from a generator of its own, so neither the size of a batch nor the
order of rows changes a draw. What is left is the rounding of floating point, which may turn a near tie.

Source: Gumbel, "Statistical theory of extreme values" (1954); Maddison, Tarlow and Minka, "A* sampling" (2014), section 2.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from playpen.machine import Machine


class RowNoise(LogitsProcessor):
    """Logits over the temperature plus the noise of each row's own generator, so that the greatest is a sample."""

    def __init__(self, temperature: float, seeds: Sequence[int]) -> None:
        self.temperature = temperature
        self.draws = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return [rows, vocabulary]."""
        uniform = torch.stack([torch.rand(scores.shape[1], generator=draw, dtype=torch.float64) for draw in self.draws])
        noise = -torch.log(-torch.log(uniform.clamp(min=1e-300)))
        return scores / self.temperature + noise.to(scores)


def row_seed(seed: int, key: str) -> int:
    """Return the seed of one row's draws, in [0, 2^63)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:8], "big") >> 1


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Return the tokens that end an answer: those the model names, and the one by which the chat template ends a turn."""
    named = model.generation_config.eos_token_id
    found = {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named]), _end_of_turn(tokenizer)}
    return sorted(token for token in found if token is not None)


def _end_of_turn(tokenizer: Any) -> int | None:
    """Return the first special token after an assistant's words in the chat template, if there is one."""
    word = "playpen"
    talk = [{"role": "user", "content": "?"}, {"role": "assistant", "content": word}]
    tail = tokenizer.apply_chat_template(talk, tokenize=False).rpartition(word)[2]
    ids = tokenizer(tail, add_special_tokens=False)["input_ids"]
    return ids[0] if ids and ids[0] in tokenizer.get_added_vocab().values() else None


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    ends: Sequence[int],
    max_new_tokens: int,
    noise: RowNoise | None,
    machine: Machine,
) -> list[tuple[list[int], bool]]:
    """Return for each prompt the new tokens before the first end token, and whether there was one; greedy without `noise`."""
    width = max(map(len, prompts))
    ids = torch.tensor([[ends[0]] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=machine.torch_device())
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=ids.device)
    # The model's own settings would fill in what is left out here: top-k, penalties and the like.
    settings = model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=list(ends), pad_token_id=ends[0]
    )
    with torch.no_grad():
        made = model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=settings,
            logits_processor=LogitsProcessorList([noise] if noise else []),
        )
    return [_before_end(row, ends) for row in made[:, width:].tolist()]


def _before_end(tokens: list[int], ends: Sequence[int]) -> tuple[list[int], bool]:
    place = next((i for i, token in enumerate(tokens) if token in ends), None)
    return tokens[:place], place is not None
