"""Few-shot accuracy by closed-form least squares (Dosovitskiy et al. 2020, Table 8; big_vision's protocol)."""

from dataclasses import dataclass
from statistics import mean, stdev

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from mae_lightning.data.plan import draw
from mae_lightning.data.subsets import labelled_part
from mae_lightning.evaluation.features import Labelled

BIAS = 100.0
"""The constant feature that stands for a bias."""
EPSILON = 1e-5
"""Added to the shots' deviation before dividing by it."""
RIDGE = 2.0**10
"""The one ridge weight, never chosen on data."""


@dataclass(frozen=True)
class FewShot:
    """Accuracy over several draws of the shots.

    Attributes:
        accuracies: One a draw.
    """

    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the draws."""
        return mean(self.accuracies)

    @property
    def deviation(self) -> float:
        """Standard deviation over the draws (n - 1)."""
        return stdev(self.accuracies)


def few_shot(
    bank: Labelled, queries: Labelled, *, shots: int = 5, num_draws: int = 10, ridge: float = RIDGE, seed: int = 0
) -> FewShot:
    """Fits on a few labelled samples a class, several times, and judges on all queries.

    Raises:
        ValueError: A class has fewer samples than shots.
    """
    labels = bank.labels.cpu().numpy()
    accuracies = []
    for number in range(num_draws):
        rows = labelled_part(labels, shots, draw(seed, "few-shot", number))
        part = bank[torch.from_numpy(rows).to(bank.labels.device)]
        scores = least_squares_scores(part.features, part.labels, queries.features, bank.num_classes, ridge)
        accuracies.append(float((scores.argmax(dim=1) == queries.labels).double().mean()))
    return FewShot(tuple(accuracies))


def least_squares_scores(
    shots: Float[Tensor, "shot dim"],
    labels: Int64[Tensor, "shot"],
    queries: Float[Tensor, "query dim"],
    num_classes: int,
    ridge: float,
) -> Float[Tensor, "query class"]:
    """Scores of a ridge regression to -1 and 1, features standardised by the shots; in double precision."""
    shots, queries = shots.double(), queries.double()
    center, scale = shots.mean(dim=0), shots.std(dim=0, correction=0) + EPSILON
    inputs, outputs = _with_bias((shots - center) / scale), 2.0 * F.one_hot(labels, num_classes).double() - 1
    normal = inputs.T @ inputs + ridge * torch.eye(inputs.shape[1], dtype=inputs.dtype, device=inputs.device)
    weights = torch.linalg.solve(normal, inputs.T @ outputs)
    scores: Tensor = _with_bias((queries - center) / scale) @ weights
    return scores


def _with_bias(features: Float[Tensor, "sample dim"]) -> Float[Tensor, "sample input"]:
    return F.pad(features, (0, 1), value=BIAS)
