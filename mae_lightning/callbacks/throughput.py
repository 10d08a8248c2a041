"""The pace of training, and how much of it is waiting for data."""

import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class Stopwatch:
    """Adds up seconds of training, and of waiting among them; pauses do not count."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begins a new window now."""
        self._start = self._idle_since = time.perf_counter()
        self._waited, self._images = 0.0, 0

    def pause(self) -> None:
        """Something other than training begins."""
        self._paused_at = time.perf_counter()

    def resume(self) -> None:
        """Training goes on; the window moves by the length of the pause."""
        length = time.perf_counter() - self._paused_at
        self._start += length
        self._idle_since += length

    def batch_arrives(self) -> None:
        """The wait for a batch is over."""
        self._waited += time.perf_counter() - self._idle_since

    def batch_ends(self, num_images: int) -> dict[str, float]:
        """A step is done; the window's images a second and share of waiting so far."""
        self._idle_since = time.perf_counter()
        self._images += num_images
        elapsed = self._idle_since - self._start
        return {"train/images_per_second": self._images / elapsed, "train/data_wait_share": self._waited / elapsed}


class Throughput(Callback):
    """Logs images/s over all devices, and the share of wall time that the process waited for its next batch.

    Both are means since the last logged step; validation is left out. Nothing waits for the device: on an accelerator
    the pace is right once its queue is full, after a few steps.
    """

    def __init__(self) -> None:
        self._watch = Stopwatch()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock anew: what lies between epochs is not training."""
        self._watch.restart()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock."""
        self._watch.pause()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Goes on."""
        self._watch.resume()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The wait for this batch is over."""
        self._watch.batch_arrives()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the batch, and logs when the trainer does."""
        pl_module.log_dict(self._watch.batch_ends(len(batch["index"]) * trainer.world_size))
        if trainer._logger_connector.should_update_logs:
            self._watch.restart()
