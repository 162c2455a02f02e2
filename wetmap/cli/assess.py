"""wetmap assess."""

from __future__ import annotations

from dataclasses import replace
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
    before_field: Annotated[
        str, typer.Option("--before-field", help="Of a map of change: field of the class at the first date.")
    ] = "before",
    after_field: Annotated[
        str, typer.Option("--after-field", help="Of a map of change: field of the class at the second date.")
    ] = "after",
    drawn: Annotated[
        Path | None,
        typer.Option(
            "--sample",
            help="The sample as wetmap sample wrote it, where --reference is an exported copy or a table of it.",
            show_default=False,
        ),
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
    from wetmap.products.change_table import change_table_of
    from wetmap.products.class_map import open_class_map
    from wetmap.stages import assess_files, change_files
    from wetmap.stages.assess import assess as assess_map
    from wetmap.stages.assess_change import Dates
    from wetmap.stages.assess_unknown import reference_words
    from wetmap.stages.report_renewal import renew_report

    path, folder = map_of(map_file, aoi, workspace, recipe)
    for file in (reference, second, drawn):
        if file is not None and not file.exists():
            raise UsageError(f"{file} does not exist.", do="Give the sample that you filled in.")
    target = output or folder / "assessment"
    with listening(as_json=as_json):
        source = replace(open_class_map(path), words=reference_words(folder, path))
        table = change_table_of(path)
        _refuse_idle(table is not None, class_field, before_field, after_field)
        result = assess_map(
            source,
            reference,
            class_field=class_field,
            layer=layer,
            second=second,
            drawn=drawn,
            dates=Dates(table, before_field, after_field) if table else None,
        )
    result["map_sha256"] = source.sha256  # the report shows an assessment of its own map alone
    files = assess_files.write_files(target, result) | change_files.write_estimates(target, result)
    page = None
    if target == folder / "assessment":
        with listening(as_json=as_json) as listener:
            page = renew_report(folder, listener)
    emit(
        {
            "verb": "assess",
            **result,
            "files": {name: str(file) for name, file in files.items()},
            "report": page and str(page),
        },
        [
            *assess_files.lines(result),
            *change_files.estimate_lines(result),
            f"Tables: {target}",
            *([f"Report: {page}"] if page else []),
        ],
        as_json=as_json,
    )


def _refuse_idle(change: bool, class_field: str, before_field: str, after_field: str) -> None:
    """Options that would change nothing are refused: who gave them meant something."""
    from wetmap.errors import UsageError

    if change and class_field != "reference":
        raise UsageError(
            f"--class-field {class_field} would change nothing: a map of change needs a class for each date.",
            do="Name the fields of the two dates with --before-field and --after-field.",
        )
    if not change and (before_field, after_field) != ("before", "after"):
        raise UsageError(
            "--before-field and --after-field would change nothing: this is no map of change of wetmap change.",
            do="Name the field of the class with --class-field, or give the map of change with --map.",
        )
