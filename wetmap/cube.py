"""The feature cube on disk: write a block, read a block with a margin.

Three arrays in one Zarr group, one shard per fetch block, so that blocks are written by many processes without a lock,
and in each shard small chunks, so that a window decodes little more than itself:

- ``features (band, y, x)`` int16, one fixed scale per kind of feature, -32768 where not observed;
- ``observed (layer, y, x)`` uint8, one layer per season x sensor x orbit state, and one for terrain;
- ``clear_count (season, y, x)`` uint16, clear optical looks.

What was not observed is a mask that reaches the model: 0 is never nodata.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from wetmap.errors import WorkspaceError
from wetmap.geo.grid import Block, Grid
from wetmap.recipe import Features, Recipe

#: Stored value of a feature that was not observed.
UNOBSERVED = np.int16(-32768)
#: Most and least side of a chunk inside a shard, pixels: a block of 512 with a margin touches 36 chunks of 128, 40 % of
#: what nine chunks of 512 hold; smaller ones cost more in bookkeeping than they save in decoding.
CHUNK_PX, LEAST_CHUNK_PX = 128, 32


@dataclass(frozen=True)
class Kind:
    """How one kind of feature is stored: value = stored * step + offset."""

    unit: str
    """Unit of the value."""
    step: float
    """One count, in the unit."""
    offset: float = 0.0
    """Value of a stored 0, in the unit."""

    @property
    def span(self) -> tuple[float, float]:
        """Smallest and largest value that can be stored; beyond them values are clipped."""
        return -32767 * self.step + self.offset, 32767 * self.step + self.offset


#: Steps are finer than the measurement: Sentinel-2 is delivered in steps of 1e-4, speckle is of the order of a decibel,
#: and no elevation model of this resolution is good to a quarter of a metre.
KINDS: dict[str, Kind] = {
    "reflectance": Kind("1", 1e-4),
    "index": Kind("1", 1e-4),
    "gamma0_db": Kind("dB", 0.01),
    "sigma0_db": Kind("dB", 0.01),
    "spread_db": Kind("dB", 0.001),
    "power_ratio": Kind("1", 0.005, 160.0),
    "elevation": Kind("m", 0.25, 1000.0),
    "slope": Kind("degree", 0.01),
    "aspect": Kind("1", 1e-4),
    "tpi": Kind("m", 0.05),
    "twi": Kind("ln(m)", 0.001),
    "hand": Kind("m", 0.05),
    "embedding": Kind("1", 5e-5),
}


#: Bands of the yearly satellite embeddings.
EMBEDDINGS = 64


@dataclass(frozen=True)
class Band:
    """One band of the cube."""

    name: str
    """``<season>.<feature>`` or ``terrain.<feature>``."""
    kind: str
    """Key of ``KINDS``."""
    unit: str
    """Unit of the values that ``read_window`` gives."""
    layer: str
    """The observed layer that says where it was seen."""


def bands_of(recipe: Recipe) -> tuple[Band, ...]:
    """The bands a recipe asks for, in their order on the band axis: seasons first, then terrain."""
    bands: list[Band] = []
    features, sources = recipe.features, recipe.sources
    for season in recipe.seasons:
        if sources.optical is not None:
            layer = f"{season.name}.optical"
            bands += [_band(f"{season.name}.{name}", "reflectance", layer) for name in features.optical]
            bands += [_band(f"{season.name}.{name}", "index", layer) for name in features.indices]
        if sources.radar is not None:
            bands += [
                _band(f"{season.name}.{stem}_{state}", kind, f"{season.name}.radar_{state}")
                for state in features.orbit_states
                for stem, kind in _radar_stems(features, _backscatter(recipe))
            ]
    if sources.terrain is not None:
        bands += [_band(f"terrain.{name}", kind, "terrain") for name, kind in _terrain_bands(features)]
    if sources.lband is not None:
        bands += [_band(f"lband.{pol}", "gamma0_db", "lband") for pol in features.lband]
    if features.embeddings:
        bands += [_band(f"embedding.A{number:02d}", "embedding", "embedding") for number in range(EMBEDDINGS)]
    return tuple(bands)


def _backscatter(recipe: Recipe) -> str:
    """Kind of the radar source's decibels: Earth Engine has sigma-0, which no slope is taken out of."""
    source = recipe.sources.radar
    return "sigma0_db" if source is not None and source.kind == "earth-engine" else "gamma0_db"


def _radar_stems(features: Features, backscatter: str) -> list[tuple[str, str]]:
    """Names of one orbit state's radar features without the state, and their kinds: VV, VV_std, VV_VH_ratio."""
    stems: list[tuple[str, str]] = []
    if "mean" in features.radar_statistics:
        stems += [(pol, backscatter) for pol in features.radar]
    if "std" in features.radar_statistics:
        stems += [(f"{pol}_std", "spread_db") for pol in features.radar]
    if features.radar_ratio:
        stems += [(f"{over}_{under}_ratio", "power_ratio") for over, under in features.ratios]
    return stems


def _terrain_bands(features: Features) -> list[tuple[str, str]]:
    """Names of the terrain features and their kinds; aspect, which runs in a circle, is two numbers."""
    parts = {"aspect": [("aspect_north", "aspect"), ("aspect_east", "aspect")], "tpi_wide": [("tpi_wide", "tpi")]}
    return [pair for name in features.terrain for pair in parts.get(name, [(name, name)])]


def _band(name: str, kind: str, layer: str) -> Band:
    return Band(name, kind, KINDS[kind].unit, layer)


def layers_of(bands: Sequence[Band]) -> tuple[str, ...]:
    """The observed layers, in order of their first band."""
    return tuple(dict.fromkeys(band.layer for band in bands))


def pack(values: NDArray[np.float32], bands: Sequence[Band]) -> NDArray[np.int16]:
    """Features (band, y, x) float32 with NaN to int16 counts, values beyond a kind's span clipped to its ends."""
    packed = np.full(values.shape, UNOBSERVED, dtype=np.int16)
    for number, band in enumerate(bands):
        kind = KINDS[band.kind]
        seen = np.isfinite(values[number])
        counts = np.rint((values[number][seen].astype(np.float64) - kind.offset) / kind.step)
        packed[number][seen] = np.clip(counts, -32767, 32767).astype(np.int16)
    return packed


def clipped(values: NDArray[np.float32], bands: Sequence[Band]) -> dict[str, int]:
    """Pixels of features (band, y, x) that ``pack`` would clip, by name of the band; bands without any are left out."""
    found = {}
    for number, band in enumerate(bands):
        low, high = KINDS[band.kind].span
        beyond = (values[number] < low) | (values[number] > high)  # NaN is neither
        if beyond.any():
            found[band.name] = int(beyond.sum())
    return found


def unpack(counts: NDArray[np.int16], bands: Sequence[Band]) -> NDArray[np.float32]:
    """Counts (band, y, x) back to float32, NaN where not observed."""
    values = np.empty(counts.shape, dtype=np.float32)
    for number, band in enumerate(bands):
        kind = KINDS[band.kind]
        values[number] = counts[number] * np.float32(kind.step) + np.float32(kind.offset)
        values[number][counts[number] == UNOBSERVED] = np.nan
    return values


def chunk_side(block_px: int) -> int:
    """Side of the chunks of a block's shard, pixels: the largest that divides it, or the whole block."""
    return next((side for side in range(CHUNK_PX, LEAST_CHUNK_PX - 1, -1) if block_px % side == 0), block_px)


class Cube:
    """A feature cube on disk. Opening it again in another process needs only its path."""

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        self.grid = Grid.from_json(header["grid"])
        self.bands = tuple(Band(**band) for band in header["bands"])
        self.layers = layers_of(self.bands)
        self.seasons: tuple[str, ...] = tuple(header["seasons"])
        self.block_px: int = header["block_px"]
        self.chunk_px = chunk_side(self.block_px)
        self.simulated: bool = header["simulated"]
        group = zarr.open_group(str(path), mode="r+", zarr_format=3)
        self._features = _array(group, "features")
        self._observed = _array(group, "observed")
        self._clear = _array(group, "clear_count")

    @classmethod
    def open(cls, path: Path) -> Cube:
        """Open a cube.

        Raises:
            WorkspaceError: There is no complete cube at ``path``.
        """
        try:
            header = json.loads((path / "wetmap.json").read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise WorkspaceError(f"{path} is not a feature cube ({error}).", do="Run wetmap fetch.") from error
        return cls(path, header)

    @classmethod
    def create(
        cls, path: Path, grid: Grid, bands: Sequence[Band], seasons: Sequence[str], *, block_px: int, simulated: bool
    ) -> Cube:
        """Make an empty cube, or open the one that an interrupted run left.

        The header is written last: a folder without it is begun anew.
        """
        if (path / "wetmap.json").exists():
            return cls.open(path)
        path.mkdir(parents=True, exist_ok=True)
        group = zarr.open_group(str(path), mode="a", zarr_format=3)
        layers = layers_of(bands)
        chunk = chunk_side(block_px)
        for name, count, dtype, fill in (
            ("features", len(bands), "int16", int(UNOBSERVED)),
            ("observed", len(layers), "uint8", 0),
            ("clear_count", len(seasons), "uint16", 0),
        ):
            group.create_array(
                name,
                shape=(count, *grid.shape),
                chunks=(max(count, 1), chunk, chunk),
                shards=(max(count, 1), block_px, block_px),
                dtype=dtype,
                fill_value=fill,
                overwrite=True,
                dimension_names=({"features": "band", "observed": "layer", "clear_count": "season"}[name], "y", "x"),
            )
        header = {
            "grid": grid.to_json(),
            "bands": [asdict(band) for band in bands],
            "seasons": list(seasons),
            "block_px": block_px,
            "simulated": simulated,
        }
        temporary = path / ".tmp-wetmap.json"
        temporary.write_text(json.dumps(header, indent=1, sort_keys=True), encoding="utf-8")
        temporary.replace(path / "wetmap.json")
        return cls(path, header)

    def write_block(
        self,
        block: Block,
        features: NDArray[np.float32],
        observed: NDArray[np.bool_],
        clear_count: NDArray[np.uint16],
    ) -> None:
        """Write one fetch block: features (band, y, x) with NaN, observed (layer, y, x), clear_count (season, y, x)."""
        rows, cols = block.slices
        self._features[:, rows, cols] = pack(features, self.bands)
        self._observed[:, rows, cols] = observed.astype(np.uint8)
        if self.seasons:
            self._clear[:, rows, cols] = clear_count

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the grid, pixels."""
        return self.grid.shape

    def read_window(self, y0: int, x0: int, height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window that may reach outside the grid.

        Returns:
            features (band, height, width) float32, NaN where not observed or outside; observed (layer, height, width).
        """
        window = (y0, x0, height, width)
        return self.read_features(*window), self.read_observed(*window)

    def read_features(self, y0: int, x0: int, height: int, width: int) -> NDArray[np.float32]:
        """Features of a window that may reach outside the grid, (band, height, width), NaN as in ``read_window``."""
        return unpack(self._window(self._features, (y0, x0, height, width), UNOBSERVED), self.bands)

    def read_bands(self, block: Block, numbers: Sequence[int]) -> NDArray[np.float32]:
        """Some bands of a block, by their places on the band axis, (band, height, width), NaN where not observed."""
        rows, cols = block.slices
        counts = np.asarray(self._features.oindex[list(numbers), rows, cols])
        return unpack(counts, [self.bands[number] for number in numbers])

    def read_observed(self, y0: int, x0: int, height: int, width: int) -> NDArray[np.bool_]:
        """What was observed in a window that may reach outside the grid, (layer, height, width)."""
        found: NDArray[np.bool_] = self._window(self._observed, (y0, x0, height, width), np.uint8(0)) != 0
        return found

    def _window(self, stored: Any, window: tuple[int, int, int, int], outside: np.integer[Any]) -> NDArray[Any]:
        """A window (first row, first column, height, width) of a stored array; copied only if it leaves the grid."""
        y0, x0, height, width = window
        top, left = max(y0, 0), max(x0, 0)
        bottom, right = min(y0 + height, self.grid.height), min(x0 + width, self.grid.width)
        if (top, left, bottom, right) == (y0, x0, y0 + height, x0 + width):
            return np.asarray(stored[:, top:bottom, left:right])
        found = np.full((stored.shape[0], height, width), outside)
        if bottom > top and right > left:
            inner = (slice(None), slice(top - y0, bottom - y0), slice(left - x0, right - x0))
            found[inner] = stored[:, top:bottom, left:right]
        return found

    def read_clear_count(self, block: Block) -> NDArray[np.uint16]:
        """Clear optical looks of a block, (season, y, x)."""
        rows, cols = block.slices
        return np.asarray(self._clear[:, rows, cols], dtype=np.uint16)


def _array(group: zarr.Group, name: str) -> Any:
    found = group[name]
    if not isinstance(found, zarr.Array):
        raise WorkspaceError(
            f"{name} in {group.store_path} is not an array.", do="Delete this cube and run wetmap fetch."
        )
    return found
