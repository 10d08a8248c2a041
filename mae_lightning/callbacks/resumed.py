"""A validation that a resumed run still owes is logged where it was due."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn


class ResumedValidation(Callback):
    """Gives a validation that was cut short, and is done again on resume, the step that it had.

    Lightning counts a step for its loggers only after the validation that follows it, and the state that a run goes on
    from stands after the count.
    """

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the count back; Lightning adds it again when the validation is over."""
        steps = trainer.fit_loop.epoch_loop
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and steps.restarting:
            steps._batches_that_stepped -= 1
