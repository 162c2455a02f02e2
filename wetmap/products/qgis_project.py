"""map.qgz: a QGIS project that opens every layer of a map's folder, in groups, named, explained and styled.

A ``.qgz`` is a zip with one ``.qgs`` in it, which is XML. Paths in it are relative, so the folder can be moved. The
layers' styles are those beside the files, so that a layer looks the same dragged in alone. A file of several measures,
such as the probabilities, is one layer per band, and of these one is shown at a time. The same map gives the same
bytes: the date in the zip is fixed, and the project carries none.
"""

from __future__ import annotations

import html
import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import rasterio
from pyproj import CRS
from rasterio.errors import RasterioError

from wetmap.classes import MapClass
from wetmap.errors import WorkspaceError
from wetmap.geo import Grid
from wetmap.products.layers import GROUPS, MapLayer
from wetmap.products.polygons import LAYER, polygon_style
from wetmap.products.style import QGIS_VERSION, style_of_band, xml_text
from wetmap.workspace import write_bytes

#: The earliest date that a zip can hold (PKWARE APPNOTE 6.3.10, 4.4.6).
ZIP_DATE = (1980, 1, 1, 0, 0, 0)
#: The project's name inside the zip.
INSIDE = "map.qgs"
#: What the project says of itself under *Project > Properties > Metadata*.
ABOUT = (
    "A map made by wetmap, and how sure the model is of it. The note of each layer says what it tells and what it does "
    "not; report.html, beside this file, says how the map was made. Hectares with intervals come from a sample of the "
    "map: wetmap sample, wetmap assess."
)
SIMULATED = "SIMULATED: made from a simulated landscape, not a map of any real place."
DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"


@dataclass(frozen=True)
class Project:
    """What a project shows."""

    title: str
    """Title of the window."""
    grid: Grid
    """The map's grid: CRS and extent."""
    classes: Sequence[MapClass]
    """Classes, in the order of the legend."""
    simulated: bool = False
    """Said in the title and in the name of every layer."""

    def named(self, text: str) -> str:
        """The text as XML can hold it, marked where the map is simulated."""
        return xml_text(f"{text} (SIMULATED)" if self.simulated else text)


@dataclass(frozen=True)
class _Shown:
    """One line of the list of layers: a file, or one band of it."""

    layer: MapLayer
    title: str
    band: int | None = None

    @property
    def key(self) -> str:
        """The layer's identity in the project: letters, digits and underscores."""
        name = "wetmap_" + re.sub(r"\W", "_", self.layer.file, flags=re.ASCII)
        return name if self.band is None else f"{name}_{self.band}"

    @property
    def checked(self) -> str:
        return "Qt::Checked" if self.layer.shown else "Qt::Unchecked"


def write_project(path: Path, project: Project, layers: Sequence[MapLayer], files: Mapping[str, Path]) -> None:
    """Write map.qgz.

    Args:
        path: The file.
        project: What is shown.
        layers: The layers, the topmost first; each lies beside the project.
        files: Where the files of the map's folder are now, by their names in it. A raster's style is taken from its
            ``.qml``; one that has none is shown in grey.

    Raises:
        WorkspaceError: The disk is full, or a style is damaged.
    """
    root = ElementTree.Element("qgis", {"version": QGIS_VERSION, "projectname": project.named(project.title)})
    ElementTree.SubElement(root, "homePath", {"path": ""})
    ElementTree.SubElement(root, "title").text = project.named(project.title)
    crs = CRS.from_user_input(project.grid.crs)
    ElementTree.SubElement(root, "projectCrs").append(_srs(crs))
    shown = [one for layer in layers for one in _entries(layer, files)]
    root.append(_tree(project, shown))
    root.append(_canvas(project, crs))
    stack = ElementTree.SubElement(root, "projectlayers")
    for one in shown:
        stack.append(_layer(project, one, crs, files))
    order = ElementTree.SubElement(root, "layerorder")
    for one in shown:
        ElementTree.SubElement(order, "layer", {"id": one.key})
    root.append(_properties(crs))
    root.append(_view(project, crs))
    metadata = ElementTree.SubElement(root, "projectMetadata")
    ElementTree.SubElement(metadata, "type").text = "dataset"
    ElementTree.SubElement(metadata, "title").text = project.named(project.title)
    ElementTree.SubElement(metadata, "abstract").text = _told(project, ABOUT)
    ElementTree.indent(root)
    write_bytes(path, _zipped((DOCTYPE + ElementTree.tostring(root, encoding="unicode") + "\n").encode()))


def _entries(layer: MapLayer, files: Mapping[str, Path]) -> list[_Shown]:
    """The lines of a file: itself, or one per band, named after it."""
    if layer.kind != "measures":
        return [_Shown(layer, layer.title)]
    try:
        with rasterio.open(files[layer.file]) as raster:
            names = [name or f"band {at}" for at, name in enumerate(raster.descriptions, start=1)]
    except RasterioError as error:
        raise WorkspaceError(
            f"{files[layer.file]} is damaged ({error}).", do="Delete that folder and run the same command again."
        ) from error
    return [_Shown(layer, layer.band.format(name), band) for band, name in enumerate(names, start=1)]


def _told(project: Project, text: str) -> str:
    """What is said about a layer, with a word before it where the map is simulated."""
    return f"{SIMULATED} {text}" if project.simulated else text


def _zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo(INSIDE, ZIP_DATE)
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.create_system = 3  # Unix, whatever the machine: the byte is part of the file
        entry.external_attr = 0o644 << 16
        archive.writestr(entry, content)
    return buffer.getvalue()


def _source(layer: MapLayer) -> tuple[str, str]:
    """Path, relative to the project, and QGIS's name of what reads it."""
    if layer.kind == "polygons":
        return f"./{layer.file}|layername={LAYER}", "ogr"
    if layer.kind == "table":
        return f"./{layer.file}|option:AUTODETECT_TYPE=YES", "ogr"
    return f"./{layer.file}", "gdal"


def _srs(crs: CRS) -> ElementTree.Element:
    """A CRS by its code where it has one, and in full: QGIS takes the code first."""
    srs = ElementTree.Element("spatialrefsys", {"nativeFormat": "Wkt"})
    code = crs.to_epsg()
    ElementTree.SubElement(srs, "wkt").text = crs.to_wkt()
    if code is not None:
        ElementTree.SubElement(srs, "srid").text = str(code)
        ElementTree.SubElement(srs, "authid").text = f"EPSG:{code}"
    ElementTree.SubElement(srs, "description").text = xml_text(crs.name)
    return srs


def _tree(project: Project, shown: Sequence[_Shown]) -> ElementTree.Element:
    """The list of layers with its ticks, in groups; of the bands of one file, one at a time is shown."""
    tree = ElementTree.Element("layer-tree-group")
    for name in GROUPS:
        members = [one for one in shown if one.layer.group == name]
        if not members:
            continue
        choice = any(one.band for one in members)
        opened = "1" if any(one.layer.shown for one in members) else "0"
        about = {"name": name, "checked": "Qt::Checked", "expanded": opened}
        # no member is chosen yet
        about |= {"mutually-exclusive": "1", "mutually-exclusive-child": "-1"} if choice else {}
        group = ElementTree.SubElement(tree, "layer-tree-group", about)
        for one in members:
            source, provider = _source(one.layer)
            entry = {
                "id": one.key,
                "name": project.named(one.title),
                "source": source,
                "providerKey": provider,
                "checked": one.checked,
                "expanded": "1" if one.layer.shown else "0",
            }
            ElementTree.SubElement(group, "layer-tree-layer", entry)
    return tree


def _canvas(project: Project, crs: CRS) -> ElementTree.Element:
    """What part of the world the window shows first."""
    canvas = ElementTree.Element("mapcanvas", {"name": "theMapCanvas", "annotationsVisible": "1"})
    ElementTree.SubElement(canvas, "units").text = "meters"
    extent = ElementTree.SubElement(canvas, "extent")
    for key, value in _bounds(project.grid).items():
        ElementTree.SubElement(extent, key).text = value
    ElementTree.SubElement(canvas, "rotation").text = "0"
    ElementTree.SubElement(canvas, "destinationsrs").append(_srs(crs))
    return canvas


def _view(project: Project, crs: CRS) -> ElementTree.Element:
    """What *Zoom Full* shows."""
    view = ElementTree.Element("ProjectViewSettings", {"UseProjectScales": "0"})
    extent = ElementTree.SubElement(view, "DefaultViewExtent", _bounds(project.grid))
    extent.append(_srs(crs))
    return view


def _bounds(grid: Grid) -> dict[str, str]:
    left, bottom, right, top = grid.bounds
    return {"xmin": repr(left), "ymin": repr(bottom), "xmax": repr(right), "ymax": repr(top)}


def _layer(project: Project, one: _Shown, crs: CRS, files: Mapping[str, Path]) -> ElementTree.Element:
    layer = one.layer
    element = ElementTree.Element("maplayer", _form(layer))
    source, provider = _source(layer)
    told = _told(project, layer.about) if layer.about else ""
    ElementTree.SubElement(element, "id").text = one.key
    ElementTree.SubElement(element, "datasource").text = source
    ElementTree.SubElement(element, "abstract").text = told  # the tip over the layer's name
    ElementTree.SubElement(element, "layername").text = project.named(one.title)
    if layer.kind != "table":
        ElementTree.SubElement(element, "srs").append(_srs(crs))
    metadata = ElementTree.SubElement(element, "resourceMetadata")
    ElementTree.SubElement(metadata, "type").text = "dataset"
    ElementTree.SubElement(metadata, "title").text = project.named(one.title)
    ElementTree.SubElement(metadata, "abstract").text = told
    reader = ElementTree.SubElement(element, "provider")
    reader.text = provider
    if provider == "ogr":
        reader.set("encoding", "UTF-8")
    element.append(_note(told))
    element.extend(_style(project, one, files))
    return element


def _form(layer: MapLayer) -> dict[str, str]:
    """What kind of layer QGIS is told to make."""
    if layer.kind == "polygons":
        return {"type": "vector", "geometry": "Polygon"}
    if layer.kind == "table":
        return {"type": "vector", "geometry": "No geometry", "wkbType": "NoGeometry"}
    return {"type": "raster"}


def _note(told: str) -> ElementTree.Element:
    """The note that QGIS shows beside the layer's name."""
    custom = ElementTree.Element("customproperties")
    options = ElementTree.SubElement(custom, "Option", {"type": "Map"})
    if told:
        note = {"name": "userNotes", "type": "QString", "value": f"<p>{html.escape(told)}</p>"}
        ElementTree.SubElement(options, "Option", note)
    return custom


def _style(project: Project, one: _Shown, files: Mapping[str, Path]) -> ElementTree.Element:
    if one.layer.kind == "table":
        return ElementTree.Element("qgis")
    if one.layer.kind == "polygons":
        return ElementTree.fromstring(polygon_style(project.classes))  # noqa: S314 - made a moment ago
    style = _raster_style(files.get(Path(one.layer.file).with_suffix(".qml").name))
    return style if one.band is None else style_of_band(style, one.band, one.title)


def _raster_style(qml: Path | None) -> ElementTree.Element:
    """The style of a raster, from its file; grey from least to most where it has none."""
    if qml is None:
        root = ElementTree.Element("qgis")
        pipe = ElementTree.SubElement(root, "pipe")
        grey = {"type": "singlebandgray", "grayBand": "1", "opacity": "1", "gradient": "BlackToWhite"}
        ElementTree.SubElement(pipe, "rasterrenderer", grey)
        return root
    try:
        return ElementTree.fromstring(qml.read_bytes())  # noqa: S314 - a file of our own
    except ElementTree.ParseError as error:
        raise WorkspaceError(
            f"The style {qml} is damaged ({error}).", do="Delete that folder and run the same command again."
        ) from error


def _properties(crs: CRS) -> ElementTree.Element:
    """Relative paths; areas on the ellipsoid, in hectares."""
    root = ElementTree.Element("properties")
    for group, key, kind, value in (
        ("Paths", "Absolute", "bool", "false"),
        ("Measure", "Ellipsoid", "QString", _ellipsoid(crs)),
        ("Measurement", "AreaUnits", "QString", "ha"),
        ("Measurement", "DistanceUnits", "QString", "meters"),
        ("SpatialRefSys", "ProjectionsEnabled", "int", "1"),
    ):
        parent = root.find(group)
        if parent is None:
            parent = ElementTree.SubElement(root, group)
        ElementTree.SubElement(parent, key, {"type": kind}).text = value
    return root


def _ellipsoid(crs: CRS) -> str:
    """The ellipsoid as QGIS names it: by its code, or by its two axes in metres."""
    shape = crs.ellipsoid
    if shape is None:
        return "NONE"
    known = shape.to_json_dict().get("id")
    if known:
        return f"{known['authority']}:{known['code']}"
    return f"PARAMETER:{shape.semi_major_metre!r}:{shape.semi_minor_metre!r}"
