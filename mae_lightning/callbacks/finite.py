"""A run whose numbers are no numbers any more stops at once, and says where it happened."""

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from mae_lightning.callbacks.votes import Votes
from mae_lightning.data import data_of
from mae_lightning.tasks.task import Task

NAMED_KEYS = 5
"""Samples that the message itself names; the file has all."""
REMEMBERED = 8
"""Steps whose samples are kept: the host is never further ahead of the device in practice, and may be without harm."""


@dataclass(frozen=True)
class Step:
    """What an optimiser step came to, on its way from the device.

    Attributes:
        number: Steps before it.
        lr: The greatest learning rate.
        figures: Loss of this process and gradient norm of all, on the host once `arrived`.
        indices: Of this process's samples, where they are.
        arrived: Recorded when the copy is done; None on a CPU, where it is at once.
    """

    number: int
    lr: float
    figures: Tensor
    indices: tuple[Tensor, ...]
    arrived: torch.cuda.Event | None

    def is_known(self) -> bool:
        """Whether the figures are on the host."""
        return self.arrived is None or bool(self.arrived.query())  # type: ignore[no-untyped-call]

    def is_finite(self) -> bool:
        """Whether they are numbers; waits for them if need be."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return bool(self.figures.isfinite().all())


class NonFiniteError(ValueError):
    """A loss or gradient is infinite or not a number.

    Attributes:
        step: Optimiser steps before the first such one of any process.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class FiniteNumbers(Callback):
    """Stops all processes together when a loss or gradient is infinite or not a number.

    The figures of a step are copied to the host while later steps run, and looked at when they are there: no step
    waits. A few more steps are made meanwhile, on weights that are lost; before a checkpoint is written all figures are
    waited for, so that none is ever written of such weights. Under fp16 the loss alone is looked at: there the scaler
    leaves steps with infinite gradients out.

    Args:
        run_dir: Where the samples of the step are listed.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._steps: deque[Step] = deque()
        self._indices: list[Tensor] = []
        self._votes = Votes()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the other processes."""
        if stage == "fit" and trainer.world_size > 1:
            self._votes.meet(trainer.strategy)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Sends the step's figures on their way, and looks at those that have arrived.

        Raises:
            NonFiniteError: Some are no numbers, on this process or another.
        """
        assert isinstance(pl_module, Task)
        self._indices.append(batch["index"])
        if trainer.fit_loop._should_accumulate():
            return
        self._steps.append(self._on_its_way(trainer, pl_module))
        self._indices = []
        if self._votes.cast(self._first_bad(wait=False) is not None):
            self._fail(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Lets no checkpoint be written of weights that are lost.

        Raises:
            NonFiniteError: They are.
        """
        is_bad = self._first_bad(wait=True) is not None
        if trainer.strategy.reduce_boolean_decision(is_bad, all=False):
            self._fail(trainer)

    def _on_its_way(self, trainer: Trainer, task: Task) -> Step:
        norm = torch.zeros_like(task.gradient_norm) if trainer.precision == "16-mixed" else task.gradient_norm
        figures = torch.stack([task.step_loss.float(), norm.float()])
        arrived = None
        if figures.is_cuda:
            figures = figures.to("cpu", non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        lr = max(group["lr"] for group in trainer.optimizers[0].param_groups)
        return Step(trainer.global_step - 1, lr, figures, tuple(self._indices), arrived)

    def _first_bad(self, *, wait: bool) -> Step | None:
        """The first step that is known to be lost; steps known to be sound are forgotten."""
        while self._steps and (wait or len(self._steps) > REMEMBERED or self._steps[0].is_known()):
            if not self._steps[0].is_finite():
                return self._steps[0]
            self._steps.popleft()
        return None

    def _fail(self, trainer: Trainer) -> None:
        step = self._first_bad(wait=True)
        first = _first_of_all_processes(step.number if step else None)
        if step is None:
            raise NonFiniteError("stopped, because another process met numbers that are none", first)
        loss, norm = step.figures.tolist()
        keys = self._keys(trainer, step)
        listed = self.run_dir / f"non_finite-step-{step.number}-rank-{trainer.global_rank}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("".join(f"{key}\n" for key in keys))
        raise NonFiniteError(
            f"step {step.number} gave loss {loss:g} and gradient norm {norm:g} at learning"
            f" rate {step.lr:.3g}; its samples were {', '.join(keys[:NAMED_KEYS])}, ... ({len(keys)} in {listed});"
            " no checkpoint was written since; try a lower base_lr, more warm-up, gradient_clip_val or bf16",
            first,
        )

    @staticmethod
    def _keys(trainer: Trainer, step: Step) -> list[str]:
        indices = torch.cat(step.indices).tolist()
        data = data_of(trainer)
        return [str(index) if data is None else data.key_of("train", index) for index in indices]


def _first_of_all_processes(own: int | None) -> int:
    """The number of the first lost step that some process knows of."""
    if not (dist.is_available() and dist.is_initialized()):
        assert own is not None
        return own
    numbers: list[int | None] = [None] * dist.get_world_size()
    dist.all_gather_object(numbers, own)
    return min(number for number in numbers if number is not None)
