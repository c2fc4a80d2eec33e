"""Thoughts are kept apart from responses, whatever mark they carry and wherever they were opened."""

import pytest

from playpen.thoughts import opens_thought, split_thought


@pytest.mark.parametrize(
    ("text", "inside", "thought", "response"),
    [
        ("It was.", False, None, "It was."),
        ("<think>\nHm.\n</think>\n\nIt was.", False, "Hm.", "It was."),
        ("  <think></think>It was.", False, None, "It was."),
        ("◁think▷Hm.◁/think▷It was.", False, "Hm.", "It was."),
        ("Hm.</think>It was.", False, "Hm.", "It was."),
        ("Hm.\n</think>\nIt was.", True, "Hm.", "It was."),
        ("<think>Hm, and hm", False, "Hm, and hm", ""),
        ("Hm, and hm", True, "Hm, and hm", ""),
        ("<think>Hm.</think>", False, "Hm.", ""),
        ("The mark <think> opens and </think> closes.", False, None, "The mark <think> opens and </think> closes."),
        ("", False, None, ""),
    ],
)
def test_a_thought_ends_where_its_mark_says(text, inside, thought, response):
    assert split_thought(text, inside) == (thought, response)


def test_a_prompt_that_opens_a_thought_is_known():
    assert opens_thought("<user>Why?<assistant><think>\n")
    assert not opens_thought("<user>Why?<assistant><think>\n\n</think>\n\n")
    assert not opens_thought("<user>Why?<assistant>")
