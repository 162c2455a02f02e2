"""How a map looks in a GIS: a QGIS style beside it, and class names where GDAL keeps them.

QGIS takes ``NAME.qml`` by itself when ``NAME.tif`` is opened; without it, a colour table shows as 256 numbered entries.
``NAME.tif.aux.xml`` holds the names for everything else that reads rasters through GDAL.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from wetmap.classes import MEASURE_RAMP, MapClass
from wetmap.errors import UsageError
from wetmap.workspace import write_bytes

#: Version of QGIS whose style format is written; later ones read it.
QGIS_VERSION = "3.22.0"
#: GDALRATFieldType and GDALRATFieldUsage (gdal.h) of the columns of a raster attribute table: name, type, usage.
RAT_COLUMNS = (("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8))

#: What XML 1.0 cannot hold, escaped or not (section 2.2), and line ends, which an attribute would turn into spaces.
_NOT_XML = re.compile("[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_class_style(tif: Path, classes: Sequence[MapClass]) -> tuple[Path, Path]:
    """Write the style of a map of classes: exactly these classes, with their names and colours.

    Args:
        tif: The map; it need not exist yet.
        classes: Its classes, in the order of the legend.

    Returns:
        ``NAME.qml`` and ``NAME.tif.aux.xml``, beside the map.

    Raises:
        UsageError: Two classes share a code, or there are none.
        WorkspaceError: The disk is full.
    """
    codes = [item.code for item in classes]
    if not codes or len(set(codes)) < len(codes):
        raise UsageError(
            f"the classes have codes {', '.join(map(str, codes)) or '(none)'}.",
            do="Give every class a code of its own.",
        )
    qml, aux = tif.with_suffix(".qml"), tif.with_name(f"{tif.name}.aux.xml")
    write_bytes(qml, _xml(_paletted(classes)))
    write_bytes(aux, _xml(_names(classes)))
    return qml, aux


def write_ramp_style(tif: Path, *, low: float, high: float, label: str) -> Path:
    """Write the style of a map of a measure, such as confidence: a smooth ramp from ``low`` to ``high``.

    Args:
        tif: The map; it need not exist yet.
        low: Value of the darkest colour, in the map's unit.
        high: Value of the brightest colour, in the map's unit.
        label: Name of the measure, shown with the legend's ends.

    Returns:
        ``NAME.qml``, beside the map.

    Raises:
        UsageError: ``high`` is not above ``low``.
        WorkspaceError: The disk is full.
    """
    if not high > low:
        raise UsageError(
            f"the colour ramp of {tif.name} runs from {low:g} to {high:g}.", do="Give a low end below the high end."
        )
    qml = tif.with_suffix(".qml")
    write_bytes(qml, _xml(_pseudocolour(low, high, label)))
    return qml


def style_of_band(style: ElementTree.Element, band: int, label: str) -> ElementTree.Element:
    """The style of another band of the same file: the same ramp, its ends labelled anew.

    Args:
        style: A style as `write_ramp_style` writes it; left as it is.
        band: The band, from 1.
        label: Name of the measure, shown with the legend's ends.
    """
    changed = copy.deepcopy(style)
    for renderer in changed.iter("rasterrenderer"):
        renderer.set("band", str(band))
        items = list(renderer.iter("item"))
        for item in (items[0], items[-1]) if items else ():
            item.set("label", f"{xml_text(label)} {float(item.get('value', 'nan')):g}")
    return changed


def xml_text(text: str) -> str:
    """The text with what XML cannot hold, and line ends, each turned into a space."""
    return _NOT_XML.sub(" ", text)


def _paletted(classes: Sequence[MapClass]) -> ElementTree.Element:
    root, renderer = _renderer("paletted")
    palette = ElementTree.SubElement(renderer, "colorPalette")
    for item in classes:
        entry = {"value": str(item.code), "color": item.colour, "alpha": "255", "label": xml_text(item.name)}
        ElementTree.SubElement(palette, "paletteEntry", entry)
    return root


def _pseudocolour(low: float, high: float, label: str) -> ElementTree.Element:
    root, renderer = _renderer("singlebandpseudocolor")
    renderer.set("classificationMin", repr(low))
    renderer.set("classificationMax", repr(high))
    shader = ElementTree.SubElement(ElementTree.SubElement(renderer, "rastershader"), "colorrampshader")
    for key, value in {
        "colorRampType": "INTERPOLATED",
        "classificationMode": "1",
        "clip": "0",
        "minimumValue": repr(low),
        "maximumValue": repr(high),
    }.items():
        shader.set(key, value)
    last = len(MEASURE_RAMP) - 1
    for step, colour in enumerate(MEASURE_RAMP):
        stop = low + (high - low) * step / last
        text = f"{xml_text(label)} {stop:g}" if step in {0, last} else f"{stop:g}"
        ElementTree.SubElement(shader, "item", {"value": repr(stop), "color": colour, "alpha": "255", "label": text})
    return root


def _renderer(kind: str) -> tuple[ElementTree.Element, ElementTree.Element]:
    root = ElementTree.Element("qgis", {"version": QGIS_VERSION})
    pipe = ElementTree.SubElement(root, "pipe")
    renderer = ElementTree.SubElement(pipe, "rasterrenderer", {"type": kind, "band": "1", "opacity": "1"})
    return root, renderer


def _names(classes: Sequence[MapClass]) -> ElementTree.Element:
    """GDAL's own metadata of a raster: a name per value from 0, and a table of names and colours."""
    root = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(root, "PAMRasterBand", {"band": "1"})
    by_code = {item.code: xml_text(item.name) for item in classes}
    categories = ElementTree.SubElement(band, "CategoryNames")
    for code in range(max(by_code) + 1):
        ElementTree.SubElement(categories, "Category").text = by_code.get(code, "")
    table = ElementTree.SubElement(band, "GDALRasterAttributeTable", {"tableType": "thematic"})
    for index, (name, kind, usage) in enumerate(RAT_COLUMNS):
        column = ElementTree.SubElement(table, "FieldDefn", {"index": str(index)})
        for tag, value in (("Name", name), ("Type", str(kind)), ("Usage", str(usage))):
            ElementTree.SubElement(column, tag).text = value
    for index, item in enumerate(sorted(classes, key=lambda one: one.code)):
        row = ElementTree.SubElement(table, "Row", {"index": str(index)})
        for cell in (item.code, by_code[item.code], *item.rgb):
            ElementTree.SubElement(row, "F").text = str(cell)
    return root


def _xml(root: ElementTree.Element) -> bytes:
    ElementTree.indent(root)
    return (ElementTree.tostring(root, encoding="unicode") + "\n").encode()
