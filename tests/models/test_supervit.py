from __future__ import annotations

import json
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from wetmap.errors import BundleError, RecipeError, TrainingError, UsageError
from wetmap.models import create
from wetmap.models.supervit import (
    OperatingPoint,
    Shape,
    SuperVit,
    SuperVitDense,
    load_reference,
    micro_shape,
    small_shape,
)
from wetmap.models.supervit.network import kept_count, strongest
from wetmap.models.supervit.reference import reference_names
from wetmap.training.subnetworks import Choices, divergence, draw_choices, super_step

HERE = Path(__file__).parents[1] / "golden" / "supervit"
BESIDE = Path(__file__).resolve().parents[3] / "shared" / "golden" / "supervit"

TINY = Shape(tokens=(4, 6, 8), patch=4, width=48, depth=12, heads=3)
RUNS = [(16, 0.5), (16, 0.7), (16, 1), (24, 0.5), (24, 0.7), (24, 1), (32, 0.5), (32, 0.7), (32, 1)]

#: Largest error as a share of the tensor's largest value.
FLOAT32, FLOAT64 = 1e-5, 1e-10


def error(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())


def procedural(name: str, shape: tuple[int, ...]) -> Tensor:
    """The golden files' rule for weights, and with the name ``input:...`` for inputs (numpy's frozen old stream)."""
    draw = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith("bias"):
        value = 0.1 * draw.randn(*shape)
    elif len(shape) == 1:
        value = 0.5 + draw.rand(*shape)
    elif name.startswith("input:"):
        value = draw.randn(*shape)
    elif len(shape) in (2, 4):
        value = draw.randn(*shape) / np.sqrt(np.prod(shape[1:]))
    else:
        value = 0.5 * draw.randn(*shape)
    return torch.from_numpy(value.astype(np.float32))


def tiny(dtype: torch.dtype) -> SuperVit:
    model = SuperVit(16, 7, shape=TINY, window=32)
    state = model.state_dict()
    load_reference(
        model, {there: procedural(there, state[here].shape) for there, here in reference_names(model).items()}
    )
    return model.to(dtype)


def sites(model: SuperVit) -> dict[str, Tensor]:
    """What is noted during a forward pass, by golden name."""
    seen: dict[str, Tensor] = {}
    model.trunk.embeddings[0].register_forward_hook(
        lambda _m, _i, out: seen.update(patch_embed=out.flatten(2).transpose(1, 2))
    )
    model.trunk.norm.register_forward_hook(lambda _m, _i, out: seen.update(norm=out, norm_cls=out[:, 0]))

    def note(number: int) -> Any:
        def hook(_module: nn.Module, _inputs: Any, out: Any) -> None:
            seen[f"block{number}"] = out.tokens
            if out.kept is not None:
                seen[f"index{number}"] = out.kept

        return hook

    def note_score(number: int) -> Any:
        def hook(_module: nn.Module, _inputs: Any, out: Any) -> None:
            if out[1] is not None:
                seen[f"score{number}"] = out[1]

        return hook

    for number, block in enumerate(model.trunk.blocks):
        block.register_forward_hook(note(number))
        block.attention.register_forward_hook(note_score(number))
    return seen


def compare_sites(seen: dict[str, Tensor], tensors: dict[str, Tensor], run: str, kind: str, tolerance: float) -> int:
    compared = 0
    for key in (key for key in tensors if key.startswith(run)):
        site = key.removeprefix(run)
        if site.startswith("index"):  # the same in both precisions
            assert torch.equal(seen[site], tensors[key]), key
        elif site.startswith(kind) and not site.endswith("resized_input"):
            assert error(seen[site.removeprefix(kind)], tensors[key]) < tolerance, key
        else:
            continue
        compared += 1
    return compared


def compare_outputs(tensors: dict[str, Tensor]) -> int:
    """Compare all runs in both precisions; how many tensors were compared."""
    compared = 0
    for dtype, kind, tolerance in ((torch.float32, "f32", FLOAT32), (torch.float64, "f64", FLOAT64)):
        model = tiny(dtype).eval()
        features = procedural("input:tiny", (2, 16, 32, 32)).to(dtype)
        for side, keep in RUNS:
            seen = sites(model)
            with torch.no_grad():
                seen["output"] = model(features, None, model.operating_point(tokens=side // 4, keep=keep))
            compared += compare_sites(seen, tensors, f"s{side}_k{keep}/", f"{kind}/", tolerance)
    return compared


def test_it_computes_what_the_release_computes():
    tensors = load_file(HERE / "tiny.safetensors")
    indices = sum("/index" in key for key in tensors)
    assert indices == 18
    assert compare_outputs(tensors) == len(tensors) + indices


def step_of_tiny(dtype: torch.dtype) -> tuple[SuperVit, list[Tensor], list[float], list[float]]:
    """The golden training step: the model with its gradients, logits, losses, and gradient norms after each network."""
    golden = load_file(HERE / "train.safetensors")
    model = tiny(dtype).train()
    logits: list[Tensor] = []
    snapshots: list[list[Tensor]] = []

    def snapshot(*_: Any) -> None:
        snapshots.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()])

    model.register_forward_pre_hook(snapshot)
    model.register_forward_hook(lambda _m, _i, out: logits.append(out.detach()))
    batch = (procedural("input:train", (4, 16, 32, 32)), torch.ones(4, 1, 32, 32, dtype=torch.bool), golden["target"])
    losses = super_step(model, batch, F.cross_entropy, Choices(largest_keep=0.5, smaller=0, smaller_keep=0.7))
    snapshot()

    def norm(grads: list[Tensor]) -> float:
        return float(torch.stack([g.double().norm() for g in grads]).norm())

    cumulative = [norm(grads) for grads in snapshots[1:]]
    own = [norm([b - a for a, b in zip(*pair, strict=True)]) for pair in pairwise(snapshots)]
    return model, logits, [float(loss) for loss in losses], [*own, *cumulative]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_step_is_the_releases_step(dtype):
    tolerance = FLOAT64 if dtype == torch.float64 else FLOAT32
    golden, told = load_file(HERE / "train.safetensors"), json.loads((HERE / "train.json").read_text())
    model, logits, losses, norms = step_of_tiny(dtype)
    for number, found in enumerate(logits):
        assert error(found, golden[f"logits{number}"]) < tolerance
    assert losses == pytest.approx([step["loss"] for step in told["steps"]], rel=tolerance)
    expected = [step[kind] for kind in ("own_grad_norm", "cumulative_grad_norm") for step in told["steps"]]
    assert norms == pytest.approx(expected, rel=tolerance)
    compare_gradients(model, golden, told, tolerance)


def compare_gradients(
    model: SuperVit, golden: dict[str, Tensor], told: dict[str, Any], tolerance: float, every: int = 7
) -> None:
    norms, without = told["grad_norm_per_param"], told["params_without_grad"]
    names, parameters = reference_names(model), dict(model.named_parameters())

    def cut(tensor: Tensor) -> Tensor:
        return tensor.flatten()[::every] if every > 1 and tensor.numel() > 400 else tensor

    # a parameter has a gradient or is told to have none
    assert {there for there, here in names.items() if parameters[here].grad is None} == set(without)
    assert set(norms) == set(names) - set(without)
    for there, value in norms.items():
        gradient = parameters[names[there]].grad
        assert float(gradient.norm()) == pytest.approx(value, rel=tolerance), there
        assert error(cut(gradient), golden[f"grad/{there}"]) < tolerance, there
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    after = [key for key in golden if key.startswith("after/")]
    assert len(after) == 26
    for key in after:
        assert error(cut(parameters[names[key.removeprefix("after/")]].detach()), golden[key]) < tolerance, key


def test_it_computes_what_the_release_computes_full_files():
    if not BESIDE.exists():
        pytest.skip("the full files are not beside the checkout (../shared/golden/supervit)")
    tensors = load_file(BESIDE / "tiny.safetensors")
    stored = {key.removeprefix("param/"): value for key, value in tensors.items() if key.startswith("param/")}
    assert all(torch.equal(procedural(key, value.shape), value) for key, value in stored.items())
    model = SuperVit(16, 7, shape=TINY, window=32)
    load_reference(model, tensors)
    assert sum(value.numel() for value in stored.values()) == sum(p.numel() for p in model.parameters()) == 357_799
    assert compare_outputs(tensors) >= 100
    told = json.loads((BESIDE / "train_hard_sgd_f64.json").read_text())
    golden = load_file(BESIDE / "train_hard_sgd_f64.safetensors")
    model = step_of_tiny(torch.float64)[0]
    compare_gradients(model, golden, told, FLOAT64, every=1)


def test_parameters_of_the_published_sizes():
    def count(model: nn.Module) -> int:
        return sum(parameter.numel() for parameter in model.parameters())

    assert count(SuperVit(3, 1000, shape=small_shape())) == 22_170_088
    assert count(create("supervit-small", 16, 7)) == 23_065_735
    assert count(create("supervit-micro", 16, 7)) == 412_295
    assert count(create("supervit-micro", 16, 7, patching="multi")) == 438_023


@pytest.mark.parametrize(
    ("patches", "keep", "counts"),
    [
        (16, 0.5, [17, 10, 6, 4]),
        (16, 0.7, [17, 13, 11, 9]),
        (16, 0.9, [17, 17, 17, 17]),
        (36, 0.5, [37, 20, 11, 7]),
        (36, 0.7, [37, 27, 20, 15]),
        (64, 0.5, [65, 34, 18, 10]),
        (64, 0.7, [65, 47, 34, 25]),
        (196, 0.5, [197, 100, 51, 27]),
        (196, 0.7, [197, 139, 99, 71]),
    ],
)
def test_how_many_tokens_stay(patches, keep, counts):
    found = [patches + 1]
    for _ in range(3):
        found.append(kept_count(found[-1], keep))
    assert found == counts


def test_the_strongest_stay_and_ties_stay_in_order():
    score = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.2, 0.2, 0.2, 0.2]])
    # 5 tokens with the class token: ceil(2.5) = 3 stay beside it
    assert strongest(score, 0.5).tolist() == [[0, 2, 4, 3], [0, 1, 2, 3]]


@pytest.mark.parametrize(("depth", "blocks"), [(12, (3, 6, 9)), (16, (4, 8, 12)), (8, (2, 4, 6)), (6, (1, 3, 4))])
def test_tokens_are_dropped_at_the_quarters_of_the_depth(depth, blocks):
    assert Shape(tokens=(2,), patch=2, width=8, depth=depth, heads=2).pruning_blocks == blocks


def lively(model: Any, enliven: Any, seed: int = 0) -> Any:
    """A double precision model whose tables, class token and attention are far from their small first values."""
    enliven(model, seed)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for table in (model.trunk.class_token, *model.trunk.positions):
            table.copy_(torch.randn(table.shape, generator=draw))
        for block in model.trunk.blocks:
            block.attention.qkv.weight.mul_(8)
            block.attention.out.weight.mul_(8)
    return model.double().eval()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def in_place_by_hand(model: Any, maps: Tensor, point: OperatingPoint) -> Tensor:
    """The tokens of one map in their places, dropping them one by one from a dictionary."""
    trunk = model.trunk
    left = dict(enumerate(trunk.embed(maps, point.size)[0]))
    dropped: dict[int, Tensor] = {}
    for number, block in enumerate(trunk.blocks):
        places = list(left)
        tokens = torch.stack([left[place] for place in places])
        heads = block.attention.heads
        query, key, value = block.attention.qkv(block.norm1(tokens)).chunk(3, dim=1)
        weights = [
            (q @ k.T / q.shape[1] ** 0.5).softmax(1)
            for q, k in zip(query.chunk(heads, 1), key.chunk(heads, 1), strict=True)
        ]
        mixed = torch.cat([w @ v for w, v in zip(weights, value.chunk(heads, 1), strict=True)], dim=1)
        tokens = tokens + block.attention.out(mixed)
        left = dict(zip(places, tokens, strict=True))
        if number in model.shape.pruning_blocks and point.keep != 1:
            score = dict(zip(places, torch.stack(weights).mean(0)[0].tolist(), strict=True))
            others = sorted((place for place in places if place), key=lambda place: -score[place])
            for place in others[kept_count(len(places), point.keep) - 1 :]:
                dropped[place] = left.pop(place)
        left = {place: token + block.mlp(block.norm2(token)) for place, token in left.items()}
    whole = left | dropped
    return trunk.norm(torch.stack([whole[place] for place in sorted(whole)]))


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("size", [0, 2])
def test_a_dropped_token_is_put_back_in_its_place_as_it_was_when_it_was_dropped(size, keep, enliven):
    torch.manual_seed(1)
    model = lively(SuperVitDense(3, 4, shape=micro_shape(16), window=16), enliven)
    maps = noise(2, 3, 16, 16)
    with torch.no_grad():
        found = model.trunk(maps, OperatingPoint(size, keep), put_back=True)
        for number in range(2):
            expected = in_place_by_hand(model, maps[number : number + 1], OperatingPoint(size, keep))
            assert error(found[number], expected) < 1e-12


def test_keeping_all_is_not_pruning(enliven):
    torch.manual_seed(1)
    model = lively(SuperVitDense(3, 4, shape=micro_shape(16), window=16), enliven)
    features = noise(2, 3, 16, 16)
    with torch.no_grad():
        whole = model(features, None, OperatingPoint(0, 1.0))
        assert torch.equal(
            model.trunk(features, OperatingPoint(0, 1.0), put_back=True), model.trunk(features, OperatingPoint(0, 1.0))
        )
        # of 17 tokens ceil(0.95 * 17) = 17 stay: reordered, but none lost
        assert error(model(features, None, OperatingPoint(0, 0.95)), whole) < 1e-12
        assert error(model(features, None, OperatingPoint(0, 0.5)), whole) > 1e-3


@pytest.mark.parametrize("patching", ["resize", "multi"])
@pytest.mark.parametrize("keep", [0.5, 1.0])
@pytest.mark.parametrize("size", [0, 1, 2])
def test_every_pixel_is_answered_from_its_own_place(size, keep, patching, enliven):
    torch.manual_seed(2)
    side, pixels = 24, [(0, 0), (3, 17), (12, 5), (23, 22)]
    model = lively(SuperVitDense(2, 3, shape=micro_shape(side, patching), window=side), enliven)
    with torch.no_grad():
        model.pixel.weight.zero_()
        for block in model.trunk.blocks:  # tokens no longer tell each other anything
            block.attention.out.weight.zero_()
    features = noise(1, 2, side, side).requires_grad_()
    logits = model(features, None, OperatingPoint(size, keep))
    patch = side / model.shape.tokens[size]
    for row, col in pixels:
        (gradient,) = torch.autograd.grad(logits[0, :, row, col].square().sum(), features, retain_graph=True)
        rows, cols = torch.nonzero(gradient.abs().sum((0, 1)), as_tuple=True)
        # the answer is between the centres of at most 2 x 2 patches; resizing reaches one pixel further
        assert int((rows - row).abs().max()) < 1.5 * patch + 1
        assert int((cols - col).abs().max()) < 1.5 * patch + 1
        near = gradient[0, :, max(row - 1, 0) : row + 2, max(col - 1, 0) : col + 2]
        assert bool((near != 0).any()), "a pixel's own place does not matter to it"


def test_the_pixel_itself_is_heard_beside_its_token(enliven):
    torch.manual_seed(2)
    model = lively(SuperVitDense(2, 3, shape=micro_shape(16), window=16), enliven)
    with torch.no_grad():
        model.trunk.norm.weight.zero_()  # tokens say nothing
    features = noise(1, 2, 16, 16)
    poked = features.clone()
    poked[0, 1, 4, 9] += 1
    with torch.no_grad():
        changed = (model(features) != model(poked)).any(1)[0]
    assert torch.nonzero(changed).tolist() == [[4, 9]]


def test_real_patch_sizes_are_cut_from_the_window_as_it_is(enliven):
    model = create("supervit-micro", 3, 2, window=24, patching="multi")
    assert [conv.kernel_size[0] for conv in model.trunk.embeddings] == [6, 4, 3]
    enliven(model, 1)
    maps = noise(1, 3, 24, 24).float()
    with torch.no_grad():
        for size, kernel in enumerate((6, 4, 3)):
            tokens = model.trunk.embed(maps, size) - model.trunk.positions[size]
            conv = model.trunk.embeddings[size]
            expected = torch.einsum("bij,obij->o", maps[0, :, kernel : 2 * kernel, :kernel], conv.weight) + conv.bias
            torch.testing.assert_close(tokens[0, 1 + 24 // kernel], expected, rtol=1e-4, atol=1e-5)
    # where the patches do not divide the window, it is resized to the next whole number of them
    assert [create("supervit-micro", 1, 2, patching="multi").trunk.image_side(size) for size in range(3)] == [
        16,
        18,
        16,
    ]
    shared = create("supervit-micro", 1, 2)
    assert [shared.trunk.image_side(size) for size in range(3)] == [8, 12, 16]
    assert len(shared.trunk.embeddings) == 1


@pytest.mark.parametrize("patching", ["resize", "multi"])
@pytest.mark.parametrize("kind", [SuperVit, SuperVitDense])
def test_over_all_points_every_parameter_gets_a_gradient(kind, patching):
    torch.manual_seed(0)
    model = kind(3, 4, shape=micro_shape(16, patching), window=16)
    for point in model.operating_points:
        model(noise(2, 3, 16, 16).float(), None, point).square().sum().backward()
    assert len(model.operating_points) == 9
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in model.parameters())
    assert model.inert_parameters == frozenset()


@pytest.mark.parametrize("kind", [SuperVit, SuperVitDense])
def test_a_point_is_chosen_at_call_time_and_by_default(kind, enliven):
    model = kind(2, 3, shape=micro_shape(16), window=16)
    lively(model, enliven)
    assert model.operating_point() == OperatingPoint(2, 1.0)
    assert model.operating_point(tokens=6, keep=0.7) == OperatingPoint(1, 0.7)
    assert model.operating_point(size_index=0) == OperatingPoint(0, 1.0)
    features = noise(2, 2, 16, 16)
    with torch.no_grad():
        answers = [model(features, None, point) for point in model.operating_points]
        assert torch.equal(model(features), answers[-1])
        assert all(not torch.equal(a, b) for a, b in pairwise(answers))
        model.default_point = model.operating_point(tokens=4, keep=0.5)
        assert torch.equal(model(features), answers[0])
        assert model.operating_point(tokens=6) == OperatingPoint(1, 0.5)
    with pytest.raises(UsageError, match="Choose one of 4, 6, 8"):
        model.operating_point(tokens=5)
    with pytest.raises(UsageError, match="index from 0 to 2"):
        model.operating_point(size_index=3)
    with pytest.raises(UsageError, match="index from 0 to 2"):
        model.operating_point(size_index=-1)
    with pytest.raises(UsageError, match="Give one"):
        model.operating_point(size_index=1, tokens=6)
    for keep in (0, 1.01, float("nan")):
        with pytest.raises(UsageError, match="keeping rate"):
            model.operating_point(keep=keep)


def test_a_tile_is_mapped_at_the_default_point(enliven):
    torch.manual_seed(0)
    model = lively(create("supervit-micro", 2, 3, window=8), enliven)
    model.default_point = model.operating_point(tokens=6, keep=0.7)
    features = noise(1, 2, 12, 12)
    answers = model.tile_probabilities(features)
    with torch.no_grad():
        expected = model(features[:, :, 1:9, 2:10], None, model.default_point).softmax(1)
    torch.testing.assert_close(answers[:, :, 1, 2], expected)


def test_what_was_not_observed_is_the_mean_in_the_dense_form_too(enliven):
    model = SuperVitDense(2, 3, shape=micro_shape(16), window=16, layers=2, band_layer=[0, 1])
    model = lively(model, enliven)
    model.set_normalisation(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 0.25]))
    features = noise(1, 2, 16, 16)
    observed = torch.ones(1, 2, 16, 16, dtype=torch.bool)
    observed[:, 1, :, :5] = False
    as_nan, as_mean = features.clone(), features.clone()
    as_nan[:, 1, :, :5], as_mean[:, 1, :, :5] = torch.nan, 2.0
    with torch.no_grad():
        hidden = model(features, observed)
        assert bool(torch.isfinite(hidden).all())
        assert torch.equal(hidden, model(as_nan))
        assert torch.equal(hidden, model(as_mean))
        assert not torch.equal(hidden, model(features))


@pytest.mark.parametrize("point", [None, OperatingPoint(0, 0.5)])
def test_wrong_shapes_are_refused_with_advice(point):
    window = create("supervit-micro", 2, 3)
    dense = SuperVitDense(2, 3, shape=micro_shape(16), window=16)
    for model in (window, dense):
        with pytest.raises(UsageError, match="2 bands"):
            model(torch.zeros(1, 3, 16, 16), None, point)
        with pytest.raises(UsageError, match="bool"):
            model(torch.zeros(1, 2, 16, 16), torch.ones(1, 1, 16, 16), point)
    with pytest.raises(UsageError, match="window 16"):
        window(torch.zeros(1, 2, 8, 8), None, point)
    with pytest.raises(UsageError, match="16 x 16"):
        dense(torch.zeros(1, 2, 8, 8), None, point)


@pytest.mark.parametrize(
    "wrong", [{"heads": 3}, {"depth": 3}, {"patching": "both"}, {"tokens": ()}, {"tokens": (4, 4)}, {"tokens": (0, 2)}]
)
def test_shapes_that_cannot_be_are_refused(wrong):
    with pytest.raises(RecipeError):
        Shape(**{"tokens": (2, 4), "patch": 2, "width": 8, "depth": 4, "heads": 2, **wrong})


def test_weights_missing_left_over_or_of_another_shape_are_refused():
    model = SuperVit(16, 7, shape=TINY, window=32)
    state = model.state_dict()
    given = {there: torch.zeros(state[here].shape) for there, here in reference_names(model).items()}
    load_reference(model, given)
    assert not any(bool(p.any()) for p in model.parameters())
    with pytest.raises(BundleError, match="left over: dist_token"):
        load_reference(model, {**given, "dist_token": torch.zeros(1)})
    with pytest.raises(BundleError, match="missing or left over: head"):
        load_reference(model, {key: value for key, value in given.items() if key != "head.bias"})
    with pytest.raises(BundleError, match=r"pos_embed_list\.1"):
        load_reference(model, {**given, "pos_embed_list.1": torch.zeros(1, 36, 48)})
    with pytest.raises(BundleError, match="'resize'"):
        load_reference(SuperVit(16, 7, shape=micro_shape(32, "multi"), window=32), given)


def test_the_draws_are_seeded_and_in_order():
    def drawn(seed: int) -> list[Choices]:
        generator = np.random.default_rng(seed)
        return [draw_choices(4, generator) for _ in range(100)]

    found = drawn(5)
    assert found == drawn(5) != drawn(6)
    assert {(c.largest_keep, c.smaller, c.smaller_keep) for c in found} == {
        (first, size, second) for first in (0.5, 0.7) for size in range(3) for second in (0.5, 0.7)
    }
    again, rates = np.random.default_rng(5), (0.5, 0.7)
    for choices in found:
        assert choices.largest_keep == rates[again.integers(2)]
        assert choices.smaller == again.integers(3)
        assert choices.smaller_keep == rates[again.integers(2)]
    with pytest.raises(TrainingError, match="two sizes"):
        draw_choices(1, again)
    with pytest.raises(TrainingError, match="below 1"):
        draw_choices(4, again, keep_rates=[1.0])


def test_the_divergence_is_a_mean_over_samples_and_pixels():
    student, teacher = noise(2, 3, 4, 5), noise(2, 3, 4, 5, seed=1)
    flat = [maps.permute(0, 2, 3, 1).reshape(-1, 3) for maps in (student, teacher)]
    expected = F.kl_div(flat[0].log_softmax(1), flat[1].softmax(1), reduction="batchmean")
    torch.testing.assert_close(divergence(student, teacher), expected)
    assert float(divergence(student, student)) == pytest.approx(0, abs=1e-15)


def test_the_dense_form_is_trained_on_partly_labelled_tiles_and_learns():
    torch.manual_seed(0)
    model = SuperVitDense(2, 2, shape=micro_shape(16), window=16)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    features = noise(4, 2, 16, 16).float()
    target = (features[:, 0] > 0).long()
    target[:, :, ::2] = 255
    batch = (features, torch.ones(4, 1, 16, 16, dtype=torch.bool), target)
    generator = np.random.default_rng(0)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        choices = draw_choices(3, generator)
        losses.append(super_step(model, batch, lambda a, b: F.cross_entropy(a, b, ignore_index=255), choices))
        optimiser.step()
    assert float(losses[-1].largest) < 0.5 * float(losses[0].largest)
    assert float(losses[-1].smaller) < 0.5 * float(losses[0].smaller)
    assert all(torch.isfinite(torch.stack(list(step))).all() for step in losses)
    assert not any(loss.requires_grad for loss in losses[-1])


def test_a_step_is_the_same_to_the_bit_under_strict_determinism():
    def gradients() -> list[Tensor | None]:
        torch.manual_seed(0)
        model = SuperVitDense(2, 2, shape=micro_shape(16), window=16)
        batch = (noise(2, 2, 16, 16).float(), torch.ones(2, 1, 16, 16, dtype=torch.bool), torch.zeros(2, 16, 16).long())
        super_step(model, batch, F.cross_entropy, Choices(0.5, 1, 0.7))
        return [p.grad for p in model.parameters()]

    torch.use_deterministic_algorithms(True)
    try:
        first, second = gradients(), gradients()
    finally:
        torch.use_deterministic_algorithms(False)
    assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("point", [None, OperatingPoint(1, 0.5)])
def test_it_can_be_exported(point):
    torch.manual_seed(0)
    model = create("supervit-micro", 2, 3).eval()
    features = noise(2, 2, 16, 16).float()
    model.default_point = model.default_point if point is None else point
    program = torch.export.export(model, (features,))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(features), model(features))
