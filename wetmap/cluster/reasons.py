"""Why a task failed, in one line."""

from __future__ import annotations

import errno

from wetmap.errors import REFUSED, WetmapError, full_disk, refused_file


def explain(error: BaseException) -> str:
    """One line about why a task failed, for the ledger and the summary."""
    if isinstance(error, WetmapError):
        return str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return str(full_disk(error))
    if isinstance(error, OSError) and error.errno in REFUSED:
        return str(refused_file(error))
    text = str(error).strip().splitlines()
    if isinstance(error, MemoryError):
        said = f" ({text[0]})" if text else ""
        return f"Memory ran out{said}. Give --memory, fewer --workers, or a smaller --block-px."
    return f"{type(error).__name__}: {text[0] if text else ''}"
