"""wetmap assess."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wetmap.cli.options import AoiOption, JsonOption, LayerOption, RecipeOption, WorkspaceOption
from wetmap.cli.sample import MapOption, map_of


def assess(
    reference: Annotated[
        Path, typer.Option("--reference", help="The sample of wetmap sample, interpreted; or points with a class.")
    ],
    aoi: AoiOption = None,
    workspace: WorkspaceOption = None,
    recipe: RecipeOption = None,
    map_file: MapOption = None,
    class_field: Annotated[str, typer.Option("--class-field", help="Field that names the class.")] = "reference",
    layer: LayerOption = None,
    second: Annotated[
        Path | None,
        typer.Option("--second", help="The same sample, interpreted by somebody else.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", help="Folder of the tables [default: assessment/ in the workspace].", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Accuracy of a map and hectares of each class, with 95 % intervals, from a sample that was interpreted."""
    from wetmap.cli.output import emit, listening
    from wetmap.errors import UsageError
    from wetmap.products.class_map import open_class_map
    from wetmap.stages import assess_files
    from wetmap.stages.assess import assess as assess_map

    path, folder = map_of(map_file, aoi, workspace, recipe)
    for file in (reference, second):
        if file is not None and not file.exists():
            raise UsageError(f"{file} does not exist.", do="Give the sample that you filled in.")
    target = output or folder / "assessment"
    with listening(as_json=as_json):
        result = assess_map(open_class_map(path), reference, class_field=class_field, layer=layer, second=second)
    files = assess_files.write_files(target, result)
    emit(
        {"verb": "assess", **result, "files": {name: str(file) for name, file in files.items()}},
        [*assess_files.lines(result), f"Tables: {target}"],
        as_json=as_json,
    )
