"""A real browser without a screen: pages are opened as files, and every request and every message is written down."""

from __future__ import annotations

import contextlib
import functools
import io
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: What distributions call it.
NAMES = ("chromium", "chromium-browser", "google-chrome")
#: Milliseconds that anything on a page may take.
PATIENCE_MS = 20_000


@functools.cache
def chromium_missing() -> str | None:
    """Why Chromium cannot be used here, or None."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        return "there is no Chromium; apt-get install chromium"
    try:
        import playwright  # noqa: F401 - looked for, not used
    except ImportError:
        return "the Python package playwright is missing"
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=60)
    except (subprocess.TimeoutExpired, OSError) as error:
        return f"{program} does not start ({error})"
    return None if done.returncode == 0 else f"{program} --version fails ({done.stderr.strip()})"


@contextlib.contextmanager
def started() -> Iterator[Any]:
    """The browser; it can reach nothing, not even a name server."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, NAMES)))
    flags = ["--no-sandbox", "--disable-gpu", "--force-color-profile=srgb", "--host-resolver-rules=MAP * ~NOTFOUND"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, headless=True, args=flags)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A page that is open, and what happened on it."""

    page: Any
    """The page, as playwright has it."""
    requests: list[str] = field(default_factory=list)
    """Addresses that the page asked for, itself among them; of data in the page only the beginning."""
    messages: list[str] = field(default_factory=list)
    """What its console said, and errors of its scripts."""

    def canvas(self) -> NDArray[np.uint8]:
        """What the map shows, (height, width, 3), CSS pixels, without buttons, scale and marks that lie over it."""
        self.settle()
        over = ".viewer-buttons, .viewer-stage > :not(canvas) { visibility: hidden !important; }"
        return picture(self.page.locator("#viewer-canvas").screenshot(style=over))

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def text(self, selector: str) -> str:
        """The text that an element shows."""
        found: str = self.page.locator(selector).inner_text()
        return found

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)
        self.settle()


@contextlib.contextmanager
def visit(browser: Any, path: Path, **options: Any) -> Iterator[Visit]:
    """Open a file in a window of its own.

    Args:
        browser: As `started` gives it.
        path: The page.
        options: Of the window, as playwright has them: ``viewport``, ``java_script_enabled``, ``has_touch`` ...
    """
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "offline": True, **options})
    try:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        seen = Visit(page)
        context.on("request", lambda request: seen.requests.append(request.url[:200]))
        page.on("console", lambda message: seen.messages.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: seen.messages.append(f"error: {error}"))
        page.goto(path.as_uri())
        yield seen
    finally:
        context.close()


def picture(png: bytes) -> NDArray[np.uint8]:
    """A screenshot as colours, (height, width, 3)."""
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


#: Text whose contrast with what lies behind is too small, by WCAG 2.2, success criterion 1.4.3 (4.5, or 3 for large
#: text; disabled controls are exempt): (text, ratio). Behind a text lie the backgrounds of the elements around it.
LOW_CONTRAST = """() => {
  const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return [n[0], n[1], n[2], n[3] ?? 1]; };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat([1]);
  const behind = (node) => {
    const stack = [];
    for (let at = node; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour[3] > 0) stack.push(colour);
      if (colour[3] === 1) break;
    }
    return stack.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const light = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const node = walker.currentNode.parentElement;
    if (!text || !node.checkVisibility() || node.closest("script, style, :disabled, svg")) continue;
    const style = getComputedStyle(node);
    const back = behind(node);
    const [one, other] = [light(over(parse(style.color), back)), light(back)].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    const px = parseFloat(style.fontSize);
    const large = px >= 24 || (px >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push([text.slice(0, 60), ratio]);
  }
  return found;
}"""
