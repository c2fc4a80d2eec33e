"""Progress: a bar on a terminal, a line a minute in a log, and nothing of what is soon done."""

import io

import pytest

from playpen import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until it is set, and is read by tqdm."""
    now = [1000.0]
    monkeypatch.setattr(progress.std, "time", lambda: now[0])
    return now


def work(stream: io.StringIO, clock: list[float], steps: int, seconds: float) -> str:
    with progress.tqdm(total=steps, desc="train", unit="token", disable=None, mininterval=1, file=stream) as bar:
        bar._time = lambda: clock[0]
        for _ in range(steps):
            clock[0] += seconds
            bar.update()
    return stream.getvalue()


def test_a_log_gets_a_line_a_minute_with_what_is_done_and_left(clock: list[float]) -> None:
    lines = work(io.StringIO(), clock, 30, 10).splitlines()
    assert len(lines) == 5
    assert lines[0] == "  train: 20%, 6 of 30 tokens, 01:00 so far, 04:00 to go"
    assert all("\r" not in line for line in lines)


def test_what_is_done_within_a_minute_leaves_a_log_alone(clock: list[float]) -> None:
    assert work(io.StringIO(), clock, 30, 1) == ""


def test_a_terminal_gets_tqdms_own_bar(clock: list[float]) -> None:
    assert "\rtrain: 100%|" in work(Terminal(), clock, 30, 10)
