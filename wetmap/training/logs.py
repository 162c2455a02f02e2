"""What TensorBoard shows of a fit: one point per epoch and number of the history.

``tensorboard --logdir`` reads the files. The history in the fit's state is what holds; the files follow it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

#: Name of the folder, in the fit's own, that TensorBoard is pointed at.
LOG_FOLDER = "tensorboard"

#: One epoch's row of the history.
Row = Mapping[str, Any]


@contextlib.contextmanager
def epoch_log(folder: Path, history: Sequence[Row]) -> Iterator[Callable[[Row], None]]:
    """Write the numbers of each epoch where TensorBoard finds them.

    What an earlier run wrote is declared void and written again from its history. So there is one point per epoch, also
    after a kill between the saving of an epoch and its logging, or if the files were deleted. The moments of those
    points follow from the seconds that the epochs took.

    Args:
        folder: The fit's folder; the files go to ``tensorboard/`` in it.
        history: Rows of the epochs that earlier runs finished.

    Yields:
        Adds a row to the log: every number of it but ``epoch``, at the step ``epoch``.
    """
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(folder / LOG_FOLDER), purge_step=0)

    def add(row: Row, moment: float | None = None) -> None:
        for name, value in row.items():
            if name != "epoch" and isinstance(value, int | float):
                writer.add_scalar(tag_of(name), value, row["epoch"], walltime=moment)
        writer.flush()

    try:
        moment = time.time() - sum(row.get("seconds", 0.0) for row in history)
        for row in history:
            moment += row.get("seconds", 0.0)
            add(row, moment)
        yield add
    finally:
        writer.close()


def tag_of(name: str) -> str:
    """Name of a number's chart; what is about validation stands in a group of its own.

    Example:
        >>> tag_of("validation_macro_f1"), tag_of("loss")
        ('validation/macro_f1', 'training/loss')
    """
    prefix = "validation_"
    return f"validation/{name.removeprefix(prefix)}" if name.startswith(prefix) else f"training/{name}"
