"""Tokens are readable as they stand in a text; data files hold what was given, in the same bytes each time."""

import gzip
import json

import numpy as np
import pytest
import tiny

from playpen.dashboard_data.scripts import read_packed, to_json, write_packed, write_plain
from playpen.dashboard_data.token_text import TokenText


def sentencepiece_like():
    """Return a tokenizer whose decoder drops the first space of a text, with bytes for what is no piece."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "a", "\u2581", "\u2581hat", "s", *(f"<0x{byte:02X}>" for byte in range(256))]
    raw = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, clean_up_tokenization_spaces=False), pieces


def test_the_texts_of_tokens_make_up_the_text():
    tokenizer = tiny.tokenizer()
    words = "Question 7: where is the red stone?\nIt  was there before."
    ids = np.array(tokenizer.encode(words, add_special_tokens=False))
    assert "".join(TokenText(tokenizer)(ids)) == words
    assert any(text.startswith(" ") for text in TokenText(tokenizer)(ids))


def test_part_of_a_character_shows_its_name_and_special_tokens_show_theirs():
    tokenizer = tiny.tokenizer()
    ids = np.array(tokenizer.encode("\N{PEACH}", add_special_tokens=False))
    text = TokenText(tokenizer)(ids)
    assert len(ids) > 1
    assert text == tokenizer.convert_ids_to_tokens(ids.tolist())
    assert all(text)
    assert TokenText(tokenizer)(np.array([tokenizer.bos_token_id])) == ["<bos>"]


def test_a_decoder_that_drops_the_first_space_does_not_lose_it():
    tokenizer, pieces = sentencepiece_like()
    assert tokenizer.decode([pieces.index("\u2581hat")]) == "hat"
    ids = np.array([pieces.index(piece) for piece in ("\u2581hat", "s", "<0xE2>", "<0x41>")])
    assert TokenText(tokenizer)(ids) == [" hat", "s", "<0xE2>", "A"]


def test_an_id_that_the_tokenizer_lacks_is_shown_as_a_number():
    assert TokenText(tiny.tokenizer())(np.array([5000])) == ["<5000>"]


def test_passages_are_whole_texts():
    tokenizer = tiny.tokenizer()
    ids = [np.array(tokenizer.encode(text, add_special_tokens=False)) for text in ("the red stone", "\N{PEACH} pie")]
    assert TokenText(tokenizer).passage(ids) == ["the red stone", "\N{PEACH} pie"]


HOSTILE = {"text": '</script><img src=x onerror=alert(1)>"\u2028\u202e\N{PEACH}\x00', "n": [1, None, 0.5]}


def test_packed_scripts_hold_what_was_given_and_nothing_that_ends_a_script(tmp_path):
    write_packed(tmp_path / "data" / "a.js", "shard", to_json(HOSTILE), 7)
    script = (tmp_path / "data" / "a.js").read_bytes()
    assert script.startswith(b'playpen.shard(7, "')
    assert script.endswith(b'");\n')
    assert b"<" not in script
    assert script.isascii()
    assert read_packed(tmp_path / "data" / "a.js") == HOSTILE
    write_packed(tmp_path / "b.js", "shard", to_json(HOSTILE), 7)
    assert (tmp_path / "b.js").read_bytes() == script
    assert gzip.compress(b"", mtime=0)[4:8] == bytes(4)


def test_plain_scripts_are_json_in_ascii(tmp_path):
    write_plain(tmp_path / "meta.js", "meta", HOSTILE)
    script = (tmp_path / "meta.js").read_text("ascii")
    assert json.loads(script.removeprefix("playpen.meta(").removesuffix(");\n")) == HOSTILE


def test_a_number_that_json_lacks_is_an_error_not_a_broken_page():
    with pytest.raises(ValueError, match="JSON"):
        to_json([float("nan")])
