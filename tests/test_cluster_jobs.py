"""Jobs of a queue, as far as they need none: scripts, times, what is printed, and what a batch system says."""

from __future__ import annotations

import importlib.metadata
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wetmap.cluster import Workers, jobs, queues
from wetmap.errors import ClusterError, RecipeError, UsageError
from wetmap.recipe import Cluster
from wetmap.recipe_cluster import LEAST_WALLTIME_S, LEAVE_S, clock_text, lifetime, parse_walltime
from wetmap.recipe_file import load_recipe

LOGS = Path("/shared/nb/job-logs")


def script(kind: str, **changes: Any) -> list[str]:
    job = {"workers": 4, "memory": "16GiB", "walltime": "2h", "queue": "standard", "account": "wetlands"}
    part = Cluster(kind=kind, threads_per_worker=2, job={**job, **changes.pop("job", {})}, **changes)
    return jobs.job_script(part, LOGS).splitlines()


@pytest.fixture(autouse=True)
def _no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in for the shared disk is not made."""
    monkeypatch.setattr(os, "makedirs", lambda *_, **__: None)


def test_a_slurm_job_asks_for_what_the_recipe_says() -> None:
    """Four workers of two threads are eight cores; workers leave at 108 of 120 minutes, give or take six."""
    lines = script("slurm", job={"directives": ["--gpus=1"], "prologue": ["module load gdal"], "interface": "ib0"})
    head = [line for line in lines if line.startswith("#SBATCH")]
    assert set(head) == {
        "#SBATCH -J wetmap",
        f"#SBATCH -e {LOGS}/wetmap-%J.err",
        f"#SBATCH -o {LOGS}/wetmap-%J.out",
        "#SBATCH -p standard",
        "#SBATCH -A wetlands",
        "#SBATCH -n 1",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --mem=16G",
        "#SBATCH -t 02:00:00",
        "#SBATCH --gpus=1",
    }
    assert "module load gdal" in lines
    assert 'export DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON=\'{"OMP_NUM_THREADS": "2"' in "\n".join(lines)
    start = lines[-1]
    assert "dask_worker tcp://HOST:PORT" in start
    for words in ("--nworkers 4", "--nthreads 4", "--memory-limit 4.00GiB", "--interface ib0", "--no-dashboard"):
        assert words in start
    assert "--lifetime 6480s --lifetime-stagger 360s" in start


def test_a_pbs_job() -> None:
    lines = script("pbs", job={"scratch": "$TMPDIR/wetmap"})
    assert "#PBS -l select=1:ncpus=8:mem=16384MB" in lines
    assert "#PBS -l walltime=02:00:00" in lines
    assert "#PBS -q standard" in lines
    assert "#PBS -A wetlands" in lines
    assert "--local-directory $TMPDIR/wetmap" in lines[-1], "the node's shell fills it in"


def test_an_sge_job_asks_for_slots_and_for_the_memory_of_each() -> None:
    lines = script("sge", job={"directives": ["-l ssd=1"]})
    assert "#$ -pe smp 8" in lines
    assert "#$ -l h_vmem=2048M" in lines
    assert "#$ -l ssd=1" in lines
    assert "#$ -l h_rt=02:00:00" in lines
    assert "#$ -P wetlands" in lines
    one = script("sge", job={"workers": 1}, fetch_at_once=9)
    assert "--nthreads 9" in one[-1]


def test_threads_for_tasks_are_what_any_stage_needs() -> None:
    assert jobs.threads_of(Cluster(kind="slurm")) == 2, "predict has two blocks in hand"
    assert jobs.threads_of(Cluster(kind="slurm", threads_per_worker=4)) == 8
    assert jobs.threads_of(Cluster(kind="slurm", fetch_at_once=12)) == 12
    assert "--nthreads 12" in script("slurm", fetch_at_once=12)[-1]


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("queue", "a; rm -rf x"),
        ("account", "a\n#SBATCH -N 99"),
        ("interface", "$(x)"),
        ("scratch", "a b"),
        ("python", "/a/b c"),
        ("directives", ["--mem=1\nrm x"]),
        ("prologue", ["a\rb"]),
        ("memory", "much"),
        ("walltime", "soon"),
        ("walltime", "4m"),
        ("walltime", "50k-px-per-s"),
        ("workers", 0),
        ("port", 70000),
    ],
)
def test_what_would_break_a_job_script_is_refused(part: str, value: object) -> None:
    with pytest.raises(RecipeError, match=rf"cluster\.job\.{part}|--{part}"):
        load_recipe(None, {"cluster.job": {part: value}})


def test_a_folder_that_a_job_script_cannot_name_is_refused() -> None:
    with pytest.raises(UsageError, match=r"/my maps/logs: it has a space .* cluster\.job\.logs"):
        jobs.options(Cluster(kind="slurm"), Path("/my maps/logs"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90m", 5400),
        ("1d12h", 129600),
        ("02:00:00", 7200),
        ("2:30", 9000),
        ("1-00:00:00", 86400),
        (" 100:00:01 ", 360001),
        ("5m", 300),
    ],
)
def test_walltimes_are_read_as_people_and_queues_write_them(text: str, seconds: int) -> None:
    assert parse_walltime(text) == seconds


def test_a_walltime_is_written_for_the_queue() -> None:
    assert clock_text(7200) == "02:00:00"
    assert clock_text(360001) == "100:00:01"
    assert parse_walltime(clock_text(5400)) == 5400


def test_an_hour_and_five_minutes() -> None:
    assert lifetime(3600) == (3600 - 180 - 180, 180)
    assert lifetime(300) == (165, 15)


@settings(deadline=None, max_examples=50)
@given(st.integers(LEAST_WALLTIME_S, 30 * 86400))
def test_every_worker_leaves_in_time_and_has_some_to_work(walltime_s: int) -> None:
    leave, stagger = lifetime(walltime_s)
    assert leave + stagger <= walltime_s - LEAVE_S
    assert leave - stagger >= walltime_s * 0.5 - 1
    assert 0 < stagger <= walltime_s * 0.05


@pytest.mark.parametrize("kind", ["local", "slurm", "pbs", "sge", "tcp://node-1.cluster.org:8786", "tls://[fe80::1]:1"])
def test_places_to_work_at(kind: str) -> None:
    assert Cluster(kind=kind).kind == kind


@pytest.mark.parametrize(
    "kind", ["", "Slurm", "node:8786", "tcp://node", "tcp://a b:1", "http://node:8786", "tcp://;:1"]
)
def test_other_places_are_refused_with_the_flag_and_the_choices(kind: str) -> None:
    with pytest.raises(RecipeError, match=r"--cluster: cluster\.kind: .* is no place to work at; write one of local, "):
        load_recipe(None, {"cluster.kind": kind})


def test_jobs_hold_all_workers() -> None:
    part = Cluster(kind="slurm", workers=10, job={"workers": 4})
    assert (part.jobs, part.fewest_jobs) == (3, 3)
    assert Cluster(kind="slurm", workers=10, minimum_workers=2, job={"workers": 4}).fewest_jobs == 1
    assert Cluster(kind="slurm", workers=10, minimum_workers=99, job={"workers": 4}).fewest_jobs == 3
    assert (Cluster(kind="slurm").jobs, Cluster(kind="slurm", job={"workers": 4}).jobs) == (1, 1)


def test_workers_of_jobs_are_counted_without_submitting_any(tmp_path: Path) -> None:
    assert Workers(Cluster(kind="slurm", workers=10), tmp_path).count == 10
    assert Workers(Cluster(kind="pbs", job={"workers": 4}), tmp_path).count == 4, "those of one job"
    part = Cluster(kind="sge", memory="1GiB", job={"workers": 4, "memory": "10GB"})
    assert Workers(part, tmp_path).memory is None, "that is of this machine"
    assert Workers(part, tmp_path).worker_memory == 2_000_000_000, "a quarter of the job's, less a fifth"
    assert Workers(Cluster(memory="1GiB"), tmp_path).worker_memory is None


def test_imagery_is_fetched_in_threads() -> None:
    assert Workers(Cluster(workers=3, threads_per_worker=2), Path()).fetch_pace() == (6, 1)
    assert Workers(Cluster(kind="slurm", workers=3, threads_per_worker=2), Path()).fetch_pace() == (4, None)
    assert Workers(Cluster(kind="slurm", workers=3, fetch_at_once=8), Path()).fetch_pace() == (8, None)


def test_without_its_command_a_queue_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        Workers(Cluster(kind="pbs"), tmp_path) as workers,
        pytest.raises(ClusterError, match=r"there is no qsub on this machine\. Run the command where jobs"),
    ):
        list(workers.stream(len, ["x"]))
    assert not list(tmp_path.iterdir())


def test_without_the_library_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(jobs.importlib, "import_module", missing)
    with (
        Workers(Cluster(kind="slurm"), tmp_path) as workers,
        pytest.raises(
            ClusterError, match=r"dask-jobqueue is not installed\. Install it: pip install 'wetmap\[cluster\]'"
        ),
    ):
        list(workers.stream(len, ["x"]))


def test_nobody_is_asked_to_come_for_nothing(tmp_path: Path) -> None:
    with Workers(Cluster(kind="tcp://127.0.0.1:9"), tmp_path) as workers:
        assert list(workers.stream(len, [])) == []


def fake(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


SLURM_LIST = "cat <<END\n12 RUNNING None\n13 PENDING Resources\n99 RUNNING None\nEND"
PBS_LIST = """cat <<END

pbs01:
                                                            Req'd  Req'd   Elap
Job ID          Username Queue    Jobname    SessID NDS TSK Memory Time  S Time
--------------- -------- -------- ---------- ------ --- --- ------ ----- - -----
12.pbs01        ann      standard wetmap        --    1   1    4gb 02:00 Q   --
END"""


@pytest.mark.parametrize(
    ("kind", "program", "text", "found"),
    [
        ("slurm", "squeue", SLURM_LIST, {"12": "RUNNING None", "13": "PENDING Resources"}),
        ("pbs", "qstat", PBS_LIST, {"12": "ann standard wetmap"}),
        ("sge", "qstat", "echo '     13 0.5 wetmap ann qw 11/23/2026 07:00:00 1'", {"13": "0.5 wetmap ann qw"}),
        ("sge", "qstat", "exit 0", {}),
        ("slurm", "squeue", "exit 1", None),
    ],
)
def test_which_jobs_wait_or_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, program: str, text: str, found: dict[str, str] | None
) -> None:
    fake(tmp_path, program, text)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    said = queues.waiting_or_running(kind, {"12", "13", "14"})
    if found is None or said is None:
        assert said is found
    else:
        assert said.keys() == found.keys()
        assert all(said[number].startswith(words) for number, words in found.items())


def test_jobs_are_cancelled_when_the_process_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, "scancel", f"echo $* > {tmp_path}/told")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    started: list[subprocess.Popen[bytes]] = []
    begin = subprocess.Popen
    monkeypatch.setattr(queues.subprocess, "Popen", lambda *a, **k: started.append(begin(*a, **k)))
    queues.remember("slurm", {"7", "8"})
    queues.cancel_submitted()
    queues.forget("slurm")
    queues.cancel_submitted()
    (child,) = started
    child.wait(10)
    assert (tmp_path / "told").read_text() == "7 8\n"


def test_words_about_jobs(tmp_path: Path) -> None:
    assert jobs.numbers_text({"12", "13", "14", "20", "9"}) == "9, 12-14, 20"
    assert jobs.numbers_text(set()) == "none"
    assert jobs.states_text({"1": "RUNNING None", "2": "PENDING Priority", "3": "RUNNING None"}) == (
        "1 PENDING Priority, 2 RUNNING"
    )
    assert jobs.states_text(None) == "nothing, it does not answer"
    assert jobs.last_words(tmp_path / "none") == ""
    (tmp_path / "wetmap-1.err").write_text("first\nslurmstepd: error: Exceeded memory limit\n\n")
    assert jobs.last_words(tmp_path) == "wetmap-1.err: slurmstepd: error: Exceeded memory limit"
    text = "Command exited with non-zero exit code.\nExit code: 1\nstdout:\n\nstderr:\nsbatch: error: no such queue\n\n"
    assert jobs.refused_because(text) == "no such queue"
    assert jobs.refused_because("") == "it gives no reason"


def test_the_doctor_says_which_clusters_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wetmap.cli.doctor import clusters

    for program in ("sbatch", "scancel", "qsub"):
        fake(tmp_path, program, "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert clusters() == {
        "local": "yes",
        "tcp://...": "yes",
        "slurm": f"yes ({tmp_path}/sbatch)",
        "pbs": "no: there is no qdel",
        "sge": "no: there is no qdel",
    }
    monkeypatch.setattr("wetmap.cli.doctor.importlib.metadata.version", missing)
    assert clusters()["slurm"] == "no: dask-jobqueue is not installed (pip install 'wetmap[cluster]')"
    assert clusters()["pbs"].startswith("no: there is no qdel and dask-jobqueue is not installed")


def missing(name: str) -> str:
    raise importlib.metadata.PackageNotFoundError(name)
