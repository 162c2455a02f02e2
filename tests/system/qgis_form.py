"""What an interpreter does with a sample in QGIS, without the mouse: run by the Python that QGIS belongs to.

Usage: QT_QPA_PLATFORM=offscreen /usr/bin/python3 qgis_form.py SAMPLE OUT [ANSWERS]

Opens SAMPLE as if dragged in, prints as JSON what its form is, and draws it into OUT. With ANSWERS, a file with a JSON
object of class names by number of the point, it switches editing on, opens the form of every point, chooses the class
in the form's list, and saves.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
from qgis.core import QgsApplication, QgsExpression, QgsExpressionContext, QgsExpressionContextUtils, QgsVectorLayer
from qgis.gui import QgsAttributeForm, QgsGui
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtWidgets import QComboBox
from qgis_look import draw, legend_of


def form_of(layer: Any) -> dict[str, Any]:
    """Each field of the form as QGIS reads it: its widget, the list it offers, whether it can be changed."""
    config = layer.editFormConfig()
    fields = {}
    for place, field in enumerate(layer.fields()):
        setup = layer.editorWidgetSetup(place)
        rows = setup.config().get("map", [])
        fields[field.name()] = {
            "widget": setup.type(),
            "values": [list(pair) for row in rows for pair in row.items()],
            "read_only": config.readOnly(place),
        }
    return fields


def fill(layer: Any, answers: dict[str, str], out: Path) -> dict[str, Any]:
    """Choose a class for every point through the form's own widgets."""
    if not layer.startEditing():
        return {"editing": False}
    told: dict[str, Any] = {"editing": True, "filled": 0, "offered": [], "fields": []}
    for feature in list(layer.getFeatures()):
        form = QgsAttributeForm(layer, feature)
        form.setMode(0)  # one feature: Qgis 3.22 names it QgsAttributeEditorContext.SingleEditMode
        # not the list of the certainty, and not that of the form's search
        (box,) = (
            box
            for box in form.findChildren(QComboBox)
            if box.findText("(not interpreted)") >= 0 and box.findText("high") < 0 and box.findText("Please select") < 0
        )
        if not told["offered"]:
            told["offered"] = [box.itemText(at) for at in range(box.count())]
            told["shown"] = box.currentText()
        box.setCurrentIndex(box.findText(answers[str(feature["unit"])]))
        told["filled"] += bool(form.save())
        if told["filled"] == 1:
            form.resize(420, 320)
            form.grab().save(str(out / "form.png"))
        form.deleteLater()
    told["committed"] = layer.commitChanges()
    told["errors"] = layer.commitErrors()
    return told


def lines_of(layer: Any) -> list[str]:
    """The list beside the form."""
    context = QgsExpressionContext(QgsExpressionContextUtils.globalProjectLayerScopes(layer))
    expression = QgsExpression(layer.displayExpression())
    expression.prepare(context)
    lines = []
    for feature in layer.getFeatures():
        context.setFeature(feature)
        lines.append(expression.evaluate(context))
    return lines


def main(sample: Path, out: Path, answers: dict[str, str] | None) -> dict[str, Any]:
    """Open the sample, and fill it."""
    layer = QgsVectorLayer(str(sample), sample.stem, "ogr")
    told = {
        "valid": layer.isValid(),
        "layers": [row.split("!!::!!")[1] for row in layer.dataProvider().subLayers()],
        "crs": layer.crs().authid(),
        "renderer": layer.renderer().type(),
        "legend": legend_of(layer),
        "labels": layer.labelsEnabled() and layer.labeling().settings().fieldName,
        "form": form_of(layer),
    }
    box = layer.extent()
    draw([layer], layer.crs(), box.buffered(0.05 * box.width()), QSize(600, 600), out / "before.png")
    if answers is not None:
        told["fill"] = fill(layer, answers, out)
        draw([layer], layer.crs(), box.buffered(0.05 * box.width()), QSize(600, 600), out / "after.png")
    told["lines"] = lines_of(layer)
    return told


if __name__ == "__main__":
    application = QgsApplication([], True)
    application.initQgis()
    QgsGui.editorWidgetRegistry().initEditors()
    given = json.loads(Path(sys.argv[3]).read_text(encoding="utf-8")) if len(sys.argv) > 3 else None
    answer = main(Path(sys.argv[1]), Path(sys.argv[2]), given)
    print(json.dumps(answer))  # noqa: T201 - the answer
    sys.stdout.flush()
    os._exit(0)  # widgets that outlive the application would crash on the way out
