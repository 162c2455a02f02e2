"""Models that nobody trained: loaded, or refused in words; no program in them runs, and no memory is used up."""

from __future__ import annotations

import hashlib
import io
import json
import resource
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import parsers
from tests.fuzz.fuzzing import cut_or_bent, fuzzed, mutate
from tests.test_bundle import WINDOW_MODEL, _boosting, _card
from wetmap import models
from wetmap.bundle import network_payload, pixel_payload, save_bundle
from wetmap.models.forest import ForestSettings, fit_forest

KINDS = ("network", "forest", "boosting")
FILES = {"network": "weights.safetensors", "forest": "forest.skops", "boosting": "boosting.safetensors"}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of each kind."""
    folder = tmp_path_factory.mktemp("good")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = models.create(WINDOW_MODEL, 3, 3, layers=2, band_layer=(0, 0, 1))
    payload = network_payload(network.state_dict())
    save_bundle(folder / "network", _card(payload, WINDOW_MODEL, network.geometry), payload)  # type: ignore[arg-type]
    x = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
    settings = ForestSettings(layers=2, band_layer=(0, 0, 1))
    forest = fit_forest(x, np.arange(60) % 3, classes=3, trees=3, seed=1, threads=1, settings=settings)
    for kind, model in (("forest", forest), ("boosting", _boosting())):
        payload = pixel_payload(model)
        save_bundle(folder / kind, _card(payload, kind, model.geometry, window=1), payload)
    return folder


@pytest.fixture
def frugal() -> Iterator[None]:
    """No more than 3 GiB beyond what the process has: what asks for more is refused, and does not fill the machine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 3 * 2**30, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def altered(folder: Path, good: Path, kind: str, data: bytes) -> Path:
    """A copy of a model with other weights, and a card that says so."""
    target = folder / kind
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(good / kind, target)
    (target / FILES[kind]).write_bytes(data)
    card = json.loads((target / "model.json").read_text())
    card["weights"] |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (target / "model.json").write_text(json.dumps(card))
    return target


@pytest.mark.parametrize("kind", KINDS)
def test_the_models_that_are_changed_are_good(kind: str, good: Path, inside: Path) -> None:
    assert inside
    assert parsers.bundle(good / kind) == ""


@pytest.mark.usefixtures("frugal")
@fuzzed(50)
@given(rng=st.randoms(use_true_random=False), kind=st.sampled_from(KINDS))
def test_changed_cards(rng: Any, kind: str, good: Path, inside: Path) -> None:
    target = inside / kind
    shutil.copytree(good / kind, target, dirs_exist_ok=True)
    data = mutate(rng, json.loads((good / kind / "model.json").read_text()))
    (target / "model.json").write_bytes(json.dumps(data).encode("utf-8", "surrogatepass"))
    parsers.bundle(target)


@fuzzed(40)
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_bytes_changed_in_cards(data: Any, kind: str, good: Path, inside: Path) -> None:
    target = inside / kind
    shutil.copytree(good / kind, target, dirs_exist_ok=True)
    (target / "model.json").write_bytes(data.draw(cut_or_bent((good / kind / "model.json").read_bytes())))
    parsers.bundle(target)


@pytest.mark.usefixtures("frugal")
@fuzzed(60)
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_changed_weights(data: Any, kind: str, good: Path, inside: Path) -> None:
    """The card agrees with them: a checksum keeps out accidents, not people."""
    weights = data.draw(cut_or_bent((good / kind / FILES[kind]).read_bytes()))
    parsers.bundle(altered(inside, good, kind, weights))


@pytest.mark.usefixtures("frugal")
@fuzzed(60)
@given(data=st.data())
def test_changed_parts_of_a_forest(data: Any, good: Path, inside: Path) -> None:
    """One file of the archive is changed, and the archive is whole."""
    parts = members((good / "forest" / "forest.skops").read_bytes())
    name = data.draw(st.sampled_from(sorted(parts)))
    if name == "schema.json":
        rng = data.draw(st.randoms(use_true_random=False))
        parts[name] = json.dumps(mutate(rng, json.loads(parts[name]))).encode("utf-8", "surrogatepass")
    else:
        parts[name] = data.draw(cut_or_bent(parts[name]))
    parsers.bundle(altered(inside, good, "forest", packed(parts)))


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(parts: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", [*KINDS, "text", "nothing", "pickle"])
def test_swapped_weights(kind: str, other: str, good: Path, inside: Path) -> None:
    if other == kind:
        return
    odd = {"text": b"{}", "nothing": b"\x00", "pickle": b"cos\nsystem\n(S'touch /outside'\ntR."}
    data = odd[other] if other in odd else (good / other / FILES[other]).read_bytes()
    assert parsers.bundle(altered(inside, good, kind, data))
    (inside / kind / FILES[kind]).unlink()
    assert "has no" in parsers.bundle(inside / kind)


def npy(shape: str, kind: str = "<f8") -> bytes:
    """A NumPy file that claims a shape, and holds a few bytes."""
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    head += " " * (117 - len(head)) + "\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + b"\x00" * 64


@pytest.mark.usefixtures("frugal")
@pytest.mark.parametrize(
    "array",
    [npy("(10**15,)"), npy("(100000000000000,)"), npy("(-1,)"), npy("(1,)", "|O"), npy("(3,)", "V99999999999"), b""],
    ids=["power", "huge", "negative", "object", "wide", "empty"],
)
def test_arrays_that_are_not_there(array: bytes, good: Path, inside: Path) -> None:
    parts = members((good / "forest" / "forest.skops").read_bytes())
    for name in parts:
        if name.endswith(".npy"):
            assert parsers.bundle(altered(inside, good, "forest", packed({**parts, name: array})))


@pytest.mark.parametrize("name", ["schema.json", "1.npy", "more"])
def test_a_zip_bomb(name: str, good: Path, inside: Path, bomb: bytes) -> None:
    """A MB that becomes a hundred: refused before it does."""
    parts = members((good / "forest" / "forest.skops").read_bytes())
    assert parts.keys() >= {"schema.json", "1.npy"}
    assert "times as much" in parsers.bundle(altered(inside, good, "forest", packed({**parts, name: bomb})))


@pytest.fixture(scope="module")
def bomb() -> bytes:
    return bytes(100 * 2**20)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda card: card["weights"].update(name="../../../etc/passwd"), "weights.name"),
        (lambda card: card["weights"].update(name="/etc/passwd"), "weights.name"),
        (lambda card: card["options"].update(window=10**9), "window"),
        (lambda card: card.update(model="../x"), "no model called"),
        (lambda card: card.update(format_version=2), "layout 2"),
        (lambda card: card.update(format_version=10**30), "layout"),
        (lambda card: card["classes"][0].update(colour="url(x)"), "colour"),
        (lambda card: card["classes"][0].update(code=0), "code"),
        (lambda card: card.update(res_m=float("nan")), "res_m"),
        (lambda card: card["geometry"].update(tile=10**12), ""),
    ],
)
def test_traps(change: Any, words: str, good: Path, inside: Path) -> None:
    target = inside / "network"
    shutil.copytree(good / "network", target)
    data = json.loads((target / "model.json").read_text())
    change(data)
    (target / "model.json").write_text(json.dumps(data))
    found = parsers.bundle(target)
    assert found
    assert words in found


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"format_version": ' + "9" * 5000 + "}", "\x00"])
def test_cards_that_are_no_json(text: str, inside: Path) -> None:
    assert "model.json" in parsers.card(text.encode(), inside)


@fuzzed(30)
@given(data=st.data())
def test_changed_areas_of_applicability(data: Any, good: Path, inside: Path, whole: bytes) -> None:
    target = inside / "forest"
    shutil.copytree(good / "forest", target, dirs_exist_ok=True)
    (target / "applicability.safetensors").write_bytes(data.draw(cut_or_bent(whole)))
    parsers.bundle(target)


@pytest.fixture(scope="module")
def whole() -> bytes:
    """An area of applicability of the three bands."""
    from tests.test_bundle import BANDS
    from wetmap.assessment.applicability import Applicability
    from wetmap.assessment.applicability_file import dumps

    made = Applicability(
        mean=np.zeros(3),
        scale=np.ones(3),
        weight=np.ones(3),
        samples=np.zeros((4, 3), np.float32),
        mean_distance=1.0,
        threshold=1.0,
    )
    return dumps(made, [band.name for band in BANDS])
