"""map.qgz: a QGIS project that opens every layer of a map's folder, in order, named and styled.

A ``.qgz`` is a zip with one ``.qgs`` in it, which is XML. Paths in it are relative, so the folder can be moved. The
layers' styles are those beside the files, so that a layer looks the same dragged in alone. The same map gives the same
bytes: the date in the zip is fixed, and the project carries none.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from pyproj import CRS

from wetmap.classes import MapClass
from wetmap.errors import WorkspaceError
from wetmap.geo import Grid
from wetmap.products.layers import MapLayer
from wetmap.products.polygons import LAYER, polygon_style
from wetmap.products.style import QGIS_VERSION, xml_text
from wetmap.workspace import write_bytes

#: The earliest date that a zip can hold (PKWARE APPNOTE 6.3.10, 4.4.6).
ZIP_DATE = (1980, 1, 1, 0, 0, 0)
#: The project's name inside the zip.
INSIDE = "map.qgs"
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
    root.append(_tree(project, layers))
    root.append(_canvas(project, crs))
    stack = ElementTree.SubElement(root, "projectlayers")
    for layer in layers:
        stack.append(_layer(project, layer, crs, files))
    order = ElementTree.SubElement(root, "layerorder")
    for layer in layers:
        ElementTree.SubElement(order, "layer", {"id": _id(layer)})
    root.append(_properties(crs))
    root.append(_view(project, crs))
    ElementTree.indent(root)
    write_bytes(path, _zipped((DOCTYPE + ElementTree.tostring(root, encoding="unicode") + "\n").encode()))


def _zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo(INSIDE, ZIP_DATE)
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.create_system = 3  # Unix, whatever the machine: the byte is part of the file
        entry.external_attr = 0o644 << 16
        archive.writestr(entry, content)
    return buffer.getvalue()


def _id(layer: MapLayer) -> str:
    """The layer's identity in the project: letters, digits and underscores."""
    return "wetmap_" + re.sub(r"\W", "_", layer.file, flags=re.ASCII)


def _source(layer: MapLayer) -> tuple[str, str]:
    """Path, relative to the project, and QGIS's name of what reads it."""
    if layer.kind == "polygons":
        return f"./{layer.file}|layername={LAYER}", "ogr"
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


def _tree(project: Project, layers: Sequence[MapLayer]) -> ElementTree.Element:
    """The list of layers with its ticks."""
    group = ElementTree.Element("layer-tree-group")
    for layer in layers:
        source, provider = _source(layer)
        entry = {
            "id": _id(layer),
            "name": project.named(layer.title),
            "source": source,
            "providerKey": provider,
            "checked": "Qt::Checked" if layer.shown else "Qt::Unchecked",
            "expanded": "1" if layer.shown else "0",
        }
        ElementTree.SubElement(group, "layer-tree-layer", entry)
    return group


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


def _layer(project: Project, layer: MapLayer, crs: CRS, files: Mapping[str, Path]) -> ElementTree.Element:
    vector = layer.kind == "polygons"
    kind = {"type": "vector", "geometry": "Polygon"} if vector else {"type": "raster"}
    element = ElementTree.Element("maplayer", kind)
    source, provider = _source(layer)
    ElementTree.SubElement(element, "id").text = _id(layer)
    ElementTree.SubElement(element, "datasource").text = source
    ElementTree.SubElement(element, "layername").text = project.named(layer.title)
    ElementTree.SubElement(element, "srs").append(_srs(crs))
    reader = ElementTree.SubElement(element, "provider")
    reader.text = provider
    if vector:
        reader.set("encoding", "UTF-8")
        style = ElementTree.fromstring(polygon_style(project.classes))  # noqa: S314 - made a moment ago
    else:
        style = _raster_style(files.get(Path(layer.file).with_suffix(".qml").name))
    element.extend(style)
    return element


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
