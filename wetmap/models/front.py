"""What stands between the cube and a backbone: nothing, or WetMapFormer's feature extractor."""

from __future__ import annotations

from torch import Tensor, nn

from wetmap.errors import RecipeError
from wetmap.models import layers
from wetmap.models.wetmapformer.network import EXTRACTOR_WIDTH, SPECTRAL_FILTERS, Extractor, Spectral


class Front(nn.Module):
    """The cube as it is; has no parameters.

    Args:
        bands: Number of bands.
    """

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.channels = bands
        """Channels that the backbone gets."""

    def initialise(self) -> None:
        """Draw the first weights anew: here there are none."""

    def spectral(self, normalised: Tensor) -> Tensor:
        """What is computed at each pixel on its own: (N, C, h, w) to (N, D, h, w)."""
        return normalised

    def spatial(self, spectra: Tensor) -> Tensor:
        """What is computed over a window or tile of those: (N, D, h, w) to (N, channels, h, w)."""
        return spectra

    def forward(self, normalised: Tensor) -> Tensor:
        """Both parts: (N, C, h, w) to (N, channels, h, w)."""
        return self.spatial(self.spectral(normalised))


class SpectralFront(Front):
    """WetMapFormer's extractor: convolutions along the bands of each pixel, then an encoder and decoder over space.

    First weights are those that it has in WetMapFormer, from torch's global generator.

    Args:
        bands: Number of bands.
    """

    def __init__(self, bands: int) -> None:
        super().__init__(bands)
        self.channels = EXTRACTOR_WIDTH
        self.spectra = Spectral(bands)
        self.extractor = Extractor(bands * SPECTRAL_FILTERS[1])

    def initialise(self) -> None:
        """Draw the first weights."""
        layers.initialise(self)

    def spectral(self, normalised: Tensor) -> Tensor:
        """Each pixel on its own: (N, C, h, w) to (N, C * 32, h, w)."""
        spectra: Tensor = self.spectra(normalised)
        return spectra

    def spatial(self, spectra: Tensor) -> Tensor:
        """(N, C * 32, h, w) to (N, 32, h, w); at an odd side the half-size map is refined to one pixel too many."""
        maps: Tensor = self.extractor(spectra)
        return maps[:, :, : spectra.shape[2], : spectra.shape[3]]


_FRONTS = {"none": Front, "spectral": SpectralFront}


def make_front(extractor: str, bands: int) -> Front:
    """The front of a name.

    Args:
        extractor: ``none`` or ``spectral``.
        bands: Number of bands.

    Raises:
        RecipeError: There is no such extractor.
    """
    kind = _FRONTS.get(extractor)
    if kind is None:
        raise RecipeError(f"There is no extractor {extractor!r}.", do=f"Choose one of {', '.join(_FRONTS)}.")
    return kind(bands)
