"""``wetmap model`` as a user types it, and bad models at the front door of ``wetmap predict``."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from tests.walk.conftest import Run
from wetmap.cli.main import app
from wetmap.errors import WetmapError
from wetmap.models import create
from wetmap.models.reference import key_map


class Bomb:
    """A pickle that makes a folder when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def public_vvt() -> dict[str, torch.Tensor]:
    """Weights of a small VVT for photographs, by the names of the public code."""
    torch.manual_seed(2)
    model = create("vvt-micro", bands=3, classes=10, window=16)
    state = model.state_dict()
    return {weight.name: state[weight.target].clone() for weight in key_map(model).weights if weight.target}


def test_the_card_is_shown_by_folder_and_by_workspace(small: Path, wetmap: Run) -> None:
    by_folder = wetmap("model", "show", small / "space/model").stdout
    assert wetmap("model", "show", "--workspace", small / "space").stdout == by_folder
    assert wetmap("model", "show", small / "space").stdout == by_folder
    for words in ("bands (16): summer.optical: summer.B", "classes (3): 1 water, 2 wetland, 3 upland", "SIMULATED"):
        assert words in by_folder
    for words in ("pixels of 10 m", "score of forest: macro F1", "F1 by class: water", "split: ", "[dB]"):
        assert words in by_folder
    told = json.loads(wetmap("model", "show", small / "space", "--json").stdout)
    assert told == json.loads((small / "space/model/model.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("show",), 2, "No model is named"),
        (("show", "nowhere"), 1, "No model in nowhere"),
        (("export", "nowhere", "--onnx", "a.onnx"), 1, "No model in nowhere"),
        (("export", "nowhere"), 2, "Give --onnx with a file name"),
        (("import", "none.pth", "--model", "vvt-micro", "--bands", "4"), 2, "none.pth cannot be read"),
        (("import", "none.pth", "--model", "vvt-micro"), 2, "The number of bands is not known"),
        (("import", "none.pth", "--bands", "4"), 2, "No model is named"),
        (("import", "none.pth", "--model", "vvt-micro", "--bands", "4", "--option", "size=3"), 2, "no option of vvt"),
        (("import", "none.pth", "--model", "vvt-micro", "--bands", "4", "--option", "window=x"), 2, "of type str"),
    ],
)
def test_bad_usage_is_refused_with_advice_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    error = CliRunner().invoke(app, ["model", *arguments]).exception
    assert isinstance(error, WetmapError)
    assert error.exit_code == code
    assert message in str(error)
    assert list(tmp_path.iterdir()) == []


def test_public_weights_become_a_start_for_the_workspaces_bands(small: Path, tmp_path: Path, wetmap: Run) -> None:
    torch.save({"model": public_vvt(), "epoch": 300}, tmp_path / "vvt.pth")
    (tmp_path / "space").mkdir()
    shutil.copy(small / "space/recipe.yaml", tmp_path / "space/recipe.yaml")
    said = wetmap(
        "model",
        "import",
        "vvt.pth",
        "--model",
        "vvt-micro",
        "--option",
        "window=16",
        "--workspace",
        "space",
        cwd=tmp_path,
    ).stdout
    assert (
        "adapted: trunk.stages.0.embedding.conv.weight: the mean over its 3 inputs times 3/16, for each of 16" in said
    )
    assert "drawn at random when training begins: head.weight, head.bias" in said
    card = json.loads((tmp_path / "space/start/vvt-micro.json").read_text())
    assert card["source"]["sha256"] == hashlib.sha256((tmp_path / "vvt.pth").read_bytes()).hexdigest()
    assert card["bands"] == 16
    assert load_file(tmp_path / "space/start/vvt-micro.safetensors")
    # with the classes of a trained model, of which there are fewer
    result = json.loads(
        wetmap(
            *("model", "import", "vvt.pth", "--model", "vvt-micro", "--option", "window=16", "--bands", "3"),
            *("--classes-from", small / "space/model", "--output", "mine.safetensors", "--json"),
            cwd=tmp_path,
        ).stdout
    )
    assert result["start"] == "mine.safetensors"
    assert not result["adapted"]
    assert set(result["left_out"].values()) == {"it is for 10 classes and not 3"}


def test_a_hostile_checkpoint_is_refused_at_the_front_door(tmp_path: Path, wetmap_apart: Run) -> None:
    torch.save({**public_vvt(), "extra": Bomb(tmp_path / "exploded")}, tmp_path / "vvt.pth")
    done = wetmap_apart("model", "import", "vvt.pth", "--model", "vvt-micro", "--bands", "4", cwd=tmp_path, expect=1)
    assert "refused: it names posix.mkdir, which is no weight and could run a program" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["vvt.pth"]


def test_a_trained_network_is_written_as_onnx_and_answers(small: Path, tmp_path: Path, wetmap: Run) -> None:
    done = wetmap("model", "export", small / "space/model", "--onnx", "model.onnx", "--json", cwd=tmp_path)
    result = json.loads(done.stdout)
    assert result["difference"] <= 1e-4
    side, session = result["side"], onnxruntime.InferenceSession(tmp_path / "model.onnx")
    layers = session.get_inputs()[1].shape[1]
    given = {
        "features": np.zeros((2, 16, side, side), dtype=np.float32),
        "observed": np.ones((2, layers, side, side), dtype=np.bool_),
    }
    assert session.run(None, given)[0].shape[:2] == (2, 3)
    forest = next((small / "space/stages/train").glob("*/forest"))
    said = wetmap("model", "export", forest, "--onnx", "forest.onnx", cwd=tmp_path, expect=2).stderr
    assert "forest cannot be written as ONNX" in said
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def edited(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the card of a model."""
    path = folder / "model.json"
    data = json.loads(path.read_text())
    change(data)
    path.unlink()
    path.write_text(json.dumps(data))


def replaced(folder: Path, data: bytes, *, vouched: bool) -> None:
    """Put other weights in a model's place; with a card that speaks of them where it is to vouch for them."""
    path = folder / "weights.safetensors"
    path.unlink()
    path.write_bytes(data)
    if vouched:
        weights = {"name": path.name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        edited(folder, lambda card: card.update(weights=weights))


def cut_short(folder: Path) -> None:
    replaced(folder, (folder / "weights.safetensors").read_bytes()[:-100], vouched=False)


def altered(folder: Path) -> None:
    data = bytearray((folder / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    replaced(folder, bytes(data), vouched=False)


def band_missing(folder: Path) -> None:
    edited(folder, lambda card: card["bands"].pop(3))


def extra_class(folder: Path) -> None:
    row = {"code": 9, "name": "moor", "colour": "#112233", "upland": False}
    edited(folder, lambda card: card["classes"].append(row))


def foreign_network(folder: Path) -> None:
    save_file(public_vvt(), folder.parent / "vvt.safetensors")
    replaced(folder, (folder.parent / "vvt.safetensors").read_bytes(), vouched=True)


def foreign_pickle(folder: Path) -> None:
    replaced(folder, pickle.dumps(Bomb(folder.parent / "exploded")), vouched=True)


def foreign_card(folder: Path) -> None:
    (folder / "model.json").unlink()
    (folder / "model.json").write_text('{"architectures": ["ViT"], "hidden_size": 768}')


def no_weights(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()


@pytest.fixture(scope="module")
def space(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished workspace of this module's own, should a bad model change something in it."""
    folder = tmp_path_factory.mktemp("spoilt")
    shutil.copytree(small, folder, dirs_exist_ok=True)
    return folder / "space"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut_short, "bytes, and its card says"),
        (altered, "was altered: its SHA-256 begins"),
        (band_missing, "does not fit the cube: the cube has band summer."),
        (extra_class, "weights are of another network than"),
        (foreign_network, "weights are of another network than"),
        (foreign_pickle, "weights are of another network than"),
        (foreign_card, "is not the card of a wetmap model"),
        (no_weights, "has no weights.safetensors"),
    ],
)
def test_a_bad_model_is_refused_with_a_message_and_the_map_stays(
    space: Path, tmp_path: Path, wetmap: Run, spoil: Callable[[Path], None], message: str
) -> None:
    shutil.copytree(space / "model", tmp_path / "model")
    spoil(tmp_path / "model")
    before = {path: path.stat().st_mtime_ns for folder in ("map", "stages") for path in (space / folder).rglob("*")}
    done = wetmap("predict", "--workspace", space, "--bundle", tmp_path / "model", expect=1)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("wetmap: ")]) == 1
    assert not (tmp_path / "exploded").exists()
    after = {path: path.stat().st_mtime_ns for folder in ("map", "stages") for path in (space / folder).rglob("*")}
    assert after == before
