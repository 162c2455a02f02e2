"""Takes pictures of the window of QGIS, which runs this at its start: ``qgis --project map.qgz --code`` this file.

``docs/make_pictures.py`` says in the environment variable WETMAP_PICTURES what to open and where to write.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qgis.core import QgsProject, QgsRectangle, QgsVectorLayer
from qgis.PyQt.QtCore import QPoint, QTimer
from qgis.PyQt.QtGui import QPainter, QPixmap
from qgis.PyQt.QtWidgets import QApplication, QComboBox, QDockWidget
from qgis.utils import iface

JOB = json.loads(os.environ["WETMAP_PICTURES"])
OUT = Path(JOB["out"])
#: Size of the window, and width of the list of layers, pixels.
SIZE, LIST_PX = (1280, 800), 430
#: Size of the form, pixels.
FORM = (620, 400)
#: Side of what is shown around a point of the sample, metres.
AROUND_M = 400


def settle(milliseconds: int = 300) -> None:
    """Let QGIS draw."""
    canvas = iface.mapCanvas()
    canvas.refreshAllLayers()
    canvas.waitWhileRendering()
    done: list[bool] = []
    QTimer.singleShot(milliseconds, lambda: done.append(True))
    while not done or canvas.isDrawing():
        QApplication.processEvents()


def arrange() -> None:
    """A window of a known size with the list of layers, and nothing else beside the map."""
    window = iface.mainWindow()
    window.resize(*SIZE)
    for dock in window.findChildren(QDockWidget):
        dock.setVisible(dock.objectName() == "Layers")
    layers = window.findChild(QDockWidget, "Layers")
    layers.setMinimumWidth(LIST_PX)
    settle()


def take(name: str, *above: Any) -> None:
    """Take a picture of the window, with others lying on it: the first in the lower right corner, the rest in it."""
    iface.messageBar().clearWidgets()  # that the project is of another version of QGIS
    settle()
    picture: QPixmap = iface.mainWindow().grab()
    if above:
        painter = QPainter(picture)
        corner = QPoint(picture.width() - above[0].width() - 40, picture.height() - above[0].height() - 60)
        for window in above:
            inside = window.mapToGlobal(QPoint(0, 0)) - above[0].mapToGlobal(QPoint(0, 0))
            painter.drawPixmap(corner + inside, window.grab())
        painter.end()
    if not picture.save(str(OUT / name)):
        raise OSError(f"{name} could not be written")


def nodes_of(files: list[str]) -> list[Any]:
    """The entries of these files in the list of layers."""
    root = QgsProject.instance().layerTreeRoot()
    return [node for node in root.findLayers() if Path(node.layer().source().partition("|")[0]).name in files]


def take_map() -> None:
    """The window as it opens."""
    iface.mapCanvas().setExtent(iface.mapCanvas().fullExtent())
    take("qgis-map.png")


def take_legend() -> None:
    """The confidence over the classes, with both legends."""
    (confidence,) = nodes_of(["confidence.tif"])
    confidence.setItemVisibilityChecked(True)
    confidence.parent().setExpanded(True)
    confidence.setExpanded(True)
    iface.setActiveLayer(confidence.layer())
    take("qgis-legend.png")
    confidence.setItemVisibilityChecked(False)
    confidence.parent().setExpanded(False)


def take_form() -> None:
    """A point of the sample, and the form that the interpreter fills; the map itself is switched off."""
    layer = QgsVectorLayer(JOB["sample"], "sample (SIMULATED)", "ogr")
    QgsProject.instance().addMapLayer(layer, False)
    root = QgsProject.instance().layerTreeRoot()
    for group in root.findGroups():
        group.setExpanded(False)
        group.setItemVisibilityChecked(False)
    root.insertLayer(0, layer)
    iface.setActiveLayer(layer)
    feature = next(row for row in layer.getFeatures() if row["unit"] == JOB["form_of"])
    centre = feature.geometry().asPoint()
    iface.mapCanvas().setExtent(QgsRectangle.fromCenterAndSize(centre, 8 * AROUND_M, 5 * AROUND_M))
    layer.startEditing()
    layer.selectByIds([feature.id()])
    form = iface.getFeatureForm(layer, feature)
    form.resize(*FORM)
    form.show()
    settle()
    form.resize(*FORM)
    take("qgis-form.png", form, offered_by(form))
    form.close()
    layer.rollBack()


def offered_by(form: Any) -> Any:
    """The open list of classes of the form."""
    boxes = [box for box in form.findChildren(QComboBox) if box.findText("(not interpreted)") == 0]
    box = max(boxes, key=lambda one: one.count())
    box.showPopup()
    settle()
    return box.view().window()


def main() -> None:
    """Take all pictures, and end QGIS, whatever happens: its window would stay open otherwise."""
    steps: tuple[Callable[[], None], ...] = (arrange, take_map, take_legend, take_form)
    try:
        for step in steps:
            step()
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # no question about saving the project


QTimer.singleShot(1500, main)
