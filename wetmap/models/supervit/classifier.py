"""SuperViT as a classifier of windows."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from wetmap.errors import UsageError
from wetmap.models.checks import check_maps
from wetmap.models.front import make_front
from wetmap.models.supervit.network import OperatingPoint, Shape, Trunk, initialise
from wetmap.models.windows import WindowClassifier


class SuperVit(WindowClassifier):
    """SuperViT as a classifier of windows, as released: a dense layer on the class token.

    Args:
        bands: Number of bands, any.
        classes: Number of classes.
        shape: Sizes, width, depth.
        window: Side of the window, pixels, even.
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
        window: int = 16,
        extractor: str = "none",
        layers: int = 1,
        band_layer: Sequence[int] | None = None,
    ) -> None:
        super().__init__(bands, classes, window=window, layers=layers, band_layer=band_layer)
        self.shape = shape
        self.front = make_front(extractor, bands)
        self.trunk = Trunk(self.front.channels, shape, window)
        self.head = nn.Linear(shape.width, classes)
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
        """Choose a network; what is not said is the default point's.

        Args:
            size_index: Index of the size, from the fewest tokens; or
            tokens: tokens per side.
            keep: Share of the tokens that each pruning block keeps, above 0 to 1.

        Raises:
            UsageError: There is no such size or rate, or the size is named twice.
        """
        return self.shape.point(self.default_point, size_index=size_index, tokens=tokens, keep=keep)

    def spectral(self, normalised: Tensor) -> Tensor:
        """What the front computes per pixel; without an extractor (N, C, h, w) as it is."""
        return self.front.spectral(normalised)

    def spatial(self, spectra: Tensor, point: OperatingPoint | None = None) -> Tensor:
        """What ``spectral`` gave of windows to logits (N, K), by default at the default point."""
        tokens = self.trunk(self.front.spatial(spectra), self.default_point if point is None else point)
        logits: Tensor = self.head(tokens[:, 0])
        return logits

    def forward(self, features: Tensor, observed: Tensor | None = None, point: OperatingPoint | None = None) -> Tensor:
        """Classify windows.

        Args:
            features: (N, C, window, window) in physical units, NaN where not observed.
            observed: (N, L, window, window) bool, or None.
            point: Which network to run; None: the default point.

        Returns:
            (N, K) logits.

        Raises:
            UsageError: The shapes do not fit the model.
        """
        if point is None:
            return super().forward(features, observed)
        check_maps(features, observed, bands=self.bands, layers=self.layers)
        if tuple(features.shape[2:]) != (self.window, self.window):
            raise UsageError(
                f"Windows of {features.shape[2]} x {features.shape[3]} pixels for a model of window {self.window}.",
                do="Cut windows of the model's own size.",
            )
        return self.spatial(self.spectral(self.normalisation(features, observed)), point)
