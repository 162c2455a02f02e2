"""wetmap submit."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from wetmap.cli.options import AoiOption, JsonOption, MaxFailedOption, WorkspaceOption, open_context


def submit(
    recipe: Annotated[Path, typer.Argument(help="Recipe (YAML).", show_default=False)],
    array: Annotated[
        int, typer.Option("--array", min=1, help="Shards of fetch and of predict, one array element each.")
    ] = 16,
    aoi: AoiOption = None,
    workspace: WorkspaceOption = None,
    script_only: Annotated[
        bool, typer.Option("--script-only", help="Write the scripts into the workspace's slurm/; submit nothing.")
    ] = False,
    partition: Annotated[
        str | None, typer.Option("--partition", help="Slurm partition [recipe: cluster.job.queue].", show_default=False)
    ] = None,
    account: Annotated[
        str | None, typer.Option("--account", help="Slurm account [recipe: cluster.job.account].", show_default=False)
    ] = None,
    time: Annotated[
        str | None,
        typer.Option("--time", help="Time limit of each job [recipe: cluster.job.walltime].", show_default=False),
    ] = None,
    mem: Annotated[
        str | None, typer.Option("--mem", help="Memory of each job [recipe: cluster.job.memory].", show_default=False)
    ] = None,
    cpus: Annotated[
        int | None,
        typer.Option(
            "--cpus",
            min=1,
            help="Cores, and so workers, of each job [recipe: cluster.job.workers].",
            show_default=False,
        ),
    ] = None,
    gpus: Annotated[int, typer.Option("--gpus", min=0, help="GPUs of each job that trains or maps.")] = 0,
    at_once: Annotated[
        int | None,
        typer.Option("--at-once", min=1, help="Array elements that run at a time, at most.", show_default=False),
    ] = None,
    max_failed: MaxFailedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the map as Slurm job arrays: write readable scripts and submit them; again, what is missing."""
    from wetmap.cli.output import emit

    job = {
        "--partition": ("cluster.job.queue", partition),
        "--account": ("cluster.job.account", account),
        "--time": ("cluster.job.walltime", time),
        "--mem": ("cluster.job.memory", f"{mem}iB" if mem and mem[-1] in "KMGT" else mem),  # 8G, as Slurm writes it
    }
    overrides: dict[str, Any] = {"aoi": aoi, **dict(job.values()), "cluster.max_failed": max_failed}
    with open_context(recipe, workspace, overrides, as_json=as_json) as context:
        from wetmap.stages import submit as submission

        own = ["--recipe", str(recipe.absolute()), "--workspace", str(context.workspace.root)]
        own += [] if aoi is None else ["--aoi", str(aoi.absolute())]
        given: dict[str, object] = {
            **{flag: value for flag, (_, value) in job.items()},
            "--cpus": cpus,
            "--gpus": gpus or None,
        }
        given |= {"--at-once": at_once, "--max-failed": max_failed, "--aoi": aoi and aoi.absolute()}
        again = ["wetmap", "submit", str(recipe.absolute()), "--workspace", str(context.workspace.root)]
        again += ["--array", str(array)]
        again += [str(word) for flag, value in given.items() if value is not None for word in (flag, value)]
        asked = submission.Asked(
            shards=array,
            options=tuple(own),
            again=shlex.join(again),
            cores=cpus,
            gpus=gpus,
            at_once=at_once,
            max_failed=max_failed,
            script_only=script_only,
        )
        result = submission.run(context, asked)
    emit(result, submission.lines(result), as_json=as_json)
