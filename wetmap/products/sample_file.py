"""A sample of a map as a GeoPackage: points to fill in QGIS, and the design that they were drawn by.

The interpreter sees where to look, and neither the map's class nor the stratum: who knows the answer of the map tends
to give it again. Both are in the file's metadata, with the map's checksum.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import geopandas
import numpy as np
import pandas as pd
import pyogrio
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError

from wetmap.classes import MapClass
from wetmap.errors import ReferenceDataError, UsageError
from wetmap.geo import Grid
from wetmap.products.style import QGIS_VERSION, xml_text

#: The layer to fill, and what marks the row of the file's metadata that holds the design.
LAYER, STANDARD = "sample", "https://wetmap.invalid/sample-design"
#: Columns that the interpreter fills.
REFERENCE, CERTAINTY, INTERPRETER, NOTE = "reference", "certainty", "interpreter", "note"
CERTAINTIES = ("high", "medium", "low")
#: How QGIS writes an empty value in a list of values.
NULL = "{2839923C-8B7D-419E-B84B-CA2FE9B80EC7}"
#: Version of the design.
VERSION = 1


#: OGC 12-128r17, annex F.8 "Metadata".
_METADATA = """
CREATE TABLE IF NOT EXISTS gpkg_metadata (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
  md_scope TEXT NOT NULL DEFAULT 'dataset', md_standard_uri TEXT NOT NULL,
  mime_type TEXT NOT NULL DEFAULT 'text/xml', metadata TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS gpkg_metadata_reference (reference_scope TEXT NOT NULL, table_name TEXT, column_name TEXT,
  row_id_value INTEGER, timestamp DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')),
  md_file_id INTEGER NOT NULL, md_parent_id INTEGER,
  CONSTRAINT crmr_mfi_fk FOREIGN KEY (md_file_id) REFERENCES gpkg_metadata(id),
  CONSTRAINT crmr_mpi_fk FOREIGN KEY (md_parent_id) REFERENCES gpkg_metadata(id));
CREATE TABLE IF NOT EXISTS gpkg_extensions (table_name TEXT, column_name TEXT, extension_name TEXT NOT NULL,
  definition TEXT NOT NULL, scope TEXT NOT NULL,
  CONSTRAINT ge_tce UNIQUE (table_name, column_name, extension_name));
INSERT INTO gpkg_extensions VALUES ('gpkg_metadata', NULL, 'gpkg_metadata',
  'http://www.geopackage.org/spec120/#extension_metadata', 'read-write');
INSERT INTO gpkg_extensions VALUES ('gpkg_metadata_reference', NULL, 'gpkg_metadata',
  'http://www.geopackage.org/spec120/#extension_metadata', 'read-write')
"""


@dataclass(frozen=True)
class Stratum:
    """A part of the map that was sampled by itself."""

    code: int
    """Class of the map; 0 for the whole map, where it was not divided."""
    pixels: int
    """Its pixels: of them all, or of those that could be drawn."""
    hectares: float
    """Their true area."""
    units: int
    """Units drawn."""


@dataclass(frozen=True)
class Design:
    """How a sample was drawn."""

    kind: str
    """``stratified``, ``simple`` or ``systematic``."""
    seed: int
    """Seed of the draw."""
    map_name: str
    """File name of the map."""
    map_sha256: str
    """Checksum of its classes when the sample was drawn."""
    classes: tuple[MapClass, ...]
    """Classes that the interpreter can choose."""
    strata: tuple[Stratum, ...]
    """The classes of the map, each with its size; units are those drawn from it."""
    away_m: float | None
    """Distance kept from training polygons, metres, or None; the figures then describe the remaining area alone."""
    left_out_ha: float
    """Area that is so near, hectares."""
    rows: tuple[int, ...]
    """Pixel row of each unit."""
    cols: tuple[int, ...]
    """Pixel column of each unit."""
    codes: tuple[int, ...]
    """Class of the map at each unit when it was drawn."""
    simulated: bool = False
    """Whether the map is of a simulated landscape."""
    version: int = VERSION

    def to_text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> Design:
        """Read it back.

        Raises:
            ValueError: It is damaged, or of another version.
        """
        data: dict[str, Any] = json.loads(text)
        if data.get("version") != VERSION:
            raise ValueError(f"the design is of version {data.get('version')}, and this wetmap reads {VERSION}")
        try:
            parts = {
                "classes": tuple(MapClass.from_json(row) for row in data["classes"]),
                "strata": tuple(Stratum(**row) for row in data["strata"]),
                **{key: tuple(data[key]) for key in ("rows", "cols", "codes")},
            }
            return cls(**{**data, **parts})
        except (KeyError, TypeError) as error:
            raise ValueError(f"the design is damaged: {error}") from error


def write_sample(path: Path, design: Design, grid: Grid) -> None:
    """Write a sample to fill; the order of the units says nothing about their strata.

    Args:
        path: The GeoPackage; it must not exist, since somebody may have worked on it.
        design: The design.
        grid: The map's grid.

    Raises:
        UsageError: The file exists, is not called .gpkg, or its folder is not there.
    """
    if path.suffix.lower() != ".gpkg" or not path.parent.is_dir():
        raise UsageError(
            f"{path} is not the name of a GeoPackage in a folder that is there.", do="Name a .gpkg with --output."
        )
    if path.exists():
        raise UsageError(
            f"{path} exists, and somebody may have worked on it.", do="Name another file with --output, or move it."
        )
    rows, cols = np.array(design.rows), np.array(design.cols)
    xs, ys = grid.left + (cols + 0.5) * grid.res_m, grid.top - (rows + 0.5) * grid.res_m
    points = geopandas.GeoSeries.from_xy(xs, ys, crs=grid.crs)
    degrees = points.to_crs("EPSG:4326")
    count = len(rows)
    table = geopandas.GeoDataFrame(
        {
            "unit": np.arange(1, count + 1, dtype=np.int32),
            **{name: pd.Series([None] * count, dtype="str") for name in (REFERENCE, CERTAINTY, INTERPRETER, NOTE)},
            "lon": np.round(degrees.x.to_numpy(), 7),
            "lat": np.round(degrees.y.to_numpy(), 7),
        },
        geometry=points,
    )
    temporary = path.with_name(f".tmp-{path.name}")
    temporary.unlink(missing_ok=True)
    pyogrio.write_dataframe(table, temporary, layer=LAYER, driver="GPKG")
    with contextlib.closing(sqlite3.connect(temporary)) as connection, connection:
        _add_metadata(connection, design.to_text())
        connection.execute(
            "CREATE TABLE layer_styles (id INTEGER PRIMARY KEY, f_table_catalog TEXT, f_table_schema TEXT, "
            "f_table_name TEXT, f_geometry_column TEXT, styleName TEXT, styleQML TEXT, styleSLD TEXT, "
            "useAsDefault BOOLEAN, description TEXT, owner TEXT, ui TEXT, update_time DATETIME)"
        )
        connection.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, srs_id) "
            "VALUES ('layer_styles', 'attributes', 'layer_styles', 0)"
        )
        connection.execute(
            "INSERT INTO layer_styles VALUES (1, '', '', ?, 'geom', 'interpret', ?, '', 1, '', '', NULL, '')",
            (LAYER, form_style(design.classes, grid.res_m)),
        )
    temporary.replace(path)


def _add_metadata(connection: sqlite3.Connection, text: str) -> None:
    """Put the design where a GeoPackage keeps metadata."""
    for statement in _METADATA.split(";\n"):
        connection.execute(statement)
    row = connection.execute(
        "INSERT INTO gpkg_metadata (md_scope, md_standard_uri, mime_type, metadata) VALUES ('dataset', ?, "
        "'application/json', ?)",
        (STANDARD, text),
    ).lastrowid
    connection.execute(
        "INSERT INTO gpkg_metadata_reference (reference_scope, md_file_id) VALUES ('geopackage', ?)", (row,)
    )


def read_design(path: Path) -> Design | None:
    """The design in a GeoPackage; None where there is none: the file is no sample of ours.

    Raises:
        ReferenceDataError: The design is damaged.
    """
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            row = connection.execute(
                "SELECT metadata FROM gpkg_metadata WHERE md_standard_uri = ?", (STANDARD,)
            ).fetchone()
    except sqlite3.Error:
        return None
    try:
        return None if row is None else Design.from_text(str(row[0]))
    except ValueError as error:
        raise ReferenceDataError(
            f"The design in {path} cannot be read ({error}).", do="Assess the file as wetmap sample wrote it."
        ) from error


def read_units(path: Path, field: str, layer: str | None) -> tuple[geopandas.GeoDataFrame, NDArray[Any]]:
    """The features of a file of reference points, and the class that each is given, (n,), None where empty.

    Raises:
        ReferenceDataError: It cannot be read, has no CRS, or has other features than points.
        UsageError: It has no such field or layer.
    """
    try:
        names = [str(name) for name, _ in pyogrio.list_layers(path)]
        table = pyogrio.read_dataframe(path, layer=layer or (LAYER if LAYER in names else names[0]))
    except (DataSourceError, DataLayerError, UnicodeDecodeError, IndexError) as error:
        raise ReferenceDataError(
            f"{path} cannot be read as a vector file.", do="Give a GeoPackage of points, such as wetmap sample writes."
        ) from error
    if field not in table.columns:
        known = ", ".join(str(name) for name in table.columns if name != "geometry")
        raise UsageError(f"{path} has no field {field}; it has {known}.", do="Name the field with --class-field.")
    if not isinstance(table, geopandas.GeoDataFrame) or table.crs is None:
        raise ReferenceDataError(
            f"{path} has no places or no CRS.",
            do="Give a GeoPackage of points with a CRS; a table becomes one in QGIS (Layer > Add Delimited Text Layer, "
            "then Export).",
        )
    if not len(table):
        raise ReferenceDataError(f"{path} holds no point.", do="Give the layer that was filled (--layer).")
    kinds = sorted({str(kind) for kind in table.geom_type.dropna().unique()} - {"Point"})
    if kinds or table.geometry.isna().any():
        raise ReferenceDataError(
            f"{path} holds {', '.join(kinds) or 'features without a place'}, and points are looked up on a map.",
            do="In QGIS, turn polygons into points first (Vector > Geometry Tools > Centroids).",
        )
    given = table[field]
    values = [None if pd.isna(one) or not str(one).strip() else str(one).strip() for one in given]
    return table, np.array(values, dtype=object)


def form_style(classes: Sequence[MapClass], res_m: float) -> str:
    """The layer's style and form for QGIS (QML): lists of the classes and of how certain the interpreter is."""
    root = ElementTree.Element("qgis", {"version": QGIS_VERSION, "styleCategories": "Symbology|Forms|Fields"})
    renderer = ElementTree.SubElement(root, "renderer-v2", {"type": "singleSymbol"})
    symbol = ElementTree.SubElement(
        ElementTree.SubElement(renderer, "symbols"), "symbol", {"type": "marker", "name": "0", "alpha": "1"}
    )
    marker = ElementTree.SubElement(symbol, "layer", {"class": "SimpleMarker", "enabled": "1", "pass": "0"})
    look = {"name": "square", "color": "255,255,255,0", "outline_color": "230,0,120,255"}
    look |= {"size": f"{res_m:g}", "size_unit": "MapUnit"}  # the outline of the pixel that counts
    options = ElementTree.SubElement(marker, "Option", {"type": "Map"})
    for key, value in look.items():
        ElementTree.SubElement(options, "Option", {"name": key, "type": "QString", "value": value})
        ElementTree.SubElement(marker, "prop", {"k": key, "v": value})
    fields = ElementTree.SubElement(root, "fieldConfiguration")
    names = [xml_text(item.name) for item in classes]
    for field, values in ((REFERENCE, names), (CERTAINTY, list(CERTAINTIES))):
        _list_widget(ElementTree.SubElement(fields, "field", {"name": field}), values)
    editable = ElementTree.SubElement(root, "editable")
    for field in ("unit", "lon", "lat"):
        ElementTree.SubElement(editable, "field", {"name": field, "editable": "0"})
    ElementTree.SubElement(root, "layerGeometryType").text = "0"
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode")


def _list_widget(field: ElementTree.Element, values: Sequence[str]) -> None:
    config = ElementTree.SubElement(ElementTree.SubElement(field, "editWidget", {"type": "ValueMap"}), "config")
    listed = ElementTree.SubElement(
        ElementTree.SubElement(config, "Option", {"type": "Map"}), "Option", {"type": "List", "name": "map"}
    )
    for label, value in [("(not interpreted)", NULL), *((value, value) for value in values)]:
        pair = ElementTree.SubElement(listed, "Option", {"type": "Map"})
        ElementTree.SubElement(pair, "Option", {"name": label, "type": "QString", "value": value})
