"""How long a map may take, how fast it has to be made, and how much memory it may use, as people write it."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: What a budget may look like; shown wherever one is refused.
EXAMPLES = "90s, 20m, 1h30m, 2d, 50k-px-per-s, 2M-px-per-s"

_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_TIME = re.compile(rf"(?:{_NUMBER}d)?(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?")
_SECONDS = (86400, 3600, 60, 1)
_RATE = re.compile(rf"{_NUMBER}([kM]?)-px-per-s")
_FACTOR = {"": 1, "k": 1_000, "M": 1_000_000}


@dataclass(frozen=True)
class Budget:
    """A time for the whole map, or a rate; one of the two is known."""

    seconds: float | None
    """Time that computing the map may take, seconds."""
    pixels_per_s: float | None
    """Rate of all workers together, pixels per second."""

    def fits(self, *, pixels_per_s: float, seconds: float) -> bool:
        """Whether work at this rate, which takes so long, keeps to the budget."""
        if self.seconds is not None:
            return seconds <= self.seconds
        return self.pixels_per_s is not None and pixels_per_s >= self.pixels_per_s

    def to_json(self) -> dict[str, float]:
        """What it comes to, however it was written: ``60m`` and ``1h`` are the same."""
        known = {"seconds": self.seconds, "pixels_per_s": self.pixels_per_s}
        return {name: value for name, value in known.items() if value is not None}


def parse_budget(text: str) -> Budget:
    """Read a budget: days, hours, minutes, seconds in this order, or pixels per second, in thousands or millions.

    Raises:
        ValueError: It is neither; the message has examples.
    """
    rate = _RATE.fullmatch(text)
    time = _TIME.fullmatch(text)
    if rate is not None:
        budget = Budget(None, float(rate[1]) * _FACTOR[rate[2]])
    elif time is not None and text:
        parts = zip(time.groups(), _SECONDS, strict=True)
        budget = Budget(sum(float(count) * unit for count, unit in parts if count is not None), None)
    else:
        raise ValueError(f"{text!r} is neither a time nor a rate; write it like {EXAMPLES}")
    if not any(budget.to_json().values()):
        raise ValueError(f"{text!r} is nothing; write it like {EXAMPLES}")
    return budget


#: What an amount of memory may look like; shown wherever one is refused.
MEMORY_EXAMPLES = "2GiB, 1500MB, 0.5GB"
_MEMORY = re.compile(rf"{_NUMBER} ?([kKMGT])(i?)B")
#: Powers of 1000, or with an ``i`` of 1024 (IEC 80000-13).
_POWER = {"k": 1, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_memory(text: str) -> int:
    """Read an amount of memory: a number and kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (of 1024); bytes.

    Raises:
        ValueError: It is something else, or nothing; the message has examples.
    """
    found = _MEMORY.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not an amount of memory; write it like {MEMORY_EXAMPLES}")
    size: int = round(float(found[1]) * (1024 if found[3] else 1000) ** _POWER[found[2]])
    if size == 0:
        raise ValueError(f"{text!r} is nothing; write it like {MEMORY_EXAMPLES}")
    return size


def memory_text(size: int) -> str:
    """An amount of memory for people, rounded up: MiB below 10 GiB, else GiB.

    Args:
        size: Bytes.
    """
    return f"{-(-size // 2**20):,} MiB" if size < 10 * 2**30 else f"{-(-size * 10 // 2**30) / 10:,.1f} GiB"


def duration_text(seconds: float) -> str:
    """Seconds as people say them: 45.0 s, 12.5 min, 3.2 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"
