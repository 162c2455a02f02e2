"""A small U-Net: the plain dense network that others have to beat.

Architecture: Ronneberger, Fischer and Brox (2015), "U-Net: Convolutional Networks for Biomedical Image Segmentation",
arXiv:1505.04597, with two poolings, batch norm, and zeros around the map so that it keeps its size. Refinement by two
repeats each place and mixes channels, the same for all four: kernels of their own for the four would draw a pattern of
their own on even ground (Odena, Dumoulin and Olah, 2016, "Deconvolution and Checkerboard Artifacts",
https://doi.org/10.23915/distill.00003).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wetmap.models.contract import Geometry
from wetmap.models.tiles import TileNetwork

#: Times the map is halved: tiles of 16 pixels, the training default, are then 4 x 4.
POOLINGS = 2

#: Side of the tile on which it answers, pixels: the margin adds 0.4 of the tile's own work.
TILE_PX = 256

#: Pixels that the two 3 x 3 convolutions of a level look to each side, at that level's resolution.
PAIR_REACH = 2


def reach(poolings: int = POOLINGS) -> int:
    """How far the answer of a pixel looks at most, pixels: derived from the layers, for every phase of the poolings.

    From the answer backwards: a pair of convolutions widens by two; a refinement by two halves the places; at the
    bottom one pair; a pooling of two doubles the places and takes both.
    """
    farthest = 0
    for phase in range(1 << poolings):
        first = last = phase
        for _ in range(poolings):
            first, last = (first - PAIR_REACH) // 2, (last + PAIR_REACH) // 2
        first, last = first - PAIR_REACH, last + PAIR_REACH
        for _ in range(poolings):
            first, last = 2 * first - PAIR_REACH, 2 * last + 1 + PAIR_REACH
        farthest = max(farthest, phase - first, last - phase)
    return farthest


def margin(poolings: int = POOLINGS) -> int:
    """The smallest multiple of the stride that holds ``reach``, pixels."""
    stride = 1 << poolings
    return -(-reach(poolings) // stride) * stride


class Pair(nn.Sequential):
    """Two 3 x 3 convolutions, each with batch norm and ReLU; the norm takes the place of a bias.

    In evaluation the norm is multiplied into the kernel, which saves two passes over the maps.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )

    def forward(self, input: Tensor) -> Tensor:
        """(N, inputs, h, w) to (N, outputs, h, w)."""
        if self.training:
            for part in self:
                input = part(input)
            return input
        for at in (0, 3):
            kernel, bias = folded(cast("nn.Conv2d", self[at]), cast("nn.BatchNorm2d", self[at + 1]))
            input = F.relu(F.conv2d(input, kernel, bias, padding=1))
        return input


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Kernel (O, I, k, k) and bias (O,) of a convolution without bias and its norm, in one."""
    mean, variance = cast("Tensor", norm.running_mean), cast("Tensor", norm.running_var)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    return conv.weight * scale[:, None, None, None], norm.bias - mean * scale


class UNet(TileNetwork):
    """A U-Net of two poolings (16 bands, 7 classes, width 32: 440,391 parameters).

    Args:
        bands: Number of bands, any.
        classes: Number of classes.
        window: Side of the training tiles, pixels.
        width: Channels at full resolution; they double with every pooling.
        layers: Number of observation layers.
        band_layer: The layer of each band; None: layer 0.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        window: int = 16,
        width: int = 32,
        layers: int = 1,
        band_layer: Sequence[int] | None = None,
    ) -> None:
        geometry = Geometry(tile=TILE_PX, margin=margin(), stride=2**POOLINGS)
        super().__init__(bands, classes, window=window, geometry=geometry, layers=layers, band_layer=band_layer)
        widths = [width * 2**level for level in range(POOLINGS + 1)]
        self.down = nn.ModuleList(
            Pair(inputs, outputs) for inputs, outputs in zip([bands, *widths], widths, strict=False)
        )
        self.refine = nn.ModuleList(nn.Conv2d(2 * outputs, outputs, 1) for outputs in widths[:-1])
        self.up = nn.ModuleList(Pair(2 * outputs, outputs) for outputs in widths[:-1])
        self.head = nn.Conv2d(width, classes, 1)
        initialise(self)

    def classify(self, normalised: Tensor) -> Tensor:
        """Logits of every pixel: (N, C, h, w), dimensionless and without NaN, to (N, K, h, w).

        A map that does not divide by four is filled up with zeros, the mean, at the bottom and at the right.
        """
        height, width = normalised.shape[2:]
        stride = 2**POOLINGS
        maps = F.pad(normalised, (0, -width % stride, 0, -height % stride))
        if not torch.compiler.is_exporting():
            maps = maps.contiguous(memory_format=torch.channels_last)  # the convolutions' fastest layout on CPU and GPU
        kept: list[Tensor] = []
        for level, pair in enumerate(self.down):
            maps = pair(maps if level == 0 else F.max_pool2d(maps, 2))
            kept.append(maps)
        maps = kept.pop()
        for level in range(POOLINGS - 1, -1, -1):
            finer = F.interpolate(self.refine[level](maps), scale_factor=2.0, mode="nearest")
            maps = self.up[level](torch.cat((kept.pop(), finer), dim=1))
        logits: Tensor = self.head(maps[:, :, :height, :width])
        return logits


def initialise(module: nn.Module) -> None:
    """First weights as the paper draws them: normal with variance 2 / (inputs of a unit); biases 0.

    Only torch's global generator is used, in the order of ``module.modules()``.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, std=(2 / part.weight[0].numel()) ** 0.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
