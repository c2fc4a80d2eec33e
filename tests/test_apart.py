"""Work in a process of its own: what ends it ends nothing else, and it ends with who asked for it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from playpen.apart import run_apart
from playpen.config import PlaypenError
from playpen.free_memory import free_memory

MB = 1 << 20


def hold(size: int) -> int:
    return len(bytearray(b"x") * size)


def die(_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def write_own_number(file: str) -> None:
    Path(file).write_text(str(os.getpid()))
    time.sleep(600)


def refuse(what: str) -> None:
    raise PlaypenError(f"{what} is no model")


def runs(number: str) -> bool:
    """Say whether a process still runs; one that has ended may stand in the list until somebody asks for its status."""
    status = Path("/proc", number, "status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_work_apart_returns_its_value_and_the_most_it_held() -> None:
    ended = run_apart(hold, 200 * MB)
    assert (ended.how, ended.value) == ("done", 200 * MB)
    assert 200 * MB < ended.peak < 500 * MB


def test_a_process_that_the_system_kills_leaves_this_one_alive() -> None:
    assert run_apart(die, None).how == "killed"


def test_a_mistake_of_the_users_is_the_same_line_here() -> None:
    with pytest.raises(PlaypenError, match=r"^runs/x is no model$"):
        run_apart(refuse, "runs/x")


def test_work_ends_when_the_process_that_asked_for_it_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "number"
    driver = f"import test_apart; test_apart.run_apart(test_apart.write_own_number, {str(file)!r})"
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    asker = subprocess.Popen([sys.executable, "-c", driver], env={**os.environ, "PYTHONPATH": path})
    while not (file.exists() and file.read_text()):
        assert asker.poll() is None
        time.sleep(0.02)
    asker.kill()
    asker.wait()
    while runs(file.read_text()):  # the test's own time limit fails it
        time.sleep(0.02)


def test_what_is_free_is_no_more_than_any_control_group_around_leaves(tmp_path: Path) -> None:
    """Version 2 with a limit of 8 GB in the middle, whose caches could be given up; version 1 with one of 4 GB at the root."""
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 32000000 kB\nMemAvailable: 16000000 kB\n")
    assert free_memory(proc, groups) == 16_000_000 * 1024
    (proc / "self" / "cgroup").write_text("3:cpuset:/\n0::/job/step\n")
    limits = {"": "max", "job": "8000000000", "job/step": "max"}
    for name, limit in limits.items():
        folder = groups / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in (("memory.max", limit), ("memory.current", "3000000000"), ("memory.stat", "inactive_file 500000000\n")):
            (folder / file).write_text(text)
    assert free_memory(proc, groups) == 8_000_000_000 - 3_000_000_000 + 500_000_000
    (proc / "self" / "cgroup").write_text("4:memory:/elsewhere\n")
    (groups / "memory").mkdir()
    for file, text in (
        ("memory.limit_in_bytes", "4000000000"),
        ("memory.usage_in_bytes", "1000000000"),
        ("memory.stat", "total_inactive_file 0\n"),
    ):
        (groups / "memory" / file).write_text(text)
    assert free_memory(proc, groups) == 3_000_000_000
