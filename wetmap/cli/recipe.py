"""wetmap recipe show | check | schema | init."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wetmap.cli.options import AoiOption, JsonOption, WorkspaceOption, resolve_recipe
from wetmap.errors import UsageError

app = typer.Typer(help="Show, check or begin a recipe.", no_args_is_help=True, rich_markup_mode=None)

RecipeArgument = Annotated[Path, typer.Argument(help="Recipe (YAML).", show_default=False)]


@app.command()
def show(
    recipe: Annotated[
        Path | None, typer.Argument(help="Recipe (YAML) [default: the workspace's].", show_default=False)
    ] = None,
    aoi: AoiOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the recipe with every default filled in."""
    from wetmap.recipe_file import dump_recipe, load_recipe, plain

    if recipe is None and aoi is None and workspace is None:
        resolved = load_recipe()
    elif recipe is not None:
        resolved = load_recipe(recipe, {} if aoi is None else {"aoi": aoi.absolute()})
    else:
        resolved = resolve_recipe(None, workspace, {"aoi": aoi}).recipe
    typer.echo(json.dumps(plain(resolved), ensure_ascii=False) if as_json else dump_recipe(resolved).rstrip())


@app.command()
def check(recipe: RecipeArgument) -> None:
    """Check a recipe: its keys, values and units, its area, its indices and model options, and the files it names."""
    from wetmap.cli.output import listening
    from wetmap.recipe_file import load_recipe
    from wetmap.stages.check import check_recipe

    with listening(as_json=False):
        about = check_recipe(load_recipe(recipe))
    typer.echo(f"{recipe}: valid. {about}")


@app.command()
def schema() -> None:
    """Print the JSON schema: every key with its description, unit and default."""
    from wetmap.recipe import Recipe

    typer.echo(json.dumps(Recipe.model_json_schema(by_alias=True), indent=1))


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("wetmap.yaml"),
    aoi: AoiOption = None,
) -> None:
    """Write a short commented recipe to start from; an existing file is never overwritten."""
    from wetmap.workspace import write_bytes

    if path.exists():
        raise UsageError(f"{path} exists already.", do="Give another name, or delete it first.")
    area = aoi or Path("area.geojson")
    write_bytes(path, STARTER.format(aoi=json.dumps(str(area))).encode())
    typer.echo(f"{path} written. Edit it, then: wetmap run {path}")


STARTER = """\
# A wetmap recipe. `wetmap recipe schema` lists every key with its unit and default.
aoi: {aoi}            # any vector file: GeoJSON, GeoPackage, Shapefile

grid:
  crs: auto                    # the UTM zone that holds most of the area, or e.g. EPSG:2953
  res_m: 10                    # metres

seasons:                       # one composite of the imagery per season
  - {{name: summer, start: 2021-06-01, end: 2021-09-30}}

features:
  preset: paper16              # or: seasonal (several seasons, and terrain), custom

reference:
  path: wetlands.gpkg          # polygons, points or a label raster
  class_field: CLASS
  # background:                # for a reference that names only wetlands
  #   name: upland
  #   buffer_m: 100

model:
  name: wetmapformer           # wetmap doctor lists the models
"""
