"""Rounds in which all contenders take turns, so that all of them see the same machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mae_lightning.data.benchmark import Cost
from mae_lightning.planning.benchmark.apart import Apart
from mae_lightning.planning.benchmark.contender import PARTS, Contender, Turn, noise
from mae_lightning.planning.benchmark.rates import copy_rate, matrix_rate

FRESH = 8
"""Batches of noise a round; a turn of more steps goes through them again."""


@dataclass
class Rounds:
    """What was measured, a value a round.

    Attributes:
        turns: By contender.
        matrix_rates: Operations a second, by precision.
        copy_rates: Bytes a second.
    """

    turns: dict[str, list[Turn]] = field(default_factory=dict)
    matrix_rates: dict[str, list[float]] = field(default_factory=dict)
    copy_rates: list[float] = field(default_factory=list)

    def seconds(self, title: str) -> list[float]:
        """Of a contender's step."""
        return [turn.seconds for turn in self.turns[title]]

    def parts(self, title: str) -> dict[str, Cost]:
        """Seconds of each part of a contender's step, the parts in their order."""
        turns = self.turns[title]
        return {part: Cost.of([turn.parts[part] for turn in turns]) for part in PARTS if part in turns[0].parts}

    def pace(self, title: str, batch_size: int) -> Cost:
        """Images a second."""
        return Cost.of([batch_size / seconds for seconds in self.seconds(title)])

    def ratio(self, fast: str, slow: str) -> Cost:
        """Of the paces of two, a quotient for each round."""
        pairs = zip(self.seconds(fast), self.seconds(slow), strict=True)
        return Cost.of([theirs / ours for ours, theirs in pairs])

    def matrix_share(self, title: str, precision: str, flops: float) -> Cost:
        """Of the rate of large matrix products in the same round that a step of so many operations reaches."""
        pairs = zip(self.seconds(title), self.matrix_rates[precision], strict=True)
        return Cost.of([flops / seconds / rate for seconds, rate in pairs])

    def copy_share(self, title: str, moved: float) -> Cost:
        """Of the rate of large copies in the same round that a step reaches that moves so many bytes."""
        pairs = zip(self.seconds(title), self.copy_rates, strict=True)
        return Cost.of([moved / seconds / rate for seconds, rate in pairs])


def measure(
    contenders: Mapping[str, Contender | Apart], steps: Mapping[str, int], batch_size: int, rounds: int
) -> Rounds:
    """Times all contenders on the same fresh noise, and the device beside them.

    Args:
        contenders: By their titles; warm.
        steps: Of a turn.
        batch_size: Images.
        rounds: How many. Who begins changes from one to the next.
    """
    found = Rounds({title: [] for title in contenders})
    titles = list(contenders)
    some = contenders[titles[0]]
    precisions = sorted({contender.way.precision for contender in contenders.values()})
    for number in range(rounds):
        images = [noise(some.image_shape, batch_size) for _ in range(min(FRESH, max(steps.values())))]
        turn = number % len(titles)
        for title in titles[turn:] + titles[:turn]:
            found.turns[title].append(contenders[title].turn(images, steps[title]))
        for precision in precisions:
            found.matrix_rates.setdefault(precision, []).append(matrix_rate(some.device, precision))
        found.copy_rates.append(copy_rate(some.device))
    return found
