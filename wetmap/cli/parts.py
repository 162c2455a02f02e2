"""``--shard`` and ``--only``: a verb does one part of its blocks, or what comes before and after the parts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wetmap.errors import UsageError

if TYPE_CHECKING:
    from wetmap.stages.context import Context

ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        help="Work on one part of the blocks only: 3/64 is the third of 64. Needs --only plan before, --only finish "
        "after.",
        show_default=False,
    ),
]
OnlyOption = Annotated[
    Literal["plan", "finish"] | None,
    typer.Option(
        "--only",
        help="plan: settle what shards share, and stop; finish: close what shards have made.",
        show_default=False,
    ),
]


def part_of(context: Context, shard: str | None, only: Literal["plan", "finish"] | None, *, dry_run: bool) -> Context:
    """The run of one part.

    Raises:
        UsageError: The shard is none, or the flags do not go together.
    """
    from wetmap.stages.shards import Shard

    if shard is not None and only is not None:
        raise UsageError("--shard and --only are given together.", do="Give one: a shard is neither plan nor finish.")
    if dry_run and (shard is not None or only is not None):
        raise UsageError(
            "--dry-run tells of the whole verb, and --shard or --only is given.", do="Leave one of them out."
        )
    return replace(context, shard=None if shard is None else Shard.parse(shard), only=only)
