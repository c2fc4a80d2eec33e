"""Thoughts and responses: what a model thought before it responded is kept apart from what it said."""

MARKS = (("<think>", "</think>"), ("◁think▷", "◁/think▷"))
"""What opens and closes a thought: Qwen 3, DeepSeek R1 and most others; Kimi."""


def opens_thought(text: str) -> bool:
    """Whether a text ends inside a thought: some chat templates open one for the model."""
    return any(text.rfind(start) > text.rfind(end) for start, end in MARKS)


def split_thought(text: str, inside: bool = False) -> tuple[str | None, str]:
    """Return (thought, response) of a model's output, both without blanks around; the thought is None where there is none.

    A thought is what stands between the marks at the start, or before a closing mark whose opening one was in the prompt. One
    that is never closed, as when the tokens ran out, takes all of the text: there is no response then. `inside` says that the
    prompt opened a thought.
    """
    for start, end in MARKS:
        opened = text.lstrip().startswith(start)
        if not (opened or end in text):
            continue
        thought, closed, response = text.partition(end)
        if opened or (closed and start not in thought):
            return thought.strip().removeprefix(start).strip() or None, response.strip()
    return (text.strip() or None, "") if inside else (None, text.strip())
