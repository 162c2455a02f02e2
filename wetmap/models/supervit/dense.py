"""SuperViT that answers for every pixel of a tile; a dropped token is put back, so that pruning leaves no hole."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from wetmap.errors import UsageError
from wetmap.models.checks import check_maps
from wetmap.models.front import make_front
from wetmap.models.supervit.network import OperatingPoint, Shape, Trunk, initialise, resized
from wetmap.models.tiles import LatticeNetwork


class SuperVitDense(LatticeNetwork):
    """SuperViT with a head for every pixel.

    The tokens, those dropped on the way among them, are laid out as a map of t x t, brought to the pixels bilinearly
    and added to what a 1 x 1 kernel makes of the pixel itself; the head is a 1 x 1 kernel on the GELU of that sum.
    Every token sees the whole tile and has its own place in a table, so that maps are made on windows of the side it
    was trained at, which overlap and are blended.

    Args:
        bands: Number of bands, any.
        classes: Number of classes.
        shape: Sizes, width, depth.
        window: Side of the tiles, in training and in mapping, pixels, a multiple of 8.
        extractor: What the trunk gets: ``none``, the bands; ``spectral``, the 32 maps of WetMapFormer's extractor.
        layers: Number of observation layers.
        band_layer: The layer of each band; None: layer 0.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        shape: Shape,
        window: int = 32,
        extractor: str = "none",
        layers: int = 1,
        band_layer: Sequence[int] | None = None,
    ) -> None:
        super().__init__(bands, classes, window=window, stride=window // 8, layers=layers, band_layer=band_layer)
        self.shape = shape
        self.front = make_front(extractor, bands)
        self.trunk = Trunk(self.front.channels, shape, window)
        self.pixel = nn.Conv2d(bands, shape.width, 1)
        self.head = nn.Conv2d(shape.width, classes, 1)
        initialise(self)
        self.front.initialise()
        self.default_point = shape.largest()
        """What is run where nothing is said, and by ``tile_probabilities``; set it to map at another point."""

    @property
    def operating_points(self) -> tuple[OperatingPoint, ...]:
        """Every size at every rate that training draws."""
        return self.shape.points()

    def operating_point(
        self, *, size_index: int | None = None, tokens: int | None = None, keep: float | None = None
    ) -> OperatingPoint:
        """Choose a network by size index or tokens per side and keeping rate; what is not said is the default's.

        Raises:
            UsageError: There is no such size or rate, or the size is named twice.
        """
        return self.shape.point(self.default_point, size_index=size_index, tokens=tokens, keep=keep)

    def forward(self, features: Tensor, observed: Tensor | None = None, point: OperatingPoint | None = None) -> Tensor:
        """Classify every pixel of tiles.

        Args:
            features: (N, C, window, window) in physical units, NaN where not observed.
            observed: (N, L, window, window) bool, or None.
            point: Which network to run; None: the default point.

        Returns:
            (N, K, window, window) logits.

        Raises:
            UsageError: The shapes do not fit the model.
        """
        check_maps(features, observed, bands=self.bands, layers=self.layers)
        if tuple(features.shape[2:]) != (self.window, self.window):
            raise UsageError(
                f"Tiles of {features.shape[2]} x {features.shape[3]} pixels for a model of tiles of {self.window} x "
                f"{self.window}.",
                do="Cut tiles of the model's own size.",
            )
        return self.classify(self.normalisation(features, observed), point)

    def classify(self, normalised: Tensor, point: OperatingPoint | None = None) -> Tensor:
        """Logits of every pixel, by default at the default point: (N, C, window, window) to (N, K, window, window)."""
        chosen = self.default_point if point is None else point
        tokens = self.trunk(self.front(normalised), chosen, put_back=True)[:, 1:]
        # channels last throughout, as the tokens are: adding maps of two layouts takes five times as long
        own = _linear(normalised.permute(0, 2, 3, 1), self.pixel)
        pixels = self._to_pixels(tokens, chosen.size).permute(0, 2, 3, 1) + own
        return _linear(F.gelu(pixels), self.head).permute(0, 3, 1, 2)

    def _to_pixels(self, tokens: Tensor, size: int) -> Tensor:
        """Tokens (N, t * t, C) row by row to (N, C, window, window), a token's value at the centre of its patch.

        First to the pixels of the image that was cut into patches, then back from there the way it was resized.
        """
        count, image = self.shape.tokens[size], self.trunk.image_side(size)
        maps = tokens.transpose(1, 2).reshape(tokens.shape[0], -1, count, count)
        return resized(F.interpolate(maps, size=(image, image), mode="bilinear", align_corners=False), self.window)


def _linear(maps: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 1 x 1 convolution of maps that are channels last, (N, h, w, C) to (N, h, w, O)."""
    return F.linear(maps, conv.weight[:, :, 0, 0], conv.bias)
