"""Expressions of Earth Engine on numpy masked arrays, as far as wetmap uses them; the fake service evaluates with it.

An image is a set of bands, each a function from a grid to a masked array: what is computed depends on the grid that is
asked for, as in the service. A function that is not here raises an error that names it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from affine import Affine
from pyproj import Transformer

Masked = np.ma.MaskedArray


class ExpressionError(Exception):
    """What the service answers with HTTP 400."""


@dataclasses.dataclass(frozen=True)
class PixelGrid:
    width: int
    height: int
    crs: str
    transform: Affine

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> PixelGrid:
        turn = body["affineTransform"]
        names = ("scaleX", "shearX", "translateX", "shearY", "scaleY", "translateY")
        size = body["dimensions"]
        crs = body.get("crsCode") or body["crsWkt"]
        return cls(int(size["width"]), int(size["height"]), crs, Affine(*(float(turn[name]) for name in names)))

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    def wider(self, margin: int) -> PixelGrid:
        return PixelGrid(
            self.width + 2 * margin,
            self.height + 2 * margin,
            self.crs,
            self.transform @ Affine.translation(-margin, -margin),
        )


@dataclasses.dataclass(frozen=True)
class Img:
    bands: dict[str, Callable[[PixelGrid], Masked]]
    id: str = ""
    smooth: Img | None = None
    """The same image with bilinear interpolation, for images of files."""

    def __post_init__(self) -> None:
        """Compute no band twice on the same grid: in an expression it stands in many places."""
        for name, band in self.bands.items():
            self.bands[name] = band if hasattr(band, "cache_info") else functools.lru_cache(4)(band)

    def each(self, change: Callable[[Masked], Masked]) -> Img:
        return Img({name: lambda grid, band=band: change(band(grid)) for name, band in self.bands.items()})

    def select(self, names: Sequence[str], new: Sequence[str] | None = None) -> Img:
        missing = [name for name in names if name not in self.bands]
        if missing:
            raise ExpressionError(f"Image.select: Pattern '{missing[0]}' did not match any bands.")
        after = list(new or names)
        smooth = self.smooth.select(names, new) if self.smooth else None
        return Img({to: self.bands[name] for name, to in zip(names, after, strict=True)}, self.id, smooth)

    def only(self) -> Callable[[PixelGrid], Masked]:
        return next(iter(self.bands.values()))


def stored(array: np.ndarray, crs: str, transform: Affine, nodata: float | None, *, bilinear: bool) -> Any:
    """A raster as a band: nearest neighbour, or bilinear with the weights of masked neighbours dropped."""
    valid = np.ones(array.shape, dtype=bool) if nodata is None else ~((array == nodata) | np.isnan(array))

    def nearest(rows: np.ndarray, cols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        row, col = np.floor(rows).astype(int), np.floor(cols).astype(int)
        inside = (row >= 0) & (col >= 0) & (row < array.shape[0]) & (col < array.shape[1])
        row, col = np.clip(row, 0, array.shape[0] - 1), np.clip(col, 0, array.shape[1] - 1)
        return array[row, col], inside & valid[row, col]

    def band(grid: PixelGrid) -> Masked:
        rows, cols = _positions(grid, crs, transform)
        value, seen = nearest(rows, cols)
        if not bilinear:
            return np.ma.masked_array(value, ~seen)
        top, left = np.floor(rows - 0.5), np.floor(cols - 0.5)
        down, across = rows - 0.5 - top, cols - 0.5 - left
        down, across = (np.where(abs(part - np.rint(part)) < 1e-6, np.rint(part), part) for part in (down, across))
        total, weights = np.zeros(grid.shape), np.zeros(grid.shape)
        for row, col, weight in (
            (top, left, (1 - down) * (1 - across)),
            (top, left + 1, (1 - down) * across),
            (top + 1, left, down * (1 - across)),
            (top + 1, left + 1, down * across),
        ):
            near, there = nearest(row + 0.5, col + 0.5)
            total += np.where(there, near.astype(float), 0.0) * weight
            weights += np.where(there, weight, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.ma.masked_array(np.where(weights > 0, total / weights, 0.0), ~seen)

    return band


def _positions(grid: PixelGrid, crs: str, transform: Affine) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the grid's pixel centres in a raster."""
    cols, rows = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    x, y = _turned(grid.transform, cols, rows)
    if grid.crs != crs:
        x, y = Transformer.from_crs(grid.crs, crs, always_xy=True).transform(x, y)
    columns, lines = _turned(~transform, x, y)
    return lines, columns


def _turned(turn: Affine, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return turn.a * x + turn.b * y + turn.c, turn.d * x + turn.e * y + turn.f


def constant(value: float) -> Img:
    return Img({"constant": lambda grid: np.ma.masked_array(np.full(grid.shape, value), np.zeros(grid.shape, bool))})


def image(value: Any) -> Img:
    return value if isinstance(value, Img) else constant(value)


def _pairs(one: Img, other: Img) -> list[tuple[str, Any, Any]]:
    if len(other.bands) == len(one.bands):
        return [
            (name, band, match) for (name, band), match in zip(one.bands.items(), other.bands.values(), strict=True)
        ]
    return [(name, band, other.only()) for name, band in one.bands.items()]


def binary(operation: Callable[[Any, Any], Any]) -> Callable[..., Img]:
    def apply(image1: Any, image2: Any) -> Img:
        def join(a: Any, b: Any) -> Callable[[PixelGrid], Masked]:
            def band(grid: PixelGrid) -> Masked:
                one, other = a(grid), b(grid)
                mask = np.ma.getmaskarray(one) | np.ma.getmaskarray(other)
                with np.errstate(all="ignore"):
                    return np.ma.masked_array(operation(one.data.astype(float), other.data.astype(float)), mask)

            return band

        return Img({name: join(a, b) for name, a, b in _pairs(image(image1), image(image2))})

    return apply


def unary(operation: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Img]:
    def apply(value: Any) -> Img:
        def change(band: Masked) -> Masked:
            with np.errstate(all="ignore"):
                return np.ma.masked_array(operation(band.data.astype(float)), np.ma.getmaskarray(band))

        return image(value).each(change)

    return apply


def update_mask(image: Any, mask: Any) -> Img:
    def join(a: Any, b: Any) -> Callable[[PixelGrid], Masked]:
        def band(grid: PixelGrid) -> Masked:
            one, other = a(grid), b(grid)
            hidden = np.ma.getmaskarray(one) | np.ma.getmaskarray(other) | (other.data == 0)
            return np.ma.masked_array(one.data, hidden)

        return band

    return Img({name: join(a, b) for name, a, b in _pairs(globals()["image"](image), globals()["image"](mask))})


def unmask(input: Any, value: Any = 0, same_footprint: bool = True) -> Img:
    if same_footprint:
        raise ExpressionError("this fake has no footprints: unmask beyond them with sameFootprint=False")
    other = image(value).only()

    def fill(band: Any) -> Callable[[PixelGrid], Masked]:
        def filled(grid: PixelGrid) -> Masked:
            one, two = band(grid), other(grid)
            values = np.where(np.ma.getmaskarray(one), two.data.astype(one.dtype), one.data)
            return np.ma.masked_array(values, np.zeros(grid.shape, bool))

        return filled

    return Img({name: fill(band) for name, band in image(input).bands.items()})


def mask_of(image: Any) -> Img:
    def shown(band: Masked) -> Masked:
        return np.ma.masked_array((~np.ma.getmaskarray(band)).astype(float), np.zeros(band.shape, bool))

    return image.each(shown)


def remap(image: Any, to: Any, default_value: Any = None, **words: Any) -> Img:
    table = dict(zip(words["from"], to, strict=True))

    def change(band: Masked) -> Masked:
        values = np.full(band.shape, np.nan if default_value is None else default_value, dtype=float)
        for old, new in table.items():
            values[band.data == old] = new
        return np.ma.masked_array(values, np.ma.getmaskarray(band) | np.isnan(values))

    return image.each(change)


def where(input: Any, test: Any, value: Any) -> Img:
    condition, new = image(test).only(), image(value).only()

    def choose(band: Any) -> Callable[[PixelGrid], Masked]:
        def chosen(grid: PixelGrid) -> Masked:
            old, when, other = band(grid), condition(grid), new(grid)
            yes = ~np.ma.getmaskarray(when) & (when.data != 0)
            return np.ma.masked_array(np.where(yes, other.data, old.data), np.ma.getmaskarray(old))

        return chosen

    return Img({name: choose(band) for name, band in image(input).bands.items()})


def mosaic(collection: Sequence[Img]) -> Img:
    def join(name: str) -> Callable[[PixelGrid], Masked]:
        def band(grid: PixelGrid) -> Masked:
            out = collection[0].bands[name](grid)
            for one in collection[1:]:
                top = one.bands[name](grid)
                hidden = np.ma.getmaskarray(top)
                out = np.ma.masked_array(np.where(hidden, out.data, top.data), np.ma.getmaskarray(out) & hidden)
            return out

        return band

    return Img({name: join(name) for name in collection[0].bands})


# Reducers: (suffix, function of a stack (n, ...) with NaN where masked, whether the answer is masked without input)
Reducer = tuple[str, Callable[[np.ndarray], np.ndarray], bool]


def percentile(percentiles: Sequence[float], max_raw: int | None = None) -> Reducer:
    (percent,) = percentiles
    return _few(f"p{percent:g}", lambda stack: np.nanpercentile(stack, percent, axis=0), max_raw)


def median(max_raw: int | None = None) -> Reducer:
    return _few("median", lambda stack: np.nanmedian(stack, axis=0), max_raw)


def _few(name: str, function: Callable[[np.ndarray], np.ndarray], most: int | None) -> Reducer:
    def checked(stack: np.ndarray) -> np.ndarray:
        if stack.shape[0] > (most or 64):
            raise ExpressionError(
                f"{name} of {stack.shape[0]} values, and maxRaw is {most}: an estimate, in the service"
            )
        return function(stack)

    return name, checked, True


def plain(name: str, function: Callable[..., np.ndarray]) -> Callable[..., Reducer]:
    return lambda: (name, lambda stack: function(stack, axis=0), True)


def count() -> Reducer:
    return "count", lambda stack: np.isfinite(stack).sum(axis=0).astype(float), True


def _reduced(reducer: Reducer, arrays: Sequence[Masked]) -> Masked:
    stack = np.stack([np.where(np.ma.getmaskarray(band), np.nan, band.data.astype(float)) for band in arrays])
    seen = np.isfinite(stack).any(axis=0)
    filled = np.where(seen, stack, 0.0)  # no warning about empty columns
    return np.ma.masked_array(np.where(seen, reducer[1](filled), 0.0), ~seen)


def reduce_collection(collection: Sequence[Img], reducer: Reducer) -> Img:
    names = list(collection[0].bands)
    if any(list(one.bands) != names for one in collection):
        raise ExpressionError("ImageCollection.reduce: the images have different bands")
    return Img(
        {
            f"{name}_{reducer[0]}": lambda grid, name=name: _reduced(
                reducer, [one.bands[name](grid) for one in collection]
            )
            for name in names
        }
    )


def reduce_bands(image: Img, reducer: Reducer) -> Img:
    return Img({reducer[0]: lambda grid: _reduced(reducer, [band(grid) for band in image.bands.values()])})


def offsets(radius: float, kind: str) -> list[tuple[int, int]]:
    reach = int(np.floor(radius))
    steps = range(-reach, reach + 1)
    return [(y, x) for y in steps for x in steps if kind == "square" or y * y + x * x <= radius * radius]


def focal(choose: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Img]:
    def apply(image: Img, radius: float = 1.5, kernel_type: str = "circle", units: str = "pixels") -> Img:
        if units != "pixels":
            raise ExpressionError(f"focal in {units} is not faked")
        return _neighbours(image, offsets(radius, kernel_type), choose, masked_stay=False)

    return apply


def reduce_neighborhood(image: Img, reducer: Reducer, kernel: Sequence[tuple[int, int]]) -> Img:
    grown = _neighbours(image, kernel, reducer[1], masked_stay=True)
    return Img({f"{name}_{reducer[0]}": band for name, band in grown.bands.items()})


def _neighbours(source: Img, offsets: Sequence[tuple[int, int]], function: Any, *, masked_stay: bool) -> Img:
    margin = max(max(abs(y), abs(x)) for y, x in offsets)

    def spread(band: Any) -> Callable[[PixelGrid], Masked]:
        def out(grid: PixelGrid) -> Masked:
            wide = band(grid.wider(margin))
            values = np.where(np.ma.getmaskarray(wide), np.nan, wide.data.astype(float))
            stack = np.stack(
                [
                    values[margin + y : margin + y + grid.height, margin + x : margin + x + grid.width]
                    for y, x in offsets
                ]
            )
            seen = np.isfinite(stack).any(axis=0)
            found = np.where(seen, function(np.where(seen, stack, 0.0)), 0.0)
            here = values[margin : margin + grid.height, margin : margin + grid.width]
            return np.ma.masked_array(found, ~seen | (np.isnan(here) & masked_stay))

        return out

    return Img({name: spread(band) for name, band in source.bands.items()})


def add_bands(dst_img: Any, src_img: Any) -> Img:
    one, other = image(dst_img), image(src_img)
    clash = set(one.bands) & set(other.bands)
    if clash:
        raise ExpressionError(f"this fake does not rename bands that are there twice: {sorted(clash)}")
    return Img({**one.bands, **other.bands})


def resample(image: Img, mode: str = "bilinear") -> Img:
    if image.smooth is None or mode != "bilinear":
        raise ExpressionError("Image.resample: only images of files have a projection to interpolate in")
    return image.smooth


def select(input: Any, band_selectors: Any, new_names: Any = None) -> Img:
    return image(input).select(band_selectors if isinstance(band_selectors, list) else [band_selectors], new_names)


def rename(input: Any, names: Any) -> Img:
    one = image(input)
    return one.select(list(one.bands), names if isinstance(names, list) else [names])


def cast(dtype: str) -> Callable[..., Img]:
    return lambda value: image(value).each(lambda band: band.astype(dtype))
