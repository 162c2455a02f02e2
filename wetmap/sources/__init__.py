"""Where scenes come from: STAC catalogues, the simulated landscape, your own rasters."""

from wetmap.sources.archive import Archive, check_bands, keeping, open_archive
from wetmap.sources.scene import EXTENT, Scene, Skipped

__all__ = ["EXTENT", "Archive", "Scene", "Skipped", "check_bands", "keeping", "open_archive"]
