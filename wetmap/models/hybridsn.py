"""A hybrid of 3-D and 2-D convolutions in the manner of HybridSN.

Roy et al. (2020), HybridSN, doi:10.1109/LGRS.2019.2918719. As there: three 3-D convolutions over band, row and column
with 8, 16 and 32 channels and 7, 5 and 3 bands, a 2-D convolution with 64 channels over all that they found, dense
layers of 256 and 128 with dropout 0.4, ReLU throughout, no batch norm. What differs: the bands are the recipe's own
instead of principal components; the band axis is padded, so that any number of bands works, and a kernel is never
longer than the bands reach; the 2-D convolution is padded, and its maps are averaged down to 4 x 4 at most, which keeps
the dense layers small; first weights are He's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wetmap.models.layers import pad_same
from wetmap.models.windows import WindowClassifier

#: Channels of the 3-D convolutions, and how many neighbouring bands each looks at.
CHANNELS_3D, BANDS_3D = (8, 16, 32), (7, 5, 3)

#: Channels of the 2-D convolution, and of the two dense layers.
CHANNELS_2D, DENSE = 64, (256, 128)

#: Largest side of the map that goes into the dense layers, pixels.
LARGEST_MAP = 4


def bands_reached(bands: int, wanted: int) -> int:
    """Length of a kernel along the bands: as wanted, but with no tap so far out that it never meets a band."""
    return min(wanted, 2 * bands - 1)


def shrink_factor(side: int) -> int:
    """Side of the squares that are averaged, pixels, so that a map of ``side`` becomes 4 x 4 at most."""
    return math.ceil(side / LARGEST_MAP)


class HybridSn(WindowClassifier):
    """The hybrid as a classifier of windows.

    Args:
        bands: Number of bands, any.
        classes: Number of classes.
        window: Side of the window, pixels, even, at least 8.
        dropout: Share of values dropped after each dense layer in training.
        layers: Number of observation layers.
        band_layer: The layer of each band; None: layer 0.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        window: int = 8,
        dropout: float = 0.4,
        layers: int = 1,
        band_layer: Sequence[int] | None = None,
    ) -> None:
        super().__init__(bands, classes, window=window, layers=layers, band_layer=band_layer)
        convolutions, inputs = [], 1
        for outputs, wanted in zip(CHANNELS_3D, BANDS_3D, strict=True):
            depth = bands_reached(bands, wanted)
            convolutions += [nn.Conv3d(inputs, outputs, (depth, 3, 3), padding=(depth // 2, 0, 0)), nn.ReLU()]
            inputs = outputs
        self.cube = nn.Sequential(*convolutions)
        side = window - 2 * len(CHANNELS_3D)
        self.shrink = shrink_factor(side)
        self.conv = nn.Conv2d(CHANNELS_3D[-1] * bands, CHANNELS_2D, 3, padding=1)
        flat = CHANNELS_2D * math.ceil(side / self.shrink) ** 2
        self.dense1, self.dense2 = nn.Linear(flat, DENSE[0]), nn.Linear(DENSE[0], DENSE[1])
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(DENSE[1], classes)
        for part in self.modules():
            if isinstance(part, nn.Conv3d | nn.Conv2d | nn.Linear):  # He et al. (2015), doi:10.1109/ICCV.2015.123
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
                nn.init.zeros_(torch.as_tensor(part.bias))

    def spectral(self, normalised: Tensor) -> Tensor:
        """Nothing is computed per pixel: (N, C, h, w) as it is."""
        return normalised

    def maps(self, spectra: Tensor) -> Tensor:
        """The convolutions' answer: (N, C, window, window) to (N, 64, s, s) with s = 4 at most."""
        cube = self.cube(spectra.unsqueeze(1))  # (N, 32, C, window - 6, window - 6)
        flat = F.relu(self.conv(cube.flatten(1, 2)))
        return F.avg_pool2d(pad_same(flat, self.shrink, self.shrink), self.shrink) if self.shrink > 1 else flat

    def spatial(self, spectra: Tensor) -> Tensor:
        """Normalised windows (N, C, window, window) to logits (N, K)."""
        hidden = self.drop(F.relu(self.dense1(self.maps(spectra).flatten(1))))
        logits: Tensor = self.head(self.drop(F.relu(self.dense2(hidden))))
        return logits
