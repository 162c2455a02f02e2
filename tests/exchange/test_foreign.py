"""Files of weights from others: what is read, and that nothing hostile runs."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from wetmap.errors import BundleError, UsageError
from wetmap.exchange import foreign
from wetmap.exchange.foreign import keras_names, read_foreign

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2, dtype=torch.float16)}


class Bomb:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return set(found) == set(expected) and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"model": w, "epoch": 3}, lambda w: {"state_dict": w}])
def test_a_checkpoint_is_read_however_it_is_wrapped(tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    torch.save(wrap(WEIGHTS), tmp_path / "weights.pth")
    found = read_foreign(tmp_path / "weights.pth")
    assert found.kind == "torch"
    assert found.bytes == (tmp_path / "weights.pth").stat().st_size
    assert same(found.tensors, WEIGHTS)


def test_a_training_scripts_checkpoint_is_read_with_its_settings_beside(tmp_path: Path) -> None:
    held = {
        "model": {f"module.{name}": value for name, value in WEIGHTS.items()},
        "optimizer": {"state": {0: {"step": torch.tensor(3)}}, "param_groups": [{"lr": 0.1}]},
        "args": argparse.Namespace(lr=0.1, output_dir="here"),
    }
    torch.save(held, tmp_path / "checkpoint.pth")
    assert same(read_foreign(tmp_path / "checkpoint.pth").tensors, WEIGHTS)


def test_the_format_before_archives_is_read(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(read_foreign(tmp_path / "old.pth").tensors, WEIGHTS)


def test_safetensors_and_numpy_archives_are_read_by_what_they_hold(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "weights.bin")
    assert read_foreign(tmp_path / "weights.bin").kind == "safetensors"
    assert same(read_foreign(tmp_path / "weights.bin").tensors, WEIGHTS)
    arrays = {
        "conv2d/kernel": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">f4"),
        "count": np.array(5, dtype=np.int64),
        "empty": np.zeros((4, 0), dtype=np.float32),
    }
    for name, save in (("plain", np.savez), ("packed", np.savez_compressed)):
        save(tmp_path / f"{name}.npz", **arrays)
        found = read_foreign(tmp_path / f"{name}.npz")
        assert found.kind == "npz"
        for key, value in arrays.items():
            assert found.tensors[key].dtype == torch.float32
            np.testing.assert_array_equal(found.tensors[key].numpy(), value)


@pytest.mark.parametrize("where", ["instead", "beside", "within", "legacy"])
def test_a_hostile_checkpoint_is_refused_and_nothing_of_it_runs(tmp_path: Path, where: str) -> None:
    bomb, path = Bomb(tmp_path / "exploded"), tmp_path / "weights.pth"
    if where == "instead":
        path.write_bytes(pickle.dumps(bomb))
    else:
        held = {"beside": {"model": WEIGHTS, "args": bomb}, "within": {**WEIGHTS, "b": bomb}, "legacy": [bomb]}[where]
        torch.save(held, path, _use_new_zipfile_serialization=where != "legacy")
    message = r"more than weights" if where == "instead" else r"it names posix\.mkdir.*could run a program"
    with pytest.raises(BundleError, match=f"refused: .*{message}"):
        read_foreign(path)
    assert not (tmp_path / "exploded").exists()
    # the crafted file is a real one: an unguarded reader runs it
    with path.open("rb") as stream:
        torch.load(stream, weights_only=False) if where != "instead" else pickle.load(stream)  # noqa: S301
    assert (tmp_path / "exploded").exists()


def test_a_hostile_numpy_archive_is_refused_and_nothing_of_it_runs(tmp_path: Path) -> None:
    array = np.empty(1, dtype=object)
    array[0] = Bomb(tmp_path / "exploded")
    np.savez(tmp_path / "weights.npz", weight=array)
    with pytest.raises(BundleError, match="no weight"):
        read_foreign(tmp_path / "weights.npz")
    assert not (tmp_path / "exploded").exists()


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "zeros.npz", weight=np.zeros(4_000_000, dtype=np.float32))
    assert (tmp_path / "zeros.npz").stat().st_size < 100_000

    def opened(*_: Any, **__: Any) -> Any:
        raise AssertionError("a member was unpacked")

    monkeypatch.setattr(zipfile.ZipFile, "open", opened)
    with pytest.raises(BundleError, match="would unpack to 15 MiB, which no weights do"):
        read_foreign(tmp_path / "zeros.npz")


def test_an_array_that_claims_to_be_larger_than_it_is_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**11,)})
    with zipfile.ZipFile(tmp_path / "liar.npz", "w") as archive:
        archive.writestr("weight.npy", header.getvalue() + bytes(64))
    with pytest.raises(BundleError, match=r"weight\.npy is float32 of \(100000000000,\).*not all there"):
        read_foreign(tmp_path / "liar.npz")


def test_a_view_that_is_larger_than_what_it_shows_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1).expand(10**9, 10)}, tmp_path / "weights.pth")
    with pytest.raises(BundleError, match="weight, which is no weight"):
        read_foreign(tmp_path / "weights.pth")


@pytest.mark.parametrize("kind", ["torch", "legacy", "safetensors", "npz"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.98])
def test_a_file_cut_short_is_refused_with_a_message(tmp_path: Path, kind: str, share: float) -> None:
    path, weights = tmp_path / "weights", {"weight": torch.rand(300, 7)}
    if kind == "safetensors":
        save_file(weights, path)
    elif kind == "npz":
        with path.open("wb") as stream:
            np.savez(stream, weight=weights["weight"].numpy())
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=kind == "torch")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(BundleError, match=r"cut short|not a whole|damaged"):
        read_foreign(path)


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_is_read_or_refused_and_never_crashes(tmp_path: Path, seed: int) -> None:
    """Bytes overwritten anywhere: either the error is ours, or the file still holds weights."""
    draw = np.random.default_rng(seed)
    path = tmp_path / "weights"
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=bool(seed % 2))
    data = bytearray(path.read_bytes())
    for place in draw.integers(0, len(data), 12):
        data[place] = draw.integers(0, 256)
    path.write_bytes(data)
    with contextlib.suppress(BundleError, UsageError):
        assert read_foreign(path).tensors


@pytest.mark.parametrize(
    ("data", "message", "advice"),
    [
        (b"", "it is empty", "Give a PyTorch checkpoint"),
        (b"hello, these are weights", "not a file of weights", "safetensors"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5, as Keras writes it", "docs/how-to/public-weights.md"),
    ],
)
def test_other_formats_are_refused_with_what_to_give(tmp_path: Path, data: bytes, message: str, advice: str) -> None:
    (tmp_path / "weights.h5").write_bytes(data)
    with pytest.raises(UsageError, match=message) as caught:
        read_foreign(tmp_path / "weights.h5")
    assert advice in caught.value.do


def test_what_is_no_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with pytest.raises(UsageError, match="No such file"):
        read_foreign(path)
    for held, message in (
        ([torch.zeros(1)], "holds a list"),
        ({"epoch": 3, "weight": torch.zeros(1)}, "epoch, which is no weight"),
        ({"weight": torch.zeros(2, 2).to_sparse()}, "weight, which is no weight"),
        ({}, "no weights"),
        ({3: torch.zeros(1)}, "holds a dict, not weights by name"),
    ):
        torch.save(held, path)
        with pytest.raises(BundleError, match=message):
            read_foreign(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("code/constants.pkl", b"x")
    with pytest.raises(BundleError, match="TorchScript"):
        read_foreign(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", b"x")
    with pytest.raises(UsageError, match="archive without weights"):
        read_foreign(path)


def test_a_file_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(WEIGHTS, tmp_path / "weights.pth")
    monkeypatch.setattr(foreign, "MOST_BYTES", 100)
    with pytest.raises(BundleError, match="without the state of an optimiser"):
        read_foreign(tmp_path / "weights.pth")


def test_running_numbers_of_keras_begin_anew() -> None:
    one, two, three = torch.ones(1), torch.ones(2), torch.ones(3)
    given = {
        "conv2d_12/kernel:0": one,
        "conv2d_14/kernel:0": three,
        "conv2d_13/kernel:0": two,
        "conv2d_transpose_4/bias:0": two,
        "predictions/bias:0": one,
        "data_augmentation/normalization_1/mean": three,
        "count:0": two,
        "model/dense/kernel": one,
    }
    assert keras_names(given) == {
        "conv2d/kernel": one,
        "conv2d_1/kernel": two,
        "conv2d_2/kernel": three,
        "conv2d_transpose/bias": two,
        "predictions/bias": one,
        "mean": three,
        "count": two,
        "dense/kernel": one,
    }
    with pytest.raises(BundleError, match="Two of the weights are dense/kernel"):
        keras_names({"dense/kernel": one, "Adam/dense/kernel": two})
