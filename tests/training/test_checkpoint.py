from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from wetmap.training.checkpoint import STATE_FILE, FitState, copied, load_state, save_state


@pytest.fixture
def state() -> FitState:
    weights = {"layer.weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(4)}
    return FitState(
        history=[{"epoch": 0, "loss": 0.1}, {"epoch": 1, "loss": 1 / 3}],
        best_epoch=0,
        model=weights,
        best={name: value + 1 for name, value in weights.items()},
        optimiser={"layer.weight": {"step": torch.tensor(2.0), "exp_avg": torch.ones(2, 3)}},
    )


def _same(one: FitState, other: FitState) -> None:
    assert (one.history, one.best_epoch) == (other.history, other.best_epoch)
    torch.testing.assert_close(one.model, other.model, rtol=0, atol=0)
    torch.testing.assert_close(one.best, other.best, rtol=0, atol=0)
    torch.testing.assert_close(one.optimiser, other.optimiser, rtol=0, atol=0)


def test_comes_back_exactly(tmp_path: Path, state: FitState) -> None:
    save_state(tmp_path / "new", "key", state)
    found = load_state(tmp_path / "new", "key", state.model)
    assert found is not None
    _same(found, state)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [STATE_FILE]


def test_best_and_last_may_be_one(tmp_path: Path, state: FitState) -> None:
    one = replace(state, best_epoch=1, best=state.model)
    save_state(tmp_path, "key", one)
    found = load_state(tmp_path, "key", state.model)
    assert found is not None
    _same(found, one)


def test_nothing_there(tmp_path: Path, state: FitState) -> None:
    assert load_state(tmp_path, "key", state.model) is None


def test_another_key_is_ignored(tmp_path: Path, state: FitState) -> None:
    save_state(tmp_path, "key", state)
    assert load_state(tmp_path, "other", state.model) is None


def test_another_network_is_ignored(tmp_path: Path, state: FitState) -> None:
    save_state(tmp_path, "key", state)
    assert load_state(tmp_path, "key", {**state.model, "layer.weight": torch.zeros(3, 3)}) is None


@pytest.mark.parametrize("keep", [0, 4, 60, -5])
def test_a_damaged_state_is_ignored(tmp_path: Path, state: FitState, keep: int) -> None:
    save_state(tmp_path, "key", state)
    data = (tmp_path / STATE_FILE).read_bytes()
    (tmp_path / STATE_FILE).write_bytes(data[:keep])
    assert load_state(tmp_path, "key", state.model) is None


def test_safetensors_of_others_are_ignored(tmp_path: Path, state: FitState) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / STATE_FILE)
    assert load_state(tmp_path, "key", state.model) is None


def test_copies_do_not_follow_the_original() -> None:
    weight = torch.zeros(3)
    kept = copied({"weight": weight})
    weight += 1
    assert kept["weight"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("done", "best", "over"), [(1, 0, False), (3, 0, False), (4, 0, True), (9, 8, False), (10, 9, True)]
)
def test_when_it_is_over(state: FitState, done: int, best: int, over: bool) -> None:
    there = replace(state, history=[{}] * done, best_epoch=best)
    assert there.exhausted(epochs=10, patience=3) is over
