"""What a verb answers: plain data for machines, lines for people; and what a dry run expects."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wetmap.cube import bands_of, layers_of
from wetmap.errors import WetmapError
from wetmap.models.points import Point
from wetmap.recipe import Recipe, Reference
from wetmap.samples.files import missing
from wetmap.samples.splits import LEAKS, leak_note
from wetmap.stages import (
    applicability,
    coregister,
    cubes,
    expected,
    fetch,
    kept_layers,
    lost_reads,
    mosaic,
    operating_point,
    other_classes,
    plan,
    postprocess,
    predict,
    predict_plan,
    reading_estimate,
    report,
    simulate,
    train,
)
from wetmap.stages.check import check_recipe
from wetmap.stages.clear_cover import is_few, sentence
from wetmap.stages.context import Context
from wetmap.stages.estimate_words import facts
from wetmap.stages.fitting import BASELINES
from wetmap.stages.lost_reads import counted
from wetmap.stages.scenes_check import suspects
from wetmap.workspace import because

#: What the model is compared with stands below it in tables.
LAST = {**{name: 1 + at for at, name in enumerate(BASELINES)}, train.GUESS: 9}


def of_fetch(context: Context) -> dict[str, Any]:
    """The cube that fetch made."""
    folder = fetch.folder_of(context)
    manifest = folder.manifest or {}
    planned = plan.load(plan.folder_of(context))
    return {
        "verb": "fetch",
        "workspace": str(context.workspace.root),
        "grid": context.grid.describe(),
        "scenes": {
            sensor: sum(s.sensor == sensor for s in planned.scenes) for sensor in plan.sensors_wanted(context.recipe)
        },
        "skipped_scenes": len(planned.skipped),
        "coregistration": coregister.brief(planned.coregistration)["groups"],
        "shifts": _shifts(context, planned.coregistration),
        "blocks": manifest["blocks"],
        **_imagery(context),
        "lost_words": lost_reads.words(manifest["failed_reads"], manifest["blocks"]),
        "clear_looks": manifest.get("clear_looks", []),
        "terrain": manifest.get("terrain"),
        "bands": [band.name for band in bands_of(context.recipe)],
        "cube": str(fetch.cube_path(folder)),
        "simulated": manifest["simulated"],
    }


def _imagery(context: Context) -> dict[str, Any]:
    """What is wrong with the cube: what fetch says of it, and every map made from it says again."""
    manifest = fetch.folder_of(context).manifest or {}
    rows, looks = manifest.get("failed_reads", []), manifest.get("clear_looks", [])
    least = context.recipe.optical.min_clear_looks
    unmeasured = (plan.folder_of(context).manifest or {}).get("failed_reads", [])
    return {
        "failed_blocks": manifest.get("failed", []),
        "failed_reads": len(rows),
        "lost_scenes": len(lost_reads.scenes_of(rows)),
        "few_looks": [sentence(row, least) for row in looks if is_few(row, least)],
        "suspect_scenes": [row["scene"] for row in suspects(manifest.get("scenes_check", []))],
        "unmeasured_scenes": sorted(scene for _, scene in lost_reads.scenes_of(unmeasured)),
        "terrain_notes": (manifest.get("terrain") or {}).get("notes", []),
    }


def _shifts(context: Context, report: dict[str, Any]) -> list[str]:
    """What co-registration found, in sentences; why nothing was measured, where there were two sensors to compare."""
    if report["groups"]:
        return coregister.sentences(report)
    if {"optical", "radar"} <= set(plan.sensors_wanted(context.recipe)):
        return [f"Nothing was measured: {report.get('why_not') or 'there is nothing to compare'}."]
    return []


def of_train(context: Context) -> dict[str, Any]:
    """The model that train made, with its held-out scores beside the baselines'."""
    manifest = train.folder_of(context).manifest or {}
    return {
        "verb": "train",
        "workspace": str(context.workspace.root),
        "model": str(context.workspace.root / "model"),
        "scores": manifest["scores"],
        "split": manifest["split"],
        "leaks": bool(manifest["split"].get("leaks")),
        "leak_note": leak_note(manifest["split"]),
        "simulated": manifest["simulated"],
    }


def of_map(context: Context) -> dict[str, Any]:
    """The map that predict made."""
    root = context.workspace.root / "map"
    made = mosaic.folder_of(context).manifest or {}
    told = report.folder_of(context).manifest or {}
    return {
        "verb": "predict",
        "workspace": str(context.workspace.root),
        "grid": context.grid.describe(),
        "map": str(root / "classes.tif"),
        "confidence": str(root / "confidence.tif"),
        "areas_csv": str(root / "areas.csv"),
        "project": str(root / "map.qgz"),
        "report": str(root / "report.html"),
        "areas": made["areas"],
        "scores": told["scores"],
        "leaks": bool(told["leak_note"]),
        "leak_note": told["leak_note"],
        "scores_note": told["scores_note"],
        "truth": told["truth"],
        "failed_blocks": (predict.folder_of(context).manifest or {}).get("failed", []),
        "imagery": _imagery(context),
        "operating_point": (predict.folder_of(context).manifest or {}).get("operating_point"),
        "postprocess": postprocess.told(context),
        "applicability": applicability.told(context),
        "polygons": str(root / "polygons.gpkg") if context.recipe.postprocess.polygons else None,
        "other_classes": other_classes.path_in(root, context.recipe),
        "simulated": made["simulated"],
    }


def lines(result: dict[str, Any]) -> list[str]:
    """The same as lines for people."""
    verb = result["verb"]
    body = {"fetch": _fetch_lines, "train": _train_lines, "predict": _map_lines, "estimate": _estimate_lines}[verb](
        result
    )
    return (
        ["SIMULATED: made from a simulated landscape, not a map of any real place."] if result.get("simulated") else []
    ) + body


def _fetch_lines(result: dict[str, Any]) -> list[str]:
    scenes = ", ".join(f"{count} {sensor}" for sensor, count in result["scenes"].items())
    found = sum(result["scenes"].values()) + result["skipped_scenes"]
    lost = f"; {result['lost_words']}" if result["lost_words"] else ""
    out = [
        f"Grid:   {result['grid']}",
        f"Scenes: {counted(found, 'scene')} found: {scenes} used, {result['skipped_scenes']} left out{lost}",
        f"Cube:   {counted(len(result['bands']), 'band')}, {counted(result['blocks'], 'block')}, {result['cube']}",
        *(f"Shift:  {line}" for line in result["shifts"]),
    ]
    return out + _trouble_lines(result, "the same command tries them again")


def _trouble_lines(imagery: dict[str, Any], do: str) -> list[str]:
    """What is wrong with the cube, as lines; none where nothing is.

    Args:
        imagery: What ``_imagery`` gave.
        do: What tries again what could not be read.
    """
    out = []
    blocks, reads = len(imagery["failed_blocks"]), imagery["failed_reads"]
    if blocks or reads:
        scenes = counted(imagery["lost_scenes"], "scene")
        out.append(
            f"Failed: {counted(blocks, 'block')}, {counted(reads, 'read')} of {scenes} (named in the manifest; {do})"
        )
    if imagery["unmeasured_scenes"]:
        scenes, first = counted(len(imagery["unmeasured_scenes"]), "scene"), imagery["unmeasured_scenes"][0]
        out.append(
            f"Failed: {scenes} not read while shifts and speckle were measured, the first {first} (named in the "
            f"plan's manifest; {do})"
        )
    out += [f"Looks:  {line}" for line in imagery["few_looks"]]
    if imagery["suspect_scenes"]:
        out.append(f"Check:  {', '.join(imagery['suspect_scenes'])}: unlike the other scenes (why: see the manifest)")
    return out + [f"Note:   {note}" for note in imagery["terrain_notes"]]


def _train_lines(result: dict[str, Any]) -> list[str]:
    return [*score_lines(result["scores"], result["leak_note"]), f"Model:  {result['model']}"]


def _map_lines(result: dict[str, Any]) -> list[str]:
    out = [f"Grid:   {result['grid']}", "Hectares by class (pixel counts, not estimates):"]
    width = max((len(row["name"]) for row in result["areas"]), default=0)
    out += [
        f"  {row['name']:<{width}}  {row['hectares']:>12,.1f} ha  {row['share_percent']:>5.1f} %"
        for row in result["areas"]
    ]
    out += score_lines(result["scores"], result["leak_note"])
    out += [f"  {result['scores_note']}"] if result.get("scores_note") else []
    if result["truth"] is not None:
        out.append(truth_line(result["truth"]))
    if result["operating_point"]:
        point = Point(**result["operating_point"])
        above = "" if result["scores"] is None else "; the scores above are of all tokens of the largest size"
        out.append(f"Point:  {point}{above}")
    if result["failed_blocks"]:
        count = len(result["failed_blocks"])
        out.append(f"Failed: {counted(count, 'block')} {'is' if count == 1 else 'are'} missing from the map")
    out += _trouble_lines(result["imagery"], "wetmap fetch tries them again")
    if result["postprocess"] and result["scores"] is not None:
        out.append("Scores: the held-out scores are of the model's answer, before the steps below")
    out += [f"After:  {line}" for line in result["postprocess"]]
    if result["applicability"]:
        out.append(f"Ground: {applicability.sentence(result['applicability'])}")
    if result["polygons"]:
        out.append(f"Layer:  {result['polygons']}")
    if result.get("other_classes"):
        out.append(f"Layer:  {result['other_classes']}")
    out += [f"Map:    {result['map']}", f"QGIS:   {result['project']}"]
    return [*out, f"Areas:  {result['areas_csv']}", f"Report: {result['report']}"]


def truth_line(truth: Mapping[str, Any]) -> str:
    """Agreement with the simulated truth as a line."""
    lacking = truth["without_class"]
    wrong = ""
    if lacking:
        share = sum(lacking.values()) / truth["pixels"]
        wrong = f"; {share:.3f} are {' and '.join(lacking)}, for which the map has no class: counted as wrong"
    return (
        f"Agreement with the simulated truth: {truth['agreement']:.3f} of the mapped pixels "
        f"(guessing the commonest class, {truth['commonest']}: {truth['commonest_agreement']:.3f}{wrong})"
    )


def score_lines(scores: dict[str, Any] | None, note: str = "") -> list[str]:
    """Held-out scores of the model, the forest and the naive guess, in one table; each line marked if the split leaks.

    Args:
        scores: Scores by name of the model, as JSON; None where they are unknown.
        note: What is wrong with them; empty for nothing.
    """
    if scores is None:
        return ["Held-out scores: unknown (the model comes from elsewhere)"]
    out = ["Held-out scores (test fold):  macro F1  overall accuracy"]
    for name, row in sorted(scores.items(), key=lambda item: LAST.get(item[0], 0)):
        out.append(f"  {name:<27} {_figure(row['macro_f1']):>9}  {_figure(row['overall_accuracy']):>16}")
    return [note, *(f"{LEAKS}: {line}" for line in out)] if note else out


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def estimate(context: Context, verbs: Sequence[str]) -> dict[str, Any]:
    """What the verbs would read, compute and write. Nothing is written."""
    lacking = missing(context.recipe.reference) if isinstance(context.recipe.reference, Reference) else []
    check_recipe(context.recipe, with_reference=not lacking)
    grid, recipe = context.grid, context.recipe
    bands, pixels = bands_of(recipe), grid.height * grid.width
    blocks, touched = expected.touched(context, recipe.grid.block_px, fetch.REACH_PX)
    result: dict[str, Any] = {
        "verb": "estimate",
        "verbs": list(verbs),
        "workspace": str(context.workspace.root),
        "area_ha": round(context.aoi.area_ha, 1),
        "grid": grid.describe(),
        "pixels": pixels,
        "free_gb": round(_free_bytes(context.workspace.root) / 1e9, 1),
        "stages": _states(context, verbs, lacking=bool(lacking)),
        "missing": lacking,
        "memory": expected.memory(context, verbs),
    }
    if "fetch" in verbs:
        per_pixel = 2 * len(bands) + len(layers_of(bands)) + 2 * len(recipe.seasons)
        result["fetch"] = {
            "blocks": blocks,
            "bands": len(bands),
            "write_gb": round(touched * per_pixel / 1e9, 3),
            **_reading(context),
        }
    if "train" in verbs:
        result["train"] = {
            "model": recipe.model.name,
            "samples_per_class_at_most": recipe.samples.per_class,
            "epochs_at_most": recipe.training.epochs,
            "reference": _reference_name(recipe),
        }
    if "predict" in verbs:
        result["predict"] = _mapping(context, touched, trains="train" in verbs)
    return result


def _reading(context: Context) -> dict[str, Any]:
    if simulate.wanted(context) and not simulate.folder_of(context).complete:
        return {"scenes": "not known before the archive is simulated"}
    try:
        folder = plan.folder_of(context)
        if folder.complete:
            planned = plan.load(folder)
            return reading_estimate.reading(context, planned.scenes, planned.skipped)
        return reading_estimate.reading(context, *plan.search(context))
    except WetmapError as error:
        return {"scenes": f"not known: {error}", **expected.reading(context)}


def _written_gb(context: Context, pixels: int, classes: int = 0) -> float | str:
    """What predict writes at most; before there is a model, the recipe may not say how many classes there are."""
    recipe = context.recipe
    known = classes or (len(recipe.classes) + (getattr(recipe.reference, "background", None) is not None))
    least, more = (round(pixels * kept_layers.written_bytes(recipe, count) / 1e9, 3) for count in (known, known + 1))
    if classes or recipe.classes or more == least:
        return least
    return f"{least} and {round(more - least, 3)} for each class"


def _mapping(context: Context, pixels: int, *, trains: bool = False) -> dict[str, Any]:
    out: dict[str, Any] = {"write_gb_at_most": _written_gb(context, pixels), "blocks": None, "hours": None}
    try:
        bundle = predict.open_bundle(context)
    except WetmapError as error:
        out["hours"] = f"not known: {error}"
        return {**out, **expected.mapping(context, pixels)} if trains else out
    out["write_gb_at_most"] = _written_gb(context, pixels, len(bundle.card.classes))
    point = operating_point.look(context, bundle)[0] if operating_point.wanted(context.recipe.predict) else None
    try:
        settled = predict_plan.look(context, bundle, point)
    except WetmapError as error:
        out["hours"] = f"not known: {error}"
        return out
    busy = expected.load_words()
    out |= {"busy": busy} if busy else {}
    rate = predict.measure_rate(context, bundle, settled, point)
    out["blocks"] = math.ceil(context.grid.height / settled.block_px) * math.ceil(context.grid.width / settled.block_px)
    out["block_px"], out["workers"], out["device"] = settled.block_px, settled.workers, settled.device
    out["precision"] = settled.precision.used
    out["operating_point"] = None if point is None else str(point)
    out["pixels_per_s_per_worker"] = round(rate)
    out["hours"] = round(pixels / rate / settled.workers / 3600, 3)
    return out


def _states(context: Context, verbs: Sequence[str], *, lacking: bool) -> dict[str, str]:
    """Which stages are there already, which would be made new, and why."""
    steps = tuple(part for part in (postprocess, applicability) if part.wanted(context.recipe))
    parts = {"fetch": (plan, fetch), "train": (cubes, train), "predict": (predict, *steps)}
    out: dict[str, str] = {}
    for verb in verbs:
        for module in parts[verb]:
            try:
                folder = module.folder_of(context)
            except WetmapError as error:
                why = "waits for the files that are missing" if lacking else f"cannot run: {error}"
                out[module.__name__.rpartition(".")[2]] = why
                continue
            new = f"new, because of {because(folder.changes)}" if folder.changes else "to do"
            out[folder.stage] = "already done" if folder.complete else new
    return out


def _reference_name(recipe: Recipe) -> str | None:
    if recipe.reference is None or recipe.reference == "simulated":
        return recipe.reference
    return str(recipe.reference.path)


def _free_bytes(path: Path) -> int:
    return shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free


def _estimate_lines(result: dict[str, Any]) -> list[str]:
    out = [
        f"Dry run of {', '.join(result['verbs'])}: nothing is written.",
        f"Area:   {result['area_ha']:,.0f} ha",
        f"Grid:   {result['grid']}, {result['pixels']:,} pixels",
        f"Disk:   {result['free_gb']} GB free in {result['workspace']}",
    ]
    out += [f"Stage:  {stage}: {state}" for stage, state in result["stages"].items()]
    out += reading_estimate.lines(result.get("fetch", {})) + expected.lines(result)
    for verb in result["verbs"]:
        out.append(f"{verb.capitalize()}: {facts(result[verb])}")
    return out
