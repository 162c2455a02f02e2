"""Telling the C library to keep memory changes nothing but page faults."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROBE = """
import resource, sys
import numpy as np
from wetmap.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    print(keep_freed_memory(), end=" ")
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(8_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_used_again() -> None:
    def run(mode: str) -> list[str]:
        done = subprocess.run([sys.executable, "-c", PROBE, mode], check=True, capture_output=True, text=True)
        return done.stdout.split()

    taken, kept = run("keep")
    (plain,) = run("plain")
    assert taken == "True"
    assert int(kept) < int(plain) / 4


RETURNED = """
import numpy as np, psutil
from wetmap.allocator import give_freed_memory_back, keep_freed_memory
held = lambda: psutil.Process().memory_info().rss / 2**20
keep_freed_memory(one_arena=True)
parts = [np.ones(1_000_000) for _ in range(50)]
del parts
kept = held()
give_freed_memory_back()
print(kept - held())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_given_back_when_the_work_is_over() -> None:
    done = subprocess.run([sys.executable, "-c", RETURNED], check=True, capture_output=True, text=True)
    assert float(done.stdout) > 300  # of 380 MB
