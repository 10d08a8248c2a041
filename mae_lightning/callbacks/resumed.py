"""The log of a run that was resumed is that of one that was never stopped."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.fabric.utilities.apply_func import convert_tensors_to_scalars
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

KEY = "unlogged_row"


class SeamlessLog(Callback):
    """Closes two gaps that Lightning leaves in the log of a resumed run.

    A step's figures are logged only after the checkpoint of that step is written: killed in between, they would be
    lost, so the checkpoint carries them. And a step is counted for the loggers only after the validation that follows
    it: one that was cut short, and is done again on resume, would stand a step too late.
    """

    def __init__(self) -> None:
        self._row: dict[str, Any] | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Puts the figures that are not logged yet into the checkpoint."""
        checkpoint[KEY] = unlogged_row(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes them out again."""
        self._row = checkpoint.get(KEY)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs them, once."""
        if self._row is not None:
            for logger in trainer.loggers:
                logger.log_metrics(self._row["figures"], step=self._row["step"])
                logger.save()
            self._row = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the count of a step back that is about to be validated again; Lightning adds it when that is over."""
        steps = trainer.fit_loop.epoch_loop
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and steps.restarting:
            steps._batches_that_stepped -= 1


def unlogged_row(trainer: Trainer) -> dict[str, Any] | None:
    """The step and figures of a batch that is trained on but not logged yet; None if there is none, or none is due."""
    steps, log = trainer.fit_loop.epoch_loop, trainer._logger_connector
    batches = steps.batch_progress.state_dict()["current"]
    is_between = trainer.training and batches["processed"] > batches["completed"]
    if not is_between or not log.should_update_logs or trainer.fit_loop._should_accumulate():
        return None
    figures = {name: float(value) for name, value in convert_tensors_to_scalars(log.metrics["log"]).items()}
    return {"step": steps._batches_that_stepped, "figures": {**figures, "epoch": trainer.current_epoch}}
