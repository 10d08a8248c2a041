"""Figures of a classifier over a whole data set, each sample counted once."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from mae_lightning.evaluation.wide import WideMean

TOP_K = 5
IGNORED = -1
"""The label of rows that do not count."""


class ClassificationMetrics(nn.Module):
    """Top-1 and top-5 accuracy, cross-entropy and, on request, the confusion matrix; sums add up over processes.

    Args:
        num_classes: Number of classes; with five or fewer, top-5 says nothing and is left out.
        confusion_matrix: Whether to count which class is taken for which.
    """

    def __init__(self, num_classes: int, *, confusion_matrix: bool = False) -> None:
        super().__init__()
        self.loss = WideMean().set_dtype(torch.float64)
        ranks = {"accuracy": 1} | ({f"top{TOP_K}": TOP_K} if num_classes > TOP_K else {})
        common: dict[str, Any] = {"num_classes": num_classes, "ignore_index": IGNORED}
        metrics = {name: MulticlassAccuracy(top_k=k, average="micro", **common) for name, k in ranks.items()}
        self.accuracies = MetricCollection(dict(metrics), compute_groups=False)
        self.confusion = MulticlassConfusionMatrix(**common) if confusion_matrix else None

    def update(
        self, logits: Float[Tensor, "batch class"], labels: Int64[Tensor, "batch"], valid: Bool[Tensor, "batch"]
    ) -> None:
        """Adds a batch; rows marked invalid do not count.

        Raises:
            ValueError: A row that counts has no label.
        """
        if bool((valid & (labels < 0)).any()):
            raise ValueError("a held-out image has no label; classification needs every one labelled")
        logits, labels = logits.float(), labels.masked_fill(~valid, IGNORED)
        losses = F.cross_entropy(logits, labels, reduction="none", ignore_index=IGNORED)
        self.loss.update(losses.double(), valid.double())
        self.accuracies.update(logits, labels)
        if self.confusion is not None:
            self.confusion.update(logits, labels)

    def compute(self) -> dict[str, Tensor]:
        """The figures by name; the confusion matrix is in :attr:`confusion`."""
        return self.accuracies.compute() | {"loss": self.loss.compute().float()}

    def reset(self) -> None:
        """Forgets what was added."""
        self.loss.reset()
        self.accuracies.reset()
        if self.confusion is not None:
            self.confusion.reset()
