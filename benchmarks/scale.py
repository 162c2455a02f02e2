"""What thousands of blocks cost beside the work in them: time of the scheduler and memory of client and scheduler.

    python benchmarks/scale.py [--counts 1000,3000,10000,70000] [--on local,tcp,slurm] [--real-side 2048]

A stage whose blocks do nothing goes through the same code as a real one: tasks to two workers, entries in the ledger.
3,000 blocks are New Brunswick at 512 px, 70,000 are most of Canada at 1,024 px.

- ``local``: two worker processes of this machine; the scheduler is a thread of the client, and its memory is counted
  there.
- ``tcp``: a scheduler and two workers that run already, each a process of its own.
- ``slurm``: two jobs of one worker each; where ``sbatch`` is found.
- ``--real-side``: besides, ``wetmap predict`` on a square of that many pixels, to put the cost beside real work.

Memory is the most that the process ever held. Prints a table and, as its last line, one JSON object, whose figures are
those of ``tcp`` (or else of the first) at the largest count.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mapping_walk
from scale_blocks import peak_mb

#: Where ``scale_blocks`` is found by workers.
HERE = Path(__file__).parent
#: Seconds to wait for a scheduler.
PATIENCE_S = 60.0
#: Pixels a side of the blocks of the real map.
REAL_BLOCK_PX = 512


@dataclass(frozen=True)
class Row:
    """One stage of empty blocks."""

    on: str
    blocks: int
    seconds: float
    client_mb: float
    scheduler_mb: float | None

    @property
    def ms_per_block(self) -> float:
        """Milliseconds of each block."""
        return 1000 * self.seconds / self.blocks


def environment() -> dict[str, str]:
    """So that every process finds ``scale_blocks``, and no library starts threads."""
    return {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}


@contextlib.contextmanager
def running_scheduler(folder: Path) -> Iterator[tuple[str, int]]:
    """A scheduler and two workers; gives its address and process."""
    folder.mkdir()
    told = folder / "scheduler.json"
    common = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    quiet: dict[str, Any] = {"env": environment(), "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with contextlib.ExitStack() as stack:
        scheduler = stack.enter_context(
            subprocess.Popen([*common, "--no-dashboard", "--scheduler-file", str(told)], **quiet)
        )
        stack.callback(scheduler.terminate)
        end = time.monotonic() + PATIENCE_S
        while not told.exists() and time.monotonic() < end:
            time.sleep(0.1)
        address = json.loads(told.read_text(encoding="utf-8"))["address"]
        for number in range(2):
            words = ["-m", "distributed.cli.dask_worker", address, "--nthreads", "2", "--no-dashboard"]
            words += ["--local-directory", str(folder / f"worker{number}"), "--name", f"worker{number}"]
            worker = stack.enter_context(subprocess.Popen([sys.executable, *words], **quiet))
            stack.callback(worker.terminate)
        time.sleep(3)
        yield address, scheduler.pid


def one(folder: Path, count: int, on: str) -> Row:
    """Run one stage of empty blocks."""
    with contextlib.ExitStack() as stack:
        cluster: dict[str, Any] = {"kind": on, "workers": 2}
        pid = None
        if on == "tcp":
            address, pid = stack.enter_context(running_scheduler(folder / f"scheduler{count}"))
            cluster = {"kind": address, "workers": 2}
        command = [sys.executable, HERE / "scale_blocks.py", folder / f"{on}{count}", str(count), json.dumps(cluster)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{on}, {count} blocks: {done.stderr[-2000:]}")
        said = json.loads(done.stdout.splitlines()[-1])
        return Row(on, count, said["seconds"], said["client_mb"], None if pid is None else peak_mb(pid))


def real_block_s(folder: Path, side: int) -> float:
    """Core seconds that one block of 512 px takes in ``wetmap predict`` with WetMapFormer, start-up included."""
    area = mapping_walk.make_area(folder, side, bands="usual")
    bundle = mapping_walk.make_bundle(folder / "wetmapformer", area, "wetmapformer")
    run = mapping_walk.predict(area, bundle, "--workers", 2, "--block-px", REAL_BLOCK_PX, watched=False)
    return 2 * run.seconds / (side / REAL_BLOCK_PX) ** 2


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="1000,3000,10000,70000", help="blocks, with commas")
    parser.add_argument("--on", default="local,tcp,slurm", help="where, with commas")
    parser.add_argument("--real-side", type=int, default=0, help="side of a real map, pixels; 0: none")
    parser.add_argument("--folder", type=Path, help="where workspaces are made [default: a temporary one]")
    chosen = parser.parse_args()
    places = [on for on in chosen.on.split(",") if on != "slurm" or shutil.which("sbatch")]
    counts = [int(count) for count in chosen.counts.split(",")]
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        folder = Path(name)
        rows = [one(folder, count, on) for on in places for count in counts]
        real = real_block_s(folder / "real", chosen.real_side) if chosen.real_side else None
    print(f"{'on':8}{'blocks':>8}{'seconds':>9}{'ms/block':>10}{'client MB':>11}{'scheduler MB':>14}")
    for row in rows:
        scheduler = "in client" if row.scheduler_mb is None else f"{row.scheduler_mb:.0f}"
        print(f"{row.on:8}{row.blocks:8}{row.seconds:9.1f}{row.ms_per_block:10.2f}{row.client_mb:11.0f}{scheduler:>14}")
    if real is not None:
        print(f"a block of {REAL_BLOCK_PX} px of a real map: {real:.1f} core seconds")
    last = max(rows, key=lambda row: (row.blocks, row.on == "tcp"))
    figures = {
        "blocks": last.blocks,
        "ms_per_block": round(last.ms_per_block, 3),
        "client_rss_mb": round(last.client_mb),
        "scheduler_rss_mb": None if last.scheduler_mb is None else round(last.scheduler_mb),
        "core_s_per_real_block": None if real is None else round(real, 2),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
