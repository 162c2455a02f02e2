"""From physical units to what a network sees; what was not observed becomes the mean, which is 0."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wetmap.errors import TrainingError

#: Smallest standard deviation that is divided by (the epsilon of Keras' Normalization layer).
LEAST_DEVIATION = 1e-7


class Normalisation(nn.Module):
    """``(x - mean) / max(sqrt(variance), 1e-7)`` per band, and 0 where a band was not observed.

    Args:
        bands: Number of bands.
        band_layer: For each band, the index of its observation layer; None: every band is of layer 0.
    """

    mean: Tensor
    variance: Tensor
    band_layer: Tensor

    def __init__(self, bands: int, band_layer: Sequence[int] | None = None) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("variance", torch.ones(bands))
        layer = [0] * bands if band_layer is None else list(band_layer)
        self.register_buffer("band_layer", torch.tensor(layer, dtype=torch.int64))

    def set(self, mean: Tensor, variance: Tensor) -> None:
        """Take the statistics of the training samples.

        Args:
            mean: (C,) in each band's unit.
            variance: (C,) in each band's unit squared.

        Raises:
            TrainingError: Wrong length, a value that is not finite, or a negative variance.
        """
        mean, variance = torch.as_tensor(mean), torch.as_tensor(variance)
        if mean.shape != self.mean.shape or variance.shape != self.variance.shape:
            raise TrainingError(
                f"Statistics of {tuple(mean.shape)} and {tuple(variance.shape)} values for {len(self.mean)} bands.",
                do="Give one mean and one variance per band.",
            )
        wrong = ~torch.isfinite(mean) | ~torch.isfinite(variance) | (variance < 0)
        if bool(wrong.any()):
            raise TrainingError(
                f"The statistics of bands {torch.nonzero(wrong).flatten().tolist()} are not numbers.",
                do="Leave these bands out, or give samples in which they were observed.",
            )
        self.mean.copy_(mean)
        self.variance.copy_(variance)

    def forward(self, features: Tensor, observed: Tensor | None = None) -> Tensor:
        """Normalise.

        Args:
            features: (N, C, h, w) in physical units, NaN where not observed.
            observed: (N, L, h, w) bool, or None.

        Returns:
            (N, C, h, w), dimensionless, in the dtype of the statistics, without NaN.
        """
        missing = ~torch.isfinite(features)
        if observed is not None:
            missing = missing | ~observed[:, self.band_layer]
        deviation = self.variance.sqrt().clamp(min=LEAST_DEVIATION)
        scaled = features.to(self.mean.dtype) - self.mean[:, None, None]
        return scaled.div_(deviation[:, None, None]).masked_fill_(missing, 0.0)
