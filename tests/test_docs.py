"""What the pages say exists: recipes load, links lead somewhere, commands parse, modules are there."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from tests.docs_pages import PAGE_IDS, PAGES, ROOT, TERMINAL, Fence, fences, prose
from wetmap.cli.main import app
from wetmap.recipe_file import load_recipe

COMMAND = get_command(app)
#: How pages call the programme.
PREFIXES = (".venv/bin/wetmap", "wetmap")
#: Top-level folders of the project; a page that names a path in one of them means a file of the project.
FOLDERS = ("wetmap", "tests", "docs", "pipelines", "aoi", "benchmarks")
#: Endings that tell a file name (wetmap.yaml) from a dotted module (wetmap.bundle).
FILE_ENDINGS = ("yaml", "json", "md")
#: At most so many blocks of all pages are left out by the test that runs them (tests/walk/test_page_blocks.py).
NOT_RUN = 12

each_page = pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)


BLOCKS = [fence for page in PAGES for fence in fences(page)]
RECIPES = [fence for fence in BLOCKS if fence.language == "yaml"]


def command_lines(text: str) -> Iterator[str]:
    """Lines that call wetmap, without prompt, variables before it, comment and what comes after a pipe."""
    for line in text.replace("\\\n", " ").splitlines():
        words = re.sub(r"^(\$ +)?([A-Z_]+=\S+ +)*", "", line.strip())
        if words.startswith(tuple(f"{prefix} " for prefix in PREFIXES)):
            yield re.split(r"\s+(?:#|\||>|2>|&&)", words.partition(" ")[2].strip())[0]


def walk(words: list[str]) -> tuple[object, list[str]]:
    """The verb that a command line reaches, and the words left for it."""
    command, rest = COMMAND, [word for word in words if word != "--debug"]
    while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"there is no verb {rest[0]!r}"
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def options_of(command: object) -> set[str]:
    """Every option of a verb, as ``wetmap VERB --help`` lists them."""
    return {"--help"} | {name for row in command.params for name in row.opts if name.startswith("-")}  # type: ignore[attr-defined]


def parse(line: str) -> None:
    """Parse a command line as the program would, without running it."""
    command, rest = walk(shlex.split(line))
    assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= options_of(command), line
    if not {"--help", "--version", "--show-completion", "--install-completion"} & set(rest):
        command.make_context("wetmap", rest)  # type: ignore[attr-defined]


def heading_anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"(?m)^#+ +(.*)$", prose(page))
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


def missing_links(page: Path) -> list[str]:
    """Relative links of a page that lead to no file, or to no heading of it."""
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in heading_anchors(file)):
            missing.append(target)
    return missing


def missing_paths(text: str) -> list[str]:
    """Paths of the project (``wetmap/cube.py``) and dotted modules (``wetmap.bundle``) that do not exist."""
    paths = re.findall(rf"(?<![\w/.~-])(?:{'|'.join(FOLDERS)})/[\w./-]+", text)
    missing = [path for path in paths if not (ROOT / path.rstrip("./")).exists()]
    names = re.findall(r"(?<![\w/.-])wetmap(?:\.[A-Za-z_]\w*)+", text)
    return missing + [
        name for name in names if name.rpartition(".")[2] not in FILE_ENDINGS and not _module_or_name(name)
    ]


def _module_or_name(dotted: str) -> bool:
    """Whether a dotted name is a module, or a top-level name of one."""
    parts = dotted.split(".")
    folder = ROOT.joinpath(*parts)
    if folder.is_dir() or folder.with_suffix(".py").exists():
        return True
    parent = ROOT.joinpath(*parts[:-1])
    file = parent / "__init__.py" if parent.is_dir() else parent.with_suffix(".py")
    return file.exists() and parts[-1] in _top_level_names(file)


def _top_level_names(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


@pytest.mark.parametrize("fence", RECIPES, ids=[fence.name for fence in RECIPES])
def test_every_recipe_loads(fence: Fence, tmp_path: Path) -> None:
    data = yaml.safe_load(fence.text)
    assert isinstance(data, dict)
    assert data
    path = tmp_path / "recipe.yaml"
    path.write_text(fence.text, encoding="utf-8")
    load_recipe(path)


def test_the_parts_of_the_recipes_page_fit_together(tmp_path: Path) -> None:
    whole: dict[str, object] = {}
    for fence in fences(ROOT / "docs/how-to/recipes.md"):
        if fence.language == "yaml":
            whole |= yaml.safe_load(fence.text)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(whole), encoding="utf-8")
    recipe = load_recipe(path)
    assert len(recipe.seasons) == 3
    assert len(recipe.classes) == 5


@each_page
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    assert missing_links(page) == []


@each_page
def test_every_command_line_parses(page: Path) -> None:
    for fence in fences(page):
        if fence.language != "python":
            for line in command_lines(fence.text):
                parse(line)


@each_page
def test_every_command_in_the_text_names_verbs_and_options_that_exist(page: Path) -> None:
    for span in re.findall(r"`(wetmap [^`]+)`", prose(page)):
        if set(span) & set("|<>"):
            continue
        command, rest = walk(shlex.split(span)[1:])
        assert {word for word in rest if word.startswith("--")} <= options_of(command), span


@each_page
def test_every_path_and_module_exists(page: Path) -> None:
    assert missing_paths(page.read_text(encoding="utf-8")) == []


@each_page
def test_every_name_imported_in_an_example_exists(page: Path) -> None:
    for fence in fences(page):
        for node in ast.walk(ast.parse(fence.text)) if fence.language == "python" else ():
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wetmap"):
                for alias in node.names:
                    assert _module_or_name(f"{node.module}.{alias.name}"), f"{fence.name}: {alias.name}"


def test_the_contents_list_every_page() -> None:
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    pages = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    unlisted = {str(path) for path in pages if path.parts[0] != "decisions" and f"({path})" not in index}
    assert unlisted == {"index.md"}


@pytest.mark.parametrize(
    "line", ["fetsh --aoi a.geojson", "recipe shw", "fetch --area a.geojson", "run", "train --epochs x"]
)
def test_the_checks_of_commands_refuse_nonsense(line: str) -> None:
    with pytest.raises(Exception, match=r"verb|area|Missing|valid"):
        parse(line)


def test_the_checks_of_names_refuse_nonsense(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("See [this](none.md), [that](#none), [it](#it) and [them](https://example.org).\n\n## It\n")
    assert missing_links(page) == ["none.md", "#none"]
    text = (
        "`wetmap/nothing.py`, `wetmap.nothing`, wetmap.bundle.load_bundle, wetmap/cube.py, nb-wetmap/map/, wetmap.yaml"
    )
    assert missing_paths(text) == ["wetmap/nothing.py", "wetmap.nothing"]
    assert list(command_lines("$ OMP_NUM_THREADS=1 wetmap run a.yaml \\\n  --json | jq .  # x\nls\n")) == [
        "run a.yaml    --json"
    ]


def test_the_nav_of_the_site_has_a_place_for_every_page() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    placed = [page for part in site["nav"] for page in _pages_of(part)]
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(set(placed)) == sorted(pages | {"changelog.md"}), "write the page into `nav:` of mkdocs.yml"


def _pages_of(part: object) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, dict):
        for inner in part.values():
            yield from _pages_of(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _pages_of(inner)


@pytest.mark.parametrize("file", ["recipe.md", "cli.md"])
def test_the_reference_pages_are_what_the_script_writes(file: str) -> None:
    script = importlib.util.spec_from_file_location("make_reference", ROOT / "docs/make_reference.py")
    assert script is not None
    assert script.loader is not None
    module = importlib.util.module_from_spec(script)
    script.loader.exec_module(module)
    made, kept = module.PAGES[file](), (ROOT / "docs/reference" / file).read_text(encoding="utf-8")
    assert made == kept, f"docs/reference/{file} is out of date. Run `make reference` ({module.COMMAND})"


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    left_out = [fence for fence in BLOCKS if fence.not_run is not None]
    assert len(left_out) <= NOT_RUN, [f"{fence.name}: {fence.not_run}" for fence in left_out]
    assert all(len(str(fence.not_run)) > 10 for fence in left_out)


@pytest.mark.parametrize("fence", [fence for fence in BLOCKS if fence.not_run], ids=lambda fence: fence.name)
def test_blocks_that_are_not_run_can_be_read_by_bash_and_by_the_scripts_they_call(
    fence: Fence, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fence.language in TERMINAL, f"{fence.name}: only lines for a terminal may be left out"
    subprocess.run(["bash", "-n"], input=fence.text, text=True, check=True, timeout=10)
    for line in fence.text.replace("\\\n", " ").splitlines():
        words = shlex.split(re.sub(r"^([A-Z_]+=\S+ +)*", "", line), comments=True)
        if words[:1] == ["python"] and words[1].startswith("benchmarks/"):
            _parse_script(ROOT / words[1], words[2:], monkeypatch)


class _ParsedError(Exception):
    """The arguments were understood."""


def _parse_script(script: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script up to where it has parsed its arguments."""
    before = argparse.ArgumentParser.parse_args

    def parse(self: argparse.ArgumentParser, given: list[str] | None = None, space: Any = None) -> None:
        before(self, given, space)
        raise _ParsedError

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse)
        patch.setattr(sys, "argv", [str(script), *words])
        patch.syspath_prepend(str(script.parent))
        with pytest.raises(_ParsedError):
            runpy.run_path(str(script), run_name="__main__")
