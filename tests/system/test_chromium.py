"""report.html in a real browser, opened as a file: its map can be moved, and it asks nobody for anything."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from tests.system.chromium import LOW_CONTRAST, Visit, chromium_missing, picture, started, visit
from tests.system.conftest import need

# the fixtures of the walk: one small recipe, run once
from tests.walk.conftest import small as small  # noqa: PLC0414 - a fixture
from tests.walk.conftest import wetmap_apart as wetmap_apart  # noqa: PLC0414 - a fixture
from wetmap.classes import MapClass
from wetmap.geo import Grid
from wetmap.products.areas import count_areas
from wetmap.products.class_map import open_class_map
from wetmap.products.geotiff import write_cog
from wetmap.report.page import ReportData, write_report
from wetmap.report.viewer import Background, MeasureLayer, ViewerData
from wetmap.report.viewer_background import true_colour

pytestmark = pytest.mark.system

Open = Callable[..., AbstractContextManager[Visit]]
NARROW = {"width": 360, "height": 740}
NASTY = (
    MapClass(1, 'bog & "fen" <b>', "#aa4400"),
    MapClass(2, "沼泽", "#22aa44"),
    MapClass(7, "</script><script>alert(1)</script>", "#dddddd"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    need("chromium", chromium_missing())
    with started() as running:
        yield running


@pytest.fixture(scope="module")
def report(browser: Any, request: pytest.FixtureRequest) -> Path:
    """The page of the walk's map; without a browser no map is made."""
    assert browser is not None
    small: Path = request.getfixturevalue("small")
    return small / "space/map/report.html"


@pytest.fixture
def opened(browser: Any) -> Open:
    """Open a page, and wait until its map can be moved."""

    @contextlib.contextmanager
    def ready(path: Path, **options: Any) -> Iterator[Visit]:
        with visit(browser, path, **options) as seen:
            seen.page.wait_for_selector("html.viewer-on", state="attached")
            seen.settle()
            yield seen
            assert seen.messages == []

    return ready


def bands_of_classes() -> NDArray[np.uint8]:
    """Three classes side by side, and a corner without one."""
    codes = np.zeros((60, 90), np.uint8)
    codes[:, :30], codes[:, 30:60], codes[:, 60:] = 1, 2, 7
    codes[:10, :10] = 0
    return codes


def toy(folder: Path, codes: NDArray[np.uint8]) -> Path:
    """A page about a map of three classes, with names that want to be more than names."""
    grid = Grid("EPSG:32620", 10.0, 400_000.0, 5_100_000.0, *codes.shape)
    percent = np.where(codes > 0, np.arange(codes.shape[1])[None, :] % 95 + 5, 255).astype(np.uint8)
    for name, array, nodata, overview in (("classes", codes, 0, "mode"), ("confidence", percent, 255, "average")):
        write_cog(
            folder / f"{name}.tif",
            grid,
            lambda block, array=array: array[block.slices],
            dtype="uint8",
            nodata=nodata,
            overview=overview,
            colours=None,
            description=name,
            tags={},
        )
    jpeg = true_colour(np.linspace(0, 0.3, 3 * 60 * 90, dtype=np.float32).reshape(3, 60, 90))
    assert jpeg is not None
    measures = [MeasureLayer(folder / "confidence.tif", 'Confidence & "more" <i>', unit=" %")]
    title = "Toy </script> & <title>"
    viewer = ViewerData(title, folder / "classes.tif", NASTY, measures, [Background("True <u>colour</u>", jpeg)])
    data = ReportData(
        title=title,
        area="toy, 54 ha",
        simulated=False,
        classes=NASTY,
        areas=count_areas(grid, lambda block: codes[block.slices], NASTY),
        classes_tif=folder / "classes.tif",
        grid="a grid",
        recipe="seed: 1\n",
        versions={},
        viewer=viewer,
    )
    write_report(folder / "report.html", data)
    return folder / "report.html"


def place(seen: Visit) -> tuple[float, float]:
    """Where the last click was, metres of the map's CRS, as the page says it."""
    numbers = re.search(r"x ([\d\u202f]+) m, y ([\d\u202f]+) m", seen.text("#viewer-reading"))
    assert numbers is not None, seen.text("#viewer-reading")
    x, y = (float(word.replace("\u202f", "")) for word in numbers.groups())
    return x, y


def bar_m(seen: Visit) -> float:
    """Metres on the ground per CSS pixel, by the scale bar."""
    number, unit = seen.text("#viewer-bar-text").split()
    width: float = seen.page.locator("#viewer-bar").bounding_box()["width"]
    return float(number) * {"m": 1, "km": 1000}[unit] / width


def click(seen: Visit, across: float, down: float) -> None:
    """Click the map at shares of its width and height."""
    box = seen.page.locator("#viewer-stage").bounding_box()
    seen.page.mouse.click(box["x"] + across * box["width"], box["y"] + down * box["height"])
    seen.settle()


def set_opacity(seen: Visit, layer: str, percent: int) -> None:
    seen.page.locator(f"#viewer-opacity-{layer}").fill(str(percent))
    seen.settle()


def differs(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Share of pixels that are not alike."""
    return float((one != other).any(axis=-1).mean())


def test_the_harness_sees_requests_and_messages(browser: Any, tmp_path: Path) -> None:
    """Otherwise the tests below would pass on any page."""
    page = tmp_path / "page.html"
    page.write_text('<img src="http://127.0.0.1:9/a.png" alt=""><script>console.log("hello"); nothing()</script>')
    with visit(browser, page) as seen:
        seen.page.wait_for_load_state("load")
        assert seen.requests == [page.as_uri(), "http://127.0.0.1:9/a.png"]
        assert any("hello" in text for text in seen.messages)
        assert any("nothing is not defined" in text for text in seen.messages)


def test_it_asks_nobody_for_anything_and_says_nothing(opened: Open, report: Path) -> None:
    with opened(report) as seen:
        for number in range(seen.page.locator("#viewer input[type=checkbox]").count()):
            seen.page.locator("#viewer input[type=checkbox]").nth(number).click()
        click(seen, 0.5, 0.5)
        seen.page.evaluate("() => window.scrollTo(0, document.body.scrollHeight)")
        seen.settle()
        assert seen.requests[0] == report.as_uri()
        assert {address.split(":", 1)[0] for address in seen.requests[1:]} <= {"data"}


def test_the_policy_lets_no_other_script_run(browser: Any, report: Path, tmp_path: Path) -> None:
    changed = tmp_path / "report.html"
    page = report.read_text(encoding="utf-8")
    changed.write_text(page.replace("</main>", "<script>document.title = 'taken'</script></main>"), encoding="utf-8")
    with visit(browser, changed) as seen:
        seen.page.wait_for_selector("html.viewer-on", state="attached")
        assert seen.page.title() != "taken"
        assert any("Content Security Policy" in text for text in seen.messages)


def test_layers_on_and_off_change_what_is_seen(opened: Open, report: Path) -> None:
    with opened(report) as seen:
        boxes = seen.page.locator("#viewer fieldset input[type=checkbox][id^=viewer-on]")
        names = [boxes.nth(number).get_attribute("id") for number in range(boxes.count())]
        assert names == ["viewer-on-classes", "viewer-on-measure-0", "viewer-on-measure-1", "viewer-on-measure-2"]
        first = seen.canvas()
        for name in names:
            seen.page.locator(f"#{name}").click()
            assert differs(first, seen.canvas()) > 0.2, name
            seen.page.locator(f"#{name}").click()
            assert differs(first, seen.canvas()) == 0, name


def test_at_first_classes_have_the_colours_of_the_legend_whatever_lies_below(opened: Open, report: Path) -> None:
    classes = open_class_map(report.with_name("classes.tif")).classes
    with opened(report) as seen:
        first = seen.canvas()
        seen.page.locator("#viewer-plain").click()
        plain = seen.canvas()
        coloured = np.any([(plain == item.rgb).all(axis=-1) for item in classes], axis=0)
        assert coloured.mean() > 0.2
        assert (first == plain)[coloured].all()
        seen.page.locator("#viewer-none").click()
        under = seen.canvas()
        seen.page.locator("#viewer input[name=viewer-background]").nth(0).click()
        assert differs(under, seen.canvas()) > 0.2


def test_backgrounds_and_opacity_change_what_is_seen(opened: Open, report: Path) -> None:
    with opened(report) as seen:
        radios = seen.page.locator("#viewer input[name=viewer-background]")
        assert [radios.nth(number).get_attribute("value") for number in range(2)] == ["background-0", "plain"]
        full = seen.canvas()
        assert seen.text("#viewer-percent-classes") == "100 %"
        set_opacity(seen, "classes", 30)
        assert seen.text("#viewer-percent-classes") == "30 %"
        assert differs(full, seen.canvas()) > 0.2
        shown = []
        for number in range(2):
            radios.nth(number).click()
            shown.append(seen.canvas())
        assert differs(*shown) > 0.2


def test_each_class_can_be_hidden_alone(opened: Open, report: Path) -> None:
    classes = open_class_map(report.with_name("classes.tif")).classes
    with opened(report) as seen:
        set_opacity(seen, "classes", 100)
        seen.page.locator("#viewer-plain").click()
        for item in classes:
            seen.page.locator("#viewer-none").click()
            seen.page.locator(f"#viewer-class-{item.code}").click()
            shown = seen.canvas().reshape(-1, 3)
            there = [other.code for other in classes if (shown == other.rgb).all(axis=1).mean() > 0.001]
            assert there == [item.code]
        seen.page.locator("#viewer-all").click()
        assert seen.page.locator("#viewer input[data-code]:checked").count() == len(classes)


def test_colours_cover_what_their_classes_cover(opened: Open, report: Path) -> None:
    """The whole map on the screen: of the pixels in a class's colour as many as the file says."""
    classes = open_class_map(report.with_name("classes.tif")).classes
    with rasterio.open(report.with_name("classes.tif")) as raster:
        codes = raster.read(1)
    with opened(report) as seen:
        seen.page.locator("#viewer-plain").click()
        set_opacity(seen, "classes", 100)
        shown = seen.canvas().astype(int)
    counts = np.array([(abs(shown - item.rgb).max(axis=-1) <= 2).sum() for item in classes])
    truth = np.array([(codes == item.code).sum() for item in classes])
    np.testing.assert_allclose(counts / counts.sum(), truth / truth.sum(), atol=0.02)
    height, width = shown.shape[:2]
    scale = min(width / codes.shape[1], height / codes.shape[0])  # screen pixels per pixel of the map
    assert counts.sum() / scale**2 == pytest.approx(truth.sum(), rel=0.02)


def test_a_click_says_what_the_files_say(opened: Open, report: Path) -> None:
    classes = {item.code: item.name for item in open_class_map(report.with_name("classes.tif")).classes}
    with rasterio.open(report.with_name("classes.tif")) as raster:
        codes, transform = raster.read(1), raster.transform
    with rasterio.open(report.with_name("confidence.tif")) as raster:
        confidence = raster.read(1)
    found = set()
    with opened(report) as seen:
        for across in np.linspace(0.31, 0.69, 7):
            for down in (0.22, 0.51, 0.77):
                click(seen, float(across), down)
                col, row = ~transform @ place(seen)
                if min(col % 1, row % 1, 1 - col % 1, 1 - row % 1) < 0.06:
                    continue  # coordinates are rounded to a metre, and here that may be another pixel
                code, said = codes[int(row), int(col)], seen.text("#viewer-reading")
                found.add(int(code))
                assert said.splitlines()[0] == classes.get(code, "No class here")
                if code:
                    assert f"{confidence[int(row), int(col)]}\u202f%" in said
    assert len(found - {0}) >= 2


def test_coordinates_are_where_the_click_was(opened: Open, report: Path) -> None:
    from pyproj import Transformer

    with rasterio.open(report.with_name("classes.tif")) as raster:
        bounds, crs = raster.bounds, raster.crs
    with opened(report) as seen:
        click(seen, 0.5, 0.5)
        x, y = place(seen)
        assert x == pytest.approx((bounds.left + bounds.right) / 2, abs=10)
        assert y == pytest.approx((bounds.bottom + bounds.top) / 2, abs=10)
        lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
        numbers = re.search(r"([\d.]+)° N, ([\d.]+)° W", seen.text("#viewer-reading"))
        assert numbers is not None
        assert float(numbers[1]) == pytest.approx(lat, abs=3e-5)
        assert -float(numbers[2]) == pytest.approx(lon, abs=3e-5)
        before = (x, y)
        box = seen.page.locator("#viewer-stage").bounding_box()
        metres = bar_m(seen)
        seen.page.mouse.click(box["x"] + box["width"] / 2 + 100, box["y"] + box["height"] / 2 - 50)
        seen.settle()
        x, y = place(seen)
        assert x - before[0] == pytest.approx(100 * metres, rel=0.03)
        assert y - before[1] == pytest.approx(50 * metres, rel=0.05)


def test_mouse_and_buttons_move_it_and_the_scale_bar_follows(opened: Open, report: Path) -> None:
    with opened(report) as seen:
        whole, coarse = seen.canvas(), bar_m(seen)
        assert seen.page.locator("#viewer-out").is_disabled()
        box = seen.page.locator("#viewer-stage").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        seen.page.mouse.move(x - 5, y)
        seen.page.mouse.move(x, y)
        seen.page.mouse.wheel(0, -300)
        seen.page.wait_for_function("() => !document.getElementById('viewer-out').disabled")
        seen.settle()
        fine = bar_m(seen)
        assert fine < 0.8 * coarse
        near = seen.canvas()
        seen.page.mouse.down()
        seen.page.mouse.move(x + 60, y + 40, steps=4)
        seen.page.mouse.up()
        dragged = seen.canvas()
        assert differs(near, dragged) > 0.05
        # the same picture elsewhere, but for where pixels of the map meet on the screen
        assert differs(dragged[100:200, 120:300], near[60:160, 60:240]) < 0.02
        assert differs(dragged[100:200, 120:300], near[100:200, 120:300]) > 0.05
        assert bar_m(seen) == pytest.approx(fine)
        assert "Click the map" in seen.text("#viewer-reading")  # a drag is no click
        seen.page.locator("#viewer-in").click()
        seen.settle()
        assert bar_m(seen) < 0.8 * fine
        seen.page.locator("#viewer-fit").click()
        np.testing.assert_array_equal(seen.canvas(), whole)


def test_the_page_scrolls_under_a_mouse_that_rests_on_the_map(opened: Open, report: Path) -> None:
    with opened(report) as seen:
        box = seen.page.locator("#viewer-stage").bounding_box()
        seen.page.mouse.move(box["x"] + 50, box["y"] + box["height"] / 2)
        seen.page.mouse.wheel(0, 250)
        seen.page.wait_for_function("() => window.scrollY > 100")
        before = bar_m(seen)
        seen.page.mouse.wheel(0, -100)
        seen.page.wait_for_timeout(300)
        assert bar_m(seen) == before


def test_the_keyboard_does_all_of_it(opened: Open, report: Path) -> None:
    with opened(report) as seen:
        for _ in range(60):
            seen.press("Tab")
            if seen.page.evaluate("() => document.activeElement.id") == "viewer-stage":
                break
        else:
            pytest.fail("the map is not reached with Tab")
        assert seen.page.locator(".viewer-cross").is_visible()
        whole, coarse = seen.canvas(), bar_m(seen)
        seen.press("+", "+")
        assert bar_m(seen) == pytest.approx(coarse / 2.25, rel=0.02)
        near = seen.canvas()
        seen.press("Enter")
        x, y = place(seen)
        seen.press("ArrowRight", "ArrowUp", "Enter")
        assert differs(near, seen.canvas()) > 0.05
        east, north = place(seen)
        assert (east - x, north - y) == pytest.approx((50 * bar_m(seen),) * 2, rel=0.05)
        seen.press("-", "0")
        assert bar_m(seen) == coarse
        np.testing.assert_array_equal(seen.canvas(), whole)
        assert seen.page.locator("#viewer-marker").is_visible()
        # on from the map: buttons, then layers
        seen.press("Tab")
        assert seen.page.evaluate("() => document.activeElement.closest('.viewer-buttons') !== null")


def test_two_fingers_zoom_and_one_scrolls_the_page_past_a_whole_map(opened: Open, report: Path) -> None:
    with opened(report, viewport=NARROW, has_touch=True, is_mobile=True) as seen:
        seen.page.locator("#viewer-stage").scroll_into_view_if_needed()
        box = seen.page.locator("#viewer-stage").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        touch = seen.page.context.new_cdp_session(seen.page)

        def fingers(kind: str, *points: tuple[float, float]) -> None:
            touch.send(
                "Input.dispatchTouchEvent",
                {"type": kind, "touchPoints": [{"x": px, "y": py, "id": n} for n, (px, py) in enumerate(points)]},
            )

        action = "() => document.getElementById('viewer-stage').style.touchAction"
        assert seen.page.evaluate(action) == "pan-y"
        before = bar_m(seen)
        fingers("touchStart", (x - 30, y), (x + 30, y))
        for apart in (40, 55, 70, 90):
            fingers("touchMove", (x - apart, y), (x + apart, y))
        fingers("touchEnd")
        seen.settle()
        assert bar_m(seen) == pytest.approx(before / 3, rel=0.1)
        assert seen.page.evaluate(action) == "none"
        assert "Click the map" in seen.text("#viewer-reading")
        seen.page.touchscreen.tap(x, y)
        seen.settle()
        place(seen)


def test_names_are_names_whatever_they_hold(opened: Open, tmp_path: Path) -> None:
    with opened(toy(tmp_path, bands_of_classes())) as seen:
        labels = seen.page.locator(".viewer-classes label")
        assert [labels.nth(number).inner_text() for number in range(3)] == [item.name for item in NASTY]
        assert seen.page.locator(".viewer b, .viewer i, .viewer u").count() == 0
        click(seen, 0.25, 0.6)
        said = seen.text("#viewer-reading").splitlines()
        assert said[0] == NASTY[0].name
        assert 'Confidence & "more" <i>' in said
        click(seen, 0.8, 0.5)
        assert seen.text("#viewer-reading").splitlines()[0] == NASTY[2].name
        assert seen.page.locator("#viewer-stage").get_attribute("aria-label") == "Map of Toy </script> & <title>"


def test_from_far_away_the_commonest_class_is_seen_and_no_colour_of_none(opened: Open, tmp_path: Path) -> None:
    """More pixels of the map than of the screen: half bog, a quarter each of the others, at random."""
    codes = np.random.default_rng(3).choice(np.array([1, 1, 2, 7], np.uint8), (1000, 1100))
    with opened(toy(tmp_path, codes)) as seen:
        seen.page.locator("#viewer-plain").click()
        set_opacity(seen, "classes", 100)
        shown = seen.canvas()[150:450, 200:600].reshape(-1, 3)
    shares = [(shown == item.rgb).all(axis=1).mean() for item in NASTY]
    assert sum(shares) == 1
    assert shares[0] > 0.55  # of four such pixels bog is the commonest in 59 of 100 cases


def test_a_phone_shows_it_without_scrolling_sideways(opened: Open, report: Path) -> None:
    with opened(report, viewport=NARROW, has_touch=True, is_mobile=True, device_scale_factor=2) as seen:
        assert seen.page.evaluate("() => document.documentElement.scrollWidth") <= 360
        box = seen.page.locator("#viewer-stage").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
        assert 250 < box["height"] < 0.75 * 740  # there is page above or below to scroll with
        small = "() => [...document.querySelectorAll('#viewer button, #viewer label')].filter(e => e.checkVisibility())"
        heights = seen.page.evaluate(small + ".map(e => e.getBoundingClientRect().height)")
        assert min(heights) >= 24  # WCAG 2.2, success criterion 2.5.8


def test_printed_and_without_scripts_there_is_a_still_picture_with_its_legend(browser: Any, report: Path) -> None:
    classes = open_class_map(report.with_name("classes.tif")).classes
    with visit(browser, report) as seen:
        seen.page.wait_for_selector("html.viewer-on", state="attached")
        assert seen.page.locator("#viewer").is_visible()
        assert not seen.page.locator(".static-map img").is_visible()
        seen.page.emulate_media(media="print")
        assert not seen.page.locator("#viewer").is_visible()
        shown = picture(seen.page.locator(".static-map img").screenshot()).reshape(-1, 3)
        assert all((shown == item.rgb).all(axis=1).mean() > 0.005 for item in classes)
    with visit(browser, report, java_script_enabled=False) as seen:
        assert not seen.page.locator("#viewer").is_visible()
        assert seen.page.locator(".static-map img").is_visible()
        assert all(seen.page.locator("main table", has_text=item.name).first.is_visible() for item in classes)


def test_a_window_that_grows_shows_the_whole_map_again(opened: Open, report: Path) -> None:
    with opened(report) as seen:
        before = bar_m(seen)
        seen.page.set_viewport_size({"width": 700, "height": 500})
        seen.page.wait_for_timeout(100)
        size = "() => { const c = document.getElementById('viewer-canvas'); return [c.width, c.clientWidth]; }"
        assert len(set(seen.page.evaluate(size))) == 1
        assert bar_m(seen) != before
        assert seen.page.locator("#viewer-out").is_disabled()


@pytest.mark.parametrize("viewport", [{"width": 1280, "height": 900}, NARROW], ids=["desktop", "phone"])
def test_everybody_can_use_it(opened: Open, report: Path, viewport: dict[str, int]) -> None:
    with opened(report, viewport=viewport) as seen:
        seen.page.locator("#viewer-on-measure-0").click()
        click(seen, 0.5, 0.5)
        page = seen.page
        assert page.locator("html").get_attribute("lang") == "en"
        assert page.locator("img:not([alt])").count() == 0
        named = "e => (e.getAttribute('aria-label') || e.innerText || '').trim() !== ''"
        assert page.evaluate(f"() => [...document.querySelectorAll('button')].every({named})")
        labelled = "e => e.labels.length > 0 || e.hasAttribute('aria-label')"
        assert page.evaluate(f"() => [...document.querySelectorAll('input, select')].every({labelled})")
        doubled = "() => { const all = [...document.querySelectorAll('[id]')].map(e => e.id);"
        assert page.evaluate(doubled + " return all.length - new Set(all).size; }") == 0
        assert page.evaluate(LOW_CONTRAST) == []


def test_contrast_is_measured(browser: Any, tmp_path: Path) -> None:
    """Otherwise the test above would pass on any page: grey on white of 4.54 and of 4.48 (#767676, #777777)."""
    page = tmp_path / "page.html"
    page.write_text('<p style="color: #767676">fine</p><p style="color: #777777">faint</p>')
    with visit(browser, page) as seen:
        assert [text for text, _ in seen.page.evaluate(LOW_CONTRAST)] == ["faint"]
