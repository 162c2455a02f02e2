"""A sample of a map as a GeoPackage: points to fill in QGIS, and the design that they were drawn by.

The interpreter sees where to look, and neither the map's class nor the stratum: who knows the answer of the map tends
to give it again. Both are in the table ``design``, with the map's checksum.
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

#: The layer to fill, and the table that holds the design.
LAYER, DESIGN = "sample", "design"
#: Columns that the interpreter fills.
REFERENCE, CERTAINTY, INTERPRETER, NOTE = "reference", "certainty", "interpreter", "note"
CERTAINTIES = ("high", "medium", "low")
#: Version of the design table.
VERSION = 1


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
    away_m: float
    """Distance kept from training polygons, metres; the figures then describe the remaining area alone."""
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
        UsageError: The file exists.
    """
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
        _add_table(connection, DESIGN, "(id INTEGER PRIMARY KEY, content TEXT)")
        connection.execute(f"INSERT INTO {DESIGN} VALUES (1, ?)", (design.to_text(),))  # noqa: S608 - our own name
        _add_table(
            connection,
            "layer_styles",
            "(id INTEGER PRIMARY KEY, f_table_catalog TEXT, f_table_schema TEXT, f_table_name TEXT, "
            "f_geometry_column TEXT, styleName TEXT, styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN, "
            "description TEXT, owner TEXT, ui TEXT, update_time DATETIME)",
        )
        connection.execute(
            "INSERT INTO layer_styles VALUES (1, '', '', ?, 'geom', 'interpret', ?, '', 1, '', '', NULL, '')",
            (LAYER, form_style(design.classes)),
        )
    temporary.replace(path)


def _add_table(connection: sqlite3.Connection, name: str, columns: str) -> None:
    connection.execute(f"CREATE TABLE {name} {columns}")
    connection.execute(
        "INSERT INTO gpkg_contents (table_name, data_type, identifier, srs_id) VALUES (?, 'attributes', ?, 0)",
        (name, name),
    )


def read_design(path: Path) -> Design | None:
    """The design in a GeoPackage; None where there is none: the file is no sample of ours.

    Raises:
        ReferenceDataError: The design is damaged.
    """
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            row = connection.execute(f"SELECT content FROM {DESIGN} WHERE id = 1").fetchone()  # noqa: S608 - our own
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
    except (DataSourceError, DataLayerError) as error:
        raise ReferenceDataError(f"{path} cannot be read ({error}).", do="Give a GeoPackage of points.") from error
    if field not in table.columns:
        known = ", ".join(str(name) for name in table.columns if name != "geometry")
        raise UsageError(f"{path} has no field {field}; it has {known}.", do="Name the field with --class-field.")
    if not isinstance(table, geopandas.GeoDataFrame) or table.crs is None:
        raise ReferenceDataError(f"{path} has no places or no CRS.", do="Give a GeoPackage of points with a CRS.")
    kinds = sorted({str(kind) for kind in table.geom_type.dropna().unique()} - {"Point"})
    if kinds or table.geometry.isna().any():
        raise ReferenceDataError(
            f"{path} holds {', '.join(kinds) or 'features without a place'}, and points are looked up on a map.",
            do="In QGIS, turn polygons into points first (Vector > Geometry Tools > Centroids).",
        )
    given = table[field]
    values = [None if pd.isna(one) or not str(one).strip() else str(one).strip() for one in given]
    return table, np.array(values, dtype=object)


def form_style(classes: Sequence[MapClass]) -> str:
    """The layer's style and form for QGIS (QML): lists of the classes and of how certain the interpreter is."""
    root = ElementTree.Element("qgis", {"version": QGIS_VERSION, "styleCategories": "Symbology|Forms|Fields"})
    renderer = ElementTree.SubElement(root, "renderer-v2", {"type": "singleSymbol"})
    symbol = ElementTree.SubElement(
        ElementTree.SubElement(renderer, "symbols"), "symbol", {"type": "marker", "name": "0", "alpha": "1"}
    )
    marker = ElementTree.SubElement(symbol, "layer", {"class": "SimpleMarker", "enabled": "1", "pass": "0"})
    look = {"name": "square", "color": "255,255,255,0", "outline_color": "230,0,120,255", "size": "3"}
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
    for value in values:
        pair = ElementTree.SubElement(listed, "Option", {"type": "Map"})
        ElementTree.SubElement(pair, "Option", {"name": value, "type": "QString", "value": value})
