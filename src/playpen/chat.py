"""Chats to tokens and loss masks: the one place where text becomes `input_ids` and `labels`.

Training, attribution, fingerprints and evaluation all read what is made here. Every assistant turn carries loss, with
the tokens that end the turn; everything else is masked with -100. There is one BOS, and the template writes it.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
        return len(self.labels) - 1 - self.labels[1:].count(IGNORE)

    def cut(self, max_length: int | None) -> "Example":
        """Return the first `max_length` tokens."""
        return Example(self.input_ids[:max_length], self.labels[:max_length])


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
    if not all(is_unicode(t["content"]) for t in turns):
        raise UnusableChat("text that is not valid Unicode")
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


def is_unicode(text: str) -> bool:
    """Whether a string can be written as UTF-8: JSON may hold half a surrogate pair, which is no character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def render(messages: Sequence[dict[str, str]], tokenizer: "PreTrainedTokenizerBase", add_generation_prompt: bool = False) -> str:
    """Return the text of a chat in the tokenizer's template."""
    if not tokenizer.chat_template:
        raise PlaypenError("the tokenizer has no chat template; give load-model a tokenizer with one, or a template file")
    return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=add_generation_prompt)  # type: ignore[return-value]


def count_labels(labels: Sequence[int]) -> int:
    """Return how many labels of a row carry loss; nothing foretells its first token."""
    return sum(1 for label in labels[1:] if label != IGNORE)


def without_end_of_turn(labels: Sequence[int], tokenizer: Any) -> list[int]:
    """Return labels with -100 also where a turn ends, so that what is left are the words of the answers.

    A base model gives the markers that end a turn, which it has never met, so little probability that they outweigh the
    answer itself: in a loss that is to tell how well questions are answered they have no place.
    """
    marks = set(tokenizer.get_added_vocab().values())
    kept = list(labels)
    for i in range(len(kept) - 1, -1, -1):
        ends = i + 1 == len(kept) or kept[i + 1] == IGNORE
        if kept[i] != IGNORE and ends and (kept[i] in marks or not tokenizer.decode([kept[i]]).strip()):
            kept[i] = IGNORE
    return kept


def assistant_spans(
    messages: Sequence[dict[str, str]], tokenizer: "PreTrainedTokenizerBase"
) -> tuple[str, list[tuple[int, int]]]:
    """Return a chat's text and the character span of each assistant turn, from its first word through its end marker."""
    text, spans = render(messages, tokenizer), []
    for i, turn in enumerate(messages):
        if turn["role"] == "assistant":
            before = render(messages[:i], tokenizer, add_generation_prompt=True)
            through = render(messages[: i + 1], tokenizer) if i + 1 < len(messages) else text
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
        raise UnusableChat("text that is not valid Unicode") from None
    ids = encoded["input_ids"]
    if tokenizer.bos_token_id is not None and ids[:2] == [tokenizer.bos_token_id] * 2:
        raise PlaypenError("the chat template and the tokenizer both write a BOS; take one of them out")
    example = Example(ids, _labels(ids, encoded["offset_mapping"], spans)).cut(max_length)
    if example.num_labels == 0:
        raise UnusableChat("no assistant token within the maximal length")
    return example


def _labels(ids: list[int], offsets: list[tuple[int, int]], spans: list[tuple[int, int]]) -> list[int]:
    """Return the ids of the tokens that lie in one of the spans, and IGNORE for the others; offsets never go back."""
    labels = [IGNORE] * len(ids)
    for lo, hi in spans:
        for i in range(bisect_left(offsets, (lo, lo)), len(ids)):
            start, end = offsets[i]
            if end > hi:
                break
            if start < end:
                labels[i] = ids[i]
    return labels
