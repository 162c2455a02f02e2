"""Everything the report says about one map, gathered from the manifests of the stages before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from wetmap.bundle import Bundle, ModelCard
from wetmap.classes import MapClass
from wetmap.cube import Cube
from wetmap.models.points import Point
from wetmap.products.areas import AreaRow
from wetmap.recipe_file import dump_recipe
from wetmap.report import section_training
from wetmap.report.data import ChartPicture, Contender, ReportData, ScenesUsed
from wetmap.report.limits import LOW_CONFIDENCE, Assessed, Calibrated, ClassFacts, MapFacts, from_elsewhere, limits
from wetmap.samples.splits import LEAKS, leak_note
from wetmap.stages import applicability, coregister, cubes, fetch, lost_reads, mosaic, plan, postprocess, predict, train
from wetmap.stages import report_sources as sources
from wetmap.stages.clear_cover import is_few, sentence
from wetmap.stages.context import Context
from wetmap.stages.fitting import BASELINES
from wetmap.stages.report_recipe import shown_recipe
from wetmap.stages.report_viewer import viewer_data
from wetmap.training.intervals import GroupScores
from wetmap.training.metrics import Scores

#: Charts that train draws, in the order of the page: file, title, how to read it.
CHARTS = (
    (
        "learning",
        "Learning curves",
        "Training and validation loss drifting apart: the model remembers. The dashed line is the epoch that was kept. "
        "A score that still rises at the end: train longer.",
    ),
    (
        "reliability",
        "Reliability",
        "Points on the dashed diagonal: probabilities mean what they say. Below it the model is too sure, above it too "
        "timid. A larger point has more pixels.",
    ),
)


def report_data(
    context: Context,
    bundle: Bundle,
    classes: Sequence[MapClass],
    truth: Mapping[str, Any] | None,
    versions: Mapping[str, str],
) -> ReportData:
    """Gather it.

    Args:
        context: The run; its map is finished.
        bundle: The model.
        classes: The map's classes.
        truth: Agreement with the simulated truth; None where nothing was simulated.
        versions: Versions by name of software.
    """
    made = mosaic.folder_of(context)
    manifest = made.manifest or {}
    planned = plan.load(plan.folder_of(context))
    card = bundle.card
    split_png, split_alt = _split_picture(context)
    shifts_png, shifts_alt = coregister.picture(context, plan.folder_of(context), planned.coregistration)
    assessed = sources.assessment_of(context)
    looks = (fetch.folder_of(context).manifest or {}).get("clear_looks", [])
    return ReportData(
        title=context.name,
        area=f"{context.aoi.name}, {context.aoi.area_ha:,.0f} ha",
        simulated=bool(manifest["simulated"]) or card.simulated,
        classes=classes,
        areas=[AreaRow(**row) for row in manifest["areas"]],
        classes_tif=made.path / "classes.tif",
        grid=Cube.open(fetch.cube_path(fetch.folder_of(context))).grid.describe(),
        recipe=dump_recipe(shown_recipe(context)),
        versions=versions,
        confidence_tif=made.path / "confidence.tif",
        confidence_range=(0.0, 100.0),
        contenders=contenders(card),
        guess_class=_commonest(card.scores.get(train.GUESS)),
        assessment=assessed.result,
        assessment_note=assessed.note,
        assess_commands=sources.assess_commands(context),
        comparison=sources.comparison_of(context)[0],
        charts=_charts(context, card),
        calibration=None if card.calibration is None else card.calibration.model_dump(mode="json"),
        applicability=applicability.told(context),
        clear_looks=looks,
        few_looks=_few_looks(context, looks),
        limits=limits(_facts(context, bundle, assessed.result)),
        checksums=sources.checksums(made),
        split=_split(context),
        split_counts=(_cubes_manifest(context).get("split") or {}).get("counts", {}),
        scores_note=scores_note_of(context, card),
        leak_note=leak_note_of(context, bundle),
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
        else [(f"{truth['agreement']:.1%}", f"of mapped pixels agree with the simulated truth{_lacking(truth)}")],
        steps=[f"{line}." for line in postprocess.told(context)],
        notes=_notes(context),
        viewer=viewer_data(context, classes),
    )


def contenders(card: ModelCard) -> list[Contender]:
    """The model of a card first, then what was trained beside it, then the naive guess."""
    names = [name for name in card.scores if name not in {card.model, train.GUESS}]
    known = [name for name in (*BASELINES, *names) if name in names]
    ordered = [*([card.model] if card.model in card.scores else []), *dict.fromkeys(known)]
    ordered += [train.GUESS] if train.GUESS in card.scores else []
    return [_contender(card, name) for name in ordered]


def _contender(card: ModelCard, name: str) -> Contender:
    found: GroupScores | None = card.intervals.get(name)
    data = card.scores[name].to_json()
    scores: Any = {**data, "per_class": data.pop("classes")}
    role: Any = "model" if name == card.model else "guess" if name == train.GUESS else "baseline"
    if found is None:
        return Contender(name, scores, role)
    shaky = found.macro_f1
    return Contender(
        name,
        scores,
        role,
        class_bounds={row.name: row.f1.interval for row in found.classes if row.f1.interval is not None},
        macro_bounds=shaky.interval,
        overall_bounds=found.overall_accuracy.interval,
        groups=found.groups,
        note=shaky.note if shaky.interval is not None else "",
    )


def leak_note_of(context: Context, bundle: Bundle) -> str:
    """What is wrong with the scores of a split that leaks; a model from elsewhere says it on its card."""
    split = _cubes_manifest(context).get("split")
    if split is not None:
        return leak_note(split)
    return bundle.card.split if bundle.card.split.startswith(LEAKS) else ""


def scores_note_of(context: Context, card: ModelCard) -> str:
    """Why the scores on a model's card are not of this map: another run trained it. Empty for this run's own model."""
    seasons = _elsewhere(context, card)
    return "" if seasons is None or card.model not in card.scores else from_elsewhere(seasons)


def _elsewhere(context: Context, card: ModelCard) -> str | None:
    """Seasons of the run that trained a model from elsewhere, in words; None for this run's own model."""
    if context.recipe.predict.bundle is None:
        return None
    return ", ".join(f"{season.name} {season.start} to {season.end}" for season in card.seasons)


def _calibrated(card: ModelCard) -> Calibrated | None:
    """What the temperature did on the test fold; None where that was not measured."""
    one = card.calibration
    if one is None or one.test_ece_before is None or one.test_ece_after is None:
        return None
    return Calibrated(one.temperature, one.test_ece_before, one.test_ece_after)


def _lacking(truth: Mapping[str, Any]) -> str:
    """Which true covers the map has no class for, and the share they are counted as wrong with."""
    lacking = truth["without_class"]
    if not lacking:
        return ""
    share = sum(lacking.values()) / truth["pixels"]
    return f"; {share:.1%} are {' and '.join(lacking)}, for which the map has no class, and count as wrong"


def _commonest(guess: Scores | None) -> str:
    """The class that the naive guess always answers: the column of its confusion matrix that is not empty."""
    if guess is None:
        return ""
    columns = [sum(row[number] for row in guess.confusion) for number in range(len(guess.classes))]
    return guess.classes[columns.index(max(columns))].name


def _facts(context: Context, bundle: Bundle, assessed: Mapping[str, Any] | None) -> MapFacts:
    """The numbers that say what the map cannot tell."""
    card = bundle.card
    made = mosaic.folder_of(context)
    manifest = made.manifest or {}
    samples = _cubes_manifest(context)
    ground = applicability.told(context)
    outside = None if ground is None else float(ground["hectares_outside"])
    whole = 0.0 if ground is None else float(ground["hectares_outside"] + ground["hectares_inside"])
    kinds: dict[str, Assessed] = {"probability sample": "sample", "agreement": "agreement"}
    reference = samples.get("reference", {})
    looks = (fetch.folder_of(context).manifest or {}).get("clear_looks", [])
    failed = [len((folder.manifest or {}).get("failed", [])) for folder in _blockwise(context)]
    return MapFacts(
        classes=_with_areas(
            _class_facts(card, manifest["areas"], (samples.get("split") or {}).get("counts", {})), assessed
        ),
        scored=card.model in card.scores,
        simulated=bool(manifest["simulated"]) or card.simulated,
        elsewhere=_elsewhere(context, card),
        calibration=_calibrated(card),
        leak_note=leak_note_of(context, bundle),
        assessed="no" if assessed is None else kinds.get(assessed["basis"], "no"),
        low_confidence_percent=sources.share_below(made.path / "confidence.tif", LOW_CONFIDENCE),
        outside_ha=outside,
        outside_percent=100 * (outside or 0.0) / whole if whole else 0.0,
        few_looks=_few_looks(context, looks),
        seen_only=_seen_only(assessed),
        unmatched=sorted(reference.get("unmatched_values", {}).items(), key=lambda row: (-row[1], row[0])),
        pixel_m=card.res_m,
        unit_ha=context.recipe.postprocess.minimum_mapping_unit_ha,
        window_px=int(card.options["window"]) if "window" in card.options else None,
        missing_blocks=sum(failed),
        steps=postprocess.wanted(context.recipe),
    )


def _blockwise(context: Context) -> tuple[Any, Any]:
    return fetch.folder_of(context), predict.folder_of(context)


def _class_facts(
    card: ModelCard, areas: Sequence[Mapping[str, Any]], counts: Mapping[str, Mapping[str, int]]
) -> list[ClassFacts]:
    mapped = {row["name"]: float(row["hectares"]) for row in areas}
    scores = card.scores.get(card.model)
    by_name = {} if scores is None else {row.name: row for row in scores.classes}
    intervals = card.intervals.get(card.model)
    bounds = {} if intervals is None else {row.name: row.f1.interval for row in intervals.classes}
    return [
        ClassFacts(
            name=row.name,
            mapped_ha=mapped.get(row.name, 0.0),
            train=counts.get(row.name, {}).get("train"),
            test=by_name[row.name].n if row.name in by_name else None,
            f1=by_name[row.name].f1 if row.name in by_name else None,
            interval=bounds.get(row.name),
        )
        for row in card.classes
    ]


def _with_areas(classes: Sequence[ClassFacts], assessed: Mapping[str, Any] | None) -> list[ClassFacts]:
    """The same with the hectares of an assessment, where it is one with a probability sample."""
    if assessed is None or assessed["basis"] != "probability sample":
        return list(classes)
    found = {row["class"]: row["hectares"] for row in assessed["classes"] if row["hectares"] is not None}
    return [
        replace(row, area_ha=(found[row.name]["value"], found[row.name]["low"], found[row.name]["high"]))
        if row.name in found
        else row
        for row in classes
    ]


def _seen_only(assessed: Mapping[str, Any] | None) -> list[tuple[str, int]]:
    rows = [] if assessed is None else assessed["classes"]
    return [(row["class"], int(row["seen"])) for row in rows if row.get("code") is None and row["seen"]]


def _charts(context: Context, card: ModelCard) -> list[ChartPicture]:
    """Pictures that train drew; a model from elsewhere came without."""
    if context.recipe.predict.bundle is not None:
        return []
    folder = train.folder_of(context)
    history = (folder.manifest or {}).get("epochs", [])
    best = None if card.history is None else card.history.best_epoch
    words = {"learning": section_training.learning_words(history, best)}
    if card.calibration is not None:
        words["reliability"] = section_training.reliability_words(card.calibration.model_dump(mode="json"))
    found = []
    for name, title, read in CHARTS:
        path = folder.path / "charts" / f"{name}.png"
        if name in words and path.exists():
            found.append(ChartPicture(title, path.read_bytes(), words[name], read))
    return found


def _few_looks(context: Context, looks: Sequence[Mapping[str, Any]]) -> list[str]:
    least = context.recipe.optical.min_clear_looks
    return [sentence(row, least) for row in looks if is_few(row, least)]


def _cubes_manifest(context: Context) -> dict[str, Any]:
    """What the samples of this workspace were; empty for a model from elsewhere."""
    return {} if context.recipe.predict.bundle is not None else cubes.folder_of(context).manifest or {}


def _split(context: Context) -> list[tuple[str, str]]:
    """How training and held-out samples were kept apart: (what, value)."""
    data = _cubes_manifest(context).get("split", {})
    rows = (
        ("kind", "kind", "{}"),
        ("folds", "folds", "{}"),
        ("test_fold", "fold held out for testing", "{}"),
        ("test_site", "site held out for testing", "{}"),
        ("validation_site", "site for choosing the epoch", "{}"),
        ("block_m", "side of the blocks", "{:g} m"),
        ("buffer_m", "distance kept between folds", "{:g} m"),
        ("dropped", "samples dropped by that distance", "{}"),
        ("leakage", "test windows that overlap a training window", "{:.1%}"),
    )
    return [(text, form.format(data[key])) for key, text, form in rows if data.get(key) is not None]


def _split_picture(context: Context) -> tuple[bytes | None, str]:
    """The split as a map, and in words."""
    manifest = _cubes_manifest(context)
    if not manifest:
        return None, ""
    return (cubes.folder_of(context).path / "split.png").read_bytes(), manifest["split_picture"]


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
