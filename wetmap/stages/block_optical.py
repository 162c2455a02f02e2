"""The optical part of a block: read, mask, composite, indices.

Memory does not grow with the number of looks: masks are kept as bits, and what must be seen together lies in a
``LookStack``. Every file is read once.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wetmap.imagery.best_pixel import CLEAR_DISTANCE_M, BestPixel, cloud_score, day_score, scene_score
from wetmap.imagery.cloud_masks import combined, parts_of, unclassified
from wetmap.imagery.composite import medoid_composite, percentile_composite
from wetmap.imagery.indices import index_bands, spectral_index
from wetmap.imagery.masks import Bools, Classes, classes_of, clear_mask, dilate_px, obstructed, standing_shadow
from wetmap.stages.block_reading import BlockReader, Pass, Values, cropped, feature
from wetmap.stages.cloud_tiles import cloud_classes
from wetmap.stages.look_stack import LookStack
from wetmap.stages.scenes_check import CheckRow, SceneSamples

Counts = NDArray[np.uint16]
Score = NDArray[np.float64] | float


@dataclass(frozen=True)
class OpticalResult:
    """One season of a block."""

    values: Values
    """Composites and indices by name, (y, x) float32, NaN where not observed."""
    count: Counts
    """Clear looks behind them, (y, x)."""
    checks: tuple[CheckRow, ...] = ()
    """How each scene compares with the others, for the manifest."""


@dataclass(frozen=True)
class _Look:
    """A pass that shows some ground of the block."""

    scenes: Pass
    bits: NDArray[np.uint8] | None
    """Where it shows the ground, packed; None: wherever it has data."""
    score: Score
    """How good its pixels are, for best-pixel."""


def optical_features(reader: BlockReader, season: str) -> OpticalResult:
    """Composites and indices of one season, the clear looks behind them, and how the scenes compare."""
    wanted = reader.bands(f"{season}.optical")
    names = [feature(band) for band in wanted if band.kind == "reflectance"]
    indices = [feature(band) for band in wanted if band.kind == "index"]
    needed = list(dict.fromkeys([*names, *(name for index in indices for name in index_bands(index))]))
    if not needed:
        return OpticalResult({}, np.zeros(reader.window.shape, dtype=np.uint16))
    while True:
        failed = len(reader.failures)
        looks = _Looks(reader, season, needed)
        composites, count = looks.composites()
        if len(reader.failures) == failed:
            break  # Else a scene failed half way, and again without it: no band may keep it.
    values = {f"{season}.{name}": composites[name] for name in names}
    values |= {f"{season}.{index}": spectral_index(index, composites) for index in indices}
    return OpticalResult(values, count, looks.samples.rows(season))


class _Looks:
    """The looks of one season of a block, and what they become.

    Args:
        reader: Reads the block.
        season: Name of the season.
        names: Bands that are composited, at least one.
    """

    def __init__(self, reader: BlockReader, season: str, names: Sequence[str]) -> None:
        self.reader = reader
        self.season = season
        self.names = names
        self.settings = reader.task.optical
        self.shape = reader.window.shape
        self.samples = SceneSamples(reader.window, names)

    def composites(self) -> tuple[Values, Counts]:
        """Each band's composite (y, x), and the least number of looks behind any of them."""
        if self.settings.composite == "best-pixel":
            return self._best_pixel()
        if self.settings.composite == "medoid":
            return self._medoid()
        return self._per_band(self.settings.percentile if self.settings.composite == "percentile" else 50.0)

    def _per_band(self, percent: float) -> tuple[Values, Counts]:
        looks = list(self._looks())
        composites: Values = {}
        least = np.full(self.shape, np.iinfo(np.uint16).max, dtype=np.uint16)
        for name in self.names:
            composite = np.empty(self.shape, dtype=np.float32)
            with LookStack(len(looks), self.shape) as stack:
                for number, look in enumerate(looks):
                    stack.put(number, self._read(look, [name])[name])
                for y0, y1 in stack.strips():
                    composite[y0:y1], count = percentile_composite(stack.rows(0, len(looks), y0, y1), percent)
                    np.minimum(least[y0:y1], count, out=least[y0:y1])
            composites[name] = composite
        return composites, least

    def _medoid(self) -> tuple[Values, Counts]:
        looks, bands = list(self._looks()), len(self.names)
        composite = np.empty((bands, *self.shape), dtype=np.float32)
        count = np.empty(self.shape, dtype=np.uint16)
        with LookStack(len(looks) * bands, self.shape) as stack:
            for number, look in enumerate(looks):
                values = self._read(look, self.names)
                for band, name in enumerate(self.names):
                    stack.put(number * bands + band, values[name])
            for y0, y1 in stack.strips():
                rows = stack.rows(0, len(looks) * bands, y0, y1).reshape(len(looks), bands, y1 - y0, self.shape[1])
                composite[:, y0:y1], count[y0:y1] = medoid_composite(rows)
        return dict(zip(self.names, composite, strict=True)), count

    def _best_pixel(self) -> tuple[Values, Counts]:
        best = BestPixel(len(self.names), self.shape)
        for look in self._looks():
            values = self._read(look, self.names)
            best.offer(np.stack([values[name] for name in self.names]), look.score)
        return dict(zip(self.names, best.composite, strict=True)), best.count

    def _read(self, look: _Look, names: Sequence[str]) -> Values:
        """Bands of a look, NaN where it is not clear; where scenes of a pass overlap the last in the list counts.

        Scenes are read one by one, so that each is compared with the others by what it gave.
        """
        clear = None if look.bits is None else _unpacked(look.bits, self.shape)
        values: Values = {name: np.full(self.shape, np.nan, dtype=np.float32) for name in names}
        for scene in reversed(look.scenes):
            for name, band in self.reader.read((scene,), names, 0).items():
                taken = np.isnan(values[name])
                if clear is not None:
                    taken &= clear
                np.copyto(values[name], band, where=taken)
                self.samples.add(scene.id, name, band, taken)
        return values

    def _looks(self) -> Iterator[_Look]:
        """The season's passes that show any ground of the block, one by one."""
        passes = self.reader.passes(f"{self.season}.optical")
        res_m, scored = self.reader.window.res_m, self.settings.composite == "best-pixel"
        margin = dilate_px(self.settings.dilate_m, res_m)
        if scored:
            margin = max(margin, dilate_px(CLEAR_DISTANCE_M, res_m))
        wide = self.shape[0] + 2 * margin, self.shape[1] + 2 * margin
        with LookStack(len(passes), wide, np.uint8) as stack:
            classified = self._classify(passes, stack, margin)
            believed = self.settings.keep_dark_water and "shadow" in self.settings.mask
            standing = standing_shadow(stack.plane(n) for n in classified if classified[n]) if believed else None
            for number, scenes in enumerate(passes):
                if number not in classified:
                    yield _Look(scenes, None, self._score(scenes, 1.0) if scored else 0.0)
                elif classified[number]:
                    classes = stack.plane(number)
                    clear = cropped(self._clear(classes, standing), margin)
                    if clear.any():
                        near = self._nearness(classes, standing, margin) if scored else 0.0
                        yield _Look(scenes, np.packbits(clear), self._score(scenes, near) if scored else 0.0)

    def _classify(self, passes: Sequence[Pass], stack: LookStack, margin: int) -> dict[int, bool]:
        """Put the classification of each pass into a stack; gives, for those that have one, whether it shows anything.

        Passes of which a scene has none are left out, unless a network makes the mask.
        """
        found: dict[int, bool] = {}
        with_scl, mask = parts_of(self.settings.mask_from)
        for number, scenes in enumerate(passes):
            classified = all("SCL" in scene.bands for scene in scenes)
            if not classified and mask is None:
                continue
            classes = self._scl(scenes, margin) if classified else None
            if mask is not None and (classes is not None or not classified):
                seen = cloud_classes(self.reader, scenes, margin, mask)
                classes = unclassified(seen) if classes is None else classes
                classes = combined(classes, seen, trust_scl=with_scl)
            found[number] = classes is not None
            if classes is not None:
                stack.put(number, classes)
        return found

    def _scl(self, scenes: Pass, margin: int) -> Classes | None:
        """The scene classification of a pass, (y, x); None where it shows nothing."""
        scl = self.reader.read(scenes, ["SCL"], margin).get("SCL")
        return None if scl is None or bool(np.isnan(scl).all()) else classes_of(scl)

    def _clear(self, classes: Classes, standing: Bools | None) -> Bools:
        return clear_mask(
            classes,
            res_m=self.reader.window.res_m,
            dilate_m=self.settings.dilate_m,
            mask=self.settings.mask,
            standing=standing,
        )

    def _nearness(self, classes: Classes, standing: Bools | None, margin: int) -> NDArray[np.float64]:
        found = obstructed(classes, self.settings.mask, standing)
        return cropped(cloud_score(found, res_m=self.reader.window.res_m), margin)

    def _score(self, scenes: Pass, near: Score) -> Score:
        """Sum of the scores of the clouds' distance, the day, and the scene."""
        first = scenes[0]
        score = scene_score(first.cloud_percent)
        days = self.reader.task.days.get(self.season)
        if first.datetime and days is not None:
            score += day_score(dt.datetime.fromisoformat(first.datetime).date(), *days)
        return near + score


def _unpacked(bits: NDArray[np.uint8], shape: tuple[int, int]) -> Bools:
    return np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape).view(np.bool_)
