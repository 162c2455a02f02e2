"""Memory that is freed and asked for again at once stays with the process.

glibc maps every block above 32 MB anew and gives it back when it is freed, so that each step of a training pays for
fresh, zeroed pages. Told to keep them, training ``wetmapformer-window`` takes about half the processor time
(``benchmarks/allocator.py``). Elsewhere than on glibc nothing is done.
"""

from __future__ import annotations

import ctypes
import platform

#: Parameters of ``mallopt``, from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
#: What glibc begins with for both, bytes.
USUAL = 128 * 2**10
#: Blocks below this are taken from the heap, bytes.
HEAP_UP_TO = 1 << 30
#: Free memory at the heap's end is kept up to this, bytes.
KEEP_UP_TO = (1 << 31) - 1


def keep_freed_memory(*, one_arena: bool = False) -> bool:
    """Tell the C library to keep large freed blocks for this process; for long computations, not for importing.

    Args:
        one_arena: All threads take from one heap. Where threads compute in turn, each would else keep as much as the
            largest of its turns took.

    Returns:
        Whether the library took it; False where it is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    if one_arena and not library.mallopt(M_ARENA_MAX, 1):
        return False
    return bool(library.mallopt(M_MMAP_THRESHOLD, HEAP_UP_TO) and library.mallopt(M_TRIM_THRESHOLD, KEEP_UP_TO))


def give_freed_memory_back() -> None:
    """Give the system what is free, and keep no more of it than the C library does by itself; after a computation."""
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        for parameter in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            library.mallopt(parameter, USUAL)
        library.malloc_trim(0)
