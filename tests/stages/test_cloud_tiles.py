"""A network's mask: the same bytes whatever the blocks, made once, refused with advice where it cannot be made."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from tests.stages.test_optical_block import BANDS, GRID, WHOLE, Archive, make_task, same
from tests.walk.conftest import run_here, write_recipe
from wetmap.errors import RecipeError, SourceError
from wetmap.geo import Grid
from wetmap.imagery import cloud_masks
from wetmap.imagery.cloud_masks import CLEAR, MASKS, SHADOW, THICK, THIN, CloudMask
from wetmap.recipe import EarthEngineSource, Optical, Recipe, Sources
from wetmap.sources import Scene
from wetmap.stages import cloud_tiles
from wetmap.stages.block_features import block_features
from wetmap.stages.cloud_tiles import MARGIN_PX, TILE_PX, read_more, tile_px
from wetmap.stages.earthengine_rules import refuse_unrunnable
from wetmap.stages.fetch import IDLE_OPTICAL

#: Pixels within which the network of the tests looks around.
REACH = 9
SIDE = 32


class Network:
    """Normalises what it is given, as real ones do, and looks around: nothing in it knows of blocks."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def __call__(self, red: Any, green: Any, nir: Any, observed: NDArray[np.bool_]) -> NDArray[np.uint8]:
        self.seen.append(red.shape)
        bright = np.where(observed, red + green + nir, 0)
        level = (bright - bright[observed].mean()) / bright[observed].std()
        near = ndimage.uniform_filter(level, 2 * REACH + 1, mode="constant")
        classes = np.full(red.shape, CLEAR, dtype=np.uint8)
        classes[near > 0.35] = THICK
        classes[near < -0.45] = SHADOW
        classes[(near > 0.30) & (near <= 0.35)] = THIN
        return classes


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    """A network under the name ``fake``, on small tiles."""
    made = Network()
    fake = CloudMask(made, bands=("B04", "B03", "B08"))
    monkeypatch.setattr(cloud_masks, "MASKS", {**MASKS, "fake": fake})
    monkeypatch.setattr(cloud_tiles, "MASKS", {**MASKS, "fake": fake})
    monkeypatch.setattr(cloud_tiles, "TILE_PX", SIDE)
    monkeypatch.setattr(cloud_tiles, "MARGIN_PX", 16)
    return made


@pytest.mark.parametrize("mask_from", ["fake", "scl+fake"])
def test_blocks_leave_no_trace(network: Network, mask_from: str) -> None:
    task = make_task(Archive(), mask_from=mask_from)
    whole = block_features(task, WHOLE)
    assert set(network.seen) == {(64, 64)}, "tiles of one size, at the edges too"
    plain = block_features(make_task(Archive()), WHOLE)
    assert (whole.clear_count != plain.clear_count).mean() > 0.05, "the mask is another one"
    for side in (64, 41):
        for block in GRID.blocks(side):
            found = block_features(task, block)
            place = (slice(None), *block.slices)
            assert found.features.tobytes() == whole.features[place].tobytes()
            np.testing.assert_array_equal(found.clear_count, whole.clear_count[place])


@pytest.mark.usefixtures("network")
def test_the_margin_is_enough_for_a_network_that_sees_no_farther() -> None:
    """Without its own normalisation the network gives on tiles what it gives on the whole scene."""

    def looks_around(red: Any, green: Any, nir: Any, observed: NDArray[np.bool_]) -> NDArray[np.uint8]:
        bright = np.where(observed, red + green + nir, 0).astype(np.float64)
        return (ndimage.maximum_filter(bright, 2 * REACH + 1, mode="constant") > 0.34).astype(np.uint8)

    known = cloud_tiles.MASKS
    near = CloudMask(looks_around, bands=("B04", "B03", "B08"))
    with pytest.MonkeyPatch.context() as patch:
        for module in (cloud_masks, cloud_tiles):
            patch.setattr(module, "MASKS", {**known, "fake": near})
        task = make_task(Archive(), scenes=1, mask_from="fake", dilate_m=0)
        clear = block_features(task, WHOLE).clear_count[0] > 0
    (scene,) = task.scenes
    wide = GRID.window(-REACH, -REACH, GRID.height + 2 * REACH, GRID.width + 2 * REACH)
    bands = task.archives["optical"].read(scene, BANDS, wide)
    observed = np.isfinite(np.stack(list(bands.values()))).all(axis=0)
    expected = looks_around(bands["B04"], bands["B03"], bands["B08"], observed) if "B04" in bands else None
    assert expected is not None
    masked = (expected == THICK) & observed
    inner = slice(REACH, -REACH)
    np.testing.assert_array_equal(clear, (observed & ~masked)[inner, inner])


def test_the_default_reads_and_gives_what_it_did(network: Network) -> None:
    archive = Archive()
    block_features(make_task(archive), WHOLE)
    assert not network.seen
    assert archive.asked == Counter({(f"s_{n}", name): 1 for n in range(7) for name in (*BANDS, "SCL")})


def test_a_tile_is_made_once_and_a_lost_scene_leaves_none(network: Network, tmp_path: Path) -> None:
    task = replace(make_task(Archive(), mask_from="fake"), masks=tmp_path / "masks")
    whole = block_features(task, WHOLE)
    made = len(network.seen)
    for block in GRID.blocks(64):
        found = block_features(task, block)
        assert found.features.tobytes() == whole.features[(slice(None), *block.slices)].tobytes()
    assert len(network.seen) == made, "other blocks take the tiles that are there"
    assert len(list((tmp_path / "masks").iterdir())) >= made
    some = next(file for file in (tmp_path / "masks").iterdir() if file.stat().st_size > 30)
    some.write_bytes(b"half a file")
    same(block_features(task, WHOLE), whole)

    class Failing(Archive):
        def read(self, scene: Scene, names: Any, window: Grid) -> Any:
            if scene.id == "s_2" and "B04" in names:
                raise SourceError("the server is gone", do="Wait.")
            return super().read(scene, names, window)

    failing = replace(make_task(Failing(), mask_from="fake"), masks=tmp_path / "fewer")
    found = block_features(failing, WHOLE)
    assert {row["scene"] for row in found.failures} == {"s_2"}
    names = {cloud_tiles.pass_name((scene,)) for scene in task.scenes if scene.id != "s_2"}
    assert {file.name.partition("-")[0] for file in (tmp_path / "fewer").iterdir()} == names


@pytest.mark.usefixtures("network")
def test_a_lake_that_networks_call_shadow_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each look it says shadow over the same place, and nothing else: no cloud stands still."""

    def lake(red: Any, *_: Any) -> NDArray[np.uint8]:
        return np.full(red.shape, SHADOW, dtype=np.uint8)

    fake = {"fake": CloudMask(lake, bands=("B04", "B03", "B08"))}
    monkeypatch.setattr(cloud_tiles, "MASKS", fake)
    monkeypatch.setattr(cloud_masks, "MASKS", fake)
    for keep in (True, False):
        count = block_features(make_task(Archive(), mask_from="fake", keep_dark_water=keep), WHOLE).clear_count
        assert (count > 0).mean() == pytest.approx(1.0 if keep else 0.0, abs=0.05)


def test_a_scene_without_a_band_keeps_the_clouds_of_scl(network: Network) -> None:
    """Else its clouds would be taken for clear ground, since the network sees none."""

    class Lacking(Archive):
        def read(self, scene: Scene, names: Any, window: Grid) -> Any:
            found = super().read(scene, names, window)
            return {name: band for name, band in found.items() if name != "B8A"}

        def _band(self, name: str, number: int, rows: Any, cols: Any) -> Any:
            return super()._band("B08" if name == "B8A" else name, number, rows, cols)

    bands = CloudMask(network, bands=("B04", "B03", "B8A"))
    with pytest.MonkeyPatch.context() as patch:
        for module in (cloud_masks, cloud_tiles):
            patch.setattr(module, "MASKS", {**MASKS, "fake": bands})
        same(block_features(make_task(Lacking(), mask_from="fake"), WHOLE), block_features(make_task(Archive()), WHOLE))
        without_scl = make_task(Lacking(), mask_from="fake")
        bare = replace(without_scl, scenes=tuple(replace(scene, bands=BANDS) for scene in without_scl.scenes))
        assert not block_features(bare, WHOLE).clear_count.any(), "nothing at all is known of their clouds"
    assert not network.seen


@pytest.mark.usefixtures("network")
def test_scenes_without_a_classification_get_a_mask() -> None:
    task = make_task(Archive(), mask_from="fake")
    bare = replace(task, scenes=tuple(replace(scene, bands=BANDS) for scene in task.scenes))
    with_mask, without = block_features(bare, WHOLE), block_features(replace(bare, optical=Optical()), WHOLE)
    assert (with_mask.clear_count < without.clear_count).mean() > 0.05


def test_tiles_are_within_reach_of_every_block() -> None:
    """Scenes farther than 10 km from a block are not at hand, and clouds grow up to 2 km."""
    assert tile_px(10.0) == TILE_PX
    for res_m in np.linspace(5, 50, 91):
        side = tile_px(float(res_m))
        assert side >= 32
        assert (side + MARGIN_PX) * res_m + 2000 <= 10_000
    assert read_more(10.0) == pytest.approx(2.25)


class TestRefused:
    @pytest.mark.usefixtures("network")
    def test_on_earth_engine(self) -> None:
        sources = Sources(optical=EarthEngineSource(project="p", mode="server"), radar=None, terrain=None)
        recipe = Recipe(sources=sources, optical=Optical(mask_from="scl+fake"))
        with pytest.raises(RecipeError, match=r"optical.mask_from is scl\+fake, which cannot be computed by Earth"):
            refuse_unrunnable(recipe)

    @pytest.mark.usefixtures("network")
    def test_pixels_that_it_is_not_made_for(self) -> None:
        recipe = Recipe(optical=Optical(mask_from="fake"), grid={"res_m": 60})  # type: ignore[arg-type]
        with pytest.raises(RecipeError, match=r"made for pixels of 5 to 50 m, and grid.res_m is 60"):
            refuse_unrunnable(recipe)

    def test_at_the_front_door_before_anything_is_read(self, tmp_path: Path) -> None:
        only_optical = {
            "features": {"preset": "custom", "optical": ["B04"], "indices": [], "radar": []},
            "sources": {"optical": {"from": "stac", "catalog": "earth-search"}, "radar": None, "terrain": None},
            "reference": None,
        }
        recipe = write_recipe(tmp_path, optical={"mask_from": "omnicloudmask"}, **only_optical)
        for verb in (("recipe", "check", str(recipe)), ("fetch", "--recipe", str(recipe))):
            done = run_here(list(verb))
            assert done.returncode == 2, done.stderr
            assert "omnicloudmask is not installed. Install it with `pip install omnicloudmask`" in done.stderr
        wrong = write_recipe(tmp_path, optical={"mask_from": "fmask"}, **only_optical)
        assert "Choose one of: scl, omnicloudmask" in run_here(["recipe", "check", str(wrong)]).stderr


@pytest.mark.usefixtures("network")
def test_the_default_is_no_part_of_a_cubes_key() -> None:
    assert "mask_from" in IDLE_OPTICAL
    assert cloud_tiles.asked(Recipe()) == {}
    asked = cloud_tiles.asked(Recipe(optical=Optical(mask_from="scl+fake")))
    assert asked == {"mask_from": "scl+fake", "mask_version": ""}
