"""What the site does beyond the pages: links out of docs/, the changelog, and no load from another host."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mkdocs.exceptions import PluginError

from tests.docs_pages import ROOT


@pytest.fixture(scope="module")
def hooks() -> Any:
    place = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs/site_hooks.py")
    assert place is not None
    assert place.loader is not None
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("page", "link", "on_the_site"),
    [
        ("how-to/x.md", "[`pipelines/a.yaml`](../../pipelines/a.yaml)", "`pipelines/a.yaml`"),
        ("how-to/x.md", "[a recipe](../../pipelines/a.yaml#top)", "a recipe (`pipelines/a.yaml`)"),
        ("how-to/x.md", "[STAC](../sources/stac.md)", "[STAC](../sources/stac.md)"),
        ("how-to/x.md", "![a picture](../pictures/a.png)", "![a picture](../pictures/a.png)"),
        ("index.md", "[Changes](../CHANGELOG.md)", "[Changes](changelog.md)"),
        ("how-to/x.md", "[Changes](../../CHANGELOG.md)", "[Changes](../changelog.md)"),
    ],
)
def test_links_out_of_the_pages(hooks: Any, page: str, link: str, on_the_site: str) -> None:
    at = SimpleNamespace(file=SimpleNamespace(src_uri=page))
    assert hooks.on_page_markdown(f"See {link}, and on.", page=at) == f"See {on_the_site}, and on."


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example.org/x.js"></script>',
        "<img alt=x src='//example.org/a.png'>",
        '<link href="https://fonts.example.org/css?family=A" rel="stylesheet">',
        '<link rel=preconnect href="https://fonts.example.org">',
        "@import 'https://example.org/a.css';",
        "a { background: url(https://example.org/a.png) }",
    ],
)
def test_a_load_from_elsewhere_is_refused(hooks: Any, text: str, tmp_path: Path) -> None:
    assert len(hooks.loads(text)) == 1
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/page.html").write_text(text, encoding="utf-8")
    with pytest.raises(PluginError, match=r"deep/page.html: .*example.org"):
        hooks.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))


def test_links_for_readers_are_no_load(hooks: Any, tmp_path: Path) -> None:
    text = '<a href="https://example.org">x</a><link rel="canonical" href="https://example.org/"><img src="a.png">'
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    hooks.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))


def test_the_site_builds_strictly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every page has a place, every link and anchor leads somewhere, nothing is loaded from another host."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("mkdocs").addHandler(handler)
    try:
        config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=False)
        build(config)
    finally:
        logging.getLogger("mkdocs").removeHandler(handler)
    assert said == []
    assert (tmp_path / "site/changelog.html").exists()
    assert not list((tmp_path / "site").rglob("*.py"))
