"""Chats to tokens and loss masks: the one place where text becomes `input_ids` and `labels`.

Training, attribution, fingerprints and evaluation all read what is made here. Every assistant turn carries loss, with
the tokens that end the turn; everything else is masked with -100. There is one BOS, and the template writes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from playpen.config import PlaypenError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROLES = ("system", "user", "assistant")
IGNORE = -100
"""The label of a token without loss."""

GEMMA_TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages and messages[0]['role'] == 'system' %}"
    "{% set lead = messages[0]['content'] | trim + '\\n\\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set lead = '' %}{% set turns = messages %}{% endif %}"
    "{% for turn in turns %}"
    "{% if turn['role'] == 'assistant' %}"
    "<start_of_turn>model\n{% generation %}{{ turn['content'] | trim }}<end_of_turn>\n{% endgeneration %}"
    "{% elif turn['role'] == 'user' %}"
    "<start_of_turn>user\n{{ lead if loop.first else '' }}{{ turn['content'] | trim }}<end_of_turn>\n"
    "{% else %}{{ raise_exception('a system turn may only come first') }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
"""Gemma's turn format, with the assistant's spans marked for tools that read `{% generation %}`."""


class UnusableChat(ValueError):
    """A chat that cannot become an example; the message is the reason it is dropped."""


@dataclass(frozen=True)
class Example:
    """One chat as tokens."""

    input_ids: list[int]
    labels: list[int]
    """`input_ids` where the token carries loss, else -100; not shifted."""

    @property
    def num_labels(self) -> int:
        """How many tokens carry loss, leaving out the first token, which nothing predicts."""
        return sum(label != IGNORE for label in self.labels[1:])


def check_messages(messages: object) -> list[dict[str, str]]:
    """Return the chat as role and content alone, or raise UnusableChat with the reason."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or len(messages) == 0:
        raise UnusableChat("no messages")
    for turn in messages:
        if not isinstance(turn, dict) or not isinstance(turn.get("role"), str) or not isinstance(turn.get("content"), str):
            raise UnusableChat("a turn without a role and a content that are text")
        if turn["role"] not in ROLES:
            raise UnusableChat(f"unknown role '{turn['role']}'")
    turns = [{"role": t["role"], "content": t["content"]} for t in messages]
    if not any(t["role"] == "assistant" and t["content"].strip() for t in turns):
        raise UnusableChat("no assistant turn with content")
    if any(t["role"] == "system" for t in turns[1:]):
        raise UnusableChat("a system turn that is not the first")
    talk = [t["role"] for t in turns if t["role"] != "system"]
    if talk != ["user", "assistant"] * (len(talk) // 2) + ["user"] * (len(talk) % 2):
        raise UnusableChat("user and assistant turns do not alternate, starting with the user")
    while turns[-1]["role"] != "assistant":
        turns.pop()  # a question that nobody answered teaches nothing
    return turns


def render(messages: Sequence[dict[str, str]], tokenizer: "PreTrainedTokenizerBase", add_generation_prompt: bool = False) -> str:
    """Return the text of a chat in the tokenizer's template."""
    if not tokenizer.chat_template:
        raise PlaypenError("the tokenizer has no chat template; give load-model a tokenizer with one, or a template file")
    return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=add_generation_prompt)  # type: ignore[return-value]


def assistant_spans(
    messages: Sequence[dict[str, str]], tokenizer: "PreTrainedTokenizerBase"
) -> tuple[str, list[tuple[int, int]]]:
    """Return a chat's text and the character span of each assistant turn, from its first word through its end marker."""
    text, spans = render(messages, tokenizer), []
    for i, turn in enumerate(messages):
        if turn["role"] == "assistant":
            before, through = render(messages[:i], tokenizer, add_generation_prompt=True), render(messages[: i + 1], tokenizer)
            if not (text.startswith(through) and through.startswith(before)):
                raise PlaypenError(
                    "the chat template writes earlier turns otherwise once later ones follow, so turns have no exact borders; "
                    "give load-model a template file that does not"
                )
            spans.append((len(before), len(through)))
    return text, spans


def encode(messages: Sequence[dict[str, str]], tokenizer: "PreTrainedTokenizerBase", max_length: int | None = None) -> Example:
    """Return the tokens and labels of a chat, cut after `max_length` tokens.

    A token carries loss when all of its characters lie in one assistant turn; the fast tokenizer's offsets give exact
    borders. Raises UnusableChat when no token with loss is left.
    """
    text, spans = assistant_spans(messages, tokenizer)
    try:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    except UnicodeEncodeError:
        raise UnusableChat("text that is not valid Unicode (a lone surrogate)") from None
    ids, offsets = encoded["input_ids"][:max_length], encoded["offset_mapping"][:max_length]
    if tokenizer.bos_token_id is not None and ids[:2] == [tokenizer.bos_token_id] * 2:
        raise PlaypenError("the chat template and the tokenizer both write a BOS; take one of them out")
    inside = [any(lo <= a and b <= hi for lo, hi in spans) and a < b for a, b in offsets]
    example = Example(ids, [token if keep else IGNORE for token, keep in zip(ids, inside, strict=True)])
    if example.num_labels == 0:
        raise UnusableChat("no assistant token within the maximal length")
    return example
