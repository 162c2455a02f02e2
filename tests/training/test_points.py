from __future__ import annotations

import pytest
import torch

from tests.training.conftest import CLASSES, make_windows
from wetmap.errors import UsageError
from wetmap.models import create, entry, model_names
from wetmap.models.points import Point, many_networks, points_of, set_point
from wetmap.training.metrics import scores
from wetmap.training.points import score_points


def make() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create("supervit-micro", 3, 3, window=8, layers=2, band_layer=(0, 0, 1)).eval()
    for block in model.trunk.blocks:  # far enough from the small first values for the points to differ
        block.attention.qkv.weight.data.mul_(20)
        block.mlp[2].weight.data.mul_(20)
    model.head.weight.data.mul_(50)
    return model


def test_every_point_is_scored_as_if_it_were_run_alone():
    model, samples = make(), make_windows(60, width=8)
    rows = score_points(model, samples, CLASSES)
    assert [(row.tokens, row.keep) for row in rows] == [(t, k) for t in (4, 6, 8) for k in (0.5, 0.7, 1.0)]
    assert len({row.validation_macro_f1 for row in rows}) > 1
    for row in rows:
        assert row.n == 60
        point = model.operating_point(tokens=row.tokens, keep=row.keep)
        with torch.no_grad():
            guess = model(torch.from_numpy(samples.features), torch.from_numpy(samples.observed), point).argmax(1)
        assert row.validation_macro_f1 == pytest.approx(scores(samples.label, guess.numpy(), CLASSES).macro_f1)
    assert model.default_point == model.shape.largest()


def test_a_single_network_has_no_points():
    model = create("vit", 3, 3, layers=2, band_layer=(0, 0, 1))
    assert many_networks(model) is None
    assert score_points(model, make_windows(width=8), CLASSES) == []
    with pytest.raises(UsageError, match="no operating points"):
        set_point(model, Point(4, 0.5))


def test_a_point_is_set_by_name():
    model = make()
    set_point(model, Point(6, 0.7))
    assert model.default_point == model.operating_point(tokens=6, keep=0.7)
    with pytest.raises(UsageError, match="Choose one of 4, 6, 8"):
        set_point(model, Point(5, 0.7))
    assert str(Point(6, 0.7)) == "6 tokens a side, keep 0.7"


def test_the_registry_knows_which_models_have_points_and_of_what_sizes():
    for name in model_names():
        if entry(name).family == "torch":
            with torch.device("meta"):
                model = create(name, 2, 3)
            several = many_networks(model)
            found = () if several is None else tuple(dict.fromkeys(point.tokens for point in points_of(several)))
            assert entry(name).tokens == found, name
