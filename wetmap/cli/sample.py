"""wetmap sample."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

import typer

from wetmap.cli.options import AoiOption, JsonOption, RecipeOption, WorkspaceOption, resolve_recipe
from wetmap.errors import UsageError

#: Distance kept from the polygons of --away-from where none is given, metres.
AWAY_M = 100.0

MapOption = Annotated[
    Path | None,
    typer.Option(
        "--map",
        help="Map of classes or of change, or its folder [default: this workspace's classes.tif].",
        show_default=False,
    ),
]


def map_of(path: Path | None, aoi: Path | None, workspace: Path | None, recipe: Path | None) -> tuple[Path, Path]:
    """The map that a verb is about, and the folder for what it writes beside others."""
    if path is not None and workspace is None and aoi is None and recipe is None:
        path = _map_in(path)
        folder = path.absolute().parent
        # a workspace replaces its folder map/ with every new map, and what somebody filled in must not go with it
        return path, folder.parent if folder.name == "map" and (folder.parent / "recipe.yaml").exists() else folder
    root = resolve_recipe(recipe, workspace, {"aoi": aoi}).root
    found = _map_in(path) if path else root / "map" / "classes.tif"
    if not found.exists():
        raise UsageError(f"There is no map {found}.", do="Make it with wetmap predict, or name one with --map.")
    return found, root


def _map_in(path: Path) -> Path:
    """The map that a path means: a file, or the map of classes or of change in a folder or a workspace.

    Raises:
        UsageError: The folder holds no map, or one of each kind.
    """
    if not path.is_dir():
        return path
    inside = (path / "classes.tif", path / "map" / "classes.tif", path / "change.tif")
    found = [one for one in inside if one.is_file()]
    if not found:
        raise UsageError(
            f"{path} is a folder without a map: there is no classes.tif and no change.tif in it.",
            do="Give the map with --map: a file, its folder, or its workspace.",
        )
    if inside[2] in found and len(found) > 1:
        raise UsageError(f"{path} holds {found[0].name} and change.tif.", do="Name one of the two files with --map.")
    return found[0]


def sample(
    aoi: AoiOption = None,
    workspace: WorkspaceOption = None,
    recipe: RecipeOption = None,
    map_file: MapOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", help="GeoPackage to write [default: sample.gpkg in the workspace].", show_default=False
        ),
    ] = None,
    units: Annotated[
        int | None, typer.Option("--units", min=2, help="Points to draw in all.", show_default=False)
    ] = None,
    target_se: Annotated[
        float | None,
        typer.Option(
            "--target-se",
            min=0,
            max=1,
            help="Or: the standard error wanted of the overall accuracy, such as 0.02; the number of points follows.",
            show_default=False,
        ),
    ] = None,
    design: Annotated[
        Literal["stratified", "simple", "systematic"],
        typer.Option("--design", help="By class of the map, anywhere at random, or on a grid with a random start."),
    ] = "stratified",
    allocation: Annotated[
        Literal["proportional", "equal", "neyman"] | None,
        typer.Option(
            "--allocation",
            help="How points are divided among the classes of the map [default: proportional].",
            show_default=False,
        ),
    ] = None,
    expected: Annotated[
        list[str] | None,
        typer.Option(
            "--expected",
            help="Share of a class that is expected to be right, CLASS=0.7; repeat it.",
            show_default=False,
        ),
    ] = None,
    least: Annotated[
        int | None, typer.Option("--least", min=0, help="Fewest points of a class of the map.", show_default=False)
    ] = None,
    away_from: Annotated[
        Path | None,
        typer.Option(
            "--away-from",
            help="Vector file to keep away from, such as the training polygons; the figures then hold for the rest.",
            show_default=False,
        ),
    ] = None,
    away_m: Annotated[
        float | None, typer.Option("--away-m", min=0, help="How far, metres [default: 100].", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the draw.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Draw a probability sample of the finished map, as points to interpret in QGIS."""
    from wetmap.cli.output import emit, listening
    from wetmap.products.change_table import change_table_of
    from wetmap.products.class_map import open_class_map
    from wetmap.products.sample_file import write_sample
    from wetmap.stages.hectares_text import hectares_text
    from wetmap.stages.sample import Wish, draw

    path, folder = map_of(map_file, aoi, workspace, recipe)
    target = output or folder / "sample.gpkg"
    _refuse_idle(design, allocation, least, expected, target_se, away_from, away_m)
    wish = Wish(
        kind=design,
        units=units,
        target_se=target_se,
        allocation=allocation or "proportional",
        expected=_pairs(expected or []),
        least=least or 0,
        seed=seed,
        away_from=away_from,
        away_m=AWAY_M if away_m is None else away_m,
    )
    with listening(as_json=as_json):
        source = open_class_map(path)
        change = change_table_of(path)
        drawn = draw(source, replace(wish, of_change=change is not None))
        write_sample(target, drawn, source.grid, change=change)
    names = {item.code: item.name for item in drawn.classes}
    rows = [{"class": names[row.code], "hectares": row.hectares, "units": row.units} for row in drawn.strata]
    result = {"verb": "sample", "sample": str(target), "design": drawn.kind, "units": len(drawn.rows), "strata": rows}
    text = [f"{len(drawn.rows)} points, {drawn.kind}:"]
    text += [f"  {names[row.code]}: {row.units} points for {hectares_text(row.hectares)} ha" for row in drawn.strata]
    if drawn.away_m is not None:
        text.append(f"{drawn.left_out_ha:,.0f} ha are nearer than {drawn.away_m:g} m and are not sampled.")
    text += [
        f"Sample: {target}",
        f"Open it in QGIS and fill {'the fields before and after' if change else 'the field reference'} of every "
        "point, from imagery or in the field, without looking at "
        f"the map. Then: wetmap assess --map {quote(str(path))} --reference {quote(str(target))}",
    ]
    emit(result, text, as_json=as_json)


def _refuse_idle(
    design: str,
    allocation: str | None,
    least: int | None,
    expected: list[str] | None,
    target_se: float | None,
    away_from: Path | None,
    away_m: float | None,
) -> None:
    """Options that would change nothing are refused: who gave them meant something."""
    idle = []
    if design != "stratified":
        idle += [name for name, given in (("--allocation", allocation), ("--least", least)) if given is not None]
    if expected and target_se is None and allocation != "neyman":
        idle.append("--expected")
    if away_m is not None and away_from is None:
        idle.append("--away-m")
    if idle:
        raise UsageError(
            f"{' and '.join(idle)} would change nothing here.",
            do="--allocation and --least belong to --design stratified, --expected to --target-se or to --allocation "
            "neyman, --away-m to --away-from.",
        )


def _pairs(texts: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in texts:
        name, value = _pair(text)
        if name in found:
            raise UsageError(f"--expected names {name} twice.", do="Give each class once.")
        found[name] = value
    return found


def _pair(text: str) -> tuple[str, float]:
    name, equals, share = text.rpartition("=")
    try:
        value = float(share)
    except ValueError:
        value = -1.0
    if not equals or not 0 <= value <= 1:
        raise UsageError(f"--expected {text} is not CLASS=SHARE.", do="Write for instance --expected bog=0.7.")
    return name.strip(), value
