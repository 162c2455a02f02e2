"""WetMapFormer's window classifier at every pixel of a tile, neighbouring windows sharing their work.

Equal to classifying each window on its own but for rounding. ``docs/explanation/fast-mapping.md`` has the reasoning and
the figures.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from wetmap.models.wetmapformer.network import WetMapFormer
from wetmap.models.wetmapformer.shared_front import Front, Maps
from wetmap.models.wetmapformer.shared_head import STEM_STRIDE, WINDOW, FoldedHead
from wetmap.models.windows import BATCH_PIXELS

#: Smallest window whose first, last and middle positions are those that the front tells apart.
LEAST_WINDOW = 6


def can_share(window: int) -> bool:
    """Whether the shared evaluation is for windows of this side, pixels."""
    return window >= LEAST_WINDOW and window % 2 == 0


def is_folded(model: WetMapFormer) -> bool:
    """Whether the layers after the shared maps are folded too, which only a window of one side and one stem allow."""
    return model.window == WINDOW and model.wiring.stem_stride == STEM_STRIDE


class SharedForm:
    """Folded weights of a model at one moment.

    Args:
        model: In evaluation mode, of a window that ``can_share`` allows; it is not changed, and not followed either.
    """

    @torch.no_grad()
    def __init__(self, model: WetMapFormer) -> None:
        like = model.head.weight
        self._dtype = like.dtype
        exact = copy.deepcopy(model).to("cpu", torch.float64)
        self._front = Front(exact.spectra, exact.extractor, model.bands, like)
        self._window = model.window
        self._head = FoldedHead(exact, like) if is_folded(model) else None

    def logits(self, model: WetMapFormer, normalised: Tensor) -> Tensor:
        """Logits of every window of a tile.

        Args:
            model: The model it was made from; not looked at where the head is folded.
            normalised: (C, T + window, T + window), dimensionless, without NaN.

        Returns:
            (T * T, K).
        """
        normalised = normalised.to(self._dtype)
        tile = normalised.shape[1] - self._window
        # no window reaches the last row
        maps = self._front(normalised[:, :-1])
        return self._head(maps, tile) if self._head is not None else _plain_head(model, maps, tile)


def _plain_head(model: WetMapFormer, maps: Maps, tile: int) -> Tensor:
    """The layers after pooling as they are, window by window."""
    side = model.window // 2
    batch = max(1, BATCH_PIXELS // model.window**2)
    rows = max(1, batch // tile)
    answers = []
    for first in range(0, tile, rows):
        count = min(rows, tile - first)
        pooled = maps.pooled.new_empty(count, tile, side, side, maps.pooled.shape[-1])
        skipped = torch.empty_like(pooled)
        for row in range(side):
            for column in range(side):
                here = maps.at(row, column, side, slice(first, first + count), tile)
                pooled[:, :, row, column], skipped[:, :, row, column] = here
        windows = [part.flatten(0, 1).permute(0, 3, 1, 2) for part in (pooled, skipped)]
        for start in range(0, count * tile, batch):
            some = (part[start : start + batch] for part in windows)
            answers.append(model.classify(model.extractor.decode(*some)))
    return torch.cat(answers)


def weights_now(model: nn.Module) -> tuple[object, ...]:
    """Something that changes when a weight or a statistic of a model does."""
    return tuple(
        (value.data_ptr(), 0 if value.is_inference() else value._version, value.dtype, value.device)  # noqa: SLF001
        for value in (*model.parameters(), *model.buffers())
    )
