"""Stage fits: one model fitted on one fold of a comparison, with its answers for the test samples, kept for good.

A fit is known by what decides it, so that a comparison of more models finds those that it has already.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from wetmap import models
from wetmap.cube import Cube
from wetmap.errors import WorkspaceError
from wetmap.models.macs import multiply_adds_per_pixel
from wetmap.models.points import Point, many_networks
from wetmap.recipe_file import plain
from wetmap.stages import fetch
from wetmap.stages.contenders import Contender, training_of
from wetmap.stages.context import Context
from wetmap.stages.fitting import Fitted, Job, Roles, fit_one, fit_run
from wetmap.stages.speed import pixels_per_second
from wetmap.training.calibration import tempered
from wetmap.workspace import StageFolder, write_bytes, write_json

#: Raised when the same request would give other answers.
REVISION = 1

#: Epochs below which a network has hardly begun to learn, and its row says so.
FEW_EPOCHS = 10

#: Where the answers for the test samples are kept.
TEST_FILE = "test.npz"


@dataclass(frozen=True)
class Outcome:
    """What came of one fit."""

    facts: dict[str, Any]
    """The manifest: parameters, multiply-adds, times, speed, temperature, note."""
    probabilities: NDArray[np.float32]
    """(n, K) of the test samples, before calibration."""
    label: NDArray[np.int64]
    """(n,) true class index."""
    polygon: NDArray[np.int64]
    """(n,) reference feature."""
    row: NDArray[np.int64]
    """(n,) pixel row on the grid."""
    col: NDArray[np.int64]
    """(n,) pixel column on the grid."""

    @property
    def calibrated(self) -> NDArray[np.float32]:
        """(n, K) probabilities with the temperature."""
        return tempered(self.probabilities, self.facts["temperature"], floor=self.facts["floor"])


def asked(context: Context, contender: Contender, cubes_key: str) -> dict[str, Any]:
    """What a fit is asked: the samples of the fold, the model, how it learns, the seed and the threads."""
    training = plain(training_of(context.recipe)) if contender.is_network else {}
    training.pop("forest_trees", None)  # is an option of the forest here
    return {
        "revision": REVISION,
        "cubes": cubes_key,
        "model": contender.name,
        "options": contender.options,
        "training": training,
        "seed": context.recipe.seed,
        "threads": context.workers.threads,
    }


def folder_of(context: Context, contender: Contender, cubes_key: str) -> StageFolder:
    """The fit's folder."""
    return context.workspace.stage("fits", asked(context, contender, cubes_key))


def run(context: Context, contender: Contender, samples: StageFolder, roles: Roles) -> None:
    """Fit, measure and keep; goes on with a fit that was stopped.

    Args:
        context: The run, with the fold that is tested.
        contender: The model.
        samples: The folder of the patch cubes.
        roles: Their samples, all of the window of the cut.

    Raises:
        TrainingError: The model cannot be trained on them.
    """
    folder = folder_of(context, contender, samples.key)
    context.workspace.begin(folder, asked(context, contender, samples.key))
    classes = tuple(row["name"] for row in (samples.manifest or {})["classes"])
    training = training_of(context.recipe)
    job = Job(
        contender.name,
        contender.options,
        training,
        fit_run(context, classes, key=folder.key, folder=folder.path / "state"),
    )
    fitted = fit_one(job, roles, progress=_clock(context))
    test = roles.test
    arrays: dict[str, Any] = {
        "probabilities": fitted.test,
        "label": test.label.astype(np.int64),
        "polygon": test.polygon.astype(np.int64),
        "row": test.row.astype(np.int64),
        "col": test.col.astype(np.int64),
    }
    target = io.BytesIO()
    np.savez_compressed(target, allow_pickle=False, **arrays)
    write_bytes(folder.path / TEST_FILE, target.getvalue())
    write_json(folder.path / "manifest.json", _facts(context, contender, fitted, roles))


def _clock(context: Context) -> Callable[[dict[str, Any]], None]:
    """Says after every epoch how much of the training time is gone in this process."""
    whole, spent = max(round(context.recipe.compare.minutes * 60), 1), [0.0]

    def tell(row: dict[str, Any]) -> None:
        spent[0] += float(row["seconds"])
        context.listener.progress(min(int(spent[0]), whole), whole, "seconds")

    return tell


def load(folder: StageFolder) -> Outcome:
    """Read what came of a fit.

    Raises:
        WorkspaceError: It is not there, or damaged.
    """
    path, facts = folder.path / TEST_FILE, folder.manifest
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("probabilities", "label", "polygon", "row", "col")}
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise WorkspaceError(
            f"{path} is damaged ({error}).", do=f"Delete the folder {folder.path} and run wetmap compare again."
        ) from error
    return Outcome(facts or {}, **arrays)


def _facts(context: Context, contender: Contender, fitted: Fitted, roles: Roles) -> dict[str, Any]:
    cube = Cube.open(fetch.cube_path(fetch.folder_of(context)))
    places = [(int(row), int(col)) for row, col in zip(roles.test.row, roles.test.col, strict=True)]
    context.listener.say(f"compare: measuring how fast {contender.label} maps")
    speed = pixels_per_second(fitted.model, fitted.calibration, cube, places, threads=context.workers.threads)
    network = contender.is_network
    model = cast("models.MapModel", fitted.model)
    return {
        "stage": "fits",
        "label": contender.label,
        "test_fold": context.recipe.splits.test_fold,
        "parameters": fitted.parameters,
        "macs_per_pixel": multiply_adds_per_pixel(model, len(cube.bands), len(cube.layers)) if network else None,
        "training_s": sum(float(row["seconds"]) for row in fitted.epochs) if network else fitted.seconds,
        "epochs": fitted.history.epochs if network else None,
        "best_epoch": fitted.history.best_epoch if network else None,
        "validation_macro_f1": fitted.history.best_validation_macro_f1,
        "history": fitted.epochs,
        "temperature": fitted.calibration.temperature,
        "floor": fitted.calibration.floor,
        "pixels_per_s": speed,
        "notes": _notes(fitted),
    }


def _notes(fitted: Fitted) -> list[str]:
    """What else to know about a fit."""
    notes = []
    if fitted.epochs and len(fitted.epochs) < FEW_EPOCHS:
        few = len(fitted.epochs)
        notes.append(f"only {few} epoch{'' if few == 1 else 's'} in the time")
    if any(row.get("batches") == 1 for row in fitted.epochs):
        notes.append("of a single batch, which took longer than all the minutes")
    if fitted.calibration.note:
        notes.append(fitted.calibration.note)
    several = many_networks(fitted.model)
    if several is not None:
        point = several.default_point
        notes.append(f"at {Point(several.shape.tokens[point.size], point.keep)}")
    return notes
