"""VVT and SuperViT on the cube as it is, and through WetMapFormer's extractor."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wetmap.errors import BundleError, RecipeError
from wetmap.models import create, load_reference
from wetmap.models.front import make_front
from wetmap.models.wetmapformer.network import Extractor, Spectral

NAMES = ["vvt-micro", "supervit-micro", "vvt-micro-dense", "supervit-micro-dense"]
WINDOWS = NAMES[:2]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_without_an_extractor_there_is_nothing_more(name):
    torch.manual_seed(0)
    model = create(name, 5, 3)
    assert count(model.front) == 0
    assert not [key for key in model.state_dict() if key.startswith("front")]
    maps = noise(1, 5, 8, 8)
    assert model.front(maps) is maps


@pytest.mark.parametrize("name", NAMES)
def test_the_extractor_is_wetmapformers_and_only_the_trunks_first_kernel_changes(name):
    torch.manual_seed(0)
    plain, model = create(name, 5, 3), create(name, 5, 3, extractor="spectral")
    assert isinstance(model.front.spectra, Spectral)
    assert isinstance(model.front.extractor, Extractor)
    mine = {key: value.shape for key, value in model.state_dict().items() if not key.startswith("front.")}
    theirs = {key: value.shape for key, value in plain.state_dict().items()}
    assert set(mine) == set(theirs)
    changed = [key for key in mine if mine[key] != theirs[key]]
    assert len(changed) == 1
    assert (mine[changed[0]][1], theirs[changed[0]][1]) == (32, 5)
    reference = create("wetmapformer-window", 5, 3)
    assert count(model.front) == count(reference.spectra) + count(reference.extractor)


def test_it_computes_what_it_computes_in_wetmapformer(enliven):
    torch.manual_seed(0)
    reference = create("wetmapformer-window", 4, 3).eval()
    enliven(reference, 1)
    front = make_front("spectral", 4).eval()
    front.spectra.load_state_dict(reference.spectra.state_dict())
    front.extractor.load_state_dict(reference.extractor.state_dict())
    maps = noise(2, 4, 8, 8)
    with torch.no_grad():
        expected = reference.extractor(reference.spectra(maps))
        assert torch.equal(front(maps), expected)
    # at odd sides nothing is answered beyond the map
    with torch.no_grad():
        assert front(noise(1, 4, 7, 5)).shape == (1, 32, 7, 5)


@pytest.mark.parametrize("name", NAMES)
def test_its_first_weights_are_drawn_as_in_wetmapformer(name):
    torch.manual_seed(0)
    model = create(name, 8, 3, extractor="spectral")
    kernel = model.front.extractor.skip.weight
    fans = (kernel.shape[0] + kernel.shape[1]) * 9
    bound = (6 / fans) ** 0.5
    assert 0.95 * bound < float(kernel.detach().abs().max()) <= bound
    assert all(
        not bool(value.any())
        for key, value in model.front.named_parameters()
        if key.endswith("bias") and "norm" not in key
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_behind_the_extractor_gets_a_gradient(name, enliven):
    torch.manual_seed(3)
    model = create(name, 3, 4, layers=2, band_layer=[0, 1, 0], extractor="spectral")
    enliven(model, 4)
    model.double().eval()
    features = noise(4, 3, model.window, model.window).double()
    for point in getattr(model, "operating_points", (None,)):
        logits = model(features) if point is None else model(features, None, point)
        (logits * noise(*logits.shape, seed=5).double()).sum().backward()
    largest = max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None)
    assert all(p.grad is not None and float(p.grad.abs().max()) > 1e-14 * largest for p in model.parameters())


@pytest.mark.parametrize("name", WINDOWS)
def test_a_tile_is_its_windows_classified_one_by_one(name, enliven):
    torch.manual_seed(3)
    model = create(name, 3, 4, window=16, extractor="spectral").eval()
    enliven(model, 4)
    features = noise(1, 3, 18, 18)
    found = model.tile_probabilities(features)
    torch.testing.assert_close(found, model.tile_probabilities_naive(features), rtol=1e-5, atol=2e-6)
    with torch.no_grad():
        alone = model(features[:, :, 1:17, :16]).softmax(1)
    torch.testing.assert_close(found[:, :, 1, 0], alone, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_it_repeats_and_can_be_exported(name, enliven):
    torch.manual_seed(0)
    model = create(name, 2, 3, window=16, extractor="spectral").eval()
    enliven(model, 1)
    features = noise(1, 2, 16, 16)
    program = torch.export.export(model, (features,))
    with torch.no_grad():
        assert torch.equal(model(features), model(features))
        torch.testing.assert_close(program.module()(features), model(features))


@pytest.mark.parametrize("name", WINDOWS)
def test_released_weights_do_not_fit_behind_an_extractor(name):
    plain = create(name, 4, 3)
    with pytest.raises(BundleError, match="extractor"):
        load_reference(create(name, 4, 3, extractor="spectral"), plain.state_dict())


def test_an_unknown_extractor_is_refused():
    with pytest.raises(RecipeError, match="none, spectral"):
        make_front("pixel", 3)
    with pytest.raises(RecipeError, match="none, spectral"):
        create("vvt-micro", 3, 2, extractor="yes")
