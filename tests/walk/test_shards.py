"""A map in shards, through the command line: the bytes of a map that was made in one go."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.walk.conftest import Run, command, write_recipe
from tests.walk.test_restart import digests


def begin(*arguments: str | Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )


def work(folder: Path, stage: str) -> dict[str, bytes]:
    """Every file of a stage's work, but for who did it and when, and where the scenes lie."""
    base = next(path for path in (folder / "space/stages" / stage).iterdir() if path.is_dir())
    return {
        str(path.relative_to(base)): path.read_bytes()
        for path in sorted(base.rglob("*"))
        if path.is_file() and "ledger" not in path.parts and not path.name.startswith("scenes.json")
    }


def lines_of(folder: Path, stage: str) -> dict[str, list[dict[str, object]]]:
    """The ledger's lines by shard."""
    found = {}
    for path in sorted((folder / "space/stages").glob(f"{stage}/*/ledger/*.jsonl")):
        found[path.stem.partition("@")[0]] = [json.loads(line) for line in path.read_text().splitlines() if line]
    return found


def made_in(folder: Path, stage: str) -> list[object]:
    """Blocks of all lines."""
    return [row["block"] for rows in lines_of(folder, stage).values() for row in rows]


@pytest.fixture
def begun(small: Path, tmp_path: Path) -> Path:
    """The small recipe with its simulated scenes and its plan, and nothing else."""
    folder = tmp_path / "parts"
    write_recipe(folder)
    for stage in ("simulate", "plan"):
        shutil.copytree(small / "space/stages" / stage, folder / "space/stages" / stage)
    return folder


def test_a_map_in_shards_has_the_bytes_of_one_in_one_go(small: Path, begun: Path, wetmap: Run) -> None:
    folder, recipe = begun, ("--recipe", begun / "recipe.yaml")
    refused = wetmap("fetch", *recipe, "--shard", "1/3", expect=1).stderr
    assert "wetmap fetch --only plan first" in refused
    wetmap("fetch", *recipe, "--only", "plan")
    said = wetmap("fetch", *recipe, "--only", "plan").stdout
    assert "4 blocks of fetch to make, 0 of them are there" in said, "planned twice, and the same"
    assert not (folder / "space/recipe.yaml").exists()

    # one shard is killed after its first block
    killed = begin("fetch", *recipe, "--shard", "2/2")
    until = time.monotonic() + 120
    while not lines_of(folder, "fetch").get("2of2") and killed.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert "shard 1 of 2" in wetmap("fetch", *recipe, "--shard", "1/2").stderr
    if len(made_in(folder, "fetch")) < 3:  # two of four are more than a finishing step does
        wetmap("fetch", *recipe, "--only", "finish", expect=1)
    for shard in ("3/3", "1/3", "3/3", "2/3"):  # in any order, and one twice
        said = wetmap("fetch", *recipe, "--shard", shard).stdout
        assert f"Shard:  {shard} of fetch" in said
    wetmap("fetch", *recipe, "--only", "finish")
    made = made_in(folder, "fetch")
    assert len(made) == len(set(made)) == 4, "no block was made twice"
    assert work(folder, "fetch") == work(small, "fetch")

    for name in ("stages/cubes", "stages/train", "model"):  # made from the same cube: the same key
        shutil.copytree(small / "space" / name, folder / "space" / name)
    assert "Run wetmap predict --only plan first" in wetmap("predict", *recipe, "--shard", "1/3", expect=1).stderr
    wetmap("predict", *recipe, "--only", "plan")
    beside = begin("predict", *recipe, "--shard", "2/2")  # two processes write one map
    wetmap("predict", *recipe, "--shard", "1/2")
    assert "shard 2 of 2" in beside.communicate(timeout=120)[1]
    assert beside.returncode == 0
    assert set(lines_of(folder, "predict")) == {"1of2", "2of2"}
    assert "the map is finished" not in wetmap("status", folder / "recipe.yaml").stdout
    wetmap("predict", *recipe, "--only", "finish")
    assert digests(folder) == digests(small)
    assert work(folder, "predict") == work(small, "predict")
    answer = json.loads(wetmap("status", folder / "recipe.yaml", "--json").stdout)
    assert [row["state"] for row in answer["stages"]] == ["done"] * 6, "the simulated archive too"
    assert answer["next"] == {"what": "the map is finished", "command": ""}
    # nobody's clock is in what users get
    assert not any(b'"at"' in path.read_bytes() for path in (folder / "space/map").iterdir())
    assert "already done" in wetmap("predict", *recipe, "--shard", "1/3").stderr
    leftovers = [path for path in (folder / "space").rglob("*") if path.name.startswith((".tmp-", ".old-"))]
    assert leftovers == []


def test_a_poisoned_block_fails_alone_and_is_named(small: Path, begun: Path, wetmap: Run) -> None:
    """A folder in the place of a chunk: the block cannot be written, however often it is tried."""
    folder, recipe = begun, ("--recipe", begun / "recipe.yaml")
    shutil.copytree(small / "space/stages/fetch", folder / "space/stages/fetch")
    fetched = next(path for path in (folder / "space/stages/fetch").iterdir() if path.is_dir())
    shutil.rmtree(fetched / "ledger")
    (fetched / "manifest.json").unlink()
    chunk = fetched / "cube.zarr/features/c/0/0/1"
    chunk.unlink()
    (chunk / "in the way").mkdir(parents=True)
    said = wetmap("fetch", *recipe, "--shard", "1/2", expect=1).stderr
    assert "1 of 2 blocks of fetch failed" in said
    assert "r00000c00001" in said
    assert wetmap("fetch", *recipe, "--shard", "2/2").returncode == 0, "the other shard is not disturbed"
    said = wetmap("fetch", *recipe, "--shard", "1/2", "--max-failed", "0.5").stdout
    assert "1 of 2 blocks are there" in said
    assert "the first r00000c00001" in said
    table = wetmap("status", folder / "recipe.yaml").stdout
    assert "4 blocks, 3 done, 1 left (1 of them failed)" in table
    assert "failed r00000c00001: " in table
    assert "--shard 1/2" in table
    closed = wetmap("fetch", *recipe, "--only", "finish", "--max-failed", "0.25")
    assert "r00000c00001" in closed.stderr
    assert "Failed: 1 block" in closed.stdout
    shutil.rmtree(chunk)
    wetmap("fetch", *recipe)
    assert work(folder, "fetch") == work(small, "fetch")


def test_flags_that_do_not_go_together(small: Path, wetmap: Run) -> None:
    recipe = ("--recipe", small / "recipe.yaml")
    assert "given together" in wetmap("fetch", *recipe, "--shard", "1/2", "--only", "plan", expect=2).stderr
    assert "third of 64" in wetmap("predict", *recipe, "--shard", "3/2", expect=2).stderr
    assert "whole verb" in wetmap("predict", *recipe, "--shard", "1/2", "--dry-run", expect=2).stderr
