"""What training minimises: cross-entropy or focal loss of hard or mixed labels, of windows or of part of a tile."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wetmap.recipe import Training
from wetmap.training.tiles import IGNORE


class Criterion(nn.Module):
    """The loss of logits: a mean over what is labelled, in which a sample of class k weighs ``weight[k]``.

    With q the target's share of each class and p the predicted probabilities, a sample's loss is
    ``-sum_k weight_k q_k (1 - p_k)^gamma log p_k``. Without gamma this is cross-entropy; for one class per sample it is
    the focal loss of Lin and others (2017), "Focal Loss for Dense Object Detection", arXiv:1708.02002, equation 5.
    Label smoothing takes a share of q and spreads it evenly over the classes, as PyTorch does.

    Args:
        weight: (K,) weight of each class; None: all 1.
        smoothing: Share of the label that is spread over all classes, 0-1.
        gamma: How much less is counted of what the model is sure of, at least 0.

    Example:
        >>> certain = torch.tensor([[0.8, 0.2]]).log()
        >>> target = torch.tensor([0])
        >>> f"{Criterion()(certain, target):.4f} {Criterion(gamma=2.0)(certain, target):.4f}"
        '0.2231 0.0089'
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, *, smoothing: float = 0.0, gamma: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.smoothing, self.gamma = smoothing, gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean loss, a scalar; 0 where nothing is labelled.

        Args:
            logits: (N, K) of windows or (N, K, h, w) of tiles.
            target: (N,) or (N, h, w) int64, class index or ``IGNORE``; or shares of the classes as ``shares`` makes and
                mixing blends them, shaped like the logits.
        """
        logits = in_full(logits)
        if target.is_floating_point() or self.gamma:
            target = target if target.is_floating_point() else shares(target, logits.shape[1])
            return self._of_shares(logits, target)
        # the same by PyTorch's own kernel, which is faster
        total = F.cross_entropy(
            logits, target, self.weight, ignore_index=IGNORE, label_smoothing=self.smoothing, reduction="sum"
        )
        return total / _positive(self.mass(target))

    def mass(self, target: Tensor) -> Tensor:
        """What the mean is over, a scalar: the weights of all that is labelled, added up."""
        if target.is_floating_point():
            of_class = target.transpose(0, 1).flatten(1).sum(1)
            return of_class.sum() if self.weight is None else (self.weight * of_class).sum()
        labelled = target != IGNORE
        return labelled.sum().float() if self.weight is None else self.weight[target[labelled]].sum()

    def _of_shares(self, logits: Tensor, target: Tensor) -> Tensor:
        weight = torch.ones(logits.shape[1], device=logits.device) if self.weight is None else self.weight
        weight = weight.view(-1, *[1] * (logits.ndim - 2))
        chance = logits.log_softmax(1)
        aim = (1 - self.smoothing) * target + self.smoothing / logits.shape[1] * target.sum(1, keepdim=True)
        each = -weight * aim * chance
        if self.gamma:
            # 1 - p without loss of digits; not quite 0, where the root of it would have no slope
            doubt = -torch.expm1(chance)
            each = each * doubt.clamp(min=torch.finfo(chance.dtype).eps) ** self.gamma
        return each.sum() / _positive(self.mass(target))


def make_criterion(settings: Training, weight: Tensor | None) -> Criterion:
    """The loss that a recipe asks for.

    Args:
        settings: The recipe's training part.
        weight: (K,) weight of each class; None: all 1.
    """
    gamma = settings.focal_gamma if settings.loss == "focal" else 0.0
    return Criterion(weight, smoothing=settings.label_smoothing, gamma=gamma)


def shares(target: Tensor, classes: int) -> Tensor:
    """Share of each class in labels: (N, ...) int64 to (N, K, ...) float32, 1 at the label, all 0 where ``IGNORE``."""
    labelled = (target != IGNORE).unsqueeze(-1)
    return (F.one_hot(target.clamp(min=0), classes) * labelled).movedim(-1, 1).float()


def in_full(logits: Tensor) -> Tensor:
    """Logits in float32 at least: a loss is a small difference of large numbers, which bfloat16 does not hold."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def labelled_count(target: Tensor) -> float:
    """How many samples or pixels a target labels; one that is labelled in part counts for that part."""
    return float(target.sum()) if target.is_floating_point() else int((target != IGNORE).sum())


def _positive(total: Tensor) -> Tensor:
    return total.clamp(min=torch.finfo(total.dtype).tiny)
