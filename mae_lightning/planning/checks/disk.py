"""Whether the checkpoints to come will fit where the run's folder lies."""

import os
import resource
import shutil
from pathlib import Path

from torch import nn

from mae_lightning.planning.checks.finding import Finding, readable

COPIES = 3
"""The last checkpoint, the one before it, and the one being written: see `strategies.durable`."""
MOMENTS = 2
"""State that AdamW keeps of each weight that trains, in the weights' size."""
BESIDE = 2**20
"""Bytes for metrics, config and pictures of the first epochs."""


def state_bytes(model: nn.Module, averages: int = 0) -> int:
    """Bytes of a checkpoint: weights and buffers, AdamW's moments, and averages of the weights.

    Args:
        model: On any device, ``meta`` too.
        averages: Further copies of the weights, such as an exponential moving average.
    """
    weights: int = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    trained: int = sum(value.numel() * value.element_size() for value in model.parameters() if value.requires_grad)
    return weights * (1 + averages) + MOMENTS * trained


def training_bytes(model: nn.Module) -> int:
    """Bytes on a device before the first activation: weights, gradients, AdamW's moments."""
    return state_bytes(model) + sum(
        value.numel() * value.element_size() for value in model.parameters() if value.requires_grad
    )


def check_disk(folder: Path, checkpoint: int, copies: int = COPIES, free: int | None = None) -> Finding:
    """Whether the checkpoints fit.

    Args:
        folder: Of the run; need not be there.
        checkpoint: Bytes of one.
        copies: How many lie there at once.
        free: Bytes to be had; None asks the file system.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return Finding("disk", False, f"{place} cannot be written to", "set --run.dir to a folder of yours")
    largest = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if largest != resource.RLIM_INFINITY and largest < checkpoint:
        return Finding(
            "disk",
            False,
            f"files may have {readable(largest)} here, and a checkpoint has {readable(checkpoint)}",
            "raise the limit: ulimit -f unlimited",
        )
    free = shutil.disk_usage(place).free if free is None else free
    present = sum(path.stat().st_size for path in (folder / "checkpoints").rglob("*") if path.is_file())
    needed = max(checkpoint, checkpoint * copies - present) + BESIDE
    text = f"{readable(free)} free in {place}, {copies} checkpoints of {readable(checkpoint)} take {readable(needed)}"
    if free < needed:
        return Finding("disk", False, text, "free some, or set --run.dir to a larger disk")
    return Finding("disk", True, text)
