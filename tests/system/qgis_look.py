"""What QGIS makes of a map's folder: run by the Python that QGIS belongs to, it prints what it sees as JSON.

Usage: QT_QPA_PLATFORM=offscreen /usr/bin/python3 qgis_look.py FOLDER OUT

Opens each GeoTIFF and GeoPackage of FOLDER by itself, as if dragged in, then the project map.qgz, and draws both into
OUT as PNG.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
from osgeo import gdal
from qgis.core import (
    Qgis,
    QgsApplication,
    QgsExpression,
    QgsExpressionContext,
    QgsExpressionContextUtils,
    QgsMapLayerType,
    QgsMapRendererSequentialJob,
    QgsMapSettings,
    QgsProject,
    QgsRasterLayer,
    QgsUnitTypes,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor

#: Pixels of the picture per pixel of the map.
ZOOM = 4


def legend_of(layer: Any) -> list[list[str]]:
    """Names and colours (#rrggbb) of a layer's legend."""
    renderer = layer.renderer()
    if renderer is None:
        return []
    if layer.type() == QgsMapLayerType.VectorLayer:
        return [[one.label(), one.symbol().color().name()] for one in renderer.categories()]
    return [[name, colour.name()] for name, colour in renderer.legendSymbologyItems()]


def look(layer: Any) -> dict[str, Any]:
    """How QGIS shows a layer."""
    if not layer.isValid():
        return {"valid": False, "error": layer.error().message()}
    seen = {
        "valid": True,
        "name": layer.name(),
        "crs": layer.crs().authid(),
        "crs_valid": layer.crs().isValid(),
        "metres": layer.crs().mapUnits() == 0,
        "renderer": layer.renderer().type() if layer.renderer() else None,
        "legend": legend_of(layer),
        "tip": layer.abstract(),
        "note": layer.customProperty("userNotes", ""),
        "abstract": layer.metadata().abstract(),
        "source": layer.source(),
        "extent": corners(layer.extent()),
    }
    if layer.type() == QgsMapLayerType.RasterLayer:
        provider = layer.dataProvider()
        has = provider.sourceHasNoDataValue(1)
        seen |= {"nodata": provider.sourceNoDataValue(1) if has else None, "size": [layer.width(), layer.height()]}
        seen["bands"] = [layer.bandName(at + 1) for at in range(layer.bandCount())]
        seen["band"] = layer.renderer().usesBands()[0]
    else:
        seen["features"] = layer.featureCount()
        seen["fields"] = {field.name(): field.typeName() for field in layer.fields()}
    return seen


def groups_of(root: Any) -> list[dict[str, Any]]:
    """The groups of the list of layers; of those that show one layer at a time, what ticking the last one shows."""
    found = []
    for group in root.findGroups():
        entries = group.findLayers()
        row = {
            "name": group.name(),
            "layers": [entry.name() for entry in entries],
            "opened": group.isExpanded(),
            "exclusive": group.isMutuallyExclusive(),
        }
        if group.isMutuallyExclusive():
            entries[0].setItemVisibilityChecked(True)
            entries[-1].setItemVisibilityChecked(True)
            row["after ticking"] = [entry.name() for entry in entries if entry.isVisible()]
            group.setItemVisibilityChecked(False)
        found.append(row)
    return found


def names_in_gdal(path: Path) -> dict[str, Any]:
    """Category names, attribute table and colours of a raster as every program sees them that reads through GDAL."""
    source = gdal.Open(str(path))
    band = source.GetRasterBand(1)
    table = band.GetDefaultRAT()
    columns = range(table.GetColumnCount())
    colours = band.GetColorTable()
    return {
        "categories": band.GetCategoryNames(),
        "columns": [table.GetNameOfCol(at) for at in columns],
        "rows": [[table.GetValueAsString(row, at) for at in columns] for row in range(table.GetRowCount())],
        "colours": {code: list(colours.GetColorEntry(code)) for code in range(colours.GetCount())},
    }


def measured(layer: Any) -> list[list[float]]:
    """The area of every polygon as QGIS measures it in this project, and what its table says."""
    context = QgsExpressionContext(QgsExpressionContextUtils.globalProjectLayerScopes(layer))
    expression = QgsExpression("$area")
    rows = []
    for feature in layer.getFeatures():
        context.setFeature(feature)
        expression.prepare(context)
        rows.append([expression.evaluate(context), feature["hectares"]])
    return rows


def corners(box: Any) -> list[float]:
    """Left, bottom, right, top."""
    return [box.xMinimum(), box.yMinimum(), box.xMaximum(), box.yMaximum()]


def draw(layers: list[Any], crs: Any, extent: Any, size: QSize, path: Path) -> None:
    """Draw layers, the topmost first, on white."""
    settings = QgsMapSettings()
    settings.setLayers(layers)
    settings.setDestinationCrs(crs)
    settings.setExtent(extent)
    settings.setOutputSize(size)
    settings.setBackgroundColor(QColor(255, 255, 255))
    settings.setFlag(QgsMapSettings.Antialiasing, False)
    job = QgsMapRendererSequentialJob(settings)
    job.start()
    job.waitForFinished()
    if not job.renderedImage().save(str(path)):
        raise OSError(f"{path} could not be written")


def main(folder: Path, out: Path) -> dict[str, Any]:
    """Look at everything in a map's folder."""
    told: dict[str, Any] = {"qgis": Qgis.QGIS_VERSION, "alone": {}, "gdal": names_in_gdal(folder / "classes.tif")}
    size = QSize(1, 1)
    for path in sorted(folder.glob("*.tif")):
        layer = QgsRasterLayer(str(path), path.stem)
        told["alone"][path.name] = look(layer)
        if layer.isValid():
            size = QSize(ZOOM * layer.width(), ZOOM * layer.height())
            draw([layer], layer.crs(), layer.extent(), size, out / f"{path.stem}.png")
    for path in sorted(folder.glob("*.gpkg")):
        layer = QgsVectorLayer(str(path), path.stem, "ogr")
        told["alone"][path.name] = look(layer)
        if layer.isValid():
            draw([layer], layer.crs(), layer.extent(), size, out / f"{path.stem}.png")
    project = QgsProject.instance()
    opened = project.read(str(folder / "map.qgz"))
    root = project.layerTreeRoot()
    extent = project.viewSettings().defaultViewExtent()
    told["project"] = {
        "opened": opened,
        "error": project.error(),
        "title": project.title(),
        "crs": project.crs().authid(),
        "crs_valid": project.crs().isValid(),
        "ellipsoid": project.ellipsoid(),
        "area_unit": QgsUnitTypes.encodeUnit(project.areaUnits()),
        "extent": corners(extent),
        "layers": [look(entry.layer()) for entry in root.findLayers()],
        "names": [entry.name() for entry in root.findLayers()],
        "order": [layer.name() for layer in root.layerOrder()],
        "shown": [entry.name() for entry in root.findLayers() if entry.itemVisibilityChecked()],
        "bad": [layer.name() for layer in project.mapLayers().values() if not layer.isValid()],
    }
    polygons = [layer for layer in root.layerOrder() if layer.source().partition("|")[0].endswith("polygons.gpkg")]
    told["measured"] = [measured(layer) for layer in polygons]
    told["project"] |= {
        "about": project.metadata().abstract(),
        "groups": groups_of(root),
        "distance_unit": QgsUnitTypes.encodeUnit(project.distanceUnits()),
        "absolute_paths": project.readEntry("Paths", "/Absolute")[0],
    }
    shown = [layer for layer in root.layerOrder() if root.findLayer(layer.id()).isVisible()]
    draw(shown, project.crs(), extent, size, out / "project.png")
    project.clear()
    return told


if __name__ == "__main__":
    gdal.UseExceptions()
    application = QgsApplication([], False)
    application.initQgis()
    answer = main(Path(sys.argv[1]), Path(sys.argv[2]))
    print(json.dumps(answer))  # noqa: T201 - the answer
    application.exitQgis()
