"""Two arms run with the same seeds: their difference, and whether it is one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

CONFIDENCE = 0.95


@dataclass(frozen=True)
class PairedDifference:
    """The mean difference of pairs with its confidence interval after Student's t distribution.

    Attributes:
        mean: First less second, in the units of the values.
        half_width: Half of the interval's width; infinite for a single pair.
        pairs: Number of pairs.
    """

    mean: float
    half_width: float
    pairs: int

    @property
    def is_tie(self) -> bool:
        """Whether the interval holds 0."""
        return abs(self.mean) <= self.half_width


def paired_difference(first: Sequence[float], second: Sequence[float]) -> PairedDifference:
    """The difference of values that were made in pairs, with its 95 % interval.

    Raises:
        ValueError: There are no pairs, or one side has more values.
    """
    if not first or len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} values make no pairs; each needs its counterpart")
    differences = [one - other for one, other in zip(first, second, strict=True)]
    pairs = len(differences)
    if pairs == 1:
        return PairedDifference(differences[0], math.inf, 1)
    error = stdev(differences) / math.sqrt(pairs)
    return PairedDifference(mean(differences), error * t_quantile((1 + CONFIDENCE) / 2, pairs - 1), pairs)


def t_quantile(probability: float, degrees: int) -> float:
    """The value below which Student's t falls with a probability of at least one half, by bisection.

    The distribution function of a whole number of degrees of freedom is a finite sum (Abramowitz and Stegun 26.7.3, 4).
    """
    low, high = 0.0, 1.0
    while _t_distribution(high, degrees) < probability:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_distribution(middle, degrees) < probability else (low, middle)
    return high


def _t_distribution(value: float, degrees: int) -> float:
    """Chance of a value below this one, which is positive."""
    angle = math.atan(value / math.sqrt(degrees))
    term, total = math.cos(angle) if degrees % 2 else 1.0, 0.0
    for k in range(1 + degrees % 2, degrees, 2):
        total += term
        term *= math.cos(angle) ** 2 * k / (k + 1)
    inside = math.sin(angle) * total
    return 0.5 + (inside / 2 if degrees % 2 == 0 else (angle + inside) / math.pi)
