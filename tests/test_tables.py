"""Row tables are joined by row_id without gaps or doubles, and say which row is wrong."""

import pandas as pd
import pytest

from playpen.config import PlaypenError
from playpen.tables import (
    check_row_ids,
    count_rows,
    iter_table,
    join,
    read_table,
    read_truth,
    row_id,
    running_stage,
    write_json,
    write_table,
)


def rows(*ids, **columns):
    return pd.DataFrame({"row_id": list(ids), **columns})


def test_the_row_id_of_a_chat_never_changes_and_knows_roles_and_order():
    chat = [{"role": "user", "content": "Wo ist der größte Turm?"}, {"role": "assistant", "content": "Dort."}]
    assert row_id(chat) == "77fac1342261f6dc"
    assert row_id(chat) == row_id([{"content": m["content"], "role": m["role"], "extra": 1} for m in chat])
    assert len({row_id(chat), row_id(chat[::-1]), row_id([{**m, "role": "user"} for m in chat])}) == 3


def test_a_join_keeps_the_order_of_the_left_and_matches_by_row_id():
    found = join(rows("b", "a", score=[1, 2]), rows("a", "c", "b", loss=[0.1, 0.2, 0.3]), "here")
    assert found.to_dict("list") == {"row_id": ["b", "a"], "score": [1, 2], "loss": [0.3, 0.1]}


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        (rows("a", "b", "c"), rows("a", "d"), "here: 2 of 3 rows have no partner, the first is row_id b; do the two tables"),
        (rows("a", "b", "b"), rows("a", "b"), r"here: row_id b stands twice \(1 doubles in all\)"),
        (rows("a"), rows("a", "a", "a"), r"here: row_id a stands twice \(2 doubles in all\)"),
    ],
)
def test_a_join_with_gaps_or_doubles_names_the_row(left, right, message):
    with pytest.raises(PlaypenError, match=message):
        join(left, right, "here")


def test_a_table_without_doubles_passes():
    check_row_ids(rows("a", "b"), "here")


def test_shards_are_read_as_one_table_in_their_order_and_in_pieces(tmp_path):
    for i, ids in enumerate(["abc", "de"]):
        write_table(tmp_path / "features" / f"shard-{i:05d}.parquet", rows(*ids))
    assert read_table(tmp_path, "features")["row_id"].tolist() == list("abcde")
    assert count_rows(tmp_path, "features") == 5
    pieces = [piece["row_id"].to_pylist() for piece in iter_table(tmp_path, "features", rows=2)]
    assert [row for piece in pieces for row in piece] == list("abcde")
    assert max(map(len, pieces)) == 2


def test_what_is_not_there_is_told_with_what_is(tmp_path):
    write_table(tmp_path / "pool.parquet", rows("a", score=[1]))
    with pytest.raises(PlaypenError, match="has no table 'test'; it holds pool"):
        read_table(tmp_path, "test")
    with pytest.raises(PlaypenError, match=r"pool.parquet has no column los, num; it has row_id, score"):
        read_table(tmp_path, "pool", ["row_id", "los", "num"])
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(PlaypenError, match=r"torn.parquet is not a readable Parquet file"):
        read_table(tmp_path, "torn")


def test_planted_truth_is_not_read_as_a_table_and_only_where_it_may_be_known(tmp_path):
    write_table(tmp_path / "truth.parquet", rows("a", skill=["sums"]), truth=True)
    with pytest.raises(PlaypenError, match="holds planted truth"):
        read_table(tmp_path, "truth")
    with pytest.raises(PlaypenError, match="holds planted truth"):
        next(iter_table(tmp_path, "truth", 10))
    token = running_stage.set("report")
    try:
        assert read_truth(tmp_path)["skill"].tolist() == ["sums"]
        assert read_truth(tmp_path / "elsewhere") is None
        with pytest.raises(PlaypenError, match="holds planted truth"):
            read_table(tmp_path, "truth")
    finally:
        running_stage.reset(token)


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path):
    write_json(tmp_path / "metrics.json", {"loss": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", {"loss": float("nan")})
    assert (tmp_path / "metrics.json").read_text() == '{\n  "loss": 1\n}\n'


def test_the_same_table_is_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_table(tmp_path / f"{name}.parquet", rows("a", "b", score=[0.5, None]))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
