"""The pace of training, and how much of it is waiting for data."""

import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class Throughput(Callback):
    """Logs images/s over all devices, and the share of wall time that the process waited for its next batch.

    Both are means since the last logged step; validation is left out. Nothing waits for the device: on an accelerator
    the pace is right once its queue is full, after a few steps.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        now = time.perf_counter()
        self._window_start, self._batch_end = now, now
        self._waited, self._paused, self._images = 0.0, 0.0, 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock anew: what lies between epochs is not training."""
        self._reset()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock."""
        self._pause_start = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Goes on."""
        pause = time.perf_counter() - self._pause_start
        self._paused += pause
        self._batch_end += pause

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The wait for this batch is over."""
        self._waited += time.perf_counter() - self._batch_end

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the batch, and logs when the trainer does."""
        self._batch_end = time.perf_counter()
        self._images += len(batch["index"]) * trainer.world_size
        elapsed = self._batch_end - self._window_start - self._paused
        pace = {"train/images_per_second": self._images / elapsed, "train/data_wait_share": self._waited / elapsed}
        pl_module.log_dict(pace)
        if trainer._logger_connector.should_update_logs:
            self._reset()
