"""How the learning rate moves during training."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine(optimizer: Optimizer, warmup_steps: int, total_steps: int, min_lr_ratio: float = 0.0) -> LambdaLR:
    """Linear rise from zero, then half a cosine down (paper Tables 8 and 9), to be stepped after every optimiser step.

    Every parameter group keeps its own peak, so that the schedule goes with layer-wise rates.

    Args:
        optimizer: Its groups' learning rates are the peaks.
        warmup_steps: Optimiser steps of the rise.
        total_steps: Optimiser steps of the whole run; the rate stays at its last value after them.
        min_lr_ratio: The last learning rate over the peak.

    Raises:
        ValueError: The warm-up does not end before the run does.
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"a warm-up of {warmup_steps} steps does not fit a run of {total_steps}; train longer or warm up less"
        )

    def factor(step: int) -> float:
        if step < warmup_steps:
            return step / warmup_steps
        progress = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))
        return min_lr_ratio + (1 - min_lr_ratio) * (1 + math.cos(math.pi * progress)) / 2

    return LambdaLR(optimizer, factor)
