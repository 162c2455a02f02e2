"""What Earth Engine is asked to compute: masks, composites and filters as expressions on images named one by one.

The same steps as ``wetmap.imagery`` takes here, in the same order, on the same pixels: an expression is evaluated on
the grid that its pixels are asked for on, so that a radius in pixels is one of the map's pixels. Nothing is computed in
this module; ``ee`` must be open (``earthengine_client.connect``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wetmap.imagery.masks import (
    CIRRUS,
    CLOUD_SHADOW,
    CLOUDS,
    GROWN,
    LAND,
    MASKABLE,
    NO_DATA,
    STANDING_LOOKS,
    WATER,
    dilate_px,
)
from wetmap.imagery.radar import HOLE_PX
from wetmap.sources.decode import PALSAR_CF_DB, PALSAR_MASK_GOOD
from wetmap.sources.scene import Scene

#: Sentinel-2 counts to reflectance, in the harmonised collection.
REFLECTANCE_PER_COUNT = 1e-4
#: Class of the scene classification without an opinion: what its clouds become where Cloud Score+ decides.
UNCLASSIFIED = 7
#: Bands of Earth Engine's Sentinel-2 collections by wetmap's names: numbers without a leading zero.
SENTINEL2: Mapping[str, str] = {
    **{f"B{number:02d}": f"B{number}" for number in (2, 3, 4, 5, 6, 7, 8, 11, 12)},
    "B8A": "B8A",
    "SCL": "SCL",
}
Pass = Sequence[Scene]


@dataclass(frozen=True)
class CloudRule:
    """What optical pixels are masked by: the recipe's words."""

    mask: str = "scl"
    """``scl``, ``cloud-score`` or ``both``."""
    least_clear: float = 0.6
    """Cloud Score+ below which a pixel counts as cloud, 0-1."""


@dataclass(frozen=True)
class Clearing:
    """How an optical look is cleaned: see ``wetmap.imagery.masks``."""

    mask: tuple[str, ...]
    """What is masked, names of ``MASKABLE``."""
    dilate_m: float
    """How far clouds and shadows are grown, metres."""
    res_m: float
    """Pixel side of the map, metres."""
    standing: bool
    """Whether shadows that stand still all season are taken for dark ground."""


def optical_image(scene: Scene, names: Sequence[str], rule: CloudRule) -> Any:
    """Bands of one Sentinel-2 scene: reflectance by bilinear interpolation, SCL by nearest neighbour."""
    import ee

    image = ee.Image(scene.item["asset"])
    measured = [name for name in names if name != "SCL"]
    parts = []
    if measured:
        stored = image.select([SENTINEL2[name] for name in measured])
        parts.append(stored.resample("bilinear").multiply(REFLECTANCE_PER_COUNT).rename(measured))
    if "SCL" in names:
        parts.append(_classification(image, scene, rule))
    # Images of a collection must have bands of the same types.
    return (ee.Image.cat(parts) if len(parts) > 1 else parts[0]).toFloat()


def _classification(image: Any, scene: Scene, rule: CloudRule) -> Any:
    """The scene classification, with Cloud Score+ written into it where the recipe says so."""
    import ee

    classes = image.select("SCL")
    score = scene.item.get("cloud_score")
    if rule.mask == "scl" or score is None:
        return classes
    if rule.mask == "cloud-score":
        clouds = [CLOUD_SHADOW, *CLOUDS, CIRRUS]
        classes = classes.where(_among(classes, clouds), UNCLASSIFIED)
    cloudy = ee.Image(score).select("cs_cdf").lt(rule.least_clear)
    return classes.where(cloudy, CLOUDS[0])


def radar_image(scene: Scene, names: Sequence[str]) -> Any:
    """Linear power of one Sentinel-1 scene by bilinear interpolation; bands that it does not hold are masked."""
    import ee

    held = [name for name in names if name in scene.bands]
    parts = [ee.Image(scene.item["asset"]).select(held).resample("bilinear")] if held else []
    parts += [ee.Image.constant(0).updateMask(0).rename(name) for name in names if name not in held]
    image = ee.Image.cat(parts).select(list(names)) if len(parts) > 1 else parts[0]
    return image.updateMask(image.gt(0)).toDouble()


def lband_image(scene: Scene, names: Sequence[str]) -> Any:
    """The yearly L-band mosaic: linear gamma-0 power, and ``mask``, 1 where its own mask says land or water.

    Counts are interpolated, which are amplitudes; the service cannot interpolate what it computes.
    """
    import ee

    image = ee.Image(scene.item["asset"])
    parts = []
    for name in names:
        if name == "mask":
            parts.append(_among(image.select("qa"), PALSAR_MASK_GOOD).rename("mask"))
        else:
            counts = image.select(name).resample("bilinear")
            parts.append(counts.multiply(counts).multiply(10 ** (PALSAR_CF_DB / 10)))
    return ee.Image.cat(parts) if len(parts) > 1 else parts[0]


def plain_image(scene: Scene, bands: Mapping[str, str], *, bilinear: bool) -> Any:
    """Bands of one image as they are stored, renamed."""
    import ee

    image = ee.Image(scene.item["asset"]).select(list(bands.values()))
    return (image.resample("bilinear") if bilinear else image).rename(list(bands))


def _mosaic(images: Sequence[Any]) -> Any:
    """Images of one overflight as one; where they overlap the last counts, as everywhere in wetmap."""
    import ee

    return images[0] if len(images) == 1 else ee.ImageCollection.fromImages(list(images)).mosaic()


def _among(image: Any, classes: Sequence[int]) -> Any:
    """1 where a class of the list, else 0; masked where the image is."""
    return image.remap(list(classes), [1] * len(classes), 0)


def optical_composite(
    passes: Sequence[Pass], names: Sequence[str], rule: CloudRule, clearing: Clearing, percent: float
) -> Any:
    """Percentile of the clear looks, and ``clear_count``, the least number of looks behind any band.

    Args:
        passes: The overflights of a season that come near the window; at least one.
        names: Bands wanted, by wetmap's names.
        rule: What clouds are known by.
        clearing: What is masked, and how far it is grown.
        percent: 50 is the median.

    Returns:
        An image of ``names``, reflectance, and ``clear_count``.
    """
    import ee

    looks = [_mosaic([optical_image(scene, [*names, "SCL"], rule) for scene in scenes]) for scenes in passes]
    standing = _standing_shadow([look.select("SCL") for look in looks]) if clearing.standing else None
    cleared = [
        look.select(list(names)).updateMask(_clear(look.select("SCL"), clearing, standing)).toFloat() for look in looks
    ]
    collection = ee.ImageCollection.fromImages(cleared)
    # With room for every look the service sorts them all; beyond that it would estimate from a histogram.
    room = len(cleared) + 1
    reducer = ee.Reducer.median(maxRaw=room) if percent == 50 else ee.Reducer.percentile([percent], maxRaw=room)
    count = collection.reduce(ee.Reducer.count()).unmask(0, False).reduce(ee.Reducer.min()).rename("clear_count")
    return collection.reduce(reducer).rename(list(names)).addBands(count)


def _clear(classes: Any, clearing: Clearing, standing: Any | None) -> Any:
    """As ``wetmap.imagery.masks.clear_mask``: 1 where the look shows the ground."""
    plain = [NO_DATA, *(number for name in clearing.mask if name not in GROWN for number in MASKABLE[name])]
    grown = [number for name in clearing.mask if name in GROWN for number in MASKABLE[name]]
    known = classes.unmask(NO_DATA, False)
    clear = _among(known, plain).Not()
    if not grown:
        return clear
    covered = _among(known, grown)
    if standing is not None:
        covered = covered.And(known.eq(CLOUD_SHADOW).And(standing).Not())
    radius = dilate_px(clearing.dilate_m, clearing.res_m)
    if radius:
        covered = covered.focalMax(radius, "circle", "pixels")
    return clear.And(covered.Not())


def _standing_shadow(looks: Sequence[Any]) -> Any:
    """As ``wetmap.imagery.masks.standing_shadow``: 1 where a shadow is dark ground."""
    import ee

    known = [classes.unmask(NO_DATA, False) for classes in looks]

    def count(wanted: Sequence[int]) -> Any:
        return ee.ImageCollection.fromImages([_among(classes, wanted).rename("n") for classes in known]).reduce(
            ee.Reducer.sum()
        )

    water, land, shadow = count([WATER]), count(list(LAND)), count([CLOUD_SHADOW])
    often = shadow.gte(STANDING_LOOKS).And(shadow.gt(water.add(land)))
    return water.gt(land).Or(often)


@dataclass(frozen=True)
class Smoothing:
    """How radar passes are cleaned: see ``wetmap.imagery.radar`` and ``wetmap.imagery.speckle``."""

    speckle: str
    """``none``, ``boxcar`` or ``lee``."""
    window_px: int
    """Side of the filter's window, pixels."""
    looks: float
    """Equivalent number of looks."""
    border_m: float
    """Rim of the footprint that is not used, metres."""
    res_m: float
    """Pixel side of the map, metres."""


def radar_statistics(
    tracks: Sequence[Sequence[Pass]], names: Sequence[str], smoothing: Smoothing, *, by_track: bool, spread: bool
) -> Any:
    """Mean power of a season, and its spread from pass to pass.

    Args:
        tracks: The overflights that come near the window, those of a track together.
        names: Polarisations wanted.
        smoothing: Rim and filter.
        by_track: Whether every track counts the same in the mean; else every pass.
        spread: Whether the standard deviation of the decibels, within tracks, is wanted too.

    Returns:
        An image of ``names``, linear power, and for each ``<name>_std``, dB, if wanted.
    """
    import ee

    cleaned = [[_radar_pass(scenes, names, smoothing) for scenes in passes] for passes in tracks]
    mean = ee.Reducer.mean()
    if by_track:
        result = _over([_over(images, mean, names) for images in cleaned], mean, names)
    else:
        result = _over([image for images in cleaned for image in images], mean, names)
    return result.addBands(_spread(cleaned, names)) if spread else result


def _spread(tracks: Sequence[Sequence[Any]], names: Sequence[str]) -> Any:
    """Standard deviation of the decibels from each track's own mean, N in the denominator: ``<name>_std``, dB."""
    import ee

    squares, counts = [], []
    for images in tracks:
        decibels = [image.log10().multiply(10) for image in images]
        count = _over(decibels, ee.Reducer.count(), names)
        squares.append(_over(decibels, ee.Reducer.variance(), names).multiply(count))
        counts.append(count)
    total = _over(squares, ee.Reducer.sum(), names).divide(_over(counts, ee.Reducer.sum(), names))
    return total.sqrt().rename([f"{name}_std" for name in names])


def _over(images: Sequence[Any], reducer: Any, names: Sequence[str]) -> Any:
    import ee

    return ee.ImageCollection.fromImages(list(images)).reduce(reducer).rename(list(names))


def _radar_pass(scenes: Pass, names: Sequence[str], smoothing: Smoothing) -> Any:
    """One overflight: slices together, rim off, filtered, linear power."""
    image = _mosaic([radar_image(scene, names) for scene in scenes])
    image = image.updateMask(_kept(image, [name for name in names if any(name in s.bands for s in scenes)], smoothing))
    if smoothing.speckle == "boxcar":
        return _window_mean(image, smoothing.window_px, names)
    if smoothing.speckle == "lee":
        return _lee(image, smoothing, names)
    return image.toDouble()


def _kept(image: Any, held: Sequence[str], smoothing: Smoothing) -> Any:
    """As ``wetmap.imagery.radar.erode_footprint``: 1 inside the footprint, its rim taken off, small holes no edge."""
    import ee

    valid = image.select(list(held)).mask().reduce(ee.Reducer.min()).gt(0).unmask(0, False)
    rim = math.ceil(smoothing.border_m / smoothing.res_m - 1e-9)
    if rim == 0:
        return valid
    core = valid.Not().focalMin(HOLE_PX, "square", "pixels")
    outside = core.focalMax(HOLE_PX, "square", "pixels")
    return valid.And(outside.focalMax(rim, "circle", "pixels").Not())


def _window_mean(image: Any, window_px: int, names: Sequence[str]) -> Any:
    import ee

    kernel = ee.Kernel.square(window_px // 2, "pixels")
    return image.toDouble().reduceNeighborhood(ee.Reducer.mean(), kernel).rename(list(names))


def _lee(image: Any, smoothing: Smoothing, names: Sequence[str]) -> Any:
    """As ``wetmap.imagery.speckle.lee``, which gives the source."""
    power = image.toDouble()
    mean = _window_mean(power, smoothing.window_px, names)
    variance = _window_mean(power.multiply(power), smoothing.window_px, names).subtract(mean.multiply(mean)).max(0)
    noise = mean.multiply(mean).divide(smoothing.looks)
    signal = variance.subtract(noise).divide(1 + 1 / smoothing.looks).max(0)
    return mean.add(signal.divide(signal.add(noise)).multiply(power.subtract(mean)))
