"""The journal: what was written is there after a kill, half a last line is not."""

import pytest

from playpen.config import PlaypenError
from playpen.journal import Journal


def test_what_was_added_is_found_again(tmp_path):
    with Journal(tmp_path / "a" / "j.jsonl") as journal:
        journal.add("x", {"text": "first\nsecond — 答"})
        journal.add("y", {"text": None})
    with Journal(tmp_path / "a" / "j.jsonl") as journal:
        assert journal.found == {"x": {"text": "first\nsecond — 答"}, "y": {"text": None}}


def test_a_result_is_on_its_way_to_the_disk_before_the_next(tmp_path):
    with Journal(tmp_path / "j.jsonl") as journal:
        journal.add("x", {"n": 1})
        assert (tmp_path / "j.jsonl").read_bytes() == b'{"key": "x", "n": 1}\n'


@pytest.mark.parametrize("half", [b'{"key": "y", "n"', b'{"key": "y", "n": 2}', b"\x00\x00", '{"key": "é'.encode()[:-1]])
def test_a_last_line_without_its_end_is_dropped_and_written_anew(tmp_path, half):
    file = tmp_path / "j.jsonl"
    file.write_bytes(b'{"key": "x", "n": 1}\n' + half)
    with Journal(file) as journal:
        assert journal.found == {"x": {"n": 1}}
        journal.add("y", {"n": 3})
    assert file.read_bytes() == b'{"key": "x", "n": 1}\n{"key": "y", "n": 3}\n'


@pytest.mark.parametrize("line", [b"{", b"[1]", b'{"n": 1}'])
def test_a_damaged_line_before_the_last_is_one_line(tmp_path, line):
    (tmp_path / "j.jsonl").write_bytes(b'{"key": "x"}\n' + line + b'\n{"key": "y"}\n')
    with pytest.raises(PlaypenError, match=r"j\.jsonl, line 2 is damaged"):
        Journal(tmp_path / "j.jsonl")
