"""The log of a run that was resumed is that of one that was never stopped."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.fabric.utilities.apply_func import convert_tensors_to_scalars
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from mae_lightning.data.resume import is_validation_pending

KEY = "unlogged_row"


class SeamlessLog(Callback):
    """Closes three gaps that Lightning leaves in the log of a resumed run.

    A step's figures are logged only after the checkpoint of that step is written: killed in between, they would be
    lost, so the checkpoint carries them. And a step is counted for the loggers only after the validation that follows
    it: one that was cut short, and is done again on resume, would stand a step too late. The validation after the last
    of ``max_steps`` would not be done again at all: meanwhile one more step is allowed, and none is made.
    """

    def __init__(self) -> None:
        self._row: dict[str, Any] | None = None
        self._has_trained = False
        self._max_steps: int | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Puts the figures that are not logged yet into the checkpoint."""
        checkpoint[KEY] = unlogged_row(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes them out again, and leaves the door open for a validation after the last step."""
        self._row = checkpoint.get(KEY)
        steps, done = trainer.fit_loop.epoch_loop, checkpoint["global_step"]
        if trainer.state.fn == TrainerFn.FITTING and is_validation_pending(checkpoint) and steps.max_steps == done:
            self._max_steps, steps.max_steps = done, done + 1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs them, once; closes the door where no validation is due."""
        if self._row is not None:
            for logger in trainer.loggers:
                logger.log_metrics(self._row["figures"], step=self._row["step"])
                logger.save()
            self._row = None
        batches = trainer.fit_loop._data_fetcher
        assert batches is not None
        if not trainer.fit_loop.epoch_loop._should_check_val_fx(batches):
            self._restore_max_steps(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """A validation from now on follows a step of this start."""
        self._has_trained = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the count of a step back that is about to be validated again; Lightning adds it when that is over."""
        steps = trainer.fit_loop.epoch_loop
        is_training = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if is_training and steps.restarting and not self._has_trained:
            steps._batches_that_stepped -= 1
            self._restore_max_steps(trainer)

    def _restore_max_steps(self, trainer: Trainer) -> None:
        if self._max_steps is not None:
            trainer.fit_loop.epoch_loop.max_steps, self._max_steps = self._max_steps, None


def unlogged_row(trainer: Trainer) -> dict[str, Any] | None:
    """The step and figures of a batch that is trained on but not logged yet; None if there is none, or none is due."""
    steps, log = trainer.fit_loop.epoch_loop, trainer._logger_connector
    batches = steps.batch_progress.state_dict()["current"]
    is_between = trainer.training and batches["processed"] > batches["completed"]
    if not is_between or not log.should_update_logs or trainer.fit_loop._should_accumulate():
        return None
    figures = {name: float(value) for name, value in convert_tensors_to_scalars(log.metrics["log"]).items()}
    return {"step": steps._batches_that_stepped, "figures": {**figures, "epoch": trainer.current_epoch}}
