from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wetmap.training.averaging import WeightAverage, decay_of_step


def network(value: float) -> nn.Module:
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(value)
    return model


def test_the_warm_up_by_hand() -> None:
    assert [decay_of_step(0.9, step) for step in (0, 8, 71, 80, 10**6)] == [0.1, 0.5, 72 / 81, 0.9, 0.9]


def test_an_average_by_hand() -> None:
    average = WeightAverage(network(0.0), 0.5)
    for step, value in enumerate((10.0, 20.0)):  # decays 0.1 and 2/11
        average.update(network(value), step)
    expected = 2 / 11 * 9.0 + 9 / 11 * 20.0
    assert float(average.state["0.weight"]) == pytest.approx(expected)
    assert float(average.state["1.running_var"]) == pytest.approx(expected)  # statistics too
    assert int(average.state["1.num_batches_tracked"]) == 20  # a counter is no average


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=12), st.floats(0, 0.9999))
@settings(deadline=None, max_examples=40)
def test_it_stays_within_what_it_has_seen_and_constants_stay_exact(values: list[float], decay: float) -> None:
    average = WeightAverage(network(values[0]), decay)
    for step, value in enumerate(values):
        model = network(value)
        model.register_buffer("constant", torch.tensor(0.1))
        average.state.setdefault("constant", torch.tensor(0.1))
        average.update(model, step)
    assert min(values) - 1e-4 <= float(average.state["0.weight"]) <= max(values) + 1e-4
    assert float(average.state["constant"]) == float(torch.tensor(0.1))


def test_gone_on_with_from_its_state() -> None:
    whole = WeightAverage(network(1.0), 0.8)
    for step in range(6):
        whole.update(network(float(step)), step)
        if step == 2:
            kept = {name: value.clone() for name, value in whole.state.items()}
    again = WeightAverage(network(-7.0), 0.8, kept)
    for step in range(3, 6):
        again.update(network(float(step)), step)
    torch.testing.assert_close(again.state, whole.state, rtol=0, atol=0)
    assert again.state["0.weight"] is not kept["0.weight"]


def test_in_its_place_and_back() -> None:
    model = network(3.0)
    average = WeightAverage(network(1.0), 0.5)
    with average.instead(model):
        assert {float(value) for value in model.state_dict().values()} == {1.0}
    assert {float(value) for value in model.state_dict().values()} == {3.0}

    def fails() -> None:
        with average.instead(model):
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        fails()
    assert float(model.state_dict()["0.weight"]) == 3.0
