"""The parts of a block whose composites the archive itself computes: ask for them, then indices and decibels here.

The answers have the names, the order and the units that ``block_optical`` and ``block_radar`` give.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wetmap.cube import layers_of
from wetmap.errors import RecipeError
from wetmap.imagery.indices import index_bands, spectral_index
from wetmap.imagery.radar import to_db
from wetmap.sources import Archive
from wetmap.sources.earthengine import EarthEngineArchive
from wetmap.sources.earthengine_images import Clearing, Smoothing
from wetmap.stages.block_reading import BlockReader, Values, feature

if TYPE_CHECKING:
    from wetmap import recipe
    from wetmap.stages.block_optical import OpticalResult


def composites_of(archives: Mapping[str, Archive], sensor: str) -> EarthEngineArchive | None:
    """The archive of a sensor, if it makes composites itself."""
    archive = archives.get(sensor)
    return archive if isinstance(archive, EarthEngineArchive) and archive.composites else None


def server_optical(reader: BlockReader, season: str, archive: EarthEngineArchive) -> OpticalResult:
    """Composites of one season by the archive and indices of them, and the clear looks behind them, (y, x) each."""
    from wetmap.stages.block_optical import OpticalResult

    wanted = reader.bands(f"{season}.optical")
    names = [feature(band) for band in wanted if band.kind == "reflectance"]
    indices = [feature(band) for band in wanted if band.kind == "index"]
    needed = list(dict.fromkeys([*names, *(name for index in indices for name in index_bands(index))]))
    if not needed:
        return OpticalResult({}, np.zeros(reader.window.shape, dtype=np.uint16))
    settings = reader.task.optical
    clearing = Clearing(
        mask=tuple(settings.mask),
        dilate_m=settings.dilate_m,
        res_m=reader.window.res_m,
        standing=settings.keep_dark_water and "shadow" in settings.mask,
    )
    percent = settings.percentile if settings.composite == "percentile" else 50.0
    passes = reader.passes(f"{season}.optical")
    composites, count = archive.optical_composite(passes, needed, reader.window, clearing, percent)
    values = {f"{season}.{name}": composites[name] for name in names}
    values |= {f"{season}.{index}": spectral_index(index, composites) for index in indices}
    return OpticalResult(values, count)


def server_radar(reader: BlockReader, season: str, archive: EarthEngineArchive) -> Values:
    """What the passes of one season say for each orbit state wanted, computed by the archive, by name (y, x)."""
    values: Values = {}
    prefix = f"{season}.radar_"
    for layer in layers_of(reader.task.bands):
        if not layer.startswith(prefix):
            continue
        end = f"_{layer.removeprefix(prefix)}"
        stems = {band.name: feature(band).removesuffix(end) for band in reader.bands(layer)}
        found = archive.radar_statistics(
            reader.passes(layer),
            _polarisations(stems),
            reader.window,
            _smoothing(reader.task.radar, reader.window.res_m),
            by_track=reader.task.radar.weight == "tracks",
            spread=any(stem.endswith("_std") for stem in stems.values()),
        )
        values |= {name: _statistic(stem, found) for name, stem in stems.items()}
    return values


def _polarisations(stems: Mapping[str, str]) -> list[str]:
    """The polarisations that features are made of: VV of VV and VV_std, VV and VH of VV_VH_ratio."""
    parts = [part for stem in stems.values() for part in stem.split("_") if part not in {"std", "ratio"}]
    return list(dict.fromkeys(parts))


def _statistic(stem: str, found: Values) -> NDArray[np.float32]:
    """One feature, (y, x) float32: dB, or dimensionless for a ratio."""
    if stem.endswith("_std"):
        return found[stem]
    if stem.endswith("_ratio"):
        over, under = stem.removesuffix("_ratio").split("_")
        with np.errstate(invalid="ignore", divide="ignore"):
            return (found[over].astype(np.float64) / found[under]).astype(np.float32)
    return to_db(found[stem].astype(np.float64)).astype(np.float32)


def _smoothing(settings: recipe.Radar, res_m: float) -> Smoothing:
    if isinstance(settings.looks, str):
        raise RecipeError("radar.looks is `estimate`, and the plan holds no estimate.", do="Run wetmap fetch again.")
    return Smoothing(settings.speckle, settings.window_px, settings.looks, settings.border_m, res_m)


def embedding_features(reader: BlockReader) -> Values:
    """The yearly embeddings, where they are wanted, by name (y, x); dimensionless, vectors of length 1."""
    wanted = [feature(band) for band in reader.bands("embedding")]
    if not wanted:
        return {}
    scenes = tuple(scene for scene in reader.task.scenes if scene.sensor == "embeddings")
    return {f"embedding.{name}": band for name, band in reader.read(scenes, wanted, 0).items()}
