"""How much of a run's time went into steps that count, over all its starts."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from mae_lightning.atomic import write_atomically
from mae_lightning.callbacks.left_out import LeftOutSteps
from mae_lightning.callbacks.waiting import around_waits
from mae_lightning.data import data_of
from mae_lightning.tracking import log_summary
from mae_lightning.tracking.unfailing import Unfailing

FILE = "goodput.json"


@dataclass
class Ledger:
    """Seconds and steps of a run, over all its starts.

    Attributes:
        wall: Seconds in which a process was there.
        stepping: Seconds of them in training steps, until the next wait, validation or save; those that were later
            replayed among them.
        waiting: Seconds in which training waited for the loader's batches.
        validating: Seconds of validation.
        saving: Seconds of writing checkpoints.
        starts: How often the run was started.
        steps: Optimiser steps made, replayed ones among them.
        replayed: Steps that were lost with a process and made again.
        reached: The step after which the ledger was last written.
    """

    wall: float = 0.0
    stepping: float = 0.0
    waiting: float = 0.0
    validating: float = 0.0
    saving: float = 0.0
    starts: int = 0
    steps: int = 0
    replayed: int = 0
    reached: int = 0

    @property
    def goodput(self) -> float:
        """The share of the wall time that went into steps that count."""
        counted = 1 - self.replayed / max(1, self.steps)
        return self.stepping * counted / self.wall if self.wall else 0.0

    def line(self, skipped: int) -> str:
        """The ledger for people."""
        return (
            f"goodput {self.goodput:.0%} of {self.wall:,.0f} s: {self.stepping:,.0f} s of steps, {self.waiting:,.0f} s"
            f" waiting for data, {self.validating:,.0f} s validating, {self.saving:,.1f} s saving;"
            f" {self.starts} starts, {self.replayed} of {self.steps} steps replayed, {skipped} samples skipped"
        )


class Goodput(Callback):
    """Keeps the run's ledger in ``goodput.json``, prints it as one line at the end and gives W&B its share.

    What was lost with a killed process is known from the ledger's last write, so replayed steps are right to the
    interval of logging.

    Args:
        run_dir: The run's folder.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / FILE
        self._unfailing = Unfailing(f"writing {self.path}")
        self._is_kept = False
        self.ledger = Ledger()
        self._waited = 0.0
        self._stepping_since: float | None = None
        self._counted_until = self._paused = time.perf_counter()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Opens the ledger of the run's earlier starts, a new one if it is torn, and times saving and waiting."""
        self._is_kept = stage == "fit" and not getattr(trainer, "fast_dev_run", False)
        if not self._is_kept:
            return
        with Unfailing(f"reading {self.path}", Exception):
            if self.path.is_file():
                self.ledger = Ledger(**json.loads(self.path.read_text()))
        self.ledger.starts += 1
        strategy = trainer.strategy
        strategy.save_checkpoint = self._timed(strategy.save_checkpoint)  # type: ignore[method-assign]
        around_waits(trainer, self._waiting)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What lies beyond the checkpoint will be made again."""
        self.ledger.replayed += max(0, self.ledger.reached - trainer.global_step)
        self.ledger.reached = trainer.global_step

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The time of the first step begins: what was waited for before was not training."""
        self._waited = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The wait for the batch is over."""
        self._stepping_since = time.perf_counter()
        self.ledger.waiting += self._waited
        self._waited = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the step, whose time goes on: what follows waits for the device; writes when the trainer logs."""
        self.ledger.steps += trainer.global_step - self.ledger.reached
        self.ledger.reached = trainer.global_step
        if trainer._logger_connector.should_update_logs:
            self._write(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Training pauses."""
        self._count_step()
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Training goes on."""
        self.ledger.validating += time.perf_counter() - self._paused
        self._waited = 0.0

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints and logs the ledger, on the first process."""
        self._count_step()
        self._write(trainer)
        if not (self._is_kept and trainer.is_global_zero):
            return
        print(self.ledger.line(_skipped_samples(trainer)), flush=True)
        log_summary(trainer.loggers, "goodput", self.ledger.goodput)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keeps what is known."""
        self._write(trainer)

    def _count_step(self) -> bool:
        """Ends the time of the step, if one runs, and says whether one did."""
        since, self._stepping_since = self._stepping_since, None
        if since is not None:
            self.ledger.stepping += time.perf_counter() - since
        return since is not None

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        self._count_step()
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    def _timed(self, save: Callable[..., None]) -> Callable[..., None]:
        def timed(*arguments: Any, **options: Any) -> None:
            was_stepping, began = self._count_step(), time.perf_counter()
            save(*arguments, **options)
            now = time.perf_counter()
            self.ledger.saving += now - began
            self._stepping_since = now if was_stepping else None

        return timed

    def _write(self, trainer: Trainer) -> None:
        """Brings the wall time up to now, and the ledger to the disk, in place of the one before."""
        is_stepping, now = self._count_step(), time.perf_counter()
        self._stepping_since = now if is_stepping else None
        self.ledger.wall += now - self._counted_until
        self._counted_until = now
        if not (self._is_kept and trainer.is_global_zero and self.path.parent.is_dir()):
            return
        with self._unfailing:
            write_atomically(self.path, json.dumps(asdict(self.ledger)) + "\n")


def _skipped_samples(trainer: Trainer) -> int:
    """Those that could not be read, and those of steps that were left out."""
    data = data_of(trainer)
    unread = 0 if data is None else len(data.bad_samples.seen)
    passed = [callback.steps for callback in getattr(trainer, "callbacks", []) if isinstance(callback, LeftOutSteps)]
    return unread + sum(len(step.samples) for steps in passed for step in steps)
