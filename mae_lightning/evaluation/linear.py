"""Linear probe on cached features: many learning rates at once, chosen on a hold-out of the training set.

Not the papers' linear probing, which augments and normalises by batch: that one is a training run of its own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from mae_lightning.data.subsets import hold_out
from mae_lightning.evaluation.features import Labelled

LEARNING_RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
HOLD_OUT = 0.2
"""Share of the training labels that choose the learning rate."""


@dataclass(frozen=True)
class Probe:
    """What a probe came to.

    Attributes:
        accuracy: On the queries, fitted on all training labels with the learning rate chosen.
        chosen_lr: The one that is best on the hold-out.
        hold_out_accuracy: Of every learning rate, fitted on the rest.
    """

    accuracy: float
    chosen_lr: float
    hold_out_accuracy: dict[float, float]


def linear_probe(
    bank: Labelled,
    queries: Labelled,
    *,
    learning_rates: Sequence[float] = LEARNING_RATES,
    num_steps: int = 1000,
    batch_size: int = 1024,
    seed: int = 0,
) -> Probe:
    """Chooses the learning rate on a hold-out of the bank, fits it again on the whole bank, and judges once.

    Features are standardised by those fitted on; SGD with momentum 0.9, cosine to zero, no weight decay.

    Raises:
        ValueError: Every class has a single sample, so that nothing can be held out.
    """
    fit, chosen_on = hold_out_split(bank, seed)
    schedule = {"num_classes": bank.num_classes, "num_steps": num_steps, "batch_size": batch_size, "seed": seed}
    scores = LinearClassifiers.fitted(fit, learning_rates, **schedule).accuracies(chosen_on)
    best = learning_rates[int(scores.argmax())]
    accuracy = LinearClassifiers.fitted(bank, [best], **schedule).accuracies(queries)
    return Probe(float(accuracy[0]), best, dict(zip(learning_rates, scores.tolist(), strict=True)))


@dataclass(frozen=True)
class LinearClassifiers:
    """Linear classifiers of the same features, one a learning rate.

    Attributes:
        center: Mean of the features fitted on.
        scale: Their deviation.
        weights: One matrix a learning rate; the last row is the bias.
    """

    center: Float[Tensor, "dim"]
    scale: Float[Tensor, "dim"]
    weights: Float[Tensor, "rate input class"]

    @classmethod
    def fitted(
        cls,
        data: Labelled,
        learning_rates: Sequence[float],
        *,
        num_classes: int,
        num_steps: int,
        batch_size: int,
        seed: int,
    ) -> "LinearClassifiers":
        """Starts at zero; every learning rate sees the same batches."""
        center, scale = data.features.mean(dim=0), data.features.std(dim=0, correction=0) + 1e-6
        inputs = _standardised(data.features, center, scale)
        rates = torch.tensor(learning_rates, device=inputs.device).view(-1, 1, 1)
        weights = inputs.new_zeros(len(learning_rates), inputs.shape[1], num_classes)
        momentum = torch.zeros_like(weights)
        generator = torch.Generator().manual_seed(seed)
        for step in range(num_steps):
            rows = torch.randint(len(inputs), (min(batch_size, len(inputs)),), generator=generator).to(inputs.device)
            momentum.mul_(0.9).add_(_gradient(weights, inputs[rows], data.labels[rows]))
            weights.sub_(rates * momentum * (1 + math.cos(math.pi * step / num_steps)) / 2)
        return cls(center, scale, weights)

    def accuracies(self, data: Labelled, chunk_size: int = 4096) -> Float[Tensor, "rate"]:
        """Accuracy of each classifier; memory stays at ``chunk_size`` x rates x classes."""
        right = torch.zeros(len(self.weights), dtype=torch.int64, device=data.labels.device)
        parts = (torch.split(values, chunk_size) for values in (data.features, data.labels))
        for features, labels in zip(*parts, strict=True):
            predicted = (_standardised(features, self.center, self.scale) @ self.weights).argmax(dim=-1)
            right += (predicted == labels).sum(dim=1)
        return right.float() / len(data)


def hold_out_split(bank: Labelled, seed: int) -> tuple[Labelled, Labelled]:
    """What to fit on, and what to choose on."""
    parts = hold_out(bank.labels.cpu().numpy(), HOLD_OUT, seed)
    fit, chosen_on = (bank[torch.from_numpy(rows).to(bank.labels.device)] for rows in parts)
    return fit, chosen_on


def _standardised(features: Tensor, center: Tensor, scale: Tensor) -> Float[Tensor, "sample input"]:
    return F.pad((features - center) / scale, (0, 1), value=1.0)


def _gradient(
    weights: Float[Tensor, "rate input class"], inputs: Float[Tensor, "batch input"], labels: Int64[Tensor, "batch"]
) -> Float[Tensor, "rate input class"]:
    """Of the mean cross-entropy, in closed form."""
    errors = (inputs @ weights).softmax(dim=-1)
    errors = errors - F.one_hot(labels, weights.shape[2]).to(errors.dtype)
    return inputs.T @ errors / len(inputs)
