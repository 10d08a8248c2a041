"""Where a run stands, in global batches, and Lightning's own counters brought to the same place.

Lightning counts micro-batches of one rank, and its counters differ by the hook that saved. What is restored here is
always the state right after a whole optimiser step, whatever saved it and on whatever topology it goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mae_lightning.data.sources import Source

__all__ = ["Position", "align_loops", "check_same_data", "difference_of_data", "is_validation_pending"]

NAMED = 5
"""Most shards that a difference names."""


@dataclass(frozen=True)
class Position:
    """How far the training data has been used.

    Attributes:
        epoch: From 0.
        step: Global batches of that epoch already trained on.
        validation_pending: The validation due after that step has not finished.
    """

    epoch: int = 0
    step: int = 0
    validation_pending: bool = False


def is_validation_pending(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's last validation, if one was due, has not finished."""
    return bool(checkpoint.get("ShardDataModule", {}).get("position", {}).get("validation_pending"))


def check_same_data(saved: Mapping[str, Any], recipe: Mapping[str, Any], source: Source) -> None:
    """Makes sure that a run goes on with the samples that its checkpoint left, in the same order.

    Args:
        saved: What the data module wrote into the checkpoint.
        recipe: What the order depends on beside the data, in this run.
        source: This run's training data.

    Raises:
        ValueError: The order or the data are others; says how.
    """
    known = {"repeats": 1} | saved["recipe"]  # checkpoints of earlier versions know none
    for name, now in recipe.items():
        before = known.get(name)
        if before != now:
            raise ValueError(
                f"the checkpoint was made with {name} {before}, and this run has {now}:"
                " use the same, or begin a new run from its weights"
            )
    if saved["data"] != source.manifest.digest:
        change = difference_of_data(saved.get("parts", {}), source.manifest.parts)
        raise ValueError(
            f"the checkpoint was made on other training data than {source.name} is now: {change};"
            " begin a new run from its weights"
        )


def difference_of_data(before: Mapping[str, int], now: Mapping[str, int]) -> str:
    """What became of a checkpoint's data, in words: samples in all, and the shards that have other counts.

    Args:
        before: Samples of each shard, or folder of images, as the checkpoint knows them; empty if it does not.
        now: As they are.
    """
    if not before:
        return "it does not say which"
    changed = [
        f"{name}: {before.get(name, 'none')} -> {now.get(name, 'none')}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if not changed:
        return f"{sum(now.values())} samples in the same places, but others, or with other labels"
    more = [f"and {len(changed) - NAMED} more"] if len(changed) > NAMED else []
    total = f"{sum(before.values())} -> {sum(now.values())} samples"
    return f"{total}; {', '.join([*changed[:NAMED], *more])}"


def align_loops(fit_loop: dict[str, Any], position: Position, accumulation: int) -> None:
    """Rewrite the state of Lightning's fit loop, in place, to stand right after the position's last step.

    Args:
        fit_loop: The checkpoint's `loops.fit_loop`.
        position: Where the run stands.
        accumulation: Micro-batches a step in the run that goes on.
    """
    epoch, inside = position.epoch, position.step > 0
    begun = epoch + 1 if inside else epoch
    for counter in ("total", "current"):
        fit_loop["epoch_progress"][counter] = {"ready": begun, "started": begun, "processed": epoch, "completed": epoch}

    optimizer_steps = fit_loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"][
        "completed"
    ]
    batches = fit_loop["epoch_loop.batch_progress"]
    batches["total"] = _done(optimizer_steps * accumulation)
    batches["current"] = _done(position.step * accumulation)
    batches["is_last_batch"] = False  # it can tell by the count
    fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] = optimizer_steps

    validation = fit_loop["epoch_loop.val_loop.batch_progress"]
    begun_batches = int(position.validation_pending)  # one begun and none done makes Lightning validate from the start
    for counter in ("total", "current"):
        validation[counter] = {"ready": begun_batches, "started": begun_batches, "processed": 0, "completed": 0}
    validation["is_last_batch"] = False


def _done(count: int) -> dict[str, int]:
    return {"ready": count, "started": count, "processed": count, "completed": count}
