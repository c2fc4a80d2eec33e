"""The stage export-selection: the user's rows come back as they were, best first, with the reason."""

import json
from pathlib import Path

import pytest
import tiny

from playpen.config import PlaypenError, to_plain
from playpen.machine import Machine
from playpen.selection_rules import Longest
from playpen.stages import export_selection, select
from playpen.tables import read_table

ROWS = 12


@pytest.fixture
def home(tmp_path: Path) -> Path:
    base = tiny.tiny_base(tmp_path / "base")
    chats = [tiny.make_chat(seed) for seed in range(ROWS)]
    raw = [json.dumps({"prompt": c[0]["content"], "completion": c[1]["content"], "mine": i}) for i, c in enumerate(chats)]
    tiny.tiny_data(tmp_path / "data", base, {"pool": tiny.data_table(chats, raw=raw)})
    choice = select.Config(data=str(tmp_path / "data"), method=Longest(k=4))
    tiny.write_artifact(tmp_path / "chosen", "select", lambda out: select.run(choice, out, Machine()), to_plain(choice))
    return tmp_path


def export(home: Path, out: str = "out", **fields: object) -> Path:
    config = export_selection.Config(selection=str(home / "chosen"), data=str(home / "data"), **fields)
    (home / out).mkdir()
    export_selection.run(config, home / out, Machine())
    return home / out


def test_each_row_comes_back_with_its_own_fields_in_order_of_rank(home: Path) -> None:
    rows = [json.loads(line) for line in (export(home) / "selected.jsonl").read_text().splitlines()]
    originals = {row["row_id"]: json.loads(row["raw"]) for row in read_table(home / "data", "pool").to_dict("records")}
    assert [row["playpen"]["rank"] for row in rows] == [1, 2, 3, 4]
    for row in rows:
        why = row.pop("playpen")
        assert row == originals[why["row_id"]]
        assert "answer tokens" in why["reason"]


def test_what_was_rejected_is_listed_with_the_reason(home: Path) -> None:
    lines = (export(home) / "rejected.csv").read_text().splitlines()
    assert len(lines) == 1 + ROWS - 4
    assert "the last kept has" in lines[1]


def test_the_data_card_tells_counts_and_method(home: Path) -> None:
    card = (export(home) / "README.md").read_text()
    assert "4 chats" in card
    assert f"out of {ROWS}" in card
    assert '"kind": "longest"' in card


def test_a_selection_from_other_data_is_refused(home: Path) -> None:
    tiny.tiny_data(home / "other", home / "base", {"pool": 5}, seed=7)
    config = export_selection.Config(selection=str(home / "chosen"), data=str(home / "other"))
    with pytest.raises(PlaypenError, match="have no partner"):
        export_selection.ranked_rows(config)
