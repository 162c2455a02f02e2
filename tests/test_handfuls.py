"""Items in handfuls: each is done once, whatever fails, and only quick ones are put together."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wetmap.cluster import handfuls
from wetmap.cluster.handfuls import Handful, InHandfuls, in_handfuls


def here(function: InHandfuls[Any, Any], hands: Iterator[Handful[Any]]) -> Iterator[tuple[Any, Any]]:
    """One worker, which is handed the next handful before the answer to the one before it is looked at."""
    waiting = next(hands, None)
    while waiting is not None:
        mine, answer = waiting, outcome(function, waiting)
        waiting = next(hands, None)
        yield mine, answer


def outcome(function: Callable[[Any], Any], items: Any) -> Any:
    try:
        return function(items)
    except ValueError as error:
        return error


@given(st.integers(0, 700), st.sets(st.integers(0, 699), max_size=8))
@settings(max_examples=30, deadline=None)
def test_every_item_has_one_answer_whatever_fails(count: int, bad: set[int]) -> None:
    def double(item: int) -> int:
        if item in bad:
            raise ValueError(item)
        return 2 * item

    found = [pair for pairs in in_handfuls(here, double, range(count)) for pair in pairs]
    assert Counter(item for item, _ in found) == Counter(range(count))
    for item, result in found:
        assert isinstance(result, ValueError) if item in bad else result == 2 * item


def test_quick_items_come_together_and_never_too_many() -> None:
    sizes = [len(pairs) for pairs in in_handfuls(here, str, range(5000))]
    assert sizes[:4] == [1, 1, 2, 2] or sizes[:3] == [1, 1, 2]
    assert max(sizes) == handfuls.MOST
    assert len(sizes) < 60


def test_slow_items_go_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handfuls, "HANDFUL_S", 0.002)
    sizes = [len(pairs) for pairs in in_handfuls(here, lambda _: time.sleep(0.003), range(10))]
    assert sizes == [1] * 10


def test_a_handful_ends_when_its_time_is_over_and_the_rest_is_done_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handfuls, "HANDFUL_S", 0.01)
    slow = set(range(100, 110))

    def work(item: int) -> int:
        time.sleep(0.02 if item in slow else 0)
        return item

    longest, done = 0, []
    for pairs in in_handfuls(here, work, range(120)):
        longest = max(longest, sum(item in slow for item, _ in pairs))
        done += [item for item, _ in pairs]
    assert sorted(done) == list(range(120))
    assert longest == 1


def test_items_are_taken_as_they_are_needed() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(10_000):
            taken += 1
            yield number

    stream = in_handfuls(here, str, items())
    next(stream)
    assert taken <= 2
