"""Networks that the processes of a training import by name, so they cannot live in a test module or a conftest."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

BAND_LAYER = (0, 0, 1)


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


class Plain(nn.Module):
    """Nothing random and nothing that depends on the rest of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("deviation", torch.ones(3))
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm: nn.Module = nn.GroupNorm(2, 8)
        self.head = nn.Linear(8, 3)

    def set_normalisation(self, mean: Tensor, variance: Tensor) -> None:
        self.mean, self.deviation = mean.float(), variance.sqrt().float()

    def forward(self, features: Tensor, observed: Tensor) -> Tensor:
        scaled = (features - self.mean[:, None, None]) / self.deviation[:, None, None]
        seen = observed[:, list(BAND_LAYER)] & scaled.isfinite()
        return self.head(torch.relu(self.norm(self.conv(scaled.masked_fill(~seen, 0.0)))).mean(dim=(2, 3)))


class Watched(Plain):
    """Writes down its state whenever it is validated: a file per process."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def forward(self, features: Tensor, observed: Tensor) -> Tensor:
        if not self.training and dist.is_initialized():
            digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in self.state_dict().values()))
            with (self.folder / f"{rank()}.txt").open("a") as file:
                file.write(f"{digest.hexdigest()}\n")
        return super().forward(features, observed)


class WatchedNormed(Watched):
    """With batch normalisation and dropout, which differ between the processes within a step."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.norm = nn.Sequential(nn.BatchNorm2d(8), nn.Dropout(0.3))


class Failing(Plain):
    """Goes wrong in its sixth step, in one process alone."""

    def __init__(self, where: int, how: str) -> None:
        super().__init__()
        self.where, self.how, self.steps = where, how, 0

    def forward(self, features: Tensor, observed: Tensor) -> Tensor:
        self.steps += self.training
        if self.steps == 6 and rank() == self.where:
            if self.how == "error":
                raise ValueError("the band is\nmissing")
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            return super().forward(features, observed) * float("nan")
        return super().forward(features, observed)
