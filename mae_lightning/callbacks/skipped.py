"""Samples that could not be read, counted over all processes."""

import logging

import torch.distributed
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from mae_lightning.data import data_of

log = logging.getLogger(__name__)

Skipped = dict[tuple[str, int], str]
"""By split and index of the sample, the line that names it."""


class SkippedSamples(Callback):
    """Adds up what the processes skipped at the end of each pass over data, and stops all when it is more than allowed.

    Between two such moments each process holds ``max_bad_samples`` against its own samples.
    """

    def __init__(self) -> None:
        self._told: Skipped = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Names the new ones of every process on the first and compares the total with the limit.

        Raises:
            ValueError: There are more than the limit, on every process.
        """
        data = data_of(trainer)
        if data is None or data.bad_samples.limit == 0:
            return
        skipped = _of_all_processes(data.bad_samples.seen)
        new = {place: line for place, line in skipped.items() if place not in self._told}
        self._told = skipped
        if new and trainer.is_global_zero:
            lines = "".join(f"\n  {line}" for line in new.values())
            log.warning("%d samples skipped so far; new in this pass, over all processes:%s", len(skipped), lines)
        pl_module.log("skipped_samples", float(len(skipped)), rank_zero_only=True)
        if len(skipped) > data.bad_samples.limit:
            raise ValueError(
                f"{next(iter(new.values()))} ({len(skipped)} bad samples over all processes, and max_bad_samples is"
                f" {data.bad_samples.limit})"
            )

    on_validation_epoch_end = on_train_epoch_end
    on_test_epoch_end = on_train_epoch_end


def _of_all_processes(own: Skipped) -> Skipped:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return dict(own)
    parts: list[Skipped] = [{}] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, own)
    return {place: line for part in parts for place, line in sorted(part.items())}
