"""Job scripts: the same text for the same request, quoted, and in the right order; what is submitted again."""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from wetmap.cli.main import app
from wetmap.cluster import Workers
from wetmap.errors import SubmitError, UsageError
from wetmap.ledger import Entry, Ledger
from wetmap.recipe_cluster import Job
from wetmap.recipe_file import load_recipe
from wetmap.stages import fetch, plan, status, submit
from wetmap.stages.context import Context, Silent
from wetmap.stages.shards import LIST
from wetmap.stages.submit_scripts import STEPS, Launch, array_text, script, scripts
from wetmap.workspace import Workspace, write_json

ROOT = Path(__file__).resolve().parents[2]


def launch(folder: Path = Path("sample-wetmap"), **more: object) -> Launch:
    given: dict[str, object] = {
        "command": ("wetmap",),
        "options": ("--recipe", "pipelines/sample.yaml", "--workspace", str(folder)),
        "logs": folder / "slurm/logs",
        "shards": 4,
        "job": Job(),
    }
    return Launch(**{**given, **more})  # type: ignore[arg-type]


def step(name: str) -> int:
    return next(place for place, one in enumerate(STEPS) if one.name == name)


def words_of(text: str) -> list[str]:
    """The words of the command that a script runs."""
    return shlex.split(text[text.index("\nexec ") :].replace("\\\n", " "))[1:]


def test_the_launchers_of_the_repository_are_what_is_written_today() -> None:
    """`python -m tests.stages.write_launchers` writes them anew."""
    folder = ROOT / "pipelines/slurm"
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.sh")}
    assert found == scripts(STEPS, launch())


def test_each_step_waits_for_steps_before_it() -> None:
    for place, one in enumerate(STEPS):
        assert all(step(name) < place for name, _ in one.after)
    assert dict(STEPS[step("map")].after) == {"predict_plan": "afterok", "predict": "afterany"}


def test_a_script_of_an_array() -> None:
    text = script(STEPS[step("predict")], launch(gpus=2, job=Job(workers=3, queue="gpu", directives=["--qos=long"])))
    for line in ("#SBATCH --gres=gpu:2", "#SBATCH --cpus-per-task=1", "#SBATCH --partition=gpu", "#SBATCH --qos=long"):
        assert line in text.splitlines()
    assert "#SBATCH --time=02:00:00" in text
    assert "#SBATCH --mem=4096M" in text
    assert "set -euo pipefail" in text
    assert words_of(text)[:2] == ["wetmap", "predict"]
    assert words_of(text)[-2:] == ["--shard", "$shard/4"]
    assert "--cpus-per-task=3" in script(STEPS[step("fetch")], launch(gpus=2, job=Job(workers=3)))


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1))
@example("/")
@settings(deadline=None, max_examples=40)
def test_any_folder_reaches_the_program_as_it_is_and_runs_nothing(name: str) -> None:
    if not name.isprintable():
        with pytest.raises(UsageError, match="line breaks"):
            script(STEPS[0], launch(Path("/x") / name))
        return
    text = script(STEPS[0], launch(Path("/x") / name))
    words = words_of(text)
    assert words[words.index("--workspace") + 1] == str(Path("/x") / name)
    said = next(line for line in text.splitlines() if line.startswith("#SBATCH --output="))
    logs = str(Path("/x") / name / "slurm" / "logs").replace("%", "%%")
    assert shlex.split(said)[1:] == [f"--output={logs}/plan-%j.out"]
    for line in text.splitlines():
        assert line.startswith(("#", "set ", "export ", "exec ", "  ")) or not line


def test_a_folder_with_a_line_break_is_refused() -> None:
    with pytest.raises(UsageError, match="line breaks"):
        script(STEPS[0], launch(Path("/x/a\n#SBATCH --partition=all")))


def test_scripts_are_bash_and_ask_for_the_shard(tmp_path: Path) -> None:
    for name, text in scripts(STEPS, launch(tmp_path / "the bay's $HOME")).items():
        (tmp_path / name).write_text(text)
        subprocess.run(["bash", "-n", tmp_path / name], check=True)
    asked = subprocess.run(
        ["bash", tmp_path / "fetch.sh", "two"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert (asked.returncode, "a shard, 1 to 4" in asked.stderr) == (2, True)


@pytest.mark.parametrize(
    ("numbers", "text"), [([1, 2, 3], "1-3"), ([7], "7"), ([9, 1, 2, 3, 7, 10], "1-3,7,9-10"), ([5, 5], "5")]
)
def test_elements_of_an_array(numbers: list[int], text: str) -> None:
    assert array_text(numbers) == text
    assert array_text(numbers, 4) == f"{text}%4"


SBATCH = """#!/usr/bin/env python3
import os, sys
from pathlib import Path
calls = Path(os.environ["CALLS"])
calls.touch()
number = 100 + len(calls.read_text().splitlines())
with calls.open("a") as file:
    print(*sys.argv, file=file)
if len(os.environ.get("REFUSED", "")) and sys.argv[-1].endswith(os.environ["REFUSED"]):
    sys.exit("sbatch: error: Batch job submission failed: Invalid account")
if sys.argv[0].endswith("sbatch"):
    print(f"{number};cluster")
if sys.argv[0].endswith("squeue"):
    print(os.environ.get("QUEUE", ""))
"""


class Bin:
    """Programs of that name that write down how they were called."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = folder / "calls"
        (folder / "bin").mkdir()
        for name in ("sbatch", "squeue", "scancel"):
            path = folder / "bin" / name
            path.write_text(SBATCH)
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("CALLS", str(self.calls))

    def lines(self) -> list[str]:
        return self.calls.read_text().splitlines()


@pytest.fixture(name="slurm")
def _slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bin:
    return Bin(tmp_path, monkeypatch)


def open_context(folder: Path) -> Context:
    ring = [[-64.411, 45.897], [-64.392, 45.898], [-64.391, 45.911], [-64.412, 45.910], [-64.411, 45.897]]
    (folder / "area.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    (folder / "recipe.yaml").write_text(
        "aoi: area.geojson\nworkspace: space\nreference: simulated\n"
        "sources: {optical: {from: simulated}, radar: {from: simulated}, terrain: {from: simulated}}\n"
    )
    recipe = load_recipe(folder / "recipe.yaml")
    workers = Workers(recipe.cluster, folder / "space/.dask")
    return Context(recipe, recipe, Workspace(folder / "space").open(), workers, Silent())


def asked(shards: int = 4, **more: object) -> submit.Asked:
    return submit.Asked(shards=shards, options=("--recipe", "r.yaml"), again="wetmap submit r.yaml", **more)  # type: ignore[arg-type]


def test_all_steps_are_submitted_each_after_those_that_it_needs(tmp_path: Path, slurm: Bin) -> None:
    result = submit.run(open_context(tmp_path), asked(at_once=2))
    assert [(row["step"], row["job"], row["array"]) for row in result["jobs"]] == [
        ("plan", "100", None),
        ("fetch", "101", "1-4%2"),
        ("fetch_finish", "102", None),
        ("train", "103", None),
        ("predict_plan", "104", None),
        ("predict", "105", "1-4%2"),
        ("map", "106", None),
    ]
    assert [row["after"] for row in result["jobs"]] == [
        [],
        ["afterok:100"],
        ["afterok:100", "afterany:101"],
        ["afterok:102"],
        ["afterok:102", "afterok:103"],
        ["afterok:104"],
        ["afterok:104", "afterany:105"],
    ]
    assert all("--kill-on-invalid-dep=yes" in line for line in slurm.lines())
    said = "\n".join(submit.lines(result))
    assert "scancel 100 101 102 103 104 105 106" in said
    assert "wetmap status --workspace" in said


@pytest.mark.usefixtures("slurm")
def test_what_is_done_is_left_out(tmp_path: Path) -> None:
    context = open_context(tmp_path)
    planned = plan.folder_of(context)
    context.workspace.begin(planned, plan.asked(context))
    write_json(planned.path / "manifest.json", {"stage": "plan"})
    fetched = fetch.folder_of(context)
    context.workspace.begin(fetched, fetch.asked(context))
    names = [f"r00000c{number:05d}" for number in range(8)]
    write_json(fetched.path / LIST, {"block_px": 512, "blocks": names})
    ledger = Ledger(fetched.path / "ledger", "1of1")
    ledger.add(Entry(name, "done") for name in names if name not in names[4:7])
    ledger.add([Entry(names[4], "failed", "no answer")])
    result = submit.run(context, asked())
    assert {row["step"]: row["array"] for row in result["jobs"]} == {
        "fetch": "3-4",
        "fetch_finish": None,
        "train": None,
        "predict_plan": None,
        "predict": "1-4",
        "map": None,
    }
    assert result["jobs"][0]["after"] == []
    assert result["jobs"][1]["after"] == ["afterany:100"]


@pytest.mark.usefixtures("slurm")
def test_jobs_that_are_still_there_are_not_submitted_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = open_context(tmp_path)
    submit.run(context, asked())
    monkeypatch.setenv("QUEUE", "7\n105\n105\n106")
    with pytest.raises(SubmitError, match="scancel 105 106"):
        submit.run(context, asked())
    monkeypatch.setenv("QUEUE", "7")
    submit.run(context, asked())


def test_a_refused_job_takes_back_those_before_it(tmp_path: Path, slurm: Bin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUSED", "train.sh")
    with pytest.raises(SubmitError, match="Invalid account"):
        submit.run(open_context(tmp_path), asked())
    assert slurm.lines()[-1].endswith("scancel 100 101 102")
    assert not (tmp_path / "space/slurm/jobs.json").exists()


def test_without_slurm_the_scripts_alone_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = open_context(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="--script-only"):
        submit.run(context, asked())
    assert not (tmp_path / "space/slurm").exists()
    result = submit.run(context, asked(script_only=True))
    assert sorted(path.name for path in (tmp_path / "space/slurm").glob("*.sh")) == sorted(result["scripts"])
    assert result["jobs"] == []
    assert os.access(tmp_path / "space/slurm/submit.sh", os.X_OK)
    assert "bash" in "\n".join(submit.lines(result))


def test_the_submitting_script_does_what_the_verb_does(tmp_path: Path, slurm: Bin) -> None:
    context = open_context(tmp_path)
    result = submit.run(context, asked())
    expected = slurm.lines()
    slurm.calls.unlink()
    subprocess.run([Path(result["folder"]) / "submit.sh"], check=True, capture_output=True)
    assert slurm.lines() == expected


def test_the_job_that_trains_asks_for_what_drawing_samples_needs(tmp_path: Path) -> None:
    context = open_context(tmp_path)
    assert submit.train_memory(context, "4GiB") is None
    context.__dict__["grid"] = SimpleNamespace(height=40_000, width=39_000)  # 12 bytes each and 0.3 GB: 19.02 GB
    assert submit.train_memory(context, "4GiB") == "18GiB"
    assert submit.train_memory(context, "32GiB") is None
    text = script(STEPS[step("train")], launch(train_memory="18GiB"))
    assert f"#SBATCH --mem={18 * 1024}M" in text
    assert "#SBATCH --mem=4096M" in script(STEPS[step("fetch")], launch(train_memory="18GiB"))
    told = {"folder": "s", "scripts": [], "steps": [], "train_memory": "18GiB", "job_memory": "4GiB"}
    assert "train.sh asks for 18GiB (other jobs: 4GiB)" in "\n".join(submit.lines(told))


@pytest.mark.parametrize(
    ("said", "advised", "not_advised"),
    [
        ("invalid partition specified: lng", "--partition", "--account"),
        ("Invalid account or account/partition combination", "--account", "--mem"),
        ("Unable to contact slurm controller", "those who run the cluster", "--"),
    ],
)
def test_only_options_that_a_refusal_speaks_of_are_advised(said: str, advised: str, not_advised: str) -> None:
    told = submit._advice(said)
    assert advised in told
    assert not_advised not in told


@pytest.mark.usefixtures("slurm")
def test_scripts_that_wait_are_what_comes_next(tmp_path: Path) -> None:
    context = open_context(tmp_path)
    submit.run(context, asked(script_only=True))
    space = context.workspace
    after = status.told(space, status.status(space), ["--recipe", "r.yaml"])["next"]["command"]
    assert after == f"bash {tmp_path / 'space/slurm/submit.sh'}"
    submit.run(context, asked())
    assert status.told(space, status.status(space), [])["next"]["command"] == "wetmap submit r.yaml"
    shown = CliRunner().invoke(app, ["status", "--workspace", str(space.root), "--json"]).stdout
    assert json.loads(shown)["stages"][0]["name"] == "simulate", "the recipe is known"
    (tmp_path / "space/slurm/submit.sh").unlink()
    (tmp_path / "space/slurm/jobs.json").unlink()
    shown = CliRunner().invoke(app, ["status", "--workspace", str(space.root)]).stdout
    assert f"wetmap fetch --recipe {space.root / 'stages/recipe.yaml'} --workspace {space.root}" in shown
