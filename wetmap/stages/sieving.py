"""The minimum mapping unit over a map on disk.

Three passes: workers survey the patches of every block; this process joins them over the blocks' rims and settles them
by `wetmap.mapping.sieve`, holding the graph of one block and the table of patches on rims; workers write the classes.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetmap.geo import Block
from wetmap.ledger import Entry
from wetmap.mapping.patch_graph import Graph
from wetmap.mapping.patches import Connectivity, RimTable, Survey, number_patches, survey
from wetmap.mapping.sieve import Rule, graph_of, sieve
from wetmap.stages.context import BlockTask, Context
from wetmap.stages.map_steps import BLOCK_PX, Source, every_block
from wetmap.workspace import StageFolder, read_json, write_json


@dataclass(frozen=True)
class Sieve:
    """The last pass: classes from the patches' table."""

    folder: Path
    """Where `settle` left the table."""
    connectivity: Connectivity
    """What makes a patch."""

    def __call__(self, source: Source, block: Block) -> tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]:
        """The new codes of a block, and where they are new."""
        codes = source.read(block)
        classes = np.load(self.folder / f"{block.name}.npy")
        new = np.append(classes, 0).astype(np.uint8)[number_patches(codes, self.connectivity)]  # the last one: nodata
        return new, [new != codes]


@dataclass(frozen=True)
class _Work:
    source: Source
    connectivity: Connectivity
    target: Path


def settle(
    context: Context, folder: StageFolder, source: Source, rule: Rule, connectivity: Connectivity
) -> tuple[Sieve, dict[str, Any]]:
    """Decide the class of every patch.

    Args:
        context: The run.
        folder: Where the step's own files lie.
        source: The map.
        rule: The units and kinds.
        connectivity: What makes a patch.

    Returns:
        The last pass, and counts for the manifest: ``small`` patches before, ``isolated`` ones after.
    """
    last = Sieve(folder.path / "classes", connectivity)
    told = read_json(folder.path / "settled.json")
    if told is None:
        blocks = list(source.grid.blocks(BLOCK_PX))
        surveys, graphs = folder.path / "surveys", folder.path / "graphs"
        for path in (surveys, graphs, last.folder):
            path.mkdir(parents=True, exist_ok=True)
        begun = StageFolder(folder.stage, folder.key, surveys)
        every_block(context, begun, blocks, _survey_block, _Work(source, connectivity, surveys))
        table = RimTable(connectivity)
        for block in blocks:
            table.add(block, _read_survey(surveys, block))
        rims = table.close()
        kept = Graphs(graphs, blocks)
        for key, block in enumerate(blocks):
            kept[key] = graph_of(_read_survey(surveys, block), rims.of_block[key])
        done = sieve(kept, rims, rule)
        for key, block in enumerate(blocks):
            _save(last.folder / f"{block.name}.npy", kept[key].final)
        told = {"small": done.small, "isolated": done.isolated}
        write_json(folder.path / "settled.json", told)
    return last, told


class Graphs(MutableMapping[int, Graph]):
    """Graphs of blocks on disk: one at a time is in memory."""

    def __init__(self, folder: Path, blocks: list[Block]) -> None:
        self._paths = [folder / f"{block.name}.npz" for block in blocks]

    def __getitem__(self, key: int) -> Graph:
        return Graph(**_load(self._paths[key]))

    def __setitem__(self, key: int, value: Graph) -> None:
        _save(self._paths[key], **{row.name: getattr(value, row.name) for row in fields(value)})

    def __delitem__(self, key: int) -> None:
        self._paths[key].unlink()

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self._paths)))

    def __len__(self) -> int:
        return len(self._paths)


def _survey_block(task: BlockTask) -> Entry:
    work: _Work = task.work
    found = survey(work.source.read(task.block), task.block, work.source.grid.width, work.connectivity)
    arrays = {row.name: getattr(found, row.name) for row in fields(found) if row.name != "sides"}
    sides = {f"side{number}": side for number, side in enumerate(found.sides)}
    _save(work.target / f"{task.block.name}.npz", **arrays, **sides)
    return Entry(task.block.name, "done")


def _read_survey(folder: Path, block: Block) -> Survey:
    arrays = _load(folder / f"{block.name}.npz")
    top, bottom, left, right = (arrays.pop(f"side{number}") for number in range(4))
    return Survey(sides=(top, bottom, left, right), **arrays)


def _load(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path) as data:
        return {name: data[name] for name in data.files}


def _save(path: Path, *array: NDArray[Any], **arrays: NDArray[Any]) -> None:
    """One array as ``.npy`` or several as ``.npz``, atomically."""
    temporary = path.with_name(f".tmp-{path.name}")
    if array:
        np.save(temporary, array[0])
    else:
        save_several: Any = np.savez  # its types take names of arrays for an option
        save_several(temporary, **arrays)
    temporary.replace(path)
