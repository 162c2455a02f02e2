"""Take the pictures of QGIS and of the report that the documentation shows, of a simulated map.

    .venv/bin/python docs/make_pictures.py

Needs QGIS with its window and a screen for it that is none (Debian: ``apt-get install --no-install-recommends qgis
python3-qgis qgis-providers xvfb xauth``), a Chromium, and the development environment. Makes the map of
pipelines/sample.yaml with every layer first, in about three minutes; ``--map`` takes a map's folder that is there
already. Pictures that cannot be taken are named, and the old ones stay.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from scipy.spatial import cKDTree

from wetmap.products.sample_file import read_design

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs/pictures"
#: What runs inside QGIS.
INSIDE = Path(__file__).with_name("pictures_in_qgis.py")
QGIS = ("qgis-map.png", "qgis-legend.png", "qgis-form.png")
#: Width and height of the window, CSS pixels, its scale, and whether it is a phone.
PAGES = {"report.png": (1280, 1500, 1, False), "report-phone.png": (390, 844, 2, True)}
#: Largest file, bytes.
MOST = 300_000
#: Colours that a picture with few colours keeps exactly.
EXACT = 192
#: The screen that is none: wider than the window.
SCREEN = "-screen 0 1600x1000x24"
#: Most seconds that QGIS may take.
QGIS_S = 240
#: Points of the sample that are filled before its picture is taken, and the one whose form is shown.
FILLED, FORM_OF = 12, 13

say = logging.getLogger("make_pictures")


def make_map(folder: Path) -> Path:
    """Make the sample's map with every layer, and give its folder."""
    recipe = yaml.safe_load((ROOT / "pipelines/sample.yaml").read_text(encoding="utf-8"))
    recipe |= {
        "aoi": str(ROOT / "aoi/sample.geojson"),
        "workspace": str(folder / "sample-wetmap"),
        "products": {"probabilities": True, "entropy": True, "clear_count": True, "applicability": True},
        "postprocess": {"polygons": True},
    }
    path = folder / "sample.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    wetmap("run", path)
    return folder / "sample-wetmap/map"


def make_sample(map_folder: Path, folder: Path) -> Path:
    """Draw a sample of the map, and fill the first points with the map's own classes: a picture, no assessment."""
    import sqlite3

    path = folder / "sample.gpkg"
    wetmap("sample", "--map", map_folder / "classes.tif", "--units", 60, "--output", path)
    design = read_design(path)
    if design is None:
        raise SystemExit(f"{path} has no design")
    names = {item.code: item.name for item in design.classes}
    with sqlite3.connect(path) as connection:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f'DROP TRIGGER "{trigger}"')  # they call functions that only a GIS has
        for unit, code in enumerate(design.codes[:FILLED], start=1):
            values = (names[code], "high", "A. Analyst", unit)
            connection.execute("UPDATE sample SET reference = ?, certainty = ?, interpreter = ? WHERE unit = ?", values)
    return path


def wetmap(*words: object) -> None:
    """Run the command."""
    code = "from wetmap.cli.main import main; main()"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code, *map(str, words)], check=True, env=environment)  # noqa: S603 - our own


def take_in_qgis(program: str, map_folder: Path, sample: Path, out: Path) -> None:
    """Open the map in QGIS and take pictures of its window.

    Args:
        program: The ``qgis`` command.
        map_folder: The map's folder.
        sample: A sample, partly filled.
        out: Folder of the pictures.
    """
    with tempfile.TemporaryDirectory(prefix="wetmap-qgis-") as home:
        job = {"sample": str(sample), "form_of": FORM_OF, "out": str(out)}
        environment = {
            **os.environ,
            "HOME": home,
            "XDG_RUNTIME_DIR": home,
            "TMPDIR": home,  # layers in the folder of temporary files get a sign of their own
            "LANG": "C.UTF-8",
            "WETMAP_PICTURES": json.dumps(job),
        }
        words = ["--nologo", "--noversioncheck", "--noplugins", "--profiles-path", home, "--code", str(INSIDE)]
        words = ["xvfb-run", "--auto-servernum", "--server-args", SCREEN, program, *words]
        done = subprocess.run(  # noqa: S603 - programs that were found
            [*words, "--project", str(map_folder / "map.qgz")],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=QGIS_S,
        )
    missing = [name for name in QGIS if not (out / name).exists()]
    if missing:
        raise SystemExit(f"QGIS left no {', '.join(missing)}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def take_of_the_report(program: str, page: Path, out: Path) -> None:
    """Open the report in Chromium and take a picture of its beginning, on a desk and on a phone."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for name, (width, height, scale, phone) in PAGES.items():
            window: dict[str, Any] = {"viewport": {"width": width, "height": height}, "device_scale_factor": scale}
            context = browser.new_context(**window, is_mobile=phone, has_touch=phone, offline=True)
            view = context.new_page()
            view.goto(page.resolve().as_uri())
            if phone:
                view.locator("h2", has_text="The map").first.evaluate("heading => heading.scrollIntoView()")
            view.wait_for_timeout(1500)  # the map draws itself
            view.screenshot(path=out / name)
            context.close()
        browser.close()


def shrink(path: Path) -> bytes:
    """A picture in a small file: with all colours where that is small enough, else with 256."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    for made in (picture, _with_a_palette(picture)):
        buffer = io.BytesIO()
        made.save(buffer, "PNG", optimize=True)
        if buffer.tell() <= MOST:
            return buffer.getvalue()
    raise SystemExit(f"{path.name} has {buffer.tell():,} bytes, and {MOST:,} are allowed: take a smaller window")


def _with_a_palette(picture: Image.Image) -> Image.Image:
    """The commonest colours as they are, which those of a legend are among, and for all others the nearest of 256."""
    pixels = np.asarray(picture).reshape(-1, 3)
    colours, place, counts = np.unique(pixels, axis=0, return_inverse=True, return_counts=True)
    common = colours[np.argsort(-counts, kind="stable")[:EXACT]]
    few = picture.quantize(256 - len(common), method=Image.Quantize.MEDIANCUT).getpalette() or []
    palette = np.concatenate([common, np.array(few, dtype=np.uint8).reshape(-1, 3)])[:256]
    _, nearest = cKDTree(palette.astype(float)).query(colours.astype(float))
    made = Image.fromarray(nearest.astype(np.uint8)[place.ravel()].reshape(picture.height, picture.width))
    made.putpalette(palette.ravel().tolist())
    return made


def main(arguments: list[str]) -> int:
    """Take the pictures; returns 1 where a program is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--map", type=Path, help="folder of a map, as wetmap leaves it [default: make one]")
    parser.add_argument("--out", type=Path, default=PICTURES, help="folder of the pictures")
    parser.add_argument("--only", choices=("qgis", "report"), help="pictures of one program only")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="wetmap-pictures-") as name:
        folder = Path(name)
        map_folder = (options.map or make_map(folder)).resolve()
        sample = make_sample(map_folder, folder)
        jobs: dict[str, tuple[str, tuple[str, ...], Callable[[str], None]]] = {
            "qgis": ("qgis", QGIS, lambda program: take_in_qgis(program, map_folder, sample, folder)),
            "report": (
                "chromium",
                tuple(PAGES),
                lambda program: take_of_the_report(program, map_folder / "report.html", folder),
            ),
        }
        missing = 0
        for kind, (command, pictures, take) in jobs.items():
            if options.only not in (None, kind):
                continue
            program = shutil.which(command)
            if program is None or (kind == "qgis" and shutil.which("xvfb-run") is None):
                say.warning("there is no %s (or no xvfb-run): %s are not taken", command, ", ".join(pictures))
                missing = 1
                continue
            take(program)
            for picture in pictures:
                (options.out / picture).write_bytes(shrink(folder / picture))
                say.info("%s", options.out / picture)
    return missing


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main(sys.argv[1:]))
