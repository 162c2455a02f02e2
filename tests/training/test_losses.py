from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from wetmap.recipe import Training
from wetmap.training.losses import Criterion, in_full, labelled_count, make_criterion, shares
from wetmap.training.tiles import IGNORE

#: Two samples: the model gives the true class 0.8 and 0.4.
CHANCES = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.4, 0.4]], dtype=torch.float64)
TARGET = torch.tensor([0, 1])


def problem(seed: int, *, dense: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, a target with some unlabelled, weights with a class that counts nothing."""
    generator = torch.Generator().manual_seed(seed)
    shape = (5, 3, 4, 4) if dense else (20, 3)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 3, (shape[0], *shape[2:]), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.3] = IGNORE
    target.view(-1)[0] = 1
    return logits, target, torch.tensor([0.5, 2.0, 0.0], dtype=torch.float64)


def test_cross_entropy_and_focal_loss_by_hand() -> None:
    logits = CHANCES.log()
    plain, focal = -np.log([0.8, 0.4]), -np.log([0.8, 0.4]) * np.array([0.2, 0.6]) ** 2
    assert float(Criterion()(logits, TARGET)) == pytest.approx(plain.mean())
    assert float(Criterion(gamma=2.0)(logits, TARGET)) == pytest.approx(focal.mean())
    weight = torch.tensor([3.0, 1.0, 1.0], dtype=torch.float64)
    assert float(Criterion(weight, gamma=2.0)(logits, TARGET)) == pytest.approx((3 * focal[0] + focal[1]) / 4)


@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([0.0, 0.1]), st.booleans())
@settings(deadline=None, max_examples=40)
def test_hard_labels_and_their_shares_are_one_and_pytorchs(
    seed: int, dense: bool, smoothing: float, weighted: bool
) -> None:
    logits, target, weight = problem(seed, dense=dense)
    criterion = Criterion(weight if weighted else None, smoothing=smoothing)
    expected = F.cross_entropy(
        logits, target, weight if weighted else None, ignore_index=IGNORE, label_smoothing=smoothing
    )
    torch.testing.assert_close(criterion(logits, target), expected)
    torch.testing.assert_close(criterion(logits, shares(target, 3)), expected)
    none = Criterion(weight if weighted else None, smoothing=smoothing, gamma=1e-12)
    torch.testing.assert_close(none(logits, target), expected)


@given(st.integers(0, 10**6), st.floats(0, 1), st.sampled_from([0.0, 2.0]))
@settings(deadline=None, max_examples=40)
def test_mixed_labels_blend_the_losses(seed: int, share: float, gamma: float) -> None:
    """Where everything is labelled and no class weighs more: lam loss(a) + (1 - lam) loss(b)."""
    logits, _, _ = problem(seed, dense=True)
    generator = torch.Generator().manual_seed(seed + 1)
    one, other = (torch.randint(0, 3, (5, 4, 4), generator=generator) for _ in range(2))
    criterion = Criterion(gamma=gamma, smoothing=0.1)
    mixed = criterion(logits, share * shares(one, 3) + (1 - share) * shares(other, 3))
    expected = share * criterion(logits, one) + (1 - share) * criterion(logits, other)
    torch.testing.assert_close(mixed, expected, check_dtype=False, rtol=1e-5, atol=1e-6)  # shares are float32


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_what_is_not_labelled_does_not_matter(gamma: float) -> None:
    logits, target, weight = problem(0, dense=True)
    criterion = Criterion(weight, gamma=gamma, smoothing=0.1)
    elsewhere = (target == IGNORE).unsqueeze(1)
    torch.testing.assert_close(criterion(logits, target), criterion(torch.where(elsewhere, 50.0, logits), target))
    logits.requires_grad_()
    criterion(logits, target).backward()
    assert logits.grad is not None
    assert float(logits.grad[elsewhere.expand_as(logits)].abs().max()) == 0


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("soft", [False, True])
def test_nothing_labelled_and_certainty_give_numbers(gamma: float, soft: bool) -> None:
    criterion = Criterion(gamma=gamma)
    nothing = torch.full((2, 3, 3), IGNORE)
    logits = torch.tensor([[90.0, -90.0], [-90.0, 90.0]])[:, :, None, None].expand(2, 2, 3, 3).clone().requires_grad_()
    for target in (nothing, torch.zeros(2, 3, 3, dtype=torch.int64)):
        loss = criterion(logits, shares(target, 2) if soft else target)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()
    assert float(criterion(logits, nothing).detach()) == 0


def test_focal_loss_counts_what_is_sure_less() -> None:
    logits = CHANCES.log().requires_grad_()
    sure, unsure = (
        torch.autograd.grad(Criterion(gamma=gamma)(logits, TARGET), logits)[0].abs().sum(1) for gamma in (0.0, 2.0)
    )
    assert unsure[0] / unsure[1] < 0.5 * sure[0] / sure[1]


def test_the_recipe_says_which() -> None:
    plain = make_criterion(Training(label_smoothing=0.2, focal_gamma=3.0), None)
    assert (plain.smoothing, plain.gamma, plain.weight) == (0.2, 0.0, None)
    assert make_criterion(Training(loss="focal", focal_gamma=3.0), None).gamma == 3.0


def test_counting_labels_and_half_precision() -> None:
    target = torch.tensor([[[0, IGNORE], [2, 1]]])
    assert labelled_count(target) == 3
    assert labelled_count(shares(target, 3) * 0.5) == 1.5
    logits = torch.randn(4, 3).bfloat16()
    assert in_full(logits).dtype == torch.float32
    assert Criterion(torch.ones(3))(logits, torch.zeros(4, dtype=torch.int64)).dtype == torch.float32
