"""What the site needs beyond the pages as they lie here (`hooks:` of mkdocs.yml).

On GitHub, and in an editor, pages link to files of the project, and CHANGELOG.md lies at the root. On the site such
links would lead nowhere: they become the file's path, and the changelog becomes a page.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
#: What a page may not load from elsewhere: scripts, styles, pictures, fonts, frames. Links are for readers to follow.
LOADS = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*?(?:src|data)=["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|<link\b(?=[^>]*rel=["']?(?:stylesheet|preload|preconnect|icon|modulepreload|dns-prefetch))[^>]*?href=["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|(?:@import\s+|url\()["']?((?:https?:)?//[^"'\s)]+)"""
)
#: A link whose target is relative: text, target.
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])+)\]\((\.\./[^)\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the changelog, which lies beside README.md, as a page."""
    files.append(File.generated(config, "changelog.md", content=(ROOT / "CHANGELOG.md").read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links to files outside docs/ into their paths."""

    def path_instead(link: re.Match[str]) -> str:
        text, target = link.groups()
        folder = posixpath.join("docs", posixpath.dirname(page.file.src_uri))
        path = posixpath.normpath(posixpath.join(folder, target.partition("#")[0]))
        if path == "CHANGELOG.md":
            return f"[{text}]({posixpath.relpath('docs/changelog.md', folder)})"
        if path.startswith("docs/"):
            return link[0]
        return text if path in text else f"{text} (`{path}`)"

    return LINK.sub(path_instead, markdown)


def on_post_build(config: Any) -> None:
    """Refuse a site that would load anything from another host."""
    site = Path(config.site_dir)
    found = [
        f"{file.relative_to(site)}: {address}"
        for file in sorted(site.rglob("*"))
        if file.suffix in {".html", ".css"}
        for address in loads(file.read_text(encoding="utf-8"))
    ]
    if found:
        raise PluginError(f"The site would load from elsewhere: {'; '.join(found[:5])}")


def loads(text: str) -> list[str]:
    """Addresses on other hosts that a page or a style would load by itself."""
    return [next(part for part in match if part) for match in LOADS.findall(text)]
