"""What can be said in milliseconds, on this machine alone, before a trainer is built."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from mae_lightning.data.module import ShardDataModule, workers_for
from mae_lightning.planning.checks import Finding
from mae_lightning.planning.checks.batch import check_batch, split_or_none
from mae_lightning.planning.checks.disk import COPIES, check_disk, state_bytes
from mae_lightning.planning.checks.limits import check_handles, check_shared_memory
from mae_lightning.planning.checks.ranks import (
    Launch,
    is_sharded,
    planned_local_ranks,
    planned_ranks,
    read_launch,
    reading_ranks,
)


def preflight(model: nn.Module, data: object, trainer: Mapping[str, Any], folder: Path) -> None:
    """Stops a run that this machine cannot hold, before anything is started.

    Args:
        model: What is trained.
        data: The data module.
        trainer: The plain settings of the Trainer.
        folder: Of the run.

    Raises:
        ValueError: Something will not do; names what to do.
    """
    if trainer.get("val_check_interval") == 0:
        raise ValueError("trainer.val_check_interval 0: give batches, at least 1, or a share of an epoch above 0.0")
    launch = read_launch()
    red = [finding for finding in quick_checks(model, data, trainer, folder, launch) if finding.ok is False]
    if red:
        told = "; ".join(part for finding in red for part in (finding.text, finding.cure) if part)
        is_first = launch.world_size == 1 and planned_ranks(trainer, launch) > 1  # of those that Lightning will start
        raise ValueError(f"rank 0: {told}" if is_first else told)


def quick_checks(
    model: nn.Module, data: object, trainer: Mapping[str, Any], folder: Path, launch: Launch
) -> list[Finding]:
    """Batch, disk, handles and shared memory; no network, nothing is written.

    Args:
        model: What is trained, on any device.
        data: The data module; of others than `ShardDataModule` the batches are not known.
        trainer: The plain settings of the Trainer.
        folder: Of the run.
        launch: This process.
    """
    found = []
    if isinstance(data, ShardDataModule) and "train" in data.sources:
        found += _loading(model, data, trainer, launch)
    if not trainer.get("fast_dev_run") and (launch.rank == 0 or is_sharded(trainer)):
        callbacks = configured_callbacks(trainer)
        size = state_bytes(model, averages=sum(_is_average(name) for name, _ in callbacks))
        kept = sum(kept_by(name, arguments, trainer) for name, arguments in callbacks)
        found.append(check_disk(folder, size, COPIES + kept))
    return found


def _loading(model: nn.Module, data: ShardDataModule, trainer: Mapping[str, Any], launch: Launch) -> list[Finding]:
    ranks, local_ranks = reading_ranks(trainer, launch), planned_local_ranks(trainer, launch)
    accumulation = accumulation_of(trainer)
    batch = check_batch(
        data.global_batch_size,
        ranks,
        accumulation,
        data.max_micro_batch_size,
        len(data.sources["train"].manifest),
        getattr(model, "lr_rule", None),
        data.repeats,
    )
    workers = workers_for(data.num_workers, local_ranks)
    found = [batch, check_handles(workers)]
    parts = split_or_none(data.global_batch_size, ranks, accumulation, data.max_micro_batch_size, data.repeats)
    if parts is not None:
        sizes = (data.image_size, *data.image_size_by_epoch.values())
        image = replace(data.evaluate, image_size=max(sizes, key=math.prod)).blank(1)
        found.append(check_shared_memory(workers, local_ranks, parts[0] * image.nbytes))
    return found


def accumulation_of(trainer: Mapping[str, Any]) -> int | None:
    """Micro-batches a step, where the settings say it; otherwise they follow from the global batch."""
    asked = int(trainer.get("accumulate_grad_batches") or 1)
    return asked if asked > 1 else None


def configured_callbacks(trainer: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Class name and arguments of each callback in the plain settings."""
    given = trainer.get("callbacks") or []
    given = given if isinstance(given, list) else [given]
    return [(str(one["class_path"]).rpartition(".")[2], one.get("init_args") or {}) for one in given]


def kept_by(name: str, arguments: Mapping[str, Any], trainer: Mapping[str, Any]) -> int:
    """Checkpoints that one more callback keeps, beside the run's own."""
    if name != "ModelCheckpoint":
        return 0
    best = arguments.get("save_top_k", 1)
    if best == -1:  # all of them
        epochs, every = trainer.get("max_epochs") or 1, arguments.get("every_n_epochs") or 1
        best = math.ceil(max(1, epochs) / max(1, every))
    return int(best) + bool(arguments.get("save_last"))


def _is_average(name: str) -> bool:
    return name.endswith(("EMA", "WeightAveraging"))
