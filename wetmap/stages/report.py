"""Stage report: one page about the map; then the map's folder is published, whole."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wetmap.bundle import Bundle
from wetmap.classes import MapClass
from wetmap.cube import Cube
from wetmap.products.layers import map_layers
from wetmap.products.qgis_project import Project, write_project
from wetmap.products.stac_item import MapFacts, write_item
from wetmap.recipe_file import dump_recipe, plain
from wetmap.report.page import write_report
from wetmap.stages import fetch, lost_reads, mosaic, plan, postprocess, predict, train
from wetmap.stages import report_sources as sources
from wetmap.stages.context import Context
from wetmap.stages.report_data import report_data
from wetmap.stages.report_recipe import shown_recipe
from wetmap.stages.report_renewal import RECIPE_FILE
from wetmap.stages.truth import agreement
from wetmap.workspace import StageFolder, write_bytes, write_json

#: Raised when the same request would give another page.
REVISION = 7

#: What this stage adds to the map's folder.
OWN_FILES = ("report.html", "map.json", "map.qgz")

VERSIONS = ("wetmap", "torch", "scikit-learn", "rasterio", "numpy")


def asked(context: Context) -> dict[str, Any]:
    """What the stage is asked: the finished map, and what is said about it.

    What lies beside the map and is shown, an assessment and a comparison of models, makes a new page and nothing else.
    """
    unmeasured = lost_reads.lacks(plan.folder_of(context).manifest or {}, "failed_tie_blocks")
    return {
        "revision": REVISION,
        "mosaic": mosaic.folder_of(context).key,
        "recipe": plain(shown_recipe(context)),
        "versions": _versions(),
        # the page tells how shifts were measured, even where a scene more or less moves nothing
        **({"unmeasured": unmeasured} if unmeasured else {}),
        **({} if context.recipe.predict.bundle is not None else {"train": train.folder_of(context).key}),
        **sources.asked_of_assessment(context),
        **sources.asked_of_comparison(context),
    }


def folder_of(context: Context) -> StageFolder:
    """The stage's folder."""
    return context.workspace.stage("report", asked(context))


def run(context: Context) -> StageFolder:
    """Write report.html, map.json and map.qgz, and publish ``<workspace>/map``."""
    folder, made = folder_of(context), mosaic.folder_of(context)
    with context.workspace.lock("report"):
        if context.begin(folder, asked(context)):
            bundle = predict.open_bundle(context)
            classes = mosaic.classes_of(context)
            truth = agreement(context, classes)
            data = report_data(context, bundle, classes, truth, _versions())
            write_report(folder.path / "report.html", data)
            _describe_folder(context, folder.path, bundle, classes)
            scores = {name: row.to_json() for name, row in bundle.card.scores.items()} or None
            told = {"stage": "report", "scores": scores, "truth": truth, "leak_note": data.leak_note}
            told["scores_note"] = data.scores_note
            # what this run was told, flags for one command included: its renewal goes by it
            write_bytes(folder.path / RECIPE_FILE, dump_recipe(context.recipe).encode())
            write_json(folder.path / "manifest.json", told)
        files = {**_map_files(context), **{name: folder.path / name for name in OWN_FILES}}
        context.workspace.publish("map", files, {"stage": "report", "key": folder.key, "mosaic": made.key})
    return folder


def _map_files(context: Context) -> dict[str, Path]:
    """What the map's folder holds before this stage adds its own, by the names there."""
    made = mosaic.folder_of(context)
    return {path.name: path for path in sorted(made.path.iterdir()) if path.name not in {"asked.json", "manifest.json"}}


def _describe_folder(context: Context, folder: Path, bundle: Bundle, classes: Sequence[MapClass]) -> None:
    """Write map.qgz, which opens the map's layers in QGIS, and map.json, which describes all of its files."""
    files = {**_map_files(context), "report.html": folder / "report.html"}
    grid = Cube.open(fetch.cube_path(fetch.folder_of(context))).grid
    simulated = bool((mosaic.folder_of(context).manifest or {})["simulated"]) or bundle.card.simulated
    project = Project(context.name, grid, classes, simulated=simulated)
    write_project(folder / "map.qgz", project, map_layers(files), files)
    seasons = context.recipe.seasons
    days = min(season.start for season in seasons), max(season.end for season in seasons)
    steps = "".join(f" {line}." for line in postprocess.told(context))
    lineage = f"Mapped by wetmap with the model {bundle.card.model}.{steps}"
    facts = MapFacts(context.name, grid, classes, days, _versions(), lineage, simulated=simulated)
    write_item(folder / "map.json", facts, {**files, "map.qgz": folder / "map.qgz"})


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in VERSIONS}
