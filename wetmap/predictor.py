"""A model ready to map with: the device it is on, the numbers it computes with, the temperature of its answers."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
from numpy.typing import NDArray

from wetmap.model_card import ModelCard
from wetmap.models.contract import Geometry, MapModel
from wetmap.training.calibration import tempered


class Predictor:
    """A model ready to map with, network or trees, behind one contract of NumPy arrays."""

    def __init__(
        self, model: MapModel, card: ModelCard, *, threads: int = 1, device: str = "cpu", precision: str = "float32"
    ) -> None:
        self._model = model
        self._threads = max(threads, 1)
        self.device = device
        self.precision = precision
        self.card = card
        compute_in = getattr(model, "compute_in", None)
        self._casts_itself = precision == "bfloat16" and compute_in is not None
        if self._casts_itself and compute_in is not None:
            import torch

            compute_in(torch.bfloat16)

    @property
    def geometry(self) -> Geometry:
        """The tile it works on."""
        return self._model.geometry

    def tile_probabilities(self, features: NDArray[np.float32], observed: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Probabilities of the classes on tiles.

        Args:
            features: (B, C, T + 2m, T + 2m) float32, physical units, NaN where not observed; T is the tile and m the
                margin of ``geometry``.
            observed: (B, L, T + 2m, T + 2m) bool.

        Returns:
            (B, K, T, T) float32, sums to 1 over the classes, with the card's temperature. On one kind of device, in one
            precision and at a fixed number of threads it depends on the tile alone.

        Raises:
            UsageError: The shapes do not fit the model.
        """
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            precision = "float32" if self._casts_itself else self.precision
            with torch.inference_mode(), in_precision(precision, self.device):
                found = self._model.tile_probabilities(
                    torch.from_numpy(np.require(features, np.float32, ["C", "W"])).to(self.device),
                    torch.from_numpy(np.require(observed, np.bool_, ["C", "W"])).to(self.device),
                )
            answers = np.asarray(found.float().cpu().numpy(), dtype=np.float32)
        finally:
            torch.set_num_threads(before)
        calibration = self.card.calibration
        return answers if calibration is None else tempered(answers, calibration.temperature, floor=calibration.floor)


def in_precision(precision: str, device: str) -> AbstractContextManager[object]:
    """Autocast to bfloat16, or nothing for float32: sums of a network's layers stay in float32 where it matters."""
    import torch

    if precision == "float32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)


def same_numbers_on_gpu() -> None:
    """Full float32, and the same algorithms each time: TF32 keeps 10 bits, and cuDNN may choose by timing."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
