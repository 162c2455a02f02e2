"""The area of interest: any vector file, any CRS, several polygons, holes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Geod, Transformer
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from wetmap.errors import AoiError

if TYPE_CHECKING:
    from geopandas import GeoSeries

    from wetmap.geo.grid import Grid

#: Longest piece of an edge when it is projected: a straight line in one CRS is a curve in another. Degrees.
DENSIFY_DEG = 0.01
#: The same where an area is read in a projected CRS, metres.
DENSIFY_M = 1000.0
#: No coordinate of a place is farther from 0, degrees (of GeoJSON that goes twice around the globe), and metres (twice
#: the Earth's circumference: false eastings are added to zones and to polar distances).
MOST_DEG, MOST_M = 720.0, 8e7


@dataclass(frozen=True)
class Aoi:
    """An area of interest in longitude and latitude (WGS 84)."""

    name: str
    """The file's stem, which also names the default workspace."""
    geometry: MultiPolygon
    """Polygons with holes, EPSG:4326, degrees, x = longitude."""

    @property
    def area_ha(self) -> float:
        """True area on the WGS 84 ellipsoid, hectares."""
        return _geodesic_area_m2(self.geometry) / 1e4

    @property
    def sha256(self) -> str:
        """Identity of the geometry, independent of the file it came from."""
        return hashlib.sha256(shapely.to_wkb(self.geometry.normalize(), output_dimension=2)).hexdigest()

    def utm_crs(self) -> str:
        """The WGS 84 UTM zone, of one hemisphere, that holds most of the area, as ``EPSG:326zz`` or ``EPSG:327zz``.

        Raises:
            AoiError: Most of the area lies beyond UTM (north of 84 degrees or south of 80).
        """
        west, south, east, north = self.geometry.bounds
        if south < -80 or north > 84:
            raise AoiError(
                f"{self.name} reaches from latitude {south:.2f} to {north:.2f}, beyond the UTM zones (-80 to 84).",
                do="Give a polar CRS with --crs, such as EPSG:3413.",
            )
        shares: dict[str, float] = {}
        for zone in range(_zone(west), _zone(east) + 1):
            for code, low, high in ((32600 + zone, 0.0, 84.0), (32700 + zone, -80.0, 0.0)):
                strip = shapely.box(-186 + 6 * zone, low, -180 + 6 * zone, high)
                shares[f"EPSG:{code}"] = _geodesic_area_m2(shapely.intersection(self.geometry, strip))
        return max(shares, key=lambda code: shares[code])

    def geometry_in(self, crs: str) -> MultiPolygon:
        """The area in another CRS, edges densified so that they stay where they are on the ground."""
        dense = shapely.segmentize(self.geometry, DENSIFY_DEG)
        to_crs = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
        projected = shapely.transform(dense, lambda xy: np.column_stack(to_crs.transform(xy[:, 0], xy[:, 1])))
        if isinstance(projected, Polygon):  # GEOS hands a single part back as a plain polygon when it densifies
            projected = MultiPolygon([projected])
        if not isinstance(projected, MultiPolygon):
            raise AoiError(f"{self.name} is not polygons in {crs}.", do="Choose another --crs.")
        return projected

    def bounds_in(self, crs: str) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) in another CRS."""
        left, bottom, right, top = self.geometry_in(crs).bounds
        return left, bottom, right, top

    def inside(self, grid: Grid) -> NDArray[np.bool_]:
        """Pixels whose centre lies in the area, (height, width)."""
        from rasterio.features import geometry_mask

        return np.asarray(
            geometry_mask([self.geometry_in(grid.crs)], out_shape=grid.shape, transform=grid.transform, invert=True)
        )


def read_aoi(path: Path) -> Aoi:
    """Read an area of interest from any vector file.

    Args:
        path: GeoJSON, GeoPackage, Shapefile or anything else GDAL reads; all its polygons together are the area.

    Returns:
        The union of the polygons in EPSG:4326.

    Raises:
        AoiError: The file is missing or unreadable, has no CRS, no polygons, an invalid geometry, or crosses the
            antimeridian.
    """
    import geopandas
    from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, GeometryError
    from pyproj.exceptions import ProjError
    from shapely.errors import ShapelyError

    if not _exists(path):
        raise AoiError(f"--aoi {path} does not exist.", do="Give the path of a GeoJSON, GeoPackage or Shapefile.")
    try:
        frame = geopandas.read_file(path)
    except (DataSourceError, DataLayerError, FeatureError, GeometryError, OSError, ValueError, ShapelyError) as error:
        raise AoiError(
            f"--aoi {path} cannot be read as a vector file ({_first_line(error)}).",
            do="Open it in QGIS and export it as GeoPackage or GeoJSON.",
        ) from error
    if not isinstance(frame, geopandas.GeoDataFrame) or frame.geometry.isna().all() or frame.geometry.is_empty.all():
        raise AoiError(f"--aoi {path} holds no geometry.", do="Give a file with at least one polygon.")
    if frame.crs is None:
        raise AoiError(f"--aoi {path} has no CRS.", do="Set its CRS in QGIS (Layer > Set CRS) and save it again.")
    polygons = _polygons(frame.geometry, path)
    _refuse_beyond_earth(polygons, path)
    try:
        united = shapely.union_all(_dense(polygons).to_crs("EPSG:4326").to_numpy())
    except (ShapelyError, ProjError) as error:
        raise AoiError(
            f"--aoi {path} cannot be put on the globe ({_first_line(error)}).",
            do="Check in QGIS that it lies where it should, and its CRS (Layer > Set CRS).",
        ) from error
    geometry = MultiPolygon([united]) if isinstance(united, Polygon) else united
    if not isinstance(geometry, MultiPolygon) or geometry.is_empty or geometry.area == 0:
        raise AoiError(f"--aoi {path} has an area of zero.", do="Give polygons that enclose something.")
    _refuse_antimeridian(geometry, path)
    return Aoi(name=path.stem, geometry=geometry)


def _polygons(geometries: GeoSeries, path: Path) -> GeoSeries:
    kept = geometries[~(geometries.isna() | geometries.is_empty)]
    kinds = sorted({shape.geom_type for shape in kept.array} - {"Polygon", "MultiPolygon"})
    if kinds:
        raise AoiError(
            f"--aoi {path} holds {', '.join(kinds)}, not only polygons.", do="Give a file with polygons alone."
        )
    flat = shapely.force_2d(np.asarray(kept.array))
    for number, geometry in enumerate(flat):
        if not shapely.is_valid(geometry):
            raise AoiError(
                f"--aoi {path}: polygon {number + 1} is invalid ({shapely.is_valid_reason(geometry)}).",
                do="Mend it in QGIS (Vector > Geometry Tools > Fix Geometries).",
            )
    import geopandas

    return geopandas.GeoSeries(flat, crs=geometries.crs)


def _refuse_beyond_earth(polygons: GeoSeries, path: Path) -> None:
    """Coordinates that are nowhere on Earth: most often metres, in a file that says degrees."""
    crs = polygons.crs
    if crs is None:
        return
    farthest = float(np.abs(polygons.total_bounds).max())
    unit = crs.axis_info[0].unit_name if crs.axis_info else "unit"
    most = MOST_M / crs.axis_info[0].unit_conversion_factor if crs.is_projected else MOST_DEG
    if not farthest <= most:
        raise AoiError(
            f"--aoi {path} has coordinates up to {farthest:.6g}, and its CRS ({crs.name}) is in {unit}s.",
            do="Set the CRS that its coordinates are in (QGIS: Layer > Set CRS) and save it again.",
        )


def _dense(polygons: GeoSeries) -> GeoSeries:
    """Polygons of a projected CRS with vertices near enough that their edges stay where they are on the ground."""
    crs = polygons.crs
    if crs is None or not crs.is_projected:
        return polygons
    return polygons.segmentize(DENSIFY_M / crs.axis_info[0].unit_conversion_factor)


def _refuse_antimeridian(geometry: BaseGeometry, path: Path) -> None:
    west, _, east, _ = geometry.bounds
    if east - west > 180 or west < -180 or east > 180:
        raise AoiError(
            f"--aoi {path} crosses the antimeridian (longitudes {west:.3f} to {east:.3f}).",
            do="Split it at longitude 180 and map the two halves as two areas.",
        )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is longer than any, or a folder that must not be looked into
        return False


def _zone(lon: float) -> int:
    """UTM zone number of a longitude; 180 degrees east belongs to zone 60."""
    return min(int((lon + 180) // 6) + 1, 60)


def _geodesic_area_m2(geometry: BaseGeometry) -> float:
    if geometry.is_empty:
        return 0.0
    area, _ = Geod(ellps="WGS84").geometry_area_perimeter(shapely.orient_polygons(geometry))
    return abs(float(area))


def _first_line(error: Exception) -> str:
    """What went wrong, without GDAL's advice to programmers and without the full stop."""
    said = str(error).strip().partition("; It might help")[0]
    return said.splitlines()[0].rstrip(".") if said else type(error).__name__
