"""Input that nobody meant: pieces for the fuzz tests, and how many of them are tried.

``make test`` tries a few, always the same; WETMAP_FUZZ=20 tries 20 times as many, at random (``make fuzz``).
"""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

#: How many times as many examples as in ``make test``.
TIMES = int(os.environ.get("WETMAP_FUZZ", "1"))

#: Texts that are names, paths, dates or numbers only at first sight.
ODD_TEXTS = (
    "",
    " ",
    "x" * 5000,
    "../../../outside",
    "/outside",
    "a\x00b",
    "a\nb",
    "\x1b[31m",
    "\ud800",
    "\u202egpj.exe",
    "=1+1",
    "<b>&amp;\"'</b>",
    "]]>",
    "nan",
    "1e999",
    "2021-13-45",
    "0001-01-01T00:00:00+23:00",
    "9999-12-31T23:59:59-23:00",
    "http://[",
    "https://x.org/a?sig=s",
    "file:///etc/passwd",
    "/vsizip/../x.zip/y",
    "s3://",
    "{{ 7 * 7 }}",
    "%s%n",
)
#: Values of every kind, at the edges of their kinds.
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**63,
    10**400,
    -0.5,
    1e308,
    float("nan"),
    float("inf"),
    [],
    {},
    [[]],
    [None],
    {"": None},
    {"href": 5},
    [[[[0]]]],
    *ODD_TEXTS,
)


def fuzzed(examples: int) -> Callable[[Any], Any]:
    """Settings of a fuzz test: so many examples in ``make test``."""
    return settings(
        deadline=None,
        max_examples=examples * TIMES,
        derandomize=TIMES == 1,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def mutations(base: Any) -> st.SearchStrategy[Any]:
    """Copies of plain data with one to four places changed, lost or grown."""
    return st.randoms(use_true_random=False).map(lambda rng: mutate(rng, base))


def mutate(rng: random.Random, base: Any) -> Any:
    """A copy of plain data with one to four places changed."""
    data = copy.deepcopy(base)
    for _ in range(rng.randint(1, 4)):
        data = _changed(rng, data)
    return data


def _changed(rng: random.Random, data: Any) -> Any:
    """The data with one place changed; how deep it lies is left to chance."""
    keys = list(data) if isinstance(data, dict) else list(range(len(data))) if isinstance(data, list) else []
    if not keys or rng.random() < 0.05:
        return _odd(rng, data)
    key = rng.choice(keys)
    inner = data[key]
    if isinstance(inner, dict | list) and inner and rng.random() < 0.8:
        data[key] = _changed(rng, inner)
        return data
    how = rng.randrange(6)
    if how == 0:
        del data[key]
    elif how == 1 and isinstance(data, dict):
        data[str(rng.choice(ODD_TEXTS))] = inner
    elif how == 1:
        data.append(copy.deepcopy(inner))
    else:
        data[key] = _odd(rng, inner)
    return data


def _odd(rng: random.Random, before: Any) -> Any:
    """Something else: an odd value, the same in a list, as a text, or with another sign or size."""
    number = isinstance(before, int | float) and not isinstance(before, bool) and abs(before) < 1e8
    if number and rng.random() < 0.5:
        return rng.choice([-before, before * 1e6, before + 0.5, before * 1e300])
    how = rng.randrange(8)
    if how == 0:
        return [before]
    if how == 1:
        return str(before)
    if how == 2:
        return {"x": before}
    return copy.deepcopy(rng.choice(ODD_VALUES))


def cut_or_bent(data: bytes) -> st.SearchStrategy[bytes]:
    """Bytes cut short, with some of them changed, or with others put in."""
    place = st.integers(0, max(0, len(data) - 1))
    cut = place.map(lambda at: data[:at])
    bent = st.lists(st.tuples(place, st.integers(0, 255)), min_size=1, max_size=4).map(lambda all_: _bent(data, all_))
    grown = st.tuples(place, st.binary(max_size=12)).map(lambda pair: data[: pair[0]] + pair[1] + data[pair[0] :])
    return st.one_of(cut, bent, grown)


def _bent(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    out = bytearray(data)
    for at, value in changes:
        if at < len(out):
            out[at] = value
    return bytes(out)
