"""Memory that is freed and asked for again at once stays with the process.

glibc maps every block above 32 MB anew and gives it back when it is freed, so that each step of a training pays for
fresh, zeroed pages. Told to keep them, training ``wetmapformer-window`` takes about half the processor time
(``benchmarks/allocator.py``). Elsewhere than on glibc nothing is done.
"""

from __future__ import annotations

import ctypes
import platform

#: Parameters of ``mallopt``, from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
#: Blocks below this are taken from the heap, bytes.
HEAP_UP_TO = 1 << 30
#: Free memory at the heap's end is kept up to this, bytes.
KEEP_UP_TO = (1 << 31) - 1


def keep_freed_memory() -> bool:
    """Tell the C library to keep large freed blocks for this process; for long computations, not for importing.

    Returns:
        Whether the library took it; False where it is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return bool(library.mallopt(M_MMAP_THRESHOLD, HEAP_UP_TO) and library.mallopt(M_TRIM_THRESHOLD, KEEP_UP_TO))
