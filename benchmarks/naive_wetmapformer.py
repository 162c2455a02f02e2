"""WetMapFormer layer by layer: what ``benchmarks/training.py`` is measured against.

Each layer is one module of PyTorch, one after the other, as the released notebook writes them down: convolutions along
the bands of a (N, 1, h, w, bands) image as 3-D convolutions, a separable convolution as a depthwise and a pointwise
one, padding before what needs padding. Nothing is folded, shared or cut.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wetmap.models.wetmapformer import WetMapFormer
from wetmap.models.wetmapformer.network import Spectral


class NaiveSpectral(nn.Module):
    """The two convolutions along the bands as 3-D convolutions, and the batch norm.

    Args:
        spectra: Where the weights are taken from.
        layout: Memory format of four-dimensional maps.
    """

    def __init__(self, spectra: Spectral, layout: torch.memory_format) -> None:
        super().__init__()
        self.layout = layout
        self.conv1 = _along_bands(spectra.conv1)
        self.conv2 = _along_bands(spectra.conv2)
        self.norm = copy.deepcopy(spectra.norm)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) to (N, C * 32, h, w)."""
        lines = maps.permute(0, 2, 3, 1).unsqueeze(1)
        deep = torch.channels_last_3d if self.layout is torch.channels_last else torch.contiguous_format
        lines = F.relu(self.conv1(lines.contiguous(memory_format=deep)))
        lines = F.relu(self.conv2(lines))
        spectra = lines.permute(0, 4, 1, 2, 3).flatten(1, 2).contiguous(memory_format=self.layout)
        return F.relu(self.norm(spectra))


class LayerByLayer(nn.Module):
    """A window classifier with the weights of another.

    Args:
        model: The other; copied.
        layout: Memory format of maps and kernels.
    """

    def __init__(self, model: WetMapFormer, layout: torch.memory_format) -> None:
        super().__init__()
        own = copy.deepcopy(model)
        self.normalisation = own.normalisation
        self.spectra = NaiveSpectral(own.spectra, layout)
        self.extractor, self.stem, self.stem_norm, self.stage1 = own.extractor, own.stem, own.stem_norm, own.stage1
        self.down, self.down_norm, self.stage2, self.norm = own.down, own.down_norm, own.stage2, own.norm
        self.head = own.head
        if layout is torch.channels_last:
            for part in self.modules():
                if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Conv3d):
                    deep = isinstance(part, nn.Conv3d)
                    kernels = torch.channels_last_3d if deep else torch.channels_last
                    part.weight.data = part.weight.data.contiguous(memory_format=kernels)

    def forward(self, features: Tensor, observed: Tensor | None = None) -> Tensor:
        """Windows in physical units (N, C, w, w) to logits (N, K)."""
        maps = self.extractor(self.spectra(self.normalisation(features, observed)))
        tokens = self.down_norm(self.down(self.stage1(self.stem_norm(self.stem(maps)))))
        logits: Tensor = self.head(self.norm(self.stage2(tokens)).mean((2, 3)))
        return logits


def _along_bands(conv: nn.Conv2d) -> nn.Conv3d:
    """A convolution (1, k) over bands as a 3-D one (1, 1, k) with the same weights."""
    taps = conv.kernel_size[1]
    deep = nn.Conv3d(conv.in_channels, conv.out_channels, (1, 1, taps), padding=(0, 0, taps // 2))
    deep.to(conv.weight)
    with torch.no_grad():
        deep.weight.copy_(conv.weight.unsqueeze(2))
        if deep.bias is not None and conv.bias is not None:
            deep.bias.copy_(conv.bias)
    return deep
