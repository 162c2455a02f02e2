"""Windows around samples on disk: the right pixels, whole or not at all, the same bytes again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from wetmap.classes import MapClass
from wetmap.errors import SplitError, WorkspaceError
from wetmap.geo import Grid
from wetmap.samples import Labels, PatchCubes, Samples, Split, write_patch_cubes

GRID = Grid("EPSG:32619", 10.0, 600000.0, 5100000.0, 90, 120)
CLASSES = (MapClass(4, "bog", "#111111"), MapClass(2, "fen", "#222222"))


@dataclass(frozen=True)
class FakeBand:
    name: str
    kind: str = "reflectance"
    unit: str = "1"
    layer: str = "summer.optical"


@dataclass
class FakeCube:
    """A cube whose band ``b`` holds ``b * 1e5 + row * 1000 + col``, so that every pixel tells where it is."""

    hidden: np.ndarray = field(default_factory=lambda: np.zeros(GRID.shape, dtype=bool))
    grid: Grid = GRID
    bands: tuple[FakeBand, ...] = (FakeBand("summer.B02"), FakeBand("summer.VV", layer="summer.radar_any"))
    layers: tuple[str, ...] = ("summer.optical", "summer.radar_any")
    reads: list[tuple[int, int]] = field(default_factory=list)

    def read_window(self, y0, x0, height, width):
        self.reads.append((height, width))
        row, col = np.mgrid[y0 : y0 + height, x0 : x0 + width]
        inside = (row >= 0) & (row < GRID.height) & (col >= 0) & (col < GRID.width)
        seen = inside & ~self.hidden[row.clip(0, GRID.height - 1), col.clip(0, GRID.width - 1)]
        observed = np.stack([seen, seen & (row % 2 == 0)])
        values = np.stack([row * 1000 + col, 1e5 + row * 1000 + col]).astype(np.float32)
        values[~observed] = np.nan
        return values, observed


def drawn(count=700, seed=0):
    generator = np.random.default_rng(seed)
    pixels = np.sort(generator.choice(GRID.height * GRID.width, count, replace=False))
    row, col = np.divmod(pixels, GRID.width)
    codes = generator.choice(np.array([4, 2, 255], dtype=np.uint8), GRID.shape, p=[0.4, 0.4, 0.2])
    label = generator.integers(0, 2, count).astype(np.uint8)
    codes[row, col] = np.array([4, 2])[label]
    samples = Samples(row.astype(np.int32), col.astype(np.int32), label, np.arange(count, dtype=np.int32))
    labels = Labels(codes, np.zeros(GRID.shape, np.int32), CLASSES, {})
    fold = generator.integers(-1, 3, count).astype(np.int16)
    role = np.array(["test", "validation", "train", "dropped"])[fold]
    split = Split(fold, role, "blocks", 3, 0, 1, 40, 8, 0.0, {}, 10.0)
    return labels, samples, split


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces and chunks far smaller than the samples, so that they are crossed."""
    monkeypatch.setattr("wetmap.samples.cubes.READ_PX", 32)
    monkeypatch.setattr("wetmap.samples.cubes.CHUNK_SAMPLES", 64)


def digest(path: Path) -> str:
    whole = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file():
            whole.update(file.relative_to(path).as_posix().encode() + file.read_bytes())
    return whole.hexdigest()


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("window_px", [1, 5, 8])
def test_every_window_holds_the_pixels_around_its_sample(tmp_path, window_px):
    labels, samples, split = drawn()
    cube = FakeCube()
    patches = write_patch_cubes(cube, labels, samples, split, window_px=window_px, path=tmp_path / "patches.zarr")
    assert max(max(size) for size in cube.reads) <= 32 + window_px
    seen = {}
    for role in ("train", "validation", "test"):
        chosen = patches.select(role)
        assert chosen.features.shape == (len(chosen), 2, window_px, window_px)
        assert chosen.features.dtype == np.float32
        assert chosen.observed.dtype == bool
        for at in range(len(chosen)):
            row, col = int(chosen.row[at]), int(chosen.col[at])
            seen[row, col] = (role, chosen.label[at], chosen.fold[at], chosen.polygon[at])
            expected, observed = FakeCube().read_window(
                row - window_px // 2, col - window_px // 2, window_px, window_px
            )
            np.testing.assert_array_equal(chosen.features[at], expected)
            np.testing.assert_array_equal(chosen.observed[at], observed)
            assert chosen.label_window[at, window_px // 2, window_px // 2] == chosen.label[at]
    kept = split.role != "dropped"
    columns = zip(samples.row[kept], samples.col[kept], strict=True)
    values = zip(split.role[kept], samples.label[kept], split.fold[kept], samples.polygon[kept], strict=True)
    assert seen == dict(zip(columns, values, strict=True))


@pytest.mark.usefixtures("small_pieces")
def test_an_even_window_begins_half_a_window_before_the_pixel(tmp_path):
    labels, samples, split = drawn()
    patches = write_patch_cubes(FakeCube(), labels, samples, split, window_px=8, path=tmp_path / "patches.zarr")
    train = patches.select("train")
    inner = np.flatnonzero((train.row >= 4) & (train.col >= 4) & (train.row < 86) & (train.col < 116))
    first, last = train.features[inner, 0, 0, 0], train.features[inner, 0, 7, 7]
    assert (first == (train.row[inner] - 4) * 1000 + train.col[inner] - 4).all()
    assert (last == (train.row[inner] + 3) * 1000 + train.col[inner] + 3).all()


def test_label_windows_hold_the_samples_of_the_same_role_and_nothing_else(tmp_path):
    labels, samples, split = drawn()
    patches = write_patch_cubes(FakeCube(), labels, samples, split, window_px=8, path=tmp_path / "patches.zarr")
    others = 0
    for role in ("train", "validation", "test"):
        own, drawn_at = np.full((106, 136), 255, np.uint8), np.zeros((106, 136), dtype=bool)
        drawn_at[samples.row + 8, samples.col + 8] = split.role != role
        mine = split.role == role
        own[samples.row[mine] + 8, samples.col[mine] + 8] = samples.label[mine]
        chosen = patches.select(role)
        for at in range(len(chosen)):
            square = np.s_[chosen.row[at] + 4 : chosen.row[at] + 12, chosen.col[at] + 4 : chosen.col[at] + 12]
            np.testing.assert_array_equal(chosen.label_window[at], own[square])
            others += int(drawn_at[square].sum())
    assert others > 1000, "samples of other roles did lie in the windows"


def test_a_label_that_nothing_observed_teaches_nothing(tmp_path):
    labels, samples, split = drawn()
    hidden = np.zeros(GRID.shape, dtype=bool)
    hidden[:, 60:62] = True
    patches = write_patch_cubes(FakeCube(hidden), labels, samples, split, window_px=8, path=tmp_path / "p.zarr")
    train = patches.select("train")
    unseen = ~train.observed.any(axis=1)
    assert unseen.any()
    assert (train.label_window[unseen] == 255).all()


def test_unobserved_samples_are_left_out_and_counted(tmp_path):
    labels, samples, split = drawn()
    hidden = np.zeros(GRID.shape, dtype=bool)
    hidden[:, :60] = True
    patches = write_patch_cubes(FakeCube(hidden), labels, samples, split, window_px=8, path=tmp_path / "p.zarr")
    unseen = int(((samples.col < 60) & (split.role != "dropped")).sum())
    counts = patches.summary
    assert counts["left_out"] == {"near another fold": int((split.role == "dropped").sum()), "not observed": unseen}
    assert counts["drawn"] == 700
    for name in ("features", "observed", "label_window", "label", "role"):
        stored = json.loads((patches.path / name / "zarr.json").read_text())
        assert stored["shape"][0] == counts["written"]
    assert counts["written"] == 700 - sum(counts["left_out"].values())
    assert counts["written"] == sum(sum(by_role.values()) for by_role in counts["by_class"].values())
    assert all((patches.select(role).col >= 60).all() for role in ("train", "validation", "test"))
    # The half of a window that nothing saw is not zero but missing.
    train = patches.select("train")
    edge = train.features[train.col == 61][:, 0]
    assert np.isnan(edge[:, :, 0]).all()
    assert (edge[:, 4, 4] > 0).all()


def test_a_class_that_nothing_observed_is_refused(tmp_path):
    labels, samples, split = drawn()
    hidden = np.ones(GRID.shape, dtype=bool)
    with pytest.raises(SplitError, match=r"has no train sample left: \d+ of 700 samples lie where no scene"):
        write_patch_cubes(FakeCube(hidden), labels, samples, split, window_px=8, path=tmp_path / "p.zarr")
    assert list(tmp_path.iterdir()) == []


def test_what_is_on_disk_says_what_it_is(tmp_path):
    labels, samples, split = drawn()
    write_patch_cubes(FakeCube(), labels, samples, split, window_px=8, path=tmp_path / "patches.zarr")
    patches = PatchCubes.open(tmp_path / "patches.zarr")
    assert patches.bands == ("summer.B02", "summer.VV")
    assert patches.layers == ("summer.optical", "summer.radar_any")
    assert patches.classes == CLASSES
    assert patches.window_px == 8
    assert patches.attributes["bands"][1] == {
        "name": "summer.VV",
        "kind": "reflectance",
        "unit": "1",
        "layer": "summer.radar_any",
    }
    assert Grid.from_json(patches.attributes["grid"]) == GRID
    array = json.loads((tmp_path / "patches.zarr" / "features" / "zarr.json").read_text())
    assert array["zarr_format"] == 3
    assert array["dimension_names"] == ["sample", "band", "row", "col"]
    assert array["shape"][0] == patches.summary["written"]


@pytest.mark.usefixtures("small_pieces")
def test_same_bytes_again_and_an_older_group_is_replaced(tmp_path):
    labels, samples, split = drawn()
    for name in ("one", "other"):
        write_patch_cubes(FakeCube(), labels, samples, split, window_px=8, path=tmp_path / name)
    assert digest(tmp_path / "one") == digest(tmp_path / "other")
    write_patch_cubes(FakeCube(), *drawn(seed=1), window_px=8, path=tmp_path / "other")
    assert digest(tmp_path / "one") != digest(tmp_path / "other")
    (tmp_path / ".tmp-other").mkdir()
    (tmp_path / ".tmp-other" / "rest of a killed run").write_text("x")
    write_patch_cubes(FakeCube(), labels, samples, split, window_px=8, path=tmp_path / "other")
    assert digest(tmp_path / "one") == digest(tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other"]


def test_a_failure_leaves_the_older_group(tmp_path):
    labels, samples, split = drawn()
    write_patch_cubes(FakeCube(), labels, samples, split, window_px=8, path=tmp_path / "p.zarr")
    before = digest(tmp_path / "p.zarr")

    class Broken(FakeCube):
        def read_window(self, y0, x0, height, width):
            raise OSError(f"bad sector at {y0}, {x0}, {height}, {width}")

    with pytest.raises(OSError, match="bad sector"):
        write_patch_cubes(Broken(), labels, samples, split, window_px=8, path=tmp_path / "p.zarr")
    assert digest(tmp_path / "p.zarr") == before
    assert [path.name for path in tmp_path.iterdir()] == ["p.zarr"]


def test_labels_of_another_grid_are_refused(tmp_path):
    labels, samples, split = drawn()
    other = replace(labels, codes=labels.codes[:50])
    with pytest.raises(WorkspaceError, match="labels are on 50 x 120 px and the cube on 90 x 120 px"):
        write_patch_cubes(FakeCube(), other, samples, split, window_px=8, path=tmp_path / "p.zarr")


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    labels, samples, split = drawn()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wetmap.samples.cubes._create", full)
    with pytest.raises(WorkspaceError, match="The disk is full"):
        write_patch_cubes(FakeCube(), labels, samples, split, window_px=8, path=tmp_path / "p.zarr")
    assert list(tmp_path.iterdir()) == []


def test_nothing_or_something_else_at_the_path(tmp_path):
    with pytest.raises(WorkspaceError, match=r"no patch cubes at .* Run wetmap train"):
        PatchCubes.open(tmp_path / "nothing.zarr")
    (tmp_path / "file.zarr").write_text("x")
    with pytest.raises(WorkspaceError, match="no patch cubes at"):
        PatchCubes.open(tmp_path / "file.zarr")
    labels, samples, split = drawn()
    path = tmp_path / "p.zarr"
    write_patch_cubes(FakeCube(), labels, samples, split, window_px=8, path=path)
    header = json.loads((path / "zarr.json").read_text())
    header["attributes"]["format"] = 99
    (path / "zarr.json").write_text(json.dumps(header))
    with pytest.raises(WorkspaceError, match="have format 99, and this wetmap reads 2"):
        PatchCubes.open(path)
