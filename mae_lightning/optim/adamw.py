"""AdamW as everything but linear probing uses it (Loshchilov and Hutter 2017, arXiv 1711.05101)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch.optim import AdamW

FUSED_ON = ("cuda", "cpu")


def build_adamw(
    groups: Iterable[dict[str, Any]], *, lr: float, betas: tuple[float, float], device: torch.device
) -> AdamW:
    """The AdamW of torch, in one kernel where the device has it.

    The kernel could undo the scale of fp16's gradients by itself. Lightning then refuses to clip gradients, under bf16
    too, which has no scale, and their norm would be logged with it: here the scale is undone before the step.
    """
    optimizer = AdamW(groups, lr=lr, betas=betas, fused=device.type in FUSED_ON)
    optimizer._step_supports_amp_scaling = False
    return optimizer
