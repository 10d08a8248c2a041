"""A run that is told to go saves once, and says that it wants to go on."""

import signal
from pathlib import Path
from types import FrameType
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from mae_lightning.callbacks.votes import Votes

REQUEUE_CODE = 75
"""The exit code for "not done, start me again": sysexits' EX_TEMPFAIL."""
MARKER = "REQUEUE"
"""In the run's folder, for launchers that hide the exit code."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Preempted(SystemExit):
    """Ends the process after its state is saved."""

    def __init__(self) -> None:
        super().__init__(REQUEUE_CODE)


class StopRequest:
    """Whether this process was told to go; the handler does nothing but note it.

    Attributes:
        name: The signal's name, or None.
    """

    def __init__(self) -> None:
        self.name: str | None = None

    def listen(self) -> None:
        """Takes the signals over, from whoever has them; only the main thread can."""
        for number in SIGNALS:
            signal.signal(number, self._note)

    def ignore(self) -> None:
        """Gives the signals back: from now on they end the process."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name


class Preemption(Callback):
    """On SIGTERM or SIGUSR1 to any process: all agree at a step's end, save one checkpoint, and exit with code 75.

    Each step's vote is gathered while the next step runs, over the CPU: no process waits for its device. A signal
    during validation stops it there; the resumed run validates again. The file REQUEUE in the run's folder says the
    same as the exit code; a run that goes on removes it.

    Args:
        run_dir: The run's folder.
        checkpoint: Where the state is saved.
        request: What was asked so far.
    """

    def __init__(self, run_dir: Path, checkpoint: Path, request: StopRequest | None = None) -> None:
        self.marker, self.checkpoint = run_dir / MARKER, checkpoint
        self.request = request or StopRequest()
        self._votes = Votes()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Takes the place of Lightning's way, which saves nothing, waits for the device in each step, and can hang."""
        if stage != "fit":
            return
        self.request.listen()
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
        if trainer.world_size > 1:
            self._votes.meet(trainer.strategy)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The run goes on: nobody need start it again."""
        if trainer.is_global_zero:
            self.marker.unlink(missing_ok=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """There is nothing left to save."""
        if stage == "fit":
            self.request.ignore()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops after a whole optimiser step."""
        if not trainer.fit_loop._should_accumulate() and self._agreed():
            self._stop(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stops in the middle of a validation."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking and self._agreed():
            self._stop(trainer)

    def _agreed(self) -> bool:
        """Whether some process had been told to go, as of a step ago."""
        return self._votes.cast(self.request.name is not None)

    def _stop(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.checkpoint)
        if trainer.is_global_zero:
            reason = self.request.name or "a signal to another process"
            self.marker.write_text(f"{reason} after {trainer.global_step} steps; the same command goes on\n")
            print(f"\n{reason}: saved after {trainer.global_step} steps; the same command goes on", flush=True)
        trainer.strategy.barrier("preempted")
        raise Preempted
