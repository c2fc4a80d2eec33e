"""Subjects: configs that answer questions when called, a local model or one behind an endpoint, thought and response apart."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PositiveInt
from tyro.conf import Suppress

from playpen.config import Input, config
from playpen.endpoints import ChatEndpoint, Connection, RefusedRequest, in_threads
from playpen.thoughts import opens_thought, split_thought

if TYPE_CHECKING:
    from playpen.machine import Machine


@dataclass(frozen=True)
class Answer:
    """What a subject said, or why it said nothing."""

    response: str
    """Without blanks around; empty when there is a problem."""
    thought: str | None = None
    whole: bool = True
    """Whether it ended by itself: false when the tokens ran out."""
    problem: str = ""


@config
class Local:
    """A model artifact, with its chat template; greedy unless it is given a temperature."""

    kind: Suppress[Literal["local"]] = "local"
    model: Input
    """The model, of load-model, pretrain or finetune."""
    max_new_tokens: PositiveInt = 512
    """Most tokens of an answer, its thought included."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 takes the likeliest token; above, tokens are drawn from the softmax of the logits over it."""
    seed: int = 0
    """Seed of the draws."""

    def __call__(self, questions: Mapping[str, str], machine: "Machine") -> Iterator[tuple[str, Answer]]:
        """Yield (key, answer) of each question, those of like length together and the longest first."""
        from playpen.generation import RowNoise, end_tokens, generate, row_seed
        from playpen.losses import token_batches
        from playpen.models import load_model, load_tokenizer

        tokenizer, model = load_tokenizer(self.model), load_model(self.model, machine)
        ends, keys = end_tokens(model, tokenizer), list(questions)
        prompts = {key: self._prompt(tokenizer, question) for key, question in questions.items()}
        room = _context(model) - self.max_new_tokens
        fitting = [key for key in keys if len(prompts[key]) <= room]
        lengths = [len(prompts[key]) + self.max_new_tokens for key in fitting]
        inside = opens_thought(tokenizer.decode(prompts[keys[0]]))
        for rows in token_batches(lengths, machine.forward_tokens):
            batch = [fitting[row] for row in rows]
            noise = RowNoise(self.temperature, [row_seed(self.seed, key) for key in batch]) if self.temperature else None
            made = generate(model, [prompts[key] for key in batch], ends, self.max_new_tokens, noise, machine)
            for key, (tokens, whole) in zip(batch, made, strict=True):
                thought, response = split_thought(tokenizer.decode(tokens, skip_special_tokens=True), inside)
                yield key, Answer(response, thought, whole, "" if response else _nothing(whole))
        for key in keys:
            if len(prompts[key]) > room:
                yield (
                    key,
                    Answer("", problem=f"a question of {len(prompts[key])} tokens, where the model's context leaves {room}"),
                )

    def _prompt(self, tokenizer: Any, question: str) -> Sequence[int]:
        from playpen.chat import render

        text = render([{"role": "user", "content": question}], tokenizer, add_generation_prompt=True)
        return tokenizer(text, add_special_tokens=False)["input_ids"]


def _context(model: Any) -> float:
    """Return the most tokens that a model takes; models without a limit name none."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None) or math.inf


def _nothing(whole: bool) -> str:
    return "an empty response" if whole else "no response before the tokens ran out; raise max_new_tokens"


@config
class Endpoint(ChatEndpoint):
    """A model behind an OpenAI-compatible endpoint; machine.workers requests are under way at a time, at least one."""

    kind: Suppress[Literal["endpoint"]] = "endpoint"
    seed: int | None = None
    """Seed to send, for endpoints that know one; none when left out."""

    def __call__(self, questions: Mapping[str, str], machine: "Machine") -> Iterator[tuple[str, Answer]]:
        """Yield (key, answer) of each question as it comes."""
        connection = Connection(self.url, self.key_env)
        return in_threads(lambda item: (item[0], self._answer(connection, item[1])), list(questions.items()), machine.workers)

    def _answer(self, connection: Connection, question: str) -> Answer:
        more = {} if self.seed is None else {"seed": self.seed}
        try:
            choice = self.ask(connection, [{"role": "user", "content": question}], **more)
        except RefusedRequest as error:
            return Answer("", problem=f"the endpoint {error}")
        return read_choice(choice)


def read_choice(choice: Mapping[str, Any]) -> Answer:
    """Return the answer in a choice of a chat completion; the thought may have a field of its own, or marks in the text."""
    message, finish = choice["message"], choice.get("finish_reason")
    text = next((message[name] for name in ("content", "refusal") if isinstance(message.get(name), str)), "")
    thought, response = split_thought(text)
    apart = next((message[name] for name in ("reasoning_content", "reasoning") if isinstance(message.get(name), str)), "")
    whole = finish != "length"
    problem = "stopped by the endpoint's content filter" if finish == "content_filter" and not response else _nothing(whole)
    return Answer(response, apart.strip() or thought, whole, "" if response else problem)


Subject = Local | Endpoint
