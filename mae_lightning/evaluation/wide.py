"""Sums over a whole data set that stay as wide as they are."""

from collections.abc import Callable, Sequence
from typing import Any

from torchmetrics import MeanMetric, Metric

__all__ = ["WideMean", "WideMetric"]


class WideMetric(Metric):
    """A metric whose sums keep their type where a model's weights are made narrower.

    Under ``bf16-true`` Lightning casts a whole module by ``Module.to``, against which torchmetrics has no guard; and a
    count in bfloat16 ends at a few hundred. `set_dtype` works as ever.
    """

    def _apply(self, fn: Callable[..., Any], exclude_state: Sequence[str] = "") -> Any:
        if self._dtype_convert:
            return super()._apply(fn, exclude_state)
        kept = self._dtype
        moved = super()._apply(lambda tensor: fn(tensor).to(tensor.dtype), exclude_state)
        self._dtype = kept
        return moved


class WideMean(WideMetric, MeanMetric):
    """A weighted mean."""
