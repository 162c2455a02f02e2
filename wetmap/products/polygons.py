"""The map's patches as a GeoPackage that QGIS opens in the map's colours.

Written by SQLite alone (OGC 12-128r17, GeoPackage Encoding Standard 1.3), row after row: memory does not depend on the
number of polygons, and the same rows give the same bytes. The date in it is fixed. The style lies in the table
``layer_styles``, where QGIS looks for it.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from pyproj import CRS

from wetmap.classes import MapClass
from wetmap.errors import WorkspaceError
from wetmap.geo import Grid
from wetmap.products.style import QGIS_VERSION, xml_text
from wetmap.workspace import disk_full

#: Name of the layer.
LAYER = "polygons"
#: The only date in the file.
DATE = "2000-01-01T00:00:00.000Z"
#: "GPKG" and version 1.3 in SQLite's header (the standard's requirements 2 and 3).
APPLICATION_ID, USER_VERSION = 0x47504B47, 10300
#: Header of a geometry: magic, version 0, little endian with an envelope of four, CRS, envelope (clause 2.1.3).
GEOMETRY_HEADER = struct.Struct("<2sBBi4d")
HEADER_FLAGS = 0b0000_0011
#: Number of a CRS that has no EPSG code.
OWN_SRS = 100_000
#: Outline of the polygons in QGIS, and its width in millimetres.
OUTLINE, OUTLINE_MM = "35,35,35,255", "0.06"

_TABLES = f"""
CREATE TABLE gpkg_spatial_ref_sys (srs_name TEXT NOT NULL, srs_id INTEGER PRIMARY KEY, organization TEXT NOT NULL,
  organization_coordsys_id INTEGER NOT NULL, definition TEXT NOT NULL, description TEXT);
CREATE TABLE gpkg_contents (table_name TEXT NOT NULL PRIMARY KEY, data_type TEXT NOT NULL, identifier TEXT UNIQUE,
  description TEXT DEFAULT '', last_change DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')),
  min_x DOUBLE, min_y DOUBLE, max_x DOUBLE, max_y DOUBLE, srs_id INTEGER,
  CONSTRAINT fk_gc_r_srs_id FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys(srs_id));
CREATE TABLE gpkg_geometry_columns (table_name TEXT NOT NULL, column_name TEXT NOT NULL,
  geometry_type_name TEXT NOT NULL, srs_id INTEGER NOT NULL, z TINYINT NOT NULL, m TINYINT NOT NULL,
  CONSTRAINT pk_geom_cols PRIMARY KEY (table_name, column_name), CONSTRAINT uk_gc_table_name UNIQUE (table_name),
  CONSTRAINT fk_gc_tn FOREIGN KEY (table_name) REFERENCES gpkg_contents(table_name),
  CONSTRAINT fk_gc_srs FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys (srs_id));
CREATE TABLE gpkg_extensions (table_name TEXT, column_name TEXT, extension_name TEXT NOT NULL,
  definition TEXT NOT NULL, scope TEXT NOT NULL,
  CONSTRAINT ge_tce UNIQUE (table_name, column_name, extension_name));
CREATE TABLE {LAYER} (fid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, geom MULTIPOLYGON, code INTEGER, class TEXT,
  hectares REAL, confidence REAL, pixels INTEGER);
CREATE TABLE layer_styles (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256),
  f_table_schema TEXT(256), f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT,
  styleSLD TEXT, useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30), update_time DATETIME);
CREATE VIRTUAL TABLE rtree_{LAYER}_geom USING rtree(id, minx, maxx, miny, maxy);
"""

#: What keeps the spatial index right when polygons are edited (annex F.3, "RTree Spatial Indexes"). The functions are
#: those of the editor's own SQLite.
_BOX = "NEW.fid, ST_MinX(NEW.geom), ST_MaxX(NEW.geom), ST_MinY(NEW.geom), ST_MaxY(NEW.geom)"
_FILLED, _EMPTY = "NEW.geom NOTNULL AND NOT ST_IsEmpty(NEW.geom)", "(NEW.geom ISNULL OR ST_IsEmpty(NEW.geom))"
_INSERT = f"INSERT OR REPLACE INTO {{index}} VALUES ({_BOX});"  # noqa: S608 - names of our own
_DELETE = "DELETE FROM {index} WHERE id = OLD.fid;"
_TRIGGERS = {
    "insert": (f"INSERT ON {LAYER} WHEN ({_FILLED})", _INSERT),
    "update1": (
        f"UPDATE OF geom ON {LAYER} WHEN OLD.fid = NEW.fid AND ({_FILLED})",
        _INSERT,
    ),
    "update2": (
        f"UPDATE OF geom ON {LAYER} WHEN OLD.fid = NEW.fid AND {_EMPTY}",
        _DELETE,
    ),
    "update3": (
        f"UPDATE ON {LAYER} WHEN OLD.fid != NEW.fid AND ({_FILLED})",
        f"{_DELETE} {_INSERT}",
    ),
    "update4": (
        f"UPDATE ON {LAYER} WHEN OLD.fid != NEW.fid AND {_EMPTY}",
        "DELETE FROM {index} WHERE id IN (OLD.fid, NEW.fid);",
    ),
    "delete": (f"DELETE ON {LAYER} WHEN OLD.geom NOT NULL", _DELETE),
}


@dataclass(frozen=True)
class Polygon:
    """One patch."""

    code: int
    """Value in classes.tif."""
    pixels: int
    """Its pixels."""
    hectares: float
    """Its true area on the ellipsoid, hectares."""
    confidence: float | None
    """Mean probability of the class, percent, over the pixels whose class is the model's own; None where none is."""
    wkb: bytes
    """A multipolygon in the grid's CRS, well-known binary."""
    bounds: tuple[float, float, float, float]
    """(left, bottom, right, top) in the grid's CRS."""


def write_polygons(
    path: Path, polygons: Iterable[Polygon], classes: Sequence[MapClass], grid: Grid, *, simulated: bool = False
) -> None:
    """Write polygons.gpkg.

    Args:
        path: The file; an old one is replaced in one step at the end.
        polygons: The patches, in the order of the table.
        classes: The map's classes, in the order of the legend.
        grid: The map's grid.
        simulated: Say so in the layer's description.

    Raises:
        WorkspaceError: The disk is full or the file cannot be written.
    """
    fresh = path.with_name(f".tmp-{path.name}")
    with new_database(fresh, path) as connection:
        _fill(connection, polygons, classes, grid, simulated=simulated)
        connection.close()
        fresh.replace(path)


@contextlib.contextmanager
def new_database(fresh: Path, product: Path) -> Iterator[sqlite3.Connection]:
    """An empty database on the way to ``product``; it is closed and deleted at the end, unless it was moved.

    Raises:
        WorkspaceError: The disk is full or the file cannot be written.
    """
    fresh.unlink(missing_ok=True)
    try:
        with contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as connection:
            yield connection
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise disk_full(product) from error
        raise WorkspaceError(
            f"{product} could not be written ({error}).", do="Check the folder and the space left, and run again."
        ) from error
    finally:
        fresh.unlink(missing_ok=True)


def polygon_style(classes: Sequence[MapClass]) -> str:
    """The style of the layer for QGIS: exactly these classes, by ``code``, with their names and colours (QML)."""
    root = ElementTree.Element("qgis", {"version": QGIS_VERSION, "styleCategories": "Symbology"})
    renderer = ElementTree.SubElement(root, "renderer-v2", {"type": "categorizedSymbol", "attr": "code"})
    categories = ElementTree.SubElement(renderer, "categories")
    symbols = ElementTree.SubElement(renderer, "symbols")
    for place, item in enumerate(classes):
        entry = {"value": str(item.code), "type": "long", "symbol": str(place), "label": xml_text(item.name)}
        ElementTree.SubElement(categories, "category", {**entry, "render": "true"})
        symbol = ElementTree.SubElement(symbols, "symbol", {"type": "fill", "name": str(place), "alpha": "1"})
        layer = {"class": "SimpleFill", "enabled": "1", "pass": "0", "locked": "0"}
        fill = ElementTree.SubElement(symbol, "layer", layer)
        look = {
            "color": f"{','.join(map(str, item.rgb))},255",
            "outline_color": OUTLINE,
            "outline_style": "solid",
            "outline_width": OUTLINE_MM,
            "outline_width_unit": "MM",
            "style": "solid",
        }
        # as later versions of QGIS read it, and as earlier ones do
        options = ElementTree.SubElement(fill, "Option", {"type": "Map"})
        for key, value in look.items():
            ElementTree.SubElement(options, "Option", {"name": key, "type": "QString", "value": value})
        for key, value in look.items():
            ElementTree.SubElement(fill, "prop", {"k": key, "v": value})
    ElementTree.SubElement(root, "layerGeometryType").text = "2"
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode")


def _fill(
    connection: sqlite3.Connection,
    polygons: Iterable[Polygon],
    classes: Sequence[MapClass],
    grid: Grid,
    *,
    simulated: bool,
) -> None:
    # the file is new and gets its name at the end: nothing is to be rolled back
    for pragma in (
        "page_size = 4096",
        f"application_id = {APPLICATION_ID}",
        f"user_version = {USER_VERSION}",
        "journal_mode = OFF",
        "synchronous = OFF",
    ):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("BEGIN")
    for statement in filter(str.strip, _TABLES.split(";\n")):
        connection.execute(statement)
    srs = _write_srs(connection, grid)
    kind = "one polygon per patch of the map"
    told = f"SIMULATED: made from a simulated landscape; {kind}" if simulated else kind
    connection.execute(
        "INSERT INTO gpkg_contents VALUES (?, 'features', ?, ?, ?, NULL, NULL, NULL, NULL, ?)",
        (LAYER, LAYER, told, DATE, srs),
    )
    connection.execute("INSERT INTO gpkg_geometry_columns VALUES (?, 'geom', 'MULTIPOLYGON', ?, 0, 0)", (LAYER, srs))
    names = {item.code: item.name for item in classes}
    box = [math.inf, math.inf, -math.inf, -math.inf]
    rows = _rows(connection, polygons, names, srs, box)
    connection.executemany(f"INSERT INTO {LAYER} VALUES (?, ?, ?, ?, ?, ?, ?)", rows)  # noqa: S608 - our own name
    if math.isfinite(box[0]):
        connection.execute("UPDATE gpkg_contents SET min_x = ?, min_y = ?, max_x = ?, max_y = ?", box)
    _index(connection)
    _write_style(connection, classes)
    connection.execute("COMMIT")


def _rows(
    connection: sqlite3.Connection, polygons: Iterable[Polygon], names: dict[int, str], srs: int, box: list[float]
) -> Iterator[tuple[int, bytes, int, str, float, float | None, int]]:
    """Rows of the table; each polygon's box goes to the index on the way, and into the ``box`` of them all."""
    for fid, item in enumerate(polygons, start=1):
        left, bottom, right, top = item.bounds
        box[:] = min(box[0], left), min(box[1], bottom), max(box[2], right), max(box[3], top)
        connection.execute(f"INSERT INTO rtree_{LAYER}_geom VALUES (?, ?, ?, ?, ?)", (fid, left, right, bottom, top))  # noqa: S608 - our own name
        header = GEOMETRY_HEADER.pack(b"GP", 0, HEADER_FLAGS, srs, left, right, bottom, top)
        confidence = None if item.confidence is None else round(item.confidence, 1)
        yield fid, header + item.wkb, item.code, names[item.code], round(item.hectares, 4), confidence, item.pixels


def _index(connection: sqlite3.Connection) -> None:
    """What keeps the index right when the layer is edited."""
    index = f"rtree_{LAYER}_geom"
    for name, (when, what) in _TRIGGERS.items():
        body = what.format(index=index)
        connection.execute(f"CREATE TRIGGER {index}_{name} AFTER {when} BEGIN {body} END")
    connection.execute(
        "INSERT INTO gpkg_extensions VALUES (?, 'geom', 'gpkg_rtree_index', ?, 'write-only')",
        (LAYER, "http://www.geopackage.org/spec120/#extension_rtree"),
    )


def _write_srs(connection: sqlite3.Connection, grid: Grid) -> int:
    """The three CRS that every GeoPackage has, and the grid's; returns its number."""
    crs = CRS.from_user_input(grid.crs)
    code = crs.to_epsg()
    number = OWN_SRS if code is None else code
    world = CRS.from_epsg(4326)
    rows = [
        ("Undefined Cartesian SRS", -1, "NONE", -1, "undefined"),
        ("Undefined geographic SRS", 0, "NONE", 0, "undefined"),
        (world.name, 4326, "EPSG", 4326, world.to_wkt("WKT1_GDAL")),
        (crs.name, number, "NONE" if code is None else "EPSG", number, crs.to_wkt("WKT1_GDAL")),
    ]
    connection.executemany("INSERT OR IGNORE INTO gpkg_spatial_ref_sys VALUES (?, ?, ?, ?, ?, NULL)", rows)
    return number


def _write_style(connection: sqlite3.Connection, classes: Sequence[MapClass]) -> None:
    connection.execute(
        "INSERT INTO layer_styles VALUES (1, '', '', ?, 'geom', 'classes', ?, '', 1, '', '', NULL, ?)",
        (LAYER, polygon_style(classes), DATE),
    )
    connection.execute(
        "INSERT INTO gpkg_contents VALUES (?, 'attributes', ?, '', ?, NULL, NULL, NULL, NULL, 0)",
        ("layer_styles", "layer_styles", DATE),
    )
