"""Stage report: one page about the map; then the map's folder is published, whole."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from wetmap.bundle import Bundle
from wetmap.classes import MapClass
from wetmap.cube import Cube
from wetmap.models.points import Point
from wetmap.products.areas import AreaRow
from wetmap.products.layers import map_layers
from wetmap.products.qgis_project import Project, write_project
from wetmap.products.stac_item import MapFacts, write_item
from wetmap.recipe import EarthEngineSource, FilesSource, RastersSource, Recipe, Reference, Sensor, Sources, StacSource
from wetmap.recipe_file import dump_recipe, plain
from wetmap.recipe_map import Postprocess
from wetmap.report.page import ReportData, ScenesUsed, write_report
from wetmap.samples.splits import LEAKS, leak_note
from wetmap.stages import coregister, cubes, fetch, lost_reads, mosaic, plan, postprocess, predict, train
from wetmap.stages.context import Context
from wetmap.stages.truth import agreement
from wetmap.training.metrics import Scores
from wetmap.workspace import StageFolder, write_json

#: Raised when the same request would give another page.
REVISION = 5

#: What this stage adds to the map's folder.
OWN_FILES = ("report.html", "map.json", "map.qgz")

VERSIONS = ("wetmap", "torch", "scikit-learn", "rasterio", "numpy")


def asked(context: Context) -> dict[str, Any]:
    """What the stage is asked: the finished map, and what is said about it."""
    unmeasured = lost_reads.lacks(plan.folder_of(context).manifest or {}, "failed_tie_blocks")
    return {
        "revision": REVISION,
        "mosaic": mosaic.folder_of(context).key,
        "recipe": plain(_shown_recipe(context)),
        "versions": _versions(),
        # the page tells how shifts were measured, even where a scene more or less moves nothing
        **({"unmeasured": unmeasured} if unmeasured else {}),
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
            write_report(folder.path / "report.html", _data(context, bundle, classes, truth))
            _describe_folder(context, folder.path, bundle, classes)
            scores = {name: row.to_json() for name, row in bundle.card.scores.items()} or None
            told = {"stage": "report", "scores": scores, "truth": truth, "leak_note": _leak_note(context, bundle)}
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


def _data(context: Context, bundle: Bundle, classes: Sequence[MapClass], truth: dict[str, Any] | None) -> ReportData:
    made = mosaic.folder_of(context)
    manifest = made.manifest or {}
    planned = plan.load(plan.folder_of(context))
    card = bundle.card
    rows = dict(card.scores)
    guess = rows.get("commonest class")
    baseline = rows.get(train.BASELINE) if card.model != train.BASELINE else None
    split_png, split_alt = _split_picture(context)
    shifts_png, shifts_alt = coregister.picture(context, plan.folder_of(context), planned.coregistration)
    return ReportData(
        title=context.name,
        area=f"{context.aoi.name}, {context.aoi.area_ha:,.0f} ha",
        simulated=bool(manifest["simulated"]) or card.simulated,
        classes=classes,
        areas=[AreaRow(**row) for row in manifest["areas"]],
        classes_tif=made.path / "classes.tif",
        grid=Cube.open(fetch.cube_path(fetch.folder_of(context))).grid.describe(),
        recipe=dump_recipe(_shown_recipe(context)),
        versions=_versions(),
        confidence_tif=made.path / "confidence.tif",
        confidence_range=(0.0, 100.0),
        model_name=card.model,
        model=_scores(rows.get(card.model)),
        baseline=_scores(baseline),
        guess_name=_commonest(guess),
        guess=_scores(guess),
        split=_split(context),
        leak_note=_leak_note(context, bundle),
        split_png=split_png,
        split_alt=split_alt,
        shifts=coregister.sentences(planned.coregistration),
        shifts_png=shifts_png,
        shifts_alt=shifts_alt,
        scenes=_scenes(planned),
        skipped=[(row.id, row.reason) for row in planned.skipped],
        scenes_used=len(planned.scenes),
        lost=_lost_reads(context),
        lost_words=_lost_words(context),
        figures=[]
        if truth is None
        else [(f"{truth['agreement']:.1%}", "of mapped pixels agree with the simulated truth")],
        steps=[f"{line}." for line in postprocess.told(context)],
        notes=_notes(context),
    )


def _shown_recipe(context: Context) -> Recipe:
    """The recipe without what does not change the map: folders of this machine, workers, block size."""
    recipe = context.recipe
    reference = recipe.reference
    if isinstance(reference, Reference):
        reference = reference.model_copy(update={"path": Path(reference.path.name)})
    return recipe.model_copy(
        update={
            "workspace": None,
            "compare": type(recipe.compare)(),
            "grid": recipe.grid.model_copy(update={"align": recipe.grid.align and Path(recipe.grid.align.name)}),
            "sources": _without_folders(recipe.sources),
            "aoi": None if recipe.aoi is None else Path(recipe.aoi.name),
            "reference": reference,
            "postprocess": _masks_without_folders(recipe.postprocess),
            "cluster": context.recipe.cluster.model_copy(update={"workers": 0, "memory": None}),
            "predict": context.recipe.predict.model_copy(update={"block_px": type(context.recipe.predict)().block_px}),
        }
    )


def _masks_without_folders(part: Postprocess) -> Postprocess:
    masks = [mask.model_copy(update={"path": Path(mask.path.name)}) for mask in part.masks]
    return part.model_copy(update={"masks": masks})


def _without_folders(sources: Sources) -> Sources:
    """The user's own files by name alone; a static catalogue on disk too."""
    shown: dict[str, Any] = {}
    for sensor in get_args(Sensor):
        source = sources.of(sensor)
        if isinstance(source, RastersSource):
            files = [file.model_copy(update={"path": Path(file.path.name)}) for file in source.files]
            source = source.model_copy(update={"files": files})
        elif isinstance(source, EarthEngineSource) and source.credentials is not None:
            source = source.model_copy(update={"credentials": Path(source.credentials.name)})
        elif isinstance(source, FilesSource):
            source = source.model_copy(update={"folder": Path(source.folder.name)})
        elif isinstance(source, StacSource) and "://" not in source.catalog:
            source = source.model_copy(update={"catalog": Path(source.catalog).name})
        shown[sensor] = source
    return sources.model_copy(update=shown)


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in VERSIONS}


def _scores(found: Scores | None) -> Any:
    if found is None:
        return None
    data = found.to_json()
    return {**data, "per_class": data.pop("classes")}


def _commonest(guess: Scores | None) -> str:
    """The class that the naive guess always answers: the column of its confusion matrix that is not empty."""
    if guess is None:
        return ""
    columns = [sum(row[number] for row in guess.confusion) for number in range(len(guess.classes))]
    return guess.classes[columns.index(max(columns))].name


def _cubes_manifest(context: Context) -> dict[str, Any]:
    """What the samples of this workspace were; empty for a model from elsewhere."""
    return {} if context.recipe.predict.bundle is not None else cubes.folder_of(context).manifest or {}


def _split(context: Context) -> list[tuple[str, str]]:
    data = _cubes_manifest(context).get("split", {})
    words = {
        "kind": "kind",
        "folds": "folds",
        "test_fold": "fold held out for testing",
        "test_site": "site held out for testing",
        "validation_site": "site for choosing the epoch",
        "block_m": "side of the blocks (m)",
        "buffer_m": "distance kept between folds (m)",
        "dropped": "samples dropped by that distance",
        "leakage": "share of test windows that overlap a training window",
    }
    return [(text, f"{data[key]}") for key, text in words.items() if data.get(key) is not None]


def _split_picture(context: Context) -> tuple[bytes | None, str]:
    """The split as a map, and in words."""
    manifest = _cubes_manifest(context)
    if not manifest:
        return None, ""
    return (cubes.folder_of(context).path / "split.png").read_bytes(), manifest["split_picture"]


def _leak_note(context: Context, bundle: Bundle) -> str:
    """What is wrong with the scores of a split that leaks; a model from elsewhere says it on its card."""
    split = _cubes_manifest(context).get("split")
    if split is not None:
        return leak_note(split)
    return bundle.card.split if bundle.card.split.startswith(LEAKS) else ""


def _scenes(planned: plan.Plan) -> list[ScenesUsed]:
    """Scenes by season, sensor and orbit state."""
    groups: dict[tuple[str, str], list[str]] = {}
    for scene in planned.scenes:
        kind = scene.sensor if scene.orbit_state == "any" else f"{scene.sensor}, {scene.orbit_state}"
        for season in scene.seasons or ("all",):
            groups.setdefault((season, kind), []).append(scene.datetime[:10])
    return [
        ScenesUsed(season, kind, len(days), _span(sorted(day for day in days if day)))
        for (season, kind), days in sorted(groups.items())
    ]


def _span(days: list[str]) -> str:
    if not days:
        return ""
    return days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"


def _lost_reads(context: Context) -> list[tuple[str, str]]:
    manifest = fetch.folder_of(context).manifest or {}
    return sorted({(str(row["scene"]), str(row["reason"])) for row in manifest["failed_reads"]})


def _lost_words(context: Context) -> str:
    manifest = fetch.folder_of(context).manifest or {}
    return lost_reads.words(manifest["failed_reads"], manifest.get("blocks", 0))


def _notes(context: Context) -> list[str]:
    notes = []
    for verb, folder in (("fetch", fetch.folder_of(context)), ("predict", predict.folder_of(context))):
        failed = (folder.manifest or {}).get("failed", [])
        if failed:
            are = "is" if len(failed) == 1 else "are"
            names = ", ".join(failed[:10])
            notes.append(f"{lost_reads.counted(len(failed), 'block')} of {verb} failed and {are} missing: {names}.")
    notes += ((fetch.folder_of(context).manifest or {}).get("terrain") or {}).get("notes", [])
    point = (predict.folder_of(context).manifest or {}).get("operating_point")
    if point is not None:
        notes.append(
            f"The map was computed at the operating point {Point(**point)}; held-out scores are of the whole network, "
            "all tokens of the largest size."
        )
    chosen = (predict.folder_of(context).manifest or {}).get("precision", {})
    if chosen.get("used", "float32") != "float32":
        notes.append(f"The map was computed in {chosen['used']}: {chosen['why']}.")
    reference = _cubes_manifest(context).get("reference", {})
    return notes + [str(note) for note in reference.get("warnings", [])]
