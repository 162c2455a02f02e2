"""Which of a SuperViT's networks maps: named in the recipe, or measured here and chosen by a budget.

What was chosen is kept in the predict stage's folder before the first block, so that restarts and shards agree.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetmap import models
from wetmap.budget import Budget, duration_text, parse_budget
from wetmap.bundle import Bundle, choose_device, load_predictor
from wetmap.cube import Cube
from wetmap.errors import UsageError
from wetmap.mapping import whole_tiles
from wetmap.models.points import Point
from wetmap.recipe import Predict
from wetmap.stages import fetch, plan
from wetmap.stages.context import Context
from wetmap.workspace import StageFolder, read_json, write_json

#: Where the choice is kept.
FILE = "operating_point.json"
#: Each point is timed for at least this long, seconds, after one pass that is not counted.
LEAST_SECONDS = 0.5
#: A classifier of windows is timed on a part of its tile, pixels a side: whole batches, and seconds instead of minutes.
PARTS_PX = {8: 16}
PART_PX = 8
#: Side of the pieces in which the area's tiles are counted, pixels.
COUNT_PX = 1024


@dataclass(frozen=True)
class Row:
    """One operating point in the table."""

    point: Point
    """Which network."""
    macro_f1: float | None
    """Macro F1 on the validation fold, 0-1."""
    pixels_per_s: float
    """Measured here, all workers together."""
    seconds: float
    """Time for this map at that rate."""


def wanted(part: Predict) -> bool:
    """Whether the recipe says anything about the operating point."""
    return part.tokens is not None or part.keep is not None or part.budget is not None


def asked(part: Predict) -> dict[str, Any]:
    """What identifies the choice in the stage's key; nothing where nothing is said."""
    if part.budget is not None:
        return {"operating_point": {"budget": parse_budget(part.budget).to_json()}}
    return {"operating_point": {"tokens": part.tokens, "keep": part.keep}} if wanted(part) else {}


def check_model(name: str, part: Predict) -> None:
    """Refuse a choice among the networks of a model that is a single one, or of a size that it does not have.

    Raises:
        UsageError: The model has no operating points, or not this one.
    """
    if not wanted(part):
        return
    offered = models.entry(name).tokens
    if not offered:
        having = ", ".join(known for known in models.model_names() if models.entry(known).tokens)
        raise UsageError(
            f"The model {name} has no operating points, so that tokens, keep and budget mean nothing to it.",
            do=f"Leave them out, or train one of {having}.",
        )
    if part.tokens is not None and part.tokens not in offered:
        raise UsageError(
            f"The model {name} has no operating point of {part.tokens} tokens a side.",
            do=f"Choose one of {', '.join(map(str, offered))}.",
        )


def settle(context: Context, bundle: Bundle, folder: StageFolder) -> Point | None:
    """The operating point of this map, chosen now or when it was begun, and kept.

    Args:
        context: The run; the predict stage's lock is held.
        bundle: The model.
        folder: The predict stage's folder; it is made if there is something to keep.

    Returns:
        None where the recipe says nothing: the model's default, all tokens of the largest size.

    Raises:
        UsageError: The model has no such point, or none keeps to the budget; then nothing is written.
    """
    if not wanted(context.recipe.predict):
        return None
    known = _kept(folder)
    if known is not None:
        context.listener.say(f"This map is made at the operating point it was begun with: {known}.")
        return known
    point, rows = look(context, bundle)
    return _keep(folder, point, context.recipe.predict, rows)


def look(context: Context, bundle: Bundle) -> tuple[Point, list[Row]]:
    """Choose an operating point and write nothing; measures where there is a budget, and tells the table.

    Raises:
        UsageError: As for ``settle``.
    """
    part = context.recipe.predict
    check_model(bundle.card.model, part)
    if part.budget is None:
        offered = models.entry(bundle.card.model).tokens
        return Point(part.tokens or offered[-1], 1.0 if part.keep is None else part.keep), []
    pixels = _pixels(context, bundle.card.geometry.tile)
    rows = measured(context, bundle, pixels)
    best = choose(rows, parse_budget(part.budget), part.budget, pixels)
    for line in table(rows, best, f"{bundle.card.model} with {_workers(context.workers.count)}, {pixels:,} pixels"):
        context.listener.say(line)
    return best.point, rows


def measured(context: Context, bundle: Bundle, pixels: int) -> list[Row]:
    """Time every operating point that the model's card knows the accuracy of.

    Raises:
        UsageError: The card knows of none.
    """
    scored = {Point(row.tokens, row.keep): row.validation_macro_f1 for row in bundle.card.points}
    if not scored:
        raise UsageError(
            f"The card of the model in {bundle.folder} does not say how accurate its operating points are.",
            do="Train it again with this version, or name a point with --tokens and --keep.",
        )
    context.listener.say(f"Measuring {len(scored)} operating points of {bundle.card.model} on this machine")
    sample = _sample(context, bundle)
    rows = []
    for point, macro_f1 in sorted(scored.items()):
        rate = context.workers.count * _rate(bundle, point, sample, threads=context.workers.threads)
        rows.append(Row(point, macro_f1, rate, pixels / rate))
    return rows


def choose(rows: Sequence[Row], budget: Budget, text: str, pixels: int) -> Row:
    """The most accurate point that keeps to the budget; of equally accurate ones the fastest.

    Args:
        rows: At least one point.
        budget: The budget.
        text: As it was written.
        pixels: Pixels to compute.

    Raises:
        UsageError: None keeps to it; the message names the fastest.
    """
    fitting = [row for row in rows if budget.fits(pixels_per_s=row.pixels_per_s, seconds=row.seconds)]
    if not fitting:
        fastest = max(rows, key=lambda row: row.pixels_per_s)
        raise UsageError(
            f"No operating point keeps to the budget {text}: the fastest, {fastest.point}, maps "
            f"{fastest.pixels_per_s:,.0f} pixels per second here, {duration_text(fastest.seconds)} for "
            f"{pixels:,} pixels.",
            do="Give a larger budget, more --workers, or a smaller area.",
        )
    return max(fitting, key=lambda row: (-1.0 if row.macro_f1 is None else row.macro_f1, row.pixels_per_s))


def table(rows: Sequence[Row], best: Row, about: str) -> list[str]:
    """The points as lines for people; the chosen one is marked."""
    out = [f"Operating points of {about}:", "  tokens a side  keep  validation macro F1  pixels per s       time"]
    for row in rows:
        f1 = "-" if row.macro_f1 is None else f"{row.macro_f1:.3f}"
        line = f"  {row.point.tokens:>13}  {row.point.keep:>4g}  {f1:>19}  {row.pixels_per_s:>12,.0f}"
        out.append(f"{line}  {duration_text(row.seconds):>9}{'  <- chosen' if row == best else ''}")
    return out


def tiles_touched(inside: NDArray[np.bool_], tile: int) -> int:
    """How many tiles hold a pixel of the area; the engine computes these, whole.

    Args:
        inside: (height, width), from a corner of a tile.
        tile: Side of a tile, pixels.
    """
    rows, cols = (math.ceil(size / tile) for size in inside.shape)
    whole = np.zeros((rows * tile, cols * tile), dtype=np.bool_)
    whole[: inside.shape[0], : inside.shape[1]] = inside
    return int(whole.reshape(rows, tile, cols, tile).any(axis=(1, 3)).sum())


def _pixels(context: Context, tile: int) -> int:
    """Pixels to compute: those of the tiles that touch the area."""
    planned = plan.load(plan.folder_of(context))
    blocks = planned.grid.blocks(whole_tiles(COUNT_PX, tile))
    return tile**2 * sum(tiles_touched(plan.read_inside(planned.inside, block), tile) for block in blocks)


def _sample(context: Context, bundle: Bundle) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A tile of the middle of the cube with its margin, (1, C, side, side) and (1, L, side, side)."""
    cube, card = Cube.open(fetch.cube_path(fetch.folder_of(context))), bundle.card
    tile, margin = card.geometry.tile, card.geometry.margin
    if models.entry(card.model).answers == "window":
        tile = PARTS_PX.get(card.window, PART_PX)
    y0, x0 = cube.grid.height // 2 - margin, cube.grid.width // 2 - margin
    features, observed = cube.read_window(y0, x0, tile + 2 * margin, tile + 2 * margin)
    return features[None], observed[None]


def _rate(
    bundle: Bundle, point: Point, sample: tuple[NDArray[np.float32], NDArray[np.bool_]], *, threads: int
) -> float:
    """Pixels per second of one worker at a point; the first pass pays for start-up and is not counted."""
    predictor = load_predictor(bundle, threads=threads, point=point, device=choose_device(bundle))
    answers = predictor.tile_probabilities(*sample)
    passes, elapsed, start = 0, 0.0, time.perf_counter()
    while elapsed < LEAST_SECONDS:
        predictor.tile_probabilities(*sample)
        passes, elapsed = passes + 1, time.perf_counter() - start
    return passes * float(answers.shape[2] * answers.shape[3]) / elapsed


def _kept(folder: StageFolder) -> Point | None:
    saved = read_json(folder.path / FILE)
    return None if saved is None else _point(saved)


def _point(saved: Mapping[str, Any]) -> Point:
    return Point(int(saved["tokens"]), float(saved["keep"]))


def _keep(folder: StageFolder, point: Point, part: Predict, rows: Sequence[Row]) -> Point:
    """Write the choice; where another process wrote one meanwhile, that one holds."""
    folder.path.mkdir(parents=True, exist_ok=True)
    data = {**asdict(point), "budget": part.budget, "measured": [asdict(row) for row in rows]}
    path: Path = folder.path / FILE
    own = path.with_name(f".tmp-{os.getpid()}-{FILE}")
    write_json(own, data)
    try:
        os.link(own, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        own.replace(path)
    finally:
        own.unlink(missing_ok=True)
    kept = _kept(folder)
    return point if kept is None else kept


def _workers(count: int) -> str:
    return f"{count} worker{'' if count == 1 else 's'}"
