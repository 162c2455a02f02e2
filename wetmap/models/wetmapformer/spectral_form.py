"""The spectral part of WetMapFormer as it maps: pixels are rows, and every layer is a product of many of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wetmap.models.wetmapformer.folding import Affine, Convolution, bias_of, scale_and_shift
from wetmap.models.wetmapformer.network import SPECTRAL_FILTERS, Spectral

#: Pixels of one product: enough to outweigh the call, few enough that 512 numbers of each stay near the core.
PIXELS_TOGETHER = 1024
#: The same on a GPU, where a call costs more than what it computes.
PIXELS_ON_GPU = 65_536
#: Reach of the two convolutions along the bands, bands on each side.
SPECTRAL_REACH = (1, 2)
#: A channel whose scale is a smaller share of its shift than this is a constant: no feature is a billion.
LEAST_SCALE = 1e-9


def together(like: Tensor) -> int:
    """Rows of one product on the device of a tensor: so many for every core at work."""
    return PIXELS_TOGETHER * torch.get_num_threads() if like.device.type == "cpu" else PIXELS_ON_GPU


class SpectralForm:
    """Spectral features up to a scale and a constant per channel, which belong to the layer after it.

    Batch norm ``a x + b`` stands between two rectifiers. Of a convolution's answer v that makes ``a limited(v) + b``,
    with v limited below to 0 and, where b < 0 < a, to -b / a, and above, where a < 0 < b, to -b / a; where neither
    leaves anything it is the constant ``relu(b)``.

    Args:
        spectra: In float64 and evaluation mode.
        bands: Number of bands.
        like: A tensor of the dtype and on the device to compute with.
    """

    def __init__(self, spectra: Spectral, bands: int, like: Tensor) -> None:
        scale, shift = scale_and_shift(spectra.norm)
        turned = (scale < 0) & (shift > 0)
        alive = ((scale > 0) | turned) & (scale.abs() > LEAST_SCALE * shift.abs())
        self.scale, self.constant = torch.where(alive, scale, 0.0), torch.where(alive, shift, shift.clamp(min=0))
        limit = -shift / torch.where(alive, scale, 1.0)
        self._lower = torch.where(alive & ~turned, limit.clamp(min=0), 0.0).to(like)
        self._upper = torch.where(alive & turned, limit, torch.inf).to(like) if bool((alive & turned).any()) else None
        self._bands = bands
        self._first = _along_bands(spectra.conv1, bands).to(like)
        second = Convolution(spectra.conv2.weight, bias_of(spectra.conv2), (0, SPECTRAL_REACH[1]))
        self._second = second.to(like, (together(like), bands))

    def __call__(self, pixels: Tensor) -> Tensor:
        """(M, C) to (M, C * 32); the channel is ``band * 32 + filter``."""
        lines = self._first.relu(pixels).view(len(pixels), self._bands, SPECTRAL_FILTERS[0])
        values = self._second(lines).view(len(pixels), -1)
        return torch.clamp(values, min=self._lower, max=self._upper, out=values)


def _along_bands(conv: nn.Conv2d, bands: int) -> Affine:
    """The first convolution as a matrix from bands to (band, filter)."""
    weight = conv.weight.new_zeros(bands, len(conv.weight), bands)
    for band in range(bands):
        for tap in range(-SPECTRAL_REACH[0], SPECTRAL_REACH[0] + 1):
            if 0 <= band + tap < bands:
                weight[band, :, band + tap] = conv.weight[:, 0, 0, tap + SPECTRAL_REACH[0]]
    return Affine(weight.flatten(0, 1), bias_of(conv).repeat(bands))
