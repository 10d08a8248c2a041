"""The pace of training, and how much of it is waiting for data."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from mae_lightning.callbacks.waiting import around_waits


class Stopwatch:
    """Adds up seconds of training, and of waiting among them; pauses do not count."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begins a new window now."""
        self._start = time.perf_counter()
        self._waited, self._images = 0.0, 0

    def pause(self) -> None:
        """Something other than training begins."""
        self._paused_at, self._waited_before = time.perf_counter(), self._waited

    def resume(self) -> None:
        """Training goes on; the window moves by the length of the pause."""
        self._start += time.perf_counter() - self._paused_at
        self._waited = self._waited_before

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The wait for a batch."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    def batch_ends(self, num_images: int) -> dict[str, float]:
        """A step is done; the window's images a second and share of waiting so far."""
        self._images += num_images
        elapsed = time.perf_counter() - self._start
        return {"train/images_per_second": self._images / elapsed, "train/data_wait_share": self._waited / elapsed}


class Throughput(Callback):
    """Logs images/s over all devices, and the share of wall time that the process waited for the loader's next batch.

    Both are means since the last logged step; validation is left out. The wait is timed around the loader alone: what
    waits for the device between two steps, such as a progress bar, is no wait for data. Nothing here waits for the
    device: on an accelerator the pace is right once its queue is full, after a few steps.
    """

    def __init__(self) -> None:
        self._watch = Stopwatch()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Times each wait for a batch from now on."""
        around_waits(trainer, self._watch.waiting)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock anew: what lies between epochs is not training."""
        self._watch.restart()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock."""
        self._watch.pause()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Goes on."""
        self._watch.resume()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the batch, and logs when the trainer does."""
        pl_module.log_dict(self._watch.batch_ends(len(batch["index"]) * trainer.world_size))
        if trainer._logger_connector.should_update_logs:
            self._watch.restart()
