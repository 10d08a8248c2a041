"""Callbacks for tests that look at a run from within."""

import hashlib
import os
import signal
from typing import Any, Literal

import torch.distributed as dist
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.distributed.tensor import DTensor


class StopAt(Callback):
    """Sends a signal, from within the run, once.

    Args:
        moment: When.
        signal: Which.
        target: Whom: the first process, the last, all of them, or what started them.
        times: How often, one after the other.
    """

    def __init__(
        self,
        moment: Literal["start", "step", "save", "validation"] = "step",
        signal: str = "SIGUSR1",
        target: Literal["first", "last", "all", "launcher"] = "last",
        times: int = 1,
    ) -> None:
        self.moment, self.signal, self.target, self.times = moment, signal, target, times
        self._done = False

    def _send(self, trainer: Trainer, moment: str) -> None:
        if self._done or moment != self.moment:
            return
        self._done = True
        rank, world = trainer.global_rank, trainer.world_size
        is_meant = {"first": rank == 0, "last": rank == world - 1, "all": True, "launcher": rank == 0}[self.target]
        for _ in range(self.times if is_meant else 0):
            os.kill(os.getppid() if self.target == "launcher" else os.getpid(), signal.Signals[self.signal])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._send(trainer, "start")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._send(trainer, "step")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._send(trainer, "save")

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._send(trainer, "validation")


class SameWeights(Callback):
    """Compares the weights of all processes when training ends, and says so."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        digest = hashlib.sha256()
        for parameter in pl_module.parameters():
            whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
            digest.update(whole.detach().cpu().numpy().tobytes())
        digests: list[str] = [""] * trainer.world_size
        dist.all_gather_object(digests, digest.hexdigest())
        assert len(set(digests)) == 1, digests
        if trainer.is_global_zero:
            print(f"the same weights on {trainer.world_size} ranks", flush=True)


class PlantNumber(Callback):
    """Makes a number of one step infinite or none, on the last process alone.

    Args:
        step: Which.
        where: In the loss and so in the gradient, in the gradient alone, or in the normalised images.
        value: What stands there.
    """

    def __init__(self, step: int, where: Literal["loss", "gradient", "input"], value: str) -> None:
        self.step, self.where, self.value = step, where, float(value)

    def _is_now(self, trainer: Trainer) -> bool:
        return trainer.global_step == self.step and trainer.global_rank == trainer.world_size - 1

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def planted(module: Any, arguments: Any, images: Any) -> Any:
            return images * self.value if pl_module.training and self._is_now(trainer) else images

        if self.where == "input":
            pl_module.normalize.register_forward_hook(planted)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Any) -> None:
        if self.where != "input" and self._is_now(trainer):
            loss.register_hook(lambda gradient: gradient * self.value)
        if self.where == "loss" and self._is_now(trainer):
            loss.data.fill_(self.value)
