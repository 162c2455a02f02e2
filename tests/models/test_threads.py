"""Another number of threads rounds otherwise, and that is all it does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wetmap.models import create

#: Two best classes that are nearer than this may change places, in probability.
NEAR = 1e-5


def answers(model: torch.nn.Module, features: Tensor, threads: int) -> Tensor:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            return model.tile_probabilities(features)  # type: ignore[operator]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "name", ["wetmapformer", "wetmapformer-window", "wetmapformer-published", "vvt-micro-dense", "unet"]
)
def test_only_classes_that_are_as_likely_change_with_the_threads(name: str) -> None:
    torch.manual_seed(3)
    model = create(name, 4, 5).eval()
    side = model.geometry.side
    features = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(4))
    features[:, :, 5:9, 7:30] = torch.nan
    one, three = answers(model, features, 1), answers(model, features, 3)
    best = one.topk(2, dim=1).values
    near = best[:, 0] - best[:, 1] < NEAR
    assert bool((near | (one.argmax(1) == three.argmax(1))).all())
    assert float((one - three).abs().max()) < NEAR
