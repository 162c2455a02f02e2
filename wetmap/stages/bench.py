"""How long maps take on this machine: every model on random pixels in memory, and the hours for an area."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from wetmap import models
from wetmap.allocator import keep_freed_memory
from wetmap.budget import duration_text
from wetmap.bundle import load_bundle, load_predictor
from wetmap.cluster import Workers
from wetmap.cube import bands_of, layers_of
from wetmap.errors import RecipeError, UsageError, WetmapError
from wetmap.geo import make_grid, read_aoi
from wetmap.models.contract import MapModel
from wetmap.models.pixels import PixelSamples, fit_pixel_model
from wetmap.recipe import Recipe
from wetmap.stages.contenders import ALL, LAPTOP, model_list
from wetmap.stages.context import Listener
from wetmap.stages.fitting import BASELINES, baseline_options
from wetmap.stages.speed import ModelMapper, pixels_per_second_in_memory

#: Pixels of a Sentinel-2 tile: 109.8 km on a side at 10 m (Sentinel-2 Products Specification Document, level-1C tiles).
SENTINEL2_TILE_PIXELS = 10_980**2
#: Classes where the recipe names none.
USUAL_CLASSES = 9
#: Time for one model, seconds, about.
SECONDS_EACH = 1.0
#: Trees or rounds that are fitted to be timed; a whole forest takes in proportion.
FEW_TREES = 40
#: Made-up pixels that trees are fitted to, and how far their classes lie apart, standard deviations of each band.
FITTED_PIXELS, APART = 6_000, 0.6


@dataclass(frozen=True)
class BenchRow:
    """One model in the table."""

    model: str
    """Its name, or which trained model it is."""
    answers: str
    """``window``, ``dense`` or ``pixel``."""
    trained: bool
    """True of a bundle, False of a network with random weights."""
    pixels_per_s: float
    """Of one worker."""
    seconds: float
    """Time for the area with all workers."""
    note: str = ""
    """What to know about the figure."""


@dataclass(frozen=True)
class Shape:
    """What models are made for."""

    bands: int
    """Features per pixel."""
    classes: int
    """Classes of the map."""
    band_layer: tuple[int, ...]
    """The observation layer of each band."""

    @property
    def layers(self) -> int:
        """Observation layers."""
        return max(self.band_layer) + 1


def wanted_models(names: Sequence[str]) -> list[str]:
    """Registered names for names, ``laptop`` and ``all``, each once.

    Raises:
        RecipeError: A name that is none of these; the message has the list.
    """
    found: dict[str, None] = {}
    for name in names:
        if name not in (LAPTOP, ALL, *models.model_names()):
            raise RecipeError(
                f"There is no model called {name!r}.",
                do=f"Choose among {LAPTOP}, {ALL}, {', '.join(models.model_names())}.",
            )
        found.update(dict.fromkeys(model_list(name) if name in (LAPTOP, ALL) else [name]))
    return list(found)


def run(recipe: Recipe, names: Sequence[str], bundle: Path | None, listener: Listener) -> dict[str, Any]:
    """Measure every model, and say how long the recipe's area takes; nothing is written.

    Args:
        recipe: Bands, classes, area and workers.
        names: Models; ``laptop`` and ``all`` stand for several.
        bundle: Folder of a trained model that is measured too; None: none.
        listener: Told how far it is.

    Returns:
        What the verb answers, as plain data: rows from the fastest to the slowest.

    Raises:
        RecipeError: There is no such model.
        UsageError: None of the models can be measured.
    """
    chosen, shape = wanted_models(names), _shape(recipe)
    pixels, area = _pixels(recipe)
    workers = Workers(recipe.cluster, Path())
    keep_freed_memory()  # as the workers of predict do
    listener.stage("bench", "begins")
    rows, failed = [], []
    if bundle is not None:
        rows.append(_of_bundle(bundle, workers.threads))
    for done, name in enumerate(chosen, start=1):
        try:
            rows.append(_of_model(recipe, name, shape, workers.threads))
        except WetmapError as error:
            failed.append({"model": name, "reason": error.what})
        listener.progress(done, len(chosen), "models")
    if not rows:
        raise UsageError(f"No model could be measured: {failed[0]['reason']}", do="Name others with --models.")
    timed = [replace(row, seconds=pixels / (row.pixels_per_s * workers.count)) for row in rows]
    return {
        "verb": "bench",
        "area": area,
        "pixels": pixels,
        "bands": shape.bands,
        "classes": shape.classes,
        "workers": workers.count,
        "threads": workers.threads,
        "rows": [asdict(row) for row in sorted(timed, key=lambda row: row.seconds)],
        "left_out": [name for name in models.model_names() if name not in chosen],
        "failed": failed,
    }


def lines(result: Mapping[str, Any]) -> list[str]:
    """The same as lines for people."""
    workers, threads = result["workers"], result["threads"]
    what = result["area"] or "no --aoi: time for one Sentinel-2 tile"
    wide = max(len(row["model"]) for row in result["rows"])
    out = [
        f"Area:    {result['pixels']:,} pixels ({what})",
        f"Machine: {_count(workers, 'worker')} with {_count(threads, 'thread')} each; pixels/s are of one worker",
        f"Models:  {result['bands']} bands, {result['classes']} classes, random pixels in memory",
        "",
        f"{'model':<{wide}}  {'pixels/s':>10}  {'time':>9}",
    ]
    for row in result["rows"]:
        note = f"  {row['note']}" if row["note"] else ""
        out.append(f"{row['model']:<{wide}}  {row['pixels_per_s']:>10,.0f}  {duration_text(row['seconds']):>9}{note}")
    out += [f"{row['model']:<{wide}}  {'-':>10}  {'-':>9}  {row['reason']}" for row in result["failed"]]
    out += ["", "Reading the cube and writing the map come on top, fetching and training too."]
    if result["left_out"]:
        out.append(
            f"Not measured: {', '.join(result['left_out'])}; ask for them with --models NAME,NAME or --models all."
        )
    return out


def _of_model(recipe: Recipe, name: str, shape: Shape, threads: int) -> BenchRow:
    """An untrained network with random weights, or trees fitted to made-up pixels."""
    known, note = models.entry(name), ""
    if known.family == "torch":
        options = recipe.model.options if name == recipe.model.name else {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            made = models.create(
                name, shape.bands, shape.classes, layers=shape.layers, band_layer=shape.band_layer, **options
            )
        model, share = cast(MapModel, made.eval()), 1.0
    else:
        model, share, trees = _trees(recipe, name, shape, threads)
        note = f"{trees} trees, reckoned from {FEW_TREES}" if share < 1 else f"{trees} trees"
        note += f"; fitted to {FITTED_PIXELS:,} pixels, more make deeper trees"
    rate = pixels_per_second_in_memory(
        ModelMapper(model), shape.bands, shape.layers, threads=threads, seconds=SECONDS_EACH
    )
    return BenchRow(name, known.answers, False, rate * share, 0.0, note)


def _trees(recipe: Recipe, name: str, shape: Shape, threads: int) -> tuple[MapModel, float, int]:
    """A pixel model of few trees, the share of the trees that they are, and the number of trees that was asked for."""
    options = baseline_options(name, recipe.training) if name in BASELINES else models.option_defaults(name)
    asked = int(options["trees"])
    draw = np.random.default_rng(recipe.seed)
    label = draw.integers(0, shape.classes, FITTED_PIXELS)
    centres = APART * draw.standard_normal((shape.classes, shape.bands))
    x = (centres[label] + draw.standard_normal((FITTED_PIXELS, shape.bands))).astype(np.float32)
    samples = PixelSamples(x, label, shape.classes, shape.layers, shape.band_layer)
    few = {**options, "trees": min(asked, FEW_TREES)}
    model = fit_pixel_model(name, samples, options=few, seed=recipe.seed, threads=threads)
    return model, min(asked, FEW_TREES) / asked, asked


def _of_bundle(folder: Path, threads: int) -> BenchRow:
    """A trained model.

    Raises:
        BundleError: It is not a bundle, or damaged.
    """
    loaded = load_bundle(folder)
    card, predictor = loaded.card, load_predictor(loaded, threads=threads)
    rate = pixels_per_second_in_memory(
        predictor, len(card.bands), len(card.layers), threads=threads, seconds=SECONDS_EACH
    )
    name = f"{card.model} (trained)"
    return BenchRow(name, models.entry(card.model).answers, True, rate, 0.0, f"{len(card.bands)} bands; {folder}")


def _shape(recipe: Recipe) -> Shape:
    bands = bands_of(recipe)
    layers = layers_of(bands)
    place = {layer: number for number, layer in enumerate(layers)}
    return Shape(
        len(bands),
        max(len(recipe.classes), 2) if recipe.classes else USUAL_CLASSES,
        tuple(place[band.layer] for band in bands),
    )


def _pixels(recipe: Recipe) -> tuple[int, str]:
    """Pixels of the area, to about its edge, and what it is called; without one those of a Sentinel-2 tile."""
    if recipe.aoi is None:
        return SENTINEL2_TILE_PIXELS, ""
    aoi, part = read_aoi(recipe.aoi), recipe.grid
    grid = make_grid(aoi, res_m=part.res_m, crs=part.crs, align=part.align)
    return max(1, round(aoi.geometry_in(grid.crs).area / grid.res_m**2)), f"{aoi.name}, {grid.res_m:g} m"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
