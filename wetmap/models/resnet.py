"""The residual network of 20 layers that He et al. made for small images.

He et al. (2016), Deep Residual Learning, doi:10.1109/CVPR.2016.90, section 4.2. As there: a 3 x 3 stem, three stages of
three basic blocks with 16, 32 and 64 channels, the first block of the second and third stage with stride 2, shortcuts
without parameters, the mean over the map. It keeps the full resolution in the first stage, which fits windows of 8 to
32 px. What differs: only the image, which has bands instead of colours.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from wetmap.models.windows import WindowClassifier

#: Channels of the three stages and blocks in each: 1 + 2 x 3 x 3 convolutions and a dense layer, 20 layers.
WIDTHS, DEPTH = (16, 32, 64), 3


def _conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions, each with a batch norm, added to the shortcut, then ReLU.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out, at least as many.
        stride: 1, or 2 to halve the map (odd sides are rounded up).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.added = stride, outputs - inputs
        self.conv1 = _conv3(inputs, outputs, stride)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv3(outputs, outputs)
        self.norm2 = nn.BatchNorm2d(outputs)

    def shortcut(self, maps: Tensor) -> Tensor:
        """The input itself, every ``stride``-th pixel of it, with zeros for the channels it lacks (the paper's A)."""
        if self.stride == 1 and not self.added:
            return maps
        return F.pad(maps[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, inputs, h, w) to (N, outputs, ceil(h / stride), ceil(w / stride))."""
        residual = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(maps)))))
        return F.relu(residual + self.shortcut(maps))


class ResNet(WindowClassifier):
    """ResNet-20 as a classifier of windows.

    Args:
        bands: Number of bands, any.
        classes: Number of classes.
        window: Side of the window, pixels, even.
        layers: Number of observation layers.
        band_layer: The layer of each band; None: layer 0.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        window: int = 8,
        layers: int = 1,
        band_layer: Sequence[int] | None = None,
    ) -> None:
        super().__init__(bands, classes, window=window, layers=layers, band_layer=band_layer)
        self.stem = _conv3(bands, WIDTHS[0])
        self.stem_norm = nn.BatchNorm2d(WIDTHS[0])
        blocks = []
        for stage, width in enumerate(WIDTHS):
            for depth in range(DEPTH):
                first = stage > 0 and depth == 0
                blocks.append(BasicBlock(WIDTHS[stage - 1] if first else width, width, stride=2 if first else 1))
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(WIDTHS[-1], classes)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):  # He et al. (2015), doi:10.1109/ICCV.2015.123
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def spectral(self, normalised: Tensor) -> Tensor:
        """Nothing is computed per pixel: (N, C, h, w) as it is."""
        return normalised

    def spatial(self, spectra: Tensor) -> Tensor:
        """Normalised windows (N, C, window, window) to logits (N, K)."""
        maps = self.blocks(F.relu(self.stem_norm(self.stem(spectra))))
        logits: Tensor = self.head(maps.mean((2, 3)))
        return logits
