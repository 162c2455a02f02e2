"""wetmap change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from wetmap.cli.options import JsonOption


def change(
    before: Annotated[
        Path, typer.Argument(help="The earlier map: its classes.tif, its folder, or its workspace.", show_default=False)
    ],
    after: Annotated[
        Path, typer.Argument(help="The later map, on the same grid with the same classes.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option("--out", "--output", help="Folder for the map of change and its tables.", show_default=False)
    ],
    least_ha: Annotated[
        float,
        typer.Option("--least-ha", min=0, help="Transitions with less than this are shown in one group, hectares."),
    ] = 1.0,
    stable: Annotated[
        Literal["by-class", "one"],
        typer.Option("--stable", help="Show what did not change by its class, or all as one."),
    ] = "by-class",
    as_json: JsonOption = False,
) -> None:
    """Compare two finished maps: a map of transitions, with pixels and hectares of each."""
    from wetmap.cli.output import emit, listening
    from wetmap.errors import UsageError
    from wetmap.stages import change_files
    from wetmap.stages.change import Wish, compare_maps, write_change_map

    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file.", do="Name a folder.")
    tif = out / "change.tif"
    with listening(as_json=as_json):
        found = compare_maps(before, after, Wish(least_ha=least_ha, stable=stable))
        out.mkdir(parents=True, exist_ok=True)
        write_change_map(tif, found, before, after)
        files = change_files.write_change_tables(out, found)
    told = {"change.tif": str(tif), **{name: str(file) for name, file in files.items()}}
    emit(
        {"verb": "change", **change_files.summary_of(found), "files": told},
        change_files.change_lines(found, tif),
        as_json=as_json,
    )
