"""``wetmap submit`` on a real Slurm: arrays make the map of a plain run, also where jobs are cancelled and killed."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.system.slurm import Slurm, processes_with
from tests.walk.conftest import run_here, write_recipe
from tests.walk.conftest import small as small  # noqa: PLC0414 - a fixture
from tests.walk.conftest import wetmap_apart as wetmap_apart  # noqa: PLC0414 - a fixture
from tests.walk.test_restart import digests

pytestmark = pytest.mark.system

#: What jobs ask for; each virtual node has two cores and a quarter of this machine's memory.
JOB = ("--array", "3", "--mem", "1500M", "--time", "10m", "--partition", "debug")


@pytest.fixture(autouse=True)
def _here(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Slurm's commands find it, jobs inherit one thread, and nothing is left of any test."""
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    slurm.wait_empty()
    left = [process.cmdline() for process in processes_with("SLURM_CONF", slurm.environment["SLURM_CONF"])]
    assert not [line for line in left if "wetmap" in line], "a job outlived its test"


def submit(recipe: Path, *more: str) -> dict[str, Any]:
    done = run_here(["submit", str(recipe), *JOB, *more, "--json"])
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def status(recipe: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(run_here(["status", str(recipe), "--json"]).stdout)
    return result


def steps(result: dict[str, Any]) -> dict[str, str | None]:
    """What was submitted: steps, and the elements of their arrays."""
    return {row["step"]: row["array"] for row in result["jobs"]}


def kill_one(name: str, element: str) -> None:
    """Kill -9 the process of an element of an array."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        for process in processes_with("SLURM_JOB_NAME", name):
            with contextlib.suppress(psutil.Error):
                if process.environ().get("SLURM_ARRAY_TASK_ID") == element and "--shard" in process.cmdline():
                    process.kill()
                    return
        time.sleep(0.05)
    raise AssertionError(f"no process of {name} was seen")


@pytest.mark.timeout(900)
def test_arrays_with_a_cancelled_element_and_a_killed_process_make_the_map_of_a_plain_run(
    small: Path, tmp_path: Path, slurm: Slurm
) -> None:
    folder = tmp_path / "the bay's 100 % map $HOME"  # what a shell or Slurm might take for something else
    recipe = write_recipe(folder)
    shutil.copytree(small / "space/stages/simulate", folder / "space/stages/simulate")

    first = submit(recipe)
    assert steps(first) == {
        "plan": None,
        "fetch": "1-3",
        "fetch_finish": None,
        "train": None,
        "predict_plan": None,
        "predict": "1-3",
        "map": None,
    }
    jobs = {row["step"]: row["job"] for row in first["jobs"]}
    twice = run_here(["submit", str(recipe), *JOB])
    assert twice.returncode == 1
    assert f"scancel {jobs['plan']}" in twice.stderr
    slurm.run("scancel", f"{jobs['fetch']}_3")  # the shard of two of the four blocks
    slurm.wait_empty(280)
    for step, ended in (("plan", "COMPLETED"), ("fetch_finish", "FAILED"), ("train", "CANCELLED")):
        assert slurm.facts(jobs[step])["JobState"] == ended, step
    said = next((folder / "space/slurm/logs").glob("fetch_finish-*.out")).read_text()
    assert "2 of 4 blocks of fetch are left (2 were not worked on)" in said
    table = status(recipe)
    (fetched,) = [row for row in table["stages"] if row["name"] == "fetch"]
    assert (fetched["done"], fetched["left"]) == (2, 2)
    assert [part["left"] for part in fetched["parts"]] == [0, 0, 2]
    assert table["next"]["command"].startswith("wetmap submit ")

    second = submit(recipe)
    assert steps(second) == {
        "fetch": "3",
        "fetch_finish": None,
        "train": None,
        "predict_plan": None,
        "predict": "1-3",
        "map": None,
    }
    kill_one("wetmap-predict", element="1")
    slurm.wait_empty(280)
    mapping = next(row["job"] for row in second["jobs"] if row["step"] == "predict")
    assert slurm.facts(f"{mapping}_1")["JobState"] == "FAILED"
    told = next((folder / "space/slurm/logs").glob("map-*.out")).read_text()
    assert "predict: 3 of 4 blocks" in told, "the block of the killed job is one of the few that closing does itself"
    assert digests(folder) == digests(small)
    assert {row["state"] for row in status(recipe)["stages"]} == {"done"}
    third = submit(recipe)
    assert (third["jobs"], third["steps"]) == ([], [])


def test_a_job_that_slurm_refuses_leaves_none_behind(small: Path, tmp_path: Path, slurm: Slurm) -> None:
    words = ["submit", str(small / "recipe.yaml"), "--partition", "nowhere", "--workspace", str(tmp_path / "new")]
    done = run_here(words)
    assert done.returncode == 1
    assert "sbatch refuses" in done.stderr
    assert "invalid partition" in done.stderr
    assert "submit again" in done.stderr
    assert not (tmp_path / "new/slurm/jobs.json").exists()
    assert slurm.jobs() == {}
