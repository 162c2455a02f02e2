"""How an analyst measures a class in QGIS: run by the Python that QGIS belongs to, it prints what QGIS answers as JSON.

Usage: QT_QPA_PLATFORM=offscreen /usr/bin/python3 qgis_measure.py FOLDER OWN OUT

Opens FOLDER/map.qgz and measures the classes of the whole map and of the polygons of OWN, a vector file, with the tools
of the processing toolbox that the documentation names.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
from qgis.analysis import QgsNativeAlgorithms
from qgis.core import (
    QgsApplication,
    QgsExpression,
    QgsExpressionContext,
    QgsExpressionContextUtils,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProject,
    QgsVectorLayer,
)


def run(name: str, parameters: dict[str, Any]) -> Any:
    """Run a tool of the toolbox, by its name there."""
    context = QgsProcessingContext()
    context.setProject(QgsProject.instance())
    algorithm = QgsApplication.processingRegistry().algorithmById(name)
    if algorithm is None:
        raise LookupError(f"QGIS has no tool {name}")
    results, worked = algorithm.run(parameters, context, QgsProcessingFeedback())
    if not worked:
        raise RuntimeError(f"{name} failed with {parameters}")
    return results


def table_of(path: Path) -> list[dict[str, str]]:
    """The rows of a table."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def hectares_by_class(layer: Any) -> dict[str, float]:
    """The sum of $area per class, as the field calculator and the statistics panel compute it in this project."""
    context = QgsExpressionContext(QgsExpressionContextUtils.globalProjectLayerScopes(layer))
    expression = QgsExpression("$area")
    found: dict[str, float] = {}
    for feature in layer.getFeatures():
        context.setFeature(feature)
        expression.prepare(context)
        found[feature["class"]] = found.get(feature["class"], 0.0) + expression.evaluate(context)
    return found


def main(folder: Path, own: Path, out: Path) -> dict[str, Any]:
    """Measure."""
    project = QgsProject.instance()
    if not project.read(str(folder / "map.qgz")):
        raise OSError(project.error())
    by_file = {Path(layer.source().partition("|")[0]).name: layer for layer in project.mapLayers().values()}
    classes, polygons = by_file["classes.tif"], by_file["polygons.gpkg"]
    report = run(
        "native:rasterlayeruniquevaluesreport",
        {"INPUT": classes.source(), "BAND": 1, "OUTPUT_TABLE": str(out / "unique.csv")},
    )
    run(
        "native:zonalhistogram",
        {
            "INPUT_RASTER": classes.source(),
            "RASTER_BAND": 1,
            "INPUT_VECTOR": str(own),
            "OUTPUT": str(out / "zones.csv"),
        },
    )
    run("native:clip", {"INPUT": polygons.source(), "OVERLAY": str(own), "OUTPUT": str(out / "clipped.gpkg")})
    clipped = QgsVectorLayer(str(out / "clipped.gpkg"), "clipped", "ogr")
    areas = by_file["areas.csv"]
    return {
        "unique": table_of(out / "unique.csv"),
        "nodata_pixels": report["NODATA_PIXEL_COUNT"],
        "zones": table_of(out / "zones.csv"),
        "polygons": hectares_by_class(polygons),
        "clipped": hectares_by_class(clipped),
        "areas": [dict(zip(areas.fields().names(), row.attributes(), strict=True)) for row in areas.getFeatures()],
    }


if __name__ == "__main__":
    application = QgsApplication([], False)
    application.initQgis()
    application.processingRegistry().addProvider(QgsNativeAlgorithms())
    answer = main(*map(Path, sys.argv[1:4]))
    print(json.dumps(answer))  # noqa: T201 - the answer
    application.exitQgis()
