"""The predict stage on a small cube of its own: what is settled before the first block, and what becomes of blocks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from wetmap.bundle import Bundle, ModelCard, choose_device, load_bundle, load_predictor, pixel_payload, save_bundle
from wetmap.classes import MapClass
from wetmap.cluster import Workers
from wetmap.cube import Cube, bands_of
from wetmap.errors import BlockFailedWarning, PrecisionWarning, TooManyFailuresError, UsageError
from wetmap.geo import Block
from wetmap.ledger import Ledger
from wetmap.models.forest import ForestSettings, fit_forest
from wetmap.recipe import Predict
from wetmap.recipe_file import load_recipe
from wetmap.stages import fetch, mosaic, plan, precision, predict, predict_plan
from wetmap.stages.context import Context, Silent
from wetmap.stages.precision import Choice, Look, decide
from wetmap.stages.predict_plan import AT_ONCE, Footprint, Layout, Settled, lay_out
from wetmap.workspace import Workspace, read_json, write_json

GIB = 2**30
CODES = (3, 7, 9)


class Told(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def stage(self, name: str, state: str) -> None:
        self.lines.append(f"{name}: {state}")

    def say(self, text: str) -> None:
        self.lines.append(text)


def open_context(folder: Path, **cluster: Any) -> Context:
    recipe = load_recipe(folder / "recipe.yaml", {f"cluster.{name}": value for name, value in cluster.items()})
    workers = Workers(recipe.cluster, folder / "space/.dask")
    return Context(recipe, recipe, Workspace(folder / "space").open(), workers, Told())


def told(context: Context) -> str:
    assert isinstance(context.listener, Told)
    return "\n".join(context.listener.lines)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """About 520 x 300 pixels in 6 tiles, one of which nothing was observed in, and a forest of 3 trees."""
    west, south = -64.41, 45.90
    east, north = west + 5200 / 77_500, south + 3000 / 111_150
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    (tmp_path / "area.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    recipe = {
        "aoi": "area.geojson",
        "predict": {"bundle": "model", "block_px": 256},
        "features": {"preset": "custom", "optical": ["B04", "B08"], "indices": [], "radar": []},
        "sources": {"radar": None, "terrain": None},
        "cluster": {"workers": 1},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    context = open_context(tmp_path)
    grid, planned, fetched = context.grid, plan.folder_of(context), fetch.folder_of(context)
    context.workspace.begin(planned, plan.asked(context))
    plan._write_inside(context, planned.path / "inside.zarr")
    write_json(planned.path / "plan.json", {"grid": grid.to_json(), "scenes": [], "skipped": [], "coregistration": {}})
    write_json(planned.path / "manifest.json", {"stage": "plan"})
    context.workspace.begin(fetched, fetch.asked(context))
    bands = bands_of(context.recipe)
    cube = Cube.create(fetch.cube_path(fetched), grid, bands, ["summer"], block_px=256, simulated=True)
    draw = np.random.default_rng(3)
    for number, block in enumerate(grid.blocks(256)):
        seen = np.full((1, block.height, block.width), number != 1)
        features = draw.normal(0.3, 0.1, (len(bands), block.height, block.width)).astype(np.float32)
        cube.write_block(block, np.where(seen, features, np.nan), seen, seen.astype(np.uint16))
    write_json(fetched.path / "manifest.json", {"stage": "fetch", "failed": [], "simulated": True})
    save_forest(tmp_path / "model", cube)
    return tmp_path


def save_forest(target: Path, cube: Cube) -> Bundle:
    x = np.random.default_rng(0).normal(0.3, 0.1, (90, len(cube.bands))).astype(np.float32)
    y = np.digitize(x[:, 0], [0.25, 0.35])
    model = fit_forest(
        x, y, classes=3, trees=3, seed=1, threads=1, settings=ForestSettings(layers=1, band_layer=[0] * len(cube.bands))
    )
    payload = pixel_payload(model)
    card = ModelCard(
        model="forest",
        bands=cube.bands,
        layers=cube.layers,
        classes=tuple(MapClass(code, f"class {code}", "#336699") for code in CODES),
        window=8,
        geometry=model.geometry,
        res_m=10.0,
        simulated=True,
        weights=payload.file,
    )
    return save_bundle(target, card, payload)


def whole(context: Context, name: str) -> np.ndarray:
    height, width = context.grid.shape
    return predict.read_map(predict.folder_of(context), name, Block(0, 0, 0, 0, height, width))


def test_blocks_that_nothing_was_observed_in_are_skipped_and_the_others_mapped(folder: Path) -> None:
    context = open_context(folder)
    made = predict.run(context)
    cube = Cube.open(fetch.cube_path(fetch.folder_of(context)))
    seen = cube.read_observed(0, 0, *cube.shape)[0]
    inside = plan.read_inside(plan.load(plan.folder_of(context)).inside, Block(0, 0, 0, 0, *cube.shape))
    classes, confidence = whole(context, "classes"), whole(context, "confidence")
    np.testing.assert_array_equal(classes > 0, seen & inside)
    np.testing.assert_array_equal(confidence < 101, seen & inside)
    assert set(np.unique(classes)) == {0, *CODES}
    entries = Ledger(made.path / "ledger").entries()
    assert {name for name, entry in entries.items() if entry.status == "skipped"} == {"r00000c00001"}
    manifest = made.manifest or {}
    assert (manifest["skipped"], manifest["failed"], manifest["device"]) == (1, [], "cpu")
    assert manifest["precision"]["used"] == "float32"


def test_failed_blocks_are_tried_again_though_the_stage_was_complete(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = open_context(folder)
    predict.run(reference)
    expected = whole(reference, "classes"), whole(reference, "confidence")
    for path in predict.folder_of(reference).path.glob("ledger/*"):
        path.unlink()
    (predict.folder_of(reference).path / "manifest.json").unlink()
    kept = predict.map_block
    broken = {"r00000c00000", "r00001c00002"}

    def breaks(cube: Cube, model: Any, block: Block, *rest: Any, **more: Any) -> Any:
        if block.name in broken:
            raise OSError("the disk went away")
        return kept(cube, model, block, *rest, **more)

    monkeypatch.setattr(predict, "map_block", breaks)
    context = open_context(folder, max_failed=0.5)
    with pytest.warns(BlockFailedWarning, match="the disk went away"):
        made = predict.run(context)
    assert (made.manifest or {})["failed"] == sorted(broken)
    lacking = mosaic.asked(context)
    broken.remove("r00001c00002")
    with pytest.warns(BlockFailedWarning):
        predict.run(context)
    assert "2 blocks failed last time and are tried again" in told(context)
    assert (made.manifest or {})["failed"] == ["r00000c00000"]
    with pytest.raises(TooManyFailuresError), pytest.warns(BlockFailedWarning):
        predict.run(open_context(folder))
    broken.clear()
    predict.run(open_context(folder))
    assert (made.manifest or {})["failed"] == []
    for name, values in zip(("classes", "confidence"), expected, strict=True):
        np.testing.assert_array_equal(whole(context, name), values)
    assert mosaic.asked(context) == mosaic.asked(reference) != lacking, "the GeoTIFFs are made new as well"


@pytest.mark.parametrize("changes", [{"block_px": 512}, {"block_px": 9999}])
def test_any_block_size_gives_the_same_map(folder: Path, changes: dict[str, Any]) -> None:
    context = open_context(folder)
    predict.run(context)
    first = whole(context, "classes")
    (predict.folder_of(context).path / "manifest.json").rename(folder / "aside")
    other = replace(context, recipe=load_recipe(folder / "recipe.yaml", {"predict.block_px": changes["block_px"]}))
    predict.run(other)
    assert "begun in blocks of 256 px and goes on so" in told(context)
    import shutil

    shutil.rmtree(predict.folder_of(context).path)
    predict.run(other)
    assert (read_json(predict.folder_of(context).path / "settings.json") or {})["block_px"] > 256
    np.testing.assert_array_equal(whole(context, "classes"), first)


def test_memory_decides_blocks_and_workers_and_a_restart_keeps_the_blocks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def measured(*_: Any) -> Footprint:
        asked.append(1)
        return Footprint(base=100 * 2**20, tile=50 * 2**20)

    monkeypatch.setattr(predict_plan, "measure", measured)
    monkeypatch.setattr(predict_plan.psutil.Process, "memory_info", lambda _: type("Info", (), {"rss": 300 * 2**20})())
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "predict": {"bundle": "model", "block_px": 2048}}))
    context = open_context(folder, memory="560MiB", workers=2)
    made = predict.run(context)
    kept = read_json(made.path / "settings.json") or {}
    assert 256 <= kept["block_px"] < 2048
    line = f"blocks of {kept['block_px']} px, 1 worker of 1 thread, float32 on the processor (within 560 MiB)"
    assert line in told(context)
    assert kept["footprint"] == {"base": 100 * 2**20, "tile": 50 * 2**20, "resident": 0}
    (made.path / "manifest.json").unlink()
    predict.run(open_context(folder, memory="4GiB", workers=1))
    assert len(asked) == 1, "measured once"
    assert (read_json(made.path / "settings.json") or {}) == kept
    (made.path / "manifest.json").unlink()
    with pytest.raises(
        UsageError, match=rf"with one worker and blocks of {kept['block_px']} px, and --memory allows 4"
    ):
        predict.run(open_context(folder, memory="400MiB"))


@pytest.mark.parametrize("text", ["2 gigs", "0GB", "-1GiB", "2GiBs", "1e3MB", "GiB"])
def test_an_amount_that_is_none_is_refused_in_words(folder: Path, text: str) -> None:
    with pytest.raises(UsageError, match="write it like 2GiB, 1500MB"):
        open_context(folder, memory=text)


def test_a_real_worker_is_measured(folder: Path) -> None:
    context = open_context(folder)
    bundle = load_bundle(folder / "model")
    found = predict_plan.measure(context, bundle, Settled(256, "cpu", Choice("float32"), None, 1), None)
    assert 50 * 2**20 < found.base < GIB
    assert 0 < found.tile < GIB


def square(side: int) -> int:
    """A model of memory: 100 bytes for each pixel of a block."""
    return 100 * side * side


def test_where_memory_runs_short_blocks_shrink_before_workers_go() -> None:
    # 4 workers of 0.1 + 0.2 GB, each two blocks of 100 bytes per pixel; the leading process 0.5 GB
    part = Footprint(base=100_000_000, tile=200_000_000 + square(64))
    given_ = {"main": 500_000_000, "footprint": part, "most_workers": 4, "sides": range(512, 63, -64), "block": square}
    whole_ = 500_000_000 + 4 * (300_000_000 + 2 * square(512))
    assert lay_out(whole_, **given_) == Layout(4, 512, whole_)
    assert lay_out(whole_ - 1, **given_).workers == 4
    assert lay_out(whole_ - 1, **given_).block_px == 448
    least_of_four = 500_000_000 + 4 * (300_000_000 + 2 * square(64))
    assert lay_out(least_of_four, **given_) == Layout(4, 64, least_of_four)
    fewer = lay_out(least_of_four - 1, **given_)
    assert (fewer.workers, fewer.block_px) == (3, 512)
    least = 500_000_000 + 200_000_000 + 2 * square(64)  # one worker is the leading process
    assert lay_out(least, **given_) == Layout(1, 64, least)
    with pytest.raises(UsageError, match="one worker and blocks of 64 px") as caught:
        lay_out(least - 2**20, **given_)
    advised = int(caught.value.do.split("--memory ")[1].split("MiB")[0])
    assert lay_out(advised * 2**20, **given_).workers == 1
    # what measuring took counts too: a process of its own beside the leading one
    assert lay_out(900_000_000, **given_, measuring=900_000_000).workers == 1
    with pytest.raises(UsageError, match="Mapping needs about"):
        lay_out(899_999_999, **given_, measuring=900_000_000)


@settings(deadline=None, max_examples=60)
@given(
    memory=st.integers(1, 64 * GIB),
    workers=st.integers(1, 9),
    tile=st.sampled_from([64, 128, 256]),
    tiles=st.integers(1, 8),
    base=st.integers(0, GIB),
)
def test_a_layout_keeps_to_the_bound_and_more_memory_never_gives_less(memory, workers, tile, tiles, base):
    def fit(bound: int) -> Layout | None:
        try:
            return lay_out(
                bound,
                main=base,
                footprint=Footprint(base, base + square(tile)),
                most_workers=workers,
                sides=range(tile * tiles, tile - 1, -tile),
                block=square,
            )
        except UsageError:
            return None

    found, more = fit(memory), fit(memory * 2)
    if found is None:
        return
    assert more is not None
    assert found.needed is not None
    assert found.needed <= memory
    assert found.block_px % tile == 0
    assert 1 <= found.workers <= workers
    assert (found.workers, found.block_px) <= (more.workers, more.block_px)
    assert found.needed >= AT_ONCE * found.workers * square(found.block_px)


def begun_on(folder: Path, device: str, monkeypatch: pytest.MonkeyPatch, here: str) -> Context:
    context = open_context(folder)
    made = predict.folder_of(context)
    context.workspace.begin(made, predict.asked(context))
    predict_plan.keep(made, Settled(256, device, Choice("float32"), None, 1))
    monkeypatch.setattr(predict_plan, "choose_device", lambda _: here)
    return context


def test_a_map_begun_on_a_gpu_waits_for_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = begun_on(folder, "cuda", monkeypatch, "cpu")
    with pytest.raises(UsageError, match=r"begun on a GPU \(cuda\), and PyTorch finds none here"):
        predict.run(context)


def test_a_map_begun_on_the_processor_goes_on_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = begun_on(folder, "cpu", monkeypatch, "cuda")
    made = predict.run(context)
    assert "begun on the processor and goes on so" in told(context)
    assert (made.manifest or {})["device"] == "cpu"


GOOD = Look(gain=1.9, tile_agreement=0.999, samples=400, agreement=0.998, macro_f1_change=-0.001)


@pytest.mark.parametrize(
    ("found", "safe", "auto"),
    [
        (GOOD, True, "bfloat16"),
        (replace(GOOD, gain=1.19), True, "float32"),
        (replace(GOOD, gain=1.2), True, "bfloat16"),
        (replace(GOOD, agreement=0.98), False, "float32"),
        (replace(GOOD, tile_agreement=0.98), False, "float32"),
        (replace(GOOD, macro_f1_change=-0.006), False, "float32"),
        (replace(GOOD, macro_f1_change=0.1), True, "bfloat16"),
        (replace(GOOD, macro_f1_change=None), True, "bfloat16"),
        (replace(GOOD, samples=0, agreement=None, macro_f1_change=None), False, "float32"),
    ],
)
def test_bfloat16_is_taken_where_it_is_safe_and_faster(found: Look, safe: bool, auto: str) -> None:
    assert found.safe is safe
    assert decide("auto", found).used == auto
    assert f"{found.gain:.2f} x as fast" in decide("auto", found).why
    if safe:
        assert decide("bfloat16", found).used == "bfloat16"
    else:
        with pytest.warns(PrecisionWarning, match=r"not known to be safe: .* x as fast"):
            assert decide("bfloat16", found).used == "bfloat16"


def test_the_precision_is_part_of_what_is_asked_and_trees_have_none(folder: Path) -> None:
    assert precision.asked(Predict()) == {}
    assert precision.asked(Predict(precision="auto")) == {"precision": "auto"}
    bundle = load_bundle(folder / "model")
    context = open_context(folder)
    auto = replace(context, recipe=load_recipe(folder / "recipe.yaml", {"predict.precision": "auto"}))
    assert precision.choose(auto, bundle, None, "cpu").used == "float32"
    half = replace(context, recipe=load_recipe(folder / "recipe.yaml", {"predict.precision": "bfloat16"}))
    with pytest.raises(UsageError, match="forest compares numbers with thresholds"):
        precision.choose(half, bundle, None, "cpu")
    assert not predict.folder_of(half).path.exists()


def network(target: Path, name: str = "unet") -> Bundle:
    import torch

    from wetmap import models
    from wetmap.bundle import network_payload
    from wetmap.cube import Band

    with torch.random.fork_rng():
        torch.manual_seed(4)
        model: Any = models.create(name, 2, 3, layers=1, band_layer=[0, 0])
    # metres above the sea, say, of which bfloat16 holds every fourth
    model.set_normalisation(torch.tensor([1000.0, 1000.0]), torch.tensor([4.0, 4.0]))
    payload = network_payload(model.state_dict())
    card = ModelCard(
        model=name,
        options=models.resolve_options(name, {}),
        bands=tuple(Band(f"summer.{band}", "reflectance", "1", "summer.optical") for band in ("B04", "B08")),
        layers=("summer.optical",),
        classes=tuple(MapClass(code, f"class {code}", "#336699") for code in CODES),
        window=model.window,
        geometry=model.geometry,
        res_m=10.0,
        simulated=True,
        weights=payload.file,
    )
    return save_bundle(target, card, payload)


def test_a_network_goes_to_the_gpu_and_trees_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    made = network(folder / "net")
    trees = load_bundle(folder / "model")
    for there, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert choose_device(made) == expected
        assert choose_device(trees) == "cpu"


@pytest.mark.parametrize("name", ["unet", "wetmapformer", "wetmapformer-window"])
def test_bfloat16_is_computed_and_compared(folder: Path, name: str) -> None:
    made = network(folder / f"net-{name}", name)
    side = made.card.geometry.side
    features = np.random.default_rng(0).normal(1000, 2, (1, 2, side, side)).astype(np.float32)
    tile = features, np.ones((1, 1, side, side), dtype=np.bool_)
    full, half = (load_predictor(made, precision=name) for name in ("float32", "bfloat16"))
    one, other = (predictor.tile_probabilities(*tile) for predictor in (full, half))
    assert other.dtype == np.float32
    assert 0 < np.abs(one - other).max() < 0.1
    _, same = precision._compare(full, half, tile)
    assert same == (one.argmax(1) == other.argmax(1)).mean()


@pytest.mark.parametrize(
    ("side", "workers", "asked", "expected"),
    [
        (10_000, 2, None, 512),  # 400 blocks
        (4_096, 1, None, 512),  # 64 blocks are enough for one
        (4_096, 2, None, 256),  # and too few for two
        (300, 2, None, 256),  # no smaller than this
        (2_048, 2, 512, 512),  # who asks for a size gets it
        (2_048, 2, 100, 128),  # in whole tiles
    ],
)
def test_small_maps_are_cut_finer_so_that_no_worker_idles(
    side: int, workers: int, asked: int | None, expected: int
) -> None:
    recipe = SimpleNamespace(predict=SimpleNamespace(block_px=asked))
    grid = SimpleNamespace(shape=(side, side))
    context: Any = SimpleNamespace(recipe=recipe, grid=grid, workers=SimpleNamespace(count=workers))
    assert predict_plan._side(context, 64) == expected
