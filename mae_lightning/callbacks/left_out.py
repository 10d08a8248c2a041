"""Steps that a run passes over, because their numbers were none: its samples, not its counters, are fewer."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from mae_lightning.atomic import write_atomically
from mae_lightning.callbacks.finite import NonFiniteError
from mae_lightning.data.loader import Loader
from mae_lightning.tasks import Task

FILE = "left_out_steps.json"
MOST = 3
"""Steps left out in a run; then the fault is not in the samples."""


@dataclass(frozen=True)
class LeftOutStep:
    """A step that is passed over.

    Attributes:
        step: Optimiser steps before it.
        epoch: From 0.
        reason: What was wrong with it, on the first process.
        samples: The names of its samples, those of all processes.
    """

    step: int
    epoch: int
    reason: str
    samples: list[str]


class LeftOutSteps(Callback):
    """Passes over the steps that ``left_out_steps.json`` in the run's folder names.

    When its turn comes, the step's batch is read and dropped: no forward pass, no gradient, no update. Its number and
    the learning rate go on as if it had been made, so an epoch has as many steps as ever, all later steps have the
    samples, masks and rates that they would have had, and a run can be stopped, killed and resumed on other devices as
    before. No figures are logged for the step.

    Args:
        run_dir: The run's folder.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / FILE
        self.steps: list[LeftOutStep] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All processes take over what the first one finds."""
        found = json.loads(self.path.read_text()) if trainer.is_global_zero and self.path.is_file() else []
        self.steps = [LeftOutStep(**step) for step in trainer.strategy.broadcast(found)]
        if self.steps:
            optimization = trainer.fit_loop.epoch_loop.automatic_optimization
            optimization.run = self._passing_over(trainer, optimization.run)  # type: ignore[method-assign]

    def add(self, trainer: Trainer, task: Task, error: NonFiniteError) -> None:
        """Has the step of an error passed over from the next start on; all processes call it.

        Raises:
            ValueError: Too many are already.
        """
        if len(self.steps) >= MOST:
            numbers = ", ".join(str(step.step) for step in self.steps)
            raise ValueError(f"{error}; steps {numbers} were left out already ({self.path}): --run.recover ends here")
        steps_per_epoch = task.steps_per_epoch
        epoch, place = divmod(error.step, steps_per_epoch)
        left_out = LeftOutStep(error.step, epoch, str(error), samples_of(trainer, epoch, place))
        if trainer.is_global_zero:
            steps = [asdict(step) for step in (*self.steps, left_out)]
            write_atomically(self.path, json.dumps(steps, indent=1) + "\n")
            print(
                f"{error}\nstep {error.step} is left out ({len(self.steps) + 1} of at most {MOST} in a run); its"
                f" {len(left_out.samples)} samples are named in {self.path}; the run goes on from its last checkpoint",
                flush=True,
            )
        trainer.strategy.barrier("left out")

    def _passing_over(self, trainer: Trainer, run: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        numbers = {step.step for step in self.steps}

        def run_or_pass(*arguments: Any) -> dict[str, Any]:
            if trainer.global_step not in numbers:
                return run(*arguments)
            assert trainer._results is not None
            trainer._results.reset()  # the figures of the step before
            if not trainer.fit_loop._should_accumulate():
                step = trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step
                step.increment_ready()
                step.increment_completed()
            return {}

        return run_or_pass


def samples_of(trainer: Trainer, epoch: int, place: int) -> list[str]:
    """The names of the samples of a global batch: which batch of an epoch it is decides, not the process."""
    loader = trainer.train_dataloader
    if not isinstance(loader, Loader):
        return []
    order, keys = loader.stream.order(epoch), loader.stream.manifest.keys
    return [keys[row] for row in order.line[order.table[place]].tolist()]
