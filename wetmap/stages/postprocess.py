"""Stage postprocess: majority smoothing, minimum mapping unit, masks, between the model's answer and the products.

Each step that the recipe asks for reads the map before it and writes a map of its own, block by block, with a ledger;
killed at any moment, it goes on with the blocks that are missing. With no step asked for there is no such stage, and
everything after it reads the model's answer.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetmap.cube import Cube
from wetmap.errors import RecipeError
from wetmap.geo import Block
from wetmap.mapping.postprocess import CM2_PER_HA, majority, rule_of
from wetmap.mapping.sieve import Rule
from wetmap.recipe import Recipe
from wetmap.recipe_map import NODATA, Mask, Postprocess
from wetmap.stages import fetch, masks, predict, sieving
from wetmap.stages.context import Context
from wetmap.stages.map_steps import Change, Source, take
from wetmap.workspace import StageFolder, write_json

#: Raised when the same request would give other pixels.
REVISION = 1


@dataclass(frozen=True)
class Masks:
    """The last step, so that masks stand: each mask's code where it covers a mapped pixel, one after the other."""

    masks: tuple[tuple[Mask, int], ...]
    """The masks, and the codes that they write."""

    def __call__(self, source: Source, block: Block) -> tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]:
        """The new codes of a block, and where each mask changed them."""
        codes = source.read(block)
        mapped, parts = codes != predict.NO_CLASS, []
        for mask, code in self.masks:
            here = mapped & masks.covered(mask, source.grid, block) if mapped.any() else mapped
            parts.append(here & (codes != code))
            codes = np.where(here, np.uint8(code), codes)
        return codes, parts


@dataclass(frozen=True)
class Majority:
    """The first step."""

    window_px: int
    """Side of the window, pixels, odd."""

    def __call__(self, source: Source, block: Block) -> tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]:
        """The new codes of a block, and where they are new."""
        codes = majority(source.around(block, self.window_px // 2), self.window_px)
        return codes, [codes != source.read(block)]


def wanted(recipe: Recipe) -> bool:
    """Whether the recipe asks for a step that changes the map."""
    part = recipe.postprocess
    return bool(part.masks) or part.majority_px is not None or _sieves(part)


def check(recipe: Recipe) -> None:
    """Refuse masks that cannot be used, and classes that the recipe does not name, before anything is computed.

    Raises:
        UsageError: A file or layer is not there.
        SourceError: A file cannot be read, has no CRS or no polygons.
        RecipeError: A class is unknown, where the recipe lists the classes; else the stage itself looks.
    """
    for place, mask in enumerate(recipe.postprocess.masks):
        masks.check_mask(mask, place)
    if recipe.classes and recipe.predict.bundle is None:
        background = getattr(recipe.reference, "background", None)
        names = [row.name for row in recipe.classes] + ([] if background is None else [background.name])
        _codes(recipe.postprocess, names)


def look(context: Context) -> None:
    """Refuse what `check` refuses, and classes that the model does not know, before the map is computed.

    Raises:
        WetmapError: As `check`; or there is no model.
    """
    check(context.recipe)
    if wanted(context.recipe):
        asked(context)


def asked(context: Context) -> dict[str, Any]:
    """What the stage is asked: the model's answer, the masks and their files, the window, and the units in pixels.

    Raises:
        RecipeError: A class is not of the model's.
    """
    part = context.recipe.postprocess
    classes = predict.open_bundle(context).card.classes
    codes = _codes(part, [row.name for row in classes], [row.code for row in classes])
    data: dict[str, Any] = {
        "revision": REVISION,
        **predict.identity(context),
        "masks": [{**masks.asked(mask), "code": code} for mask, code in zip(part.masks, codes, strict=True)],
        "majority_px": part.majority_px,
    }
    if _sieves(part):
        rule = _rule(context)
        data["unit_px"] = {str(row.code): int(rule.unit_px[row.code]) for row in classes}
        data["upland"] = {str(row.code): bool(rule.upland[row.code]) for row in classes}
        data["connectivity"] = part.connectivity
    return data


def folder_of(context: Context) -> StageFolder:
    """The stage's folder."""
    return context.workspace.stage("postprocess", asked(context))


def final(context: Context) -> StageFolder:
    """Where the final classes are: this stage's folder where there is such a stage, else the model's."""
    return folder_of(context) if wanted(context.recipe) else predict.folder_of(context)


def reader(folder: StageFolder) -> Callable[[Block], NDArray[np.uint8]]:
    """Reads a block of the classes that `final` names: codes, (height, width), 0 = nodata."""
    return lambda block: predict.read_map(folder, "classes", block)


def confidence_reader(context: Context) -> Callable[[Block], NDArray[np.uint8]]:
    """Reads a block of the model's probability of the class that the map shows, (height, width), percent.

    255 where nothing is mapped, and where a step changed the class: the model gave no probability of what is shown.
    """
    mapped, shown = predict.folder_of(context), final(context)

    def read(block: Block) -> NDArray[np.uint8]:
        percent = predict.read_map(mapped, "confidence", block)
        if shown.path == mapped.path:
            return percent
        same = predict.read_map(mapped, "classes", block) == predict.read_map(shown, "classes", block)
        return np.where(same, percent, predict.NO_CONFIDENCE).astype(np.uint8)

    return read


def run(context: Context) -> None:
    """Take the steps that the recipe asks for; with none, do nothing."""
    if not wanted(context.recipe):
        return
    folder = folder_of(context)
    scratch = folder.path / "steps"
    with context.workspace.lock("postprocess"):
        if context.begin(folder, asked(context)):
            for place, mask in enumerate(context.recipe.postprocess.masks):
                masks.check_mask(mask, place)
            told = _take_steps(context, folder)
            write_json(folder.path / "manifest.json", {"stage": "postprocess", **told})
        shutil.rmtree(scratch, ignore_errors=True)


def told(context: Context) -> list[str]:
    """What the steps did, one line each, for summary and report; empty where there were none."""
    if not wanted(context.recipe):
        return []
    manifest = folder_of(context).manifest or {"steps": []}
    out = [f"{row['step']} changed {row['hectares']:,.1f} ha ({row['pixels']:,} pixels)" for row in manifest["steps"]]
    if manifest.get("sieve", {}).get("isolated"):
        out.append(f"{manifest['sieve']['isolated']:,} patches below the minimum mapping unit touch no other and stay")
    return out


def _take_steps(context: Context, folder: StageFolder) -> dict[str, Any]:
    part = context.recipe.postprocess
    source = Source(predict.folder_of(context), Cube.open(fetch.cube_path(fetch.folder_of(context))).grid)
    told: dict[str, Any] = {"steps": []}
    steps = _steps(part)
    for number, (name, parts) in enumerate(steps):
        own = StageFolder(folder.stage, folder.key, folder.path / "steps" / name)
        target = folder if number == len(steps) - 1 else own
        change, counts = _change(context, name, own, source)
        told |= counts
        for what, (pixels, cm2) in zip(parts, take(context, own, source, change, target), strict=True):
            told["steps"].append({"step": what, "pixels": pixels, "hectares": cm2 / CM2_PER_HA})
        source = Source(target, source.grid)
    return told


def _steps(part: Postprocess) -> list[tuple[str, list[str]]]:
    """Steps in their order: the name, and what its parts are called."""
    steps = []
    if part.majority_px is not None:
        steps.append(("majority", [f"Majority of {part.majority_px} x {part.majority_px} px"]))
    if _sieves(part):
        steps.append(("sieve", ["Minimum mapping unit"]))
    if part.masks:
        steps.append(("masks", [f"Mask {mask.path.name} ({mask.write})" for mask in part.masks]))
    return steps


def _change(context: Context, name: str, own: StageFolder, source: Source) -> tuple[Change, dict[str, Any]]:
    part = context.recipe.postprocess
    if name == "masks":
        classes = predict.open_bundle(context).card.classes
        codes = _codes(part, [row.name for row in classes], [row.code for row in classes])
        return Masks(tuple(zip(part.masks, codes, strict=True))), {}
    if name == "majority":
        return Majority(part.majority_px or 1), {}
    change, counts = sieving.settle(context, own, source, _rule(context), part.connectivity)
    return change, {"sieve": counts}


def _sieves(part: Postprocess) -> bool:
    return part.minimum_mapping_unit_ha is not None or any(value > 0 for value in part.unit_of_class_ha.values())


def _rule(context: Context) -> Rule:
    part = context.recipe.postprocess
    classes = predict.open_bundle(context).card.classes
    return rule_of(classes, part.minimum_mapping_unit_ha, part.unit_of_class_ha, context.recipe.grid.res_m)


def _codes(part: Postprocess, names: Sequence[str], codes: Sequence[int] = ()) -> list[int]:
    """The code that each mask writes; every class that is named is looked up.

    Args:
        part: The recipe's part.
        names: The map's classes.
        codes: Their codes; empty where they do not matter.

    Raises:
        RecipeError: A class is none of the map's.
    """
    known = {name.strip().casefold(): number for number, name in enumerate(names)}
    places = [(f"masks.{place}.write", mask.write) for place, mask in enumerate(part.masks)]
    for key, name in [*places, *(("unit_of_class_ha", name) for name in part.unit_of_class_ha)]:
        if name.strip().casefold() not in known and not (name == NODATA and key != "unit_of_class_ha"):
            raise RecipeError(
                f"postprocess.{key} names {name!r}, and the map's classes are {', '.join(names)}.",
                do=f"Name one of them{'' if key == 'unit_of_class_ha' else f', or {NODATA}'}.",
            )
    if not codes:
        return []
    return [
        predict.NO_CLASS if mask.write == NODATA else codes[known[mask.write.strip().casefold()]] for mask in part.masks
    ]
