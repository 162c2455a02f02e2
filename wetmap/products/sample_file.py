"""A sample of a map as a GeoPackage: points to fill in QGIS, and the design that they were drawn by.

The interpreter sees where to look, and neither the map's class nor the stratum: who knows the answer of the map tends
to give it again. Both are in the file's metadata, with the map's checksum.
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyogrio
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError

from wetmap.classes import MapClass
from wetmap.errors import ReferenceDataError, UsageError, WorkspaceError
from wetmap.geo import Grid
from wetmap.products.change_table import ChangeTable
from wetmap.products.polygons import DATE
from wetmap.products.sample_form import AFTER, BEFORE, CERTAINTY, INTERPRETER, NOTE, REFERENCE, form_style
from wetmap.products.style import xml_text

#: The layer to fill, and what marks the row of the file's metadata that holds the design.
LAYER, STANDARD = "sample", "https://wetmap.invalid/sample-design"
#: Columns by which an exported copy of a sample is known, which has lost its design.
OWN_COLUMNS = frozenset({"unit", REFERENCE, CERTAINTY, INTERPRETER, NOTE})
#: The same of a sample of a map of change.
CHANGE_COLUMNS = frozenset({"unit", BEFORE, AFTER, CERTAINTY, INTERPRETER, NOTE})
#: Names of layers in a message, at most.
LISTED = 8
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
        try:
            data = json.loads(text)
        except RecursionError as error:
            raise ValueError("the design is damaged: it is nested without end") from error
        if not isinstance(data, dict):
            raise ValueError(f"the design is damaged: it is a {type(data).__name__}")  # noqa: TRY004 - as all else
        if data.get("version") != VERSION:
            raise ValueError(
                f"the design is of version {str(data.get('version'))[:40]}, and this wetmap reads {VERSION}"
            )
        try:
            parts = {
                "classes": tuple(MapClass.from_json(row) for row in data["classes"]),
                "strata": tuple(Stratum(**row) for row in data["strata"]),
                **{key: tuple(data[key]) for key in ("rows", "cols", "codes")},
            }
            design = cls(**{**data, **parts})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the design is damaged: {str(error)[:200]}") from error
        if not _is_sound(design):
            raise ValueError("the design is damaged: its units or strata cannot be")
        return design


def _is_sound(design: Design) -> bool:
    """Whether units and strata are what a draw makes: each unit a pixel with a class, each stratum with a size."""
    units = (design.rows, design.cols, design.codes)
    sizes = [value for part in design.strata for value in (part.code, part.pixels, part.units)]
    amounts = [design.left_out_ha, design.away_m or 0.0, *(part.hectares for part in design.strata)]
    return (
        len({len(part) for part in units}) == 1
        and all(type(value) is int and 0 <= value < 2**31 for part in units for value in part)
        and all(type(value) is int and 0 <= value < 2**53 for value in sizes)
        and all(type(value) in {int, float} and 0 <= value < math.inf for value in amounts)
        and isinstance(design.map_name, str)
        and isinstance(design.map_sha256, str)
    )


def write_sample(path: Path, design: Design, grid: Grid, *, change: ChangeTable | None = None) -> None:
    """Write a sample to fill; the order of the units says nothing about their strata.

    Args:
        path: The GeoPackage; it must not exist, since somebody may have worked on it.
        design: The design.
        grid: The map's grid.
        change: What the map's codes mean, where it is a map of change: the form then asks for the class before and
            the class after, each from the list of classes. A list of all transitions would be long, its entries alike.

    Raises:
        UsageError: The file exists, is not called .gpkg, or its folder is not there.
        WorkspaceError: It cannot be written.
    """
    if path.suffix.lower() != ".gpkg" or not path.parent.is_dir():
        raise UsageError(
            f"{path} is not the name of a GeoPackage in a folder that is there.", do="Name a .gpkg with --output."
        )
    if path.exists():
        raise UsageError(
            f"{path} exists, and somebody may have worked on it.", do="Name another file with --output, or move it."
        )
    asked = (REFERENCE,) if change is None else (BEFORE, AFTER)
    rows, cols = np.array(design.rows), np.array(design.cols)
    xs, ys = grid.left + (cols + 0.5) * grid.res_m, grid.top - (rows + 0.5) * grid.res_m
    points = geopandas.GeoSeries.from_xy(xs, ys, crs=grid.crs)
    degrees = points.to_crs("EPSG:4326")
    count = len(rows)
    table = geopandas.GeoDataFrame(
        {
            "unit": np.arange(1, count + 1, dtype=np.int32),
            **{name: pd.Series([None] * count, dtype="str") for name in (*asked, CERTAINTY, INTERPRETER, NOTE)},
            "lon": np.round(degrees.x.to_numpy(), 7),
            "lat": np.round(degrees.y.to_numpy(), 7),
        },
        geometry=points,
    )
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        temporary.unlink(missing_ok=True)
        classes = design.classes if change is None else change.classes
        _write(temporary, table, design, form_style(classes, grid.res_m, asked, digits=len(str(count))))
        temporary.replace(path)
    except (OSError, DataSourceError, sqlite3.Error) as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise WorkspaceError(
            f"{path} could not be written ({error}).",
            do="Name a file in another folder with --output, or check this one, its permissions and the space left.",
        ) from error


def _write(path: Path, table: geopandas.GeoDataFrame, design: Design, style: str) -> None:
    # the version that the GDAL of QGIS 3.22 knows
    pyogrio.write_dataframe(table, path, layer=LAYER, driver="GPKG", dataset_options={"VERSION": "1.3"})
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
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
            "INSERT INTO layer_styles VALUES (1, '', '', ?, 'geom', 'interpret', ?, '', 1, '', '', NULL, ?)",
            (LAYER, style, DATE),
        )


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
        ReferenceDataError: The design is damaged, or the file cannot be looked into.
    """
    if not path.is_file():  # some formats are folders
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute(
                "SELECT metadata FROM gpkg_metadata WHERE md_standard_uri = ?", (STANDARD,)
            ).fetchone()
    except sqlite3.Error as error:
        # no database at all, or none with such a table: another kind of file. All else would be a sample in disguise.
        if error.sqlite_errorcode in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}:
            return None
        raise ReferenceDataError(
            f"{path} cannot be looked into ({error}).",
            do="Save and close it in QGIS, or copy it to a folder that you can write to, and try again.",
        ) from error
    try:
        return None if row is None else Design.from_text(str(row[0]))
    except ValueError as error:
        raise ReferenceDataError(
            f"The design in {path} cannot be read ({error}).", do="Assess the file as wetmap sample wrote it."
        ) from error


def read_units(path: Path, field: str, layer: str | None, *, placed: bool = True) -> tuple[pd.DataFrame, NDArray[Any]]:
    """The features of a file of reference points, and the class that each is given, (n,), text, None where empty.

    Args:
        path: The file.
        field: Field of the class. Whole numbers, whatever their type, are given without a point.
        layer: Layer of the file, or None for the only one, or the one that is called ``sample``.
        placed: Whether every feature must be a point on the map; a GeoDataFrame is returned then.

    Raises:
        ReferenceDataError: It cannot be read, has no CRS, or has other features than points.
        UsageError: It has no such field or layer, or several layers to choose from.
    """
    try:
        table = pyogrio.read_dataframe(path, layer=_layer_of(path, layer))
    except (DataSourceError, DataLayerError, UnicodeDecodeError) as error:
        raise ReferenceDataError(
            f"{path} cannot be read as a vector file.", do="Give a GeoPackage of points, such as wetmap sample writes."
        ) from error
    if field not in table.columns:
        known = ", ".join(str(name) for name in table.columns if name != "geometry")
        raise UsageError(
            f"{path} has no field {field}; it has {known or 'none'}.", do="Name the field with --class-field."
        )
    if placed:
        _refuse_unplaced(path, table)
    if not len(table):
        raise ReferenceDataError(f"{path} holds no point.", do="Give the layer that was filled (--layer).")
    return table, np.array([_text(one) for one in table[field]], dtype=object)


def _layer_of(path: Path, layer: str | None) -> str:
    """The layer to read."""
    rows = [(str(name), kind) for name, kind in pyogrio.list_layers(path)]
    names = [name for name, _ in rows]
    if layer is not None and layer not in names:
        raise UsageError(
            f"{path} has no layer {layer}; it has {', '.join(names[:LISTED]) or 'none'}.", do="Name one with --layer."
        )
    if layer is not None or LAYER in names:
        return layer or LAYER
    choice = [name for name, kind in rows if kind is not None] or names
    if not choice:
        raise ReferenceDataError(f"{path} holds no layer.", do="Give a file of points, such as wetmap sample writes.")
    if len(choice) > 1:
        raise UsageError(
            f"{path} has {len(choice)} layers: {', '.join(choice[:LISTED])}.", do="Name the one to read with --layer."
        )
    return choice[0]


def _refuse_unplaced(path: Path, table: pd.DataFrame) -> None:
    if not isinstance(table, geopandas.GeoDataFrame) or table.crs is None:
        raise ReferenceDataError(
            f"{path} has no places or no CRS.",
            do="Give a GeoPackage of points with a CRS; a table becomes one in QGIS (Layer > Add Delimited Text Layer, "
            "then Export). A filled table of a sample is assessed together with it: --sample sample.gpkg.",
        )
    missing = int((table.geometry.isna() | table.geometry.is_empty).sum())
    kinds = sorted({str(kind) for kind in table.geom_type.dropna().unique()} - {"Point"})
    if kinds or missing:
        held = ", ".join(kinds) or f"{missing} features without a place"
        raise ReferenceDataError(
            f"{path} holds {held}, and points are looked up on a map.",
            do="In QGIS, turn polygons into points first (Vector > Geometry Tools > Centroids; parts of multipoints: "
            "Multipart to Singleparts), and delete features without a place.",
        )


def _text(value: Any) -> str | None:
    """A class as it was written; None where nothing was. 5.0 is the code 5: empty cells make numbers of codes."""
    missing = pd.isna(value)
    if isinstance(missing, bool | np.bool_) and missing:
        return None
    whole = isinstance(value, float) and value.is_integer()
    return " ".join(xml_text(str(int(value) if whole else value)).split()) or None
