"""How a sample looks in QGIS: squares of the pixels that count, done ones paler, and a form with a list of classes."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from wetmap.classes import MapClass
from wetmap.products.style import QGIS_VERSION, xml_text

#: Columns that the interpreter fills.
REFERENCE, CERTAINTY, INTERPRETER, NOTE = "reference", "certainty", "interpreter", "note"
#: What takes the place of ``REFERENCE`` in a sample of a map of change: a class for each of the two dates.
BEFORE, AFTER = "before", "after"
CERTAINTIES = ("high", "medium", "low")
#: Columns that must not be changed.
FIXED = ("unit", "lon", "lat")
#: How QGIS writes an empty value in a list of values.
NULL = "{2839923C-8B7D-419E-B84B-CA2FE9B80EC7}"
#: What is left to do and what is done: the words of the legend, and the colour of the square's outline.
STATES = (("to interpret", "230,0,120,255"), ("interpreted", "60,60,60,255"))
#: An expression of QGIS that gives the place of a point's state in ``STATES``.
STATE_OF = f"if(trim(coalesce(\"{REFERENCE}\", '')) = '', 0, 1)"
#: What is chosen where the map lacks the class: the words of the list, and the value.
OTHER = ("none of these (say what in the note)", "none of these")
#: Squares are as large as a pixel of the map, but never smaller than this on the screen, millimetres.
LEAST_MM = 1.6


def form_style(
    classes: Sequence[MapClass], res_m: float, asked: Sequence[str] = (REFERENCE,), *, digits: int = 1
) -> str:
    """The layer's style and form for QGIS (QML).

    Args:
        classes: Classes that the interpreter can choose, in the order of the list.
        res_m: Side of the pixel that counts, metres.
        asked: Columns of a class, each with its own list; a point is interpreted when all are filled.
        digits: Digits of the largest number of a point: QGIS lists points in the order of their text.
    """
    kinds = "Symbology|Labeling|Forms|Fields|MapTips"
    root = ElementTree.Element("qgis", {"version": QGIS_VERSION, "styleCategories": kinds, "labelsEnabled": "1"})
    root.append(_renderer(res_m, _state_of(asked)))
    root.append(_labels())
    fields = ElementTree.SubElement(root, "fieldConfiguration")
    _widget(fields, "fid", "Hidden")
    names = [xml_text(item.name) for item in classes]
    for name, values in (*((one, names) for one in asked), (CERTAINTY, list(CERTAINTIES))):
        _fill_list(_widget(fields, name, "ValueMap"), values, (OTHER,) if name == REFERENCE else ())
    for name in (INTERPRETER, NOTE, *FIXED):
        _widget(fields, name, "TextEdit")
    editable = ElementTree.SubElement(root, "editable")
    for name in FIXED:
        ElementTree.SubElement(editable, "field", {"name": name, "editable": "0"})
    seen = " || ' -> ' || ".join(f'"{name}"' for name in asked)
    number = f"lpad(to_string(\"unit\"), {digits}, '0')"
    ElementTree.SubElement(root, "previewExpression").text = f"'point ' || {number} || coalesce(': ' || {seen}, '')"
    ElementTree.SubElement(root, "layerGeometryType").text = "0"
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode")


def _state_of(asked: Sequence[str]) -> str:
    """An expression of QGIS that gives the place of a point's state in ``STATES``."""
    if tuple(asked) == (REFERENCE,):
        return STATE_OF
    empty = " or ".join(f"trim(coalesce(\"{name}\", '')) = ''" for name in asked)
    return f"if({empty}, 0, 1)"


def _renderer(res_m: float, state_of: str) -> ElementTree.Element:
    renderer = ElementTree.Element("renderer-v2", {"type": "categorizedSymbol", "attr": state_of})
    categories = ElementTree.SubElement(renderer, "categories")
    symbols = ElementTree.SubElement(renderer, "symbols")
    for place, (label, colour) in enumerate(STATES):
        entry = {"value": str(place), "type": "long", "symbol": str(place), "label": label, "render": "true"}
        ElementTree.SubElement(categories, "category", entry)
        symbol = ElementTree.SubElement(symbols, "symbol", {"type": "marker", "name": str(place), "alpha": "1"})
        marker = ElementTree.SubElement(symbol, "layer", {"class": "SimpleMarker", "enabled": "1", "pass": "0"})
        look = {
            "name": "square",
            "color": "255,255,255,0",
            "outline_color": colour,
            "outline_width": "0.4",
            "outline_width_unit": "MM",
            "size": f"{res_m:g}",  # the outline of the pixel that counts
            "size_unit": "MapUnit",
            # scales between which it holds (any), the smallest size (wanted, mm) and the largest (not wanted)
            "size_map_unit_scale": f"3x:0,0,1,{LEAST_MM:g},0,0",
        }
        options = ElementTree.SubElement(marker, "Option", {"type": "Map"})
        for key, value in look.items():
            ElementTree.SubElement(options, "Option", {"name": key, "type": "QString", "value": value})
            ElementTree.SubElement(marker, "prop", {"k": key, "v": value})
    return renderer


def _labels() -> ElementTree.Element:
    """The number of each point beside it, where there is room."""
    labeling = ElementTree.Element("labeling", {"type": "simple"})
    settings = ElementTree.SubElement(labeling, "settings")
    text = {"fieldName": "unit", "fontSize": "8", "fontSizeUnit": "Point", "textColor": STATES[0][1]}
    style = ElementTree.SubElement(settings, "text-style", text)
    buffer = {"bufferDraw": "1", "bufferSize": "0.8", "bufferSizeUnits": "MM", "bufferColor": "255,255,255,255"}
    ElementTree.SubElement(style, "text-buffer", buffer)
    ElementTree.SubElement(settings, "placement", {"placement": "6", "dist": "1", "distUnits": "MM"})
    return labeling


def _widget(fields: ElementTree.Element, name: str, kind: str) -> ElementTree.Element:
    """The options of a field's widget."""
    field = ElementTree.SubElement(fields, "field", {"name": name})
    config = ElementTree.SubElement(ElementTree.SubElement(field, "editWidget", {"type": kind}), "config")
    return ElementTree.SubElement(config, "Option", {"type": "Map"})


def _fill_list(options: ElementTree.Element, values: Sequence[str], more: Sequence[tuple[str, str]]) -> None:
    listed = ElementTree.SubElement(options, "Option", {"type": "List", "name": "map"})
    for label, value in [("(not interpreted)", NULL), *((value, value) for value in values), *more]:
        pair = ElementTree.SubElement(listed, "Option", {"type": "Map"})
        ElementTree.SubElement(pair, "Option", {"name": label, "type": "QString", "value": value})
