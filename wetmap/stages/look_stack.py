"""The looks of one band of a block, put in one by one and taken out by rows, in bounded memory.

A few looks are held in memory. More lie in a temporary file without a name, which the system removes with the process
however that ends: each scene is read once, and memory does not grow with the number of looks.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from wetmap.errors import full_disk

#: Most bytes of looks that are held at once: 15 looks of a block of 512 px, float32.
STACK_BYTES = 16 * 2**20


class LookStack:
    """Planes (y, x), numbered, each put in once. Use it in a ``with``: leaving it frees the file.

    Args:
        planes: Most planes that are put in.
        shape: (y, x) of a plane.
        dtype: Of the planes.
        budget: Bytes of planes that are held in memory; None: ``STACK_BYTES``.
    """

    def __init__(
        self, planes: int, shape: tuple[int, int], dtype: DTypeLike = np.float32, *, budget: int | None = None
    ) -> None:
        budget = STACK_BYTES if budget is None else budget
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.planes = planes
        self._bytes = math.prod(shape) * self.dtype.itemsize
        self._rows = max(1, budget // max(1, planes * shape[1] * self.dtype.itemsize))
        self._held: NDArray[Any] | None = None
        self._file: IO[bytes] | None = None
        if planes * self._bytes <= budget:
            self._held = np.empty((planes, *shape), dtype=self.dtype)
        else:
            self._file = tempfile.TemporaryFile(prefix="wetmap-looks-")  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> LookStack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held = None
        if self._file is not None:
            self._file.close()

    def put(self, number: int, plane: NDArray[Any]) -> None:
        """Keep a plane, (y, x).

        Raises:
            WorkspaceError: The disk that holds temporary files is full.
        """
        if self._held is not None:
            self._held[number] = plane
        elif self._file is not None:
            try:
                self._file.seek(number * self._bytes)
                self._file.write(np.ascontiguousarray(plane, dtype=self.dtype).data)
            except OSError as error:
                raise full_disk(error) from error

    def plane(self, number: int) -> NDArray[Any]:
        """A plane that was put in, (y, x); not to be written to."""
        plane: NDArray[Any] = self.rows(number, number + 1, 0, self.shape[0])[0]
        return plane

    def strips(self) -> Iterator[tuple[int, int]]:
        """First and last + 1 row of strips that fit into the budget with all planes, from north to south."""
        step = self.shape[0] if self._held is not None else self._rows
        for y0 in range(0, self.shape[0], max(1, step)):
            yield y0, min(y0 + step, self.shape[0])

    def rows(self, first: int, last: int, y0: int, y1: int) -> NDArray[Any]:
        """Rows ``y0`` to ``y1`` of planes ``first`` to ``last``, the ends not included, (plane, y, x)."""
        if self._held is not None:
            return self._held[first:last, y0:y1]
        found = np.empty((last - first, y1 - y0, self.shape[1]), dtype=self.dtype)
        if self._file is not None:
            row = self.shape[1] * self.dtype.itemsize
            for number in range(first, last):
                self._file.seek(number * self._bytes + y0 * row)
                self._file.readinto(found[number - first].data)  # type: ignore[attr-defined]
        return found
