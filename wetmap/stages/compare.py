"""Stage compare: a list of models, fitted on the same samples and folds for the same time, in one table."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from wetmap.cube import Cube
from wetmap.errors import ModelFailedWarning, SplitError, TrainingError, WetmapError
from wetmap.report.charts import class_f1_chart
from wetmap.report.compare_table import (
    CompareHead,
    CompareRow,
    compare_csv,
    compare_json,
    compare_lines,
    compare_markdown,
)
from wetmap.report.speed_chart import accuracy_against_speed
from wetmap.samples import PatchCubes
from wetmap.samples.splits import with_window
from wetmap.stages import compare_rows, cubes, fetch, fits
from wetmap.stages.compare_rows import Compared
from wetmap.stages.contenders import REFERENCE, Contender, contenders, folds_of, window_notes
from wetmap.stages.context import Context
from wetmap.stages.fits import Outcome
from wetmap.stages.fitting import Roles
from wetmap.workspace import StageFolder, key_of, read_json, write_bytes, write_json

#: Raised when the same fits would give another table.
REVISION = 2
#: Models beside the forest in the picture of the classes.
TOP = 4
#: Files that people see, in ``<workspace>/compare``.
FILES = ("compare.csv", "compare.md", "compare.json", "accuracy-speed.png", "accuracy-speed.svg", "class-f1.png")


def asked(context: Context) -> dict[str, Any]:
    """What the stage is asked: in words, and by the keys of all fits."""
    wanted, side = contenders(context.recipe), side_px(context)
    found: dict[str, dict[str, str]] = {}
    for fold in folds_of(context.recipe):
        held_out = context.with_test_fold(fold)
        samples = cubes.folder_of(held_out, side)
        found[str(fold)] = {row.label: fits.folder_of(held_out, row, samples.key).key for row in wanted}
    return {
        "folds": list(folds_of(context.recipe)),
        "minutes": context.recipe.compare.minutes,
        "models": [row.label for row in wanted],
        "name": context.name,
        "results": key_of(found),
        "revision": REVISION,
        "window_px": side,
    }


def folder_of(context: Context) -> StageFolder:
    """The stage's folder."""
    return context.workspace.stage("compare", asked(context))


def side_px(context: Context) -> int:
    """Side of the windows that all models' are cut out of, pixels: the largest that any of them asks for."""
    return max(row.window_px for row in contenders(context.recipe))


def run(context: Context) -> StageFolder:
    """Fit what is not fitted yet, write the table and its pictures, and publish them.

    Raises:
        TrainingError: No network could be trained; the table is there all the same.
    """
    wanted = contenders(context.recipe)
    folder = folder_of(context)
    failed: dict[str, str] = {}
    with context.workspace.lock("compare"):
        for note in window_notes(context.recipe):
            context.listener.say(f"compare: {note}")
        if context.begin(folder, asked(context)):
            failed = _fit_all(context, wanted)
            _write(context, folder, wanted, failed)
        files = {name: folder.path / name for name in FILES if (folder.path / name).exists()}
        digest = hashlib.sha256((folder.path / "compare.json").read_bytes()).hexdigest()
        about = {"stage": "compare", "key": folder.key, "sha256": digest, "cube": fetch.identity(context)}
        context.workspace.publish("compare", files, about)
    networks = [row.label for row in wanted if row.is_network]
    if networks and all(label in failed for label in networks):
        raise TrainingError(
            f"{_none_of(len(networks))}; {networks[0]}: {failed[networks[0]]}",
            do="Mend that and run the same command again; what is finished is kept.",
        )
    return folder


def _fit_all(context: Context, wanted: Sequence[Contender]) -> dict[str, str]:
    """Every model on every fold; what failed, by label, with the reason."""
    folds, side = folds_of(context.recipe), side_px(context)
    failed: dict[str, str] = {}
    for number, fold in enumerate(folds):
        held_out = context.with_test_fold(fold)
        samples = _cut(held_out, wanted, side)
        roles: Roles | None = None
        for place, contender in enumerate(wanted):
            of = f"{number * len(wanted) + place + 1} of {len(folds) * len(wanted)}"
            state = f"{contender.label}, fold {fold} ({of})"
            if contender.label in failed:
                continue
            if fits.folder_of(held_out, contender, samples.key).complete:
                context.listener.stage("compare", f"{state}: already done")
                continue
            context.listener.stage("compare", state)
            roles = roles or Roles.of(PatchCubes.open(samples.path / "patches.zarr"))
            try:
                fits.run(held_out, contender, samples, roles)
            except TrainingError as error:
                failed[contender.label] = f"fold {fold}: {error.what}"
                warnings.warn(f"{contender.label} is left out: {error}", ModelFailedWarning, stacklevel=2)
    return failed


def _cut(context: Context, wanted: Sequence[Contender], side: int) -> StageFolder:
    """The samples of a fold, in windows that hold every model's."""
    try:
        return cubes.run(context, side)
    except SplitError as error:
        largest = ", ".join(row.label for row in wanted if row.window_px == side)
        raise with_window(error, side, largest, window_advice(wanted, side)) from error


def window_advice(wanted: Sequence[Contender], side: int) -> str:
    """What makes the largest window smaller: a bound, which does nothing to windows that were named."""
    usual = [row.label for row in wanted if row.window_px == side and not row.own_window]
    named = [row.label for row in wanted if row.window_px == side and row.own_window]
    ways = []
    if usual:
        ways.append(f"bound the window of {', '.join(usual)} with compare.window_px (--window)")
    if named:
        ways.append(f"choose a smaller options.window of {', '.join(named)}")
    return f"Or {' and '.join(ways)}, or leave {'this model' if len(usual + named) == 1 else 'these models'} out."


def _write(context: Context, folder: StageFolder, wanted: Sequence[Contender], failed: Mapping[str, str]) -> None:
    """The table in its forms, and the pictures; the manifest only where nothing failed, so that it is tried again."""
    head, done, rows = _table(context, wanted, failed)
    write_bytes(folder.path / "compare.csv", compare_csv(rows, head).encode())
    write_bytes(folder.path / "compare.md", compare_markdown(rows, head).encode())
    write_bytes(folder.path / "compare.json", compare_json(rows, head).encode())
    speed = accuracy_against_speed(rows, title=head.title, mark=head.mark)
    write_bytes(folder.path / "accuracy-speed.png", speed.png)
    write_bytes(folder.path / "accuracy-speed.svg", speed.svg)
    best = sorted((row for row in done if row.label != REFERENCE), key=lambda row: -(row.scores.macro_f1.value or 0.0))
    shown = [*best[:TOP], *(row for row in done if row.label == REFERENCE)]
    classes = class_f1_chart({row.label: row.scores.classes for row in shown}, mark=head.mark)
    write_bytes(folder.path / "class-f1.png", classes.png)
    if not failed:
        write_json(
            folder.path / "manifest.json",
            {"stage": "compare", "models": [row.label for row in wanted], "folds": list(folds_of(context.recipe))},
        )


def _table(
    context: Context, wanted: Sequence[Contender], failed: Mapping[str, str]
) -> tuple[CompareHead, list[Compared], list[CompareRow]]:
    recipe, side = context.recipe, side_px(context)
    splits: list[dict[str, Any]] = []
    found: dict[str, list[Outcome]] = {row.label: [] for row in wanted if row.label not in failed}
    names: tuple[str, ...] = ()
    for fold in folds_of(recipe):
        held_out = context.with_test_fold(fold)
        samples = cubes.folder_of(held_out, side)
        manifest = samples.manifest or {}
        splits.append(manifest["split"])
        names = tuple(row["name"] for row in manifest["classes"])
        for row in wanted:
            if row.label in found:
                found[row.label].append(fits.load(fits.folder_of(held_out, row, samples.key)))
    block_px = splits[0]["block_px"] if recipe.splits.kind == "blocks" else None
    done = [
        compare_rows.compared(label, outcomes, names, block_px=block_px, seed=recipe.seed)
        for label, outcomes in found.items()
    ]
    reference = next((row for row in done if row.label == REFERENCE), None)
    by_label = {row.label: compare_rows.row_of(row, reference, names, seed=recipe.seed) for row in done}
    rows = [compare_rows.with_model(by_label.get(row.label), row, failed.get(row.label, "")) for row in wanted]
    simulated = Cube.open(fetch.cube_path(fetch.folder_of(context))).simulated
    return compare_rows.head_of(context, done, splits, names, side=side, simulated=simulated), done, rows


def summary(context: Context) -> dict[str, Any]:
    """What the verb answers: plain data."""
    target = context.workspace.root / "compare"
    table = read_json(target / "compare.json") or {}
    return {
        "verb": "compare",
        "workspace": str(context.workspace.root),
        "simulated": bool(table["head"]["simulated"]),
        "leaks": bool(table["head"]["leaks"]),
        **{name.replace(".", "_").replace("-", "_"): str(target / name) for name in FILES},
        "head": table["head"],
        "rows": table["rows"],
    }


def lines(result: Mapping[str, Any]) -> list[str]:
    """The same as lines for people."""
    if result["verb"] == "estimate":
        return _estimate_lines(result)
    rows = [CompareRow.from_json(row) for row in result["rows"]]
    return [*compare_lines(rows, CompareHead(**result["head"])), f"Table:  {result['compare_md']}"]


def estimate(context: Context) -> dict[str, Any]:
    """What would be fitted, on what, and for about how long. Nothing is written."""
    recipe, wanted = context.recipe, contenders(context.recipe)
    folds, side = folds_of(recipe), side_px(context)
    states: dict[str, dict[str, str]] = {row.label: {} for row in wanted}
    for fold in folds:
        held_out = context.with_test_fold(fold)
        for row in wanted:
            try:
                key = cubes.folder_of(held_out, side).key
                done = fits.folder_of(held_out, row, key).complete
                states[row.label][str(fold)] = "already done" if done else "to do"
            except WetmapError as error:
                states[row.label][str(fold)] = f"cannot run: {error}"
    todo = sum(state != "already done" for row in wanted if row.is_network for state in states[row.label].values())
    return {
        "verb": "estimate",
        "verbs": ["compare"],
        "workspace": str(context.workspace.root),
        "models": states,
        "folds": list(folds),
        "window_px": side,
        "minutes_each": recipe.compare.minutes,
        "networks_to_train": todo,
        "training_minutes": todo * recipe.compare.minutes,
        "window_notes": window_notes(recipe),
    }


def _estimate_lines(result: Mapping[str, Any]) -> list[str]:
    out = ["Dry run of compare: nothing is written.", f"Window: {result['window_px']} px, cut for all models alike"]
    out += [f"        {note}" for note in result["window_notes"]]
    for label, states in result["models"].items():
        out.append(f"Model:  {label}: {', '.join(f'fold {fold} {state}' for fold, state in states.items())}")
    count = int(result["networks_to_train"])
    many = "1 network to train," if count == 1 else f"{count} networks to train,"
    each = "" if count == 1 else " each"
    return [
        *out,
        f"Time:   {many} {result['minutes_each']:g} min{each}: about {result['training_minutes']:g} min, and the time "
        "of trees and of measuring. A network makes at least one step and one validation, whatever the minutes",
    ]


def _none_of(count: int) -> str:
    return "The only network could not be trained" if count == 1 else f"None of the {count} networks could be trained"
