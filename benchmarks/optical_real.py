"""Real Sentinel-2 scenes masked and composited by wetmap's own code, and the picture of it in the docs.

Three Earth Search items of tile 33TWL (Slovenia and Croatia, August 2023, decimated to 120 m) and twelve dates of a
small place in Belgium (CDSE by openEO, April and May 2023, 10 m). Both folders are needed; they are not part of the
project.

    python benchmarks/optical_real.py FOLDER_S2 FILE_NC --picture docs/pictures/optical-real.png
"""

from __future__ import annotations

import argparse
import datetime as dt
import io
import json
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.errors import NotGeoreferencedWarning
from shapely.geometry import MultiPolygon, box, mapping

from wetmap.cube import bands_of
from wetmap.geo import Aoi, Block, Grid
from wetmap.imagery.masks import clear_mask
from wetmap.recipe import Features, Optical, Radar, Recipe, Season, Sources, StacSource
from wetmap.sources import Scene, open_archive
from wetmap.stages.block_features import BlockResult, block_features
from wetmap.stages.block_reading import FetchTask
from wetmap.stages.scenes_check import check_scenes

#: Pixels of the decimated tile and their side, metres.
TILE_PX, TILE_RES_M, TILE_CRS = 915, 120.0, "EPSG:32633"
#: The files' own names and the assets of an Earth Search item.
ASSETS = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir", "SCL": "scl"}
AUGUST = Season(name="summer", start=dt.date(2023, 8, 1), end=dt.date(2023, 8, 31))
SPRING = Season(name="spring", start=dt.date(2023, 4, 1), end=dt.date(2023, 5, 31))
#: Days of the openEO file are counted from here.
EPOCH = dt.date(1990, 1, 1)


@dataclass(frozen=True)
class Place:
    """Scenes of one place and season, ready to be composited."""

    grid: Grid
    season: Season
    catalog: Path
    bands: tuple[str, ...]

    def task(self, **optical: Any) -> FetchTask:
        """What wetmap's fetch would hand to its workers; keywords are settings of ``Optical``."""
        source = StacSource(catalog=str(self.catalog))
        features = Features.model_validate(
            {"preset": "custom", "optical": list(self.bands), "indices": [], "radar": [], "terrain": []}
        )
        recipe = Recipe(
            features=features,
            seasons=[self.season],
            sources=Sources(optical=source, radar=None, terrain=None),
            optical=Optical.model_validate({"dilate_m": 40, **optical}),
        )
        archive = open_archive(source, "optical")
        everywhere = Aoi("everywhere", MultiPolygon([box(-180, -80, 180, 80)]))
        scenes, _ = archive.search("optical", everywhere, recipe.seasons, max_cloud_percent=100)
        return FetchTask(
            grid=self.grid,
            bands=bands_of(recipe),
            seasons=(self.season.name,),
            scenes=tuple(scenes),
            archives={"optical": archive},
            optical=recipe.optical,
            radar=Radar(),
            days={self.season.name: (self.season.start, self.season.end)},
        )

    def composite(self, **optical: Any) -> BlockResult:
        """The whole place as one block."""
        return block_features(self.task(**optical), Block(0, 0, 0, 0, *self.grid.shape))


def tile(folder: Path, work: Path) -> Place:
    """The three items; their JPEG 2000 files carry no place on the ground, so each is wrapped in one that does."""
    items = []
    for path in sorted(folder.glob("*/*.json")):
        body = json.loads(path.read_text(encoding="utf-8"))
        left, top = (body["assets"]["blue"]["proj:transform"][number] for number in (2, 5))
        for file, name in ASSETS.items():
            wrapped = work / body["id"] / f"{file}.vrt"
            _wrap(path.parent / f"{file}.tif", wrapped, Affine(TILE_RES_M, 0, left, 0, -TILE_RES_M, top))
            body["assets"][name]["href"] = str(wrapped)
        items.append(body)
    grid = Grid(TILE_CRS, TILE_RES_M, left, top, TILE_PX, TILE_PX)
    return Place(grid, AUGUST, _catalogue(items, work), ("B02", "B03", "B04", "B08"))


def _wrap(source: Path, target: Path, transform: Affine) -> None:
    """A GDAL virtual raster that gives a file a CRS and a place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(source) as dataset:
            kind = {"uint8": "Byte", "uint16": "UInt16"}[dataset.dtypes[0]]
            height, width = dataset.shape
    target.parent.mkdir(parents=True, exist_ok=True)
    place = ", ".join(str(number) for number in transform.to_gdal())
    target.write_text(
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS>{TILE_CRS}</SRS>'
        f'<GeoTransform>{place}</GeoTransform><VRTRasterBand dataType="{kind}" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="0">{source}</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand></VRTDataset>",
        encoding="utf-8",
    )


def belgium(file: Path, work: Path) -> Place:
    """Twelve dates of one netCDF file as GeoTIFFs and items; reflectance is stored times 10,000, without an offset."""
    items: list[dict[str, Any]] = []
    for name in ("B04", "B08", "SCL"):
        with rasterio.open(f"netcdf:{file}:S2-L2A-{name}") as dataset:
            days = [int(day) for day in dataset.tags()["NETCDF_DIM_t_VALUES"].strip("{}").split(",")]
            crs, place, shape, stack = str(dataset.crs), dataset.transform, dataset.shape, dataset.read()
        outline = box(*rasterio.transform.array_bounds(*shape, place))
        to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        around = box(*to_degrees.transform_bounds(*outline.bounds))
        for number, day in enumerate(days):
            if name == "B04":
                items.append(_item(EPOCH + dt.timedelta(days=day), around))
            path = work / items[number]["id"] / f"{name}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            profile = {"count": 1, "height": shape[0], "width": shape[1], "dtype": "uint16"}
            with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=place, **profile) as made:
                made.write(stack[number], 1)
            items[number]["assets"][name] = {"href": str(path), "raster:bands": [{"scale": 1e-4, "offset": 0.0}]}
    grid = Grid(crs, place.a, place.c, place.f, *shape)
    return Place(grid, SPRING, _catalogue(items, work), ("B04", "B08"))


def _item(day: dt.date, outline: Any) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": f"S2_{day}",
        "geometry": mapping(outline),
        "bbox": list(outline.bounds),
        "properties": {"datetime": f"{day}T10:40:00Z"},
        "assets": {},
        "links": [],
    }


def _catalogue(items: list[dict[str, Any]], work: Path) -> Path:
    """A static catalogue of items with absolute links; gives the path of its catalog.json."""
    extent = pystac.Extent(pystac.SpatialExtent([[-180, -90, 180, 90]]), pystac.TemporalExtent([[None, None]]))
    collection = pystac.Collection("sentinel-2-l2a", "Sentinel-2 L2A", extent)
    for body in items:
        collection.add_item(pystac.Item.from_dict({**body, "collection": "sentinel-2-l2a", "links": []}))
    root = pystac.Catalog("real", "real scenes")
    root.add_child(collection)
    root.normalize_hrefs(str(work / "stac"))
    root.save(catalog_type=pystac.CatalogType.SELF_CONTAINED)
    return work / "stac" / "catalog.json"


def looks(place: Place) -> list[tuple[Scene, NDArray[np.float32], NDArray[np.bool_]]]:
    """Each scene, its blue, green and red (band, y, x), and where it shows the ground."""
    task = place.task()
    found = []
    for scene in task.scenes:
        read = task.archives["optical"].read(scene, [*place.bands[:3], "SCL"], place.grid)
        clear = clear_mask(read["SCL"], res_m=place.grid.res_m, dilate_m=40)
        found.append((scene, np.stack([read[name] for name in place.bands[:3]]), clear))
    return found


def picture(place: Place, made: BlockResult, every: int = 4) -> bytes:
    """Scenes above, their masks below, the composite and the clear looks beside them: a PNG of few colours."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    seen = looks(place)
    figure, axes = plt.subplots(2, len(seen) + 1, figsize=(2.45 * (len(seen) + 1), 5.2), dpi=100)
    for column, (scene, bands, clear) in enumerate(seen):
        axes[0, column].imshow(_true_colour(bands[[2, 1, 0], ::every, ::every]))
        axes[0, column].set_title(f"{scene.datetime[:10]}: as seen", fontsize=9)
        axes[1, column].imshow(_masked(bands, clear)[::every, ::every])
        axes[1, column].set_title(f"clear: {clear.mean():.0%} of the tile", fontsize=9)
    axes[0, -1].imshow(_true_colour(made.features[[2, 1, 0], ::every, ::every]))
    axes[0, -1].set_title("median of the clear looks", fontsize=9)
    shown = axes[1, -1].imshow(made.clear_count[0, ::every, ::every], cmap=mpl.colormaps["viridis"].resampled(4))
    shown.set_clim(-0.5, 3.5)
    axes[1, -1].set_title("clear looks", fontsize=9)
    figure.colorbar(shown, cax=axes[1, -1].inset_axes((1.03, 0, 0.05, 1)), ticks=range(4))
    for axis in axes.flat:
        axis.set_axis_off()
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    plt.close(figure)
    small = io.BytesIO()
    Image.open(buffer).convert("RGB").quantize(160, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


def _true_colour(bands: NDArray[np.float32]) -> NDArray[np.float64]:
    """Red, green, blue (band, y, x) reflectance to (y, x, 3), 0-0.16 spread by a square root; grey where not seen."""
    bright = np.sqrt(np.clip(bands / 0.16, 0, 1)).transpose(1, 2, 0)
    return np.where(np.isnan(bright), 0.75, bright).astype(np.float64)


def _masked(bands: NDArray[np.float32], clear: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Green: clear; orange: masked; grey: no data."""
    colours = np.where(clear[..., np.newaxis], (0.35, 0.62, 0.42), (0.90, 0.55, 0.25))
    return np.where(np.isnan(bands[0])[..., np.newaxis], 0.75, colours)


def main() -> None:
    """Print coarse figures, and write the picture where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the three Earth Search items")
    parser.add_argument("file", type=Path, help="cdse_sentinel2_l2a.nc of openEO GFMAP")
    parser.add_argument("--picture", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        summary = {}
        slovenia = tile(chosen.folder.resolve(), Path(work) / "slovenia")
        for place in (slovenia, belgium(chosen.file.resolve(), Path(work) / "belgium")):
            for composite in ("median", "percentile", "medoid", "best-pixel"):
                made = place.composite(composite=composite)
                medians = [round(float(np.nanmedian(band)), 4) for band in made.features]
                summary[f"{place.season.name} {composite}"] = dict(zip(place.bands, medians, strict=True))
            summary[f"{place.season.name} seen"] = round(float(made.observed.mean()), 4)
            for row in check_scenes(made.checks):
                differences = {name: band["difference"] for name, band in row["bands"].items()}
                summary[f"check {row['scene']}"] = {"verdict": row["verdict"], **differences}
        if chosen.picture:
            chosen.picture.write_bytes(picture(slovenia, slovenia.composite()))
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
