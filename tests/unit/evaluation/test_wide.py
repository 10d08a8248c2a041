"""Sums over a data set, where the model around them becomes bfloat16."""

import pytest
import torch
from torch import nn

from mae_lightning.evaluation.accuracy import ClassificationMetrics
from mae_lightning.evaluation.baselines import PositionMeanLoss
from mae_lightning.evaluation.wide import WideMean

ROWS = 64


def narrowed(metric: nn.Module) -> nn.Module:
    """As Lightning makes a whole module narrow, and then moves it."""
    holder = nn.ModuleList([metric, nn.Linear(2, 2)]).to(dtype=torch.bfloat16).to("cpu")
    assert holder[1].weight.dtype == torch.bfloat16
    return holder[0]


def test_a_mean_of_many_is_a_mean() -> None:
    mean = narrowed(WideMean())
    for _ in range(500):
        mean.update(torch.full((ROWS,), 0.6), torch.ones(ROWS))
    assert float(mean.compute()) == pytest.approx(0.6, rel=1e-5)
    mean.reset()
    mean.update(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 1.0]))
    assert float(mean.compute()) == 2.0
    assert mean.set_dtype(torch.float64).mean_value.dtype == torch.float64


def test_a_classifiers_loss() -> None:
    metrics = narrowed(ClassificationMetrics(10))
    torch.manual_seed(0)
    logits, labels = torch.randn(ROWS, 10), torch.randint(10, (ROWS,))
    for _ in range(100):
        metrics.update(logits, labels, torch.ones(ROWS, dtype=torch.bool))
    expected = nn.functional.cross_entropy(logits, labels)
    assert float(metrics.compute()["loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_the_loss_of_the_mean_patch() -> None:
    torch.manual_seed(0)
    target = torch.randn(400, 3, 5)
    metric = narrowed(PositionMeanLoss(3, 5))
    metric.update(target, torch.ones(400, 3, dtype=torch.bool))
    assert float(metric.compute()) == pytest.approx(float(target.var(dim=0, correction=0).mean()), rel=1e-5)
