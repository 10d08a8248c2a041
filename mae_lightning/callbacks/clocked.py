"""Checkpoints by the clock."""

import time
from datetime import timedelta
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from mae_lightning.callbacks.votes import Votes


class ClockedCheckpoint(ModelCheckpoint):
    """Saves when some time has passed since it last did, at an optimiser step's end.

    Lightning has all processes ask the first one after every batch, for which each waits for its device. Here they vote
    while the next step runs, and Lightning asks only once the first process has said that it is time.

    Args:
        every: The time.
        options: For Lightning's.
    """

    def __init__(self, every: timedelta, **options: Any) -> None:
        super().__init__(train_time_interval=every, **options)
        self.every, self._votes = every, Votes()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the other processes."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and trainer.world_size > 1:
            self._votes.meet(trainer.strategy)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Votes, and saves if the vote before said so; one that it was too late for asks in vain."""
        if trainer.fit_loop._should_accumulate():
            return
        assert self._last_time_checked is not None
        passed = time.monotonic() - self._last_time_checked
        if self._votes.cast(trainer.is_global_zero and passed >= self.every.total_seconds()):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
