"""Ways of doing the same work, timed in turns, and the least time in which the machine could do it.

Seconds are the clock's and the processor's. On a machine that others use too the latter are the fairer measure, with one thread
(OMP_NUM_THREADS=1); on a GPU they say nothing.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

SIDE = 2048
"""Rows and columns of the matrices by which the machine's speed is measured."""

Seconds = tuple[float, float]
"""By the clock, and by the processor."""

Rounds = dict[str, list[Seconds]]
"""The seconds of each way, one a round."""


def seconds_of(work: Callable[[], Any]) -> Seconds:
    """Return the seconds that a call takes."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def least_seconds(operations: float, read: float, model: Any) -> Seconds:
    """Return the seconds of so many operations at the speed of a product of two square matrices, in the model's number format.

    Where reading `read` bytes at the speed of a copy takes longer, return the seconds of that.
    """
    square = torch.ones((SIDE, SIDE), dtype=model.dtype, device=model.device)
    product = _median(lambda: (square @ square)[0, 0].item())
    copy = _median(lambda: square.clone()[0, 0].item())
    shares = operations / (2 * SIDE**3), read / (2 * square.nbytes)
    return max(shares[0] * product[0], shares[1] * copy[0]), max(shares[0] * product[1], shares[1] * copy[1])


def _median(work: Callable[[], Any]) -> Seconds:
    work()
    clock, processor = zip(*(seconds_of(work) for _ in range(5)), strict=True)
    return statistics.median(clock), statistics.median(processor)


def in_turns(ways: Mapping[str, Callable[[], Any]], floor: Callable[[], Seconds], rounds: int) -> Rounds:
    """Time every way once a round, after a round that does not count, and print each round; the floor is measured in each."""
    found: Rounds = {who: [] for who in ("floor", *ways)}
    for i in range(rounds + 1):
        now = {"floor": floor(), **{who: seconds_of(work) for who, work in ways.items()}}
        for who, seconds in now.items():
            found[who] += [seconds] if i else []
        told = "".join(f"   {who} {clock:.2f} s ({processor:.2f})" for who, (clock, processor) in now.items())
        print(f"{i or 'warm':>4}{told}", flush=True)
    return found


def print_table(rounds: Rounds, tokens: int) -> None:
    """Print each way's medians: tokens a second, seconds by the clock and by the processor, and its share of the floor's speed."""
    print(f"\n{'':16}{'tokens/s':>10}{'seconds':>10}{'processor':>11}{'of floor':>10}")
    least = statistics.median(clock for clock, _ in rounds["floor"])
    for who, found in rounds.items():
        clock, processor = (statistics.median(seconds[i] for seconds in found) for i in (0, 1))
        print(f"{who:16}{tokens / clock:10.0f}{clock:10.2f}{processor:11.2f}{least / clock:10.2f}")


def ratio(rounds: Rounds, who: str, which: int = 0) -> float:
    """Return the median over rounds of another's seconds over ours, by the clock (0) or the processor (1)."""
    return statistics.median(other[which] / own[which] for own, other in zip(rounds["ours"], rounds[who], strict=True))
