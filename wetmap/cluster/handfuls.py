"""Quick items go to workers in handfuls, so that a task's own cost is shared among them; slow ones go one by one.

Handing out a task and writing down that it is done costs milliseconds: nothing beside a block that is worked on, and
everything beside thousands that are empty. A handful ends when its time is over, whatever it still holds.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic

from wetmap.cluster.stream import Item, Result, take

#: Seconds that a handful may take. An item that takes longer is a handful of its own.
HANDFUL_S = 0.05
#: Most items of a handful: what is done in one and not yet written down is done again after a kill.
MOST = 256

Handful = tuple[Item, ...]
#: Runs a function on every handful, and gives each answer, or the exception, as it comes.
Run = Callable[
    ["InHandfuls[Item, Result]", Iterator[Handful[Item]]],
    Iterator[tuple[Handful[Item], "Handled[Result] | BaseException"]],
]
Pairs = list[tuple[Item, Result | BaseException]]


@dataclass(frozen=True)
class Handled(Generic[Result]):
    """What became of a handful."""

    done: tuple[Result, ...]
    """Results of its first items, at least one; for the others there was no time."""
    seconds: float
    """Seconds that they took."""


@dataclass(frozen=True)
class InHandfuls(Generic[Item, Result]):
    """A function of one item as one of a handful. It holds no handles."""

    function: Callable[[Item], Result]

    def __call__(self, items: Handful[Item]) -> Handled[Result]:
        """Call it on one item after the other until the time is over."""
        start = time.perf_counter()
        done = [self.function(items[0])]
        for item in items[1:]:
            if time.perf_counter() - start > HANDFUL_S:
                break
            done.append(self.function(item))
        return Handled(tuple(done), time.perf_counter() - start)


class _Hands(Iterator[Handful[Item]]):
    """Items in handfuls, whose size follows how long items took lately. An end may be followed by more.

    Args:
        items: Taken as they are needed.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._waiting = iter(items)
        self._left: deque[Item] = deque()
        self._alone: deque[Item] = deque()
        self._size = 1

    def __next__(self) -> Handful[Item]:
        """The next handful."""
        if self._alone:
            return (self._alone.popleft(),)
        left = [self._left.popleft() for _ in range(min(self._size, len(self._left)))]
        handful = (*left, *take(self._waiting, self._size - len(left)))
        if not handful:
            raise StopIteration
        return handful

    @property
    def returned(self) -> bool:
        """Whether items came back since the end."""
        return bool(self._left or self._alone)

    def note(self, handful: Handful[Item], answer: Handled[Result]) -> None:
        """Learn how long items take, and take back those that there was no time for."""
        self._left.extend(handful[len(answer.done) :])
        each_s = answer.seconds / len(answer.done)
        self._size = max(1, min(2 * self._size, MOST, int(HANDFUL_S / max(each_s, HANDFUL_S / MOST))))

    def one_by_one(self, handful: Handful[Item]) -> None:
        """Take back a handful of which one failed, or ended its worker: alone they show which."""
        self._alone.extend(handful)


def in_handfuls(
    run: Run[Item, Result], function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Pairs[Item, Result]]:
    """Run a function on every item, and give the results, or exceptions, of each handful as it comes.

    Args:
        run: Runs a function on handfuls.
        function: Called on every item; one that fails beside others is called again, alone.
        items: Taken as they are needed.
    """
    hands: _Hands[Item] = _Hands(items)
    while True:
        for handful, answer in run(InHandfuls(function), hands):
            if not isinstance(answer, BaseException):
                hands.note(handful, answer)
                yield list(zip(handful, answer.done, strict=False))
            elif len(handful) == 1:
                yield [(handful[0], answer)]
            else:
                hands.one_by_one(handful)
        if not hands.returned:
            return
