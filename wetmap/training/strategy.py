"""Lightning's data-parallel training (DDP) among processes that are already there.

Import it late: Lightning takes seconds to import.
"""

from __future__ import annotations

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy

from wetmap.training.seat import Seat


class SeatEnvironment(ClusterEnvironment):
    """Tells Lightning the place of this process, instead of what it would gather from environment variables."""

    def __init__(self, seat: Seat) -> None:
        super().__init__()
        self._seat = seat

    @property
    def creates_processes_externally(self) -> bool:
        """The processes are there already."""
        return True

    @property
    def main_address(self) -> str:
        """Where processes would meet if they had not met yet."""
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        """Where processes would meet if they had not met yet."""
        return 0

    @staticmethod
    def detect() -> bool:
        """Never chosen by Lightning itself."""
        return False

    def world_size(self) -> int:
        """Number of processes."""
        return self._seat.ranks

    def set_world_size(self, size: int) -> None:
        """It stays as it is."""

    def global_rank(self) -> int:
        """Number of this process among all."""
        return self._seat.rank

    def set_global_rank(self, rank: int) -> None:
        """It stays as it is."""

    def local_rank(self) -> int:
        """Number of this process on its machine."""
        return self._seat.local_rank

    def node_rank(self) -> int:
        """Number of the machine."""
        return self._seat.node


class SeatedStrategy(DDPStrategy):
    """DDP without a launcher, which would start processes and set the number of threads."""

    def _configure_launcher(self) -> None:
        self._launcher = None


def make_strategy(*, unused_parameters: bool) -> SeatedStrategy:
    """DDP for a network.

    Args:
        unused_parameters: Whether a step may leave parameters without a gradient.
    """
    return SeatedStrategy(find_unused_parameters=unused_parameters)
