"""Shards: the same files from a loop and from workers, whole or after a kill, one shard at a time."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sharded
import torch

from playpen.config import PlaypenError
from playpen.shards import Job, _Worker, cut
from playpen.tables import count_rows, iter_pieces, iter_table, read_rows, read_table, write_table

SIZES = (25, 7, 10)
"""Rows of the files of the table."""


def write_numbers(home: Path, first: int = 0) -> Path:
    """Write a table of three files."""
    for i, size in enumerate(SIZES):
        numbers = range(first, (first := first + size))
        table = pa.table({"row_id": [f"{n:016x}" for n in numbers], "number": list(numbers), "unread": ["x"] * size})
        write_table(home / "numbers" / f"shard-{i:05d}.parquet", table)
    return home


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_numbers(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made")
    sharded.double(source, out)
    return out


def files(out: Path) -> dict[str, bytes]:
    return {f"{file.parent.name}/{file.name}": file.read_bytes() for file in out.glob("*/shard-*.parquet")}


def test_shards_are_cut_within_files_and_numbered_through_them(source: Path) -> None:
    found = [(shard.number, shard.file.name, shard.start, shard.rows) for shard in cut(source, ("numbers",), 10)]
    names = [f"shard-0000{i}.parquet" for i in range(3)]
    assert found == [
        *((0, names[0], 0, 10), (1, names[0], 10, 10), (2, names[0], 20, 5)),
        *((3, names[1], 0, 7), (4, names[2], 0, 10)),
    ]


def test_the_rows_of_a_shard_are_those_that_a_reading_of_the_whole_gives(source: Path) -> None:
    pieces = list(iter_table(source, "numbers", 10, ["number"]))
    shards = cut(source, ("numbers",), 10)
    assert [read_rows(s.file, s.start, s.rows, ["number"]).to_pydict() for s in shards] == [piece.to_pydict() for piece in pieces]


def test_rows_are_found_across_row_groups(tmp_path: Path) -> None:
    pq.write_table(pa.table({"number": range(20)}), tmp_path / "groups.parquet", row_group_size=3)
    assert read_rows(tmp_path / "groups.parquet", 4, 7).to_pydict() == {"number": [4, 5, 6, 7, 8, 9, 10]}


def test_pieces_of_any_size_are_found_across_row_groups_in_one_reading(tmp_path: Path) -> None:
    pq.write_table(pa.table({"number": range(20)}), tmp_path / "groups.parquet", row_group_size=3)
    pieces = iter_pieces(tmp_path / "groups.parquet", [7, 1, 7, 5], ["number"])
    assert [piece["number"].to_pylist() for piece in pieces] == [[*range(7)], [7], [*range(8, 15)], [*range(15, 20)]]


def test_the_loop_opens_a_file_once_however_many_shards_lie_in_it(
    source: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, real = [], pq.ParquetFile
    monkeypatch.setattr(pq, "ParquetFile", lambda file: opened.append(file) or real(file))
    sharded.double(source, tmp_path)
    assert len(opened) == len(SIZES) < len(cut(source, ("numbers",), 10))
    assert files(tmp_path) == files(made)


def test_every_shard_becomes_a_file_of_each_table_under_its_number(made: Path) -> None:
    assert sorted(files(made)) == [f"{table}/shard-0000{i}.parquet" for table in ("double", "half") for i in range(5)]
    assert read_table(made, "double")["twice"].tolist() == [2 * n for n in range(sum(SIZES))]


def test_a_whole_shard_is_counted_but_not_made_again(source: Path, made: Path, tmp_path: Path) -> None:
    assert sharded.double(source, tmp_path) == {"rows": 42, "fresh": 42}
    (tmp_path / "double" / "shard-00003.parquet").unlink()
    os.utime(tmp_path / "double" / "shard-00002.parquet", (1, 1))
    for file in (tmp_path / "opened").iterdir():
        file.unlink()
    assert sharded.double(source, tmp_path) == {"rows": 42, "fresh": 7}
    assert (tmp_path / "double" / "shard-00002.parquet").stat().st_mtime == 1
    assert files(tmp_path) == files(made)


def test_a_few_shards_are_held_at_once_however_many_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, held = 20_000, []
    for i in range(40):
        numbers = range(rows * i, rows * (i + 1))
        write_table(
            tmp_path / "numbers" / f"shard-{i:05d}.parquet",
            pa.table({"row_id": [f"{n:016x}" for n in numbers], "number": list(numbers)}),
        )
    real = sharded.Double.__call__

    def measured(self: sharded.Double, table: pa.Table) -> dict[str, pa.Table]:
        held.append(pa.total_allocated_bytes() - before)
        return real(self, table)

    monkeypatch.setattr(sharded, "ROWS", rows)
    monkeypatch.setattr(sharded.Double, "__call__", measured)
    one, before = read_rows(tmp_path / "numbers" / "shard-00000.parquet", 0, rows).nbytes, pa.total_allocated_bytes()
    sharded.double(tmp_path, tmp_path / "out")
    assert len(held) == 40
    assert one / 2 < max(held) < 12 * one  # one is read, one written with what becomes of it, and both need room to do it


def test_a_mistake_ends_the_work_and_keeps_the_shards_before_it(tmp_path: Path) -> None:
    home = write_numbers(tmp_path / "source", first=-1)
    with pytest.raises(PlaypenError, match="a number is below 0"):
        sharded.double(home, tmp_path / "out")
    write_numbers(tmp_path / "source")
    assert sharded.double(home, tmp_path / "other") == {"rows": 42, "fresh": 42}


def test_without_ray_workers_are_refused_in_one_line(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PlaypenError, match=r"machine.ray_workers is 2, which needs Ray: install the extra 'ray'"):
        sharded.double(source, tmp_path, workers=2)


def kill_midway(source: Path, out: Path, workers: int, seconds: float) -> int:
    """Start the work in a process of its own, kill it once some shards are whole, and return how many are."""
    command = [sys.executable, str(Path(__file__).with_name("sharded.py")), *map(str, (source, out, workers, seconds))]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        while process.poll() is None and not any(out.glob("double/shard-*")):
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
    return len(list(out.glob("double/shard-*")))


def test_a_killed_loop_ends_like_one_that_was_not(source: Path, made: Path, tmp_path: Path) -> None:
    assert 0 < kill_midway(source, tmp_path, workers=0, seconds=0.5) < 5
    found = sharded.double(source, tmp_path)
    assert 0 < found["fresh"] < found["rows"] == count_rows(source, "numbers")
    assert files(tmp_path) == files(made)


def test_what_a_worker_is_sent_can_be_pickled_and_makes_the_files_of_the_loop(source: Path, made: Path, tmp_path: Path) -> None:
    (tmp_path / "opened").mkdir()
    job = Job(partial(sharded.open_double, tmp_path / "opened", 0.0), ["row_id", "number"], tmp_path, ("half", "double"))
    worker = _Worker(*pickle.loads(pickle.dumps((job, cut(source, ("numbers",), 10), torch.get_num_threads()))))
    told = [worker({"number": np.array([number])}) for number in (3, 1, 0, 4, 2, 2)]
    assert [found["number"] for found in told] == [[3], [1], [0], [4], [2], [2]]
    counts = [json.loads(found["told"][0])["counts"] for found in told]
    assert [(each["rows"], each["fresh"]) for each in counts] == [(7, 7), (10, 10), (10, 10), (10, 10), (5, 5), (5, 0)]
    assert files(tmp_path) == files(made)
    assert len(list((tmp_path / "opened").iterdir())) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("ray_home")
def test_two_workers_write_the_bytes_of_the_loop_and_open_the_work_once_each(source: Path, made: Path, tmp_path: Path) -> None:
    assert sharded.double(source, tmp_path / "out", workers=2, seconds=0.5) == {"rows": 42, "fresh": 42}
    assert files(tmp_path / "out") == files(made)
    opened = {file.name for file in (tmp_path / "out" / "opened").iterdir()}
    assert len(opened) == 2
    assert str(os.getpid()) not in opened


@pytest.mark.slow
@pytest.mark.usefixtures("ray_home")
def test_killed_workers_end_like_a_loop_that_was_not_killed(source: Path, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert 0 < kill_midway(source, out, workers=2, seconds=10) < 5  # its workers end with it, or soon after
    found = sharded.double(source, out, workers=2)
    assert 0 < found["fresh"] < found["rows"]
    assert files(out) == files(made)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_home")
def test_the_mistake_of_a_worker_is_told_as_the_loop_tells_it(tmp_path: Path) -> None:
    home = write_numbers(tmp_path / "source", first=-1)
    with pytest.raises(PlaypenError) as told:
        sharded.double(home, tmp_path / "out", workers=2)
    assert str(told.value) == "a number is below 0; take it out"
