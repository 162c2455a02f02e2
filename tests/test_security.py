"""What docs/explanation/security.md says, held against the code, where no other test does."""

from __future__ import annotations

import ast
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from wetmap.cluster import local
from wetmap.recipe import Job
from wetmap.sources.reader import _remote_format
from wetmap.yaml_text import _Careful, read_yaml

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "wetmap").rglob("*.py"))
#: Modules that make objects of what a file says.
PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}
#: Where PyTorch's restricted reader is used, and the name of its error.
CHECKPOINTS = "exchange/foreign.py"


def nodes() -> Iterator[tuple[str, ast.AST]]:
    """Every piece of wetmap's code, with its file."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            yield path.relative_to(ROOT / "wetmap").as_posix(), node


NODES = list(nodes())


def calls(*names: str) -> list[tuple[str, ast.Call]]:
    """Calls of functions, by the ends of their dotted names."""
    found = [(file, node) for file, node in NODES if isinstance(node, ast.Call)]
    return [
        (file, node) for file, node in found if f".{ast.unparse(node.func)}".endswith(tuple(f".{n}" for n in names))
    ]


def said(call: ast.Call) -> dict[str, str]:
    """Arguments of a call that are given by name."""
    return {word.arg: ast.unparse(word.value) for word in call.keywords if word.arg}


def test_nothing_is_unpickled() -> None:
    found = []
    for file, node in NODES:
        if isinstance(node, ast.Import):
            found += [(file, name.name, "") for name in node.names if name.name.partition(".")[0] in PICKLES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in PICKLES:
            found += [(file, str(node.module), name.name) for name in node.names]
    assert found == [(CHECKPOINTS, "pickle", "UnpicklingError")]


def test_checkpoints_are_read_in_one_place_and_weights_alone() -> None:
    found = [(file, said(call).get("weights_only")) for file, call in calls("torch.load", "serialization.load")]
    assert found == [(CHECKPOINTS, "True")]
    assert not calls("jit.load", "load_from_checkpoint", "torch.package", "hub.load")


def test_arrays_hold_no_objects() -> None:
    assert not [
        (file, ast.unparse(call)) for file, call in calls("np.load") if said(call).get("allow_pickle") == "True"
    ]
    assert not [file for file, node in NODES if isinstance(node, ast.keyword) and node.arg == "allow_pickle"
                and ast.unparse(node.value) != "False"]  # fmt: skip


def test_yaml_is_plain_data() -> None:
    """The loader of recipes is PyYAML's safe one; packaged tables are read with it as it is."""
    assert not calls("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all")
    assert {file for file, _ in calls("yaml.safe_load")} <= {"classes.py", "crosswalk.py"}
    assert issubclass(_Careful, yaml.SafeLoader)
    own = set(_Careful.yaml_constructors.items()) ^ set(yaml.SafeLoader.yaml_constructors.items())
    assert {tag.rpartition(":")[2] for tag, _ in own} == {"str", "int", "timestamp"}
    with pytest.raises(yaml.YAMLError):
        read_yaml("!!python/name:os.system")


def test_no_text_is_run_as_code() -> None:
    assert not [file for file, call in calls("eval", "exec", "compile") if isinstance(call.func, ast.Name)]
    assert not calls("os.system", "os.popen", "getoutput")
    assert not [file for file, call in calls("run", "Popen", "check_output", "call") if "shell" in said(call)]


def test_pages_are_escaped() -> None:
    """Templates escape what they show; what is put in as it is is ours."""
    (made,) = calls("jinja2.Environment")
    assert said(made[1])["autoescape"] == "True"
    marked = [file for file, node in NODES if isinstance(node, ast.Name) and node.id == "Markup"]
    for template in (ROOT / "wetmap" / "report").glob("*.html"):
        assert "autoescape false" not in template.read_text(encoding="utf-8")
    assert set(marked) <= {"report/viewer.py"}


def test_schedulers_of_this_machine_listen_to_it_alone(tmp_path: Path) -> None:
    """Every port that this process and its workers have opened; the dashboard's too, if there is one."""
    crew = local.start(tmp_path, 1, 1, 1)
    try:
        me = psutil.Process()
        ports = [one for process in (me, *me.children(recursive=True)) for one in process.net_connections("inet")]
    finally:
        crew.stack.close()
    listening = {one.laddr.ip for one in ports if one.status == psutil.CONN_LISTEN}
    assert listening
    assert listening <= {"127.0.0.1", "::1"}


def test_jobs_are_let_in_by_certificate_unless_the_recipe_says_otherwise() -> None:
    assert Job().encrypted


def test_remote_images_are_of_two_formats() -> None:
    for link in (
        "https://x.org/a.tif",
        "s3://b/a.jp2",
        "https://x.org/a.vrt",
        "https://x.org/a.xml?x=.tif",
        "s3://b/a",
    ):
        assert _remote_format(link) in {"GTiff", "JP2OpenJPEG"}


class TestHashes:
    """hashes.txt beside constraints.txt."""

    def test_every_pinned_version_has_hashes(self, tmp_path: Path) -> None:
        for name in (".ci/lock.py", "constraints.txt", "hashes.txt"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
        words = [sys.executable, tmp_path / ".ci/lock.py", "--check"]
        assert subprocess.run(words, check=False).returncode == 0
        pins = tmp_path / "constraints.txt"
        pins.write_text(pins.read_text().replace("affine==3.0.1", "affine==3.0.2"))
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        assert done.returncode == 1
        assert "differ: affine" in done.stderr
        blocks = (ROOT / "hashes.txt").read_text().split("==")[1:]
        assert all("--hash=sha256:" in block for block in blocks)

    def test_a_file_belongs_to_its_version_and_to_a_python_that_wetmap_runs_on(self) -> None:
        fits = runpy.run_path(str(ROOT / ".ci/lock.py"))["fits"]
        for name, belongs in {
            "numpy-2.1.0-cp311-cp311-manylinux_2_17_x86_64.whl": True,
            "numpy-2.1.0-cp310-cp310-manylinux_2_17_x86_64.whl": False,
            "numpy-2.1.0-cp314-cp314t-macosx_11_0_arm64.whl": False,
            "numpy-2.1.0-cp39-abi3-win_amd64.whl": True,
            "numpy-2.1.0-py2.py3-none-any.whl": True,
            "numpy-2.1.0.tar.gz": True,
            "numpy-2.1.0rc1.tar.gz": False,
            "numpy-2.10-py3-none-any.whl": False,
            "numpy_more-2.1.0.tar.gz": False,
        }.items():
            assert fits(name, "numpy", "2.1.0") is belongs, name
