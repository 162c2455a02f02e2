"""The parts of benchmarks/mapping.py that say what its figures mean."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _found(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_the_last_line_holds_every_figure_and_null_for_what_was_left_out(monkeypatch, capsys):
    import mapping

    monkeypatch.setattr(sys, "argv", ["mapping.py", "--only", "memory,workers", "--skip", "memory"])
    asked = []
    monkeypatch.setattr(mapping, "run_models", lambda _: pytest.fail("left out"))
    monkeypatch.setattr(
        mapping, "run_walks", lambda chosen, _: asked.append(chosen.parts) or {"two_worker_share": 0.51234}
    )
    mapping.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert asked == [["workers"]]
    assert found.pop("two_worker_share") == 0.512
    assert found.pop("threads") == 2
    models = "exact_over_naive fraction_of_bound dense_over_exact exact_over_forest vvt_over_unet supervit_over_unet"
    assert found == dict.fromkeys([*models.split(), "memory_growth", "pipeline_efficiency"])


@pytest.mark.parametrize("words", [["--only", "speed"], ["--skip", "labourers"], ["--clock", "cpu", "--threads", "2"]])
def test_nonsense_is_refused(words, capsys):
    import mapping

    with pytest.raises(SystemExit):
        mapping.arguments(words)
    assert "error" in capsys.readouterr().err


def test_figures_are_ratios_of_the_right_rows():
    import mapping_models as m

    rates = {"naive": 2.0, m.EXACT: 20.0, m.DENSE: 240.0, m.UNET: 400.0, m.VVT: 100.0, m.SUPERVIT: 200.0}
    rates |= {m.FOREST: 16.0, m.FOREST_LIBRARY: 10.0, m.BOOSTING: 40.0, m.BOOSTING_LIBRARY: 50.0}
    assert m.figures(rates, naive="naive", bound=25.0) == pytest.approx(
        {
            "exact_over_naive": 10,
            "fraction_of_bound": 0.8,
            "dense_over_exact": 12,
            "exact_over_forest": 1.25,
            "vvt_over_unet": 0.25,
            "supervit_over_unet": 0.5,
            "exact_over_boosting": 0.5,
            "forest_over_scikit_learn": 1.6,
            "boosting_over_scikit_learn": 0.8,
        }
    )
    # the count of design: 2.089 million multiply-adds with 16 bands and 7 classes
    assert sum(m.multiply_adds(16, 7).values()) == pytest.approx(2.089e6, rel=1e-3)


def test_jobs_take_turns_and_the_best_round_counts():
    import mapping_models as m

    order: list[str] = []
    now = [0.0]

    def job(name: str, *seconds: float):
        left = iter(seconds)

        def call() -> None:
            order.append(name)
            now[0] += next(left)

        return call

    jobs = {"a": (job("a", 9, 2, 1, 4), 10.0), "b": (job("b", 9, 1, 5, 2), 10.0)}
    assert m.measure(jobs, 3, lambda: now[0]) == {"a": 10.0, "b": 10.0}
    assert order == ["a", "b"] * 4


def test_traffic_counts_what_operations_read_and_write_and_no_views():
    import mapping_device

    x = torch.ones(8, 8)
    with mapping_device.Traffic() as traffic:
        y = x.T.reshape(64) + 1
    assert y.shape == (64,)
    # the copy that reshape makes reads and writes 256 bytes, the addition again
    assert traffic.bytes == 4 * 256


def test_a_raster_is_what_the_recipe_says(tmp_path):
    import mapping_walk

    mapping_walk.write_raster(tmp_path / "a.tif", 600, 2, smooth=True)
    mapping_walk.write_raster(tmp_path / "b.tif", 600, 2, smooth=False)
    with rasterio.open(tmp_path / "a.tif") as source:
        assert source.shape == (600, 600)
        assert source.crs.to_string() == "EPSG:32620"
        counts = source.read()
    assert 500 < counts.min() < counts.max() < 4000
    assert (tmp_path / "a.tif").stat().st_size * 5 < (tmp_path / "b.tif").stat().st_size


def test_the_peak_is_that_of_a_process_and_its_children_together():
    import mapping_walk

    child = "import time; held = bytearray(60 * 2**20); time.sleep(0.8)"
    parent = f"import subprocess, sys; held = bytearray(40 * 2**20); subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent]) as process, mapping_walk._Peak(process.pid) as peak:
        process.wait()
    assert 100 < peak.bytes / 2**20 < 160


def test_tiles_of_the_bare_model_cover_the_area_once():
    import mapping_walk

    hits = np.zeros((6 + 4, 9 + 4), int)
    for _, rows, cols in mapping_walk._tiles(2, 3, 3, 2):
        assert hits[rows, cols].shape == (7, 7)
        hits[rows, cols][2:-2, 2:-2] += 1
    assert (hits[2:-2, 2:-2] == 1).all()


def test_models_are_compared_on_recipes_that_hold(tmp_path):
    import compare_models

    from tests.walk.test_real_scenes import SCENES
    from wetmap.recipe_file import load_recipe

    path = compare_models.simulated_recipe(tmp_path / "simulated")
    recipe = load_recipe(path)
    assert recipe.reference == "simulated"
    assert recipe.features.preset == "paper16"
    if not SCENES.is_dir():
        with pytest.raises(SystemExit, match="not beside the checkout"):
            compare_models.real_recipe(tmp_path / "coast", "coast")
        return
    for name, classes in (("coast", 4), ("valley", 5)):
        recipe = load_recipe(compare_models.real_recipe(tmp_path / name, name))
        assert (len(recipe.classes), recipe.splits.block_m, recipe.splits.buffer_m) == (classes, 480, 160)
