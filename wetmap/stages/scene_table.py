"""The plan's scenes as a worker reads them: those near its block, and no more.

A province has thousands of scenes, each with some kilobytes of metadata. A task carries the address of this table
alone; a worker keeps of it where each scene lies and where its line begins.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wetmap.geo import Grid
from wetmap.sources import Scene
from wetmap.sources.outlines import near, outline_of, window_outline
from wetmap.stages.block_reading import REACH_M
from wetmap.workspace import write_bytes, write_json

#: One scene a line, and beside it where the lines begin and what they cover.
LINES, INDEX = "scenes.jsonl", "scenes.json"
#: Where a scene lies whose archive does not say: west, south, east, north, degrees.
ANYWHERE = (-180.0, -90.0, 180.0, 90.0)


@dataclass(frozen=True)
class SceneTable:
    """Where the scenes' lines are and what they cover."""

    lines: Path
    """JSON lines, one scene each, in the plan's order."""
    starts: NDArray[np.int64]
    """First byte of each line, and the end of the last, (scene + 1)."""
    bounds: NDArray[np.float64]
    """West, south, east, north of each scene, (scene, 4) degrees."""

    def near(self, window: Grid) -> tuple[Scene, ...]:
        """The scenes that a window and ``REACH_M`` around it may need, in the plan's order."""
        wide = around(window)
        west, south, east, north = window_outline(wide).bounds
        box = self.bounds
        meets = (box[:, 0] <= east) & (box[:, 2] >= west) & (box[:, 1] <= north) & (box[:, 3] >= south)
        found = []
        with self.lines.open("rb") as file:
            for number in np.flatnonzero(meets):
                file.seek(int(self.starts[number]))
                scene = Scene.from_json(json.loads(file.read(int(self.starts[number + 1] - self.starts[number]))))
                if near(scene.item, wide):
                    found.append(scene)
        return tuple(found)


def around(window: Grid) -> Grid:
    """A window and ``REACH_M`` around it."""
    reach = round(REACH_M / window.res_m)
    return window.window(-reach, -reach, window.height + 2 * reach, window.width + 2 * reach)


def write_table(folder: Path, scenes: Sequence[Scene]) -> Path:
    """Write the table of a plan's scenes; gives its path, which ``open_table`` takes."""
    lines = [json.dumps(scene.to_json(), separators=(",", ":")).encode() + b"\n" for scene in scenes]
    starts = np.cumsum([0, *map(len, lines)])
    outlines = [outline_of(scene.item) for scene in scenes]
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / LINES, b"".join(lines))
    write_json(
        folder / INDEX,
        {
            "starts": starts.tolist(),
            "bounds": [ANYWHERE if outline is None else outline.bounds for outline in outlines],
        },
    )
    return folder / INDEX


def open_table(path: Path) -> SceneTable:
    """The table, read once by each process for as long as it stays the same."""
    return _opened(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _opened(path: Path, _made: int) -> SceneTable:
    data = json.loads(path.read_text(encoding="utf-8"))
    return SceneTable(
        path.with_name(LINES),
        np.asarray(data["starts"], dtype=np.int64),
        np.asarray(data["bounds"], dtype=np.float64).reshape(-1, 4),
    )
