"""What QGIS makes of a map's folder: run by the Python that QGIS belongs to, it prints what it sees as JSON.

Usage: QT_QPA_PLATFORM=offscreen /usr/bin/python3 qgis_look.py FOLDER OUT

Opens each GeoTIFF of FOLDER by itself, as if dragged in, then the project map.qgz, and draws both into OUT as PNG.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
from qgis.core import (
    Qgis,
    QgsApplication,
    QgsMapLayerType,
    QgsMapRendererSequentialJob,
    QgsMapSettings,
    QgsProject,
    QgsRasterLayer,
    QgsUnitTypes,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor

#: Pixels of the picture per pixel of the map.
ZOOM = 4


def legend_of(layer: Any) -> list[list[str]]:
    """Names and colours (#rrggbb) of a layer's legend."""
    renderer = layer.renderer()
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
        "renderer": layer.renderer().type(),
        "legend": legend_of(layer),
        "source": layer.source(),
        "extent": corners(layer.extent()),
    }
    if layer.type() == QgsMapLayerType.RasterLayer:
        provider = layer.dataProvider()
        has = provider.sourceHasNoDataValue(1)
        seen |= {"nodata": provider.sourceNoDataValue(1) if has else None, "size": [layer.width(), layer.height()]}
        seen["bands"] = [layer.bandName(at + 1) for at in range(layer.bandCount())]
    else:
        seen["features"] = layer.featureCount()
    return seen


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
    told: dict[str, Any] = {"qgis": Qgis.QGIS_VERSION, "alone": {}}
    size = QSize(1, 1)
    for path in sorted(folder.glob("*.tif")):
        layer = QgsRasterLayer(str(path), path.stem)
        told["alone"][path.name] = look(layer)
        if layer.isValid():
            size = QSize(ZOOM * layer.width(), ZOOM * layer.height())
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
    shown = [layer for layer in root.layerOrder() if root.findLayer(layer.id()).isVisible()]
    draw(shown, project.crs(), extent, size, out / "project.png")
    project.clear()
    return told


if __name__ == "__main__":
    application = QgsApplication([], False)
    application.initQgis()
    answer = main(Path(sys.argv[1]), Path(sys.argv[2]))
    print(json.dumps(answer))  # noqa: T201 - the answer
    application.exitQgis()
